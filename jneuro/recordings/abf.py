"""Axon Binary Format, which pCLAMP writes, of version 1 or 2: current-clamp sweeps read."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.types import Float
from jneuro.recordings.pairing import (
    Channel,
    Command,
    CurrentSource,
    choose_current,
    compare_currents,
    current_channels,
    potential_channel,
    said_potentials,
    sweeps_recording,
)
from jneuro.recordings.readers import ReadError, check_sweeps, extra, from_elsewhere, parsed
from jneuro.recordings.recording import Recording
from jneuro.recordings.units import factor_to

__all__ = ["read_abf"]

_MODES = {1: "events of variable length", 2: "events of fixed length", 3: "gap-free"}
"""Values of nOperationMode in which outputs stay at their holding level."""
_CURRENT_CLAMP = (1, 2)
"""Values of nTelegraphMode by which an amplifier says current clamp, and current clamp with I = 0."""


class _Header(NamedTuple):
    """What a header says of inputs (ADC) and outputs (DAC), under the names of its fields, alike for both versions."""

    inputs: list[Channel]
    numbers: list[int]  # of the inputs at the digitizer; an electrode's output has the same number
    telegraph: list[int | None]  # nTelegraphMode of the inputs, where nTelegraphEnable
    outputs: list[Channel]
    holding: list[float]  # fDACHoldingLevel
    enabled: list[int]  # nWaveformEnable
    source: list[int]  # nWaveformSource
    mode: int  # nOperationMode
    alternating: int  # nAlternateDACOutputState
    user_list: tuple[int, list[float]] | None  # nULParamToVary and the values
    trains: dict[tuple[int, int], tuple[int, int]]  # of version 1: period and width by output and epoch

    def on(self, output: int) -> bool:
        """Whether an output's waveform was on."""
        return self.mode not in _MODES and output < len(self.enabled) and bool(self.enabled[output])

    def said(self, output: int) -> str:
        """The fields that say what an output commands."""
        enabled = self.enabled[output] if output < len(self.enabled) else 0
        unit = self.outputs[output].unit
        return f"sDACChannelUnits[{output}] = {unit!r}, nWaveformEnable[{output}] = {enabled}"


