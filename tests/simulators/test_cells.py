"""The contract of cells: what a class of one's own needs, what is derived from it, and what is refused."""

import dataclasses
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators import (
    CA1Pyramidal,
    Exact,
    HodgkinHuxley,
    Izhikevich,
    ODESimulator,
    Pospischil,
    SimulationError,
    SuperSpike,
    TimeParallel,
    simulate,
    simulate_many,
    stimuli,
)
from jneuro.simulators.base import POSITIVE, Bounds, Drive, Param, param, state
from jneuro.simulators.integration import Stepper
from jneuro.simulators.ode import is_separable
from jneuro.simulators.solvers import RK4, Adaptive, Euler, MembraneTerm, RushLarsen, StaggeredCrankNicolson

KEY = jax.random.key(0)
double = pytest.mark.usefixtures("x64")


class FitzHughNagumo(ODESimulator):
    """FitzHugh's model of an excitable membrane."""

    a: Param = param(0.7)
    b: Param = param(0.8)
    tau: Param = param(12.5, unit="ms", bounds=POSITIVE)

    class State(NamedTuple):
        v: Any = state(-1.2)
        w: Any = state(-0.6)

    def vector_field(self, y, drive):
        return self.State(y.v - y.v**3 / 3 - y.w + drive, (y.v + self.a - self.b * y.w) / self.tau)

    def threshold(self, y):
        return y.v - 1.0


class Leaky(ODESimulator):
    """A leaky integrate-and-fire cell, by its vector field alone."""

    tau: Param = param(10.0, unit="ms", bounds=POSITIVE)
    v_threshold: Param = param(1.0)
    v_reset: Param = param(0.0)

    class State(NamedTuple):
        v: Any = state(0.0)

    def vector_field(self, y, drive):
        return self.State((drive - y.v) / self.tau)

    def threshold(self, y):
        return y.v - self.v_threshold

    def reset(self, y):
        return self.State(self.v_reset)


class Refractory(Leaky):
    """The same with a refractory period."""

    refractory: Param = param(2.0, unit="ms")


class Decay(ODESimulator):
    """Neither potential nor spikes."""

    rate: Param = param(0.5, unit="1/ms")

    class State(NamedTuple):
        x: Any = state(1.0, unit="pA", doc="a current")

    def vector_field(self, y, drive):
        return self.State(drive - self.rate * y.x)

    def observables(self, y, drive):
        return {"square": y.x**2}


@double
def test_a_cell_of_ones_own_needs_a_state_and_an_equation():
    cell = FitzHughNagumo()
    how = {"duration": 200.0, "key": KEY, "record_every": 1.0}
    found = simulate(cell, stimuli.Constant(0.5), **how)
    assert found.units == {"v": "1", "w": "1", "current": "1", "spikes": "1"}
    exact = simulate(
        cell, stimuli.Constant(0.5), **how, dt=0.5, solver=Adaptive(diffrax.Dopri8(), rtol=1e-9, atol=1e-11)
    )
    np.testing.assert_allclose(found.values["v"], exact.values["v"], atol=1e-6)
    assert found.values["spikes"].sum() == 5
    # The derived relaxation: −∂f/∂y, and what makes it the same equation.
    y = cell.State(jnp.asarray([0.3, -1.0, 1.0]), jnp.asarray([0.1, 0.2, -0.3]))
    steady, rate = cell.relaxation(y, 0.4)
    np.testing.assert_allclose(rate.v[:2], (y.v**2 - 1)[:2], atol=2e-6)  # a rate of zero is replaced by 1e-6
    np.testing.assert_allclose(rate.w, cell.b / cell.tau, rtol=1e-12)
    for s, r, x, f in zip(steady, rate, y, cell.vector_field(y, 0.4), strict=True):
        np.testing.assert_allclose(r * (s - x), f, rtol=1e-9)
    coarse = simulate(cell, stimuli.Constant(0.5), **how, solver=RushLarsen(), dt=0.005)
    np.testing.assert_allclose(coarse.values["v"], exact.values["v"], atol=0.05)


