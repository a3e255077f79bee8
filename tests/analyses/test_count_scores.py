"""Scores of counts and their ceiling, against closed forms and a Poisson process of known rate."""

import numpy as np
import pytest
from scipy.special import xlogy

from jneuro.analyses.count_scores import CountScores, mean_rate, score_counts
from jneuro.datasets import WindowConfig
from jneuro.evaluation.count_ceiling import count_ceiling

RUNS = np.repeat([2, 5, 9, 11], 50)


def test_scores_against_sums_written_out():
    rng = np.random.default_rng(0)
    truth = rng.poisson(0.3, (200, 4)).astype(float)
    predicted = rng.uniform(-0.1, 0.8, (200, 4))
    rate = np.array([0.2, 0.3, 0.4, 0.1])
    found = score_counts(predicted, truth, rate, RUNS, 0.1)
    expected = np.maximum(predicted, 0.1 * rate)
    likelihood = lambda mean: np.sum(xlogy(truth, mean) - mean)  # noqa: E731
    assert found["mse"] == pytest.approx(np.mean((predicted - truth) ** 2))
    saturated = np.sum(xlogy(truth, truth) - truth)
    assert found["deviance"] == pytest.approx(2 * (saturated - likelihood(expected)) / truth.size)
    bits = (likelihood(expected) - likelihood(np.broadcast_to(rate, truth.shape))) / truth.sum() / np.log(2)
    assert found["bits"] == pytest.approx(bits)
    assert found["r2"] == pytest.approx(1 - np.sum((predicted - truth) ** 2) / np.sum((truth - rate) ** 2))


def test_the_mean_rate_gains_nothing():
    counts = np.zeros((200, 2))
    counts[::10, 0] = 1
    rate = mean_rate(counts)
    np.testing.assert_allclose(rate, [0.1, 0.5 / 200])
    found = score_counts(np.broadcast_to(rate, counts.shape), counts, rate, RUNS, 0.1)
    assert found["bits"] == found["bits_se"] == 0


@pytest.mark.parametrize("futures", [64, 512])
def test_the_ceiling_brackets_what_a_known_rate_gives(futures):
    rng = np.random.default_rng(1)
    rate = np.array([0.05, 0.1, 0.3])
    mean = rate * rng.gamma(4, 0.25, (8, 400, 3))
    halves = []
    for _ in range(2):
        drawn = rng.poisson(mean, (futures // 2, *mean.shape)).astype(np.float32)
        halves.append((drawn.mean(0, dtype=np.float64), drawn.var(0, ddof=1, dtype=np.float64)))
    found = count_ceiling(tuple(halves), rate, futures, np.ones(3, bool))
    bits = np.sum(xlogy(mean, mean / rate) - mean + rate) / mean.sum() / np.log(2)
    assert found["bits_low"] < bits < found["bits_high"]
    assert abs(found["bits"] - bits) < 0.3 * (found["bits_high"] - bits)
    assert found["mse"] == pytest.approx(mean.mean(), rel=0.02)
    spread = np.mean((mean - rate) ** 2)
    assert found["r2"] == pytest.approx(spread / (spread + mean.mean()), rel=0.1)


@pytest.mark.parametrize("changed", [{"targets": ("v",)}, {"measurement_noise": 0.1}])
def test_refuses_what_are_no_counts(changed):
    good = WindowConfig(targets=("spikes",), measurement_noise=0)
    CountScores().check(good, [])
    with pytest.raises(ValueError, match="count_scores needs targets"):
        CountScores().check(good.model_copy(update=changed), [])
