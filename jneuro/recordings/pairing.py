"""Which current belongs to which potential, and whether both can be what a file says that they are; for all formats.

A file may hold what was commanded, what was measured, or both. Where it holds both, they are compared: a measured
current is the commanded one behind a filter, scaled, on an offset of its monitor and with noise. What is more than that
means that one of the two is not the current that the cell got.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jneuro.core.types import Float
from jneuro.recordings.readers import ReadError, clipped
from jneuro.recordings.recording import Recording, from_arrays
from jneuro.recordings.units import factor_to, unit_factor

__all__ = [
    "Agreement",
    "Channel",
    "Command",
    "CurrentSource",
    "choose_current",
    "compare_currents",
    "current_channels",
    "find_channel",
    "potential_channel",
    "require_plausible",
    "said_potentials",
    "start_shift",
    "sweeps_recording",
]

CurrentSource = Literal["auto", "command", "measured"]
"""Which current is taken: the commanded, the measured, or the commanded one unless a measured one contradicts it."""

_LAG_MS = 5.0
"""A monitor lags behind its command by no more than this."""
_SMOOTH_MS = 1.0
"""Differences are judged as means over this time; as long after a jump of the command, a filter explains them."""
_GAIN = 0.1
"""Monitors are calibrated to this share of their signal."""
_FLOOR = 0.02
"""Share of the largest current below which a difference is none."""
_NOISES = 6.0
"""A difference of as many standard deviations of the monitor's noise is none."""


class Channel(NamedTuple):
    """What a file records under one name.

    Attributes:
        name: as the file has it.
        unit: as the file has it, such as `mV` or `amperes`.
    """

    name: str
    unit: str


class Command(NamedTuple):
    """A current that was commanded, as far as a file says it.

    Attributes:
        values: the current `[trial, time]` [pA]; None where the file cannot tell it.
        origin: where it comes from, such as "the epochs of output 0 'Cmd 0'".
        fault: why the file alone does not make it certain, with the field that says so; empty if it does. Values with
            a fault are taken only where a measured channel confirms them.
    """

    values: Float[np.ndarray, "trial time"] | None
    origin: str
    fault: str = ""


class Agreement(NamedTuple):
    """A measured current beside a commanded one.

    Attributes:
        lag: by which the measured one comes later [ms].
        gain: slope of the measured over the commanded one; NaN where the command is constant.
        offset: of the monitor, the median difference [pA].
        correlation: of both; NaN where one is constant.
        difference: the largest, as a mean over 1 ms, offset taken off, away from jumps of the command [pA].
        noise: standard deviation of such means [pA].
        agrees: whether lag, offset, a gain of 0.9 to 1.1 and noise explain the measured current.
        doubt: why neither of the two can be trusted, where they disagree; else empty.
    """

    lag: float
    gain: float
    offset: float
    correlation: float
    difference: float
    noise: float
    agrees: bool
    doubt: str

    def __str__(self) -> str:
        """The numbers in one line."""
        return (
            f"gain {self.gain:.3g}, lag {self.lag:.3g} ms, offset {self.offset:.3g} pA, correlation "
            f"{self.correlation:.4g}, largest difference {self.difference:.3g} pA, noise {self.noise:.2g} pA"
        )


def _lag(command: Float[np.ndarray, "trial time"], measured: Float[np.ndarray, "trial time"], most: int) -> int:
    """The lag in samples, 0 to `most`, at which both are most alike."""
    c, m = (x - x.mean(1, keepdims=True) for x in (command, measured))
    size = c.shape[1] + most
    alike = sum(
        np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size) for a, b in zip(c, m, strict=True)
    )
    return int(np.argmax(np.asarray(alike)[: most + 1]))


