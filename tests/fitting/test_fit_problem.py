"""A fit as a function: its integrator against `simulate`, its derivatives against differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import recording, spiking_target

from jneuro.fitting import CellProblem, Trainable, Trials, integrate
from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, Izhikevich, simulate, solvers
from jneuro.simulators.stimuli import Step

pytestmark = pytest.mark.usefixtures("x64")

NAMES = ("g_na", "g_k", "g_l", "c_m")
SCHEMES = {
    "RK4": (HodgkinHuxley, solvers.RK4()),
    "RushLarsen": (CA1Pyramidal, solvers.RushLarsen()),
    "StaggeredCrankNicolson": (HodgkinHuxley, solvers.StaggeredCrankNicolson()),
}


@pytest.mark.parametrize(("cls", "solver"), SCHEMES.values(), ids=SCHEMES)
def test_integrate_is_simulate_under_a_held_current(cls, solver):
    cell = cls()
    stimulus = Step(8.0, onset=1.0) + Step(-5.0, onset=2.0) + Step(9.0, onset=3.0)
    current = np.repeat([0.0, 8.0, 3.0, 12.0], [9, 10, 10, 11])
    made = simulate(
        cell,
        stimulus,
        duration=4.0,
        dt=0.025,
        record_every=0.1,
        solver=solver,
        key=jax.random.key(0),
        record=cell.init(None)._fields,
    )
    states = eqx.filter_jit(integrate)(cell, cell.init(None), jnp.asarray(current), dt=0.1, steps=4, solver=solver)
    for name, values in states._asdict().items():
        np.testing.assert_allclose(values, made.values[name], rtol=1e-9, atol=1e-12, err_msg=name)


def problem(free_start=False, trials=1, noise=0.0):
    cell = HodgkinHuxley()
    return CellProblem.of(cell, spiking_target(trials, noise), Trainable.of(cell, NAMES), free_start=free_start)


@pytest.mark.parametrize("free_start", [False, True])
def test_derivatives_are_those_of_differences(free_start):
    at = problem(free_start, noise=0.5)
    residuals = eqx.filter_jit(at.residuals)
    q = at.first
    columns = jax.jit(lambda q: jax.jacfwd(at.residuals)(q))(q)
    assert columns.shape == (at.target.frames, len(at.names))
    for i, column in enumerate(columns.T):
        step = 1e-5 * jnp.eye(len(q))[i]
        differences = (residuals(q + step) - residuals(q - step)) / 2e-5
        np.testing.assert_allclose(column, differences, rtol=1e-5, atol=1e-5 * np.abs(differences).max())


def test_the_truth_leaves_no_residuals():
    at = problem(trials=2)
    assert at.residuals(at.first).shape == (300,)
    assert np.abs(at.residuals(at.first)).max() < 0.02  # of 0.5 mV; the data are made by the same scheme
    np.testing.assert_allclose(at.values(at.first), at.trainable.values(at.simulator), rtol=1e-12)


def test_unknown_starts_are_a_guess_from_the_data():
    at = problem(free_start=True, trials=2)
    assert at.names[4:6] == ("start.v[0]", "start.v[1]")
    assert at.names[-1] == "start.n[1]"
    _, start = at.unpack(at.first)
    np.testing.assert_allclose(start.v, at.target.v[:, 0])
    np.testing.assert_allclose(at.values(at.first)[4:6], start.v)
    moved = at.unpack(at.first.at[4].add(0.1))[1]
    np.testing.assert_allclose(moved.v - start.v, [1.0, 0.0])


def test_a_strong_pull_keeps_a_wrong_model_at_the_data():
    at = problem()
    wrong = at.first + jnp.asarray([0.3, -0.3, 0.2, 0.1])
    run = eqx.filter_jit(at.residuals)
    costs = [float(jnp.mean(jnp.square(run(wrong, jnp.asarray(k))))) for k in (0.0, 1.0, 10.0, 50.0)]
    assert costs[0] > costs[1] > costs[2] > costs[3]
    np.testing.assert_allclose(run(wrong, jnp.asarray(0.0)), run(wrong), atol=1e-9)


def test_a_cell_with_a_reset_is_simulated():
    cell = Izhikevich()
    current = np.concatenate([np.zeros(20), np.full(80, 15.0)])
    target = Trials.of(recording(np.full(100, -65.0), current, dt=0.5, current_unit="pA"), noise_sd=1.0)
    at = CellProblem.of(cell, target, Trainable.of(cell, ["a", "d"][:1]))
    seen = at.observe(at.first)
    v, spikes = seen.v, seen.own_spikes
    made = simulate(cell, target.stimulus(jnp.asarray(current)), duration=50.0, record_every=0.5, key=jax.random.key(0))
    np.testing.assert_allclose(v[0], made.values["v"][:, 0], rtol=1e-9)
    np.testing.assert_array_equal(spikes[0], made.values["spikes"][:, 0])
    assert spikes.sum() >= 2
    with pytest.raises(ValueError, match="is reset at its spikes, so its state at the start"):
        CellProblem.of(cell, target, at.trainable, free_start=True)
