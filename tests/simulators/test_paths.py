"""What can be reached in an object, and set; and numbers that are drawn."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.core.random import stream
from jneuro.simulators import (
    Brunel,
    HodgkinHuxley,
    ODESimulator,
    SteppedSimulator,
    first_state,
    simulate,
    state,
    stimuli,
)
from jneuro.simulators.base import POSITIVE, Param, param
from jneuro.simulators.paths import (
    Choice,
    LogNormal,
    Normal,
    Uniform,
    as_distribution,
    draw,
    parameters,
    replace,
    resolve,
)

KEY = jax.random.key(3)


class Channel(eqx.Module):
    """A part with parameters."""

    g_max: jax.Array = param(1.0, unit="mS/cm²", bounds=POSITIVE, doc="greatest conductance")
    e_rev: jax.Array = param(-70.0, unit="mV")


class Cell(eqx.Module):
    """An object of parts: a dictionary, a plain array, a setting."""

    channels: dict
    table: jax.Array
    c_m: jax.Array = param(1.0)
    n: int = param(3, static=True)

    def __check_init__(self):
        if not isinstance(self.c_m, jax.core.Tracer) and np.any(self.c_m > 10):
            raise ValueError("more capacitance than conductance")


CELL = Cell({"na": Channel(), "k": Channel(g_max=2.0)}, jnp.arange(3.0))


def test_paths_reach_every_part():
    found = parameters(CELL)
    assert list(found) == [
        *(f"channels.{c}.{n}" for c in ("na", "k") for n in ("g_max", "e_rev")),
        "table",
        "c_m",
        "n",
    ]
    assert (found["channels.k.g_max"].unit, float(found["channels.k.g_max"].default)) == ("mS/cm²", 2.0)
    assert found["n"].static


def test_the_one_setter():
    changed = replace(CELL, {"channels.na.g_max": 7, "c_m": jnp.float32(2), "table": [1, 2, 3]})
    assert (changed.channels["na"].g_max, changed.c_m, CELL.c_m) == (7.0, 2.0, 1.0)
    assert changed.channels["na"].g_max.dtype == changed.table.dtype == jnp.float32
    assert changed.channels["k"] is CELL.channels["k"] or changed.channels["k"].g_max == 2.0
    slope = jax.grad(lambda g: replace(CELL, {"channels.k.g_max": g}).channels["k"].g_max ** 2)(3.0)
    assert float(slope) == 6.0
    assert replace(CELL, {"channels.k.g_max": np.ones(4)}).channels["k"].g_max.shape == (4,)


REFUSED = {
    "unknown": (
        {"channels.na.gmax": 1.0},
        "Cell: unknown parameter 'channels.na.gmax'; did you mean 'channels.na.g_max'",
    ),
    "static": ({"n": 4}, "n of Cell is part of the compiled program and cannot be varied in it"),
    "bounds": (
        {"channels.na.g_max": -1.0},
        r"channels.na.g_max = -1.0 mS/cm² lies outside \(0, inf\) mS/cm² \(greatest",
    ),
    "word": ({"c_m": "2"}, "c_m = '2' must be a number"),
    "truth": ({"c_m": True}, "c_m = True must be a number"),
    "nothing": ({"c_m": None}, "c_m = None must be a number"),
    "shape": ({"table": np.ones(4)}, r"table has the shape \(4,\), where it must be \(\) or \(3,\)"),
    "own check": ({"c_m": 11.0}, "more capacitance"),
    "not a number": ({"c_m": np.nan}, "c_m = nan lies outside"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_set(values, message):
    with pytest.raises(ValueError, match=message):
        replace(CELL, values)


# Numbers that are drawn ----------------------------------------------------------------------------------------------

KINDS = {
    "uniform": ({"uniform": [-1, 3]}, Uniform(-1, 3), lambda k: jax.random.uniform(k, minval=-1.0, maxval=3.0)),
    "normal": ({"normal": [2, 0.5]}, Normal(2, 0.5), lambda k: 2.0 + 0.5 * jax.random.normal(k)),
    "choice": ({"choice": [1, 4, 9]}, Choice([1, 4, 9]), lambda k: jax.random.choice(k, jnp.asarray([1.0, 4.0, 9.0]))),
    "log_normal": ({"log_normal": [2, 0]}, LogNormal(2, 0), lambda k: jnp.float32(2.0)),
}


@pytest.mark.parametrize(("said", "made", "reference"), KINDS.values(), ids=KINDS)
def test_distributions_draw_what_jax_draws(said, made, reference):
    read = as_distribution(said)
    assert type(read) is type(made)
    keys = jax.random.split(KEY, 64)
    drawn = jax.jit(jax.vmap(lambda k: resolve(draw({"x": made}, k))["x"]))(keys)
    wanted = jax.jit(jax.vmap(lambda k: reference(stream(k, "x"))))(keys)
    np.testing.assert_array_equal(drawn, wanted)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda k: read(stream(k, "x"))))(keys), drawn)


def test_a_log_normal_number_has_the_mean_and_sd_that_it_says():
    x = np.asarray(resolve(draw(LogNormal(3.0, 1.5), KEY, (200_000,))), np.float64)
    assert x.mean() == pytest.approx(3.0, abs=4.5 * 1.5 / np.sqrt(len(x)))
    assert x.std() == pytest.approx(1.5, rel=0.02)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", [Normal, LogNormal, Uniform], ids=lambda kind: kind.__name__)
def test_drawn_numbers_are_differentiable_in_what_describes_them(kind):
    cell = draw(replace(CELL, {"channels.k.g_max": kind(2.0, 5.0)}), KEY, (3,))
    names = [f"channels.k.g_max.{n}" for n in parameters(kind)]
    assert set(names) < set(parameters(cell))

    def total(values):
        return jnp.sum(resolve(replace(cell, dict(zip(names, values, strict=True)))).channels["k"].g_max ** 2)

    at = jnp.asarray([2.0, 5.0])
    slope = jax.grad(total)(at)
    for k in range(2):
        step = jnp.zeros(2).at[k].set(1e-6)
        assert float(slope[k]) == pytest.approx(float(total(at + step) - total(at - step)) / 2e-6, rel=1e-5)


class Decay(SteppedSimulator):
    """Three numbers that decay."""

    rate: Param = param(0.5)
    dt: float = param(1.0, unit="ms", static=True)

    class State(NamedTuple):
        x: jax.Array = state(unit="mV", doc="potential")

    def init(self, key):
        return self.State(jnp.ones(3))

    def step(self, y, drive, noise):
        return self.State(self.rate * y.x + drive), {}


class Relaxing(ODESimulator):
    """A potential that relaxes, with a current that can be recorded."""

    rate: Param = param(0.5)
    e_rev: Param = param(0.0)

    class State(NamedTuple):
        x: jax.Array = state(1.0, unit="mV")

    def vector_field(self, y, drive):
        return self.State(drive - self.rate * (y.x - self.e_rev))

    def observables(self, y, drive):
        return {"leak": self.rate * (y.x - self.e_rev)}


DRAWN = {
    "network": (Decay(rate=Normal(0.5, 0.1)), (3,)),
    "cell": (Relaxing(rate=Normal(0.5, 0.1)), ()),
    "cells": (Relaxing(rate=Normal(0.5, 0.1), e_rev=[0, 1, 2]), (3,)),
    "cells by their means": (Relaxing(rate=Normal([0.4, 0.5, 0.6], 0.1)), (3,)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("simulator", "shape"), DRAWN.values(), ids=DRAWN)
def test_what_is_drawn_is_one_behaviour_of_cells_and_networks(simulator, shape):
    """`connect` draws, once; a run draws the stimulus's; both differentiable in mean and deviation."""
    simulator, stimulus = jax.tree.map(lambda x: x.astype(float), (simulator, stimuli.Constant(Normal(0.3, 0.2))))
    how = {"duration": 4 * getattr(simulator, "dt", 0.025), "key": KEY, "record": ["x"]}
    for refused in (simulate, first_state):
        with pytest.raises(ValueError, match=r"^rate is a Normal that was not drawn; connect\(key\) of a simulator"):
            refused(simulator, **(how if refused is simulate else {"key": KEY}))
    drawn = simulator.connect(KEY)
    assert drawn.rate.z.shape == shape
    assert drawn.connect(stream(KEY, "other")) is drawn
    plain, amplitude = replace(simulator, {"rate": drawn.rate.value}), 0.3 + 0.2 * _deviate(stimulus)
    whole = simulate(drawn, stimulus, **how)
    np.testing.assert_array_equal(whole.values["x"], simulate(plain, stimuli.Constant(amplitude), **how).values["x"])
    start = first_state(drawn, KEY, stimulus=stimulus)
    np.testing.assert_array_equal(simulate(drawn, stimulus, initial_state=start, **how).values["x"], whole.values["x"])

    @jax.jit
    def total(q):
        cell = replace(drawn, {"rate.mean": drawn.rate.mean + q[0], "rate.sd": 0.1 + q[1]})
        drive = replace(stimulus, {"amplitude.mean": 0.3 + q[2], "amplitude.sd": 0.2 + q[3]})
        return jnp.sum(simulate(cell, drive, **how, throw=False).values["x"] ** 2)

    slope = jax.grad(total)(jnp.zeros(4))
    for k, step in enumerate(1e-6 * jnp.eye(4)):
        assert float(slope[k]) == pytest.approx(float(total(step) - total(-step)) / 2e-6, rel=1e-6)


