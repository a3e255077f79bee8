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
    Contract,
    Promise,
    apart,
    as_double,
    is_finite,
    name_of,
    plain_keys,
    prerequisite,
    reload_fault,
    same,
    slope_fault,
    tracing_fault,
)

__all__ = ["check_simulator"]

_STEPS = 24


class _SimulatorContract(Contract):
    """A simulator with its connections, and short runs of it from one compiled program each."""

    noun = "simulator"

    def __init__(self, simulator: Any, stimulus: Stimulus | None, key: Any):
        self.given, self.stimulus, self.key = simulator, stimulus, key
        self.is_ode = isinstance(simulator, ODESimulator)

    @functools.cached_property
    def simulator(self) -> Any:
        return self.given.connect(stream(self.key, "connect"))

    @functools.cached_property
    def dt(self) -> float:
        return float(self.simulator.default_dt if self.is_ode else self.simulator.dt)

    def run(self, steps: int) -> Callable[..., Any]:
        """A function of a factor of all parameters, and of the state to start from."""

        def run(scale, start):
            scaled = lambda x: x * scale.astype(x.dtype) if eqx.is_inexact_array(x) else x  # noqa: E731
            simulator, names = jax.tree.map(scaled, self.simulator), tuple(self.simulator.recordables)
            how = {"key": self.key, "record": names, "initial_state": start, "throw": False}
            return simulate(simulator, self.stimulus, duration=steps * self.dt, **how)

        return run

    @functools.cached_property
    def half(self) -> Callable[..., Any]:
        return jax.jit(self.run(_STEPS // 2))

    @functools.cached_property
    def start(self) -> Any:
        return first_state(self.simulator, self.key, stimulus=self.stimulus)

    @functools.cached_property
    def first_half(self) -> Any:
        return self.half(jnp.ones((), jnp.float32), self.start)

    @functools.cached_property
    def y(self) -> Any:
        """A state: of an ODE a little off the initial one, so that it is no point of rest."""
        y = self.simulator.init(stream(self.key, "init"))
        return jax.tree.map(lambda x: x * 1.013 + 0.007 if self.is_ode and eqx.is_inexact_array(x) else x, y)

    @functools.cached_property
    def drawn(self) -> Any:
        return None if self.is_ode else self.simulator.draw(self.key, jnp.int32(0))

    def change(self, simulator: Any, y: Any, drive: Any, noise: Any) -> Any:
        """What the equations give: the derivatives, or the state after a step and what can be recorded."""
        return (simulator.vector_field(y, drive), {}) if self.is_ode else simulator.step(y, drive, noise)

    @prerequisite
    def kind(self):
        """A simulator is an ODESimulator or a SteppedSimulator, a frozen pytree; connect(key) makes the network of it.

        Remedy: derive the class from jneuro.ODESimulator or jneuro.SteppedSimulator, and pass an instance.
        """
        kinds = ODESimulator | SteppedSimulator
        if not isinstance(self.given, kinds):
            return f"{name_of(self.given)}, " + ("a class" if inspect.isclass(self.given) else "of another kind")
        return None if isinstance(self.simulator, kinds) else f"connect(key) gave {self.simulator!r}"

    @prerequisite
    def parameters(self):
        """Its numbers are declared parameters, arrays that sweeps and fits reach, and keep to their bounds.

        Remedy: declare each with `tau: jn.Param = jn.param(20.0, unit='ms', bounds=jn.POSITIVE)`; counts with
        static=True.
        """
        for field in dataclasses.fields(self.given):
            value = getattr(self.given, field.name)
            open_ended = not field.metadata.get("static") and "jneuro" not in field.metadata
            if isinstance(value, float | np.ndarray) and open_ended:
                return f"{field.name} = {value}, which no jn.param declares"
        for name, p in parameters(self.given).items():
            if p.static or not math.isfinite(p.bounds.low):
                continue
            try:
                replace(self.given, {name: p.bounds.low - 1.0})
            except ValueError:
                continue
            return f"{name} = {p.bounds.low - 1.0:g} accepted, outside {p.bounds}"
        return None

    @prerequisite
    def state(self):
        """init(key) makes the same finite State from the same key.

        Remedy: draw from the key that init gets; give each variable of State a value, v: jn.Array = jn.state(-65.0).
        """
        first, second = (self.simulator.init(stream(self.key, "init")) for _ in range(2))
        if not isinstance(first, tuple):
            return f"{type(first).__qualname__}, no NamedTuple"
        bad = [n for n, x in zip(first._fields, first, strict=True) if not is_finite(x)]  # pyright: ignore
        if bad:
            return f"{bad[0]} = {getattr(first, bad[0])}"
        return None if same(first, second) else "two states that differ"

    @prerequisite
    def equations(self):
        """vector_field (or step) returns a State like the one that it gets, with finite values.

        Remedy: return self.State(...) with one value for each variable, computed with jax.numpy.
        """
        found = self.change(self.simulator, self.y, jnp.zeros(()), self.drawn)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            return f"step returned {type(found).__qualname__}, not a state and a dict of what can be recorded"
        y, after = self.y, found[0]
        if type(after) is not type(y):
            return f"a {type(after).__qualname__}"
        for name, x, new in zip(y._fields, y, after, strict=True):
            if np.shape(x) != np.shape(new) and np.shape(x) != ():
                return f"{name} of shape {np.shape(new)} for one of {np.shape(x)}"
        return None if is_finite(after) else f"{after}"

    @Promise
    def one_equation(self):
        """vector_field and relaxation, where both are given, are the same equation: f = rate (steady − y).

        Remedy: leave one of them out; the other is derived.
        """
        if not (self.is_ode and self.simulator.has_vector_field and self.simulator.has_relaxation):
            return None
        drive = jnp.full((), 0.5)
        derived = ODESimulator.vector_field(self.simulator, self.y, drive)
        return apart(self.simulator.vector_field(self.y, drive), derived)

    @prerequisite
    def recordables(self):
        """Everything that it declares can be recorded: [time] or [time, neuron], finite, with a unit and a meaning.

        Remedy: declare with jn.state(unit=, doc=); check names that `recordables`, `observables` or `step` give.
        """
        recording, steps = self.first_half, _STEPS // 2
        for name, about in self.simulator.recordables.items():
            if name not in recording.values:
                return f"no {name!r} in the recording"
            values = recording.values[name]
            if values.ndim < 1 or values.shape[0] != steps:
                return f"{name} of shape {values.shape} after {steps} steps"
            if not is_finite(values):
                return f"{name} that is not finite within {steps} steps of {self.dt:g} ms"
            if not (about.unit and about.doc) or about.reduce not in ("last", "sum"):
                return f"{name} declared as {about}"
        return None

    @Promise
    def connect(self):
        """connect(key) draws the same network from the same key.

        Remedy: draw from the key that connect gets.
        """
        again = self.given.connect(stream(self.key, "connect"))
        return None if same(plain_keys(self.simulator), plain_keys(again)) else "two networks that differ"

    @Promise
    def pure(self):
        """It computes from its parameters, the state, the stimulus and the drawn noise alone.

        Remedy: draw random numbers in draw(key, step), or in a stimulus; keep no counters or globals.
        """
        return tracing_fault(functools.partial(self.change, self.simulator), self.y, jnp.zeros(()), self.drawn)

    @Promise
    def cells_apart(self):
        """Neurons of an ODESimulator do not see each other: a population computes what its cells compute.

        Remedy: write the equations for one cell, without sums or means over the array; coupled neurons are a
        SteppedSimulator.
        """
        if not self.is_ode or self.simulator.cells:
            return None
        many = jax.tree.map(lambda x: x * jnp.asarray([0.9, 1.0, 1.1], x.dtype), self.y)
        field = self.simulator.vector_field
        each = [field(jax.tree.map(lambda x, i=i: x[i], many), jnp.zeros(())) for i in range(3)]
        return apart(field(many, jnp.zeros(3)), jax.tree.map(lambda *x: jnp.stack(x), *each))

    @Promise
    def reset(self):
        """reset returns a State from which the cell is below threshold, so that a spike ends.

        Remedy: return y._replace(v=self.v_reset), with v_reset below the threshold.
        """
        if not (self.is_ode and self.simulator.has_reset):
            return None
        after = self.simulator.reset(self.y)
        if type(after) is not type(self.y):
            return f"a {type(after).__qualname__}"
        above = float(np.max(np.asarray(self.simulator.threshold(after))))
        return None if above < 0 else f"a threshold function of {above:.4g} after the reset"

    @Promise
    def noise(self):
        """draw(key, step) depends on the key and the absolute step, so that a run may be cut anywhere.

        Remedy: draw from jax.random.fold_in(key, step).
        """
        if not jax.tree.leaves(self.drawn):
            return None
        draw = jax.jit(lambda key, steps: jax.vmap(lambda s: self.simulator.draw(key, s))(steps))
        some, other = (draw(self.key, jnp.arange(a, a + 8, dtype=jnp.int32)) for a in (0, 40))
        if not same(some, draw(self.key, jnp.arange(8, dtype=jnp.int32))):
            return "other noise for the same step"
        if (found := tracing_fault(lambda k: self.simulator.draw(k, jnp.int32(3)), self.key)) is not None:
            return found
        if any(np.any(np.asarray(x)) for x in jax.tree.leaves(some)):
            if same(some, other):
                return "the same noise in steps 0 to 7 and in steps 40 to 47"
            if same(some, draw(stream(self.key, "other"), jnp.arange(8, dtype=jnp.int32))):
                return "the same noise for two keys"
        return None

    @Promise
    def advance(self):
        """advance over several steps gives what single steps give.

        Remedy: derive the fast form from step, and test it; or leave advance out.
        """
        if self.is_ode or type(self.simulator).advance is SteppedSimulator.advance:
            return None
        # A network of spikes may be chaotic: over many steps the last bit grows.
        simulator, steps = self.simulator, min(self.simulator.block, _STEPS)
        noise = jax.vmap(lambda s: simulator.draw(self.key, s))(jnp.arange(steps, dtype=jnp.int32))
        fast, slow = (
            eqx.filter_jit(lambda y, noise, a=a: a(simulator, y, None, noise, steps))(self.start.y, noise)
            for a in (type(simulator).advance, SteppedSimulator.advance)
        )
        shared = set(fast[1]) & set(slow[1])
        return apart([fast[0], [fast[1][n] for n in shared]], [slow[0], [slow[1][n] for n in shared]])

    @Promise
    def cut_and_continued(self):
        """A run that is cut and continued from its final_state equals the whole, to the last bit.

        Remedy: keep all that a step needs in the state; number steps absolutely.
        """
        whole = jax.jit(self.run(_STEPS))(jnp.ones((), jnp.float32), self.start)
        second = self.half(jnp.ones((), jnp.float32), self.first_half.final_state)
        for name in whole.values:
            pieces = jnp.concatenate([self.first_half.values[name], second.values[name]])
            if not same(pieces, whole.values[name]):
                off = np.abs(np.asarray(pieces, np.float64) - np.asarray(whole.values[name], np.float64))
                first = int(np.argmax(off.reshape(len(off), -1).max(1) > 0))
                return f"{name} that differs by {off.max():.3g}, first in step {first}"
        return None

    @Promise
    def vmapped(self):
        """Simulated together under jax.vmap, several give what they give one by one.

        Remedy: compute along axes counted from the end; let parameters broadcast, without float() or shape tests of
        values.
        """
        scales = jnp.asarray([1.0, 1.001], jnp.float32)
        together = jax.jit(jax.vmap(self.run(_STEPS // 2), in_axes=(0, None)))(scales, self.start)
        looped = [self.first_half, self.half(scales[1], self.start)]
        for name in together.values:
            for i, alone in enumerate(looped):
                if (found := apart(together.values[name][i], alone.values[name])) is not None:
                    return f"{name}: {found}"
        return None

    @Promise
    def dtype(self):
        """It keeps the precision of its parameters: float32 without x64, float64 with it.

        Remedy: make constants Python numbers; new arrays take their dtype from the state.
        """
        for name, x in self.first_half.values.items():
            if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.float32:
                return f"{name} in {x.dtype} from float32"
        with double_precision():
            wide = as_double((self.simulator, self.y, self.drawn))
            found = jax.eval_shape(lambda s, y, noise: self.change(s, y, jnp.zeros(()), noise)[0], *wide)
        for name, x, old in zip(found._fields, found, wide[1], strict=True):
            pairs = zip(jax.tree.leaves(x), jax.tree.leaves(old), strict=True)
            if any(a.dtype == jnp.float32 and jnp.result_type(b) == jnp.float64 for a, b in pairs):
                return f"{name} in float32 from float64"
        return None

    @Promise
    def gradient(self):
        """Its derivatives with respect to parameters, state and stimulus are those of its equations.

        Remedy: check custom_jvp rules, stop_gradient, and jnp.where around a division by zero; keep numbers in
        jn.param.
        """
        with double_precision():
            simulator, y, noise = as_double((self.simulator, self.y, self.drawn))
            arrays, rest = eqx.partition(simulator, eqx.is_inexact_array)
            moving, still = eqx.partition(y, eqx.is_inexact_array)
            draws = np.random.default_rng(9).normal(size=1000)

            def total(varied):
                simulator, y = eqx.combine(varied[0], rest), eqx.combine(varied[1], still)
                found = [self.change(simulator, y, varied[2], noise)[0]]
                if self.is_ode:
                    found += [simulator.threshold(y)] if simulator.has_threshold else []
                    found += [simulator.reset(y)] if simulator.has_reset else []
                numbers = [jnp.ravel(x) for x in jax.tree.leaves(found) if eqx.is_inexact_array(x)]
                return sum((jnp.resize(draws[i:], x.shape) @ x for i, x in enumerate(numbers)), jnp.zeros(()))

            return slope_fault(total, (arrays, moving, jnp.asarray(0.3)))

    @Promise
    def serialisation(self):
        """All its numbers are array leaves, written and read back by equinox's tree_serialise_leaves.

        Remedy: declare numbers with jn.param, which makes arrays of them.
        """
        return reload_fault(self.simulator)


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
    contract = _SimulatorContract(simulator, stimulus, jax.random.key(0) if key is None else key)
    contract.verify(name_of(simulator), skip)
