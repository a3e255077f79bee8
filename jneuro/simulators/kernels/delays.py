"""Spikes sent through synapses with delays, as rows that events add at once."""

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float, Int, UInt
from jneuro.simulators.delays import DelayedSynapses
from jneuro.simulators.kernels.events import each_spike

__all__ = ["resend", "send"]


def send(
    synapses: DelayedSynapses,
    weights: Float[Array, "neuron synapse"],
    words: UInt[Array, " word"],
    ring: Float[Array, " element"],
    row: Int[Array, ""],
) -> Float[Array, " element"]:
    """Add what the spikes of one step bring to the steps to come.

    Args:
        synapses: who hears whom, and when.
        weights: the weight of each synapse.
        words: packed spikes.
        ring: input under way, flat: one row of `raster_width` elements for a step; the last row's next is the first.
        row: the row of the step in which they spike.

    Returns:
        The ring.
    """
    width = 32 * words.shape[0]

    def add(neuron, ring):
        element = lax.dynamic_index_in_dim(synapses.outgoing, neuron, 0, False) + row * width
        element = jnp.where(element >= ring.size, element - ring.size, element)
        arriving = lax.dynamic_index_in_dim(weights, neuron, 0, False)
        return ring.at[element].add(arriving, mode="promise_in_bounds", wrap_negative_indices=False)

    # A step of a thousand neurons has ten spikes, of ten thousand a hundred.
    return each_spike(words, add, ring, chunk=32 if width < 4096 else 64)


def resend(
    synapses: DelayedSynapses, weights: Float[Array, "neuron synapse"], raster: UInt[Array, "step word"]
) -> Float[Array, " element"]:
    """Build the ring that a stretch as long as the longest lag leaves, with the row of the next step first.

    Args:
        synapses: who hears whom, and when.
        weights: the weight of each synapse.
        raster: packed spikes of the stretch.

    Returns:
        The ring, see `send`.
    """
    steps, width = raster.shape[0], 32 * raster.shape[1]

    def one(step, ring):
        ring = lax.dynamic_update_slice(ring, jnp.zeros(width, ring.dtype), ((step + 1) * width,))
        return send(synapses, weights, raster[step], ring, step + 1)

    return lax.fori_loop(0, steps, one, jnp.zeros((steps + 1) * width, weights.dtype))