def _deviate(stimulus):
    return draw(stimulus, stream(KEY, "stimulus")).amplitude.z


def test_what_a_cell_with_numbers_that_are_drawn_records():
    assert list(DRAWN["cell"][0].recordables) == ["x", "current", "leak"]


def test_what_is_no_distribution():
    for said, message in (
        ({"unifrom": [0, 1]}, "unknown key 'unifrom'; did you mean 'uniform'"),
        ({"uniform": [0, 1], "normal": [0, 1]}, "a draw is either uniform"),
        ({"uniform": [0, 1, 2]}, r"uniform = \[0, 1, 2\] must be two numbers"),
        ({"normal": [0, -1]}, r"sd = -1.0 lies outside \[0, inf\)"),
        ({"uniform": [2, 1]}, "low = 2.0 must not be greater than high = 1.0"),
        ({"choice": []}, "one value or more"),
        ({"normal": ["a", 1]}, "must be two numbers"),
        ({"log_normal": [-1, 1]}, r"mean = -1.0 lies outside \(0, inf\)"),
    ):
        with pytest.raises(ValueError, match=message):
            as_distribution(said)
    with pytest.raises(ValueError, match="amplitude is a Uniform that was not drawn"):
        resolve(stimuli.Constant(Uniform(0, 1)))


def test_ours_have_paths():
    for obj in (Brunel(), HodgkinHuxley(), stimuli.Step(1.0)):
        found = parameters(obj)
        assert set(parameters(type(obj))) <= set(found)
        name = next(n for n, p in found.items() if not p.static)
        assert float(parameters(replace(obj, {name: 1.5}))[name].default) == 1.5
