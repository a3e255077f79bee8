"""Statistics of a network's runs, and the fit of a network to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jneuro as jn
from jneuro.core.random import trial_keys
from jneuro.fitting import FitOptions, Match, NetworkFeatures, NetworkProblem, Trainable
from jneuro.fitting.methods.network import Runs, refined, simulate_runs
from jneuro.simulators import Brunel
from jneuro.spikes.intervals import interspike_intervals

HOW = {"duration": 90.0, "warmup": 15.0, "dt": 0.5}
BOUNDS = {"rate_external": (350.0, 900.0)}


MATCH = (Match("network_statistics"),)


def network(**values):
    return Brunel(n_excitatory=20, n_inhibitory=5, **values)


def described(spikes):
    found = Runs.of(jnp.broadcast_to(jnp.asarray(spikes), (8, *np.shape(spikes))), 0.5)
    assert found.names == ("log_rate", "isi_cv", "rate_cv", "isi_cv_sd")
    return np.asarray(found.features[0])


def simulated(values, keys):
    """Statistics of runs at some drives, one program for all tests."""
    nothing = Runs(("a", "b", "c", "d"), jnp.zeros((8, 4)), HOW["duration"], HOW["dt"])
    problem = NetworkProblem.of(network(), nothing, Trainable.of(network(), BOUNDS), MATCH)
    q = np.asarray(problem.trainable.unconstrain(jnp.asarray(values, float)[:, None]))
    return simulate_runs(problem, q, keys, HOW["warmup"], 64)


def test_features_against_numpy():
    spikes = np.random.default_rng(0).random((400, 6)) < np.array([0.0, 0.003, 0.02, 0.05, 0.1, 0.2])
    found = described(spikes.astype(np.uint8))
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
    np.testing.assert_allclose(described(np.zeros((50, 4), np.uint8)), [np.log(0.1), 1.0, 0.0, 1e-3], rtol=1e-4)


@pytest.fixture(scope="module")
def observed():
    features = simulated([600.0] * 32, trial_keys(jax.random.key(7), 32))
    return Runs(("log_rate", "isi_cv", "rate_cv", "isi_cv_sd"), jnp.asarray(features), HOW["duration"], HOW["dt"])


def test_slopes_are_differences_under_the_same_keys(observed):
    simulator, keys = network(), trial_keys(jax.random.key(1), 8)
    trainable = Trainable.of(simulator, BOUNDS)
    method = NetworkFeatures(difference=0.3, warmup_ms=HOW["warmup"], probes=8)
    problem = NetworkProblem.of(simulator, observed, trainable, MATCH)
    q = np.asarray(trainable.unconstrain(jnp.asarray([550.0])))
    values, slopes = method.features(problem, np.stack([q, q + 1]), keys)
    low, middle, high = (
        simulated([float(trainable.constrain(jnp.asarray(q + d))[0])] * 8, keys) for d in (-0.3, 0.0, 0.3)
    )
    np.testing.assert_allclose(values[0], middle, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slopes[0, :, :, 0], (high - low) / 0.6, rtol=1e-3, atol=1e-3)
    assert slopes.shape == (2, 8, 4, 1)
    assert (values[1] != middle).any()


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
    sizes = {"starts": 2, "coarse_runs": 4, "coarse_steps": 5, "runs": 32, "probes": 8, "steps": 2}
    options = FitOptions(method=NetworkFeatures(warmup_ms=HOW["warmup"], **sizes))
    found = jn.fit(network(), observed, BOUNDS, key=jax.random.key(3), options=options)
    assert found.ok, found.reason
    assert found.prediction.shape == (32, 4)
    assert found.data_cost == pytest.approx(found.solution.chi2 / 3)
    slope = float(jax.grad(lambda q: found.problem.values(q)[0])(jnp.asarray(found.q))[0])
    error = slope * np.sqrt(found.solution.covariance[0, 0])
    assert 0 < error < 30
    assert abs(found.values[0] - 600) < 4 * error
    # An impossible observation is flagged.
    strange = observed._replace(features=observed.features + jnp.asarray([[0.0, 0.8, 0.0, 0.0]]))
    found = jn.fit(network(), strange, BOUNDS, key=jax.random.key(3), options=options)
    assert not found.ok
    assert "chi-squared" in found.reason


SPIKES = (np.arange(8 * 50 * 3) % 7 == 0).reshape(8, 50, 3).astype(np.uint8)


def summed(recording):
    """As many numbers as neurons, one of them undefined."""
    return {"total": recording["spikes"].sum(), "each": recording["spikes"].sum(0) / jnp.asarray([1, 1, 0])}


REFUSED = {
    "too few runs": ({"spikes": SPIKES[:3]}, "cut a long run into pieces"),
    "one run": ({"spikes": SPIKES[0]}, r"has 1 runs"),
    "no spikes": ({"v": SPIKES}, "has no 'spikes'"),
    "another objective": ({"spikes": SPIKES, "objective": "voltage"}, "Voltage compares trials; of a network, statist"),
    "a unit": ({"spikes": SPIKES, "objective": {"name": "match", "measure": "rate", "sd": 2}}, "leave it out"),
    "another record": ({"spikes": SPIKES, "objective": {"name": "match", "measure": "v_mean"}}, "v_mean needs 'v'"),
    "not finite": ({"spikes": SPIKES, "objective": Match(summed)}, r"each\[2\] of 8 of 8 runs is not finite"),
    "a measure that raises": (
        {"spikes": SPIKES, "objective": Match(lambda r: r["v"].max())},
        "raised KeyError: .*no 'v'",
    ),
    "too few statistics": ({"spikes": SPIKES, "objective": Match(lambda r: jnp.zeros(0))}, "cannot tell 1 parameters"),
    "a method of cells": ({"spikes": SPIKES, "method": "cma"}, "cma is for cells; a network takes features"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_is_simulated(given, said):
    words = {k: given[k] for k in ("objective", "method") if k in given}
    recording = jn.recordings.from_arrays(dt=0.5, **{k: given[k] for k in ("spikes", "v") if k in given})
    with pytest.raises(ValueError, match=said):
        jn.fit(network(), recording, BOUNDS, key=jax.random.key(0), **words)


def test_measures_of_ones_own_describe_a_network():
    described = Runs.of(SPIKES, 0.5, (Match(lambda recording: recording["spikes"].sum(0)[:2]), Match("rate")))
    assert described.names == ("measure[0]", "measure[1]", "rate")
    np.testing.assert_allclose(described.features[:, 0], SPIKES.sum(1)[:, 0])
    np.testing.assert_allclose(described.features[:, 2], SPIKES.mean((1, 2)) / 0.5e-3, rtol=1e-6)