def test_what_is_recorded_is_told_by_the_class():
    assert list(Decay.recordables) == ["x", "current", "square"]
    assert (Decay.recordables["x"].unit, Decay.recordables["x"].doc) == ("pA", "a current")
    found = simulate(Decay(), duration=1.0, dt=0.1, key=KEY, record=["x", "square"])
    np.testing.assert_allclose(found.values["x"], np.exp(-0.5 * found.time), rtol=1e-6)
    np.testing.assert_allclose(found.values["square"], found.values["x"] ** 2)
    assert list(simulate(Decay(), duration=1.0, key=KEY).values) == ["current", "x"]
    currents = simulate(HodgkinHuxley(), duration=1.0, key=KEY, record=["v", "i_na", "i_k", "i_l"])
    assert currents.units["i_na"] == "µA/cm²"
    assert HodgkinHuxley.recordables.keys() == HodgkinHuxley().recordables.keys()


SEPARABLE = {HodgkinHuxley: True, Pospischil: True, CA1Pyramidal: False, Izhikevich: False, FitzHughNagumo: False}


@pytest.mark.parametrize("cell", SEPARABLE, ids=lambda c: c.__name__)
def test_separability_is_read_from_the_equations(cell):
    assert is_separable(cell()) is SEPARABLE[cell]


@pytest.mark.parametrize("cell", [HodgkinHuxley, Pospischil, CA1Pyramidal], ids=lambda c: c.__name__)
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_fast_forms_are_the_published_equations(cell, precision):
    """Values, and derivatives by every variable and the current: on a grid with the points where rates are 0/0."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(precision == np.float64):
        v = np.concatenate([np.linspace(-95.0, 45.0, 29), [-40.0, -55.0, -43.2, -41.2, -16.2]]).astype(precision)
        gates = rng.uniform(0.02, 0.98, (len(cell.State._fields) - 1, len(v))).astype(precision)
        y, simulator, drive = cell.State(v, *gates), cell(), jnp.full(len(v), 1.3, precision)
        fast = jax.jit(lambda y, i: (simulator.vector_field(y, i), ODESimulator.vector_field(simulator, y, i)))
        printed = jax.jit(lambda y, i: simulator.equations(y, i))
        scale = np.abs(np.stack(printed(y, drive))) + np.abs(np.stack(printed(y, drive))).max(1, keepdims=True) * 1e-2
        tolerance = 2e-5 if precision == np.float32 else 1e-12
        for found in fast(y, drive):
            assert (np.abs(np.stack(found) - np.stack(printed(y, drive))) <= tolerance * scale).all()
        if precision == np.float32:
            return
        for k, name in enumerate(cell.State._fields):
            tangent = cell.State(*(jnp.full_like(x, float(j == k)) for j, x in enumerate(y)))
            one, other = (
                jax.jvp(lambda y, f=f: f(y, drive), (y,), (tangent,))[1] for f in (lambda y, i: fast(y, i)[0], printed)
            )
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max() + 1e-12, err_msg=name)


# What drives it


class Clamped(MembraneTerm):
    """A current, and a conductance towards 0 mV."""

    def drive(self, t, y):
        return Drive(super().drive(t, y), 0.2)


@double
@pytest.mark.parametrize("solver", [RK4(), RushLarsen(), StaggeredCrankNicolson()], ids=lambda s: type(s).__name__)
def test_a_conductance_is_a_larger_leak(solver):
    """0.2 mS/cm² towards 0 mV, within the step or as part of the cell."""
    cell, current, dt = HodgkinHuxley(), stimuli.Step(12.0, onset=1.0), 0.025
    leak = cell.g_l + 0.2
    leaky = dataclasses.replace(cell, g_l=leak, e_l=cell.g_l * cell.e_l / leak)

    def last(stepper, y):
        carry = stepper.start(y, jnp.asarray(0))
        carry = jax.lax.fori_loop(0, 200, lambda n, c: stepper.advance(c, n), carry)
        return stepper.observe(carry, jnp.asarray(200))

    start = cell.init(KEY)
    found = last(Stepper(solver, Clamped(cell, current), dt), start)
    expected = last(Stepper(solver, MembraneTerm(leaky, current), dt), start)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=1e-10, atol=1e-12)


def test_no_conductance_costs_nothing():
    """A `Drive` without one compiles to the program of a current."""

    class Plain(MembraneTerm):
        def drive(self, t, y):
            return Drive(super().drive(t, y))

    def program(term):
        stepper = Stepper(StaggeredCrankNicolson(), term(HodgkinHuxley(), stimuli.Constant(1.0)), 0.025)
        return str(jax.make_jaxpr(stepper.advance)(HodgkinHuxley().init(KEY), jnp.asarray(0)))

    assert program(Plain) == program(MembraneTerm)


# Spikes


@double
def test_a_leaky_cell_spikes_at_the_times_of_its_closed_form():
    """T = τ ln(I / (I − θ)), and a refractory period besides; times and their derivatives where they are located."""
    current, tau = 1.7, 10.0
    period = tau * np.log(current / (current - 1.0))
    how = {"duration": 60.0, "key": KEY, "record": ["spikes"]}
    found = simulate(Refractory(), stimuli.Constant(current), dt=0.01, **how)
    times = (np.flatnonzero(found.values["spikes"]) + 1) * 0.01
    np.testing.assert_allclose(np.diff(times), period + 2.0, atol=0.02)

    def second(i):
        """The time of the second spike, from the frames' parts."""
        seen = simulate(Leaky(), stimuli.Constant(i), dt=0.1, record_every=1.0, spike_gradient=Exact(), **how)
        total = jnp.cumsum(seen.values["spikes"])
        k = jnp.searchsorted(jax.lax.stop_gradient(total), 1.5)
        return k + (1.5 - (total[k] - seen.values["spikes"][k])) / seen.values["spikes"][k]

    at, slope = jax.jit(jax.value_and_grad(second))(current)
    assert float(at) == pytest.approx(2 * period, abs=1e-4)
    assert float(slope) == pytest.approx(2 * tau * (1 / current - 1 / (current - 1)), rel=1e-3)


