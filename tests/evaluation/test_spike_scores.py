"""How well the spikes of a predicted trace match those of the true one."""

import numpy as np
import pytest

from jneuro.evaluation.comparison import compare
from jneuro.evaluation.metrics import f1_by_run, match_traces, ratio_error, spike_scores
from jneuro.spikes.distances import Matching


def test_scores_of_shifted_and_missing_spikes():
    dt = 0.1
    spikes = np.full((4, 200), -65.0)
    spikes[:, [20, 80, 140]] = 30.0
    scores = spike_scores(match_traces(spikes, np.roll(spikes, 3, axis=1), dt, tolerance=0.5))
    assert scores["recall"] == scores["precision"] == scores["f1"] == 1
    assert (scores["timing_ms"], scores["bias_ms"]) == (pytest.approx(0.3), pytest.approx(0.3))
    assert spike_scores(match_traces(spikes, np.roll(spikes, 6, axis=1), dt, tolerance=0.5))["recall"] == 0
    half = spikes.copy()
    half[2:] = -65.0
    scores = spike_scores(match_traces(spikes, half, dt, tolerance=0.5))
    assert (scores["recall"], scores["precision"], scores["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    # Windows are hits or misses, half each: the standard error of a mean of four.
    assert scores["recall_se"] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)
    assert np.isnan(spike_scores(match_traces(half[2:], half[2:], dt, tolerance=0.5))["recall"])


def test_f1_by_run_has_the_mean_and_the_error_of_the_ratio():
    rng = np.random.default_rng(3)
    runs, true, predicted = rng.permutation(np.repeat(np.arange(9), 3)), *rng.integers(3, 9, (2, 27))
    found = [Matching(t, p, np.zeros(min(t, p) - 2)) for t, p in zip(true, predicted, strict=True)]
    hits = np.bincount(runs, [2.0 * len(m.errors) for m in found])
    both = np.bincount(runs, true + predicted)
    resolved = compare(f1_by_run(found, runs), paired_by="run")
    assert resolved.difference == pytest.approx(hits.sum() / both.sum())
    half = 2.306004135204166 * ratio_error(hits, both)  # Student's 97.5 % point, 8 degrees of freedom
    assert resolved.ci95[1] - resolved.difference == pytest.approx(half)
    assert np.isnan(f1_by_run([Matching(0, 0, np.zeros(0))], np.zeros(1, int))).all()
