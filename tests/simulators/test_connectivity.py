"""Who hears whom: in-degrees, uniformity, self-connections, and the matrix product."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jneuro.simulators import Brunel, simulate
from jneuro.simulators.connectivity import Dense, draw_adjacency

SIZES = (300, 100)


@functools.cache
def drawer(rule, probability, sizes):
    return jax.jit(lambda key: draw_adjacency(key, rule, sizes, sum(sizes), probability))


def draw(rule, probability=0.1, seed=0, sizes=SIZES):
    return np.asarray(drawer(rule, probability, sizes)(jax.random.key(seed)))


def assert_binomial(count, trials, probability):
    """A two-sided exact test at about 4.5 standard deviations."""
    assert stats.binomtest(int(count), trials, probability).pvalue > 1e-5


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_no_multiple_synapses_and_the_right_share(rule):
    drawn = draw(rule, 0.1)
    assert drawn.shape == (400, 400)
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    assert_binomial(drawn.sum(), drawn.size, 0.1)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_self_connections_are_as_likely_as_any_other(rule):
    diagonals = [np.trace(draw(rule, 0.1, seed)) for seed in range(5)]
    assert_binomial(sum(diagonals), 5 * 400, 0.1)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_sources_and_targets_are_uniform(rule):
    drawn = draw(rule, 0.1)
    out_degree = drawn.sum(1)
    # Out-degrees are binomial under both rules.
    chi2 = ((out_degree - 40) ** 2 / (400 * 0.1 * 0.9)).sum()
    assert 1e-5 < stats.chi2.sf(chi2, 400) < 1 - 1e-5
    overlap = drawn[:, :-1] * drawn[:, 1:]
    assert_binomial(overlap.sum(), overlap.size, 0.01)


def test_fixed_in_degree_is_exact_in_each_population():
    drawn = draw("fixed_in_degree", 0.1)
    np.testing.assert_array_equal(drawn[:300].sum(0), 30)
    np.testing.assert_array_equal(drawn[300:].sum(0), 10)


def test_bernoulli_in_degree_is_binomial():
    in_degree = draw("bernoulli", 0.1).sum(0)
    chi2 = ((in_degree - 40) ** 2 / (400 * 0.1 * 0.9)).sum()
    assert 1e-5 < stats.chi2.sf(chi2, 400) < 1 - 1e-5


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_drawn_from_the_key_alone(rule):
    np.testing.assert_array_equal(draw(rule, seed=3), draw(rule, seed=3))
    assert not np.array_equal(draw(rule, seed=3), draw(rule, seed=4))


def test_original_has_a_thousand_and_two_hundred_and_fifty_inputs():
    sizes = (10_000, 2_500)
    drawn = np.asarray(draw_adjacency(jax.random.key(0), "fixed_in_degree", sizes, 8, 0.1))
    np.testing.assert_array_equal(drawn[:10_000].sum(0), 1000)
    np.testing.assert_array_equal(drawn[10_000:].sum(0), 250)


@pytest.mark.parametrize("rule", ["bernoulli", "fixed_in_degree"])
def test_a_network_without_inhibition(rule):
    sim = Brunel(n_excitatory=10, n_inhibitory=0, rule=rule, connection_probability=0.5).connect(jax.random.key(0))
    assert sim.connections.adjacency.shape == (10, 10)
    assert simulate(sim, duration=3.0, key=jax.random.key(0)).values["v"].shape == (30, 10)


def test_connect_changes_nothing_else():
    sim = Brunel(g=4.0)
    connected = sim.connect(jax.random.key(0))
    assert sim.connections is None
    assert dataclasses.replace(connected, connections=None) == sim


def test_propagate_sums_the_signals_of_the_sources():
    rng = np.random.default_rng(0)
    adjacency, signal = rng.integers(0, 2, (7, 5)).astype(np.float32), rng.normal(size=(3, 7)).astype(np.float32)
    expected = [[sum(s[i] for i in range(7) if adjacency[i, k]) for k in range(5)] for s in signal]
    np.testing.assert_allclose(Dense(jnp.asarray(adjacency)).propagate(jnp.asarray(signal)), expected, rtol=1e-5)
