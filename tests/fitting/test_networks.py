"""Features of populations, and the fit of a network to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.core.random import trial_keys
from jneuro.fitting.network_fit import FeatureProblem, NetworkFeatures, fit_features, refined
from jneuro.fitting.networks import FeatureTarget, population_features, simulate_features
from jneuro.fitting.parameters import Trainable
from jneuro.simulators import Brunel
from jneuro.spikes.intervals import interspike_intervals

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


def test_slopes_are_differences_under_the_same_keys(observed):
    simulator, keys = network(), trial_keys(jax.random.key(1), 8)
    trainable = Trainable.of(simulator, BOUNDS)
    options = NetworkFeatures(difference=0.3, warmup_ms=HOW["warmup"])
    q = np.asarray(trainable.unconstrain(jnp.asarray([550.0])))
    found = FeatureProblem(simulator, observed, trainable, options).features(np.stack([q, q + 1]), keys, 4)
    low, middle, high = (
        simulate_features(network(rate_external=float(trainable.constrain(q + d)[0])), keys, **HOW)
        for d in (-0.3, 0.0, 0.3)
    )
    np.testing.assert_allclose(found.values[0], middle, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.slopes[0, :, :, 0], ((high - low) / 0.6)[:4], rtol=1e-3, atol=1e-3)
    assert found.slopes.shape == (2, 4, 4, 1)
    assert (found.values[1] != middle).any()


def test_standard_errors_hold_the_noise_of_features_and_slopes():
    """A linear model with the noise of everything: the errors are as large as they say."""
    rng, truth, count = np.random.default_rng(0), np.array([0.1, -0.2]), 400
    slope = np.array([[1.0, 0.2], [-0.3, 0.5], [0.1, 0.3], [0.0, -0.2]])
    z, larger = [], []
    for _ in range(count):
        observed = slope @ truth + 0.1 * rng.standard_normal((40, 4))
        values = 0.1 * rng.standard_normal((60, 4))
        slopes = slope + 0.3 * rng.standard_normal((20, 4, 2))
        found = refined(observed, values, slopes)
        assert found.known
        z.append((found.step - truth) / np.sqrt(np.diag(found.covariance)))
        resting = [
            refined(observed, values - values.mean(0) + observed.mean(0), x) for x in (slopes, 0 * slopes + slope)
        ]
        larger.append(np.diag(resting[0].covariance) / np.diag(resting[1].covariance))
    # 800 values: the size is within 8 % at three standard deviations, but for the covariances' own noise.
    assert 0.8 < np.sqrt(np.mean(np.square(z))) < 1.15
    # The noise of slopes is no information.
    assert (np.median(larger, 0) > 1).all()
    lost = refined(observed, values, slope + 20 * rng.standard_normal((20, 4, 2)))
    assert not lost.known


def test_the_drive_of_a_network_is_found(observed):
    options = NetworkFeatures(
        starts=2, coarse_runs=4, coarse_steps=5, runs=32, probes=8, steps=2, warmup_ms=HOW["warmup"]
    )
    found = fit_features(network(), observed, BOUNDS, key=jax.random.key(3), options=options)
    assert found.ok, found.reason
    slope = float(jax.grad(lambda q: found.trainable.constrain(q)[0])(jnp.asarray(found.q))[0])
    error = slope * np.sqrt(found.covariance[0, 0])
    assert 0 < error < 30
    assert abs(found.values[0] - 600) < 4 * error
    # An impossible observation is flagged.
    strange = observed._replace(features=observed.features + jnp.asarray([[0.0, 0.8, 0.0, 0.0]]))
    found = fit_features(network(), strange, BOUNDS, key=jax.random.key(3), options=options)
    assert not found.ok
    assert "chi-squared" in found.reason


def test_too_few_runs():
    with pytest.raises(ValueError, match="cut a long run into pieces"):
        FeatureTarget.of(np.zeros((3, 10, 2), np.uint8), 0.5)
