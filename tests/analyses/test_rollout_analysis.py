"""What rollouts are compared with and scored by, against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.datasets import WindowConfig
from jneuro.evaluation.lyapunov import tangent_growth
from jneuro.evaluation.repetition import nearest, period, repeat_period
from jneuro.evaluation.rollout_analysis import RolloutAnalysis
from jneuro.evaluation.rollout_scores import Sample, score_rollouts, valid_frames
from jneuro.evaluation.spike_distance import van_rossum, victor_purpura


@pytest.mark.parametrize("length", [37.0, 61.4, 250.7])
def test_last_period_of_a_sine(length):
    at = 2 * np.pi * np.arange(3000) / length
    wave = np.stack([np.sin(at), np.cos(at) + 3], 1)
    lag = period(wave[:1000, 0])
    assert abs(lag / length - round(lag / length)) < 1e-4 * round(lag / length)
    error = repeat_period(wave[:1000], lag, 2000) - wave[1000:]
    # The straight line between frames is off by (2π / length)² / 8 at most; the rest is the period's own error.
    assert np.abs(error).max() < (2 * np.pi / length) ** 2 / 8 + 2e-2


def test_last_period_drifts():
    wave = np.sin(2 * np.pi * np.cumsum(1 / (60 + np.minimum(np.arange(2000), 1500) / 100)))
    assert np.isclose(period(wave) / 75, np.round(period(wave) / 75), atol=2e-3)
    assert period(np.full(100, 2.0)) == 1
    np.testing.assert_array_equal(repeat_period(np.full((9, 2), 2.0), 1.0, 5), np.full((5, 2), 2.0))


def test_nearest():
    rng = np.random.default_rng(0)
    candidates, queries = rng.normal(size=(50, 3)), rng.normal(size=(7, 3))
    want = np.square(queries[:, None] - candidates).sum(2).argmin(1)
    np.testing.assert_array_equal(nearest(jnp.asarray(candidates), jnp.asarray(queries)), want)


def test_van_rossum_against_its_integral():
    rng = np.random.default_rng(1)
    first, second, tau, dt = np.sort(rng.uniform(0, 80, 6)), np.sort(rng.uniform(0, 80, 4)), 7.0, 1e-3
    time = np.arange(0, 200, dt)
    trace = lambda train: sum(np.where(time >= s, np.exp(-(time - s) / tau), 0) for s in train)  # noqa: E731
    integral = np.square(trace(first) - trace(second)).sum() * dt / tau
    assert van_rossum(first, second, tau) == pytest.approx(integral, rel=2e-3)
    assert van_rossum(first, first, tau) == pytest.approx(0, abs=1e-12)
    assert van_rossum(np.array([5.0]), np.array([]), tau) == pytest.approx(0.5)
    assert van_rossum(np.array([5.0]), np.array([900.0]), tau) == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "second", "cost", "want"),
    [
        ([1, 5, 9], [2], 0, 2),  # only the numbers count
        ([1, 5, 9], [2, 30], 1e6, 5),  # nothing is moved
        ([4], [4.3], 0.5, 0.15),
        ([4], [9], 0.5, 2),  # dearer to move than to delete and insert
        ([1, 5, 9], [1.2, 9.4], 1, 1.6),
        ([1, 2, 3, 4], [2, 3, 4, 5], 0.25, 1),  # all moved; the shift of one alone costs 2
        ([1, 2, 3, 4], [2, 3, 4, 5], 1, 2),
        ([], [1, 2], 1, 2),
        ([], [], 1, 0),
    ],
)
def test_distance_of_victor_and_purpura(first, second, cost, want):
    trains = np.array(first, float), np.array(second, float)
    assert victor_purpura(*trains, cost) == pytest.approx(want)
    assert victor_purpura(*trains[::-1], cost) == pytest.approx(want)


def test_distance_of_victor_and_purpura_against_its_recursion():
    rng = np.random.default_rng(2)
    first, second, cost = np.sort(rng.uniform(0, 30, 7)), np.sort(rng.uniform(0, 30, 9)), 0.4

    @functools.cache
    def least(i, j):
        if not i or not j:
            return i + j
        moved = least(i - 1, j - 1) + cost * abs(first[i - 1] - second[j - 1])
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, moved)

    assert victor_purpura(first, second, cost) == pytest.approx(least(7, 9))


def test_exponent_of_a_linear_system():
    matrix = jnp.asarray([[0.9, 1.0], [0.0, 0.5]])
    growth = tangent_growth(lambda y: matrix @ y, jnp.ones(2), jnp.ones(2), 400)
    assert growth[100:].mean() == pytest.approx(np.log(0.9), abs=1e-5)


def test_exponent_of_the_logistic_map(x64):
    step = lambda y: {"x": 4 * y["x"] * (1 - y["x"])}  # noqa: E731
    growth = jax.jit(lambda y: tangent_growth(step, {"x": y}, {"x": jnp.ones(())}, 20_000))(jnp.asarray(0.3))
    assert growth.mean() == pytest.approx(np.log(2), abs=5e-3)


def test_scores_of_a_shifted_forecast():
    values = np.zeros((2, 60, 3), np.float32)
    values[0, 22::10, 0] = 40  # spikes every 10 frames
    values[..., :2] -= 20
    sample = Sample(values, np.arange(2), np.array([0, 0, 1]), np.array([19, 20, 21]))
    scale, dt, steps = np.array([10.0, 2.0]), 0.5, 30

    def predict(index):
        return sample.cut(index, 1, steps)[..., :2] + np.array([0.0, 3.0])

    scores = score_rollouts(
        predict, sample, scale, dt, steps, batch_size=2, valid_error=1.0, tolerance=1.0, tau=5.0, cost=1.0
    )  # fmt: skip
    np.testing.assert_allclose(scores.squared, np.broadcast_to([0, 2.25], (2, 15, 2)), atol=1e-12)
    found = scores.by_current
    np.testing.assert_allclose(found["coincidence"], 1)
    np.testing.assert_allclose(found["spikes"], [3, 0])
    np.testing.assert_allclose([found["van_rossum"], found["victor_purpura"]], 0, atol=1e-12)
    # √(2.25 / 2) > 1 at once; a limit above it is never exceeded.
    np.testing.assert_array_equal(found["valid_ms"], 0)
    error = np.broadcast_to(np.array([0.0, 1.5]), (1, 30, 2))
    np.testing.assert_array_equal(valid_frames(error, 1.1), 30)


def test_experiments_that_cannot_be_rolled_out():
    good = {
        "targets": ("v", "h"),
        "inputs": ("v", "h", "current"),
        "known": ("current",),
        "horizons_ms": "next_window",
    }
    RolloutAnalysis().check(WindowConfig(**good), ["m"])
    for wrong, message in (({"inputs": ("v", "h")}, "known"), ({"scaling": "none"}, "zscore")):
        with pytest.raises(ValueError, match=message):
            RolloutAnalysis().check(WindowConfig(**(good | wrong)), ["m"])
    with pytest.raises(ValueError, match="beyond rollout_ms"):
        RolloutAnalysis(at_ms=(900.0,))
