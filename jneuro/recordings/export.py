"""Recordings out: to files that other programs read, and to what other libraries hold."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.core.files import written
from jneuro.recordings.nwb import write_nwb
from jneuro.recordings.readers import ReadError, extra
from jneuro.recordings.recording import Recording, by_trial, to_axes
from jneuro.recordings.store import RecordingWriter

__all__ = ["as_trials", "spike_trains", "to_neo", "to_pandas", "to_xarray", "write"]


def write(path: Path | str, recording: Recording, about: Mapping[str, str] | None = None) -> None:
    """Write a recording, in the format that the ending says; `read` gives the same samples.

    | ending | what is written |
    |---|---|
    | `.zarr` | a store of ours, which experiments and fits take by its path |
    | `.nwb` | current clamp, `v` and `current`; and `spikes` as units with a table of trials |
    | `.csv`, `.tsv`, `.txt` | a row for every trial, time and neuron; units in the headers |
    | `.npz` | the arrays `[trial, time, neuron]`, `dt`, and units |
    | `.nc` | netCDF |

    Args:
        path: the new file or store.
        recording: what is written; of `simulate` as of `from_arrays`. States are not kept.
        about: further facts about its origin: `cell`, `protocol`, `date`.

    Raises:
        ReadError: if it exists, the ending is none of these, or the format cannot hold the recording.

    Example:
        ```python
        recording = jn.simulate(cell, stimulus, duration=100, key=key, record=("v", "current"))
        jn.recordings.write("cell.nwb", recording)
        again = jn.recordings.read("cell.nwb")
        ```
    """
    path = Path(path)
    if path.exists():
        raise ReadError(f"{path}: exists; choose another name, or remove it")
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ReadError(f"{path}: cannot be written as {path.suffix!r}; known are {', '.join(_WRITERS)}")
    recording = as_trials(recording)
    pairs = tuple(sorted((recording.about | dict(about or {})).items()))
    writer(path, dataclasses.replace(recording, about_pairs=pairs))


def as_trials(recording: Recording) -> Recording:
    """The same recording with NumPy arrays `[trial, time, neuron]`, and without a state.

    Args:
        recording: of `simulate`, `simulate_many` or `from_arrays`.
    """
    values = {}
    for name, x in recording.values.items():
        x = np.asarray(x)
        known = "time neuron" if x.ndim == 2 and x.shape[0] == recording.frames else None
        values[name] = to_axes(name, x, axes=known, frames=recording.frames)
    return dataclasses.replace(recording, values=by_trial(values), final_state=None)


def spike_trains(recording: Recording) -> list[list[np.ndarray]]:
    """The times of all spikes [ms], of every trial and neuron; a frame with a count of two gives its time twice.

    Args:
        recording: with `spikes`, counts in every frame.

    Returns:
        Times by trial and neuron: `trains[trial][neuron]`.

    Raises:
        ValueError: if it has no spikes.

    Example:
        >>> import jneuro as jn
        >>> recording = jn.recordings.from_arrays(spikes=[0, 1, 0, 2], dt=0.5)
        >>> jn.recordings.spike_trains(recording)[0][0]
        array([0.5, 1.5, 1.5])
    """
    if "spikes" not in recording.values:
        raise ValueError(f"the recording has no 'spikes'; it has {', '.join(recording.values)}")
    counts, time = as_trials(recording).values["spikes"], recording.time
    return [[np.repeat(time, x) for x in np.asarray(trial).astype(int).T] for trial in counts]


def to_xarray(recording: Recording) -> Any:
    """A recording as an xarray `Dataset`, whose attributes netCDF takes; see `Recording.to_xarray`.

    Args:
        recording: the recording.
    """
    import xarray as xr

    recording = as_trials(recording)
    some = next(iter(recording.values.values())).shape[2]
    arrays = {}
    for name, x in recording.values.items():
        last = "neuron" if x.shape[2] == some else f"{name}_index"
        arrays[name] = (("trial", "time", last), x, {"units": recording.units.get(name, "1")})
    time = ("time", np.round(recording.time, 9), {"units": "ms"})
    return xr.Dataset(arrays, coords={"time": time}, attrs={"dt": recording.dt, **recording.about})


def to_pandas(recording: Recording, names: Sequence[str] | None = None) -> Any:
    """A recording as a pandas `DataFrame`; see `Recording.to_pandas`.

    Args:
        recording: the recording.
        names: which arrays; all by default.
    """
    import pandas as pd

    recording = as_trials(recording)
    values = {n: recording[n] for n in names or recording.values}
    if len({x.shape[2] for x in values.values()}) > 1:
        sizes = ", ".join(f"{n}: {x.shape[2]}" for n, x in values.items())
        raise ReadError(f"the arrays have different numbers of neurons ({sizes}); say which, names=[…]")
    trials, _, neurons = next(iter(values.values())).shape
    levels = [np.arange(trials), np.round(recording.time, 9), np.arange(neurons)]
    index = pd.MultiIndex.from_product(levels, names=["trial", "time", "neuron"])
    frame = pd.DataFrame({n: np.ravel(x) for n, x in values.items()}, index=index)
    frame.attrs = {"units": {n: recording.units.get(n, "1") for n in values} | {"time": "ms"}, **recording.about}
    return frame


def to_neo(recording: Recording) -> Any:
    """A recording as a Neo `Block`; see `Recording.to_neo`.

    Args:
        recording: the recording.
    """
    neo, quantities = extra("neo", "a recording"), extra("quantities", "a recording")
    recording, time = as_trials(recording), recording.time
    block = neo.Block(name=recording.about.get("cell"), file_origin=recording.about.get("file"))
    block.annotate(**recording.about)
    trains = spike_trains(recording) if "spikes" in recording.values else None
    start, end = float(time[0]), float(time[-1]) + recording.dt
    for trial in range(len(next(iter(recording.values.values())))):
        segment = neo.Segment(name=f"trial {trial}", index=trial)
        for name, x in recording.values.items():
            if name == "spikes":
                continue
            unit = recording.units.get(name, "1").replace("µ", "u").replace("²", "**2")
            signal = neo.AnalogSignal(
                x[trial],
                units="dimensionless" if unit == "1" else unit,
                sampling_period=recording.dt * quantities.ms,
                t_start=start * quantities.ms,
                name=name,
            )
            segment.analogsignals.append(signal)
        for neuron, times in enumerate(trains[trial] if trains else ()):
            segment.spiketrains.append(
                neo.SpikeTrain(times, units="ms", t_start=min(start, 0.0), t_stop=end, name=f"neuron {neuron}")
            )
        block.segments.append(segment)
    return block


# Files


def _write_store(path: Path, recording: Recording) -> None:
    with written(path) as fresh:
        writer = RecordingWriter(fresh, recording.about)
        writer.append(recording)
        writer.finish()


def _write_text(path: Path, recording: Recording) -> None:
    frame = to_pandas(recording).reset_index()
    frame = frame.drop(columns=[n for n in ("trial", "neuron") if frame[n].nunique() == 1])
    headers = {n: f"{n} ({recording.units.get(n, '1')})" for n in recording.values} | {"time": "time (ms)"}
    with written(path) as fresh:
        sign = "," if path.suffix.lower() == ".csv" else "\t"
        frame.rename(columns=headers).to_csv(fresh, index=False, sep=sign)


def _write_npz(path: Path, recording: Recording) -> None:
    units = {f"unit_{n}": unit for n, unit in recording.units.items()}
    with written(path) as fresh:
        np.savez(fresh, **recording.values, **units, dt=recording.dt, about=json.dumps(recording.about))  # pyright: ignore


def _write_netcdf(path: Path, recording: Recording) -> None:
    with written(path) as fresh:
        to_xarray(recording).to_netcdf(fresh)


_WRITERS = {
    ".zarr": _write_store, ".nwb": write_nwb, ".csv": _write_text, ".tsv": _write_text, ".txt": _write_text,
    ".npz": _write_npz, ".nc": _write_netcdf,
}  # fmt: skip
