"""Rollouts of forecasters, by regime: who is better, and how it is told, from errors that are given."""

import math

import numpy as np
import pytest

from jneuro.analyses.rollout import RolloutAnalysis
from jneuro.datasets import WindowConfig
from jneuro.evaluation import Findings, compare
from jneuro.evaluation.rollouts import RolloutScores
from jneuro.report.components import render

REGIMES = ({"name": "calm", "low": 0, "high": 1}, {"name": "wild", "low": 1, "high": 2})
BINS, CURRENTS = 20, 6


def found_of(levels):
    """Findings from predictors' mean squared errors, a list of one a seed for each regime."""
    analysis = RolloutAnalysis(regimes=REGIMES, currents=CURRENTS, states=1, rollout_ms=20, at_ms=(1, 10))
    rng = np.random.default_rng(0)
    kinds = ("valid_ms", "coincidence", "spike_error_ms", "van_rossum", "victor_purpura", "spikes", "true_spikes")
    of_current = {kind: np.ones(2 * CURRENTS) for kind in kinds}
    scored = {name: [] for name in levels}
    for name, (calm, wild) in levels.items():
        for level in np.repeat(np.array([calm, wild]).T, CURRENTS, axis=1)[:, :, None, None]:
            squared = level * rng.uniform(0.999, 1.001, (2 * CURRENTS, BINS, 2))
            scored[name].append(RolloutScores(squared, of_current))
    model = {"kind": "model", "steps": 5, "seeds": 3, "scaled": True, "order": "reverse"}
    known = {name: {"kind": "baseline"} for name in ("mean", "last_period", "nearest")}
    known |= {"long": model | {"steps": 9}, "short": model, "forward": model | {"order": "forward"}}
    known["raw"] = model | {"scaled": False, "seeds": 1}
    numbers = {
        "settings": {"dt": 1.0, **analysis.model_dump(exclude={"name"})},
        "predictors": known,
        **analysis._compared(scored, known, 2.0),
        "lyapunov": {
            "calm": {"per_ms": [0.0], "range_per_s": [-0.1, 0.1], "chaotic": 0, "doubling_ms": None},
            "wild": {"per_ms": [0.03, 0.0], "range_per_s": [0.0, 30.0], "chaotic": 1, "doubling_ms": 23.1},
        },
        "timing": {
            "examples": 7,
            "seconds": {"simulator": 0.5, **{name: 0.1 for name in known if known[name]["kind"] == "model"}},
            "against_simulator": {
                "long": compare([0.1] * 3, [0.5, 0.6, 0.5], paired_by="round", higher_is_better=False)
            },
        },
    }
    arrays = {f"trace.{name}": (("regime", "step"), np.zeros((2, BINS))) for name in (*known, "truth")}
    for name, seeds in scored.items():
        mean = np.sqrt(seeds[0].squared.reshape(2, CURRENTS, BINS, 2).mean(1))
        arrays[f"rmse_by_state.{name}"] = (("regime", "bin", "state"), mean)
    return analysis, Findings(numbers, arrays)


def test_models_are_compared_in_what_they_differ_and_told():
    analysis, found = found_of(
        {
            "mean": ([1.0], [1.0]),
            "last_period": ([0.5], [0.5]),
            "nearest": ([2.0], [2.0]),
            "long": ([0.2, 0.21, 0.19], [0.9, 0.91, 0.89]),
            "short": ([0.3, 0.31, 0.29], [0.9, 0.80, 1.05]),
            "forward": ([0.4, 0.41, 0.39], [0.4, 0.41, 0.39]),
            "raw": ([9.0], [9.0]),
        }
    )
    numbers = found.numbers
    assert (numbers["lead"], numbers["horizons"]) == ("long", {"short": 5, "long": 9})
    against = {regime: numbers["scores"][regime]["long"]["against_last_period"]["10"] for regime in ("calm", "wild")}
    assert [c.verdict for c in against.values()] == ["better", "worse"]
    assert against["calm"].difference == pytest.approx(math.sqrt(0.2) - math.sqrt(0.5), rel=1e-2)
    assert (against["calm"].paired_by, against["calm"].n) == ("current", CURRENTS)
    pairs = numbers["pairs"]
    assert {kind: {a: list(b) for a, b in of.items()} for kind, of in pairs.items()} == {
        "horizon": {"long": ["short"]},
        "order": {"short": ["forward"]},
        "scaling": {"short": ["raw"]},
    }
    longer = {regime: c["whole"] for regime, c in pairs["horizon"]["long"]["short"].items()}
    assert {r: (c.verdict, c.paired_by, c.n) for r, c in longer.items()} == {
        "calm": ("better", "seed", 3),
        "wild": ("not told apart", "seed", 3),
    }
    # Of a model with one seed, pairs are the currents.
    assert pairs["scaling"]["short"]["raw"]["calm"]["1"].paired_by == "current"
    order = {regime: c["1"].verdict for regime, c in pairs["order"]["short"]["forward"].items()}
    assert order == {"calm": "better", "wild": "worse"}
    section = analysis.section(back := Findings.load(found.dump(), found.arrays))
    said = render(section.text, {**back.numbers, **section.names})
    assert said[0].startswith(
        "Calm, 10 ms ahead: long (a horizon of 9 frames) beats the last period repeated: RMSE 0.45 ± 0.00 against 0.71"
    )
    assert "Why:" not in said[0]
    assert "does not beat the last period repeated" in said[1]
    assert "Why:" in said[1]
    assert "for 5, 9 frames: calm 0.55, 0.45; wild" in said[2]
    assert "the longer is better in 1 of 2 comparisons by regime, worse in 0, and not told apart in the rest" in said[2]
    assert "calm 0.548 against 0.632 at 1 ms (better), 0.548 against 0.632 at 10 ms (better); wild" in said[3]
    assert (
        "Loss of scaled states (short) and of states in their own units (raw), in the first 1 ms: calm 1.10" in said[4]
    )
    assert said[5].endswith("(1 of 2 currents chaotic: errors double in 23 ms, and from a hundredth of a standard "
                            "deviation to a whole in 153 ms).")  # fmt: skip
    assert said[6].endswith("the fastest model, long, 0.100 s: 5.0 times less, so the model saves time here.")
    *tables, errors, traces = section.parts
    assert all({len(row) for row in t.rows} == {len(t.columns)} for t in tables)
    assert [row[0] for row in tables[0].rows if row[1].endswith("*")] == ["long", "short", "forward"]
    assert (len(errors.figure.axes), len(traces.figure.axes)) == (2, 6)


def test_experiments_that_cannot_be_rolled_out():
    good = {
        "targets": ("v", "h"),
        "inputs": ("v", "h", "current"),
        "known": ("current",),
        "horizons_ms": "next_window",
    }
    analysis = RolloutAnalysis(regimes=REGIMES)
    analysis.check(WindowConfig(**good), ["m"])
    for wrong, message in (({"inputs": ("v", "h")}, "known"), ({"scaling": "none"}, "zscore")):
        with pytest.raises(ValueError, match=message):
            analysis.check(WindowConfig(**(good | wrong)), ["m"])
    for wrong, message in (
        ({"at_ms": (900.0,)}, "beyond rollout_ms"),
        ({"regimes": (*REGIMES, REGIMES[0])}, "names of their own"),
        ({"regimes": ({"name": "calm", "low": 2, "high": 1},)}, "regime calm: low = 2 must be below high = 1"),
    ):
        with pytest.raises(ValueError, match=message):
            RolloutAnalysis(**({"regimes": REGIMES} | wrong))
