"""Recordings by their path, whatever wrote them: our own stores, Axon Binary Format, Neurodata Without Borders."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jneuro.recordings.abf import read_abf
from jneuro.recordings.foreign import ReadError, check_sweeps
from jneuro.recordings.nwb import read_nwb
from jneuro.recordings.recording import Recording
from jneuro.recordings.store import read_recording

__all__ = ["read"]

_READERS = {".abf": read_abf, ".nwb": read_nwb}


def read(path: Path | str, sweeps: Sequence[int] | None = None) -> Recording:
    """Read the potential and the injected current of a recording.

    Files with the ending `.abf` and `.nwb` are read by pyabf and pynwb (`pip install 'jneuro[io]'`): potentials in mV,
    currents in pA, one trial a sweep. Anything else is taken for a store of ours.

    Args:
        path: the file or the store.
        sweeps: which sweeps, by their number in the file from 0; all by default.

    Returns:
        The recording, as NumPy arrays `[trial, time, neuron]`, with `v` and `current`, and what the file says about
        its origin in `about`.

    Raises:
        StoreError: if it cannot be read; `ReadError` if there is no stimulus, if it was not made in current clamp, or
            if its samples are not finite or clipped.
    """
    path = Path(path)
    if reader := _READERS.get(path.suffix.lower()):
        if not path.is_file():
            raise ReadError(f"{path}: no such file")
        return reader(path, sweeps)
    recording = read_recording(path, ("v", "current"))
    if sweeps is None:
        return recording
    check_sweeps(path, sweeps, len(recording.values["v"]))
    chosen = {name: array[np.asarray(sweeps)] for name, array in recording.values.items()}
    return dataclasses.replace(recording, values=chosen)
