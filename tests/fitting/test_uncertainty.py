"""Intervals, directions and profiles, where all of them are known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import spiking_target

from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import CellProblem
from jneuro.fitting.uncertainty import intervals, profile
from jneuro.simulators import HodgkinHuxley

NAMES = ("a", "b", "c")
TRUTH = np.array([2.0, 0.5, 1.0])
NOISE = 0.1


class Known(NamedTuple):
    """A least-squares problem of functions."""

    names: tuple[str, ...]
    residuals: Any
    values: Any = lambda q: q


def design():
    return np.random.default_rng(0).normal(size=(30, 3))


def linear(theta):
    """Residuals of a linear model without noise, in units of the noise."""
    return jnp.asarray(design()) @ (theta - TRUTH) / NOISE


def exact():
    return NOISE**2 * np.linalg.inv(design().T @ design())


TRANSFORMS = {
    "identity": (lambda q: q, lambda t: t),
    "logarithm": (jnp.exp, jnp.log),
    "bounds": (lambda q: 0.1 + 4 * jax.nn.sigmoid(q), lambda t: jax.scipy.special.logit((t - 0.1) / 4)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_covariance_in_the_values_own_units(x64, transform):
    values, inverse = TRANSFORMS[transform]
    found = intervals(Known(NAMES, lambda q: linear(values(q)), values), inverse(jnp.asarray(TRUTH)))
    np.testing.assert_allclose(found.covariance, exact(), rtol=1e-8)
    np.testing.assert_allclose(found.standard_errors, np.sqrt(np.diag(exact())), rtol=1e-8)
    d = np.sqrt(np.diag(exact()))
    np.testing.assert_allclose(found.correlation, exact() / np.outer(d, d), rtol=1e-8)


def test_negative_values_have_intervals(x64):
    signs = jnp.asarray([-1.0, 1.0, -1.0])
    found = intervals(Known(NAMES, lambda q: linear(signs * q)), signs * TRUTH)
    np.testing.assert_allclose(found.covariance, np.outer(signs, signs) * exact(), rtol=1e-8)


def test_a_ridge_is_named(x64):
    # Only the product of g_ca and g_c is seen well; their ratio, a thousand times less.
    def residuals(q):
        return jnp.stack([1e3 * (q[0] + q[1]), q[0] - q[1], 50 * q[2], 50 * q[2]])

    found = intervals(Known(("g_ca", "g_c", "g_na"), residuals, jnp.exp), jnp.zeros(3))
    sharp, *_, sloppy = found.table()
    assert {sharp["direction"], sloppy["direction"]} <= {
        *("g_ca · g_c", "g_c · g_ca", "g_ca · g_c^-1.0", "g_c · g_ca^-1.0"),
    }
    assert "-1.0" in sloppy["direction"]
    assert "-1.0" not in sharp["direction"]
    # The logarithm of the product has this standard deviation, that of the ratio the other one.
    np.testing.assert_allclose([sharp["factor"], sloppy["factor"]], [1e-3, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found.singular_values, np.sqrt([2e6, 5e3, 2.0]), rtol=1e-6)


def test_what_is_not_seen_has_no_interval(x64):
    found = intervals(Known(NAMES, lambda q: jnp.stack([q[0] + q[1], q[2]]), jnp.exp), jnp.zeros(3))
    assert np.isinf(found.standard_errors[:2]).all()
    assert found.standard_errors[2] == pytest.approx(1.0)
    assert found.table()[-1]["factor"] == np.inf


def test_profile_of_a_normal_likelihood_is_a_parabola(x64):
    found = profile(Known(NAMES, linear), jnp.asarray(TRUTH), "b", points=4)
    se = np.sqrt(exact()[1, 1])
    np.testing.assert_allclose(found.excess, np.square((found.value - 0.5) / se), atol=1e-6)
    for level, width in (("68 %", 1.0), ("95 %", np.sqrt(3.841))):
        np.testing.assert_allclose(found.intervals[level], [0.5 - width * se, 0.5 + width * se], rtol=1e-6)
    # The others move along the regression on the one that is held.
    slope = exact()[0, 1] / exact()[1, 1]
    np.testing.assert_allclose(found.others[:, 0], 2 + slope * (found.value - 0.5), atol=1e-5)


def test_an_open_profile_has_no_end(x64):
    # The likelihood levels off above, by less than either level.
    found = profile(Known(("a",), lambda q: jnp.tanh(q) * 0.9), jnp.zeros(1), "a")
    assert found.intervals["68 %"] == (-np.inf, np.inf)


def test_a_cell(x64):
    cell = HodgkinHuxley()
    trainable = Trainable.of(cell, ("g_na", "g_l"))
    problem = CellProblem.of(cell, spiking_target(), trainable, dt=0.05)
    certain = intervals(problem, problem.first)
    # Against central differences.
    run = jax.jit(lambda values: problem.residuals(trainable.unconstrain(values)))
    truth, h = np.array([120.0, 0.3]), 1e-4 * np.eye(2)
    jacobian = np.stack([run(truth + d) - run(truth - d) for d in h], 1) / 2e-4
    np.testing.assert_allclose(certain.covariance, np.linalg.inv(jacobian.T @ jacobian), rtol=1e-4)
    with pytest.raises(ValueError, match="did you mean 'g_na'"):
        profile(problem, problem.first, "g_nna")