@double
def test_located_spikes_of_a_smooth_cell_change_nothing_else():
    how = {"duration": 30.0, "key": KEY, "solver": RK4(), "record": ["v", "spikes"]}
    plain, exact = (simulate(HodgkinHuxley(), stimuli.Constant(20.0), spike_gradient=g, **how) for g in (None, Exact()))
    np.testing.assert_allclose(plain.values["v"], exact.values["v"], rtol=1e-11)
    assert float(exact.values["spikes"].sum()) == pytest.approx(float(plain.values["spikes"].sum()), rel=1e-12)
    smooth = simulate(HodgkinHuxley(), stimuli.Constant(20.0), spike_gradient=SuperSpike(), **how)
    np.testing.assert_array_equal(smooth.values["spikes"], plain.values["spikes"])


# Refused in words


class Contradiction(FitzHughNagumo):
    def relaxation(self, y, drive):
        return y, self.State(jnp.ones_like(y.v), jnp.ones_like(y.w))


class Nothing(ODESimulator):
    class State(NamedTuple):
        v: Any = state(0.0)


class Unfinished(FitzHughNagumo):
    class State(NamedTuple):
        v: Any = state()
        w: Any = state(0.0)


REFUSED = [
    (lambda: Nothing(), {}, r"Nothing: define vector_field\(self, y, drive\), or relaxation"),
    (lambda: Contradiction(), {}, "vector_field and relaxation are not the same equation: dv/dt"),
    (lambda: Unfinished(), {}, r"Unfinished: v has no initial value; give it one"),
    (lambda: Decay(), {"record": ["spikes"]}, "Decay cannot record 'spikes'; it records x, current, square"),
    (lambda: Decay(), {"spike_gradient": Exact()}, "Decay has no threshold"),
    (lambda: HodgkinHuxley, {}, r"HodgkinHuxley is a class; make an object of it: HodgkinHuxley\(\)"),
    (HodgkinHuxley, {"stimulus": 10.0}, r"stimulus must be .* got 10.0; take Constant\(x\)"),
    (HodgkinHuxley, {"stimulus": np.zeros(9)}, r"take Constant\(x\) .* Sampled\(x, dt\)"),
    (HodgkinHuxley, {"stimulus": stimuli.Step}, "stimulus = Step is a class"),
    (HodgkinHuxley, {"duration": "50"}, "duration = '50' must be a number"),
    (HodgkinHuxley, {"record_every": True}, "record_every = True must be a number"),
    (HodgkinHuxley, {"initial_state": HodgkinHuxley.State(-65.0, 1.5, 0.6, 0.3)}, r"m = 1.5 .* lies outside \[0, 1\]"),
    (HodgkinHuxley, {"initial_state": HodgkinHuxley.State(-65.0, 0.5)}, "the initial state has no value for h"),
    (HodgkinHuxley, {"dt": 1.0}, r"dt = 1 ms is too large for StaggeredCrankNicolson: .* in its initial state"),
    (HodgkinHuxley, {"duration": 1e12}, "40,000,000,000,000 steps of 0.025 ms, and at most 2,147,483,647"),
    (HodgkinHuxley, {"duration": 5e7}, r"2,000,000,000 frames of v, m, .* GiB are free .* record less"),
    (HodgkinHuxley, {"record": 3}, "record = 3 must be names of what HodgkinHuxley records: v, m"),
    (
        HodgkinHuxley,
        {"stimulus": stimuli.Sampled(np.zeros(900), 0.01)},
        "every 0.01 ms, more finely than dt = 0.025 ms, so samples would be skipped; take dt = 0.01 or less",
    ),
    (lambda: HodgkinHuxley(gna=100), {}, "HodgkinHuxley: unknown argument 'gna'; did you mean 'g_na'"),
    (Izhikevich, {"solver": StaggeredCrankNicolson()}, "of first order for Izhikevich"),
    (Izhikevich, {"solver": TimeParallel(RK4())}, "TimeParallel cannot carry the jumps of Izhikevich at its spikes"),
    (Refractory, {"spike_gradient": Exact()}, "knows no refractory period, which Refractory has"),
    (HodgkinHuxley, {"spike_gradient": Exact(), "solver": StaggeredCrankNicolson()}, "cannot divide a step"),
]


