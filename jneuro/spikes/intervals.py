"""Interspike intervals: their coefficient of variation and their adaptation, of events and of rasters."""

from typing import Any

import numpy as np

from jneuro.core.types import Array, Bool, Float, Int

__all__ = ["adaptation_index", "interspike_intervals", "isi_cv", "isi_cvs"]


def adaptation_index(interval: Float[Any, " interval"]) -> Float[Any, ""]:
    r"""The mean of the change of successive intervals by their sum, eFEL's `adaptation_index`.

    \(\frac{1}{n-1} \sum_i (I_{i+1} - I_i) / (I_{i+1} + I_i)\): 0 without adaptation, towards 1 with. NumPy and JAX
    alike.

    Args:
        interval: interspike intervals, those that do not exist NaN.

    Returns:
        The index; NaN with fewer than two intervals.

    Example:
        >>> round(float(adaptation_index(np.array([10.0, 20.0, 20.0]))), 4)
        0.1667
    """
    xp = interval.__array_namespace__()
    known = xp.isfinite(interval[1:] + interval[:-1])
    # NaN is left out before anything is computed with it, or derivatives would be NaN.
    after, before = (xp.where(known, x, 1.0) for x in (interval[1:], interval[:-1]))
    count = known.sum()
    change = xp.where(known, (after - before) / (after + before), 0.0).sum() / xp.maximum(count, 1)
    return xp.where(count > 0, change, xp.nan)


def isi_cv(
    time: Float[np.ndarray, " event"],
    trial: Int[np.ndarray, " event"],
    neuron: Int[np.ndarray, " event"],
    least: int = 10,
) -> float:
    """Mean coefficient of variation of the interspike intervals, over neurons and trials.

    Args:
        time: time of each spike [ms].
        trial: its trial.
        neuron: its neuron.
        least: trains with fewer intervals are left out.

    Returns:
        The mean CV; NaN if no train is long enough.
    """
    order = np.lexsort((time, neuron, trial))
    time = time[order]
    train = trial[order].astype(np.int64) * (int(neuron.max(initial=0)) + 1) + neuron[order]
    same = train[1:] == train[:-1]
    interval, train = np.diff(time)[same], train[1:][same]
    _, train = np.unique(train, return_inverse=True)
    count = np.bincount(train)
    mean = np.bincount(train, interval) / count
    variance = np.bincount(train, np.square(interval - mean[train])) / np.maximum(count - 1, 1)
    kept = count >= least
    return float(np.mean(np.sqrt(variance[kept]) / mean[kept])) if kept.any() else float("nan")


def interspike_intervals(
    spikes: Int[Array, "time neuron"],
) -> tuple[Array, Array, Array]:
    """Number, mean and sum of squared deviations of every neuron's interspike intervals [frames], by Welford's rule."""
    import jax.numpy as jnp  # which events need not
    from jax import lax

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
    import jax.numpy as jnp

    count, mean, squares = interspike_intervals(spikes)
    known = count > 1
    return jnp.where(known, jnp.sqrt(squares / jnp.maximum(count, 1)) / jnp.where(known, mean, 1), 0), known
