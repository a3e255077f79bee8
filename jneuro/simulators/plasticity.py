"""Spike-timing-dependent plasticity, at once or, exactly the same, for a whole interval after the fact."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from jax import lax

from jneuro.core.devices import scan
from jneuro.core.types import Array, Bool, Float, Int, Scalar, UInt
from jneuro.simulators.delays import DelayedSynapses
from jneuro.simulators.events import each_spike, unpack

__all__ = ["PairRule", "each_event", "histogram", "pair_changes", "pair_step"]

Carry = TypeVar("Carry")


class PairRule(NamedTuple):
    r"""Pair-based plasticity between nearest neighbours.

    When a target spikes, every synapse onto it is potentiated by \(A_+ e^{-\Delta/\tau}\), where \(\Delta > 0\) is the
    time since that synapse's last arrival. When a spike arrives, its synapse is depressed by \(A_- e^{-\Delta/\tau}\),
    where \(\Delta \ge 0\) is the time since the target's last spike: at one time, the spike comes first. Only the last
    event counts. Spikes lie at the ends of steps, arrivals a delay later, where they act on the step that begins.

    Attributes:
        potentiation: A₊ [pA].
        depression: A₋ [pA].
        decay: e^(−dt/τ), what a step leaves of either trace.
    """

    potentiation: Scalar
    depression: Scalar
    decay: Scalar


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
    raster: UInt[Array, "step word"],
    trace: Float[Array, " neuron"],
    rule: PairRule,
    longest: int,
) -> tuple[Float[Array, "pre synapse"], Float[Array, " neuron"]]:
    r"""Sum what the pairs of one interval change, exactly, in one pass over its spikes.

    Nothing in the dynamics reads the changes before the interval ends, so they need not act at once. With
    \(x_i(t) = e^{-(t - t_i)/\tau}\), the trace of neuron i's last spike, a spike of j at t adds
    \(A_+ e^{-dt/\tau} x_i(t - d_{ij} - dt)\) to all its incoming synapses, and a spike of i at t takes
    \(A_- x_j(t + d_{ij})\) from all its outgoing ones, if it arrives within the interval.

    Args:
        synapses: who hears whom, and when.
        raster: packed spikes of the interval and, before it, of the longest lag.
        trace: \(x\) before the first step of the raster, padded to `raster_width`.
        rule: amplitudes and decay.
        longest: the longest lag, in steps.

    Returns:
        The changes, and \(x\) before the last `longest` steps of the raster, where the next one begins.
    """
    width, size = trace.shape[0], raster.shape[0] * trace.shape[0]
    (pre, slots), sources = synapses.place.shape, synapses.incoming.shape[1]

    def decayed(trace, words):
        trace = jnp.where(unpack(words, width), jnp.ones((), trace.dtype), trace * rule.decay)
        return trace, trace

    traces = scan(decayed, trace, raster)[1].reshape(-1)

    def potentiate(step, post, total):
        index = lax.dynamic_index_in_dim(synapses.incoming, post, 0, False) + (step + longest) * width
        return _add_row(total, rule.potentiation * rule.decay * _at(traces, index), post * sources)

    def depress(step, source, total):
        arrival = lax.dynamic_index_in_dim(synapses.outgoing, source, 0, False) + step * width
        inside = (arrival >= longest * width) & (arrival < size)
        before = _at(traces, jnp.where(inside, arrival - width, 0))
        return _add_row(total, jnp.where(inside, -rule.depression * before, 0), source * slots)

    gained = each_event(raster[longest:], potentiate, jnp.zeros(synapses.incoming.size, trace.dtype))
    plastic = jnp.arange(width).reshape(32, -1) < pre
    mask = (plastic.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]).sum(0, dtype=jnp.uint32)
    lost = each_event(raster & mask[None], depress, jnp.zeros(pre * slots, trace.dtype))
    synapse = synapses.place < gained.size
    gained = jnp.where(synapse, _at(gained, jnp.where(synapse, synapses.place, 0)), 0)
    at = (raster.shape[0] - longest - 1) * width
    return lost.reshape(pre, slots) + gained, traces[at : at + width]


def pair_step(
    rule: PairRule,
    traces: tuple[Float[Array, "pre synapse"], Float[Array, " neuron"]],
    arrived: Float[Array, "pre synapse"],
    spikes: Float[Array, " neuron"],
    post: Int[Array, "pre synapse"],
) -> tuple[Float[Array, "pre synapse"], tuple[Float[Array, "pre synapse"], Float[Array, " neuron"]]]:
    """Follow the pairs of one step, at once and with gradients in both modes.

    Args:
        rule: amplitudes and decay.
        traces: of each synapse's last arrival, and of each neuron's last spike, after the step before.
        arrived: ones where a spike arrives, to act in this step.
        spikes: ones where a neuron spikes.
        post: the targets.

    Returns:
        The changes of this step, and the traces after it.
    """
    arrivals, last = traces
    lost = rule.depression * arrived * last[post]
    arrivals = rule.decay * (arrivals * (1 - arrived) + arrived)
    last = rule.decay * last * (1 - spikes) + spikes
    return rule.potentiation * arrivals * spikes[post] - lost, (arrivals, last)


def histogram(
    values: Float[Array, "pre synapse"], counted: Bool[Array, "pre synapse"], bins: int
) -> Float[Array, " bin"]:
    """Share of the values in each of some equal bins between 0 and 1, both included.

    Args:
        values: between 0 and 1; others count as the nearer end.
        counted: which values count.
        bins: how many bins.

    Returns:
        The shares.
    """
    slot = jnp.clip(values * bins, 0, bins - 1).astype(jnp.int32)
    return jnp.zeros(bins, jnp.int32).at[slot].add(counted.astype(jnp.int32)) / jnp.maximum(counted.sum(), 1)


def _add_row(total, row, start):
    """Add to a stretch of a flat array, in place."""
    old = lax.dynamic_slice(total, (start,), row.shape)
    return lax.dynamic_update_slice(total, old + row, (start,))


def _at(values, index):
    """Gather at indices that are known to be inside: no clamping."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
