"""A stepped simulator of one's own: what it needs, what it gets, and what is refused."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.core.random import trial_keys
from jneuro.simulators import (
    Brunel,
    IzhikevichReservoir,
    RingNetwork,
    SteppedSimulator,
    SuperSpike,
    first_state,
    param,
    simulate,
    state,
    stimuli,
)
from jneuro.simulators.base import Param
from jneuro.simulators.paths import Normal
from jneuro.simulators.spiking import reset, spike
from jneuro.simulators.stepped import SteppedState

KEY = jax.random.key(3)


class Leaky(SteppedSimulator):
    """x <- decay x + drive + noise + coupling times the spikes of the step before; back to zero above 1."""

    decay: Param = param(0.9)
    coupling: Param = param(0.1)
    n: int = param(10, static=True)
    dt: float = param(1.0, unit="ms", static=True)

    class State(NamedTuple):
        x: jax.Array = state(unit="mV", doc="potential")
        sent: jax.Array = state()

    def init(self, key):
        return self.State(jax.random.uniform(key, (self.n,)), jnp.zeros(self.n, bool))

    def draw(self, key, step):
        return jax.random.uniform(jax.random.fold_in(key, step), (self.n,), minval=-0.5, maxval=0.5)

    def step(self, y, drive, noise):
        x = self.decay * y.x + drive + noise + self.coupling * y.sent.sum()
        spikes = spike(x - 1.0)
        return self.State(reset(spikes, x, to=0.0), spikes), {"spikes": spikes}


class Blocks(Leaky):
    """The same, four steps at a time."""

    @property
    def block(self):
        return 4


class Logistic(SteppedSimulator):
    """The logistic map: the least that a simulator can be."""

    r: Param = param(3.7)
    dt: float = 1.0

    class State(NamedTuple):
        x: jax.Array = state(0.3)

    def step(self, y, drive, noise):
        return self.State(self.r * y.x * (1 - y.x) + drive), {}


def test_the_least_that_is_needed():
    assert (Logistic().populations, Logistic.presets, Logistic().connect(KEY)) == ({"cells": 1}, (), Logistic())
    assert list(Logistic.recordables) == ["x"]
    rec = simulate(Logistic(), duration=20.0, key=KEY)
    x = [0.3]
    for _ in range(20):
        x.append(3.7 * x[-1] * (1 - x[-1]))
    np.testing.assert_allclose(rec.values["x"], x[1:], rtol=1e-3)
    slope = jax.grad(lambda r: simulate(Logistic(r=r), duration=2.0, key=KEY, throw=False).values["x"][-1])(3.7)
    assert float(slope) == pytest.approx(0.21 * (1 - 2 * x[1]) * 3.7 + x[1] * (1 - x[1]), rel=1e-4)


class Halved(Logistic):
    """x <- x / 2 + drive."""

    def step(self, y, drive, noise):
        return self.State(y.x / 2 + drive), {}


def test_what_jumps_within_a_step_counts_by_its_share_and_has_derivatives():
    def last(onset, end):
        how = {"duration": 6.0, "key": KEY, "initial_state": Halved.State(0.0), "throw": False}
        return simulate(Halved(), stimuli.Step(2.0, onset=onset, end=end), **how)["x"][-1]

    value, slopes = jax.value_and_grad(lambda times: last(*times))(jnp.array([1.25, 3.5]))
    assert float(value) == pytest.approx(2 * (0.75 / 16 + 1 / 8 + 0.5 / 4))
    np.testing.assert_allclose(slopes, [-2 / 16, 2 / 4], rtol=1e-6)


def test_what_can_be_recorded_is_told_by_state_and_step():
    about = Leaky.recordables
    assert about == Leaky().recordables
    assert {n: (r.unit, r.reduce, r.doc) for n, r in about.items()} == {
        "x": ("mV", "last", "potential"),
        "sent": ("1", "last", "sent"),
        "spikes": ("1", "sum", "spikes"),
    }
    assert Leaky(n=7).populations == {"cells": 7}
    rec = simulate(Leaky(), duration=60.0, record_every=5.0, key=KEY)
    whole = simulate(Leaky(), duration=60.0, key=KEY)
    assert {n: v.shape for n, v in rec.values.items()} == {"x": (12, 10), "sent": (12, 10), "spikes": (12, 10)}
    np.testing.assert_array_equal(rec.values["spikes"], np.asarray(whole.values["spikes"]).reshape(12, 5, 10).sum(1))
    np.testing.assert_array_equal(rec.values["x"], whole.values["x"][4::5])


def test_cut_and_batched_runs_are_the_whole_to_the_last_bit():
    sim, keys = Leaky(), trial_keys(KEY, 3)
    drive = stimuli.Sine(0.3 * jnp.arange(10.0), 30.0)
    whole = simulate(sim, drive, duration=50.0, key=KEY)
    assert whole.values["spikes"].sum() > 30
    state, pieces = None, []
    for duration in (3.0, 21.0, 26.0):
        rec = simulate(sim, drive, duration=duration, key=KEY, initial_state=state)
        state, pieces = rec.final_state, [*pieces, rec.values]
    for name, values in whole.values.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in pieces]), values)
    assert int(state.step) == 50
    jax.tree.map(np.testing.assert_array_equal, state, whole.final_state)
    batch = jax.jit(jax.vmap(lambda key: simulate(sim, drive, duration=50.0, key=key, throw=False).values))(keys)
    for k, key in enumerate(keys):
        for name, values in simulate(sim, drive, duration=50.0, key=key).values.items():
            np.testing.assert_array_equal(batch[name][k], values)


def test_blocks_of_several_steps_are_the_same_run():
    one, other = (simulate(s, duration=30.0, key=KEY, record_every=5.0).values for s in (Leaky(), Blocks()))
    np.testing.assert_array_equal(one["spikes"], other["spikes"])
    np.testing.assert_allclose(one["x"], other["x"], atol=1e-5)


def test_spikes_in_the_state_are_differentiated_where_it_is_asked_for(x64):
    def rate(decay, surrogate, start=None):
        how = {"duration": 40.0, "key": KEY, "throw": False, "spike_gradient": surrogate, "initial_state": start}
        rec = simulate(Leaky(decay=decay), **how)
        return rec.values["spikes"].mean(), rec.final_state

    state = rate(0.9, None)[1]
    assert state.y.sent.dtype == jnp.bool_
    slope, smooth = jax.grad(lambda d: rate(d, SuperSpike(scale=0.1)), has_aux=True)(0.9)
    assert slope > 0
    np.testing.assert_array_equal(smooth.y.sent, state.y.sent)
    # A run goes on from either's state, whatever it asks for.
    assert float(rate(0.9, None, smooth)[0]) == float(rate(0.9, None, state)[0])
    assert float(rate(0.9, SuperSpike(), state)[0]) == pytest.approx(float(rate(0.9, None, state)[0]))


def test_a_parameter_that_is_drawn_keeps_its_deviate():
    sim = Leaky(decay=Normal(0.8, 0.05))
    one, two = (sim.connect(jax.random.key(k)) for k in (0, 1))
    assert one.decay.z.shape == (10,)
    assert not np.array_equal(one.decay.z, two.decay.z)
    plain = simulate(Leaky(decay=one.decay.value), duration=20.0, key=KEY)
    np.testing.assert_array_equal(simulate(one, duration=20.0, key=KEY).values["x"], plain.values["x"])

    def last(sd):
        drawn = dataclasses.replace(one, decay=dataclasses.replace(one.decay, sd=sd))
        return simulate(drawn, duration=3.0, key=KEY, throw=False).values["x"].sum()

    assert abs(jax.grad(last)(0.05)) > 1e-3
    with pytest.raises(ValueError, match="decay is a Normal that was not drawn"):
        simulate(sim, duration=3.0, key=KEY)


class Returns(Leaky):
    """Returns something else."""

    what: str = param("", static=True)

    def step(self, y, drive, noise):
        y, seen = super().step(y, drive, noise)
        return {"state alone": y, "a shape": (y._replace(x=y.x[:3]), seen), "a tuple": ((y.x, y.sent), seen)}[self.what]


class Backwards(Leaky):
    @property
    def block(self):
        return 0


BAD = {
    "the state alone": (lambda: Returns(what="state alone"), {}, "Returns.step must return the state and a dict"),
    "another shape": (
        lambda: Returns(what="a shape"),
        {},
        r"step must return a state like.*x has the shape \(3,\), not \(10,\)",
    ),
    "another state": (lambda: Returns(what="a tuple"), {}, "step must return a state like.*got a tuple"),
    "no block": (Backwards, {}, "block = 0 must be a positive whole number"),
    "another start": (
        Leaky,
        {"initial_state": SteppedState((1, 2), 0)},
        "Leaky starts from a .*Leaky.State: got a tuple",
    ),
    "a start of others": (Leaky, {"initial_state": Leaky(n=4).init(KEY)}, r"x has the shape \(4,\), not \(10,\)"),
    "parameters of others": (lambda: Leaky(decay=np.ones(4)), {}, r"Leaky: decay has the shape \(4,\).*10 neurons"),
    "a stimulus of others": (Leaky, {"stimulus": stimuli.Constant(np.ones(4))}, "4 values; Leaky takes.*10 neurons"),
    "a stimulus of two axes": (Leaky, {"stimulus": stimuli.Constant(np.ones((2, 5)))}, r"values of the shape \(2, 5\)"),
    "parts of a record": (Leaky, {"record": ["x[:3]"]}, r"'x\[:3\]'; it records x, sent, spikes, of all neurons"),
    "what is shared": (
        lambda: RingNetwork(positions=5, j_ee=np.ones(10)),
        {},
        r"RingNetwork: j_ee has the shape \(10,\); it must be one number for the whole network",
    ),
    "what the background shares": (
        lambda: Brunel(rate_external=np.full(100, 500.0)).connect(KEY),
        {},
        "Brunel: rate_external has the shape .* one number for the whole network",
    ),
    "no key": (lambda: Leaky().connect(0), {}, "key must be a typed key such as jax.random.key.0., got 0"),
    "several keys": (lambda: Brunel().connect(jax.random.split(KEY)), {}, "key must be one key, got a batch"),
    "no room": (
        lambda: Brunel(n_excitatory=10**9).connect(KEY),
        {},
        "Brunel: the connections of 1,000,000,020 neurons take .* GiB, and .* take fewer neurons",
    ),
    "no room for lists": (
        lambda: IzhikevichReservoir(n_excitatory=10**7).connect(KEY),
        {},
        "IzhikevichReservoir: the connections of 10,000,200 neurons take .* GiB",
    ),
    "a name": (Leaky, {"record": ["v"]}, "Leaky cannot record 'v'; it records x, sent, spikes"),
    "a solver": (Leaky, {"dt": 0.5}, "Leaky steps by its own dt = 1.0 ms"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_in_one_line(case):
    make, how, message = BAD[case]
    with pytest.raises(ValueError, match=message) as found:
        simulate(make(), duration=3.0, key=KEY, **how)
    assert "\n" not in str(found.value)


def test_a_run_starts_in_its_first_state():
    start = first_state(Leaky(), KEY)
    one, other = (simulate(Leaky(), duration=9.0, key=KEY, initial_state=s).values["x"] for s in (start, start.y))
    np.testing.assert_array_equal(one, other)
