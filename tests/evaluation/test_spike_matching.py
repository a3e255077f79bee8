"""Spike trains compared: matching against trains made by hand, distances against their definitions."""

import functools

import numpy as np
import pytest

from jneuro.evaluation import compare, ratio_error
from jneuro.evaluation.spike_distance import van_rossum, victor_purpura
from jneuro.evaluation.spike_matching import Matching, crossings, f1_by_run, match_spikes, peaks, spike_scores


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
