"""The criterion of evidence, against closed forms and published examples."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import ttest_rel

from jneuro.evaluation import Findings, Quantity, compare, compare_estimates, compare_ratios, holm, ratio_error


def test_pairs_are_judged_by_students_t():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 9))
    found, theirs = compare(first, second, paired_by="run"), ttest_rel(first, second)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert found.ci95 == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-12)
    assert (found.n, found.paired_by) == (9, "run")


@pytest.mark.parametrize(
    ("first", "second", "higher", "verdict"),
    [
        ([3, 3.1, 2.9], [1, 1.1, 1.0], True, "better"),
        ([3, 3.1, 2.9], [1, 1.1, 1.0], False, "worse"),
        ([1, 2, 3], [1.1, 1.8, 3.1], True, "not told apart"),
        ([2.0], [1.0], True, "not told apart"),  # one pair says nothing
        ([1.0, 1.0], [1.0, 1.0], True, "not told apart"),
        ([2.0, 2.0], [1.0, 1.0], True, "better"),  # equal differences leave no doubt
    ],
)
def test_verdicts(first, second, higher, verdict):
    found = compare(first, second, paired_by="seed", higher_is_better=higher)
    assert found.verdict == verdict
    assert math.isnan(found.ci95[0]) == (len(first) < 2)


def test_a_ratio_has_its_clusters_error():
    rng = np.random.default_rng(1)
    gained, weight = rng.normal(1, 0.5, 12), rng.uniform(1, 2, 12)
    found = compare_ratios(gained, weight)
    half = 2.200985160082949 * ratio_error(gained, weight)  # Student's 97.5 % point, 11 degrees of freedom
    assert found.difference == pytest.approx(gained.sum() / weight.sum())
    assert found.ci95 == pytest.approx((found.difference - half, found.difference + half))
    assert found.verdict == "better"


def test_estimates_that_nothing_pairs():
    found = compare_estimates(1.0, 0.0, (0.3, 0.4), n=1001)
    assert found.ci95 == pytest.approx((1 - 0.9811695404132041, 1 + 0.9811695404132041))
    assert compare_estimates(1.0, 0.0, (0.3, math.nan), n=5).p == compare_estimates(1.0, 0.0, (0.3, 0.0), n=5).p
    assert compare_estimates(1.0, 0.0, (math.nan, math.nan), n=5).verdict == "not told apart"


def test_holm_judges_a_table_together():
    # Four comparisons with p = .01, .02, .03, .04 and one that has none: only the first is below .05 / 4.
    table = {
        str(p): compare_estimates(-stdtrit(1000, p / 2), 0.0, (1.0, 0.0), n=1001) for p in (0.04, 0.01, 0.03, 0.02)
    }
    assert [c.p for c in table.values()] == pytest.approx([0.04, 0.01, 0.03, 0.02])
    judged = holm(table | {"none": compare([1.0], paired_by="run")})
    assert list(judged) == [*table, "none"]
    assert [n for n, c in judged.items() if c.verdict == "better"] == ["0.01"]
    assert all(c.verdict == "better" for c in table.values())


def test_unequal_series_are_refused():
    with pytest.raises(ValueError, match="3 values and 2 do not make pairs"):
        compare([1, 2, 3], [1, 2], paired_by="seed")


def test_findings_come_back_as_they_were():
    from jneuro.core.files import finite

    numbers = {
        "gain": compare([1.0, 2.0], paired_by="run", unit="mV"),
        "single": compare([1.0], paired_by="run"),
        "peak": Quantity(float("nan"), "Hz"),
        "nest": {"list": [Quantity(1.5)], "text": "x"},
    }
    back = Findings.load(finite(Findings(numbers).dump()), {}).numbers
    assert back["gain"] == numbers["gain"]
    assert back["single"].verdict == "not told apart"
    assert math.isnan(back["single"].p)
    assert math.isnan(back["peak"].value)
    assert back["nest"] == numbers["nest"]
