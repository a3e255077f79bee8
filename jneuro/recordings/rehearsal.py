"""All of a file that a reader may ask for, gone through as a rehearsal (`jneuro.core.guard`); imports no JAX."""

import contextlib
import importlib
import struct
from pathlib import Path
from typing import Any

from jneuro.core.guard import Unreadable

__all__ = ["walk_abf", "walk_neo"]


def walk_abf(path: Path) -> None:
    """Parse the header, scale the samples, and make every commanded waveform.

    Args:
        path: the file.

    Raises:
        Unreadable: if it declares more sweeps than it has samples.
    """
    import pyabf
    import pyabf.waveform

    abf: Any = pyabf.ABF(str(path), cacheStimulusFiles=False)
    if abf.sweepCount > max(abf.data.size, 1):
        raise Unreadable(f"declares {abf.sweepCount} sweeps, but holds {abf.data.size} samples; it is damaged")
    trains = [(0, 0)] * 20
    if abf.abfVersion["major"] == 1:  # its trains are read by us
        with contextlib.suppress(struct.error):
            at = struct.unpack_from("40i", path.read_bytes()[:6144], 2136)
            trains = list(zip(at[:20], at[20:], strict=True))
    for output in range(len(abf.dacNames)):
        with contextlib.suppress(ValueError, IndexError, AssertionError, NotImplementedError, TypeError, KeyError):
            table = pyabf.waveform.EpochTable(abf, output)
            for epoch in table.epochs:
                if abf.abfVersion["major"] == 1 and output < 2:
                    epoch.pulsePeriod, epoch.pulseWidth = trains[10 * output + epoch.epochNumber]
            for wave in table.getEpochWaveformsBySweep(abf):
                wave.getWaveform()


def walk_neo(path: Path) -> None:
    """Read all blocks of a file by the reader that Neo takes for its ending.

    Args:
        path: the file.
    """
    neo: Any = importlib.import_module("neo")  # an extra that may not be there
    reader = neo.get_io(str(path))
    if type(reader).__name__ != "PickleIO":  # which would execute what the file says
        reader.read(lazy=False)
