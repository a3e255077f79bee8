"""Parameters of a spiking network from statistics of its population: rates and interspike intervals."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field
from scipy.special import chdtrc

from jneuro._types import Array, Config, Float, Int, Key
from jneuro.fitting.least_squares import levenberg_marquardt
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.solution import Solution
from jneuro.prng import stream, trial_keys
from jneuro.simulators.base import SteppedSimulator
from jneuro.simulators.simulate import simulate
from jneuro.simulators.spike_statistics import isi_cvs

__all__ = [
    "FEATURE_NAMES",
    "FeatureFit",
    "FeatureProblem",
    "FeatureTarget",
    "NetworkFeatures",
    "fit_features",
    "population_features",
    "simulate_features",
]

FEATURE_NAMES = ("log_rate", "isi_cv", "rate_cv", "isi_cv_sd")
"""Logarithm of the mean rate [Hz]; mean CV of the interspike intervals; CV of the neurons' rates; SD of their CVs."""

_LEAST = 1e-3
"""Features that are less probable are not explained."""
_SILENT = 0.1
"""Rate [Hz] that is added, so that a silent network has a logarithm."""


def population_features(spikes: Int[Array, "time neuron"], dt: float) -> Float[Array, " feature"]:
    """Describe one run by `FEATURE_NAMES`.

    Args:
        spikes: of each frame.
        dt: length of a frame [ms].

    Returns:
        The features. Where no neuron has two intervals, the CV is 1, that of rare and independent spikes.
    """
    rates = spikes.sum(0, dtype=jnp.int32) / (1e-3 * dt * spikes.shape[0])
    mean = rates.mean()
    cv, known = isi_cvs(spikes)
    count = jnp.maximum(known.sum(), 1)
    isi_cv = jnp.where(known.any(), cv.sum() / count, 1.0)
    spread = jnp.sqrt(jnp.sum(jnp.where(known, jnp.square(cv - isi_cv), 0)) / count + 1e-6)
    return jnp.stack([jnp.log(mean + _SILENT), isi_cv, rates.std() / (mean + _SILENT), spread])


class FeatureTarget(NamedTuple):
    """What was observed of a network.

    Attributes:
        features: of each run; see `FEATURE_NAMES`.
        duration: of each run [ms]; simulations are as long, because the features depend on it.
        dt: time between frames [ms].
    """

    features: Float[Array, "run feature"]
    duration: float
    dt: float

    @classmethod
    def of(cls, spikes: Int[Array, "run time neuron"], dt: float) -> "FeatureTarget":
        """Describe recorded runs.

        Args:
            spikes: of every run, frame and neuron.
            dt: length of a frame [ms].

        Returns:
            The target.

        Raises:
            ValueError: if there are too few runs for a covariance.
        """
        if len(spikes) < 2 * len(FEATURE_NAMES):
            raise ValueError(
                f"the recording has {len(spikes)} runs; the covariance of {len(FEATURE_NAMES)} features takes "
                f"{2 * len(FEATURE_NAMES)} or more: cut a long run into pieces, or record more"
            )
        describe = jax.jit(partial(population_features, dt=dt))
        features = jnp.stack([describe(jnp.asarray(run)) for run in spikes])
        return cls(features, dt * spikes.shape[1], dt)