def _means(x: Float[np.ndarray, "trial time"], width: int) -> Float[np.ndarray, "trial time"]:
    """Centred means over some samples; the ends are repeated."""
    padded = np.pad(x, ((0, 0), (width // 2 + 1, width - 1 - width // 2)), mode="edge")
    sums = np.cumsum(padded, 1)
    return (sums[:, width:] - sums[:, :-width]) / width


def _spread(x: np.ndarray) -> float:
    """The standard deviation of what is normal in most samples."""
    return 1.4826 * float(np.median(np.abs(x - np.median(x))))


def compare_currents(
    command: Float[np.ndarray, "trial time"], measured: Float[np.ndarray, "trial time"], dt: float
) -> Agreement:
    """Compare a measured current with a commanded one.

    Args:
        command: what was commanded [pA].
        measured: what a monitor recorded of it [pA].
        dt: time between samples [ms].

    Returns:
        How they agree.

    Example:
        >>> command = np.zeros((1, 1000))
        >>> command[0, 300:700] = 100.0
        >>> found = compare_currents(command, np.roll(command, 2) + 79.0, dt=0.1)
        >>> found.agrees, found.lag, found.offset
        (True, 0.2, 79.0)
    """
    c, m = np.asarray(command, np.float64), np.asarray(measured, np.float64)
    reach = float(np.ptp(c))
    lag = _lag(c, m, min(round(_LAG_MS / dt), c.shape[1] - 1)) if reach else 0
    c = np.concatenate([np.repeat(c[:, :1], lag, 1), c[:, : c.shape[1] - lag]], 1)
    offset = float(np.median(m - c))
    width = max(1, min(round(_SMOOTH_MS / dt), c.shape[1]))
    jumps = np.zeros(c.shape)
    jumps[:, 1:] = np.abs(np.diff(c, axis=1)) > 0.05 * reach
    steady = _means(jumps, min(4 * width + 1, c.shape[1])) < 0.5 / (4 * width + 1)
    rest, seen = _means(m - c - offset, width), _means(m, width)
    gain = correlation = float("nan")
    noise = _spread(rest)
    if reach:
        dc, dm = c - c.mean(), m - m.mean()
        gain = float((dc * dm).mean() / (dc**2).mean())
        correlation = gain * float(dc.std() / dm.std()) if dm.std() else 0.0
        noise = min(noise, _spread(_means(m - gain * c, width)))
    allowed = _NOISES * noise + _FLOOR * max(reach, float(np.ptp(seen))) + _GAIN * np.abs(c - np.median(c))
    far = np.abs(rest) * steady
    agrees = bool((far <= allowed).all()) and (not reach or abs(gain - 1) <= _GAIN)
    doubt, moves = "", float(np.subtract(*np.percentile(seen, [99.9, 0.1])))
    if not agrees and reach and abs(correlation) < 0.5 and moves < 0.2 * reach:
        doubt = "the measured current does not move with the command: it was not played, or its monitor was off"
    elif not agrees and abs(correlation) > 0.9 and not 0.5 < gain < 2:
        doubt = "they have one shape and two scales: the unit or the gain of one is wrong"
    return Agreement(lag * dt, gain, offset, correlation, float(far.max()), noise, agrees, doubt)


def choose_current(
    path: Path,
    commands: Sequence[Command],
    measured: Mapping[str, Float[np.ndarray, "trial time"]],
    *,
    which: CurrentSource = "auto",
    dt: float,
) -> tuple[Float[np.ndarray, "trial time"], str]:
    """Take the current that belongs to a potential.

    Args:
        path: the file, for messages.
        commands: what may have been commanded, the likeliest first.
        measured: recorded currents that may be this electrode's, by their names [pA].
        which: the user's word. "auto" takes a command that a measured channel confirms, or that is certain where none
            was measured; else the measured one. "command" takes the command also where a measured one contradicts it.
        dt: time between samples [ms].

    Returns:
        The current [pA], and one line that says which it is and why.

    Raises:
        ReadError: if there is none, or if what was seen leaves it open; with the field that forces it.
    """
    if which not in ("auto", "command", "measured"):
        raise ReadError(f"{path}: current = {which!r} must be 'auto', 'command' or 'measured'")
    seen = [
        (c, n, compare_currents(c.values, m, dt)) for c in commands if c.values is not None for n, m in measured.items()
    ]
    if which != "measured" and (taken := _commanded(commands, measured, which, seen)):
        return taken
    return _measured(path, commands, measured, which, seen)


_Seen = Sequence[tuple[Command, str, Agreement]]


def _commanded(
    commands: Sequence[Command], measured: Mapping[str, np.ndarray], which: CurrentSource, seen: _Seen
) -> tuple[np.ndarray, str] | None:
    """A command that a measured channel confirms, or that is certain and taken without; None if there is none."""
    # What is uncertain is not confirmed by a channel that cannot tell, as nothing changes in either.
    agreeing = [(c, n, found) for c, n, found in seen if found.agrees and not (c.fault and np.isnan(found.gain))]
    for command, name, found in sorted(agreeing, key=lambda one: one[2].difference)[:1]:
        why = f"the measured {name!r} agrees: {found}"
        if np.isnan(found.gain):
            why = f"the measured {name!r} is constant too, {found.offset:.3g} pA above, by an offset or not"
        return np.asarray(command.values), f"command, {command.origin}; {why}"
    for command in commands:
        if command.values is not None and not command.fault and (which == "command" or not measured):
            against = "; ".join(f"the measured {n!r} contradicts it: {found}" for c, n, found in seen if c is command)
            return command.values, f"command, {command.origin}; {against or 'no current was measured'}"
    return None


def _measured(
    path: Path,
    commands: Sequence[Command],
    measured: Mapping[str, np.ndarray],
    which: CurrentSource,
    seen: _Seen,
) -> tuple[np.ndarray, str]:
    """The measured current, where no command is taken; refused where there is none, or where it is doubtful."""
    names = ", ".join(map(repr, measured))
    faults = "; ".join(dict.fromkeys(c.fault for c in commands if c.fault))
    if not measured:
        what = "no measured channel" if which == "measured" else faults or "no command"
        raise ReadError(
            f"{path}: holds no stimulus: {what}, and no channel is in amperes; if one of its channels is the current "
            "under a wrong unit, say current_channel=… and current_unit='pA'"
        )
    if which == "command":
        raise ReadError(f"{path}: holds no command that can be taken: {faults}; current='measured' takes {names}")
    if len(measured) > 1:
        why = f": {faults}" if faults else ""
        raise ReadError(
            f"{path}: more than one channel may be its current ({names}), and no command tells which{why}; say "
            "current_channel=…"
        )
    name, values = next(iter(measured.items()))
    why = "as you say" if which == "measured" else faults or "it contradicts the command"
    if not seen:
        rest = f"{np.median(values):.3g} pA"
        return values, f"measured, {name!r} ({why}); an offset of its monitor, if any, is in it: it rests at {rest}"
    found = seen[0][2]
    if found.doubt and which == "auto":
        raise ReadError(
            f"{path}: the command and the measured {name!r} contradict each other, and {found.doubt} ({found}); say "
            "current='command' or current='measured'"
        )
    # Where the command rests, the current is the commanded one; what the monitor shows beyond it was not injected.
    values = (values - values.dtype.type(found.offset)).astype(values.dtype)
    return values, f"measured, {name!r} ({why}: {found}), its offset taken off"


def find_channel(path: Path, channels: Sequence[Channel], wanted: int | str, key: str = "channel") -> int:
    """The number of a channel that a user names.

    Args:
        path: the file, for messages.
        channels: all of them.
        wanted: its number from 0, or its name.
        key: the argument, for messages.

    Returns:
        Its number.

    Raises:
        ReadError: if there is none, or more than one, naming those that there are.
    """
    listed = _listed(channels, range(len(channels)))
    named = [i for i, c in enumerate(channels) if c.name == wanted]
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(channels):
        named = [wanted]
    if len(named) != 1:
        what = "names more than one" if named else "is none"
        raise ReadError(f"{path}: {key} = {wanted!r} {what} of its channels, which are {listed}; say its number")
    return named[0]


def _listed(channels: Sequence[Channel], numbers: Sequence[int]) -> str:
    return ", ".join(f"{i}: {channels[i].name!r} ({channels[i].unit})" for i in numbers)


def potential_channel(
    path: Path, channels: Sequence[Channel], wanted: int | str | None, unit: str | None, hint: str = ""
) -> tuple[int, float]:
    """Find the channel that is the potential: the one that is named, or the first in mV, or in volts.

    Args:
        path: the file, for messages.
        channels: all of them.
        wanted: the user's channel, by number or name.
        unit: the user's unit of it, instead of the file's.
        hint: what the file says of its mode, for the message.

    Returns:
        Its number, and the factor from its numbers to mV.

    Raises:
        ReadError: if it is in no unit of potential, with the remedy.
    """
    if wanted is None:
        factors = [factor_to(c.unit, "mV") for c in channels]
        volts = sorted((i for i, f in enumerate(factors) if f), key=lambda i: factors[i] == 1e3)
        if not volts and (unit is None or len(channels) > 1):
            units = ", ".join(c.unit for c in channels)
            raise ReadError(
                f"{path}: no channel is in volts (units: {units}): voltage clamp? Take a current-clamp "
                f"recording{hint}; or, if one of {_listed(channels, range(len(channels)))} is a potential under a "
                "wrong unit, say channel=… and unit='mV'"
            )
        number = volts[0] if volts else 0
    else:
        number = find_channel(path, channels, wanted)
    return number, _factor(path, channels[number], unit, "mV", "unit")


def _factor(path: Path, channel: Channel, unit: str | None, target: str, key: str) -> float:
    """The factor from a channel's numbers to mV or pA; refused where its unit measures something else."""
    factor = factor_to(channel.unit, target) if unit is None else unit_factor(unit, target)
    if factor is not None:
        return factor
    what = "a potential" if target == "mV" else "a current"
    if unit is not None:
        raise ReadError(f"{path}: {key} = {unit!r} is no unit of {what}; say {key}={target!r}, or '0.05 {target}'")
    raise ReadError(
        f"{path}: channel {channel.name!r} is in {channel.unit}, which is no {what[2:]}; if this label is wrong, say "
        f"the unit of its numbers: {key}={target!r}"
    )


def current_channels(
    path: Path, channels: Sequence[Channel], potential: int, wanted: int | str | None, unit: str | None
) -> dict[int, float]:
    """Find the channels that may hold the current.

    Args:
        path: the file, for messages.
        channels: all of them.
        potential: the number of the potential's channel.
        wanted: the user's channel, by number or name; by default all in amperes.
        unit: the user's unit of it, instead of the file's.

    Returns:
        Their numbers, and the factors from their numbers to pA.

    Raises:
        ReadError: if the user's is not there, or in no unit of current, with the remedy.
    """
    if wanted is not None:
        number = find_channel(path, channels, wanted, "current_channel")
        return {number: _factor(path, channels[number], unit, "pA", "current_unit")}
    found = [i for i, c in enumerate(channels) if i != potential and factor_to(c.unit, "pA") is not None]
    if unit is not None and not found:
        raise ReadError(f"{path}: current_unit = {unit!r} of which channel? Say current_channel=…")
    return {i: _factor(path, channels[i], unit, "pA", "current_unit") for i in found}


def said_potentials(channels: Sequence[Channel], potential: int) -> dict[str, str]:
    """Say which channel is the potential, and which others are potentials, of other cells or of monitors.

    Args:
        channels: all of them.
        potential: the number of the one that is read.

    Returns:
        The entries `potential` and, where there are others, `others` for a recording's `about`.
    """
    others = [i for i, c in enumerate(channels) if i != potential and factor_to(c.unit, "mV") is not None]
    also = {"others": f"also in volts, read with channel=…: {_listed(channels, others)}"} if others else {}
    return {"potential": _listed(channels, [potential]), **also}


def start_shift(path: Path, first: tuple[str, float, float], second: tuple[str, float, float]) -> int:
    """By how many samples a stimulus starts later than its response.

    Args:
        path: the file, for messages.
        first: the response's name, start [s] and rate [Hz].
        second: the stimulus's.

    Returns:
        The samples; negative where it starts earlier.

    Raises:
        ReadError: if their rates differ, or it starts between two samples.
    """
    (name, start, rate), (other, later, other_rate) = first, second
    if abs(rate - other_rate) > 1e-6 * rate:
        raise ReadError(
            f"{path}: {name!r} has rate = {rate:g} Hz, and its stimulus {other!r} "
            f"rate = {other_rate:g} Hz; resample one"
        )
    shift = (later - start) * rate
    if abs(shift - round(shift)) > 0.01 + 1e-9 * rate * abs(later):
        raise ReadError(
            f"{path}: the stimulus {other!r} (starting_time = {later:g} s) starts between two samples of {name!r} "
            f"(starting_time = {start:g} s); resample one"
        )
    return round(shift)


def sweeps_recording(
    path: Path,
    v: Float[np.ndarray, "trial time neuron"],
    current: Float[np.ndarray, "trial time neuron"],
    dt: float,
    about: Mapping[str, str],
    numbers: Sequence[int],
    *,
    unit: str = "pA",
    limits: tuple[float, float] = (1e3, 1e7),
) -> Recording:
    """Check the sweeps of a file, and make them a recording.

    Args:
        path: the file, for messages.
        v: potentials [mV].
        current: injected currents.
        dt: time between samples [ms].
        about: what the file says about its origin.
        numbers: each sweep's number in the file, for messages.
        unit: the currents' unit.
        limits: larger potentials [mV] and currents, where these are in pA, are refused.

    Returns:
        The recording; its first sample stands at time 0.

    Raises:
        ReadError: if samples are not finite, not plausible, or clipped.
    """

    found = from_arrays(dt=dt, units={"current": unit}, about=about, v=v, current=current)
    require_plausible(str(path), found, numbers, limits=limits)
    return found


def require_plausible(
    where: str, recording: Recording, numbers: Sequence[int] | None = None, *, limits: tuple[float, float] = (1e3, 1e7)
) -> None:
    """Refuse potentials and currents that are not finite, not plausible, or clipped.

    Args:
        where: the file, for messages.
        recording: what was read, `[trial, time, neuron]`.
        numbers: each trial's number in the file, for messages.
        limits: the largest potential [mV] and current [pA].

    Raises:
        ReadError: naming the sweeps that are of no use, and those that are.
    """
    some = next(iter(recording.values.values()))
    numbers = range(len(some)) if numbers is None else numbers

    def refuse(good: Sequence[bool], what: str, remedy: str = "") -> None:
        bad, rest = ([n for n, fine in zip(numbers, good, strict=True) if fine is which] for which in (False, True))
        remedy = remedy or (f"leave them out, sweeps={rest}" if rest else "take another recording")
        if bad:
            raise ReadError(f"{where}: in the sweeps {bad}, {what}; {remedy}")

    known = (("v", "potential", "mV", "unit"), ("current", "current", "pA", "current_unit"))
    held = [one for one in known if one[0] in recording.values]
    for name, what, *_ in held:
        finite = [bool(np.isfinite(x).all()) for x in recording.values[name]]
        refuse(finite, f"the {what} has samples that are not finite")
    for (name, what, symbol, label), limit in zip(held, limits, strict=False):
        if recording.units[name] != symbol:
            continue
        values = np.asarray(recording.values[name])
        most = max((np.max(np.abs(x)) for x in values), default=0.0)
        refuse(
            [bool(np.max(np.abs(x)) <= limit) for x in values],
            f"the {what} reaches {most:.4g} {symbol}, beyond limit_{symbol.lower()} = {limit:g}",
            f"if the file's unit is wrong, say that of its numbers, such as {label}={symbol!r} or '0.05 {symbol}'; if "
            f"they are right, raise limit_{symbol.lower()}",
        )
    if "v" in recording.values:
        uncut = [not any(map(clipped, sweep.T)) for sweep in np.asarray(recording.values["v"])]
        refuse(uncut, "the potential is clipped: a steep rise or fall ends in a flat stretch at its limit")
