"""Spikes of a voltage trace, and how well those of another trace match them in time."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jneuro.core.types import Float, Int
from jneuro.evaluation.metrics import ratio_error

__all__ = [
    "Matching",
    "coincidence",
    "crossings",
    "f1_by_run",
    "match_spikes",
    "match_traces",
    "peaks",
    "spike_scores",
]


def crossings(v: Float[np.ndarray, " frame"], dt: float, threshold: float = 0.0) -> Float[np.ndarray, " spike"]:
    """Times of upward crossings, between samples by a straight line.

    Args:
        v: voltage [mV].
        dt: time between samples [ms].
        threshold: what is crossed [mV].

    Returns:
        The times after the first sample [ms].
    """
    v = np.asarray(v, np.float64)
    at = np.flatnonzero((v[:-1] < threshold) & (v[1:] >= threshold))
    return dt * (at + (threshold - v[at]) / (v[at + 1] - v[at]))


def peaks(v: Float[np.ndarray, " frame"], threshold: float = 0.0) -> Float[np.ndarray, " spike"]:
    """The highest voltage of every stretch above threshold that begins with an upward crossing.

    Args:
        v: voltage [mV].
        threshold: what is crossed [mV].

    Returns:
        The heights [mV].
    """
    above = np.concatenate([[False], v >= threshold, [False]])
    begin, end = np.flatnonzero(~above[:-1] & above[1:]), np.flatnonzero(above[:-1] & ~above[1:])
    return np.array([v[b:e].max() for b, e in zip(begin, end, strict=True) if b > 0])


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


def match_traces(
    true: Float[np.ndarray, "window frame"],
    predicted: Float[np.ndarray, "window frame"],
    dt: float,
    *,
    tolerance: float,
    threshold: float = 0.0,
) -> list[Matching]:
    """Match the spikes of predicted voltages, window by window.

    Args:
        true: voltages [mV].
        predicted: voltages [mV].
        dt: time between samples [ms].

    Other Args:
        tolerance: largest distance of a pair [ms].
        threshold: of spikes [mV].

    Returns:
        The matching of each window.
    """
    return [
        match_spikes(crossings(a, dt, threshold), crossings(b, dt, threshold), tolerance)
        for a, b in zip(true, predicted, strict=True)
    ]


def spike_scores(
    true: Float[np.ndarray, "window frame"],
    predicted: Float[np.ndarray, "window frame"],
    dt: float,
    *,
    tolerance: float,
    threshold: float = 0.0,
) -> dict[str, float]:
    """Score the spikes of predicted voltages.

    Args:
        true: voltages [mV].
        predicted: voltages [mV].
        dt: time between samples [ms].

    Other Args:
        tolerance: largest distance of a pair [ms].
        threshold: of spikes [mV].

    Returns:
        `recall`, the share of true spikes that are matched, with `recall_se` over windows; `precision`, the share of
        predicted ones; `f1`, their harmonic mean; `timing_ms`, the mean distance of pairs; `bias_ms`, their mean
        difference; the numbers of spikes, `true` and `predicted`. NaN where there is no spike.
    """
    found = match_traces(true, predicted, dt, tolerance=tolerance, threshold=threshold)
    errors = np.concatenate([m.errors for m in found])
    hits, true, predicted = np.array([(len(m.errors), m.true, m.predicted) for m in found], float).T
    counts = [float(true.sum()), float(predicted.sum())]
    matched = float(len(errors))
    return {
        "recall": matched / counts[0] if counts[0] else np.nan,
        "recall_se": ratio_error(hits, true) if counts[0] else np.nan,
        "precision": matched / counts[1] if counts[1] else np.nan,
        "f1": 2 * matched / sum(counts) if sum(counts) else np.nan,
        "timing_ms": float(np.abs(errors).mean()) if matched else np.nan,
        "bias_ms": float(errors.mean()) if matched else np.nan,
        "true": counts[0],
        "predicted": counts[1],
    }


def f1_by_run(found: Sequence[Matching], runs: Int[np.ndarray, " window"]) -> Float[np.ndarray, " run"]:
    r"""The F1 score of all spikes, resolved by run, so that two predictors can be compared in pairs.

    With \(a_c\) twice the matched and \(b_c\) the true and predicted spikes of run \(c\), \(F = \sum a / \sum b\), and
    the values are \(F + (a_c - F\,b_c) / \bar b\): their mean is \(F\), and the standard error of their mean is that of
    the ratio (`jneuro.evaluation.ratio_error`).

    Args:
        found: the matching of each window.
        runs: the run of each window.

    Returns:
        The values; NaN if there is no spike at all.
    """
    _, cluster = np.unique(runs, return_inverse=True)
    both = np.bincount(cluster, [m.true + m.predicted for m in found])
    hits = np.bincount(cluster, [2.0 * len(m.errors) for m in found])
    if not both.any():
        return np.full(len(both), np.nan)
    f1 = hits.sum() / both.sum()
    return f1 + (hits - f1 * both) / both.mean()