@pytest.mark.parametrize(("cell", "change", "message"), REFUSED, ids=[m[:40] for *_, m in REFUSED])
def test_refused_in_words(cell, change, message):
    with pytest.raises(ValueError, match=message):
        simulate(**({"simulator": cell(), "duration": 1.0, "key": KEY} | change))


@pytest.mark.parametrize(("solver", "dt"), [(StaggeredCrankNicolson(), 0.2), (RushLarsen(), 0.2)], ids=["CN", "RL"])
def test_a_step_too_coarse_for_a_spike_is_said(solver, dt):
    """The membrane relaxes at 30/ms in a spike, and slowly before."""
    how = {"duration": 40.0, "dt": dt, "key": KEY, "solver": solver}
    with pytest.raises(SimulationError, match=rf"dt = {dt} ms is too large .* at t = .* so take dt below 0\.\d+ ms"):
        simulate(HodgkinHuxley(), stimuli.Constant(15.0), **how)
    assert not simulate(HodgkinHuxley(), stimuli.Constant(15.0), **how, throw=False).ok
    assert simulate(HodgkinHuxley(), **how).ok


COARSE = [
    # cell, current, solver, step that is fine, step that is not, what is said of it
    (HodgkinHuxley, 10.0, None, 0.05, 0.2, "too large for StaggeredCrankNicolson"),
    (HodgkinHuxley, 10.0, RushLarsen(), 0.05, 0.1, r"a step errs by \d.* % of the range that v covers"),
    (Pospischil, 400.0, None, 0.05, 0.1, r"a step errs by \d.* % of the range that v covers"),
    (CA1Pyramidal, 1.0, None, 0.05, 0.2, "take dt below 0.0[4-9]"),
    (Izhikevich, 10.0, None, 1.0, 2.0, "Izhikevich relaxes at"),
    (FitzHughNagumo, 0.5, None, 0.25, 1.0, r"a step errs by \d.* % of the range that v covers"),
]


@pytest.mark.parametrize(("cell", "current", "solver", "fine", "coarse", "said"), COARSE)
def test_what_a_step_may_err(cell, current, solver, fine, coarse, said):
    """Of every kind of cell and solver; the default step is finer than the fine one."""
    how = {"duration": 60.0, "key": KEY, "solver": solver, "record": ["v"], "throw": False}
    assert cell.default_dt <= fine
    assert simulate(cell(), stimuli.Constant(current), dt=fine, **how).ok
    with pytest.raises(SimulationError, match=said):
        simulate(cell(), stimuli.Constant(current), dt=coarse, **how | {"throw": True})


