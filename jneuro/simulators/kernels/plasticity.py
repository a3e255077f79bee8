"""Pair-based plasticity of a whole stretch after the fact: one pass over its spikes, exactly what `pair_step` sums."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float, Int, UInt
from jneuro.simulators.delays import DelayedSynapses
from jneuro.simulators.kernels.events import each_spike, unpack
from jneuro.simulators.plasticity import PairRule

__all__ = ["each_event", "pair_changes"]

Carry = TypeVar("Carry")


def each_event(
    raster: UInt[Array, "step word"],
    body: Callable[[Int[Array, ""], Int[Array, ""], Carry], Carry],
    carry: Carry,
    *,
    chunk: int = 256,
) -> Carry:
    """Run `body` for every spike of a raster, step by step.

    Args:
        raster: packed spikes.
        body: from a spike's step, its neuron and the carry to the next carry.
        carry: the first carry.
        chunk: spikes found at once; a matter of speed only.

    Returns:
        The last carry.
    """
    words, per_step = raster.size, raster.shape[1]

    def visit(index, carry):
        # The raster is one long row of words, in which bit b of word w is number b * words + w.
        bit, word = index // words, index % words
        return body(word // per_step, bit * per_step + word % per_step, carry)

    return each_spike(raster.reshape(-1), visit, carry, chunk=chunk)


def pair_changes(
    synapses: DelayedSynapses,
    rule: PairRule,
    raster: UInt[Array, "step word"],
    traces: Float[Array, "lag element"],
    stretch: tuple[Int[Array, ""], Int[Array, ""]],
    sums: tuple[Float[Array, "post source"], Float[Array, "pre synapse"]],
) -> tuple[Float[Array, "post source"], Float[Array, "pre synapse"], Float[Array, "lag element"]]:
    """Add what the pairs of a stretch of steps change; see `pair_step`.

    Nothing in the dynamics reads the changes before the weights are updated, so they need not act at once. Every
    synapse's changes are added in the order of time, so that a stretch may be cut anywhere.

    Args:
        synapses: who hears whom, and when.
        rule: amplitudes and decay.
        raster: packed spikes; what lies after the stretch is not looked at.
        traces: of each neuron's last spike, after each of the steps before the stretch, the oldest first; as many as
            the longest lag.
        stretch: its first row of the raster, at least the longest lag, and the row after its last.
        sums: the changes so far, by receiver and by sender.

    Returns:
        The changes, by receiver and by sender; and the traces as they are before the step after the stretch.
    """
    first, end = stretch
    (gained, lost), (longest, width) = sums, traces.shape
    (pre, slots), sources = synapses.place.shape, synapses.incoming.shape[1]

    def decayed(step, flat):
        trace = lax.dynamic_slice(flat, ((step - 1) * width,), (width,))
        trace = jnp.where(unpack(raster[step], width), jnp.ones((), trace.dtype), trace * rule.decay)
        return lax.dynamic_update_slice(flat, trace, (step * width,))

    # Of all steps of the raster, flat; what lies before the longest lag, or after the stretch, is not read.
    flat = jnp.zeros(raster.shape[0] * width, traces.dtype)
    flat = lax.dynamic_update_slice(flat, traces.reshape(-1), ((first - longest) * width,))
    flat = lax.fori_loop(first, end, decayed, flat)

    def potentiate(step, post, total):
        index = lax.dynamic_index_in_dim(synapses.incoming, post, 0, False) + step * width
        return _add_row(total, rule.potentiation * rule.decay * _at(flat, index), post * sources)

    def depress(step, source, total):
        arrival = lax.dynamic_index_in_dim(synapses.outgoing, source, 0, False) + step * width
        inside = (arrival >= first * width) & (arrival < end * width)
        before = _at(flat, jnp.where(inside, arrival - width, 0))
        return _add_row(total, jnp.where(inside, -rule.depression * before, 0), source * slots)

    row = jnp.arange(raster.shape[0], dtype=jnp.int32)[:, None]
    plastic = jnp.arange(width).reshape(32, -1) < pre
    mask = (plastic.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]).sum(0, dtype=jnp.uint32)
    spiking = jnp.where((row >= first) & (row < end), raster, 0)
    sending = raster & jnp.where((row >= first - longest) & (row < end), mask, 0)
    gained = each_event(spiking, potentiate, gained.reshape(-1)).reshape(gained.shape)
    lost = each_event(sending, depress, lost.reshape(-1)).reshape(lost.shape)
    last = lax.dynamic_slice(flat, ((end - longest) * width,), (traces.size,))
    return gained, lost, last.reshape(traces.shape)


def _add_row(total, row, start):
    """Add to a stretch of a flat array, in place."""
    old = lax.dynamic_slice(total, (start,), row.shape)
    return lax.dynamic_update_slice(total, old + row, (start,))


def _at(values, index):
    """Gather at indices that are known to be inside: no clamping."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
