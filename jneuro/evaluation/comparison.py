"""The one criterion of evidence: is one thing better than another, worse, or are they not told apart?

Every sentence, table, figure and claim that says "better" asks a `Comparison`. It is paired (the same runs, seeds or
stimuli on both sides), clustered (a run counts once, however many windows it holds), stands with a 95 % interval by
Student's t over the clusters, and is corrected by Holm's method where a table compares several things.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from jneuro.evaluation.metrics import ratio_error

__all__ = [
    "Comparison",
    "Verdict",
    "compare",
    "compare_estimates",
    "compare_ratios",
    "compare_resampled",
    "holm",
]

Verdict = Literal["better", "worse", "not told apart"]

LEVEL = 0.95
"""Level of every interval and, as 1 − level, of every test."""


@dataclass(frozen=True)
class Comparison:
    """A difference between two things, and whether it is told from chance.

    Attributes:
        difference: the first less the second, in `unit`.
        ci95: bounds of the 95 % interval of the difference (Student's t over the clusters); NaN for one cluster.
        paired_by: what the independent pairs are, such as `run`, `seed` or `current`; empty if nothing pairs them.
        n: how many there are.
        verdict: whether the first is `better`, `worse`, or `not told apart` at the 5 % level. Within a table, at that
            level for all of its comparisons together (`holm`), so that a verdict may be open though `ci95` leaves
            zero out.
        p: two-sided probability of so large a difference by chance, before Holm's correction; NaN for one cluster.
        unit: of the difference.
        higher_is_better: whether the larger value wins: true for R², false for errors.
    """

    difference: float
    ci95: tuple[float, float]
    paired_by: str
    n: int
    verdict: Verdict
    p: float
    unit: str = "1"
    higher_is_better: bool = True


def compare(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray | float = 0.0,
    *,
    paired_by: str,
    unit: str = "1",
    higher_is_better: bool = True,
) -> Comparison:
    r"""Compare two series of values in pairs.

    With \(d_c\) the differences over \(n\) independent pairs, the interval is
    \(\bar d \pm t_{n-1,\,0.975}\, s_d / \sqrt n\).

    Args:
        first: one value for each seed, run, … [unit].
        second: the values of the other, in the same order; or one number.
        paired_by: what each pair shares, such as `seed`.
        unit: of the values.
        higher_is_better: false for errors.

    Returns:
        The comparison.

    Raises:
        ValueError: if there are no pairs, or the series differ in length.

    Examples:
        >>> from jneuro.evaluation import compare
        >>> found = compare([0.61, 0.62, 0.60], [0.58, 0.60, 0.56], paired_by="seed")
        >>> round(found.difference, 3), found.n, found.verdict
        (0.03, 3, 'better')
    """
    first, second = np.atleast_1d(np.asarray(first, float)), np.asarray(second, float)
    if not first.size or (second.ndim and first.shape != second.shape):
        raise ValueError(f"compare: {first.size} values and {second.size} do not make pairs; give as many of each")
    apart = first - second
    n = len(apart)
    error = float(np.std(apart, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return _judge(float(apart.mean()), error, n, paired_by, unit, higher_is_better)


def compare_ratios(
    gained: np.ndarray, weight: np.ndarray, *, paired_by: str = "run", unit: str = "1", higher_is_better: bool = True
) -> Comparison:
    r"""Compare by a ratio of sums over clusters, such as a gain in R² over runs.

    The difference is \(\sum_c g_c / \sum_c w_c\); its standard error is the linearised one of
    `jneuro.evaluation.ratio_error`, its interval Student's with one degree of freedom less than clusters.

    Args:
        gained: by how much the first is above the second in each cluster, such as squared error that is gone.
        weight: what it is relative to in each cluster, such as the squared deviation of the target.
        paired_by: what a cluster is.
        unit: of the ratio.
        higher_is_better: whether a positive ratio speaks for the first.
    """
    error = ratio_error(gained, weight)
    return _judge(float(gained.sum() / weight.sum()), error, len(gained), paired_by, unit, higher_is_better)


def compare_estimates(
    first: float,
    second: float,
    errors: tuple[float, float],
    *,
    n: int,
    unit: str = "1",
    higher_is_better: bool = True,
) -> Comparison:
    """Compare two estimates that nothing pairs: their standard errors add in squares.

    Args:
        first: an estimate [unit].
        second: the other.
        errors: the standard error of each; one that is NaN counts as zero, both as unknown.
        n: clusters behind the estimate that has fewer; its degrees of freedom are taken for both, which is cautious.
        unit: of the estimates.
        higher_is_better: false for errors.
    """
    known = [e for e in errors if math.isfinite(e)]
    error = math.hypot(*known) if known else math.nan
    return _judge(first - second, error, n, "", unit, higher_is_better)


def compare_resampled(
    value: float, resampled: np.ndarray, null: np.ndarray, *, paired_by: str, n: int, unit: str = "1"
) -> Comparison:
    """Compare a statistic with what chance gives, by bootstrap and permutation.

    The difference is from the median of the null, its interval from the bootstrap's quantiles, and p the share of null
    values that lie as far from their median. Told apart means that p is below 5 % and the interval leaves zero out.

    Args:
        value: the statistic.
        resampled: its bootstrap values over the independent units.
        null: its values where chance alone rules, such as shuffled labels.
        paired_by: what was resampled.
        n: how many of these there are.
        unit: of the statistic.
    """
    middle = float(np.nanmedian(null))
    low, high = (float(q) - middle for q in np.nanquantile(resampled, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    difference = value - middle
    p = (1 + int(np.sum(np.abs(null - middle) >= abs(difference)))) / (len(null) + 1)
    verdict: Verdict = "not told apart"
    if p < 1 - LEVEL and (low > 0 or high < 0):
        verdict = "better" if difference > 0 else "worse"
    return Comparison(difference, (low, high), paired_by, n, verdict, p, unit)


def holm(comparisons: Mapping[Any, Comparison]) -> dict[Any, Comparison]:
    """Judge the comparisons of a table together: no false verdict among all of them in 95 % of tables.

    Args:
        comparisons: by name.

    Returns:
        The same, with the verdicts that remain after Holm's step-down correction.

    References:
        Holm S., A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65.
    """
    tested = sorted((n for n in comparisons if math.isfinite(comparisons[n].p)), key=lambda n: comparisons[n].p)
    kept = dict(comparisons)
    for place, name in enumerate(tested):
        if comparisons[name].p * (len(tested) - place) > 1 - LEVEL:
            return kept | {n: replace(comparisons[n], verdict="not told apart") for n in tested[place:]}
    return kept


def _judge(difference: float, error: float, n: int, paired_by: str, unit: str, higher_is_better: bool) -> Comparison:
    """Interval, p and verdict of a difference with a standard error of n − 1 degrees of freedom."""
    if n < 2 or not math.isfinite(error):
        return Comparison(
            difference, (math.nan, math.nan), paired_by, n, "not told apart", math.nan, unit, higher_is_better
        )
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(difference) / error)) if error else float(difference == 0)
    verdict: Verdict = "not told apart"
    if p < 1 - LEVEL:
        verdict = "better" if (difference > 0) == higher_is_better else "worse"
    return Comparison(
        difference, (difference - half, difference + half), paired_by, n, verdict, p, unit, higher_is_better
    )
