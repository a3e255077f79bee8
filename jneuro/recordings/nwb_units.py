"""Spike trains of NWB files: the table `units`, aligned to events of the table `trials`, and their rates."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.core.guard import check_memory
from jneuro.recordings.readers import ReadError, check_sweeps, extra, parsed, require_readable
from jneuro.recordings.recording import Recording, from_arrays

__all__ = ["psth", "read_nwb_units", "read_trials"]


def read_trials(path: Path | str) -> Any:
    """Read the table of trials of an NWB file.

    Args:
        path: the file.

    Returns:
        A pandas `DataFrame` with `start_time` and `stop_time` [s], and whatever columns the file has.

    Raises:
        ReadError: if it cannot be read, or has no such table.
    """
    return _tables(Path(path), with_units=False)[1]


def _tables(path: Path, *, with_units: bool = True) -> tuple[list[tuple[str, np.ndarray]], Any, str]:
    """The spike trains by their unit [s], the table of trials or None, and the session's description."""
    pynwb = extra("pynwb", path)
    if not path.exists():
        raise ReadError(f"{path}: no such file")
    require_readable(path, "jneuro.core.hdf5:walk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schema versions
        with parsed(path, lambda: pynwb.NWBHDF5IO(str(path), "r")) as io:
            file = parsed(path, io.read)
            if not with_units and file.trials is None:
                raise ReadError(f"{path}: has no table of trials")
            if with_units and (file.units is None or "spike_times" not in file.units.colnames):
                raise ReadError(f"{path}: has no table of units with spike_times; its current clamp is read by 'nwb'")
            trials = None if file.trials is None else parsed(path, file.trials.to_dataframe)
            trains = []
            if with_units:
                names = file.units.id[:]
                trains = parsed(
                    path,
                    lambda: [(str(n), np.asarray(file.units["spike_times"][i], float)) for i, n in enumerate(names)],
                )
            if bad := [name for name, times in trains if not np.isfinite(times).all()]:
                raise ReadError(f"{path}: unit {bad[0]} has spike times that are not finite")
            return trains, trials, str(file.session_description)


def read_nwb_units(
    path: Path,
    sweeps: Sequence[int] | None = None,
    *,
    dt: float = 1.0,
    align: str | Sequence[float] | None = None,
    window_ms: tuple[float, float] | None = None,
) -> Recording:
    """Read the spike trains of an NWB file's `units` as counts, alone or around the events of its trials.

    Args:
        path: the file.
        sweeps: which trials; all by default.
        dt: width of a frame [ms].
        align: a column of the table of trials that holds times, such as `start_time`; or times [s]. By default the
            whole session is one trial.
        window_ms: from when to when around each such time [ms]; by default, of `start_time`, the shortest trial.

    Returns:
        A recording with `spikes`, counts `[trial, time, neuron]`; its times are those from the event on. Spikes without
        a place in any window are left out.

    Raises:
        ReadError: if there are no units, no such column, or the counts do not fit into memory.

    Example:
        ```python
        around = {"align": "stimulus_on", "window_ms": (-200, 800)}
        recording = jn.recordings.read("session.nwb", reader="nwb_units", **around)
        ```
    """
    trains, trials, session = _tables(path)
    if not dt > 0:
        raise ReadError(f"{path}: dt = {dt:g} ms must be positive")
    if align is None:
        if window_ms is not None:
            raise ReadError(f"{path}: window_ms needs events to stand around; say align=…")
        last = max((t.max() for _, t in trains if len(t)), default=0.0)
        zeros, window_ms, said = np.zeros(1), (0.0, 1e3 * last + dt), "the whole session, from 0"
    else:
        zeros, window_ms, said = _events(path, trials, align, window_ms)
    if sweeps is not None:
        check_sweeps(path, sweeps, len(zeros))
        zeros = zeros[np.asarray(sweeps)]
    first, frames = round(window_ms[0] / dt), round((window_ms[1] - window_ms[0]) / dt)
    if frames < 1 or abs(first * dt - window_ms[0]) > 1e-6 * dt:
        raise ReadError(f"{path}: window_ms = {list(window_ms)} must be a beginning and a later end, multiples of {dt}")
    what = f"counts of {len(trains)} units (a larger dt, or align=…, makes fewer)"
    parsed(path, lambda: check_memory(what, 4 * len(zeros) * frames * len(trains)))
    counts = _counts([times for _, times in trains], zeros, first, frames, dt)
    names = [name for name, _ in trains]
    about = {
        "file": path.name,
        "format": "NWB units",
        "protocol": session,
        "units": ", ".join(names[:20]) + ("…" if len(names) > 20 else ""),
        "aligned": said,
    }
    found = from_arrays(spikes=counts, dt=dt, about=about)
    return dataclasses.replace(found, first_step=np.asarray(first))  # a frame stands at the end of its interval


def _counts(trains: Sequence[np.ndarray], zeros: np.ndarray, first: int, frames: int, dt: float) -> np.ndarray:
    """Spikes in frames from `first` on, around each zero."""
    counts = np.zeros((len(zeros), frames, len(trains)), np.int32)
    for neuron, times in enumerate(trains):
        for trial, zero in enumerate(zeros):
            frame = np.floor((1e3 * (times - zero) - first * dt) / dt + 1e-6).astype(np.int64)
            np.add.at(counts[trial, :, neuron], frame[(frame >= 0) & (frame < frames)], 1)
    return counts


def _events(
    path: Path, trials: Any, align: str | Sequence[float], window_ms: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[float, float], str]:
    """The times to which trials are aligned [s], and the window around them [ms]."""
    if isinstance(align, str):
        if trials is None:
            raise ReadError(f"{path}: has no table of trials; give the times, align=[…] in s")
        times = [n for n in trials.columns if np.asarray(trials[n]).dtype.kind == "f"]
        if align not in times:
            raise ReadError(f"{path}: align = {align!r} is no column of times; there are {', '.join(times)}")
        zeros = np.asarray(trials[align], float)
        if window_ms is None and align == "start_time":
            window_ms = (0.0, float(np.floor(1e3 * np.min(trials["stop_time"] - trials["start_time"]) + 1e-6)))
        said = f"to {align!r} of the trials"
    else:
        zeros, said = np.asarray(align, float).reshape(-1), f"to {len(align)} given times"
    if window_ms is None:
        raise ReadError(f"{path}: say from when to when around each event, window_ms=[-200, 800]")
    if (missing := int(np.sum(~np.isfinite(zeros)))) == len(zeros):
        raise ReadError(f"{path}: {align!r} has no times")
    if missing:
        said += f"; {missing} without a time are left out"
    return zeros[np.isfinite(zeros)], (float(window_ms[0]), float(window_ms[1])), said


def psth(recording: Recording, *, bin_ms: float | None = None) -> Recording:
    """The peri-stimulus time histogram: the rate of every neuron, averaged over trials.

    Args:
        recording: with `spikes`, counts `[trial, time, neuron]`.
        bin_ms: width of a bin, a multiple of the recording's frames [ms]; by default a frame.

    Returns:
        A recording of one trial with `rate` and its standard error over trials `rate_se` [Hz].

    Raises:
        ValueError: if there are no spikes, or the bins do not fit.

    Example:
        >>> import numpy as np
        >>> import jneuro as jn
        >>> spikes = np.zeros((2, 4, 1), int)
        >>> spikes[0, 1] = 1
        >>> rates = jn.recordings.psth(jn.recordings.from_arrays(spikes=spikes, dt=5), bin_ms=10)
        >>> rates["rate"].ravel(), rates["rate_se"].ravel()
        (array([50.,  0.]), array([50.,  0.]))
    """
    counts = np.asarray(recording["spikes"], float)
    if counts.ndim != 3:
        raise ValueError(f"spikes are {counts.shape}; they must be [trial, time, neuron]")
    every = round((recording.dt if bin_ms is None else bin_ms) / recording.dt)
    if every < 1 or (bin_ms is not None and abs(every * recording.dt - bin_ms) > 1e-6 * recording.dt):
        raise ValueError(f"bin_ms = {bin_ms} must be a multiple of {recording.dt:g} ms")
    bins = counts.shape[1] // every
    if not bins:
        raise ValueError(f"bin_ms = {bin_ms} is longer than the trials, {recording.frames * recording.dt:g} ms")
    binned = counts[:, : bins * every].reshape(len(counts), bins, every, -1).sum(2) / (1e-3 * every * recording.dt)
    spread = binned.std(0, ddof=1) if len(binned) > 1 else np.full(binned.shape[1:], np.nan)
    values: Any = {"rate": binned.mean(0)[None], "rate_se": spread[None] / np.sqrt(len(binned))}
    return dataclasses.replace(
        recording,
        values=values,
        final_state=None,
        record_every=recording.record_every * every,
        frames=bins,
        unit_pairs=(("rate", "Hz"), ("rate_se", "Hz")),
    )
