"""How far two spike trains are apart."""

import numpy as np

from jneuro.core.types import Float

__all__ = ["van_rossum", "victor_purpura"]


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


def victor_purpura(first: Float[np.ndarray, " spike"], second: Float[np.ndarray, " other"], cost: float) -> float:
    r"""The distance of Victor and Purpura: the least that it costs to turn one spike train into the other.

    Deleting a spike costs 1, inserting one costs 1, moving one by \(\Delta t\) costs \(q |\Delta t|\); so spikes that
    are farther apart than \(2/q\) are never matched. With \(G_{ij}\) the distance of the first \(i\) from the first
    \(j\) spikes,

    \[ G_{ij} = \min(G_{i-1,j} + 1,\; G_{i,j-1} + 1,\; G_{i-1,j-1} + q |s_i - t_j|). \]

    Args:
        first: times of the spikes, ascending [ms].
        second: times of the other train's, ascending [ms].
        cost: q [1/ms].

    Returns:
        The distance.

    References:
        Victor J. D. & Purpura K. P., J. Neurophysiology 76 (1996) 1310, the metric of spike times.
    """
    place = np.arange(len(second) + 1.0)
    row = place
    for i, spike in enumerate(first):
        moved = np.minimum(row[1:] + 1, row[:-1] + cost * np.abs(second - spike))
        # Insertions run along the row: the least of moved[k] + (j - k) over k up to j.
        row = place + np.minimum.accumulate(np.concatenate([[i + 1.0], moved]) - place)
    return float(row[-1])
