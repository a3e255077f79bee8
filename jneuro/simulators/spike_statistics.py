"""Statistics of spike trains that are computed on the device."""

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Bool, Float, Int

__all__ = ["interspike_intervals", "isi_cvs"]


def interspike_intervals(
    spikes: Int[Array, "time neuron"],
) -> tuple[Array, Array, Array]:
    """Number, mean and sum of squared deviations of every neuron's interspike intervals [frames], by Welford's rule."""

    def visit(carry, now):
        last, count, mean, squares = carry
        frame, fired = now
        interval = (frame - last).astype(mean.dtype)
        counts = fired & (last >= 0)
        more = count + counts
        moved = mean + (interval - mean) / jnp.maximum(more, 1)
        squares = squares + jnp.where(counts, (interval - mean) * (interval - moved), 0)
        return (jnp.where(fired, frame, last), more, jnp.where(counts, moved, mean), squares), None

    neurons = spikes.shape[1]
    none, zero = jnp.full(neurons, -1, jnp.int32), jnp.zeros(neurons, jnp.result_type(float))
    frames = jnp.arange(spikes.shape[0], dtype=jnp.int32)
    start = (none, jnp.zeros(neurons, jnp.int32), zero, zero)
    (_, count, mean, squares), _ = lax.scan(visit, start, (frames, spikes > 0))
    return count, mean, squares


def isi_cvs(spikes: Int[Array, "time neuron"]) -> tuple[Float[Array, " neuron"], Bool[Array, " neuron"]]:
    """Coefficient of variation of every neuron's interspike intervals.

    Args:
        spikes: of each frame.

    Returns:
        The coefficients, and which neurons have the two intervals that it takes; the others' are 0.
    """
    count, mean, squares = interspike_intervals(spikes)
    known = count > 1
    return jnp.where(known, jnp.sqrt(squares / jnp.maximum(count, 1)) / jnp.where(known, mean, 1), 0), known
