"""Multiple shooting: its linear algebra, its derivatives, and fits with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import spiking_target

from jneuro.fitting import FitOptions, Problem, SpikeTimes, Trainable, fit
from jneuro.fitting.arrow import Arrow, eliminate, substitute
from jneuro.fitting.multiple_shooting import Shooting
from jneuro.fitting.shooting import _Shooting, first_states
from jneuro.fitting.uncertainty import intervals
from jneuro.simulators import HodgkinHuxley

NAMES = ("g_na", "g_k")
TRUTH = (120.0, 36.0)
WRONG = {"g_na": 90.0, "g_k": 45.0}
OPTIONS = FitOptions(method=Shooting(widths=(0.1, 0.01), starts=1), dt_ms=0.05)


def test_arrow_solves_the_equations(x64):
    chains, blocks, size, shared = 2, 4, 3, 2
    total = chains * blocks * size
    rng = np.random.default_rng(0)
    # A positive-definite matrix of this structure.
    jacobian = np.zeros((3 * chains * blocks * size, total + shared))
    jacobian[:, total:] = rng.standard_normal((len(jacobian), shared))
    for row in range(len(jacobian)):
        chain, block = divmod(row % (chains * blocks), blocks)
        at = (chain * blocks + block) * size
        jacobian[row, at : (chain * blocks + min(block + 2, blocks)) * size] = rng.standard_normal(
            (chain * blocks + min(block + 2, blocks)) * size - at
        )
    matrix, gradient = jacobian.T @ jacobian, rng.standard_normal(total + shared)
    cut = matrix[:total, :total].reshape(chains, blocks, size, chains, blocks, size)
    diagonal = np.stack([[cut[c, b, :, c, b] for b in range(blocks)] for c in range(chains)])
    lower = np.stack(
        [[cut[c, b + 1, :, c, b] for b in range(blocks - 1)] + [np.zeros((size, size))] for c in range(chains)]
    )
    border = matrix[:total, total:].reshape(chains, blocks, size, shared)
    blocks_gradient = gradient[:total].reshape(chains, blocks, size)
    arrow = Arrow(
        *map(jnp.asarray, (diagonal, lower, border, blocks_gradient, matrix[total:, total:], gradient[total:]))
    )
    reduced = eliminate(arrow)
    step = -jnp.linalg.solve(reduced.corner, reduced.gradient)
    expected = -np.linalg.solve(matrix, gradient)
    np.testing.assert_allclose(step, expected[total:], rtol=1e-8)
    np.testing.assert_allclose(substitute(reduced, step).ravel(), expected[:total], rtol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(reduced.corner), np.linalg.inv(matrix)[total:, total:], rtol=1e-8)


def test_equations_hold_the_gradient_of_the_sum(x64):
    wrong = HodgkinHuxley(**WRONG)
    trainable = Trainable.of(wrong, NAMES)
    target = spiking_target()
    target = eqx.tree_at(lambda t: (t.v, t.current), target, (target.v[:, :35], target.current[:, :35]))
    problem = Problem.of(wrong, target, trainable, dt=0.1, free_start=True)
    q = trainable.unconstrain(trainable.values(wrong))
    segments, states = first_states(problem, q, 10, (), (q - 0.1, 0.4))
    shooting = _Shooting(problem, segments, jnp.ones(1))
    states = states * 1.02
    by_q, by_states = jax.jit(jax.grad(lambda *x: 0.5 * shooting.cost(*x, 0.3)[0], (0, 1)))(q, states)
    arrow = jax.jit(lambda *x: shooting.equations(*x, 0.3))(q, states)
    np.testing.assert_allclose(arrow.corner_gradient, by_q, rtol=1e-8)
    # The sum does not hold the weak tie of the first states, which adds nothing to the gradient.
    np.testing.assert_allclose(arrow.gradient, by_states, rtol=1e-6, atol=1e-6 * np.abs(by_states).max())


def test_finds_the_truth(x64):
    found = fit(HodgkinHuxley(**WRONG), spiking_target(2), NAMES, key=jax.random.key(0), options=OPTIONS)
    assert found.ok, found.reason
    width = intervals(found.problem, found.q, found.solution.covariance).standard_errors
    assert np.all(width / np.asarray(TRUTH) < 0.05)
    assert np.all(np.abs(found.values - np.asarray(TRUTH)) < 4 * width)
    assert found.prediction.shape == found.problem.target.v.shape


def test_flags_a_model_that_cannot_explain_the_data(x64):
    wrong = HodgkinHuxley(**WRONG, e_k=-60.0)
    found = fit(wrong, spiking_target(2), NAMES, key=jax.random.key(0), options=OPTIONS)
    assert not found.ok
    assert "segments" in found.reason


def test_refuses_other_objectives(x64):
    options = FitOptions(method=Shooting(), objective=(SpikeTimes(),))
    with pytest.raises(ValueError, match="take another method or objective"):
        fit(HodgkinHuxley(), spiking_target(), NAMES, key=jax.random.key(0), options=options)
