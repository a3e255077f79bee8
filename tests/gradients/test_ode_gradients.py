"""Gradients of the ODE simulators: every solver, adjoint and way of saving that is offered, against differences."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, simulate, stimuli
from jneuro.simulators.adjoint import TimeParallel
from jneuro.simulators.solvers import RK4, Adaptive, Euler, Heun, RushLarsen, StaggeredCrankNicolson

pytestmark = pytest.mark.usefixtures("x64")

FIXED = {
    "Euler": Euler(),
    "Heun": Heun(),
    "RK4": RK4(),
    "RushLarsen": RushLarsen(),
    "StaggeredCrankNicolson": StaggeredCrankNicolson(),
    "diffrax.Heun": diffrax.Heun(),
    "diffrax.Tsit5": diffrax.Tsit5(),
}
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
ADAPTIVE = [
    Adaptive(solver, **TIGHT, adjoint=adjoint)
    for solver in (diffrax.Tsit5(), diffrax.Dopri8(), diffrax.Kvaerno5())
    for adjoint in (None, diffrax.RecursiveCheckpointAdjoint(), diffrax.ForwardMode())
] + [Adaptive(diffrax.Tsit5(), **TIGHT, max_steps=1024, adjoint=diffrax.DirectAdjoint())]


def name_of(solver):
    return f"{type(solver.solver).__name__}, {type(solver.adjoint).__name__}"


def slow(cases, fast):
    """The cases beyond the first few are slow ones."""
    return [case if k in fast else pytest.param(case, marks=pytest.mark.slow) for k, case in enumerate(cases)]


def score(theta, solver, *, cell=HodgkinHuxley, record_every=1, checkpoint=None, duration=3.0, dt=0.05):
    """A smooth function of the trace, of a conductance, a time-like constant, the amplitude and the initial state."""
    names = ("g_k", "c_m") if cell is HodgkinHuxley else ("g_kdr", "phi")
    base = cell()
    simulator = dataclasses.replace(base, **{n: getattr(base, n) * t for n, t in zip(names, theta[:2], strict=True)})
    start = simulator.init(jax.random.key(0))
    start = start._replace(v=start.v + theta[3])
    stimulus = stimuli.Step(12.0 * theta[2], onset=1.0, end=4.0) + stimuli.Sine(3.0 * theta[2], 100.0)
    recording = simulate(
        simulator,
        stimulus,
        duration=duration,
        dt=dt,
        record=("v",),
        record_every=record_every * dt,
        initial_state=start,
        key=jax.random.key(0),
        solver=solver,
        checkpoint=checkpoint,
    )
    return jnp.mean(jnp.sin(recording.values["v"] / 20))


THETA = np.array([1.0, 1.0, 1.0, 0.0], np.float64)


def differences(function, step=1e-5):
    """Central differences."""
    unit = np.eye(len(THETA)) * step
    return np.array([(function(jnp.asarray(THETA + u)) - function(jnp.asarray(THETA - u))) / (2 * step) for u in unit])


def modes(function, adjoint=None):
    """The gradient in each mode that the solver offers."""
    if not isinstance(adjoint, diffrax.ForwardMode):
        yield jax.jit(jax.grad(function))(jnp.asarray(THETA))
    if adjoint is None or isinstance(adjoint, diffrax.ForwardMode | diffrax.DirectAdjoint):
        yield jax.jit(jax.jacfwd(function))(jnp.asarray(THETA))


@pytest.mark.parametrize(
    "saved",
    slow([{"record_every": 4, "checkpoint": 5}, {}, {"record_every": 4}, {"checkpoint": 30}], fast=[0]),
    ids=str,
)
@pytest.mark.parametrize("solver", slow(FIXED.values(), fast=[2, 4]), ids=FIXED)
def test_fixed_steps(solver, saved):
    function = jax.jit(lambda theta: score(theta, solver, **saved))
    expected = differences(function)
    assert np.abs(expected).min() > 1e-4
    for gradient in modes(function):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("solver", slow([RK4(), RushLarsen()], fast=[1]), ids=["RK4", "RushLarsen"])
def test_ca1(solver):
    function = jax.jit(lambda theta: score(theta, solver, cell=CA1Pyramidal, dt=0.02, record_every=5))
    expected = differences(function)
    for gradient in modes(function):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("every", slow([4, 1], fast=[0]))
@pytest.mark.parametrize("solver", slow(ADAPTIVE, fast=[0]), ids=name_of)
def test_adaptive(solver, every):
    """Against differences of a scheme whose own error is far below."""
    expected = differences(jax.jit(lambda theta: score(theta, RK4(), dt=0.0025, record_every=20 * every)))
    gradients = list(modes(lambda theta: score(theta, solver, record_every=every), solver.adjoint or "reverse"))
    assert gradients
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_an_adjoint_with_another_gradient_is_refused():
    with pytest.raises(ValueError, match="BacksolveAdjoint is not offered"):
        Adaptive(diffrax.Tsit5(), adjoint=diffrax.BacksolveAdjoint())


def test_memory_is_bounded_by_checkpoints():
    """What the reverse pass keeps of a long run."""

    def stored(checkpoint):
        how = {"duration": 1000.0, "record_every": 100, "checkpoint": checkpoint}
        gradient = jax.grad(lambda theta: score(theta, Euler(), **how))
        return jax.jit(gradient).lower(jnp.asarray(THETA)).compile().memory_analysis().temp_size_in_bytes

    assert stored(14) < 0.25 * stored(None)


# Times of the stimulus -----------------------------------------------------------------------------------------------

WAVE = np.random.default_rng(0).normal(size=30) * 2
TIMES = {
    # of its times [ms], which lie between steps: stimulus, times
    "step": (lambda t: stimuli.Step(1.5, onset=t[0], end=t[1]), [1.003, 2.517]),
    "pulses": (
        lambda t: stimuli.PulseTrain(9.0, frequency=t[2], width=t[1], count=3, onset=t[0]),
        [0.504, 0.41, 800.0],
    ),
    "a short pulse": (lambda t: stimuli.PulseTrain(270.0, 100.0, width=t[1], count=1, onset=t[0]), [1.505, 0.037]),
    "ramp": (lambda t: stimuli.Ramp(2.4, end=t[1], onset=t[0]), [0.706, 2.01]),
    "sine": (lambda t: stimuli.Sine(1.8, 100.0, phase=1.0, onset=t[0]), [1.107]),
    "chirp": (lambda t: stimuli.Chirp(1.8, start=50.0, stop=150.0, end=t[1], onset=t[0]), [0.908, 2.31]),
    "held": (lambda t: stimuli.Sampled(WAVE, t[1], onset=t[0], hold=True), [0.309, 0.11]),
    "interpolated": (lambda t: stimuli.Sampled(WAVE + 2, t[1], onset=t[0], hold=False), [0.212, 0.11]),
}
STARTS = np.concatenate([times for _, times in TIMES.values()])


def of_times(t, solver, dt=0.05):
    """A potential under all stimuli at once, some of them scaled and subtracted, as a function of all their times."""
    parts, first = [], 0
    for make, times in TIMES.values():
        parts.append(make(t[first : first + len(times)]))
        first += len(times)
    stimulus = sum(parts[1:-1], parts[0]) - (-1.0) * parts[-1]
    how = {"duration": 4.0, "dt": dt, "record": ("v",), "record_every": 0.5, "throw": False, "key": jax.random.key(0)}
    return jnp.sum(simulate(HodgkinHuxley(), stimulus, solver=solver, **how).values["v"][jnp.array([4, -1])])


TIMED = FIXED | {"TimeParallel": TimeParallel(RK4()), "Adaptive": ADAPTIVE[0]}


@pytest.mark.parametrize("name", slow(TIMED, fast=[4, 7, 8]))
def test_times_of_the_stimulus(name):
    """Of every stimulus, against differences."""
    function = jax.jit(lambda t: of_times(t, TIMED[name]))
    found = jax.jit(jax.grad(function))(jnp.asarray(STARTS))
    step, rtol = 1e-5 if name == "Adaptive" else 1e-6, 1e-5
    unit = np.eye(len(STARTS)) * step
    expected = [(function(jnp.asarray(STARTS + u)) - function(jnp.asarray(STARTS - u))) / (2 * step) for u in unit]
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=10 * rtol)
    assert np.sum(np.abs(found) > 1e-3) > 10  # a pulse within one step may move in it without effect
