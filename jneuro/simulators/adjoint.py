r"""Reverse mode through an explicit scheme, all steps of a chunk linearised at once.

Where cells are independent, only one part of the reverse pass is sequential: the recursion of the adjoint
\(\lambda_n = M_n^\top \lambda_{n+1}\) through the steps' Jacobians \(M_n\). The Jacobians' non-zero entries depend on
states that the forward pass has kept, so they are array operations over step and cell.

XLA recomputes on a CPU what it can fuse, and an optimisation barrier does not keep it from that. A concatenation does,
so there is one wherever a value has several uses.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from jneuro.core.devices import scan
from jneuro.core.types import Array, Float, Int
from jneuro.simulators.accuracy import WATCH, Place, Watch, potential, some
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import MembraneTerm, Scheme, _Explicit
from jneuro.simulators.stepping import Frames, in_blocks
from jneuro.simulators.stimuli import Stimulus

__all__ = ["TimeParallel", "time_parallel"]


class TimeParallel(Scheme):
    """Step as an explicit scheme does, and in reverse mode linearise all steps of a chunk at once.

    Values are those of `solver`; gradients are the exact ones of the discrete scheme, several times faster. There is no
    forward mode: `jax.jvp` and `jax.jacfwd` need `solver` itself.
    """

    jumps: ClassVar = False
    solver: Scheme
    """`Euler()`, `Heun()` or `RK4()`."""
    chunk: int = eqx.field(default=5, static=True)
    """Most steps linearised at once; more of them leave the cache and take longer to compile."""

    def __check_init__(self) -> None:
        """Refuse what cannot work."""
        if not isinstance(self.solver, _Explicit):
            raise ValueError(
                f"TimeParallel: {type(self.solver).__name__} is not a sequence of stages linear in the vector field, "
                "which the reverse pass is made for; take Euler(), Heun() or RK4()"
            )
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"TimeParallel: chunk = {self.chunk!r} steps must be a positive whole number")

    @property
    def limit(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of `solver`."""
        return self.solver.limit

    def order(self, terms):
        """Order of convergence."""
        return self.solver.order(terms)

    def advance(self, term, t, dt, carry):
        """One step."""
        return self.solver.advance(term, t, dt, carry)


def time_parallel(
    simulator: ODESimulator, stimulus: Stimulus | None, start: Any, solver: TimeParallel, frames: Frames
) -> tuple[Any, dict[str, Array], Watch]:
    """Warm up, then record frame by frame, in chunks of steps.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        start: the `ODEState` in which to start.
        solver: how.
        frames: what to record.

    Returns:
        The final state, the recorded values, and what was seen on the way.
    """
    chunks = _Chunks(simulator, stimulus, solver, frames.dt, start.y)
    v = lax.stop_gradient(potential(start.y))
    watch = Watch.begin(v, Place(start.y, start.step, None))
    state = _State(jnp.stack(start.y), start.step, jnp.zeros_like(some(v)), watch)
    state, values = in_blocks(chunks.advance, state, solver.chunk, frames)
    y = type(start.y)(*state.y)
    state = chunks.looked(state)
    return dataclasses.replace(start, y=y, carry=y, step=state.step), values, state.watch


class _State(NamedTuple):
    """Where a run is, how far the potential moved in the steepest step since the last look, and what was seen."""

    y: Float[Array, "state *neuron"]
    step: Int[Array, ""]
    rise: Float[Array, "*neuron"]
    watch: Watch


class _Chunks:
    """A simulator under its stimulus, advanced in chunks of steps."""

    def __init__(self, simulator, stimulus, solver, dt, y):
        self.simulator, self.stimulus, self.scheme, self.dt, self.kind = simulator, stimulus, solver.solver, dt, type(y)
        leaves, self.definition = jax.tree.flatten(simulator)
        # A parameter's derivative is summed over steps for each cell, and over cells at the end of the run.
        self.handles = [jnp.broadcast_to(x, y[0].shape) for x in leaves]
        self.leaves = [h if jnp.ndim(x) else x for x, h in zip(leaves, self.handles, strict=True)]

    def looked(self, state):
        """The state, after a look; see `Watch`."""
        simulator, drive, (y, step, rise, _) = lax.stop_gradient(
            (self.simulator, self._drive(state.step * self.dt, None), state)
        )
        y = self.kind(*y)
        watch = state.watch.looked(simulator.relaxation(y, drive)[1], potential(y), rise, Place(y, step, None))
        return state._replace(rise=jnp.zeros_like(rise), watch=watch)

    def advance(self, state, steps):
        """Take `steps` steps; also every recordable at every step, `[step, ...]`."""
        dtype, cells = state.y.dtype, state.y.shape[1:]
        number = state.step + jnp.arange(steps + 1)
        time = number.astype(dtype) * self.dt
        nodes = jnp.asarray(self.scheme.nodes, dtype)
        stages = jax.vmap(lambda node, t0: self._drive(t0 + node * self.dt, t0), (0, None))
        drive = jax.vmap(stages, (None, 0))(nodes, time[:-1]).astype(dtype)
        chunk = _chunk(self.scheme, self.dt, self.kind, self.definition)
        after = chunk(state.y, drive, self.leaves, self.handles, state.step)
        found = self.kind(*jnp.moveaxis(after, 1, 0))._asdict()
        if self.simulator.has_threshold:
            above = self.simulator.threshold(self.kind(*jnp.concatenate([state.y[None], after]).swapaxes(0, 1)))
            found["spikes"] = (above[:-1] < 0) & (above[1:] >= 0)
        current = jax.vmap(lambda t: jnp.broadcast_to(self._drive(t, None), cells))
        found["current"] = current(number[1:].astype(float) * self.dt).astype(dtype)
        v = potential(self.kind(*lax.stop_gradient(jnp.concatenate([state.y[None], after])).swapaxes(0, 1)))
        rise = jnp.maximum(state.rise, some(jnp.abs(jnp.diff(v, axis=0)).max(0)))
        state = state._replace(y=after[-1], step=state.step + steps, rise=rise)
        due = state.step % WATCH < steps
        return lax.cond(due, self.looked, lambda s: s, state), found

    def _drive(self, t, start):
        return jnp.asarray(MembraneTerm(self.simulator, self.stimulus, start, dt=self.dt).drive(t, None))


