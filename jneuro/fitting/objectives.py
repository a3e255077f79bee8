"""What a fit minimises: voltage, spike times, rates, features, any measure, or a weighted sum of them.

An objective is whatever has a method `residuals(predicted, recorded) -> [residual]`; the sum of squares is its cost.
It may have a method `prepare(recorded)`: what that finds in the recording before the fit, such as sizes of arrays and
places in them, is the third argument of `residuals`.
Both are `Trials`: `v`, `current` and `spikes`, each `[trial, time]`, and `dt`, `noise_sd`, `duration`. Ours have
derivatives: the spikes of an ODE cell are smooth crossings of a threshold, those of a cell that is reset carry those
of a surrogate, or are located exactly. A measure becomes an objective through `Match`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import BeforeValidator, Field, field_validator

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.problem import Problem, Trials
from jneuro.recordings.recording import Recording
from jneuro.spikes.detection import away_from_spikes, upward
from jneuro.spikes.features import feature_function
from jneuro.spikes.protocols import Step, main_step, ordered_times, stretches
from jneuro.sweeps.kinds import MEASURES
from jneuro.sweeps.measures import as_measure, result_names

__all__ = [
    "MOST_STRETCHES",
    "Features",
    "Match",
    "OrderedSpikes",
    "Rates",
    "Residuals",
    "SpikeTimes",
    "Subthreshold",
    "Voltage",
    "filtered",
    "require_residuals",
]

_UNDEFINED = 3.0
"""Residual of a feature that the data have and the model has not, such as the height of a spike that fails."""


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


_FEWEST, MOST_STRETCHES = 8, 64
"""Stretches are filled up to so many, those that are too many being empty, and refused if they are more."""
_PAIRS = BeforeValidator(lambda x: tuple(x.items()) if isinstance(x, Mapping) else x)
_Positive = Annotated[float, Field(gt=0)]


class _Objective(Config):
    """A part of the whole.

    Attributes:
        weight: what a cost of 1 counts.
    """

    weight: float = Field(default=1.0, gt=0)


class Voltage(_Objective):
    """The mean squared error of the potential, in units of the noise: about 1 at the truth."""

    name: Literal["voltage"] = "voltage"

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See the module."""
        return ((predicted.v - recorded.v) / recorded.noise_sd).ravel() / jnp.sqrt(predicted.v.size)


class SpikeTimes(_Objective):
    """Van Rossum's distance of the spike trains, squared and doubled: a spike too much or too few costs 1.

    References:
        van Rossum M. C. W., Neural Computation 13 (2001) 751, Equation 2.2.

    Attributes:
        tau_ms: how far apart spikes still see each other [ms].
    """

    name: Literal["spike_times"] = "spike_times"
    tau_ms: float = Field(default=10.0, gt=0)

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See the module."""
        difference = filtered(predicted.spikes - recorded.spikes, recorded.dt, self.tau_ms)
        # The squares of one filtered spike, at all samples from it on, add up to the inverse.
        lone = 1 - jnp.exp(-2 * recorded.dt / self.tau_ms)
        return jnp.sqrt(lone / predicted.trials) * difference.ravel()


class Rates(_Objective):
    """The mean squared error of the trials' rates.

    Attributes:
        sd_hz: an error that costs 1 [Hz].
    """

    name: Literal["rates"] = "rates"
    sd_hz: float = Field(default=1.0, gt=0)

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See the module."""
        per_spike = 1e3 / (recorded.duration * self.sd_hz * jnp.sqrt(predicted.trials))
        return per_spike * (predicted.spikes.sum(1) - recorded.spikes.sum(1))


