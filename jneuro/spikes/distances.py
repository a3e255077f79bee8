"""Spike-train metrics: how far two spike trains are apart, and which spikes belong together."""

from typing import NamedTuple

import numpy as np

from jneuro.core.types import Float

__all__ = [
    "Matching",
    "coincidence",
    "isi_distance",
    "match_spikes",
    "spike_distance",
    "van_rossum",
    "victor_purpura",
]


def van_rossum(
    first: Float[np.ndarray, " spike"], second: Float[np.ndarray, " other"], tau: float
) -> Float[np.ndarray, ""]:
    r"""The squared distance of van Rossum, in closed form.

    With every spike replaced by \(e^{-t/\tau}\), \(D^2 = \frac1\tau \int (f - g)^2 dt\): one half for a spike that the
    other train lacks, and one for two spikes that are far apart. Elephant's is \(\sqrt{2 D^2}\).

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
        cost: q [1/ms]; infinite: only spikes at the same time are matched.

    Returns:
        The distance.

    References:
        Victor J. D. & Purpura K. P., J. Neurophysiology 76 (1996) 1310, the metric of spike times.

    Example:
        >>> victor_purpura(np.array([1.0, 5.0]), np.array([1.0, 5.5]), cost=1.0)
        0.5
        >>> victor_purpura(np.array([1.0, 5.0]), np.array([1.0, 5.5]), cost=np.inf)
        2.0
    """
    place = np.arange(len(second) + 1.0)
    row = place
    for i, spike in enumerate(first):
        apart = np.abs(second - spike)
        move = np.multiply(cost, apart, out=np.zeros_like(apart), where=apart > 0)  # not ∞ · 0
        moved = np.minimum(row[1:] + 1, row[:-1] + move)
        # Insertions run along the row: the least of moved[k] + (j - k) over k up to j.
        row = place + np.minimum.accumulate(np.concatenate([[i + 1.0], moved]) - place)
    return float(row[-1])


