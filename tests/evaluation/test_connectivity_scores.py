"""Matrices of scores against a truth: closed forms, bounds, nulls."""

import numpy as np
import pytest

from jneuro.analyses.connectivity_recovery import attention_matrices
from jneuro.evaluation.connectivity_scores import agreement, auroc, causal_weight, cross_correlation, separate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("score", "label", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([1, 2], [1, 1], np.nan),
    ],
)
def test_auroc(score, label, expected):
    np.testing.assert_equal(auroc(np.array(score, float), np.array(label, bool)), expected)


def test_auroc_counts_pairs():
    score, label = RNG.integers(0, 5, 60).astype(float), RNG.random(60) < 0.3
    apart = score[label][:, None] - score[~label]
    assert auroc(score, label) == pytest.approx(((apart > 0) + 0.5 * (apart == 0)).mean())
    twice = np.where(np.arange(60) < 20, 2.0, 1.0)
    repeated = np.repeat(np.arange(60), twice.astype(int))
    assert auroc(score, label, twice) == pytest.approx(auroc(score[repeated], label[repeated]))


def test_separation_has_bounds_and_a_null():
    neurons = 40
    label = RNG.random((neurons, neurons)) < 0.2
    kept = ~np.eye(neurons, dtype=bool)
    population = (np.arange(neurons) >= 30).astype(int)
    rng = np.random.default_rng(1)
    found = separate(label + RNG.normal(0, 1, label.shape), label, kept, population, draws=100, rng=rng)
    assert found.low < found.auroc < found.high
    assert found.null_high < found.low
    assert found.null_low < 0.5 < found.null_high
    assert found.auroc == pytest.approx(0.76, abs=0.05)  # Φ(1/√2)
    # What tells populations apart only is all in the null.
    split = np.broadcast_to(population[None], label.shape).astype(float)
    found = separate(split, (split > 0) & kept, kept, population, draws=30, rng=rng)
    assert (found.auroc, found.null_high) == (1, 1)
    assert found.null_low > 0.95  # but for the pairs that come from the diagonal


def test_agreement():
    x = np.array([1.0, 2.0, 4.0])
    assert agreement(x, 3 * x) == pytest.approx({"cosine": 1, "spearman": 1})
    assert agreement(x, np.array([3.0, 2.0, 1.0]))["spearman"] == pytest.approx(-1)


def test_cross_correlation_finds_a_delayed_copy():
    first = np.array([10, 40, 90, 200])
    step, neuron = np.concatenate([first, first + 3, [60]]), np.repeat([0, 1, 2], [4, 4, 1])
    found = cross_correlation(step, neuron, 4, 400, 5)
    expected = 4 * 4 / 400
    assert found[0, 1] == pytest.approx((4 - expected) / np.sqrt(expected))
    assert found[1, 0] == pytest.approx(-np.sqrt(expected))
    assert not found[3].any()


def test_causal_weight_needs_arrival():
    weight, delay = np.zeros((2, 3, 3))
    weight[0, 1], delay[0, 1] = 2.0, 5.0
    weight[0, 2], delay[0, 2] = 1.0, 1.0
    # Neuron 1 spikes 5 ms after a spike of 0, which has just arrived, then 4 ms after another, which has not.
    time, neuron = np.array([10.0, 15.0, 30.0, 34.0]), np.array([0, 1, 0, 1])
    found = causal_weight(weight, delay, time, neuron, 20.0)
    assert found[0, 1] == pytest.approx(2 * np.mean(np.exp([-5 / 20, -24 / 20])))
    assert not found[0, 2]  # never fires
    assert np.count_nonzero(found) == 1


def test_neurons_that_attend_alike():
    attention = RNG.random((6, 3, 4))
    attention[:, 1] = attention[:, 0]
    attention[:, 2] = 1 - attention[:, 0]
    similar, correlated = attention_matrices(attention)
    assert (similar[0, 1], correlated[0, 1], correlated[0, 2]) == pytest.approx((1, 1, -1))
    assert 0 < similar[0, 2] < 1
