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
from jneuro.core.types import Float
from jneuro.recordings.readers import ReadError, check_sweeps, extra, factor_to, parsed, sweeps_recording
from jneuro.recordings.recording import Recording

__all__ = ["read_nwb", "write_nwb"]


class _Sweep(NamedTuple):
    """A response and its stimulus, each with the part of the series that is meant."""

    response: Any
    response_part: slice
    stimulus: Any
    stimulus_part: slice


def read_nwb(path: Path, sweeps: Sequence[int] | None = None) -> Recording:
    """Read the current-clamp sweeps of an NWB file.

    Responses and stimuli are paired by the table of intracellular recordings; without one by their sweep numbers, or
    by the numbers in their names. Each electrode is a neuron.

    Args:
        path: the file.
        sweeps: which sweeps; all by default.

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
            rows = _rows(path, file, pynwb)
            electrodes = {}
            for row in rows:
                electrodes.setdefault(row.response.electrode.name, []).append(row)
            counts = {name: len(found) for name, found in electrodes.items()}
            if len(set(counts.values())) > 1:
                raise ReadError(f"{path}: its electrodes have different numbers of sweeps, {counts}; split the file")
            numbers = list(range(len(next(iter(electrodes.values()))))) if sweeps is None else list(sweeps)
            check_sweeps(path, numbers, next(iter(counts.values())))
            chosen = [[found[n] for n in numbers] for found in electrodes.values()]
            return _recording(path, file, chosen, numbers)


def _recording(path: Path, file: Any, chosen: list[list[_Sweep]], numbers: Sequence[int]) -> Recording:
    """The samples of some sweeps, electrode by electrode."""
    dt = {_interval(path, row.response) for rows in chosen for row in rows}
    v = [[_samples(path, r.response, r.response_part, "mV") for r in rows] for rows in chosen]
    current = [[_samples(path, r.stimulus, r.stimulus_part, "pA") for r in rows] for rows in chosen]
    lengths = {len(x) for rows in (*v, *current) for x in rows}
    if len(dt) > 1 or len(lengths) > 1:
        raise ReadError(
            f"{path}: its sweeps have different lengths ({sorted(lengths)} samples) or intervals ({sorted(dt)} ms); "
            "choose alike ones with sweeps=[...]"
        )
    first = chosen[0][0]
    about = {
        "file": path.name,
        "protocol": str(file.session_description),
        "date": file.session_start_time.isoformat(),
        "cell": str(first.response.electrode.cell_id or first.response.electrode.name),
        "format": "NWB",
    }
    unit = "pA" if factor_to(first.stimulus.unit, "pA") is not None else str(first.stimulus.unit)
    v, current = np.stack([np.stack(x) for x in v], -1), np.stack([np.stack(x) for x in current], -1)
    return sweeps_recording(path, v, current, dt.pop(), about, numbers, unit)


def _rows(path: Path, file: Any, pynwb: Any) -> list[_Sweep]:
    """All pairs of a response in current clamp and its stimulus."""
    clamp = pynwb.icephys.CurrentClampSeries
    if table := file.intracellular_recordings:
        pairs = zip(table[("responses", "response")][:], table[("stimuli", "stimulus")][:], strict=True)
        rows = [
            _Sweep(
                response.timeseries,
                slice(response.idx_start, response.idx_start + response.count),
                stimulus.timeseries if stimulus.idx_start >= 0 else None,
                slice(stimulus.idx_start, stimulus.idx_start + stimulus.count),
            )
            for response, stimulus in pairs
            if response.idx_start >= 0
        ]
        rows = [r for r in rows if isinstance(r.response, clamp)]
    else:
        responses = [s for s in file.acquisition.values() if isinstance(s, clamp)]
        stimuli = {_number(s): s for s in file.stimulus.values()}
        rows = [_Sweep(s, slice(None), stimuli.get(_number(s)), slice(None)) for s in sorted(responses, key=_number)]
    if not rows:
        kinds = sorted({type(s).__name__ for s in file.acquisition.values()}) or ["nothing"]
        raise ReadError(f"{path}: holds no current clamp, only {', '.join(kinds)}; take a current-clamp recording")
    if missing := [n for n, r in enumerate(rows) if r.stimulus is None]:
        raise ReadError(f"{path}: the sweeps {missing} have no stimulus series; a fit needs the injected current")
    return rows


def _number(series: Any) -> int:
    """The number of a sweep: as declared, or the last one in its name."""
    if series.fields.get("sweep_number") is not None:
        return int(series.sweep_number)
    digits = re.findall(r"\d+", series.name)
    return int(digits[-1]) if digits else 0


def _interval(path: Path, series: Any) -> float:
    """Time between samples [ms]."""
    if series.rate is None:
        raise ReadError(f"{path}: '{series.name}' has time stamps and no sampling rate; resample it to a fixed rate")
    return float(f"{1e3 / series.rate:.12g}")


def _samples(path: Path, series: Any, part: slice, unit: str) -> Float[np.ndarray, " time"]:
    """Samples in a unit; to the last bit where they are stored in it."""
    stored = parsed(path, lambda: np.asarray(series.data[part]))
    factor = factor_to(series.unit, unit)
    if factor is None and unit == "pA" and "/" in str(series.unit):
        factor = 1.0  # a density, as the simulators take it; kept in its own unit
    if factor is None:
        kind = "amperes" if unit == "pA" else "volts"
        raise ReadError(f"{path}: '{series.name}' is in {series.unit}, not in {kind}: voltage clamp, or another unit")
    factor *= series.conversion
    exact = abs(factor - 1) < 1e-12 and not series.offset
    if exact and stored.dtype.kind == "f":
        return stored
    scaled = stored * np.float64(factor) + series.offset * (factor / series.conversion)
    return scaled.astype(stored.dtype if stored.dtype.kind == "f" else np.float32)


def write_nwb(path: Path | str, recording: Recording, about: Mapping[str, str] | None = None) -> None:
    """Write potentials and currents as current-clamp sweeps; `read` gives the same samples, to the last bit.

    Args:
        path: the new file.
        recording: with `v` [mV] and `current`, each `[trial, time, neuron]`. Currents in pA or nA are written as
            such; those in another unit, such as a density, as a plain series in that unit.
        about: `cell`, `protocol` and `date` (ISO 8601, UTC where it names no zone); by default the recording's own.

    Raises:
        ReadError: if the file exists, or the recording lacks something.
    """
    path = Path(path)
    pynwb = extra("pynwb", path)
    if path.exists():
        raise ReadError(f"{path}: exists; choose another name, or remove it")
    for name in ("v", "current"):
        if name not in recording.values or np.ndim(recording.values[name]) != 3:
            raise ReadError(f"{path}: the recording must have '{name}' as [trial, time, neuron] to be written as NWB")
    facts = {"protocol": "recording", "cell": "cell"} | recording.about | dict(about or {})
    date = datetime.datetime.fromisoformat(facts["date"]) if "date" in facts else datetime.datetime.now(datetime.UTC)
    file = pynwb.NWBFile(
        session_description=facts["protocol"],
        identifier=str(uuid.uuid4()),
        session_start_time=date if date.tzinfo else date.replace(tzinfo=datetime.UTC),
    )
    _fill(file, pynwb, recording, facts)
    with written(path) as fresh, pynwb.NWBHDF5IO(str(fresh), "w") as io:
        io.write(file)


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