def _pieces(times: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The interval of a train around each piece of time between the events of both, its place, and the way in it."""
    begin, end = ends[0, 0], ends[-1, 1]
    train = times if len(times) else np.array([begin, end])
    place = np.searchsorted(train, ends.mean(1))
    interval = np.diff(train, prepend=begin, append=end)
    if len(train) > 1:  # the first and the last one are at least as long as their neighbours
        interval[0], interval[-1] = max(interval[0], interval[1]), max(interval[-1], interval[-2])
    edges = np.concatenate([[begin], train, [end]])
    length = edges[place + 1] - edges[place]
    share = (ends - edges[place][:, None]) / np.where(length > 0, length, 1.0)[:, None]
    return interval[place], place, share


def _ends(first: np.ndarray, second: np.ndarray, begin: float, end: float) -> np.ndarray:
    events = np.unique(np.concatenate([[begin, end], first, second]))
    return np.stack([events[:-1], events[1:]], 1)


def isi_distance(
    first: Float[np.ndarray, " spike"], second: Float[np.ndarray, " other"], *, begin: float = 0.0, end: float
) -> float:
    r"""The ISI-distance: how different the interspike intervals are in which every moment lies.

    \[ D_I = \frac{1}{T} \int \frac{|x(t) - y(t)|}{\max(x(t), y(t))}\, dt \]

    with the lengths \(x\), \(y\) of the trains' intervals around \(t\). Before its first and after its last spike, an
    interval is at least as long as its neighbour; a train without spikes is one interval.

    Args:
        first: times of the spikes, ascending, from `begin` to `end`.
        second: times of the other train's.

    Other Args:
        begin: of both trains, in the times' unit.
        end: of both trains.

    Returns:
        The distance, from 0 to 1.

    References:
        Kreuz T. et al., J. Neuroscience Methods 165 (2007) 151.
    """
    ends = _ends(first, second, begin, end)
    x, y = (_pieces(train, ends)[0] for train in (first, second))
    return float(np.sum(np.diff(ends)[:, 0] * np.abs(x - y) / np.maximum(x, y)) / (end - begin))


def spike_distance(
    first: Float[np.ndarray, " spike"], second: Float[np.ndarray, " other"], *, begin: float = 0.0, end: float
) -> float:
    r"""The SPIKE-distance: how far spikes are from the other train's nearest ones, as seen from every moment.

    \[ D_S = \frac1T \int \frac{S_x(t)\, y(t) + S_y(t)\, x(t)}{\tfrac12 (x(t) + y(t))^2}\, dt \]

    with the intervals' lengths \(x\), \(y\), and \(S\) between the distances of a train's previous and next spike from
    the other train, linear in time; before the first and after the last spike it is that spike's.

    Args:
        first: times of the spikes, ascending, from `begin` to `end`.
        second: times of the other train's.

    Other Args:
        begin: of both trains, in the times' unit.
        end: of both trains.

    Returns:
        The distance, from 0 to 1.

    References:
        Kreuz T. et al., J. Neurophysiology 109 (2013) 1457, Equations 15 to 19.
    """
    ends = _ends(first, second, begin, end)

    def dissimilar(times: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = times if len(times) else np.array([begin, end])
        lead, tail = (2 * x[0] - x[1] if len(x) > 1 else x for x in (other, other[::-1]))
        # The other train begins and ends with spikes at or beyond the edges, as far as its intervals reach.
        other = np.concatenate([[np.min(lead, initial=begin)], other, [np.max(tail, initial=end)]])
        nearest = np.abs(own[:, None] - other).min(1)
        distance = np.concatenate([nearest[:1], nearest, nearest[-1:]])[:, None]
        interval, place, share = _pieces(times, ends)
        return distance[place] + share * (distance[place + 1] - distance[place]), interval[:, None]

    (s, x), (r, y) = dissimilar(first, second), dissimilar(second, first)
    profile = (s * y + r * x) / (0.5 * (x + y) ** 2)
    return float(np.sum(np.diff(ends)[:, 0] * profile.mean(1)) / (end - begin))


class Matching(NamedTuple):
    """Spikes of one train matched with those of another, each at most once.

    Attributes:
        true: number of true spikes.
        predicted: number of predicted ones.
        errors: predicted less true time of every pair [ms].
    """

    true: int
    predicted: int
    errors: Float[np.ndarray, " pair"]


def match_spikes(
    true: Float[np.ndarray, " spike"], predicted: Float[np.ndarray, " other"], tolerance: float
) -> Matching:
    """Match as many spikes as can be within a tolerance.

    Both trains are walked through once, and the earliest spikes that fit are paired: no other choice gives more pairs.

    Args:
        true: times, ascending [ms].
        predicted: times, ascending [ms].
        tolerance: largest distance of a pair [ms].

    Returns:
        The matching.
    """
    i = j = 0
    errors = []
    while i < len(true) and j < len(predicted):
        error = predicted[j] - true[i]
        if abs(error) <= tolerance:
            errors.append(error)
        # The earlier spike has no partner ahead if it has none here.
        i, j = i + (error >= -tolerance), j + (error <= tolerance)
    return Matching(len(true), len(predicted), np.array(errors, np.float64))


def coincidence(
    true: Float[np.ndarray, " spike"], predicted: Float[np.ndarray, " other"], *, tolerance: float, duration: float
) -> float:
    r"""The coincidence factor Γ: 1 where every spike has its partner, 0 where they meet no more often than by chance.

    \[ \Gamma = \frac{N_c - 2 \nu \Delta N_t}{\tfrac12 (N_t + N_p)} \frac{1}{1 - 2 \nu \Delta} \]

    with \(N_c\) pairs within \(\Delta\), and the predicted rate \(\nu\), whose Poisson train makes the chance.

    Args:
        true: times, ascending [ms].
        predicted: times, ascending [ms].

    Other Args:
        tolerance: Δ [ms].
        duration: of both trains [ms].

    Returns:
        Γ; NaN if neither train has a spike, or if the predicted rate is so high that chance pairs everything.

    References:
        Kistler W. M., Gerstner W., van Hemmen J. L., Neural Computation 9 (1997) 1015, Equation 2.13.
    """
    chance = 2 * tolerance * len(predicted) / duration
    if not len(true) + len(predicted) or chance >= 1:
        return float("nan")
    pairs = len(match_spikes(true, predicted, tolerance).errors)
    return float((pairs - chance * len(true)) / (0.5 * (len(true) + len(predicted))) / (1 - chance))
