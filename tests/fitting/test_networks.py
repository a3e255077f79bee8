"""Features of populations, and the fit of a network to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.fitting.networks import (
    FeatureProblem,
    FeatureTarget,
    NetworkFeatures,
    fit_features,
    population_features,
    simulate_features,
)
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.uncertainty import local_intervals
from jneuro.prng import trial_keys
from jneuro.simulators import Brunel
from jneuro.simulators.spike_statistics import interspike_intervals

HOW = {"duration": 90.0, "warmup": 15.0, "dt": 0.5}
BOUNDS = {"rate_external": (350.0, 900.0)}


def network(**values):
    return Brunel(n_excitatory=20, n_inhibitory=5, **values)


def test_features_against_numpy():
    spikes = np.random.default_rng(0).random((400, 6)) < np.array([0.0, 0.003, 0.02, 0.05, 0.1, 0.2])
    found = np.asarray(population_features(jnp.asarray(spikes.astype(np.uint8)), 0.5))
    rates = spikes.sum(0) / 0.2
    intervals = [np.diff(np.flatnonzero(train)) for train in spikes.T]
    cvs = np.array([i.std() / i.mean() for i in intervals if len(i) > 1])
    assert len(cvs) < 6  # one train has no interval
    wanted = [np.log(rates.mean() + 0.1), cvs.mean(), rates.std() / (rates.mean() + 0.1), cvs.std()]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    count, mean, squares = interspike_intervals(jnp.asarray(spikes))
    for c, m, s, i in zip(count, mean, squares, intervals, strict=True):
        assert c == len(i)
        np.testing.assert_allclose([m, s], [i.mean(), i.var() * len(i)] if len(i) else [0, 0], rtol=1e-4)


def test_a_silent_network_has_finite_features():
    silent = np.asarray(population_features(jnp.zeros((50, 4), jnp.uint8), 0.5))
    np.testing.assert_allclose(silent, [np.log(0.1), 1.0, 0.0, 1e-3], rtol=1e-4)


@pytest.fixture(scope="module")
def observed():
    features = simulate_features(network(rate_external=600.0), trial_keys(jax.random.key(7), 32), **HOW)
    return FeatureTarget(features, HOW["duration"], HOW["dt"])


def test_the_derivative_is_a_difference_under_the_same_keys(observed):
    simulator = network()
    trainable = Trainable.of(simulator, BOUNDS)
    problem = FeatureProblem.of(
        simulator, observed, trainable, key=jax.random.key(1), runs=8, probes=4, warmup=HOW["warmup"], step=0.3
    )
    column = np.asarray(jax.jacfwd(problem.residuals)(problem.first))[:, 0]
    ends = [
        np.asarray(simulate_features(network(rate_external=float(r)), problem.keys[:4], **HOW)).mean(0)
        for r in trainable.constrain(problem.first[0] + jnp.asarray([[-0.3], [0.3]]))[:, 0]
    ]
    np.testing.assert_allclose(column, np.asarray(problem.whitener) @ (ends[1] - ends[0]) / 0.6, rtol=2e-2)


def test_the_drive_of_a_network_is_found(observed):
    options = NetworkFeatures(
        starts=2, coarse_runs=4, coarse_steps=5, runs=24, probes=8, steps=2, warmup_ms=HOW["warmup"]
    )
    found = fit_features(network(), observed, BOUNDS, key=jax.random.key(3), options=options)
    assert found.ok, found.reason
    problem = found.problem
    certain = local_intervals(problem.names, problem.residuals, problem.values, found.q)
    assert 0 < certain.standard_errors[0] < 30
    assert abs(found.values[0] - 600) < 4 * certain.standard_errors[0]
    # An impossible observation is flagged.
    strange = observed._replace(features=observed.features + jnp.asarray([[0.0, 0.8, 0.0, 0.0]]))
    found = fit_features(network(), strange, BOUNDS, key=jax.random.key(3), options=options)
    assert not found.ok
    assert "chi-squared" in found.reason


def test_too_few_runs():
    with pytest.raises(ValueError, match="cut a long run into pieces"):
        FeatureTarget.of(np.zeros((3, 10, 2), np.uint8), 0.5)
