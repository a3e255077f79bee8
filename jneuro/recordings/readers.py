"""Recordings by their path, whatever wrote them: stores of ours, files of other programs, files that you can read."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.core.registry import Block, accepted
from jneuro.recordings.foreign import ReadError, check_sweeps
from jneuro.recordings.kinds import READERS
from jneuro.recordings.recording import Recording
from jneuro.recordings.store import read_recording

__all__ = ["read", "read_store", "reader_of"]

_OURS = {".abf": "abf", ".nwb": "nwb", ".zarr": "store"}
"""Which of our readers takes which ending; those of plugins say so themselves."""


def read_store(
    path: Path, sweeps: Sequence[int] | None = None, variables: Sequence[str] = ("v", "current")
) -> Recording:
    """Read a store of ours.

    Args:
        path: the store.
        sweeps: which trials, by their number from 0; all by default.
        variables: which arrays.

    Returns:
        The recording.

    Raises:
        StoreError: if it is damaged, unfinished, or has no such array.
    """
    recording = read_recording(path, tuple(variables))
    return recording if sweeps is None else _chosen(path, recording, sweeps)


def _chosen(path: Path, recording: Recording, sweeps: Sequence[int]) -> Recording:
    trials = len(next(iter(recording.values.values())))
    check_sweeps(path, sweeps, trials)
    chosen = {name: array[np.asarray(sweeps)] for name, array in recording.values.items()}
    return dataclasses.replace(recording, values=chosen)


def reader_of(path: Path) -> Callable[..., Recording]:
    """Find the reader of a file by the file's ending.

    Args:
        path: the file; a folder, and a path without an ending, is taken for a store of ours.

    Returns:
        The reader.

    Raises:
        ReadError: if no reader knows the ending, naming those that are known.
    """
    suffix = path.suffix.lower()
    if suffix in _OURS:
        return READERS.find(_OURS[suffix])
    known = dict(_OURS)
    for name, entry in READERS.entries().items():
        if entry.source != "jneuro":
            reader = READERS.find(name)
            found = [s.lower() for s in getattr(reader, "suffixes", ())]
            if suffix in found:
                return reader
            known |= dict.fromkeys(found, name)
    if not suffix or path.is_dir():
        return read_store
    listed = ", ".join(f"{s} ({name})" for s, name in known.items())
    raise ReadError(
        f"{path}: no reader is known for files that end in {suffix!r}; known are {listed}. Name one of them, or a "
        'function of your own from a path to a Recording: reader="my_readers:read_file"'
    )


def read(path: Path | str, sweeps: Sequence[int] | None = None, *, reader: Any = None, **arguments: Any) -> Recording:
    """Read a recording: of a cell, its potential and the injected current; or whatever a reader of your own gives.

    Files with the ending `.abf` and `.nwb` are read by pyabf and pynwb (`pip install 'jneuro[io]'`): potentials in mV,
    currents in pA, one trial a sweep. Installed packages may add further endings. Folders are stores of ours.

    Args:
        path: the file or the store.
        sweeps: which sweeps, by their number in the file from 0; all by default.
        reader: how to read it, where its ending does not say: a function of a path and of further arguments that
            returns a Recording; its name, such as `"abf"` or `"my_readers:read_csv"`; or a mapping of a name and
            arguments.
        arguments: further arguments of the reader.

    Returns:
        The recording, as NumPy arrays `[trial, time, neuron]`, and what the file says about its origin in `about`. An
        array `[time]` or `[time, neuron]` of a reader of your own is one trial.

    Raises:
        StoreError: if it cannot be read; `ReadError` if no reader knows it, or what a reader gives is no recording, if
            there is no stimulus, if it was not made in current clamp, or if its samples are not finite or clipped.
        ValueError: if the reader is unknown or does not take the arguments.

    Example:
        ```python
        recording = jn.recordings.read("171116sh_0018.abf", sweeps=[3, 4])
        recording = jn.recordings.read("trace.csv", reader=my_readers.read_csv, time="t_s")
        ```
    """
    path = Path(path)
    block = READERS.block(reader_of(path) if reader is None else reader)
    block = block.model_copy(update=arguments) if arguments else block
    block.check_arguments("path", "sweeps")
    ours = block.target is read_store
    if not ours and not path.exists():
        raise ReadError(f"{path}: no such file")
    found = block.build(path=path, sweeps=sweeps)
    if not isinstance(found, Recording):
        raise ReadError(f"{path}: the reader {block.name} must return a Recording, got {type(found).__name__}")
    found = _by_trial(path, block, found)
    return found if sweeps is None or "sweeps" in accepted(block.target) else _chosen(path, found, sweeps)


def _by_trial(path: Path, block: Block, recording: Recording) -> Recording:
    """Arrays `[trial, time, neuron]`, of as many trials and frames each, and a unit for each."""
    values = {n: np.asarray(x) for n, x in recording.values.items()}
    values = {n: x[:, None] if x.ndim == 1 else x for n, x in values.items()}
    values = {n: x[None] if x.ndim == 2 else x for n, x in values.items()}
    shapes = {n: x.shape for n, x in values.items()}
    if not values or len({s[:2] for s in shapes.values()}) > 1 or any(len(s) != 3 for s in shapes.values()):
        raise ReadError(
            f"{path}: the reader {block.name} must give arrays [time], [time, neuron] or [trial, time, neuron] of the "
            f"same trials and times, got {shapes or 'none'}"
        )
    if missing := [n for n in values if n not in recording.units]:
        raise ReadError(f"{path}: the reader {block.name} gives no unit for {missing[0]!r}")
    if bad := [n for n, x in values.items() if not np.isfinite(np.asarray(x, np.float64)).all()]:
        raise ReadError(f"{path}: {bad[0]} has samples that are not finite; cut them out, or take another recording")
    return dataclasses.replace(recording, values=values)