class Features(_Objective):
    """The mean squared error of summary features, each in a unit of its own.

    Attributes:
        features: names, and the errors that cost 1, such as `{Spikecount: 1, AP_amplitude: 2}`.
        onset_ms: where the step begins, after the first sample [ms]; by default it is found; see `main_step`.
        end_ms: where it ends [ms].
    """

    name: Literal["features"] = "features"
    features: Annotated[tuple[tuple[str, float], ...], _PAIRS] = Field(min_length=1)
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

    def prepare(self, recorded: Trials) -> tuple[Step, ...]:
        """The step of every trial."""
        return tuple(main_step(np.asarray(recorded.current), recorded.dt, onset=self.onset_ms, end=self.end_ms))

    def residuals(
        self, predicted: Trials, recorded: Trials, steps: tuple[Step, ...] | None = None
    ) -> Float[Array, " residual"]:
        """See the module; what the data do not have is left out."""
        names, units = zip(*self.features, strict=True)
        features, how = feature_function(names), {"threshold": recorded.threshold, "fall": recorded.fall}
        step = jax.tree.map(lambda *x: jnp.asarray(x), *(steps or self.prepare(recorded)))
        described = jax.vmap(lambda v, step: features(v, None, recorded.dt, step=step, **how))
        wanted, found = described(recorded.v, step), described(predicted.v, step)
        return _compared(found, wanted, jnp.asarray(units)[None])


def _compared(found: Array, wanted: Array, units: Array) -> Float[Array, " residual"]:
    """Errors of numbers that may be undefined: what the data do not have is left out, what the model lacks costs."""
    defined = jnp.isfinite(found) & jnp.isfinite(wanted)
    error = jnp.where(defined, found - wanted, 0.0) / units
    error = jnp.where(jnp.isfinite(wanted) & ~defined, _UNDEFINED, error)
    return error.ravel() / jnp.sqrt(error.size)


class OrderedSpikes(_Objective):
    r"""The difference of the n-th spikes of every stretch of constant current, for all n.

    An error \(\Delta\) at the time \(t\) after the stretch's beginning counts as \(z = \Delta / (\sigma + \rho t)\),
    and costs \(2(\sqrt{1 + z^2} - 1)\): nearly a square for small errors, and hardly more than the distance for large
    ones. So it is both a smooth error of counts and one of times, which pulls from afar.

    Attributes:
        sd_ms: σ, the error at the beginning of a stretch that costs 1 [ms].
        growth: ρ, its growth with time: later spikes are less certain.
        first: how much more the first spike of a stretch counts than the others.
        elsewhere: what the stretches count in which all trials have the same current, such as before and after a step.
        slots: spikes of a stretch that are compared, at least; twice as many as the recording's densest stretch has,
            if that is more.
    """

    name: Literal["ordered_spikes"] = "ordered_spikes"
    sd_ms: float = Field(default=1.0, gt=0)
    growth: float = Field(default=0.05, ge=0)
    first: float = Field(default=3.0, gt=0)
    elsewhere: float = Field(default=1.0, ge=0)
    slots: int = Field(default=32, ge=1)

    def prepare(self, recorded: Trials) -> tuple[tuple[int, ...], tuple[bool, ...], int]:
        """The edges of the stretches, whether trials differ in each, and how many spikes of each are compared."""
        found = stretches(np.asarray(recorded.current), recorded.dt)
        edges, count = found.edges.tolist(), len(found.steady)
        if count > MOST_STRETCHES:
            raise ValueError(
                f"ordered_spikes: the current has {count} stretches, more than {MOST_STRETCHES}; it is for steps of "
                "current: take spike_times"
            )
        spikes = upward(np.asarray(recorded.v), recorded.threshold, recorded.fall)
        most = max(int(spikes[:, a:b].sum(1).max(initial=0)) for a, b in pairwise(edges))
        differ = np.ptp(found.level, axis=0) > found.tolerance
        empty = max(_FEWEST - count, 0)
        return (*edges, *edges[-1:] * empty), (*differ.tolist(), *[True] * empty), max(self.slots, 2 * most)

    def residuals(self, predicted: Trials, recorded: Trials, known: Any = None) -> Float[Array, " residual"]:
        """See the module; the sum of squares is the mean of the trials' costs."""
        edges, differ, slots = known or self.prepare(recorded)
        edges = jnp.asarray(edges)
        times = jax.vmap(lambda spikes: ordered_times(spikes, edges, recorded.dt, slots))
        found, wanted = times(predicted.spikes), times(recorded.spikes)
        z = (found - wanted) / (self.sd_ms + self.growth * wanted)
        robust = z * jnp.sqrt(2 / (1 + jnp.sqrt(1 + z * z)))
        place = jnp.where(jnp.asarray(differ), 1.0, self.elsewhere)
        scale = place[:, None] * jnp.ones(slots).at[0].set(self.first)[None] / recorded.trials
        return (robust * jnp.sqrt(scale)[None]).ravel()


