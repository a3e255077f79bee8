"""From a stepped simulator to a recording: blocks of steps, grouped into frames."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.devices import route, scan
from jneuro.core.types import Array, Bool, Key, PyTree
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Recordable
from jneuro.simulators.stepped import SteppedSimulator, SteppedState, take_steps
from jneuro.simulators.stimuli import Stimulus

__all__ = ["advance_blocks", "finite", "repeat"]


def advance_blocks(
    simulator: SteppedSimulator,
    stimulus: Stimulus | None,
    key: Key[Array, ""],
    state: SteppedState,
    *,
    names: tuple[str, ...],
    frames: int,
    record_every: int,
    warmup: int,
    checkpoint: int | None,
) -> Recording:
    """Warm up, then record group by group of frames.

    Args:
        simulator: what to simulate.
        stimulus: what drives it.
        key: key of the run's noise.
        state: where to start.
        names: what to record.
        frames: how many frames.
        record_every: steps in a frame.
        warmup: steps before the first frame.
        checkpoint: frames between kept states in reverse mode.

    Returns:
        The recording.
    """
    advance = _driven(simulator, stimulus, key, state.step, warmup + frames * record_every)
    longest = simulator.block
    if not isinstance(longest, int) or longest < 1:
        raise ValueError(f"{type(simulator).__name__}: block = {longest!r} must be a positive whole number of steps")
    if warmup:
        state, _ = repeat(lambda s, _: (advance(s, longest)[0], None), state, warmup // longest, None)
        state = advance(state, warmup % longest)[0] if warmup % longest else state
    first_step = state.step
    known = simulator.recordables
    about = {name: known[name] for name in names}
    state, values = _record(advance, about, state, longest, frames, record_every, checkpoint)
    return Recording(
        values=values,
        ok=finite((values, state)),
        first_step=first_step,
        final_state=state,
        step=simulator.dt,
        record_every=record_every,
        frames=frames,
        unit_pairs=tuple((n, r.unit) for n, r in about.items()),
    )


def _record(advance, about: dict[str, Recordable], state, longest: int, frames: int, steps: int, checkpoint):
    """Record all frames: several short ones in a block, or several blocks in a long one."""
    group = min(max(longest // steps, 1), frames)

    def one_group(state, size):
        if steps > longest:
            return _long_frame(advance, about, state, longest, steps)
        state, seen = advance(state, size * steps)
        return state, {
            n: _reduce(seen[n].reshape(size, steps, *seen[n].shape[1:]), r, 1, steps) for n, r in about.items()
        }

    whole, rest = divmod(frames, group)
    segment = None if checkpoint is None else max(checkpoint // group, 1)
    state, values = repeat(lambda s, _: one_group(s, group), state, whole, segment)
    values = {n: v.reshape(-1, *v.shape[2:]) for n, v in values.items()}
    if rest:
        state, tail = one_group(state, rest)
        values = {n: jnp.concatenate([v, tail[n]]) for n, v in values.items()}
    return state, values


def _driven(simulator: SteppedSimulator, stimulus: Stimulus | None, key, first, total: int) -> Callable:
    """Bind the stimulus, evaluated at the beginning of every step, and the noise to `advance`.

    The noise is drawn block by block; on a device that cannot draw within loops, of the whole run at once.
    """
    drawn = None
    if route() == "metal":
        # At least a block, because a loop over blocks is traced even where it makes no turn.
        every = first + jnp.arange(max(total, simulator.block), dtype=jnp.int32)
        drawn = jax.vmap(lambda step: simulator.draw(key, step))(every)
    if stimulus is not None:
        size, neurons = jax.eval_shape(stimulus, jnp.zeros(())).size, simulator.neurons
        if size not in (1, neurons):
            raise ValueError(
                f"the stimulus has {size} values; {type(simulator).__name__} takes one for all, or one for each of its "
                f"{neurons} neurons"
            )

    def advance(state, steps):
        drive = None
        if stimulus is not None:
            time = (state.step + jnp.arange(steps)) * simulator.dt
            drive = jax.vmap(stimulus)(time)
            drive = drive.reshape(steps, -1)
        if drawn is None:
            return take_steps(simulator, state, drive, key, steps)
        noise = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, state.step - first, steps), drawn)
        y, seen = simulator.advance(state.y, drive, noise, steps)
        return SteppedState(y, state.step + steps), seen

    return advance


def _long_frame(advance, about: dict[str, Recordable], state, longest: int, steps: int):
    """Record one frame that is longer than a block: whole blocks, then what is left."""

    def block(carry, size):
        state, sums = carry
        state, seen = advance(state, size)
        new = {n: _reduce(seen[n], r, 0, steps) for n, r in about.items()}
        return state, {n: new[n] + sums[n] if r.reduce == "sum" else new[n] for n, r in about.items()}

    shapes = jax.eval_shape(lambda s: advance(s, 1)[1], state)
    zeros = {n: jnp.zeros(shapes[n].shape[1:], _frame_dtype(shapes[n].dtype, r, steps)) for n, r in about.items()}
    whole, rest = divmod(steps, longest)
    carry, _ = scan(lambda c, _: (block(c, longest), None), (state, zeros), None, length=whole, unroll=1)
    state, values = block(carry, rest) if rest else carry
    return state, {n: v[None] for n, v in values.items()}


def _frame_dtype(dtype, about: Recordable, steps: int):
    """Counts of boolean events are kept as the smallest integers that hold them; everything else keeps its type."""
    return np.min_scalar_type(steps) if about.reduce == "sum" and dtype == jnp.bool_ else dtype


def _reduce(values: Array, about: Recordable, axis: int, steps: int) -> Array:
    """Make the steps of a frame one value."""
    if about.reduce == "last":
        return lax.index_in_dim(values, values.shape[axis] - 1, axis, keepdims=False)
    return values.sum(axis, dtype=_frame_dtype(values.dtype, about, steps))


def repeat(body: Callable, state: PyTree, times: int, segment: int | None) -> tuple[PyTree, PyTree]:
    """Scan without input, in checkpointed segments where asked.

    Args:
        body: as in `lax.scan`, and itself a loop.
        state: what is carried.
        times: how often.
        segment: calls between two states that reverse mode keeps; None keeps all.

    Returns:
        As `lax.scan`.
    """
    if segment is None or segment >= times:
        return scan(body, state, None, length=times, unroll=1)
    whole, rest = divmod(times, segment)
    outer = jax.checkpoint(lambda s, _: scan(body, s, None, length=segment, unroll=1))
    state, values = scan(outer, state, None, length=whole, unroll=1)
    values = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)
    if rest:
        state, tail = scan(body, state, None, length=rest, unroll=1)
        values = jax.tree.map(lambda v, t: jnp.concatenate([v, t]), values, tail)
    return state, values


def finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point leaf of `tree` is finite."""
    return jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]).all()
