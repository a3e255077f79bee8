"""Multiple shooting: its linear algebra, its derivatives, and fits with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import spiking_target

from jneuro.fitting import CellProblem, FitOptions, Shooting, SpikeTimes, Trainable, fit
from jneuro.fitting.methods.block_arrow import Arrow, eliminate, substitute
from jneuro.fitting.methods.multiple_shooting import Segments, _Shooting, first_states
from jneuro.fitting.uncertainty import intervals
from jneuro.simulators import HodgkinHuxley

NAMES = ("g_na", "g_k")
TRUTH = (120.0, 36.0)
WRONG = {"g_na": 90.0, "g_k": 45.0}
OPTIONS = FitOptions(method=Shooting(widths=(0.1, 0.01), starts=1), dt_ms=0.05)


def a_form(variance):
    """Chains of blocks, and the matrix and gradient of the whole quadratic form, blocks first."""
    chains, blocks, size, shared = 2, 4, 3, 2
    rng = np.random.default_rng(0)
    own = rng.standard_normal((chains, blocks, 6, size + shared + 1))
    square = np.einsum("cbki,cbkj->cbij", own, own)
    ends = rng.standard_normal((chains, blocks, size, size + shared + 1))
    ends[:, -1] = 0
    total = chains * blocks * size
    matrix = np.zeros((total + shared + 1, total + shared + 1))
    common = np.arange(total, total + shared + 1)
    for c in range(chains):
        for b in range(blocks):
            at = (c * blocks + b) * size + np.arange(size)
            here = np.concatenate([at, common])
            matrix[np.ix_(here, here)] += square[c, b]
            if b + 1 < blocks:
                rows = np.zeros((size, len(matrix)))
                rows[:, here] = ends[c, b]
                rows[:, at + size] = -np.eye(size)
                matrix += rows.T @ (rows / variance[:, None])
    n, m = size, size + shared
    parts = (square[..., :n, :n], square[..., :n, n:m], square[..., :n, m])
    joints = (ends[..., :n], ends[..., n:m], ends[..., m], variance)
    corner = square[..., n:m, n:m].sum((0, 1)), square[..., n:m, m].sum((0, 1))
    return Arrow(*map(jnp.asarray, (*parts, *joints, *corner))), matrix[:-1, :-1], matrix[:-1, -1]


@pytest.mark.parametrize(("stiffness", "tolerance"), [(1.0, 1e-9), (1e3, 1e-6)])
def test_arrow_solves_the_equations(x64, stiffness, tolerance):
    arrow, matrix, gradient = a_form(np.array([0.5, 1.0, 2.0]) / stiffness)
    reduced = eliminate(arrow)
    step = -jnp.linalg.solve(reduced.corner, reduced.gradient)
    shared = len(step)
    expected = -np.linalg.solve(matrix, gradient)
    np.testing.assert_allclose(step, expected[-shared:], rtol=tolerance)
    np.testing.assert_allclose(substitute(reduced, step).ravel(), expected[:-shared], rtol=tolerance)
    np.testing.assert_allclose(reduced.decrement, -gradient @ expected, rtol=tolerance)
    covariance = np.linalg.inv(matrix)[-shared:, -shared:]
    np.testing.assert_allclose(np.linalg.inv(reduced.corner), covariance, rtol=tolerance)


def test_arrow_bears_stiff_joints(x64):
    # The stiffer the joints, the nearer to the limit, far beyond what normal equations hold in double precision.
    corners = [eliminate(a_form(np.full(3, variance))[0]).corner for variance in (1e-10, 1e-16, 1e-22)]
    np.testing.assert_allclose(corners[1], corners[0], rtol=1e-8)
    np.testing.assert_allclose(corners[2], corners[1], rtol=1e-11)


def test_equations_hold_the_gradient_of_the_sum(x64):
    wrong = HodgkinHuxley(**WRONG)
    trainable = Trainable.of(wrong, NAMES)
    target = spiking_target()
    target = eqx.tree_at(lambda t: (t.v, t.current), target, (target.v[:, :35], target.current[:, :35]))
    problem = CellProblem.of(wrong, target, trainable, dt=0.1, free_start=True)
    q = trainable.unconstrain(trainable.values(wrong))
    segments, states = first_states(problem, q, 10, (), (q - 0.1, 0.4))
    shooting = _Shooting(problem, segments, jnp.ones(1))
    states = states * 1.02
    by_q, by_states = jax.jit(jax.grad(lambda *x: 0.5 * shooting.cost(*x, 0.3)[0], (0, 1)))(q, states)
    arrow = jax.jit(lambda *x: shooting.equations(*x, 0.3))(q, states)
    pull = arrow.gap / arrow.variance[None, None]
    found = arrow.corner_gradient + jnp.einsum("cbsp,cbs->p", arrow.drift, pull)
    np.testing.assert_allclose(found, by_q, rtol=1e-8)
    found = arrow.gradient + jnp.einsum("cbst,cbs->cbt", arrow.onward, pull)
    found = found - jnp.roll(pull, 1, axis=1)  # that of the last block is 0
    # The sum does not hold the weak tie of the first states, which adds nothing to the gradient.
    np.testing.assert_allclose(found, by_states, rtol=1e-6, atol=1e-6 * np.abs(by_states).max())


class Valley(_Shooting):
    """The sum ((s - q²) / width)² + (1 - q)², whose valley is bent and, at a small width, steep."""

    def cost(self, q, states, width):
        stiff, rest = (states[0, 0, 0] - q[0] ** 2) / width, 1 - q[0]
        return stiff**2 + rest**2, (rest**2, stiff**2, self.segments.v)

    def equations(self, q, states, width):
        weight, slope = width**-2, -2 * q[0]
        gap = states[0, 0, 0] - q[0] ** 2
        one, none = jnp.ones((1, 1, 1, 1)), jnp.zeros((1, 1, 1, 1))
        own = (one * weight, one * slope * weight, one[..., 0] * gap * weight)
        corner = jnp.stack([slope**2 * weight + 1]), jnp.stack([slope * gap * weight + q[0] - 1])
        return Arrow(*own, none, none, none[..., 0], jnp.ones(1), corner[0][None], corner[1])


def test_steps_that_lead_up_follow_a_bent_valley(x64):
    zero = jnp.zeros((1, 1, 1))
    segments = Segments(zero, zero, zero, zero[..., 0], jnp.ones(1), zero[..., None], (jnp.zeros(1), 1.0))
    valley = Valley(None, segments, jnp.asarray([1e-4]))
    loop, step = valley.begin(jnp.asarray([0.8]), zero + 0.64), eqx.filter_jit(lambda loop: valley.step(loop, 50))
    # Steps that must lead down are shorter than the width.
    for _ in range(4):
        loop = step(loop)
    assert loop.done
    np.testing.assert_allclose(loop.stand.best.q, 1.0, atol=1e-6)


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
