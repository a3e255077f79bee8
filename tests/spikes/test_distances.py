"""Spike-train metrics against closed forms, recursions, and the values of Elephant and PySpike."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from jneuro.spikes.distances import (
    coincidence,
    isi_distance,
    match_spikes,
    spike_distance,
    van_rossum,
    victor_purpura,
)


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


@pytest.mark.parametrize(
    ("predicted", "gamma"),
    [
        ([100.0, 300.0], 1.0),
        ([103.0, 296.0], 1.0),
        ([105.0, 295.0], -0.016 / (1 - 0.016)),  # nothing meets: less than chance
        ([100.0], (1 - 2 * 0.008) / 1.5 / (1 - 0.008)),
        ([], 0.0),
    ],
)
def test_coincidence(predicted, gamma):
    true = np.array([100.0, 300.0])
    found = coincidence(true, np.array(predicted), tolerance=4.0, duration=1000.0)
    assert found == pytest.approx(gamma)


def test_coincidence_without_meaning():
    none = np.zeros(0)
    assert np.isnan(coincidence(none, none, tolerance=4.0, duration=1000.0))
    assert np.isnan(coincidence(none, np.arange(200.0), tolerance=4.0, duration=1000.0))


def test_chance_gives_no_coincidence():
    rng = np.random.default_rng(0)
    trains = [np.sort(rng.uniform(0, 1e6, 10_000)) for _ in range(2)]
    assert abs(coincidence(*trains, tolerance=4.0, duration=1e6)) < 0.02


def test_coincident_spikes_cost_nothing_however_dear_it_is_to_move():
    train, other = np.array([1.0, 5.0, 9.0]), np.array([1.0, 5.1])
    assert victor_purpura(train, train, np.inf) == 0
    assert victor_purpura(train, other, np.inf) == 3


HELD = dict(np.load(Path(__file__).parents[1] / "reference" / "spikes.npz"))


def test_metrics_are_those_of_elephant_and_pyspike():
    """Elephant's van Rossum distance is the root of twice ours."""
    settings, cut = json.loads(str(HELD["settings"])), np.cumsum(HELD["sizes"].ravel())[:-1]
    trains = np.split(HELD["times"], cut)
    for first, second, wanted in zip(trains[::2], trains[1::2], HELD["metrics"], strict=True):
        edges = {"end": settings["length"]}
        found = [isi_distance(first, second, **edges), spike_distance(first, second, **edges)]
        found += [np.sqrt(max(2 * van_rossum(first, second, tau), 0)) for tau in settings["tau"]]
        found += [victor_purpura(first, second, cost) for cost in settings["costs"]]
        known = np.isfinite(wanted)
        np.testing.assert_allclose(np.array(found)[known], wanted[known], atol=1e-9)
        swapped = [f(second, first, **edges) for f in (isi_distance, spike_distance)]
        np.testing.assert_allclose(swapped, found[:2], atol=1e-12)
