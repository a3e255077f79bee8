"""What a fit minimises: voltage, spike times, rates, features, or any weighted sum of them.

Every objective is a vector of residuals; the sum of their squares is its cost. All have derivatives: the spikes of an
ODE cell are smooth crossings of a threshold, those of a stepped simulator carry a surrogate's derivative.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from pydantic import BeforeValidator, Field, field_validator

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.data import Target
from jneuro.fitting.features import FEATURES, feature_function
from jneuro.fitting.problem import Problem

__all__ = [
    "Features",
    "Observed",
    "Rates",
    "Residuals",
    "SpikeTimes",
    "Voltage",
    "filtered",
    "soft_spikes",
]

_UNDEFINED = 3.0
"""Residual of a feature that the data have and the model has not, such as the height of a spike that fails."""


class Observed(NamedTuple):
    """What a model or a cell showed.

    Attributes:
        v: potential [mV].
        spikes: spikes in every sample.
    """

    v: Float[Array, "trial time"]
    spikes: Float[Array, "trial time"]


def soft_spikes(
    v: Float[Array, "trial time"], threshold: float = 0.0, width: float = 4.0
) -> Float[Array, "trial time"]:
    r"""Spikes as smooth crossings of a threshold: the rise of \(\sigma((v - \theta)/w)\) in every sample.

    A full spike sums to 1 over the samples of its rise, one that fails to a part.

    Args:
        v: potential [mV].
        threshold: \(\theta\) [mV].
        width: \(w\) [mV].

    Returns:
        The spikes.
    """
    above = jax.nn.sigmoid((v - threshold) / width)
    return jnp.maximum(jnp.diff(above, axis=1, prepend=above[:, :1]), 0.0)


def filtered(spikes: Float[Array, "trial time"], dt: float, tau: float) -> Float[Array, "trial time"]:
    """Let every spike decay exponentially.

    Args:
        spikes: of every sample.
        dt: time between samples [ms].
        tau: time constant [ms].

    Returns:
        The filtered trains.
    """
    decay = jnp.exp(-dt / tau)

    def step(trace, arrived):
        trace = decay * trace + arrived
        return trace, trace

    return lax.scan(step, jnp.zeros_like(spikes[:, 0]), spikes.T)[1].T


class _Objective(Config):
    """A part of the whole.

    Attributes:
        weight: what a cost of 1 counts.
    """

    weight: float = Field(default=1.0, gt=0)


class Voltage(_Objective):
    """The mean squared error of the potential, in units of the noise: about 1 at the truth."""

    name: Literal["voltage"] = "voltage"

    def residuals(self, model: Observed, data: Observed, target: Target) -> Float[Array, " residual"]:
        """See the module."""
        return ((model.v - data.v) / target.noise_sd).ravel() / jnp.sqrt(model.v.size)


class SpikeTimes(_Objective):
    """Van Rossum's distance of the spike trains, squared and doubled: a spike too much or too few costs 1.

    References:
        van Rossum M. C. W., Neural Computation 13 (2001) 751, Equation 2.2.

    Attributes:
        tau_ms: how far apart spikes still see each other [ms].
    """

    name: Literal["spike_times"] = "spike_times"
    tau_ms: float = Field(default=10.0, gt=0)

    def residuals(self, model: Observed, data: Observed, target: Target) -> Float[Array, " residual"]:
        """See the module."""
        difference = filtered(model.spikes - data.spikes, target.dt, self.tau_ms)
        # The squares of one filtered spike, at all samples from it on, add up to the inverse.
        lone = 1 - jnp.exp(-2 * target.dt / self.tau_ms)
        return jnp.sqrt(lone / len(model.v)) * difference.ravel()


class Rates(_Objective):
    """The mean squared error of the trials' rates.

    Attributes:
        sd_hz: an error that costs 1 [Hz].
    """

    name: Literal["rates"] = "rates"
    sd_hz: float = Field(default=1.0, gt=0)

    def residuals(self, model: Observed, data: Observed, target: Target) -> Float[Array, " residual"]:
        """See the module."""
        per_spike = 1e3 / (target.duration * self.sd_hz * jnp.sqrt(len(model.v)))
        return per_spike * (model.spikes.sum(1) - data.spikes.sum(1))


class Features(_Objective):
    """The mean squared error of summary features, each in a unit of its own.

    Attributes:
        features: names, and the errors that cost 1, such as `{count: 1, ap_height: 2}`.
    """

    name: Literal["features"] = "features"
    features: Annotated[
        tuple[tuple[str, float], ...], BeforeValidator(lambda x: tuple(x.items()) if isinstance(x, Mapping) else x)
    ] = Field(min_length=1)

    @field_validator("features")
    @classmethod
    def _sensible(cls, features):
        feature_function([name for name, _ in features])
        for name, unit in features:
            if not unit > 0:
                raise ValueError(f"features: {name} = {unit} must be positive; it is the error that costs 1")
        return features

    def residuals(self, model: Observed, data: Observed, target: Target) -> Float[Array, " residual"]:
        """See the module; what the data do not have is left out."""
        names = [name for name, _ in self.features]
        described = jax.vmap(lambda v, current: jnp.stack([FEATURES[name](v, current, target.dt) for name in names]))
        wanted, found = described(data.v, target.current), described(model.v, target.current)
        units = jnp.asarray([unit for _, unit in self.features])
        defined = jnp.isfinite(found) & jnp.isfinite(wanted)
        error = jnp.where(defined, found - wanted, 0.0) / units[None]
        error = jnp.where(jnp.isfinite(wanted) & ~defined, _UNDEFINED, error)
        return error.ravel() / jnp.sqrt(error.size)


class Residuals(eqx.Module):
    """A problem under a weighted sum of objectives, as the optimisers take it: a function of the vector.

    Attributes:
        problem: the problem.
        objectives: the parts of the sum.
    """

    problem: Problem
    objectives: tuple[Any, ...] = eqx.field(static=True)

    def __call__(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, " residual"]:
        """All residuals; the mean of their squares is the cost."""
        target = self.problem.target
        v, spikes = self.problem.observe(q, nudge)
        model = Observed(v, soft_spikes(v) if spikes is None else spikes)
        data = Observed(target.v, soft_spikes(target.v))
        parts = [_weight(o) * jnp.ravel(o.residuals(model, data, target)) for o in self.objectives]
        together = jnp.concatenate(parts)
        return together * jnp.sqrt(together.size)

    def cost(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, ""]:
        """The weighted sum."""
        return jnp.mean(jnp.square(self(q, nudge)))

    def loss(self, q: Float[Array, " unknown"], key: Key[Array, ""], nudge: Any = None) -> Float[Array, ""]:
        """The weighted sum, for `adam`: nothing is drawn."""
        del key
        return self.cost(q, nudge)


def _weight(objective: Any) -> Any:
    """The factor of an objective's residuals; one of one's own need not have a weight."""
    return jnp.sqrt(getattr(objective, "weight", 1.0))
