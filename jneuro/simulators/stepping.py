"""From steps to frames: the loops over time that all engines share."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.devices import scan
from jneuro.core.types import Array, Bool, PyTree
from jneuro.simulators.base import Recordable

__all__ = ["Frames", "finite", "in_blocks", "repeat"]


class Frames(NamedTuple):
    """What is recorded of a run, and when.

    Attributes:
        records: name and kind of every recorded quantity.
        count: how many frames.
        every: steps in a frame.
        warmup: steps before the first frame.
        checkpoint: frames between two states that reverse mode keeps; None keeps all.
        dt: time step [ms].
    """

    records: tuple[tuple[str, Recordable], ...]
    count: int
    every: int
    warmup: int
    checkpoint: int | None
    dt: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recorded quantities."""
        return tuple(name for name, _ in self.records)

    def grouped(self, record: Callable, state: PyTree, group: int) -> tuple[PyTree, dict[str, Array]]:
        """Record all frames, some at a time.

        Args:
            record: from the state, and a number of frames, to the state after them and their values, `[frame, ...]`.
            state: where to start.
            group: how many frames at a time.

        Returns:
            The last state, and the values of all frames.
        """
        whole, rest = divmod(self.count, group)
        segment = None if self.checkpoint is None else max(self.checkpoint // group, 1)
        state, values = repeat(lambda s, _: record(s, group), state, whole, segment)
        values = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)
        if rest:
            state, tail = record(state, rest)
            values = jax.tree.map(lambda v, t: jnp.concatenate([v, t]), values, tail)
        return state, values


def in_blocks(
    advance: Callable[[PyTree, int], tuple[PyTree, dict[str, Array]]], state: PyTree, longest: int, frames: Frames
) -> tuple[PyTree, dict[str, Array]]:
    """Warm up, then record: several short frames in a block, or several blocks in a long frame.

    Args:
        advance: takes so many steps from a state; returns the state after them, and every quantity at every step.
        state: where to start.
        longest: the most steps in a block.
        frames: what to record.

    Returns:
        The last state, and the values of all frames.
    """
    every, records = frames.every, dict(frames.records)
    times, rest = divmod(frames.warmup, longest)
    if frames.warmup:
        state, _ = repeat(lambda s, _: (advance(s, longest)[0], None), state, times, None)
    state = advance(state, rest)[0] if rest else state

    def block(carry, size):
        state, sums = carry
        state, seen = advance(state, size)
        new = {n: _reduced(seen[n], r, 0, every) for n, r in records.items()}
        return state, {n: new[n] + sums[n] if r.reduce == "sum" else new[n] for n, r in records.items()}

    def long_frame(state, _):
        shapes = jax.eval_shape(lambda s: block((s, dict.fromkeys(records, 0)), 1)[1], state)
        carry = state, {n: jnp.zeros(x.shape, x.dtype) for n, x in shapes.items()}
        whole, rest = divmod(every, longest)
        carry, _ = scan(lambda c, _: (block(c, longest), None), carry, None, length=whole, unroll=1)
        state, values = block(carry, rest) if rest else carry
        return state, {n: v[None] for n, v in values.items()}

    def short_frames(state, size):
        state, seen = advance(state, size * every)
        seen = {n: seen[n].reshape(size, every, *seen[n].shape[1:]) for n in records}
        return state, {n: _reduced(seen[n], r, 1, every) for n, r in records.items()}

    group = min(max(longest // every, 1), frames.count)
    return frames.grouped(long_frame if every > longest else short_frames, state, group)


def _reduced(values: Array, about: Recordable, axis: int, steps: int) -> Array:
    """The steps of a frame as one value: the last; or the sum, of booleans in the smallest integer that holds it."""
    if about.reduce == "last":
        return lax.index_in_dim(values, values.shape[axis] - 1, axis, keepdims=False)
    return values.sum(axis, dtype=np.min_scalar_type(steps) if values.dtype == jnp.bool_ else values.dtype)


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
