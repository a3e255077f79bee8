"""From a simulator to a recording."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro._types import Array, Bool, Key, PyTree
from jneuro.prng import require_key, stream
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Recordable, SteppedSimulator
from jneuro.simulators.stimuli import Stimulus

__all__ = ["SimulationError", "first_state", "simulate"]

_NOT_FINITE = (
    "the simulation left the finite numbers: a parameter, a stimulus or the time step is too large for the scheme; "
    "simulate(..., throw=False) returns the recording with its `ok` flag"
)


class SimulationError(FloatingPointError):
    """A simulated value is not finite."""


def simulate(
    simulator: SteppedSimulator,
    stimulus: Stimulus | None = None,
    *,
    duration: float,
    key: Key[Array, ""],
    dt: float | None = None,
    record: Sequence[str] | None = None,
    record_every: int = 1,
    warmup: float = 0.0,
    initial_state: PyTree | None = None,
    solver: Any = None,
    checkpoint: int | None = None,
    throw: bool = True,
) -> Recording:
    """Simulate, and record on the way; pure, jittable, and batched by the caller's `jax.vmap`.

    Args:
        simulator: what to simulate; a network must be connected (`simulator.connect(key)`).
        stimulus: what drives it, in the simulator's unit.
        duration: recorded time [ms].
        key: random key of the run. Randomness is drawn by absolute step: a run cut into pieces (`initial_state`) and
            continued with the same key equals the whole.

    Other Args:
        dt: time step [ms]. Stepped simulators own theirs and take no other.
        record: names of what to record; all of `simulator.recordables` by default.
        record_every: steps in one recorded frame. States are sampled at its end, spikes are summed over it.
        warmup: time simulated first and not recorded [ms].
        initial_state: a state to start from, such as the `final_state` of a recording.
        solver: how to integrate an ODE; stepped simulators bring their own scheme.
        checkpoint: in reverse mode, keep states only every so many frames and recompute between them; bounds memory.
        throw: raise if a value is not finite; otherwise the recording's `ok` says so.

    Returns:
        The recording, with the final state.

    Raises:
        ValueError: for a bad argument, before anything is compiled.
        SimulationError: if a value is not finite and `throw` is set; inside `jit` or `vmap`, equinox's run-time error.
    """
    require_key(key)
    names = _check(simulator, dt, solver, record, record_every, checkpoint)
    every = simulator.step_count(duration, "duration")
    if every < 1 or every % record_every:
        raise ValueError(
            f"duration = {duration} ms is {every} steps, "
            f"which must be a positive multiple of record_every = {record_every}"
        )
    before = simulator.step_count(warmup, "warmup")
    if before < 0:
        raise ValueError(f"warmup = {warmup} ms must not be negative")
    recording = _simulate(
        simulator,
        stimulus,
        key,
        initial_state,
        names=names,
        frames=every // record_every,
        record_every=record_every,
        warmup=before,
        checkpoint=checkpoint,
    )
    if not throw:
        return recording
    if isinstance(recording.ok, Tracer):
        return eqx.error_if(recording, ~recording.ok, _NOT_FINITE)
    if not recording.ok:
        raise SimulationError(f"{_where(recording)}: {_NOT_FINITE}")
    return recording


def first_state(simulator: SteppedSimulator, key: Key[Array, ""]) -> PyTree:
    """Draw the state in which `simulate` starts a run.

    Args:
        simulator: what will be simulated.
        key: the run's key.

    Returns:
        The state.
    """
    return simulator.init(stream(key, "init"))


def _check(simulator, dt, solver, record, record_every, checkpoint) -> tuple[str, ...]:
    """Refuse what cannot be simulated; return the names to record."""
    name = type(simulator).__name__
    if dt is not None and dt != simulator.dt:
        raise ValueError(f"dt = {dt} ms, but {name} steps by its own dt = {simulator.dt} ms; build it with dt={dt}")
    if solver is not None:
        raise ValueError(f"{name} brings its own scheme and takes no solver")
    for argument, value in {"record_every": record_every, "checkpoint": checkpoint}.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{argument} = {value!r} must be a positive whole number")
    names = tuple(simulator.recordables) if record is None else tuple(record)
    if unknown := [n for n in names if n not in simulator.recordables]:
        raise ValueError(f"{name} cannot record {unknown[0]!r}; it records {', '.join(simulator.recordables)}")
    return names


def _where(recording: Recording) -> str:
    """Name the first value that is not finite."""
    for name, values in recording.values.items():
        bad = ~np.isfinite(np.asarray(values, np.float64))
        if bad.any():
            frame, *cell = (int(i[0]) for i in np.nonzero(bad))
            at = f" of cell {cell[0]}" if cell else ""
            return f"{name}{at} at t = {recording.time[frame]:g} ms"
    return "final state"


@eqx.filter_jit
def _simulate(simulator, stimulus, key, initial_state, *, names, frames, record_every, warmup, checkpoint) -> Recording:
    """Warm up, then record group by group of frames."""
    noise = stream(key, "noise")
    state = first_state(simulator, key) if initial_state is None else initial_state
    advance = _driven(simulator, stimulus, noise)
    longest = simulator.longest_block
    if warmup:
        state, _ = _repeat(lambda s, _: (advance(s, longest)[0], None), state, warmup // longest, None)
        state = advance(state, warmup % longest)[0] if warmup % longest else state
    first_step = state.step

    if record_every <= longest:
        group, block = min(longest // record_every, frames), record_every
        per_frame = 1
    else:
        group, block = 1, max(n for n in range(1, longest + 1) if record_every % n == 0)
        per_frame = record_every // block
    about = {name: simulator.recordables[name] for name in names}

    def one_group(state, size):
        if per_frame > 1:
            return _long_frame(advance, about, state, block, per_frame)
        state, seen = advance(state, size * block)
        return state, {n: _reduce(seen[n].reshape(size, block, *seen[n].shape[1:]), about[n], 1, block) for n in names}

    whole, rest = divmod(frames, group)
    segment = None if checkpoint is None else max(checkpoint // group, 1)
    state, values = _repeat(lambda s, _: one_group(s, group), state, whole, segment)
    values = {n: v.reshape(-1, *v.shape[2:]) for n, v in values.items()}
    if rest:
        state, tail = one_group(state, rest)
        values = {n: jnp.concatenate([v, tail[n]]) for n, v in values.items()}
    return Recording(
        values=values,
        ok=_finite((values, state)),
        first_step=first_step,
        final_state=state,
        step=simulator.dt,
        record_every=record_every,
        frames=frames,
        unit_pairs=tuple((n, r.unit) for n, r in about.items()),
    )


def _driven(simulator: SteppedSimulator, stimulus: Stimulus | None, key) -> Callable:
    """Bind the stimulus, evaluated at the beginning of every step, to `advance`."""

    def advance(state, steps):
        drive = None
        if stimulus is not None:
            time = (state.step + jnp.arange(steps)) * simulator.dt
            drive = jax.vmap(stimulus)(time)
            drive = drive.reshape(steps, -1)
        return simulator.advance(state, drive, key, steps)

    return advance


def _long_frame(advance, about: dict[str, Recordable], state, block: int, blocks: int):
    """Record one frame that is longer than a block."""

    def body(carry, _):
        state, sums = carry
        state, seen = advance(state, block)
        new = {n: _reduce(seen[n], r, 0, block * blocks) for n, r in about.items()}
        return (state, {n: new[n] + sums[n] if about[n].reduce == "sum" else new[n] for n in new}), None

    shapes = jax.eval_shape(lambda s: advance(s, block)[1], state)
    start = {
        n: jnp.zeros(shapes[n].shape[1:], _frame_dtype(shapes[n].dtype, r, block * blocks)) for n, r in about.items()
    }
    (state, values), _ = lax.scan(body, (state, start), None, length=blocks)
    return state, {n: v[None] for n, v in values.items()}


def _frame_dtype(dtype, about: Recordable, steps: int):
    """Counts of boolean events are kept as the smallest integers that hold them; everything else keeps its type."""
    return np.min_scalar_type(steps) if about.reduce == "sum" and dtype == jnp.bool_ else dtype


def _reduce(values: Array, about: Recordable, axis: int, steps: int) -> Array:
    """Make the steps of a frame one value."""
    if about.reduce == "last":
        return lax.index_in_dim(values, values.shape[axis] - 1, axis, keepdims=False)
    return values.sum(axis, dtype=_frame_dtype(values.dtype, about, steps))


def _repeat(body, state, times: int, segment: int | None):
    """Scan, in checkpointed segments where asked."""
    if segment is None or segment >= times:
        return lax.scan(body, state, None, length=times)
    whole, rest = divmod(times, segment)
    outer = jax.checkpoint(lambda s, _: lax.scan(body, s, None, length=segment))
    state, values = lax.scan(outer, state, None, length=whole)
    values = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)
    if rest:
        state, tail = lax.scan(body, state, None, length=rest)
        values = jax.tree.map(lambda v, t: jnp.concatenate([v, t]), values, tail)
    return state, values


def _finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point leaf is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
