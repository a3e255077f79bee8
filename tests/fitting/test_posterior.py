"""NUTS and its calibration on normal distributions, which are known."""

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.fitting.parameters import Trainable
from jneuro.fitting.posterior import PosteriorOptions, Prior, calibrate, sample, uniformity
from jneuro.simulators import HodgkinHuxley

NAMES = ("a", "b")
TRUTH = np.array([1.0, -0.5])
DESIGN = np.random.default_rng(0).normal(size=(12, 2))


def linear(q):
    """A linear model and its noise of 0.5."""
    return jnp.asarray(DESIGN) @ (q - TRUTH) / 0.5


class Linear(NamedTuple):
    """The model, whose values are three times its vector."""

    names: tuple[str, ...] = NAMES
    residuals: Any = linear
    values: Any = lambda q: 3 * q


def normal_prior():
    return Prior(jnp.asarray([0.5, 0.0]), 0.7, (False, False))


def test_nuts_finds_a_normal_posterior(x64):
    options = PosteriorOptions(chains=2, warmup=150, draws=700)
    found = sample(Linear(), normal_prior(), jnp.asarray(TRUTH), key=jax.random.key(0), options=options)
    precision = DESIGN.T @ DESIGN / 0.25 + np.eye(2) / 0.49
    covariance = np.linalg.inv(precision)
    mean = covariance @ (DESIGN.T @ DESIGN @ TRUTH / 0.25 + np.array([0.5, 0.0]) / 0.49)
    draws = found.draws.reshape(-1, 2) / 3
    # Five standard errors of 700 independent draws at the least.
    assert (found.ess > 500).all()
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(covariance.max() / 700))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=5 * np.sqrt(2 / 700) * covariance.max())
    assert found.ok
    assert found.table()["b"]["sd"] == pytest.approx(draws.std(0, ddof=1)[1] * 3)


def test_ranks_are_uniform_where_the_sampler_is_right(x64):
    # Both kinds of prior; one value is between bounds, and its posterior is no normal distribution.
    prior = Prior(jnp.zeros(2), 1.0, (True, False))
    options = PosteriorOptions(warmup=40, calibration=200, calibration_draws=39)
    found = calibrate(Linear(), prior, key=jax.random.key(1), options=options)
    assert found.ranks.shape == (200, 2)
    assert found.ranks.min() >= 0
    assert found.ranks.max() <= 39
    assert (found.p_values > 1e-3).all()


def test_uniformity_is_a_test():
    draws = np.random.default_rng(0)
    p = [uniformity(draws.integers(0, 50, 200), 49) for _ in range(300)]
    # p-values of uniform ranks are themselves uniform, whatever the bins hold.
    assert 0.4 < np.mean(p) < 0.6
    assert np.mean(np.asarray(p) < 0.05) < 0.1
    # A posterior that is too narrow has too many extreme ranks.
    truth, other = draws.normal(size=(2, 200))
    narrow = np.array([(t + 0.5 * draws.normal(size=49) < x).sum() for t, x in zip(truth, other, strict=True)])
    assert uniformity(narrow, 49) < 1e-6


def test_priors_are_those_of_the_bounds(x64):
    trainable = Trainable.of(HodgkinHuxley(), {"g_na": (60.0, 240.0), "g_l": None, "e_l": (-70.0, -40.0)})
    prior = Prior.of(trainable, trainable.unconstrain(trainable.values(HodgkinHuxley())), spread=0.5)
    q = jax.vmap(prior.draw)(jax.random.split(jax.random.key(0), 4000))
    values = np.asarray(trainable.constrain(q))
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    # Uniform in the logarithm; log-normal with half a unit; uniform.
    np.testing.assert_allclose(quartiles[:, 0], 60 * 4 ** np.array([0.25, 0.5, 0.75]), rtol=0.05)
    np.testing.assert_allclose(quartiles[:, 1], 0.3 * np.exp(0.5 * 0.6745 * np.array([-1, 0, 1])), rtol=0.05)
    np.testing.assert_allclose(quartiles[:, 2], [-62.5, -55.0, -47.5], atol=1.0)
    # The density is that of the draws: normalised, its logarithm has the entropy of logistic and normal as mean.
    density = np.asarray(jax.vmap(prior.log_density)(q)).mean()
    assert density == pytest.approx(-2 * 2.0 - 0.5, abs=0.1)


def test_without_blackjax(x64, monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(ValueError, match=r"pip install 'jneuro\[fit\]'"):
        calibrate(Linear(), normal_prior(), key=jax.random.key(0), options=PosteriorOptions(calibration=2))