def _chunk(scheme: _Explicit, dt: float, kind: Any, definition: Any) -> Callable[..., Array]:
    """Make the function that takes a chunk's steps and returns the state after each, with a reverse mode of its own.

    Its arguments are the state, the stimulus at every stage of every step, the simulator's leaves, the same by cell as
    handles of their gradients, and the number of the first step.
    """
    size = len(kind._fields)

    def field(*z):
        return tuple(definition.unflatten(z[size + 1 :]).vector_field(kind(*z[:size]), z[size]))

    def run(y, drive, leaves, handles, number):
        del handles, number
        length = jnp.asarray(dt, y.dtype)

        def step(y, drive):
            stages: list[Array] = []
            for factor, u in zip(scheme.coupling, drive, strict=True):
                at = y if not stages else y + factor * length * stages[-1]
                k = field(*lax.optimization_barrier(at), u, *leaves)
                stages.append(lax.optimization_barrier(jnp.stack([jnp.broadcast_to(x, y.shape[1:]) for x in k])))
            for weight, k in zip(scheme.weights, stages, strict=True):
                y = y + weight * length * k
            return y, y

        return scan(step, y, drive)[1]

    def forward(y, drive, leaves, handles, number):
        varied = [drive.perturbed, *(h.perturbed for h in handles)]
        # What is differentiated: as the keys of a tree, these numbers of `field`'s arguments remain static.
        inputs = dict.fromkeys([*range(size), *(size + i for i, seen in enumerate(varied) if seen)])
        y, drive, number, *leaves = (x.value for x in (y, drive, number, *leaves))
        after = run(y, drive, leaves, None, number)
        return after, (y, after, drive, leaves, number, inputs)

    def backward(kept, bar):
        *kept, number, inputs = kept

        def pull(*kept):
            return _pull(scheme, dt, field, inputs, *kept)

        def zeros(*kept):
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(pull, *kept))

        # Always true; but XLA does not know, and makes buffers of what else every kernel would slice out of the whole
        # run's arrays, which keeps it from being vectorised.
        y, drive, handles = lax.cond(number >= 0, pull, zeros, bar, *kept)
        return y, drive, [None] * len(handles), handles, None

    chunk = jax.custom_vjp(run)
    chunk.defvjp(forward, backward, symbolic_zeros=True)
    return chunk


def _pull(scheme, dt, field, inputs, bar, y, after, drive, leaves):
    """The cotangents of a chunk's start, its stimulus, and its parameters by cell."""
    before = jnp.concatenate([y[None], after[:-1]])
    count, size = before.shape[:2]
    linear, places = _linearised(field, inputs, y, drive, leaves)
    rest = [p for p in places if 0 < p[0] != p[1] and 0 < p[1] < size]
    rows = [(0, i) for i in range(size)] + [(i, i) for i in range(1, size)] + [(j, 0) for j in range(1, size)] + rest

    entries, jacobians, k = [], [], None
    for s, factor in enumerate(scheme.coupling):
        at = before if k is None else before + factor * dt * k
        value, found = linear(*jnp.stack([at[:, i] for i in range(size)]), drive[:, s], *leaves)
        zero = jnp.zeros_like(value[0])
        k = jnp.stack(value, 1)
        entries.append(found)
        jacobians.append(jnp.concatenate([found.get(p, zero)[:, None] for p in rows], 1))

    adjoint = jnp.zeros_like(y)
    stages = [[adjoint] * count for _ in jacobians]
    for n in reversed(range(count)):
        total = later = adjoint + bar[n]
        moved = None
        for s in reversed(range(len(jacobians))):
            k = dt * scheme.weights[s] * later
            k = k if moved is None else k + dt * scheme.coupling[s + 1] * moved
            stages[s][n] = k
            first, others = _transposed(jacobians[s][n], k, rest)
            if s:
                moved = jnp.concatenate([first, others])
                total = total + moved
            else:
                adjoint = jnp.concatenate([total[:1] + first, total[1:] + others])

    sums = {i: jnp.zeros_like(y[0]) for i in inputs if i > size}
    driven = [jnp.zeros_like(after[:, 0])] * len(jacobians)
    for s, found in enumerate(entries):
        heard = {j: jnp.stack([k[j] for k in stages[s]]) for j in {j for j, i in found if i >= size}}
        for j, i in found:
            if i == size:
                driven[s] = driven[s] + found[j, i] * heard[j]
            elif i > size:
                sums[i] = sums[i] + (found[j, i] * heard[j]).sum(0)
    handles = [sums.get(size + 1 + i) for i in range(len(leaves))]
    if size not in inputs:
        return adjoint, None, handles
    driven = jnp.stack(driven, 1)
    return adjoint, driven.reshape(*drive.shape, -1).sum(-1) if drive.ndim < driven.ndim else driven, handles