class FeatureProblem(eqx.Module):
    r"""A network's features as a function of unconstrained numbers, compared with those observed.

    Every run draws connections, start and background from its own key, and the keys stay the same whatever the
    parameters are. The derivative is the central difference of features between networks that share their keys: a spike
    is an event, and what a parameter does to statistics passes through its disappearance, which no derivative of a
    spike time has. Common random numbers keep the difference's own noise small.

    Attributes:
        simulator: everything that is not trained; not connected.
        trainable: what is trained.
        mean: the observed features.
        whitener: lower triangular; makes the covariance of mean simulated minus mean observed features the identity.
        keys: one for each simulated run.
        duration: of a run [ms].
        warmup: simulated before it [ms].
        dt: length of a frame [ms].
        probes: runs that each difference takes, the first of all: a slope need not be as exact as a value.
        step: half the distance over which the derivative is taken, in unconstrained numbers.
    """

    simulator: SteppedSimulator
    trainable: Trainable
    mean: Float[Array, " feature"]
    whitener: Float[Array, "feature feature"]
    keys: Key[Array, " run"]
    duration: float = eqx.field(static=True)
    warmup: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    probes: int = eqx.field(static=True)
    step: float = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        simulator: SteppedSimulator,
        target: FeatureTarget,
        trainable: Trainable,
        *,
        key: Key[Array, ""],
        runs: int,
        probes: int = 64,
        warmup: float = 100.0,
        step: float = 0.2,
    ) -> "FeatureProblem":
        """Put a fit together.

        Args:
            simulator: the network, not connected.
            target: what was observed; the covariance of a run's features is taken from it.
            trainable: which parameters.
            key: random key of the simulated runs.
            runs: how many.
            probes: as for the class.
            warmup: time before each [ms].
            step: as for the class.

        Returns:
            The problem.
        """
        observed = np.asarray(target.features, float)
        covariance = np.cov(observed.T) * (1 / len(observed) + 1 / runs)
        whitener = np.linalg.inv(np.linalg.cholesky(covariance))
        mean, whitener = jnp.asarray(observed.mean(0)), jnp.asarray(whitener)
        return cls(
            simulator,
            trainable,
            mean,
            whitener,
            trial_keys(key, runs),
            target.duration,
            warmup,
            target.dt,
            min(probes, runs),
            step,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What each element of the vector stands for."""
        return self.trainable.names

    @property
    def first(self) -> Float[Array, " parameter"]:
        """The vector of the simulator's own values."""
        return self.trainable.unconstrain(self.trainable.values(self.simulator))

    def values(self, q: Float[Array, " parameter"]) -> Float[Array, " parameter"]:
        """The values, in their units."""
        return self.trainable.constrain(q)

    def runs(self, q: Float[Array, " parameter"], first: int | None = None) -> Float[Array, "run feature"]:
        """Simulate every run, or the first ones, and describe it."""
        simulator = self.trainable.insert(self.simulator, self.trainable.constrain(q))
        return simulate_features(simulator, self.keys[:first], duration=self.duration, warmup=self.warmup, dt=self.dt)

    def residuals(self, q: Float[Array, " parameter"]) -> Float[Array, " feature"]:
        """Simulated minus observed features in units of their uncertainty, and uncorrelated at the truth."""
        return self.whitener @ (_differenced(q, problem=self) - self.mean)


@partial(jax.jit, static_argnames=("duration", "warmup", "dt"))
def simulate_features(
    simulator: SteppedSimulator, keys: Key[Array, " run"], *, duration: float, warmup: float, dt: float
) -> Float[Array, "run feature"]:
    """Draw, connect and run a network for each key, and describe it.

    Args:
        simulator: the network, not connected.
        keys: of the runs.
        duration: of a run [ms].
        warmup: before it [ms].
        dt: length of a frame [ms].

    Returns:
        The features.
    """

    def one(key):
        recording = simulate(
            simulator.connect(stream(key, "connectivity")),
            duration=duration,
            key=stream(key, "run"),
            record=("spikes",),
            record_every=round(dt / simulator.dt),
            warmup=warmup,
            throw=False,
        )
        return population_features(recording.values["spikes"], dt)

    return jax.vmap(one)(keys)


@eqx.filter_custom_jvp
def _differenced(q, *, problem):
    """Mean features; their derivative is that of central differences."""
    return problem.runs(q).mean(0)


@_differenced.def_jvp
def _differenced_jvp(primals, tangents, *, problem):
    (q,), (t,) = primals, tangents
    h = problem.step
    moved = lax.map(lambda side: problem.runs(q + side * h * t, problem.probes).mean(0), jnp.asarray([-1.0, 1.0]))
    return problem.runs(q).mean(0), (moved[1] - moved[0]) / (2 * h)


class NetworkFeatures(Config):
    """Least squares on features of a network, whose derivatives are differences under common random numbers.

    Attributes:
        starts: random starts, anywhere between the bounds.
        coarse_runs: simulated runs of each while it searches.
        coarse_steps: most steps of the search.
        runs: simulated runs of the best one while it is refined.
        probes: of these runs, so many for each difference.
        steps: most steps of the refinement.
        warmup_ms: simulated before each run [ms].
        difference: half the distance of the differences, in unconstrained numbers.
    """

    gradients: ClassVar[bool] = False
    name: Literal["features"] = "features"
    starts: int = Field(default=6, ge=1)
    coarse_runs: int = Field(default=4, ge=1)
    coarse_steps: int = Field(default=8, ge=1)
    runs: int = Field(default=256, ge=2)
    probes: int = Field(default=64, ge=1)
    steps: int = Field(default=3, ge=1)
    warmup_ms: float = Field(default=100.0, ge=0)
    difference: float = Field(default=0.2, gt=0)


class FeatureFit(NamedTuple):
    """What a fit of a network found.

    Attributes:
        problem: the refined problem, for intervals, profiles and the posterior.
        q: the vector.
        values: the fitted values, in their units.
        coarse: the search from every start.
        solution: the refinement.
        chi2: sum of squared residuals; its expectation is the number of features less that of parameters.
        p_value: of that sum.
        agreeing: share of the starts whose end explains the features.
        ok: whether the fit can be believed.
        reason: if not, why.
        simulated_s: simulated time of all runs together [s].
        seconds: wall time, compilation included.
    """

    problem: FeatureProblem
    q: Float[Array, " parameter"]
    values: Float[np.ndarray, " parameter"]
    coarse: Solution
    solution: Solution
    chi2: float
    p_value: float
    agreeing: float
    ok: bool
    reason: str
    simulated_s: float
    seconds: float


def fit_features(
    simulator: SteppedSimulator,
    target: FeatureTarget,
    trainable: Sequence[str] | Mapping[str, tuple[float, float] | None] | Trainable,
    *,
    key: Key[Array, ""],
    options: NetworkFeatures | None = None,
) -> FeatureFit:
    """Fit parameters of a network to features of its population, from many starts.

    Args:
        simulator: the network, not connected: each simulated run draws its own connections.
        target: what was observed.
        trainable: names of the parameters, or names and bounds.
        key: random key, of the starts and the simulated runs.
        options: how.

    Returns:
        The fit; `ok` and `reason` say whether to believe it.
    """
    options, began = options or NetworkFeatures(), time.perf_counter()
    if not isinstance(trainable, Trainable):
        trainable = Trainable.of(simulator, trainable)

    def problem(name, runs):
        how = {"runs": runs, "probes": options.probes, "warmup": options.warmup_ms, "step": options.difference}
        return FeatureProblem.of(simulator, target, trainable, key=stream(key, name), **how)

    coarse, fine = problem("coarse", options.coarse_runs), problem("fine", options.runs)
    # The logistic is uniform between two bounds; its tails, where a parameter sits at its bound, are left out.
    starts = jnp.clip(jax.random.logistic(stream(key, "starts"), (options.starts, len(trainable.names))), -2, 2)
    # One bound alone: the number is a logarithm, around the simulator's own value.
    finite = np.isfinite(np.asarray(trainable.bounds)).all(1)
    starts = jnp.where(finite[None], starts, coarse.first[None] + 0.5 * starts)  # pyright: ignore
    searched = levenberg_marquardt(coarse.residuals, starts, steps=options.coarse_steps, tolerance=0.03)
    refined = levenberg_marquardt(fine.residuals, searched.q[searched.best][None], steps=options.steps, tolerance=0.03)
    return _concluded(fine, searched, refined, options, began)


def _concluded(
    problem: FeatureProblem, coarse: Solution, fine: Solution, options: NetworkFeatures, began: float
) -> FeatureFit:
    """Judge the refined fit."""
    q, count = fine.q[0], len(FEATURE_NAMES)
    values = np.asarray(problem.values(q))
    total = float(fine.cost[0]) * count
    p_value = float(chdtrc(count - len(values), total)) if np.isfinite(total) else 0.0
    agreeing = float(np.mean(np.nan_to_num(chdtrc(count - len(values), np.asarray(coarse.cost) * count)) > _LEAST))
    faults = []
    if p_value < _LEAST:
        faults.append(
            f"the features are off by a chi-squared of {total:.3g} where {count - len(values)} is expected: "
            "either a wrong minimum, or a network that cannot have them"
        )
    low, high = problem.trainable.lower, problem.trainable.upper
    for name, value, a, b in zip(problem.names, values, low, high, strict=True):
        if min(value - a, b - value) < 1e-3 * abs(value):
            faults.append(f"{name} = {value:.3g} is at its bound")
    # A step takes all runs once, and two smaller simulations for each column.
    steps = {one: stage.simulations / (1 + len(values)) for one, stage in (("coarse", coarse), ("fine", fine))}
    each = {"coarse": options.coarse_runs, "fine": options.runs}
    runs = sum(steps[s] * (each[s] + 2 * len(values) * min(options.probes, each[s])) for s in steps)
    return FeatureFit(
        problem=problem,
        q=q,
        values=values,
        coarse=coarse,
        solution=fine,
        chi2=total,
        p_value=p_value,
        agreeing=agreeing,
        ok=not faults,
        reason="; ".join(faults),
        simulated_s=1e-3 * runs * (problem.duration + problem.warmup),
        seconds=time.perf_counter() - began,
    )
