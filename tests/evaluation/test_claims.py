"""Claims are judged by the evidence that the metrics hold."""

import pytest

from jneuro.core.config import ConfigError
from jneuro.evaluation import compare
from jneuro.evaluation.claims import Claim, check_claims, claims_table, judge
from jneuro.evaluation.results import Quantity

SEEDS = {"good": [0.70, 0.71, 0.72], "bad": [0.60, 0.61, 0.59]}
METRICS = {
    "test": {
        "good": {
            "r2": 0.70,
            "r2_se": 0.01,
            "seeds": {"r2": SEEDS["good"]},
            "against": {k: compare([0.1, 0.11, 0.12, 0.1], paired_by="run") for k in ("once", "mine")},
            "baselines": {"mine": {"r2": 0.5}},
        },
        "bad": {"r2": 0.60, "r2_se": 0.01, "seeds": {"r2": SEEDS["bad"]}},
        "once": {"r2": 0.59, "r2_se": 0.03, "parameters": 12},
        "good (leaky split)": {"r2": 0.8, "r2_se": None},
    },
    "baselines": {"ar": {"r2": 0.64, "r2_se": 0.02}},
    "analyses": {
        "my.one": {"gain": compare([1.0, 1.1, 0.9], paired_by="current", unit="mV"), "peak": Quantity(3.0, "Hz")},
        "counts": {"bits": 0.5, "bits_se": 0.1, "mse": 0.2, "mse_se": 0.01, "seeds": [0.5, 0.51, 0.52]},
        "list": [{"x": 1.0}, {"x": 2.0, "x_se": 0.1}],
    },
    "windows": {"runs": {"test": list(range(8))}},
}


@pytest.mark.parametrize(
    ("claim", "status", "evidence"),
    [
        ({"quantity": "test.good.r2", "against": "test.bad.r2"}, "reproduced", "paired by seed, n = 3"),
        ({"quantity": "test.bad.r2", "against": "test.good.r2"}, "refuted", "0.6 against 0.71"),
        ({"quantity": "test.bad.r2", "against": "test.good.r2", "expect": "below"}, "reproduced", "−0.11"),
        ({"quantity": "test.good.r2", "against": "test.once.r2"}, "reproduced", "paired by run, n = 4"),
        ({"quantity": "test.good.r2", "against": "test.good.baselines.mine.r2"}, "reproduced", "by run, n = 4"),
        ({"quantity": "test.once.r2", "against": "baselines.ar.r2"}, "undecided", "unpaired"),
        ({"quantity": "test.good.r2", "against": 0.5}, "reproduced", "0.71 against 0.5"),
        ({"quantity": "test.good.r2", "against": 0.71, "expect": "within", "margin": 0.05}, "reproduced", "seed"),
        ({"quantity": "test.good.r2", "against": 0.71, "expect": "within", "margin": 0.02}, "undecided", "seed"),
        ({"quantity": "test.good.r2", "against": 0.5, "expect": "within", "margin": 0.05}, "refuted", "seed"),
        ({"quantity": "analyses.my.one.gain"}, "reproduced", "paired by current, n = 3"),
        ({"quantity": "analyses.my.one.gain", "against": 2}, "refuted", "mV"),
        ({"quantity": "analyses.my.one.peak", "against": 2}, "reproduced", "3 against 2 Hz, without an interval"),
        ({"quantity": "analyses.list.1.x", "against": "analyses.list.0.x"}, "reproduced", "2 against 1"),
        ({"quantity": "test.once.parameters", "against": 12}, "refuted", "without an interval"),
        ({"quantity": "analyses.counts.bits", "against": 0.4}, "reproduced", "paired by seed"),
        ({"quantity": "analyses.counts.mse", "against": 0.1}, "reproduced", "unpaired"),  # seeds are of the bits
        ({"quantity": ["test.good.r2", "test.bad.r2"], "against": 0.5}, "reproduced", "0.6 against 0.5"),
        ({"quantity": ["test.good.r2", "test.bad.r2"], "against": 0.65}, "refuted", "0.6 against 0.65"),
        ({"quantity": ["test.good.r2", "test.once.r2"], "against": [0.65, 0.58]}, "undecided", "unpaired"),
        ({"quantity": None, "why": "needs a GPU"}, "not run", "needs a GPU"),
        ({"quantity": "analyses.my.one.missing"}, "not run", "unknown key 'missing'"),
        ({"quantity": "test.good.seeds"}, "not run", "is no number"),
    ],
)
def test_claims_are_judged(claim, status, evidence):
    (found,) = judge([Claim(text="c", **claim)], METRICS)
    assert found.status == status
    assert evidence in "; ".join(found.evidence)


def test_bad_claims_are_refused_before_anything_runs():
    given = {"models": ["good", "good (leaky split)"], "baselines": ["ar"], "analyses": ["my.one"], "ceiling": False}
    check_claims([Claim(text="c", quantity="test.good (leaky split).r2", against="test.good.r2")], **given)
    check_claims([Claim(text="c", quantity="analyses.my.one.gain")], **given)
    for key, said in {
        "tset.good.r2": "did you mean 'test'",
        "test.god.r2": "did you mean 'good'",
        "test.good.rmsee": "did you mean 'rmse'",
        "analyses.mine.x": "unknown analysis 'mine'",
        "ceiling.r2": "unknown part of metrics.json 'ceiling'",
    }.items():
        with pytest.raises(ValueError, match=f"claims.0: '{key}': .*{said}.*leave the claim out"):
            check_claims([Claim(text="c", quantity=key)], **given)
    for broken, said in [
        ({}, "say in `why`"),
        ({"quantity": "a", "expect": "within"}, "needs a `margin`"),
        ({"quantity": "a", "margin": 1}, "only it has one"),
        ({"quantity": ["a", "b"], "against": [1]}, "1 entries for 2 quantities"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Claim(text="c", **broken)


def test_the_table_has_a_line_for_each_claim():
    claims = [Claim(text="a", source="X 2020", quantity="test.good.r2", against=0.5), Claim(text="b", why="w")]
    first, second = claims_table(judge(claims, METRICS)).splitlines()[2:]
    assert first.startswith("| a (X 2020) | reproduced | 0.71 against 0.5")
    assert second == "| b | not run | w |"
