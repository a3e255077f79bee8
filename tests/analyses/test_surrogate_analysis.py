"""Spike matching against trains made by hand, and the pieces of the surrogate's analysis against closed forms."""

import numpy as np
import pytest

from jneuro.datasets import WindowConfig
from jneuro.evaluation.spike_matching import crossings, match_spikes, peaks, spike_scores
from jneuro.evaluation.stimulus_families import families
from jneuro.evaluation.surrogate import SurrogateAnalysis, nearest
from jneuro.evaluation.surrogate_cost import latency_weights


@pytest.mark.parametrize(
    ("true", "predicted", "pairs"),
    [
        ([1, 5, 9], [1, 5, 9], [0, 0, 0]),
        ([1, 5, 9], [1.4, 4.6, 9.6], [0.4, -0.4]),
        ([1, 5], [], []),
        ([], [1, 5], []),
        ([1.0], [0.8, 1.2], [-0.2]),  # a burst earns one pair
        ([1.0, 1.4], [1.3], [0.3]),
        ([1.0, 1.4], [0.7, 1.2], [-0.3, -0.2]),
        ([1.0, 1.4], [1.2, 1.8], [0.2, 0.4]),  # nearest first would leave 1.8 without a partner
        ([3, 7], [0, 1, 2, 7.5], [0.5]),
    ],
)
def test_spikes_are_matched_once(true, predicted, pairs):
    found = match_spikes(np.array(true, float), np.array(predicted, float), 0.5)
    np.testing.assert_allclose(found.errors, pairs, atol=1e-12)
    assert (found.true, found.predicted) == (len(true), len(predicted))


def test_crossings_and_peaks_of_a_triangle_wave():
    dt, period = 0.05, 4.0
    time = dt * np.arange(400)
    v = 40 * (1 - 4 * np.abs((time / period) % 1 - 0.5))  # −40 at 0, 0 at a quarter, +40 at half a period
    np.testing.assert_allclose(crossings(v, dt), period * (np.arange(5) + 0.25), atol=1e-9)
    np.testing.assert_allclose(crossings(v, dt, 20.0), period * (np.arange(5) + 0.375), atol=1e-9)
    np.testing.assert_allclose(peaks(v), np.full(5, 40.0))
    # A trace that begins above threshold has not crossed it there.
    assert len(peaks(v[40:])) == len(crossings(v[40:], dt)) == 4


def test_scores_of_shifted_and_missing_spikes():
    dt = 0.1
    spikes = np.full((4, 200), -65.0)
    spikes[:, [20, 80, 140]] = 30.0
    scores = spike_scores(spikes, np.roll(spikes, 3, axis=1), dt, tolerance=0.5)
    assert scores["recall"] == scores["precision"] == scores["f1"] == 1
    assert (scores["timing_ms"], scores["bias_ms"]) == (pytest.approx(0.3), pytest.approx(0.3))
    assert spike_scores(spikes, np.roll(spikes, 6, axis=1), dt, tolerance=0.5)["recall"] == 0
    half = spikes.copy()
    half[2:] = -65.0
    scores = spike_scores(spikes, half, dt, tolerance=0.5)
    assert (scores["recall"], scores["precision"], scores["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    # Windows are hits or misses, half each: the standard error of a mean of four.
    assert scores["recall_se"] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)
    assert np.isnan(spike_scores(half[2:], half[2:], dt, tolerance=0.5)["recall"])


def test_latency_weights_give_the_derivative_of_the_crossing():
    dt, a = 0.05, 3.0
    time = dt * np.arange(200)
    v = a * time - 10.0  # crosses 0 at 10 / a
    assert latency_weights(v, dt, 0.0) @ time == pytest.approx(-10 / a**2)
    assert not latency_weights(v - 100, dt, 0.0).any()


def test_nearest_neighbour():
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(2, 30, 5))
    order = rng.permutation(30)
    np.testing.assert_array_equal(nearest(inputs, outputs, inputs[order] + 1e-6), outputs[order])


def test_families_reach_the_amplitudes_that_they_name():
    points = families(2560, 0.05, 3, np.random.default_rng(0))
    assert {p.family for p in points} == {"step", "sine", "noise", "ramp", "pulses"}
    for point in points:
        assert point.currents.shape == (3, 2560)
        if point.family in ("step", "ramp"):
            np.testing.assert_allclose(point.currents.max(1), point.x)
        if point.family == "noise":
            np.testing.assert_allclose(point.currents.std(1), point.x, rtol=0.1)
        if point.family == "pulses" and point.x == 100:
            begins = np.flatnonzero(np.diff(point.currents[0]) > 0)
            np.testing.assert_allclose(np.diff(begins), 200, atol=1)


def test_needs_current_in_and_voltage_out():
    steps = {"inputs": ["current"], "targets": ["v"]}
    SurrogateAnalysis().check(WindowConfig(**steps, discard_ms=0), ["m"])
    with pytest.raises(ValueError, match="inputs = "):
        SurrogateAnalysis().check(WindowConfig(discard_ms=0), ["m"])
    with pytest.raises(ValueError, match="discard_ms to 0"):
        SurrogateAnalysis().check(WindowConfig(**steps, discard_ms=100), ["m"])