class Runaway(FitzHughNagumo):
    """Whose potential may not be as high as a spike of it is."""

    class State(NamedTuple):
        v: Any = state(-1.2, bounds=Bounds(-3.0, 1.0))
        w: Any = state(-0.6)


def test_a_variable_that_leaves_its_bounds_is_said():
    with pytest.raises(SimulationError, match=r"v = 1\.\d+ has left its bounds, \[-3, 1\]"):
        simulate(Runaway(), stimuli.Constant(0.5), duration=60.0, dt=0.25, key=KEY, record=["v"])


def test_a_membrane_without_conductance_integrates_its_current():
    for cell in (HodgkinHuxley(g_na=0.0, g_k=0.0, g_l=0.0), Pospischil(g_na=0.0, g_k=0.0, g_m=0.0, g_l=0.0)):
        capacitance = cell.c_m if isinstance(cell, HodgkinHuxley) else cell.capacitance
        found = simulate(cell, stimuli.Constant(2.0 * capacitance), duration=5.0, key=KEY, record=["v"])
        assert float(found["v"][-1] - cell.v_initial) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("v", [-1000.0, -500.0, 200.0, 300.0, 1000.0])
def test_gradients_are_finite_far_from_physiology(v):
    rate = jax.jit(jax.jacfwd(lambda v: Pospischil().relaxation(Pospischil.State(v, *[jnp.float32(0.5)] * 4), 1.0)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(rate(jnp.float32(v))))


def test_what_diverges_under_a_derivative_is_said():
    with pytest.raises(SimulationError, match="left the finite numbers"):
        jax.grad(lambda v: simulate(HodgkinHuxley(v_initial=v), duration=1.0, key=KEY, solver=Euler()).values["v"][-1])(
            -2000.0
        )


def test_numpys_numbers_are_numbers():
    found = simulate(
        Izhikevich(n=np.int64(2)), duration=np.float32(1.0), dt=np.float64(0.1), record_every=np.int64(1), key=KEY
    )
    assert found.values["v"].shape == (1, 2)


# Many runs


@double
def test_many_runs_are_each_of_them():
    """Cells, stimuli, states and keys of their own, divided among devices or not."""
    keys, g = jax.random.split(KEY, 4), jnp.linspace(30.0, 45.0, 4)
    cells = jax.vmap(lambda g: HodgkinHuxley(g_k=g))(g)
    drives = jax.vmap(stimuli.Constant)(jnp.linspace(5.0, 20.0, 4))
    how = {"duration": 10.0, "record": ["v"], "record_every": 0.5}
    for batched, simulator, stimulus in (
        (("simulator", "stimulus"), cells, drives),
        (("stimulus",), HodgkinHuxley(), drives),
    ):
        found = simulate_many(simulator, stimulus, key=keys, batched=batched, **how)
        divided = simulate_many(simulator, stimulus, key=keys, batched=batched, devices=jax.devices()[:2], **how)
        assert found.values["v"].shape == (4, 20)
        np.testing.assert_allclose(divided.values["v"], found.values["v"], rtol=1e-9)
        k = 2
        one = HodgkinHuxley(g_k=g[k]) if "simulator" in batched else HodgkinHuxley()
        alone = simulate(one, stimuli.Constant(drives.amplitude[k]), key=keys[k], **how)
        np.testing.assert_allclose(found.values["v"][k], alone.values["v"], rtol=1e-9)
    with pytest.raises(ValueError, match=r"the runs must agree in their number.* key: \[3\]"):
        simulate_many(cells, key=keys[:3], batched=("simulator",), **how)
    with pytest.raises(ValueError, match="'cells' must be one of simulator, stimulus, initial_state"):
        simulate_many(cells, key=keys, batched=("cells",), **how)
    with pytest.raises(ValueError, match="4 runs cannot be divided among 3 devices"):
        simulate_many(HodgkinHuxley(), key=keys, devices=[*jax.devices()[:2], jax.devices()[0]], **how)
    with pytest.raises(SimulationError, match=r"run 1: v at t = 0\.5 ms"):
        simulate_many(HodgkinHuxley(), jax.vmap(stimuli.Constant)(jnp.array([0.0, jnp.inf])), key=keys[:2],
                      batched=("stimulus",), **how)  # fmt: skip