def _transposed(entries, k, rest):
    """The transposed Jacobian applied to `k`: its first row and the others, to be joined by the caller."""
    size = len(k)
    row, diagonal, column = entries[:size], entries[size : 2 * size - 1], entries[2 * size - 1 : 3 * size - 2]
    first = row[:1] * k[:1]
    for j in range(1, size):
        first = first + column[j - 1 : j] * k[j : j + 1]
    others = row[1:] * k[:1] + diagonal * k[1:]
    number = np.arange(1, size).reshape(-1, *(1,) * (k.ndim - 1))
    for e, (j, i) in enumerate(rest, 3 * size - 2):
        others = others + jnp.where(number == i, entries[e : e + 1] * k[j : j + 1], 0)
    return first, others


def _linearised(field, inputs, y, drive, leaves):
    """The field and its partial derivatives by the inputs, over step and cell; and which of them are not zero.

    One cell's scalars are differentiated, so that no cell can depend on another.
    """
    scalars = [jax.ShapeDtypeStruct((), x.dtype) for x in (*y, drive, *leaves)]
    jaxpr = jax.make_jaxpr(field)(*scalars)

    def one(*z):
        seeds = [(x, {i: jnp.ones_like(x)} if i in inputs else {}) for i, x in enumerate(z)]
        outputs = _propagated(jaxpr, seeds)
        values = [jnp.asarray(value, y.dtype) for value, _ in outputs]
        return values, {
            (j, i): t.astype(y.dtype) for j, (_, tangents) in enumerate(outputs) for i, t in tangents.items()
        }

    places = sorted(jax.eval_shape(one, *scalars)[1])
    linear, states = one, [0] * len(y)
    if y.ndim > 1:
        linear = jax.vmap(one, [*states, 0 if drive.ndim > 2 else None, *(0 if x.ndim else None for x in leaves)])
    return jax.vmap(linear, [*states, 0, *(None for _ in leaves)]), places


def _propagated(jaxpr, arguments):
    """Evaluate a jaxpr of pairs: a value, and its derivatives by those inputs on which it depends."""
    known = {v: (x, {}) for v, x in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True)}
    known |= dict(zip(jaxpr.jaxpr.invars, arguments, strict=True))

    def read(v):
        return (v.val, {}) if isinstance(v, Literal) else known[v]

    for equation in jaxpr.jaxpr.eqns:
        given, name = [read(v) for v in equation.invars], equation.primitive.name
        if name == "jit":
            made = _propagated(equation.params["jaxpr"], given)
        elif name == "optimization_barrier":
            made = given
        elif name == "div":
            made = [_quotient(*given)]
        else:
            made = _applied(equation, given)
        known |= dict(zip(equation.outvars, made, strict=True))
    return [read(v) for v in jaxpr.jaxpr.outvars]


def _quotient(over, under):
    """A quotient and its derivatives, for one division."""
    (x, dx), (y, dy) = over, under
    inverse = 1 / y
    value = x * inverse
    up = {i: t * inverse for i, t in dx.items()}
    down = {i: -t * value * inverse for i, t in dy.items()}
    return value, up | {i: up[i] + t if i in up else t for i, t in down.items()}


def _applied(equation, given):
    """One equation of a jaxpr by JAX's own rule, in each direction by itself."""
    values = [x for x, _ in given]
    options = equation.primitive.get_bind_params(equation.params)

    def apply(varied):
        out = equation.primitive.bind(*(varied.get(n, x) for n, x in enumerate(values)), **options)
        return out if equation.primitive.multiple_results else [out]

    made = [(x, {}) for x in apply({})]
    for i in sorted({i for _, tangents in given for i in tangents}):
        tangents = {n: t[i] for n, (_, t) in enumerate(given) if i in t}
        results = jax.jvp(apply, [{n: values[n] for n in tangents}], [tangents])[1]
        for (x, found), t in zip(made, results, strict=True):
            if jnp.issubdtype(x.dtype, jnp.inexact):
                found[i] = t
    return made
