"""Objectives for recordings of current steps: the times of the spikes in their order, and what lies between spikes."""

from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Float
from jneuro.fitting.data import Target
from jneuro.spikes.detection import Detector, away_from_spikes, upward
from jneuro.spikes.protocols import ordered_times, stretches

__all__ = ["OrderedSpikes", "Subthreshold"]

_FEWEST, _MOST = 8, 64
"""Stretches are filled up to so many, those that are too many being empty, and refused if they are more."""


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
        slots: spikes of a stretch that are compared, at least; twice as many as the recording's densest stretch has,
            if that is more.
    """

    name: Literal["ordered_spikes"] = "ordered_spikes"
    weight: float = Field(default=1.0, gt=0)
    sd_ms: float = Field(default=1.0, gt=0)
    growth: float = Field(default=0.05, ge=0)
    first: float = Field(default=3.0, gt=0)
    elsewhere: float = Field(default=1.0, ge=0)
    slots: int = Field(default=32, ge=1)

    def prepare(self, target: Target, spikes: Detector | None = None) -> tuple[tuple[int, ...], tuple[bool, ...], int]:
        """The edges of the stretches, whether trials differ in each, and how many spikes of each are compared."""
        found = stretches(np.asarray(target.current), target.dt)
        edges, count = found.edges.tolist(), len(found.steady)
        if count > _MOST:
            raise ValueError(
                f"ordered_spikes: the current has {count} stretches, more than {_MOST}; it is for steps of current: "
                "take spike_times"
            )
        spikes = spikes or Detector()
        crossed = upward(np.asarray(target.v), float(spikes.threshold_mv), spikes.return_mv)
        most = max(int(crossed[:, a:b].sum(1).max(initial=0)) for a, b in pairwise(edges))
        differ = np.ptp(found.level, axis=0) > found.tolerance
        empty = max(_FEWEST - count, 0)
        return (*edges, *edges[-1:] * empty), (*differ.tolist(), *[True] * empty), max(self.slots, 2 * most)

    def residuals(
        self, model: Any, data: Any, target: Target, known: tuple[tuple[int, ...], tuple[bool, ...], int] | None = None
    ) -> Float[Array, " residual"]:
        """See `jneuro.fitting.objectives`; the sum of squares is the mean of the trials' costs."""
        edges, differ, slots = known or self.prepare(target)
        edges = jnp.asarray(edges)
        times = jax.vmap(lambda spikes: ordered_times(spikes, edges, target.dt, slots))
        found, wanted = times(model.spikes), times(data.spikes)
        z = (found - wanted) / (self.sd_ms + self.growth * wanted)
        robust = z * jnp.sqrt(2 / (1 + jnp.sqrt(1 + z * z)))
        place = jnp.where(jnp.asarray(differ), 1.0, self.elsewhere)
        scale = place[:, None] * jnp.ones(slots).at[0].set(self.first)[None] / len(target.v)
        return (robust * jnp.sqrt(scale)[None]).ravel()


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

    def residuals(self, model: Any, data: Any, target: Target) -> Float[Array, " residual"]:
        """See `jneuro.fitting.objectives`."""
        every = max(round(self.every_ms / target.dt), 1)
        counted = away_from_spikes(data.spikes, target.dt, self.before_ms, self.after_ms)[:, ::every]
        error = jnp.clip(model.v[:, ::every] - data.v[:, ::every], -self.cut_mv, self.cut_mv) / self.sd_mv
        return (jnp.where(counted, error, 0.0) / jnp.sqrt(jnp.maximum(counted.sum(), 1))).ravel()
