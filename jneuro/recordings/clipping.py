"""Potentials that were cut by the amplifier or the converter."""

import numpy as np

from jneuro.core.types import Float

__all__ = ["clipped"]

_SAMPLES = 3
"""A cut potential stays at its extreme for so many samples at least."""
_JUMP = 1.0
"""It comes there by more than this from one sample to the next [mV]; a cell at rest creeps to its extreme."""


def clipped(v: Float[np.ndarray, " time"]) -> tuple[int, int] | None:
    """Find where a potential was cut: it jumps to its highest or lowest value and stays there.

    Args:
        v: the potential [mV].

    Returns:
        The first such stretch: its first sample, and the one after its last. None if there is none.
    """
    for extreme in (v.max(), v.min()):
        edges = np.diff(np.concatenate([[0], (v == extreme).astype(int), [0]]))
        begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        for begin, end in zip(begins, ends, strict=True):
            if end - begin >= _SAMPLES and begin > 0 and abs(v[begin] - v[begin - 1]) > _JUMP:
                return int(begin), int(end)
    return None
