"""Objectives for recordings of current steps: the times of the spikes in their order, and what lies between spikes."""

from typing import Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Bool, Float, Int
from jneuro.fitting.problem import Trials

__all__ = ["OrderedSpikes", "Subthreshold", "away_from_spikes", "ordered_times", "stretches"]


def stretches(current: Float[Array, "trial time"], most: int) -> Int[Array, " edge"]:
    """The samples between which the current of every trial is constant.

    Args:
        current: of all trials.
        most: how many stretches; what comes after the last belongs to it.

    Returns:
        The edges, one more than there are stretches; those that are too many are at the end.
    """
    changes = (jnp.diff(current, axis=1) != 0).any(0)
    inner = jnp.flatnonzero(changes, size=most - 1, fill_value=current.shape[1] - 1) + 1
    return jnp.concatenate([jnp.zeros(1, inner.dtype), inner, jnp.full(1, current.shape[1], inner.dtype)])


def ordered_times(
    spikes: Float[Array, " time"], edges: Int[Array, " edge"], dt: float, slots: int
) -> Float[Array, "stretch spike"]:
    """The time of each stretch's first, second, third … spike, after the stretch's beginning.

    A spike that does not happen is put at the end of its stretch, so times are continuous while spikes come and go. A
    spike lies where the sum of `spikes` passes a half, so those that are spread over samples have derivatives.

    Args:
        spikes: spikes in every sample, whole or in parts.
        edges: of the stretches, as samples.
        dt: time between samples [ms].
        slots: spikes of a stretch.

    Returns:
        The times [ms].
    """
    total = jnp.cumsum(spikes)
    before = jnp.concatenate([jnp.zeros(1, total.dtype), total])

    def of_stretch(begin, end):
        levels = jnp.round(before[begin]) + jnp.arange(slots) + 0.5
        at = jnp.searchsorted(total, levels)
        exists = at < end
        inside = jnp.minimum(at, len(spikes) - 1)
        rise = jnp.where(exists, total[inside] - before[inside], 1.0)
        time = inside + (levels - before[inside]) / jnp.where(rise > 0, rise, 1.0)
        return dt * (jnp.where(exists, jnp.clip(time, begin, end), end) - begin)

    return jax.vmap(of_stretch)(edges[:-1], edges[1:])


class OrderedSpikes(Config):
    r"""The difference of the n-th spikes of every stretch of constant current, for all n.

    An error \(\Delta\) at the time \(t\) after the stretch's beginning counts as \(z = \Delta / (\sigma + \rho t)\),
    and costs \(2(\sqrt{1 + z^2} - 1)\): nearly a square for small errors, and hardly more than the distance for large
    ones. So it is both a smooth error of counts and one of times, which pulls from afar.

    Attributes:
        weight: what a cost of 1 counts.
        sd_ms: σ, the error at the beginning of a stretch that costs 1 [ms].
        growth: ρ, its growth with time: later spikes are less certain.
        first: how much more the first spike of a stretch counts than the others.
        elsewhere: what the stretches count in which all trials have the same current, such as before and after a step.
        stretches: the most stretches of a trial.
        slots: the most spikes of a stretch.
    """

    name: Literal["ordered_spikes"] = "ordered_spikes"
    weight: float = Field(default=1.0, gt=0)
    sd_ms: float = Field(default=1.0, gt=0)
    growth: float = Field(default=0.05, ge=0)
    first: float = Field(default=3.0, gt=0)
    elsewhere: float = Field(default=1.0, ge=0)
    stretches: int = Field(default=8, ge=1)
    slots: int = Field(default=32, ge=1)

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See `jneuro.fitting.objectives`; the sum of squares is the mean of the trials' costs."""
        edges = stretches(recorded.current, self.stretches)
        times = jax.vmap(lambda spikes: ordered_times(spikes, edges, recorded.dt, self.slots))
        found, wanted = times(predicted.spikes), times(recorded.spikes)
        z = (found - wanted) / (self.sd_ms + self.growth * wanted)
        robust = z * jnp.sqrt(2 / (1 + jnp.sqrt(1 + z * z)))
        begins = recorded.current[:, jnp.minimum(edges[:-1], recorded.frames - 1)]
        place = jnp.where(jnp.ptp(begins, axis=0) > 0, 1.0, self.elsewhere)
        scale = place[:, None] * jnp.ones(self.slots).at[0].set(self.first)[None] / recorded.trials
        return (robust * jnp.sqrt(scale)[None]).ravel()


def away_from_spikes(
    spikes: Float[Array, "trial time"], dt: float, before: float, after: float
) -> Bool[Array, "trial time"]:
    """Which samples are not near a spike.

    Args:
        spikes: spikes in every sample, whole or in parts.
        dt: time between samples [ms].
        before: how long before a spike the potential is its own [ms].
        after: how long after it [ms].

    Returns:
        True where the potential is not that of a spike.
    """
    left, right = round(before / dt), round(after / dt)
    total = jnp.pad(jnp.cumsum(spikes, axis=1), ((0, 0), (right + 1, left)), mode="edge")
    total = total.at[:, : right + 1].set(0.0)
    return total[:, left + right + 1 :] - total[:, : -left - right - 1] < 0.5


class Subthreshold(Config):
    """The mean squared error of the potential away from the recorded spikes, from which large errors are cut.

    Attributes:
        weight: what a cost of 1 counts.
        sd_mv: the error that costs 1 [mV].
        cut_mv: errors are counted up to this one, since the model spikes at other times [mV].
        before_ms: how long before a recorded spike nothing counts [ms].
        after_ms: how long after it [ms].
        every_ms: one sample in so many ms is looked at [ms].
    """

    name: Literal["subthreshold"] = "subthreshold"
    weight: float = Field(default=1.0, gt=0)
    sd_mv: float = Field(default=3.0, gt=0)
    cut_mv: float = Field(default=20.0, gt=0)
    before_ms: float = Field(default=3.0, ge=0)
    after_ms: float = Field(default=12.0, ge=0)
    every_ms: float = Field(default=0.5, gt=0)

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See `jneuro.fitting.objectives`."""
        every = max(round(self.every_ms / recorded.dt), 1)
        counted = away_from_spikes(recorded.spikes, recorded.dt, self.before_ms, self.after_ms)[:, ::every]
        error = jnp.clip(predicted.v[:, ::every] - recorded.v[:, ::every], -self.cut_mv, self.cut_mv) / self.sd_mv
        return (jnp.where(counted, error, 0.0) / jnp.sqrt(jnp.maximum(counted.sum(), 1))).ravel()
