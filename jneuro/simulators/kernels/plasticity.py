"""Pair-based plasticity of a whole stretch after the fact: one pass over its spikes, exactly what `pair_step` sums."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float, Int, UInt
from jneuro.simulators.delays import DelayedSynapses
from jneuro.simulators.kernels.events import each_spike
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
    traces: Float[Array, " element"],
    stretch: tuple[Int[Array, ""], Int[Array, ""]],
    sums: tuple[Float[Array, "post source"], Float[Array, "pre synapse"]],
    longest: int,
) -> tuple[Float[Array, "post source"], Float[Array, "pre synapse"]]:
    """Add what the pairs of a stretch of steps change; see `pair_step`.

    Nothing in the dynamics reads the changes before the weights are updated, so they need not act at once. Every
    synapse's changes are added in the order of time, so that a stretch may be cut anywhere.

    Args:
        synapses: who hears whom, and when.
        rule: amplitudes and decay.
        raster: packed spikes; what lies after the stretch is not looked at.
        traces: of each neuron's last spike, at all steps of the raster, flat.
        stretch: its first row of the raster, at least the longest lag, and the row after its last.
        sums: the changes so far, by receiver and by sender.
        longest: the longest lag, in steps.

    Returns:
        The changes, by receiver and by sender.
    """
    first, end = stretch
    (gained, lost), width = sums, traces.size // raster.shape[0]
    (pre, slots), sources = synapses.place.shape, synapses.incoming.shape[1]

    def potentiate(step, post, total):
        index = lax.dynamic_index_in_dim(synapses.incoming, post, 0, False) + step * width
        return _add_row(total, rule.potentiation * rule.decay * _at(traces, index), post * sources)

    def depress(step, source, total):
        arrival = lax.dynamic_index_in_dim(synapses.outgoing, source, 0, False) + step * width
        inside = (arrival >= first * width) & (arrival < end * width)
        before = _at(traces, jnp.where(inside, arrival - width, 0))
        return _add_row(total, jnp.where(inside, -rule.depression * before, 0), source * slots)

    row = jnp.arange(raster.shape[0], dtype=jnp.int32)[:, None]
    plastic = jnp.arange(width).reshape(32, -1) < pre
    mask = (plastic.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]).sum(0, dtype=jnp.uint32)
    spiking = jnp.where((row >= first) & (row < end), raster, 0)
    sending = jnp.where((row >= first - longest) & (row < end), raster & mask[None], 0)
    gained = each_event(spiking, potentiate, gained.reshape(-1)).reshape(gained.shape)
    return gained, each_event(sending, depress, lost.reshape(-1)).reshape(lost.shape)


def _add_row(total, row, start):
    """Add to a stretch of a flat array, in place."""
    old = lax.dynamic_slice(total, (start,), row.shape)
    return lax.dynamic_update_slice(total, old + row, (start,))


def _at(values, index):
    """Gather at indices that are known to be inside: no clamping."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
