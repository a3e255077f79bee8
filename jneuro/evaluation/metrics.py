"""Scores of forecasts: in z-scores and in the recording's unit, by neuron and by horizon; and of their spikes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from jneuro.core.types import Float, Int
from jneuro.spikes.detection import crossings
from jneuro.spikes.distances import Matching, match_spikes

__all__ = ["f1_by_run", "forecast_scores", "interval", "match_traces", "ratio_error", "spike_scores", "sums_by_run"]


def ratio_error(numerator: Float[np.ndarray, " cluster"], denominator: Float[np.ndarray, " cluster"]) -> float:
    r"""Standard error of \(\sum a / \sum b\) over clusters that are independent of each other.

    The linearised (sandwich) estimate \(\sqrt{\frac{C}{C-1}\sum_c (a_c - R\,b_c)^2} / \sum_c b_c\).

    Args:
        numerator: \(a_c\).
        denominator: \(b_c\).

    Returns:
        The standard error; NaN for fewer than two clusters, or a sum of zero.

    References:
        Cochran W. G., Sampling Techniques (1977), Equation 6.13.
    """
    count = len(numerator)
    if count < 2:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing varies, there is no ratio: NaN
        residual = numerator - numerator.sum() / denominator.sum() * denominator
        return float(np.sqrt(count / (count - 1) * np.sum(residual**2)) / denominator.sum())


def sums_by_run(runs: Int[np.ndarray, " window"], *values: Float[np.ndarray, "window *any"]) -> list[np.ndarray]:
    """Sum values over all windows of a run: what `compare_ratios` and `ratio_error` take.

    Args:
        runs: the run of each window.
        values: of each window; further axes are summed too.

    Returns:
        One array `[run]` for each.
    """
    _, cluster = np.unique(runs, return_inverse=True)
    return [np.bincount(cluster, np.asarray(v, np.float64).reshape(len(runs), -1).sum(1)) for v in values]


def interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half width of Student's confidence interval of a mean.

    Args:
        values: independent ones, such as one score for each seed.
        level: of the confidence.

    Returns:
        The half width; NaN for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return float("nan")
    return float(stdtrit(count - 1, 0.5 + level / 2) * np.std(values, ddof=1) / np.sqrt(count))


def forecast_scores(
    predicted: Float[np.ndarray, "window horizon feature"],
    target: Float[np.ndarray, "window horizon feature"],
    scale: Float[np.ndarray, " feature"],
    runs: np.ndarray,
) -> dict[str, Any]:
    r"""Score a forecast.

    \(R^2 = 1 - \sum (y - \hat y)^2 / \sum (y - \bar y_n)^2\) over windows and neurons, where \(\bar y_n\) is the mean
    of neuron \(n\) over the scored windows. The headline figures are those of the nearest horizon.

    Args:
        predicted: forecasts, in z-scores.
        target: what came, in z-scores.
        scale: standard deviation behind the z-scores of every variable, in the recording's unit.
        runs: the run from which each window comes; runs are the independent clusters of the standard error.

    Returns:
        `r2`, `r2_se`, `rmse_z`, `mae_z`, `rmse`, `mae`, and the same by horizon (`per_horizon`) and, for the
        nearest one, by neuron (`per_neuron`). `rmse` and `mae` are in the unit of the targets. R² of what never changes
        is not defined: NaN.
    """
    error = predicted.astype(np.float64) - target
    # What never changes has no spread, not that of its mean's rounding.
    spread = np.where(np.ptp(target, axis=0) > 0, np.square(target - target.mean(0, dtype=np.float64)), 0.0)
    horizons = [_one_horizon(error[:, h], spread[:, h], scale, runs) for h in range(error.shape[1])]
    squared = np.square(error[:, 0]).mean(0)
    whole = spread[:, 0].mean(0)
    r2 = 1 - np.divide(squared, whole, out=np.full_like(squared, np.nan), where=whole > 0)
    neurons = {
        "r2": r2,
        "rmse": np.sqrt(squared) * scale,
        "mae": np.abs(error[:, 0]).mean(0) * scale,
    }
    return {
        **horizons[0],
        "per_horizon": {name: [h[name] for h in horizons] for name in horizons[0]},
        "per_neuron": {name: values.tolist() for name, values in neurons.items()},
    }


def _one_horizon(error: np.ndarray, spread: np.ndarray, scale: np.ndarray, runs: np.ndarray) -> dict[str, float]:
    """Scores at one horizon, all neurons together."""
    squared, absolute = np.square(error), np.abs(error)
    a, b = sums_by_run(runs, squared, spread)
    return {
        "r2": float(1 - a.sum() / b.sum()) if b.sum() > 0 else np.nan,
        "r2_se": ratio_error(a, b),
        "rmse_z": float(np.sqrt(squared.mean())),
        "mae_z": float(absolute.mean()),
        "rmse": float(np.sqrt(np.mean(squared * scale**2))),
        "mae": float(np.mean(absolute * scale)),
    }


def match_traces(
    true: Float[np.ndarray, "window frame"],
    predicted: Float[np.ndarray, "window frame"],
    dt: float,
    *,
    tolerance: float,
    threshold: float = 0.0,
    fall: float = 0.0,
) -> list[Matching]:
    """Match the spikes of predicted voltages, window by window.

    Args:
        true: voltages [mV].
        predicted: voltages [mV].
        dt: time between samples [ms].

    Other Args:
        tolerance: largest distance of a pair [ms].
        threshold: of spikes [mV].
        fall: how far below it a potential must return before the next spike [mV].

    Returns:
        The matching of each window.
    """
    return [
        match_spikes(crossings(a, dt, threshold, fall), crossings(b, dt, threshold, fall), tolerance)
        for a, b in zip(true, predicted, strict=True)
    ]


def spike_scores(found: Sequence[Matching]) -> dict[str, float]:
    """Score the spikes of predicted voltages.

    Args:
        found: the matching of each window; see `match_traces`.

    Returns:
        `recall`, the share of true spikes that are matched, with `recall_se` over windows; `precision`, the share of
        predicted ones; `f1`, their harmonic mean; `timing_ms`, the mean distance of pairs; `bias_ms`, their mean
        difference; the numbers of spikes, `true` and `predicted`. NaN where there is no spike.
    """
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
    counts = np.array([(m.true + m.predicted, 2.0 * len(m.errors)) for m in found])
    both, hits = sums_by_run(runs, *counts.T)
    if not both.any():
        return np.full(len(both), np.nan)
    f1 = hits.sum() / both.sum()
    return f1 + (hits - f1 * both) / both.mean()
