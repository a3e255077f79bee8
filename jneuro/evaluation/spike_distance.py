"""How far two spike trains are apart."""

import numpy as np

from jneuro._types import Float

__all__ = ["van_rossum"]


def van_rossum(
    first: Float[np.ndarray, " spike"], second: Float[np.ndarray, " spike"], tau: float
) -> Float[np.ndarray, ""]:
    r"""The squared distance of van Rossum, in closed form.

    With every spike replaced by \(e^{-t/\tau}\), \(D^2 = \frac1\tau \int (f - g)^2 dt\): one half for a spike that the
    other train lacks, and one for two spikes that are far apart.

    Args:
        first: times of the spikes.
        second: times of the other train's.
        tau: time constant τ, in the times' unit.

    Returns:
        The squared distance.

    References:
        van Rossum M., Neural Computation 13 (2001) 751.
    """

    def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-np.abs(a[:, None] - b[None]) / tau).sum()

    return 0.5 * (overlap(first, first) + overlap(second, second)) - overlap(first, second)
