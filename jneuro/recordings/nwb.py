"""Neurodata Without Borders, version 2: current-clamp sweeps read and written."""

import datetime
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.files import written
from jneuro.core.guard import check_memory
from jneuro.core.types import Float
from jneuro.recordings.pairing import Channel, find_channel, start_shift, sweeps_recording
from jneuro.recordings.readers import ReadError, check_sweeps, extra, from_elsewhere, parsed
from jneuro.recordings.recording import Recording, even_steps
from jneuro.recordings.units import factor_to, unit_factor

__all__ = ["read_nwb", "write_nwb"]


class _Sweep(NamedTuple):
    """A response and its stimulus, each with the part of the series that is meant."""

    response: Any
    response_part: slice
    stimulus: Any
    stimulus_part: slice
    how: str
    """How they were paired; without a stimulus, what was seen instead."""


@from_elsewhere("pynwb", "jneuro.core.hdf5:walk")
def read_nwb(
    path: Path,
    sweeps: Sequence[int] | None = None,
    *,
    channel: int | str | None = None,
    current_channel: str | None = None,
    unit: str | None = None,
    current_unit: str | None = None,
    overlap: bool = False,
    limit_mv: float = 1e3,
    limit_pa: float = 1e7,
) -> Recording:
    """Read the current-clamp sweeps of an NWB file.

    Responses and stimuli are paired by the table of intracellular recordings; without one by their electrode, sweep
    number (or the last number in their names), rate and start. The current of an `IZeroClampSeries` is 0. Each
    electrode is a neuron.

    Args:
        path: the file.
        sweeps: which sweeps; all by default.
        channel: one electrode, by its number from 0 or its name; all by default.
        current_channel: a part of the names of the stimuli that are meant, where more than one would fit.
        unit: the unit of the potentials' numbers, where the file's is wrong.
        current_unit: the unit of the currents' numbers, where the file's is wrong.
        overlap: whether, where a stimulus starts or ends at another time than its response, the time is read that
            both cover.
        limit_mv: larger potentials are refused [mV].
        limit_pa: larger currents are refused [pA].

    Returns:
        The recording; see `read`.

    Raises:
        ReadError: if it cannot be read or not be used.
    """
    pynwb = extra("pynwb", path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schema versions
        with parsed(path, lambda: pynwb.NWBHDF5IO(str(path), "r")) as io:
            file = parsed(path, io.read)
            rows = _rows(path, file, pynwb, current_channel)
            electrodes, about = _by_electrode(path, rows, channel)
            count = len(electrodes[0])
            numbers = list(range(count)) if sweeps is None else list(sweeps)
            check_sweeps(path, numbers, count)
            chosen = [[found[n] for n in numbers] for found in electrodes]
            missing = {n: r.how for found in chosen for n, r in zip(numbers, found, strict=True) if r.how[:2] == "no"}
            if missing:
                seen = next(iter(missing.values()))
                raise ReadError(
                    f"{path}: the sweeps {sorted(missing)} have no stimulus series; a fit needs the injected current "
                    f"({seen})"
                )
            chosen = [[_aligned(path, row, overlap) for row in found] for found in chosen]
            return _recording(path, file, chosen, numbers, (unit, current_unit), about, (limit_mv, limit_pa))


def _by_electrode(
    path: Path, rows: Sequence[_Sweep], channel: int | str | None
) -> tuple[list[list[_Sweep]], dict[str, str]]:
    """The sweeps of each electrode, or of the one that is named, and what is to be said of the others."""
    electrodes, about = {}, {}
    for row in rows:
        electrodes.setdefault(row.response.electrode.name, []).append(row)
    if channel is not None:
        names = list(electrodes)
        one = names.pop(find_channel(path, [Channel(n, "an electrode") for n in names], channel))
        electrodes = {one: electrodes[one]}
        about = {"others": f"other electrodes, read with channel=…: {', '.join(names)}"} if names else {}
    counts = {name: len(found) for name, found in electrodes.items()}
    if len(set(counts.values())) > 1:
        raise ReadError(
            f"{path}: its electrodes have different numbers of sweeps, {counts}; read one of them, channel=…"
        )
    return list(electrodes.values()), about


def _recording(
    path: Path,
    file: Any,
    chosen: list[list[_Sweep]],
    numbers: Sequence[int],
    units: tuple[str | None, str | None],
    about: dict[str, str],
    limits: tuple[float, float],
) -> Recording:
    """The samples of some sweeps, electrode by electrode."""
    dt = {_interval(path, row.response) for rows in chosen for row in rows}
    series = [
        (s, p)
        for rows in chosen
        for r in rows
        for s, p in ((r.response, r.response_part), (r.stimulus, r.stimulus_part))
    ]
    check_memory("sweeps", sum(8 * len(range(*p.indices(len(s.data)))) for s, p in series if s is not None))
    v = [[_samples(path, r.response, r.response_part, "mV", units[0]) for r in rows] for rows in chosen]
    current = [
        [
            np.zeros_like(x) if r.stimulus is None else _samples(path, r.stimulus, r.stimulus_part, "pA", units[1])
            for r, x in zip(rows, potentials, strict=True)
        ]
        for rows, potentials in zip(chosen, v, strict=True)
    ]
    lengths = {len(x) for rows in (*v, *current) for x in rows}
    if len(dt) > 1 or len(lengths) > 1:
        raise ReadError(
            f"{path}: its sweeps have different lengths ({sorted(lengths)} samples) or intervals ({sorted(dt)} ms); "
            "choose alike ones with sweeps=[...]"
        )
    first = chosen[0][0]
    bias = {r.response.fields.get("bias_current") for rows in chosen for r in rows} - {None, 0.0}
    about = about | {
        "file": path.name,
        "protocol": str(file.session_description),
        "date": file.session_start_time.isoformat(),
        "cell": str(first.response.electrode.cell_id or first.response.electrode.name),
        "format": "NWB",
        "current": "; ".join(dict.fromkeys(r.how for rows in chosen for r in rows)),
    }
    if len(chosen) > 1:
        names = [str(rows[0].response.electrode.name) for rows in chosen]
        about["cells"] = f"{len(names)} electrodes, read as neurons: {', '.join(names)}; one of them with channel=…"
    if bias:
        about["bias_current"] = f"{sorted(bias)} A in the responses' metadata, not added to the current"
    named = [units[1] or str(r.stimulus.unit) for rows in chosen for r in rows if r.stimulus is not None] or ["pA"]
    unit = named[0] if "/" in named[0] else "pA"
    v, current = np.stack([np.stack(x) for x in v], -1), np.stack([np.stack(x) for x in current], -1)
    return sweeps_recording(path, v, current, dt.pop(), about, numbers, unit=unit, limits=limits)


def _rows(path: Path, file: Any, pynwb: Any, current_channel: str | None) -> list[_Sweep]:
    """All responses in current clamp, with their stimuli."""
    clamp = pynwb.icephys.CurrentClampSeries
    if table := file.intracellular_recordings:
        pairs = zip(table[("responses", "response")][:], table[("stimuli", "stimulus")][:], strict=True)
        rows = [
            _Sweep(
                response.timeseries,
                slice(response.idx_start, response.idx_start + response.count),
                stimulus.timeseries if stimulus.idx_start >= 0 else None,
                slice(stimulus.idx_start, stimulus.idx_start + stimulus.count),
                "stimulus, by the file's table" if stimulus.idx_start >= 0 else "none in the file's table",
            )
            for response, stimulus in pairs
            if response.idx_start >= 0
        ]
        rows = [r for r in rows if isinstance(r.response, clamp)]
    else:
        responses = [s for s in file.acquisition.values() if isinstance(s, clamp)]
        stimuli = [s for s in file.stimulus.values() if current_channel is None or current_channel in s.name]
        rows = [_paired(path, response, stimuli) for response in sorted(responses, key=_number)]
    if not rows:
        kinds = sorted({type(s).__name__ for s in file.acquisition.values()})
        held = f"only {', '.join(kinds)}" if kinds else "nothing at all"
        held += " but units, which reader='nwb_units' reads" if file.units is not None else ""
        raise ReadError(f"{path}: holds no current clamp, {held}; take a current-clamp recording")
    zero = pynwb.icephys.IZeroClampSeries
    return [
        row._replace(stimulus=None, how="0 by definition, an IZeroClampSeries")
        if isinstance(row.response, zero)
        else row
        for row in rows
    ]


def _paired(path: Path, response: Any, stimuli: Sequence[Any]) -> _Sweep:
    """A response and the one stimulus of its electrode and number; of several, that of its rate, start and length."""
    number, electrode = _number(response), response.electrode.name
    numbered = [s for s in stimuli if _number(s) == number]
    fitting = [s for s in numbered if (at := s.fields.get("electrode")) is None or at.name == electrode]
    if not fitting:
        seen = (
            [f"{s.name!r} of {s.electrode.name!r}" for s in numbered] or [repr(s.name) for s in stimuli][:5] or ["none"]
        )
        what = f"no stimulus of number {number} and electrode {electrode!r} for {response.name!r}"
        how = f"{what}; there are {', '.join(seen)}"
        return _Sweep(response, slice(None), None, slice(None), how)
    if len(fitting) > 1:
        start = (response.rate, response.starting_time, len(response.data))
        fitting = [s for s in fitting if (s.rate, s.starting_time, len(s.data)) == start] or fitting
    if len(fitting) > 1:
        raise ReadError(
            f"{path}: more than one stimulus may belong to {response.name!r} (electrode {electrode!r}, sweep number "
            f"{number}): {[s.name for s in fitting]}; say a part of the right ones' names, current_channel=…"
        )
    return _Sweep(
        response, slice(None), fitting[0], slice(None), "stimulus, by electrode, sweep number, rate and start"
    )


def _aligned(path: Path, row: _Sweep, overlap: bool) -> _Sweep:
    """The parts of a response and its stimulus that are of one time; refused, unless wanted, where not all are."""
    if row.stimulus is None:
        return row
    ends = []
    for series, part in ((row.response, row.response_part), (row.stimulus, row.stimulus_part)):
        begin, end, _ = part.indices(len(series.data))
        rate, start = _clock(path, series)
        ends.append((series.name, start + begin / rate, rate, begin, end - begin))
    (name, start, rate, at, length), (other, later, _, other_at, other_length) = ends
    shift = 0
    # A stimulus that starts at 0 and is over before its response starts counts time from its sweep.
    if np.isfinite(start) and np.isfinite(later) and not (later == 0 and start >= other_length / rate):
        shift = start_shift(path, ends[0][:3], ends[1][:3])
    if shift == 0 and length == other_length:
        return row
    begin, end = max(shift, 0), min(length, shift + other_length)
    if not overlap or end <= begin:
        dt = 1e3 / rate
        if shift:
            when = "later" if shift > 0 else "earlier"
            what = f"starts {abs(shift) * dt:g} ms ({abs(shift)} samples) {when} than {name!r}"
            what += f" (starting_time = {later:g} and {start:g} s)"
        else:
            less, size = abs(length - other_length), "shorter" if other_length < length else "longer"
            what = f"is {less} samples ({less * dt:g} ms) {size} than {name!r}, {other_length} and {length} samples"
        remedy = "they have no time in common" if end <= begin else "overlap=True reads the time that both cover"
        raise ReadError(f"{path}: the stimulus {other!r} {what}; {remedy}")
    return row._replace(
        response_part=slice(at + begin, at + end),
        stimulus_part=slice(other_at + begin - shift, other_at + end - shift),
        how=f"{row.how}; the time that both cover, from {begin} samples after the response's start",
    )


def _number(series: Any) -> int:
    """The number of a sweep: as declared, or the last one in its name."""
    if series.fields.get("sweep_number") is not None:
        return int(series.sweep_number)
    digits = re.findall(r"\d+", series.name)
    return int(digits[-1]) if digits else 0


def _clock(path: Path, series: Any) -> tuple[float, float]:
    """Rate [Hz] and start [s], as the file says them, or as even time stamps do."""
    if series.rate is not None:
        return float(series.rate), 0.0 if series.starting_time is None else float(series.starting_time)
    try:
        times = parsed(path, lambda: np.asarray(series.timestamps[:], float))
        step, away, at = even_steps(times)
    except ValueError as error:
        raise ReadError(f"{path}: '{series.name}' has no sampling rate, and its {error}") from error
    if away > 0.01:
        raise ReadError(
            f"{path}: '{series.name}' has uneven time stamps, {1e3 * (times[at] - times[at - 1]):g} ms before sample "
            f"{at}, mostly {1e3 * step:g} ms; resample it to a fixed rate"
        )
    return 1 / step, float(times[0])


def _interval(path: Path, series: Any) -> float:
    """Time between samples [ms]."""
    return float(f"{1e3 / _clock(path, series)[0]:.9g}")


def _samples(path: Path, series: Any, part: slice, unit: str, said: str | None) -> Float[np.ndarray, " time"]:
    """Samples in a unit; to the last bit where they are stored in it. The user's unit goes before the file's."""
    stored = parsed(path, lambda: np.asarray(series.data[part]))
    own = str(series.unit) if said is None else said
    factor = factor_to(own, unit) if said is None else unit_factor(own, unit)
    if factor is None and unit == "pA" and "/" in own:
        factor = 1.0  # a density, as the simulators take it; kept in its own unit
    if factor is None:
        kind, key = ("amperes", "current_unit") if unit == "pA" else ("volts", "unit")
        raise ReadError(
            f"{path}: '{series.name}' is in {own}, not in {kind}: voltage clamp, or a wrong unit; if so, say that "
            f"of its numbers, {key}='{unit}'"
        )
    factor *= series.conversion
    exact = abs(factor - 1) < 1e-12 and not series.offset
    if exact and stored.dtype.kind == "f":
        return stored
    scaled = stored * np.float64(factor) + series.offset * (factor / series.conversion)
    return scaled.astype(stored.dtype if stored.dtype.kind == "f" else np.float32)


def write_nwb(path: Path | str, recording: Recording, about: Mapping[str, str] | None = None) -> None:
    """Write potentials and currents as current-clamp sweeps; `read` gives the same samples, to the last bit.

    Spikes become a table of units, each at the middle of its frame, and the trials a table of trials.

    Args:
        path: the new file.
        recording: with `v` [mV] and `current`, or `spikes`, or all, each `[trial, time, neuron]`. Currents in pA or nA
            are written as such; those in another unit, such as a density, as a plain series in that unit.
        about: `cell`, `protocol` and `date` (ISO 8601, UTC where it names no zone); by default the recording's own.

    Raises:
        ReadError: if the file exists, or the recording lacks something.
    """
    path = Path(path)
    pynwb = extra("pynwb", path)
    if path.exists():
        raise ReadError(f"{path}: exists; choose another name, or remove it")
    clamp = bool({"v", "current"} & set(recording.values)) or "spikes" not in recording.values
    for name in ("v", "current") if clamp else ("spikes",):
        if name not in recording.values or np.ndim(recording.values[name]) != 3:
            raise ReadError(f"{path}: the recording must have '{name}' as [trial, time, neuron] to be written as NWB")
    facts = {"protocol": "recording", "cell": "cell"} | recording.about | dict(about or {})
    date = datetime.datetime.fromisoformat(facts["date"]) if "date" in facts else datetime.datetime.now(datetime.UTC)
    file = pynwb.NWBFile(
        session_description=facts["protocol"],
        identifier=str(uuid.uuid4()),
        session_start_time=date if date.tzinfo else date.replace(tzinfo=datetime.UTC),
    )
    if clamp:
        _fill(file, pynwb, recording, facts)
    if "spikes" in recording.values:
        _fill_units(file, np.asarray(recording.values["spikes"]), recording.dt)
    with written(path) as fresh, pynwb.NWBHDF5IO(str(fresh), "w") as io:
        io.write(file)


def _fill_units(file: Any, counts: np.ndarray, dt: float) -> None:
    """Add the tables of units and of trials, which follow each other."""
    trials, frames, neurons = counts.shape
    for trial in range(trials):
        file.add_trial(start_time=1e-3 * trial * frames * dt, stop_time=1e-3 * (trial + 1) * frames * dt)
    middle = 1e-3 * dt * (np.arange(trials * frames) + 0.5)
    joined = counts.reshape(-1, neurons).astype(int)
    for neuron in range(neurons):
        file.add_unit(spike_times=np.repeat(middle, joined[:, neuron]), id=neuron)


def _fill(file: Any, pynwb: Any, recording: Recording, facts: Mapping[str, str]) -> None:
    """Add electrodes, series, and the table that pairs them."""
    v, current = (np.asarray(recording.values[n]) for n in ("v", "current"))
    unit = recording.units["current"]
    amperes = factor_to(unit, "pA")
    device = file.create_device(name="amplifier")
    for neuron in range(v.shape[2]):
        cell = facts["cell"] if v.shape[2] == 1 else f"{facts['cell']} {neuron}"
        electrode = file.create_icephys_electrode(
            name=f"electrode {neuron}", device=device, description="current clamp", cell_id=cell
        )
        for trial in range(len(v)):
            seconds = 1e-3 * trial * recording.frames * recording.dt
            number = trial * v.shape[2] + neuron
            common: Any = {"rate": 1e3 / recording.dt, "starting_time": seconds}
            response = pynwb.icephys.CurrentClampSeries(
                name=f"v {number}", data=v[trial, :, neuron], conversion=1e-3, electrode=electrode, **common
            )
            common |= {"name": f"current {number}", "data": current[trial, :, neuron]}
            if amperes is None:
                stimulus = pynwb.TimeSeries(unit=unit, **common)
            else:
                stimulus = pynwb.icephys.CurrentClampStimulusSeries(
                    conversion=1e-12 * amperes, electrode=electrode, **common
                )
            file.add_acquisition(response)
            file.add_stimulus(stimulus)
            file.add_intracellular_recording(electrode=electrode, stimulus=stimulus, response=response)
