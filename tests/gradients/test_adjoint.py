"""The reverse pass of a chunk of steps at once: against the plain scan's, and against differences."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, ODESimulator, simulate, stimuli
from jneuro.simulators.adjoint import TimeParallel
from jneuro.simulators.base import param
from jneuro.simulators.solvers import RK4, Adaptive, Euler, Heun, RushLarsen, StaggeredCrankNicolson

KEY = jax.random.key(0)
CELLS = 3


class Tangled(ODESimulator):
    """Every variable in every equation, the stimulus too and not linearly, through calls, branches and custom rules."""

    gain: Any = param(1.0, doc="a factor")
    shift: Any = param(0.3, doc="a summand")
    v_spike: Any = param(0.0, unit="mV", doc="threshold")

    class State(NamedTuple):
        v: Any
        a: Any
        b: Any

    default_dt: ClassVar = 0.05

    def threshold(self, y):
        return y.v - self.v_spike

    def init(self, key):
        return self.State(jnp.asarray(0.1, self.gain.dtype), jnp.asarray(-0.2, self.gain.dtype), self.shift)

    def vector_field(self, y, drive):
        v, a, b = y
        mixed = jax.jit(lambda x, y: jnp.tanh(x * y) + x)(a, b + self.shift)
        branch = jnp.where(v > 0.2, jnp.sin(v) / (2 + jnp.square(v)), v**3)
        return self.State(
            self.gain * mixed - v + jnp.sin(drive) * a,
            jax.nn.silu(b) * v - branch + 0.1 * drive**2,
            jax.nn.softplus(a - v) - self.gain * b / (1 + a * a) + drive,
        )


NAMES = {HodgkinHuxley: ("g_na", "phi", "c_m"), CA1Pyramidal: ("g_ca", "a_c", "theta_m"), Tangled: ("gain", "shift")}
PLAIN = {"every": 5, "duration": 4.0}


def parameters(cell, *, each):
    """Factors, one for all cells or one for each: of two or three parameters, the initial state and the stimulus."""
    rng = np.random.default_rng(1)
    shapes = dict.fromkeys((*NAMES[cell], "initial", "amplitude"), ())
    if each:
        shapes |= {NAMES[cell][1]: (CELLS,), "initial": (CELLS,), "amplitude": (CELLS,)}
    return {name: jnp.asarray(1 + 0.05 * rng.normal(size=shape)) for name, shape in shapes.items()}


def run(theta, solver, cell, *, start=None, duration=1.0, every=1, **how):
    """A recording under these factors."""
    base = cell()
    simulator = dataclasses.replace(base, **{n: getattr(base, n) * theta[n] for n in NAMES[cell]})
    if start is None:
        start = jax.tree.map(lambda x: x * theta["initial"], base.init(KEY))
    scale = 1.0 if cell is Tangled else 10.0
    stimulus = stimuli.Step(scale * theta["amplitude"], onset=0.3) + stimuli.Sine(
        0.3 * scale * theta["amplitude"], 90.0
    )
    how |= {"record_every": every * how.get("dt", cell.default_dt), "key": KEY, "solver": solver}
    return simulate(simulator, stimulus, duration=duration, initial_state=start, **how)


def score(theta, solver, cell, **how):
    """A smooth function of every value and of the final state."""
    recording = run(theta, solver, cell, **how)
    seen = [recording.values[name] for name in sorted(recording.values) if name != "spikes"]
    weights = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in seen]
    ends = jnp.stack(recording.final_state.y)
    return sum(jnp.mean(w * jnp.sin(x / 20)) for x, w in zip(seen, weights, strict=True)) + jnp.mean(jnp.sin(ends / 9))


def assert_same(found, expected, rtol):
    """Relative to the largest component of each leaf."""
    for name, value in expected.items():
        scale = np.abs(value).max()
        assert scale > 1e-8, name
        np.testing.assert_allclose(found[name], value, rtol=0, atol=rtol * scale, err_msg=name)


CASES = [
    (Tangled, RK4(), True, {"every": 3, "duration": 1.05}),
    (HodgkinHuxley, Euler(), True, PLAIN),
]
MORE = [
    (HodgkinHuxley, Heun(), True, PLAIN),
    (CA1Pyramidal, RK4(), True, PLAIN),
    (HodgkinHuxley, RK4(), True, PLAIN),
    (Tangled, Heun(), False, {"duration": 1.05}),
    (Tangled, Euler(), True, {"every": 7, "duration": 1.05}),
    (HodgkinHuxley, Euler(), False, {"duration": 0.925}),
    (HodgkinHuxley, Heun(), False, {"every": 7, "duration": 0.875, "warmup": 0.075}),
    (HodgkinHuxley, RK4(), False, {"duration": 0.925, "record": ("n",)}),
    (HodgkinHuxley, RK4(), True, {"every": 12, "duration": 3.0, "warmup": 0.4, "checkpoint": 2}),
    (CA1Pyramidal, RK4(), False, {"every": 5, "duration": 2.0, "record": ("v",)}),
    (CA1Pyramidal, RK4(), True, {"duration": 0.78}),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("cell", "solver", "each", "how"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
    ids=lambda x: (
        x.__name__ if isinstance(x, type) else type(x).__name__ if isinstance(x, RK4 | Heun | Euler) else None
    ),
)
def test_gradient(cell, solver, each, how):
    theta = parameters(cell, each=each)
    parallel = TimeParallel(solver)
    found = jax.jit(jax.grad(lambda theta: score(theta, parallel, cell, **how)))(theta)
    assert_same(found, jax.jit(jax.grad(lambda theta: score(theta, solver, cell, **how)))(theta), 1e-9)

    rng = np.random.default_rng(0)
    direction = {name: rng.normal(size=x.shape) for name, x in theta.items()}
    value = jax.jit(lambda h: score({n: x + h * direction[n] for n, x in theta.items()}, parallel, cell, **how))
    h = 1e-4
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    np.testing.assert_allclose(sum(np.sum(found[n] * d) for n, d in direction.items()), slope, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [1, 3, 7])
@pytest.mark.parametrize("solver", [Euler(), Heun(), RK4()], ids=lambda x: type(x).__name__)
def test_values_are_those_of_the_scheme(solver, every):
    theta = parameters(HodgkinHuxley, each=True)
    how = {"duration": 8.4, "every": every, "warmup": 0.3, "dt": 0.025}
    found = run(theta, TimeParallel(solver), HodgkinHuxley, **how)
    expected = run(theta, solver, HodgkinHuxley, **how)
    assert expected.values["spikes"].sum() >= CELLS
    assert found.first_step == expected.first_step
    for name, value in expected.values.items():
        assert found.values[name].dtype == value.dtype
        np.testing.assert_allclose(found.values[name], value, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.final_state.y, expected.final_state.y, rtol=1e-10)
    assert found.final_state.step == expected.final_state.step


@pytest.mark.usefixtures("x64")
def test_a_run_may_be_cut():
    """Values and gradient of two pieces are those of the whole, whatever the chunk."""

    def pieces(theta):
        solver = TimeParallel(Euler(), chunk=4)
        first = run(theta, solver, Tangled, duration=1.15)
        second = run(theta, solver, Tangled, duration=0.8, start=first.final_state)
        return jnp.concatenate([first.values["v"], second.values["v"]])

    def whole(theta):
        return run(theta, TimeParallel(Euler(), chunk=7), Tangled, duration=1.95).values["v"]

    def gradient(trace):
        return jax.jit(jax.grad(lambda theta: jnp.mean(jnp.sin(trace(theta)))))(theta)

    theta = parameters(Tangled, each=False)
    np.testing.assert_allclose(pieces(theta), whole(theta), rtol=1e-12)
    assert_same(gradient(pieces), gradient(whole), 1e-12)


@pytest.mark.usefixtures("x64")
def test_vmap():
    theta = parameters(Tangled, each=True)
    batch = {name: jnp.stack([x, 1.1 * x]) for name, x in theta.items()}
    gradient = jax.grad(lambda theta: score(theta, TimeParallel(Euler()), Tangled, every=5, throw=False))
    found = jax.jit(jax.vmap(gradient))(batch)
    for i in range(2):
        expected = jax.jit(gradient)({name: x[i] for name, x in batch.items()})
        assert_same({name: x[i] for name, x in found.items()}, expected, 1e-10)


def test_single_precision():
    def gradient(solver):
        how = {"every": 5, "duration": 2.0, "record": ("v", "h")}
        theta = parameters(HodgkinHuxley, each=True)
        return jax.jit(jax.grad(lambda theta: score(theta, solver, HodgkinHuxley, **how)))(theta)

    found = gradient(TimeParallel(Euler()))
    assert {x.dtype for x in found.values()} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        assert_same(found, gradient(Euler()), 1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("v", [-40.0, -55.0])
def test_where_the_rates_are_zero_by_zero(v):
    """One step from there: the gradient in v is finite, and that of both sides."""

    def stepped(v, solver):
        start = HodgkinHuxley().init(KEY)._replace(v=v)
        end = simulate(HodgkinHuxley(), duration=0.025, initial_state=start, key=KEY, solver=solver).final_state.y
        return end.v + 10 * end.m + 10 * end.n

    slope = jax.grad(stepped)(jnp.asarray(v), TimeParallel(Euler()))
    difference = (stepped(jnp.asarray(v + 1e-4), Euler()) - stepped(jnp.asarray(v - 1e-4), Euler())) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_parameter_without_effect_has_gradient_zero():
    def mean(simulator, solver):
        return jnp.mean(
            simulate(simulator, duration=0.4, record=("v",), key=KEY, solver=solver, throw=False).values["v"]
        )

    found, expected = (jax.grad(mean)(Tangled(), solver) for solver in (TimeParallel(Euler()), Euler()))
    assert found.v_spike == 0
    np.testing.assert_allclose(found.gain, expected.gain, rtol=1e-12)
    np.testing.assert_allclose(found.shift, expected.shift, rtol=1e-12)


def test_memory_is_bounded_by_checkpoints():
    def stored(checkpoint):
        how = {"duration": 2000.0, "record": ("v",), "every": 20, "checkpoint": checkpoint}
        gradient = jax.jit(jax.grad(lambda theta: score(theta, TimeParallel(Euler()), Tangled, **how)))
        return gradient.lower(parameters(Tangled, each=False)).compile().memory_analysis().temp_size_in_bytes

    assert stored(40) < 0.25 * stored(None)


@pytest.mark.parametrize("solver", [RushLarsen(), StaggeredCrankNicolson(), None])
def test_other_schemes_are_refused(solver):
    with pytest.raises(ValueError, match=r"TimeParallel: .* take Euler\(\), Heun\(\) or RK4\(\)"):
        TimeParallel(solver)
    with pytest.raises(ValueError, match="estimates no error"):
        Adaptive(TimeParallel(RK4()))


@pytest.mark.parametrize("chunk", [0, -1, 2.0])
def test_chunks_are_whole(chunk):
    with pytest.raises(ValueError, match="chunk"):
        TimeParallel(RK4(), chunk=chunk)


def test_too_large_a_step_is_refused():
    with pytest.raises(ValueError, match="too large"):
        simulate(HodgkinHuxley(), duration=10.0, dt=1.0, key=KEY, solver=TimeParallel(RK4()))


def test_there_is_no_forward_mode():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(lambda theta: score(theta, TimeParallel(Euler()), Tangled))(parameters(Tangled, each=False))
