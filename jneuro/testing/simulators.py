"""What simulators promise."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.devices import double_precision
from jneuro.core.random import stream
from jneuro.core.types import Array, Key
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.paths import parameters, replace
from jneuro.simulators.simulation import first_state, simulate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import Stimulus
from jneuro.testing.contract import (
    Promise,
    apart,
    as_double,
    is_finite,
    name_of,
    plain_keys,
    promise,
    reload_fault,
    same,
    slope_fault,
    tracing_fault,
    verify,
)

__all__ = ["check_simulator"]

_SIMULATOR: list[Promise] = []

_STEPS = 24


class _SimulatorCase:
    """A simulator with its connections, and short runs of it from one compiled program each."""

    def __init__(self, simulator: Any, stimulus: Stimulus | None, key: Any):
        self.given, self.stimulus, self.key = simulator, stimulus, key

    @functools.cached_property
    def simulator(self) -> Any:
        return self.given.connect(stream(self.key, "connect"))

    @property
    def is_ode(self) -> bool:
        return isinstance(self.given, ODESimulator)

    @functools.cached_property
    def dt(self) -> float:
        return float(self.simulator.default_dt if self.is_ode else self.simulator.dt)

    def scaled(self, scale: Any, simulator: Any = None) -> Any:
        """The simulator with all its numbers multiplied."""
        simulator = self.simulator if simulator is None else simulator
        return jax.tree.map(lambda x: x * scale.astype(x.dtype) if eqx.is_inexact_array(x) else x, simulator)

    def run(self, steps: int) -> Callable[..., Any]:
        """A function of a factor of all parameters, and of the state to start from."""
        names = tuple(self.simulator.recordables)

        def run(scale, start):
            return simulate(
                self.scaled(scale),
                self.stimulus,
                duration=steps * self.dt,
                key=self.key,
                record=names,
                initial_state=start,
                throw=False,
            )

        return run

    @functools.cached_property
    def half(self) -> Callable[..., Any]:
        return jax.jit(self.run(_STEPS // 2))

    @functools.cached_property
    def one(self) -> Any:
        return jnp.ones((), jnp.float32)

    @functools.cached_property
    def start(self) -> Any:
        return first_state(self.simulator, self.key, stimulus=self.stimulus)

    @functools.cached_property
    def first(self) -> Any:
        return self.half(self.one, self.start)

    @functools.cached_property
    def state(self) -> Any:
        """A state a little off the initial one, so that it is no point of rest."""
        y = self.simulator.init(stream(self.key, "init"))
        return jax.tree.map(lambda x: x * 1.013 + 0.007 if eqx.is_inexact_array(x) else x, y)


@promise(
    _SIMULATOR,
    "kind",
    "a simulator is an ODESimulator or a SteppedSimulator, a frozen pytree, of which connect(key) makes the network",
    "derive the class from jneuro.ODESimulator or jneuro.SteppedSimulator, and pass an instance",
    first=True,
)
def _(case):
    kinds = ODESimulator | SteppedSimulator
    if not isinstance(case.given, kinds):
        return f"{name_of(case.given)}, " + ("a class" if inspect.isclass(case.given) else "of another kind")
    return None if isinstance(case.simulator, kinds) else f"connect(key) gave {case.simulator!r}"


@promise(
    _SIMULATOR,
    "parameters",
    "its numbers are declared parameters, arrays that sweeps and fits reach, and keep to their bounds",
    "declare each with `tau: jn.Param = jn.param(20.0, unit='ms', bounds=jn.POSITIVE)`; counts with static=True",
    first=True,
)
def _(case):
    for field in dataclasses.fields(case.given):
        value = getattr(case.given, field.name)
        open_ended = not field.metadata.get("static") and "jneuro" not in field.metadata
        if isinstance(value, float | np.ndarray) and open_ended:
            return f"{field.name} = {value}, which no jn.param declares"
    for name, p in parameters(case.given).items():
        if p.static or not math.isfinite(p.bounds.low):
            continue
        try:
            replace(case.given, {name: p.bounds.low - 1.0})
        except ValueError:
            continue
        return f"{name} = {p.bounds.low - 1.0:g} accepted, outside {p.bounds}"
    return None


@promise(
    _SIMULATOR,
    "state",
    "init(key) makes the same finite State from the same key",
    "draw from the key that init gets; give each variable of State a value, v: jn.Array = jn.state(-65.0)",
    first=True,
)
def _(case):
    first, second = (case.simulator.init(stream(case.key, "init")) for _ in range(2))
    if not isinstance(first, tuple):
        return f"{type(first).__qualname__}, no NamedTuple"
    bad = [n for n, x in zip(first._fields, first, strict=True) if not is_finite(x)]  # pyright: ignore
    if bad:
        return f"{bad[0]} = {getattr(first, bad[0])}"
    return None if same(first, second) else "two states that differ"


@promise(
    _SIMULATOR,
    "equations",
    "vector_field (or step) returns a State like the one that it gets, with finite values",
    "return self.State(...) with one value for each variable, computed with jax.numpy",
    first=True,
)
def _(case):
    if not case.is_ode:
        y = case.simulator.init(stream(case.key, "init"))
        noise = case.simulator.draw(case.key, jnp.int32(0))
        found = case.simulator.step(y, jnp.zeros(()), noise)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            return f"step returned {type(found).__qualname__}, not a state and a dict of what can be recorded"
        y, after = y, found[0]
    else:
        y, after = case.state, case.simulator.vector_field(case.state, jnp.zeros(()))
    if type(after) is not type(y):
        return f"a {type(after).__qualname__}"
    for name, x, new in zip(y._fields, y, after, strict=True):
        if np.shape(x) != np.shape(new) and np.shape(x) != ():
            return f"{name} of shape {np.shape(new)} for one of {np.shape(x)}"
    return None if is_finite(after) else f"{after}"


@promise(
    _SIMULATOR,
    "one equation",
    "vector_field and relaxation, where both are given, are the same equation: f = rate (steady − y)",
    "leave one of them out; the other is derived",
)
def _(case):
    if not (case.is_ode and case.simulator.has_vector_field and case.simulator.has_relaxation):
        return None
    field = case.simulator.vector_field(case.state, jnp.full((), 0.5))
    return apart(field, ODESimulator.vector_field(case.simulator, case.state, jnp.full((), 0.5)))


@promise(
    _SIMULATOR,
    "recordables",
    "everything that it declares can be recorded: [time] or [time, neuron], finite, with a unit and a meaning",
    "declare with jn.state(unit=, doc=); check names that `recordables`, `observables` or `step` give",
    first=True,
)
def _(case):
    recording, steps = case.first, _STEPS // 2
    for name, about in case.simulator.recordables.items():
        if name not in recording.values:
            return f"no {name!r} in the recording"
        values = recording.values[name]
        if values.ndim < 1 or values.shape[0] != steps:
            return f"{name} of shape {values.shape} after {steps} steps"
        if not is_finite(values):
            return f"{name} that is not finite within {steps} steps of {case.dt:g} ms"
        if not (about.unit and about.doc) or about.reduce not in ("last", "sum"):
            return f"{name} declared as {about}"
    return None


@promise(
    _SIMULATOR,
    "connect",
    "connect(key) draws the same network from the same key",
    "draw from the key that connect gets",
)
def _(case):
    again = case.given.connect(stream(case.key, "connect"))
    return None if same(plain_keys(case.simulator), plain_keys(again)) else "two networks that differ"


@promise(
    _SIMULATOR,
    "pure",
    "it computes from its parameters, the state, the stimulus and the drawn noise alone",
    "draw random numbers in draw(key, step), or in a stimulus; keep no counters or globals",
)
def _(case):
    simulator, y = case.simulator, case.state
    if case.is_ode:
        return tracing_fault(lambda y, i: simulator.vector_field(y, i), y, jnp.zeros(()))
    noise = simulator.draw(case.key, jnp.int32(0))
    y = simulator.init(stream(case.key, "init"))
    return tracing_fault(lambda y, i, noise: simulator.step(y, i, noise), y, jnp.zeros(()), noise)


@promise(
    _SIMULATOR,
    "cells apart",
    "neurons of an ODESimulator do not see each other: a population computes what its cells compute",
    "write the equations for one cell, without sums or means over the array; coupled neurons are a SteppedSimulator",
)
def _(case):
    if not case.is_ode or case.simulator.cells:
        return None
    factors = jnp.asarray([0.9, 1.0, 1.1])
    many = jax.tree.map(lambda x: x * factors.astype(x.dtype), case.state)
    whole = case.simulator.vector_field(many, jnp.zeros(3))
    each = [case.simulator.vector_field(jax.tree.map(lambda x: x[i], many), jnp.zeros(())) for i in range(3)]  # noqa: B023
    return apart(whole, jax.tree.map(lambda *x: jnp.stack(x), *each))


@promise(
    _SIMULATOR,
    "reset",
    "reset returns a State from which the cell is below threshold, so that a spike ends",
    "return y._replace(v=self.v_reset), with v_reset below the threshold",
)
def _(case):
    if not (case.is_ode and case.simulator.has_reset):
        return None
    after = case.simulator.reset(case.state)
    if type(after) is not type(case.state):
        return f"a {type(after).__qualname__}"
    above = float(np.max(np.asarray(case.simulator.threshold(after))))
    return None if above < 0 else f"a threshold function of {above:.4g} after the reset"


@promise(
    _SIMULATOR,
    "noise",
    "draw(key, step) depends on the key and the absolute step, so that a run may be cut anywhere",
    "draw from jax.random.fold_in(key, step)",
)
def _(case):
    if case.is_ode or not jax.tree.leaves(case.simulator.draw(case.key, jnp.int32(0))):
        return None
    draw = jax.jit(lambda key, steps: jax.vmap(lambda s: case.simulator.draw(key, s))(steps))
    some, other = (draw(case.key, jnp.arange(a, a + 8, dtype=jnp.int32)) for a in (0, 40))
    if not same(some, draw(case.key, jnp.arange(8, dtype=jnp.int32))):
        return "other noise for the same step"
    if (found := tracing_fault(lambda k: case.simulator.draw(k, jnp.int32(3)), case.key)) is not None:
        return found
    if any(np.any(np.asarray(x)) for x in jax.tree.leaves(some)):
        if same(some, other):
            return "the same noise in steps 0 to 7 and in steps 40 to 47"
        if same(some, draw(stream(case.key, "other"), jnp.arange(8, dtype=jnp.int32))):
            return "the same noise for two keys"
    return None


@promise(
    _SIMULATOR,
    "advance",
    "advance over several steps gives what single steps give",
    "derive the fast form from step, and test it; or leave advance out",
)
def _(case):
    if case.is_ode or type(case.simulator).advance is SteppedSimulator.advance:
        return None
    # A network of spikes may be chaotic: over many steps the last bit grows.
    simulator, steps = case.simulator, min(case.simulator.block, _STEPS)
    noise = jax.vmap(lambda s: simulator.draw(case.key, s))(jnp.arange(steps, dtype=jnp.int32))
    y = case.start.y
    fast, slow = (
        eqx.filter_jit(lambda y, noise, a=a: a(simulator, y, None, noise, steps))(y, noise)
        for a in (type(simulator).advance, SteppedSimulator.advance)
    )
    shared = set(fast[1]) & set(slow[1])
    return apart([fast[0], [fast[1][n] for n in shared]], [slow[0], [slow[1][n] for n in shared]])


@promise(
    _SIMULATOR,
    "cut and continued",
    "a run that is cut and continued from its final_state equals the whole, to the last bit",
    "keep all that a step needs in the state; number steps absolutely",
)
def _(case):
    whole = jax.jit(case.run(_STEPS))(case.one, case.start)
    second = case.half(case.one, case.first.final_state)
    for name in whole.values:
        pieces = jnp.concatenate([case.first.values[name], second.values[name]])
        if not same(pieces, whole.values[name]):
            off = np.abs(np.asarray(pieces, np.float64) - np.asarray(whole.values[name], np.float64))
            first = int(np.argmax(off.reshape(len(off), -1).max(1) > 0))
            return f"{name} that differs by {off.max():.3g}, first in step {first}"
    return None


@promise(
    _SIMULATOR,
    "vmapped",
    "simulated together under jax.vmap, several give what they give one by one",
    "compute along axes counted from the end; let parameters broadcast, without float() or shape tests of values",
)
def _(case):
    scales = jnp.asarray([1.0, 1.001], jnp.float32)
    together = jax.jit(jax.vmap(case.run(_STEPS // 2), in_axes=(0, None)))(scales, case.start)
    looped = [case.first, case.half(scales[1], case.start)]
    for name in together.values:
        for i, alone in enumerate(looped):
            if (found := apart(together.values[name][i], alone.values[name])) is not None:
                return f"{name}: {found}"
    return None


@promise(
    _SIMULATOR,
    "dtype",
    "it keeps the precision of its parameters: float32 without x64, float64 with it",
    "make constants Python numbers; new arrays take their dtype from the state",
)
def _(case):
    for name, x in case.first.values.items():
        if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.float32:
            return f"{name} in {x.dtype} from float32"
    with double_precision():
        wide, y = as_double(case.simulator), as_double(case.state)
        if case.is_ode:
            found = jax.eval_shape(lambda s, y: s.vector_field(y, jnp.zeros(())), wide, y)
        else:
            noise = as_double(case.simulator.draw(case.key, jnp.int32(0)))
            y = as_double(case.simulator.init(case.key))
            found = jax.eval_shape(lambda s, y, noise: s.step(y, jnp.zeros(()), noise)[0], wide, y, noise)
    for name, x, old in zip(found._fields, found, y, strict=True):
        if any(
            a.dtype == jnp.float32
            for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(old), strict=True)
            if jnp.result_type(b) == jnp.float64
        ):
            return f"{name} in float32 from float64"
    return None


@promise(
    _SIMULATOR,
    "gradient",
    "its derivatives with respect to parameters, state and stimulus are those of its equations",
    "check custom_jvp rules, stop_gradient, and jnp.where around a division by zero; keep numbers in jn.param",
)
def _(case):
    with double_precision():
        arrays, rest = eqx.partition(as_double(case.simulator), eqx.is_inexact_array)
        noise = None
        if case.is_ode:
            y = as_double(case.state)
        else:
            y = as_double(case.simulator.init(stream(case.key, "init")))
            noise = as_double(case.simulator.draw(case.key, jnp.int32(0)))
        moving, still = eqx.partition(y, eqx.is_inexact_array)
        draws = np.random.default_rng(9).normal(size=1000)

        def total(varied):
            simulator, y = eqx.combine(varied[0], rest), eqx.combine(varied[1], still)
            if case.is_ode:
                found = list(simulator.vector_field(y, varied[2]))
                found += [simulator.threshold(y)] if simulator.has_threshold else []
                found += list(simulator.reset(y)) if simulator.has_reset else []
            else:
                found = jax.tree.leaves(simulator.step(y, varied[2], noise)[0])
            numbers = [jnp.ravel(x) for x in found if eqx.is_inexact_array(x)]
            return sum((jnp.resize(draws[i:], x.shape) @ x for i, x in enumerate(numbers)), jnp.zeros(()))

        return slope_fault(total, (arrays, moving, jnp.asarray(0.3)))


@promise(
    _SIMULATOR,
    "serialisation",
    "all its numbers are array leaves, written and read back by equinox's tree_serialise_leaves",
    "declare numbers with jn.param, which makes arrays of them",
)
def _(case):
    return reload_fault(case.simulator)


def check_simulator(
    simulator: ODESimulator | SteppedSimulator,
    *,
    stimulus: Stimulus | None = None,
    key: Key[Array, ""] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a simulator keeps the promises of its kind.

    They are: kind, parameters, state, equations, one equation, recordables, connect, pure, cells apart, reset, noise,
    advance, cut and continued, vmapped, dtype, gradient, serialisation. A run has 24 steps. Where a
    drawn count of spikes carries the gradient of its mean, as the background of `Brunel` does, differences do not see
    it: check with a rate of zero, or with `skip=("gradient",)`.

    Args:
        simulator: an instance; a network need not be connected.
        stimulus: what drives it in the runs; by default nothing.
        key: of the connections, the initial state and the noise; by default that of seed 0.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_simulator(jn.HodgkinHuxley(), stimulus=jn.stimuli.Constant(10.0))
    """
    case = _SimulatorCase(simulator, stimulus, jax.random.key(0) if key is None else key)
    verify(name_of(simulator), "simulator", _SIMULATOR, case, skip)