class Subthreshold(_Objective):
    """The mean squared error of the potential away from the recorded spikes, from which large errors are cut.

    Attributes:
        sd_mv: the error that costs 1 [mV].
        cut_mv: errors are counted up to this one, since the model spikes at other times [mV].
        before_ms: how long before a recorded spike nothing counts [ms].
        after_ms: how long after it [ms].
        every_ms: one sample in so many ms is looked at [ms].
    """

    name: Literal["subthreshold"] = "subthreshold"
    sd_mv: float = Field(default=3.0, gt=0)
    cut_mv: float = Field(default=20.0, gt=0)
    before_ms: float = Field(default=3.0, ge=0)
    after_ms: float = Field(default=12.0, ge=0)
    every_ms: float = Field(default=0.5, gt=0)

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See the module."""
        every = max(round(self.every_ms / recorded.dt), 1)
        counted = away_from_spikes(recorded.spikes, recorded.dt, self.before_ms, self.after_ms)[:, ::every]
        error = jnp.clip(predicted.v[:, ::every] - recorded.v[:, ::every], -self.cut_mv, self.cut_mv) / self.sd_mv
        return (jnp.where(counted, error, 0.0) / jnp.sqrt(jnp.maximum(counted.sum(), 1))).ravel()


class Match(_Objective):
    """The mean squared error of a measure, any function of a recording, over trials.

    For a network, whose runs are random, the mean over runs is matched, in units of its spread over runs.

    Attributes:
        measure: a function of one run's recording that returns a number, an array, or several by name: itself, a name
            that sweeps know, or `module:function`. It sees `v` and `current`, and spikes as whole numbers, which have
            no derivative.
        sd: the error that costs 1, in the measure's unit; by name where it returns several. None for networks.

    Example:
        >>> import jneuro as jn
        >>> def swing(recording):
        ...     return recording["v"].max() - recording["v"].min()
        >>> jn.fitting.Match(swing, sd=2.0).sd
        2.0
    """

    name: Literal["match"] = "match"
    measure: Annotated[Any, MEASURES.field()]
    sd: Annotated[tuple[tuple[str, _Positive], ...] | _Positive | None, _PAIRS] = None

    def __init__(self, measure: Any = None, sd: Any = None, **more: Any) -> None:
        """Match a measure within an error."""
        given = {"measure": measure, "sd": sd}
        super().__init__(**{k: v for k, v in given.items() if v is not None}, **more)

    def numbers(self, recording: Recording, populations: Sequence[int] = ()) -> dict[str, Array]:
        """What the measure says of one run, by name."""
        about = as_measure(self.measure)
        return result_names(about.name, about(recording, populations))

    def residuals(self, predicted: Trials, recorded: Trials) -> Float[Array, " residual"]:
        """See the module; what the data do not have is left out."""
        if self.sd is None:
            raise ValueError("sd is missing: the error of the measure that costs 1")
        found, wanted = (jax.vmap(self.numbers)(trials.recording) for trials in (predicted, recorded))
        units = dict(self.sd) if isinstance(self.sd, tuple) else dict.fromkeys(found, self.sd)
        if set(units) != set(found):
            raise ValueError(f"sd is given for {', '.join(units)}, the measure returns {', '.join(found)}")
        flat = {n: jnp.reshape(x, (predicted.trials, -1)) for n, x in found.items()}
        unit = jnp.concatenate([jnp.full(x.shape[1], units[n]) for n, x in flat.items()])
        other = jnp.concatenate([jnp.reshape(wanted[n], x.shape) for n, x in flat.items()], 1)
        return _compared(jnp.concatenate([*flat.values()], 1), other, unit[None])


class Residuals(eqx.Module):
    """A problem under a weighted sum of objectives, as methods take it: a function of the vector.

    Attributes:
        problem: the problem.
        objectives: the parts of the sum.
        known: of each, what its `prepare` finds in the recording.
    """

    problem: Problem
    objectives: tuple[Any, ...] = eqx.field(static=True)
    known: tuple[tuple[Any, ...], ...] = eqx.field(static=True, default=())

    def __post_init__(self):
        prepare = [getattr(o, "prepare", None) for o in self.objectives]
        self.known = self.known or tuple((p(self.problem.target),) if p else () for p in prepare)

    @property
    def of_potential(self) -> bool:
        """Whether the potential is matched, among others."""
        return any(isinstance(o, Voltage) for o in self.objectives)

    @property
    def of_potential_alone(self) -> bool:
        """Whether the potential is matched, and nothing else."""
        return all(isinstance(o, Voltage) for o in self.objectives)

    def __call__(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, " residual"]:
        """All residuals; the mean of their squares is the cost."""
        problem: Any = self.problem
        predicted, recorded = problem.observe(q, nudge), problem.target
        # One of one's own need not have a weight.
        parts = [
            jnp.sqrt(getattr(o, "weight", 1.0)) * jnp.ravel(o.residuals(predicted, recorded, *known))
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


def require_residuals(
    objective: Any, recorded: Trials, where: str, *, slopes: bool = False, values: bool = True
) -> None:
    """Refuse an objective that returns no vector of finite residuals, before anything is simulated.

    It is asked how far the recording is from itself, shifted by a little where derivatives are needed.

    Args:
        objective: what has `residuals(predicted, recorded)`.
        recorded: the recording.
        where: what it is called in the error.
        slopes: whether the method needs derivatives.
        values: whether the recording is there; else its shapes alone are.

    Raises:
        ValueError: in one line, with what it returned and the remedy.
    """
    if isinstance(objective, _Objective) and not isinstance(objective, Match):
        return  # ours, which tests have asked

    def asked(v: Array) -> Any:
        return objective.residuals(dataclasses.replace(recorded, v=v), recorded, *known)

    v, prepare = jnp.asarray(recorded.v), getattr(objective, "prepare", None)
    try:
        known = [prepare(recorded)] if callable(prepare) else []
        found = jax.eval_shape(asked, v)
    except Exception as error:  # whatever one of one's own raises
        said = " ".join(str(error).split())
        said = said if type(error) is ValueError else f"residuals raised {type(error).__name__}: {said}"
        raise ValueError(f"{where}: {said}") from error
    kind = type(found).__name__
    if not isinstance(found, jax.ShapeDtypeStruct) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{where}: residuals must return an array of real numbers, [residual], not {kind}")
    if found.ndim != 1 or not found.size:
        raise ValueError(
            f"{where}: residuals returned the shape {found.shape}; it must be [residual], one axis: call .ravel()"
        )
    if not values:
        return
    if bad := int(jnp.sum(~jnp.isfinite(jax.jit(asked)(v)))):
        raise ValueError(
            f"{where}: {bad} of {found.size} residuals of the recording against itself are not finite; return 0 where "
            "a difference is not defined"
        )
    if slopes and isinstance(objective, Match):
        tilt = jnp.linspace(0.5, 1.5, v.size).reshape(v.shape)
        if not jnp.any(jax.jvp(asked, (v,), (tilt,))[1]):
            raise ValueError(
                f"{where}: the measure has no derivative, as counts of spikes have none; take the method cma or spikes"
            )
