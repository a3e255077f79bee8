"""What a fit minimises: voltage, spike times, rates, features, or any weighted sum of them.

Every objective is a vector of residuals; the sum of their squares is its cost. All have derivatives: the spikes of an
ODE cell are smooth crossings of a threshold, those of a stepped simulator carry a surrogate's derivative.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import BeforeValidator, Field, field_validator

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.data import Target
from jneuro.fitting.problem import Problem
from jneuro.spikes.detection import Detector, soft_spikes
from jneuro.spikes.features import feature_function
from jneuro.spikes.protocols import Step, main_step

__all__ = [
    "Features",
    "Observed",
    "Rates",
    "Residuals",
    "SpikeTimes",
    "Voltage",
    "filtered",
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
        features: names, and the errors that cost 1, such as `{Spikecount: 1, AP_amplitude: 2}`.
        onset_ms: where the step begins, after the first sample [ms]; by default it is found; see `main_step`.
        end_ms: where it ends [ms].
    """

    name: Literal["features"] = "features"
    features: Annotated[
        tuple[tuple[str, float], ...], BeforeValidator(lambda x: tuple(x.items()) if isinstance(x, Mapping) else x)
    ] = Field(min_length=1)
    onset_ms: float | None = None
    end_ms: float | None = None

    @field_validator("features")
    @classmethod
    def _sensible(cls, features):
        feature_function([name for name, _ in features])
        for name, unit in features:
            if not unit > 0:
                raise ValueError(f"features: {name} = {unit} must be positive; it is the error that costs 1")
        return features

    def prepare(self, target: Target, spikes: Detector | None = None) -> tuple[Detector, tuple[Step, ...]]:
        """What counts as a spike, and the step of every trial."""
        steps = main_step(np.asarray(target.current), target.dt, onset=self.onset_ms, end=self.end_ms)
        return spikes or Detector(), tuple(steps)

    def residuals(
        self,
        model: Observed,
        data: Observed,
        target: Target,
        known: tuple[Detector, tuple[Step, ...]] | None = None,
    ) -> Float[Array, " residual"]:
        """See the module; what the data do not have is left out."""
        features = feature_function([name for name, _ in self.features])
        spikes, steps = known or self.prepare(target)
        crossed = {"threshold": float(spikes.threshold_mv), "fall": spikes.return_mv}
        step = jax.tree.map(lambda *x: jnp.asarray(x), *steps)
        described = jax.vmap(lambda v, step: features(v, None, target.dt, step=step, **crossed))
        wanted, found = described(data.v, step), described(model.v, step)
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
        spikes: what counts as a spike, of recordings and of cells without a reset; its threshold is a number.
        known: of each part, what its `prepare(target, spikes)` finds in the recording, where it has such a method:
            sizes of arrays and places in them, which `residuals` takes as a fourth argument.
    """

    problem: Problem
    objectives: tuple[Any, ...] = eqx.field(static=True)
    spikes: Detector = eqx.field(static=True, default=Detector())
    known: tuple[tuple[Any, ...], ...] = eqx.field(static=True, default=())

    def __post_init__(self):
        prepare = [getattr(o, "prepare", None) for o in self.objectives]
        self.known = self.known or tuple((p(self.problem.target, self.spikes),) if p else () for p in prepare)

    def __call__(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, " residual"]:
        """All residuals; the mean of their squares is the cost."""
        target, threshold = self.problem.target, float(self.spikes.threshold_mv)
        v, spikes = self.problem.observe(q, nudge)
        model = Observed(v, soft_spikes(v, threshold) if spikes is None else spikes)
        data = Observed(target.v, soft_spikes(target.v, threshold))
        parts = [
            _weight(o) * jnp.ravel(o.residuals(model, data, target, *known))
            for o, known in zip(self.objectives, self.known, strict=True)
        ]
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