@from_elsewhere("pyabf", "jneuro.recordings.rehearsal:walk_abf")
def read_abf(
    path: Path,
    sweeps: Sequence[int] | None = None,
    *,
    channel: int | str | None = None,
    current_channel: int | str | None = None,
    unit: str | None = None,
    current_unit: str | None = None,
    current: CurrentSource = "auto",
    limit_mv: float = 1e3,
    limit_pa: float = 1e7,
) -> Recording:
    """Read a current-clamp recording in Axon Binary Format, which pCLAMP writes, of version 1 or 2.

    The potential is the first channel in mV, else in V. The current is what the output of the same number, or the only
    one in amperes, commanded, unless a measured one contradicts it; then that. `about` says which, and why.

    Args:
        path: the file.
        sweeps: which sweeps; all by default.
        channel: the potential's channel, by its number from 0 or its name.
        current_channel: the channel of the measured current.
        unit: the unit of the potential's numbers, where the file's is wrong.
        current_unit: the unit of the measured current's numbers, where the file's is wrong.
        current: "command", "measured", or "auto": the command unless a measured current contradicts it.
        limit_mv: larger potentials are refused [mV].
        limit_pa: larger currents are refused [pA].

    Returns:
        The recording; see `read`.

    Raises:
        ReadError: if it cannot be read or not be used, with the header's field that forces it.
    """
    pyabf = extra("pyabf", path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a stimulus file that is not there; said below
        abf = parsed(path, lambda: pyabf.ABF(str(path)))
        header = parsed(path, lambda: _header(path, abf))
        numbers = list(range(abf.sweepCount)) if sweeps is None else list(sweeps)
        check_sweeps(path, numbers, abf.sweepCount)
        potential, factor = potential_channel(path, header.inputs, channel, unit, _hint(header))
        v = _recorded(path, abf, potential, numbers, factor)
        output = _output(path, abf, header, potential, v, numbers, explicit=current_channel is not None)
        commands = _commands(abf, header, header.numbers[potential], output, numbers, v.shape[1])
        found = current_channels(path, header.inputs, potential, current_channel, current_unit)
        measured = _measured(path, abf, header, found, numbers, explicit=current_channel is not None)
    dt = float(f"{1e3 / abf.dataRate:.12g}")
    taken, said = choose_current(path, commands, measured, which=current, dt=dt)
    about = {
        "file": path.name,
        "protocol": str(abf.protocol),
        "date": abf.abfDateTime.isoformat(),
        "cell": path.stem,
        "format": f"ABF {abf.abfVersionString}",
        "current": said,
        **said_potentials(header.inputs, potential),
    }
    limits = (limit_mv, limit_pa)
    return sweeps_recording(path, v[..., None], taken[..., None], dt, about, numbers, limits=limits)


def _channels(names: Sequence[str], units: Sequence[str]) -> list[Channel]:
    return [Channel(n.strip("\0 "), u.strip("\0 ")) for n, u in zip(names, units, strict=True)]


def _header(path: Path, abf: Any) -> _Header:
    """Read the fields that the pairing needs."""
    common = {"inputs": _channels(abf.adcNames, abf.adcUnits), "mode": abf.nOperationMode}
    if abf.abfVersion["major"] == 2:
        adc, dac, protocol, listed = abf._adcSection, abf._dacSection, abf._protocolSection, abf._userListSection
        strings = abf._stringsSection._indexedStrings
        varied = [p for p in listed.nULParamToVary if p]
        return _Header(
            **common,
            numbers=list(adc.nADCNum),
            telegraph=[m if e else None for e, m in zip(adc.nTelegraphEnable, adc.nTelegraphMode, strict=True)],
            outputs=_channels(
                *([strings[i] for i in at] for at in (dac.lDACChannelNameIndex, dac.lDACChannelUnitsIndex))
            ),
            holding=list(dac.fDACHoldingLevel),
            enabled=list(dac.nWaveformEnable),
            source=list(dac.nWaveformSource),
            alternating=protocol.nAlternateDACOutputState,
            user_list=(varied[0], list(abf.userList or ())) if varied else None,
            trains={},
        )
    # Version 1 has its fields at fixed places; files of other programs end the header before the later groups.
    head, data = abf._headerV1, path.read_bytes()[:6144]
    size = 512 * head.lDataSectionPtr

    def field(code: str, offset: int) -> list[Any]:
        inside = size >= offset + struct.calcsize(code)
        return list(struct.unpack_from(code, data, offset)) if inside else []

    numbers = list(head.nADCSamplingSeq[: abf.channelCount])
    modes = [*zip(field("16h", 4512), field("16h", 4768), strict=True)] or [(0, 0)] * 16
    holding, listed = field("4f", 1394), field("4h", 3360)
    period, width = field("20i", 2136), field("20i", 2216)
    if holding:
        abf.holdingCommand = holding  # pyabf takes the levels of the first epochs for these
    user_list = None
    if any(listed):
        values = data[3376:3632].split(b"\0")[0].decode("ascii", "ignore").split(",")
        user_list = (field("4h", 3368)[0], [float(x) for x in values if x.strip()])
    return _Header(
        **common,
        numbers=numbers,
        telegraph=[m if e else None for e, m in (modes[n] for n in numbers)],
        outputs=_channels(abf.dacNames, abf.dacUnits),
        holding=holding,
        enabled=field("2h", 2296),
        source=field("2h", 2300),
        alternating=(field("h", 5876) or [0])[0],
        user_list=user_list,
        trains={(i // 10, i % 10): (p, w) for i, (p, w) in enumerate(zip(period, width, strict=True))},
    )


def _hint(header: _Header) -> str:
    """What the header says of the mode, for the message that no channel is in volts."""
    told = [f"nTelegraphMode[{i}] = {m}" for i, m in enumerate(header.telegraph) if m in _CURRENT_CLAMP]
    clamps = [header.said(d) for d, c in enumerate(header.outputs) if c.unit == "mV" and header.on(d)]
    said = f"{told[0]}: the amplifier says current clamp" if told else clamps[0] if clamps else ""
    return f" ({said})" if said else ""


def _recorded(
    path: Path, abf: Any, channel: int, numbers: Sequence[int], factor: float
) -> Float[np.ndarray, "trial time"]:
    """A recorded channel, scaled; single precision, as the file's integers are."""
    # pyabf's setSweep would make the waveforms of all sweeps anew for each.
    sizes = np.full(abf.sweepCount, abf.sweepPointCount)
    if abf.abfVersion["major"] == 2 and abf.sweepCount > 1 and len(set(abf._synchArraySection.lLength)) > 1:
        sizes = np.asarray(abf._synchArraySection.lLength) // abf.channelCount
    ends, samples = np.cumsum(sizes), abf.data[channel]
    if ends[-1] > len(samples):
        raise ReadError(f"{path}: holds {len(samples)} samples of a channel, but declares {ends[-1]}; get it anew")
    found = [samples[ends[n] - sizes[n] : ends[n]].copy() for n in numbers]
    if len({len(sweep) for sweep in found}) > 1:
        lengths = ", ".join(f"{n}: {len(sweep)}" for n, sweep in zip(numbers, found, strict=True))
        raise ReadError(f"{path}: its sweeps have different numbers of samples ({lengths}); choose with sweeps=[...]")
    return np.stack(found) if factor == 1 else np.stack(found) * np.float32(factor)


def _measured(
    path: Path, abf: Any, header: _Header, found: dict[int, float], numbers: Sequence[int], *, explicit: bool
) -> dict[str, Float[np.ndarray, "trial time"]]:
    """The measured currents by name; where none is named, without those whose own output clamps another electrode."""
    own = [i for i in found if explicit or not _clamps(abf, header, header.numbers[i])]
    named = {i: header.inputs[i].name for i in own}
    twice = len(set(named.values())) < len(named)
    return {f"{i} {n}" if twice else n: _recorded(path, abf, i, numbers, found[i]) for i, n in named.items()}


def _epochs(abf: Any, header: _Header, output: int) -> Any:
    """pyabf's table of an output's epochs, with the trains that it does not read in version 1."""
    import pyabf.waveform

    table = parsed(Path(abf.abfFilePath), lambda: pyabf.waveform.EpochTable(abf, output))
    for epoch in table.epochs:
        if (output, epoch.epochNumber) in header.trains:
            epoch.pulsePeriod, epoch.pulseWidth = header.trains[output, epoch.epochNumber]
    return table


def _clamps(abf: Any, header: _Header, output: int) -> bool:
    """Whether an output plays a waveform in mV, of epochs or of a file."""
    if output >= len(header.outputs) or factor_to(header.outputs[output].unit, "mV") != 1 or not header.on(output):
        return False
    return header.source[output] == 2 or (header.source[output] == 1 and bool(_epochs(abf, header, output).epochs))


def _output(
    path: Path,
    abf: Any,
    header: _Header,
    potential: int,
    v: Float[np.ndarray, "trial time"],
    numbers: Sequence[int],
    *,
    explicit: bool,
) -> int | None:
    """The output that commands the current of a potential's electrode; refused if one commands a potential onto it.

    That is the output of the same number, where it is in amperes; else the only one that is, and is on. An output in mV
    that plays a waveform is a voltage clamp, but where the amplifier says current clamp, or where the potential's own
    output is in amperes and the potential does not follow the mV: those may drive a light, or another electrode.
    """

    def amperes(output: int) -> bool:
        return factor_to(header.outputs[output].unit, "pA") is not None

    def refuse(output: int, more: str = "") -> None:
        raise ReadError(
            f"{path}: its command is in {header.outputs[output].unit}, so this is voltage clamp "
            f"({header.said(output)}{more}); take current clamp"
        )

    number, told = header.numbers[potential], header.telegraph[potential] in _CURRENT_CLAMP
    own = number if number < len(header.outputs) else None
    if own is not None and amperes(own) and header.on(own):
        return own
    if not told:
        for output in (d for d in range(len(header.outputs)) if _clamps(abf, header, d)):
            command = _waveform(abf, header, output, numbers, v.shape[1])
            played = command.values if command.values is not None and np.ptp(command.values) else None
            follows = played is not None and compare_currents(played, v, 1e3 / abf.dataRate).agrees
            if own is None or not amperes(own) or follows:
                refuse(output)
    if own is not None and amperes(own):
        return own
    # An output of the number of another potential is for that one's electrode.
    others = {n for i, n in enumerate(header.numbers) if i != potential and factor_to(header.inputs[i].unit, "mV")}
    playing = [d for d in range(len(header.outputs)) if amperes(d) and header.on(d) and d not in others]
    if len(playing) == 1:
        return playing[0]
    if own is not None and factor_to(header.outputs[own].unit, "mV") is not None and not told:
        if own < len(header.holding) and header.holding[own] and header.outputs[own].unit == "mV":
            refuse(own, f", fDACHoldingLevel[{own}] = {header.holding[own]:g}")
        if not explicit:
            refuse(own, "; if it was current clamp, name the measured current: current_channel=…")
    return None


def _commands(
    abf: Any, header: _Header, number: int, output: int | None, numbers: Sequence[int], length: int
) -> list[Command]:
    """What may have been commanded: the waveform, and with a user list as the levels of each of its epochs [pA]."""
    if output is None:
        said = f"; {header.said(number)}" if number < len(header.outputs) else ""
        return [Command(None, "", f"no output of this electrode, nADCNum = {number}, commands a current{said}")]
    plain = _waveform(abf, header, output, numbers, length)
    factor = np.float32(factor_to(header.outputs[output].unit, "pA") or 1)
    found = [plain]
    if header.user_list is not None and plain.values is not None:
        varied, values = header.user_list
        fault = f"a user list was on (nULParamToVary = {varied}), and what it varied must be confirmed"
        found = [plain._replace(fault=fault)]
        for at in range(len(_epochs(abf, header, output).epochs)) if values else ():
            listed = _waveform(abf, header, output, numbers, length, levels=(at, values))
            origin = f"{plain.origin} with the user list as levels"
            found.append(listed._replace(origin=origin, fault=fault))
    return [c if c.values is None else c._replace(values=c.values * factor) for c in found]


def _waveform(
    abf: Any,
    header: _Header,
    output: int,
    numbers: Sequence[int],
    length: int,
    levels: tuple[int, list[float]] | None = None,
) -> Command:
    """The waveform of an output in its unit, or the field by which the header says that it cannot be made anew."""
    import pyabf.stimulus

    origin = f"output {output} {header.outputs[output].name!r}"

    def cannot(why: str) -> Command:
        return Command(None, origin, why)

    if header.mode in _MODES:
        return cannot(f"no command waveform was on: nOperationMode = {header.mode}, {_MODES[header.mode]}")
    if not header.on(output):
        enabled = header.enabled[output] if output < len(header.enabled) else "absent"
        return cannot(f"no command waveform was on: nWaveformEnable[{output}] = {enabled}")
    if header.alternating:
        return cannot(f"the outputs alternate from sweep to sweep: nAlternateDACOutputState = {header.alternating}")
    source = f"nWaveformSource[{output}] = {header.source[output]}"
    try:
        if header.source[output] == 1:
            table = _epochs(abf, header, output)
            waves = table.getEpochWaveformsBySweep(abf)
            if levels is not None:
                waves = _with_levels(table, abf, *levels)
            found = [waves[n].getWaveform()[:length] for n in numbers]
            origin = f"the epochs of {origin}"
        elif header.source[output] == 2 and abf.abfVersion["major"] == 2:
            dac = abf._dacSection
            for name, plain in (("fDACFileScale", 1), ("fDACFileOffset", 0), ("lDACFileEpisodeNum", 0)):
                if getattr(dac, name)[output] != plain:
                    return cannot(f"of its stimulus file, {name}[{output}] = {getattr(dac, name)[output]:g}")
            if dac.lDACFileNumEpisodes[output] > 1:
                episodes = dac.lDACFileNumEpisodes[output]
                return cannot(f"its stimulus file has more than one sweep: lDACFileNumEpisodes[{output}] = {episodes}")
            name = abf._stringsSection._indexedStrings[dac.lDACFilePathIndex[output]]
            if pyabf.stimulus.findStimulusWaveformFile(abf, output) is None:
                return cannot(f"the stimulus file {name!r} is not beside this one ({source})")
            found = [np.asarray(pyabf.stimulus.stimulusWaveformFromFile(abf, output))] * len(numbers)
            origin = f"the stimulus file {name!r} of {origin}"
        else:
            return cannot(f"no command waveform can be made of {source}")
    except (ValueError, IndexError, AssertionError, NotImplementedError, TypeError) as error:
        return cannot(f"its command waveform cannot be made ({source}): {error}")
    values = np.array(found, np.float32) if len({len(x) for x in found}) == 1 else np.zeros((1, 0), np.float32)
    if values.shape[1] != length:
        return cannot(f"its command waveform has other lengths than its sweeps ({source})")
    if not np.isfinite(values).all():
        return cannot(f"its command waveform has epochs of an unknown nEpochType ({source})")
    return Command(values, origin)


def _with_levels(table: Any, abf: Any, at: int, values: list[float]) -> list[Any]:
    """The waveforms of all sweeps with a user list as the levels of one epoch; its last value holds on."""
    epoch, waves = table.epochs[at], []
    epoch.levelDelta = 0.0
    for sweep in range(abf.sweepCount):
        epoch.level = values[min(sweep, len(values) - 1)]
        waves.append(table.getEpochWaveformsBySweep(abf)[sweep])
    return waves
