r"""Parameters of a spiking network from its features, by least squares under common random numbers.

Every run draws connections, start and background from its own key, and the keys stay the same whatever the parameters
are. The derivative is the central difference of features between networks that share their keys: a spike is an event,
and what a parameter does to statistics passes through its disappearance, which no derivative of a spike time has.
Common random numbers keep the difference's own noise \(\Delta\) small, but not zero: \(\hat J^T P \hat J\) exceeds the
information \(J^T P J\) by \(E[\Delta^T P \Delta]\) on average. That is known from the spread over keys, and taken off;
else the noise of a slope would pass for information.
"""

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field
from scipy.special import chdtrc

from jneuro.core.config import Config
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.networks import FEATURE_NAMES, FeatureTarget, simulate_features
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.solution import Solution
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["FeatureFit", "FeatureProblem", "Features", "NetworkFeatures", "Refinement", "fit_features", "refined"]

_LEAST = 1e-3
"""Features that are less probable are not explained."""
_FARTHEST = 1.0
"""The longest step, in unconstrained numbers."""
_SETTLED = 3.0
"""Standard errors that the last step may have."""


class NetworkFeatures(Config):
    """Least squares on features of a network, whose derivatives are differences under common random numbers.

    Attributes:
        starts: random starts, anywhere between the bounds.
        coarse_runs: simulated runs of each while it searches.
        coarse_steps: steps of the search.
        runs: simulated runs of the best one in the last step of its refinement; a quarter of them in the step before,
            and so on.
        probes: runs of each side of a difference.
        steps: of the refinement.
        warmup_ms: simulated before each run [ms].
        difference: half the distance of the differences, in unconstrained numbers.
        batch: runs that are computed side by side.
    """

    gradients: ClassVar[bool] = False
    of_networks: ClassVar[bool] = True
    """Whether it fits networks, to statistics of their spikes, rather than cells."""
    name: Literal["features"] = "features"
    starts: int = Field(default=6, ge=1)
    coarse_runs: int = Field(default=4, ge=1)
    coarse_steps: int = Field(default=8, ge=1)
    runs: int = Field(default=2048, ge=8)
    probes: int = Field(default=64, ge=8)
    steps: int = Field(default=3, ge=1)
    warmup_ms: float = Field(default=100.0, ge=0)
    difference: float = Field(default=0.5, gt=0)
    batch: int = Field(default=64, ge=1)


class Features(NamedTuple):
    """Simulated features around some vectors.

    Attributes:
        values: at the vectors themselves.
        slopes: their derivatives by unconstrained numbers.
    """

    values: Float[np.ndarray, "start run feature"]
    slopes: Float[np.ndarray, "start probe feature parameter"]


class FeatureProblem(NamedTuple):
    """A network's features as a function of unconstrained numbers.

    Attributes:
        simulator: everything that is not trained; not connected.
        target: what was observed.
        trainable: what is trained.
        options: how.
    """

    simulator: SteppedSimulator
    target: FeatureTarget
    trainable: Trainable
    options: NetworkFeatures

    def features(self, q: Float[np.ndarray, "start parameter"], keys: Key[Array, " run"], probes: int) -> Features:
        """Simulate around some vectors, all with the same keys.

        Args:
            q: the vectors.
            keys: of the runs.
            probes: how many of them, the first ones, each difference takes.

        Returns:
            Features and slopes of every run.
        """
        (starts, count), h = q.shape, self.options.difference
        moved = q[:, None, None] + h * np.array([-1.0, 1.0])[None, :, None, None] * np.eye(count)[None, None]
        wanted = [np.repeat(q, len(keys), 0), np.repeat(moved.reshape(-1, count), probes, 0)]
        which = [np.tile(np.arange(len(keys)), starts), np.tile(np.arange(probes), starts * 2 * count)]
        found = simulate_features(
            self.simulator,
            keys[np.concatenate(which)],
            duration=self.target.duration,
            warmup=self.options.warmup_ms,
            dt=self.target.dt,
            trainable=self.trainable,
            q=np.concatenate(wanted),
            batch=self.options.batch,
        )
        split = starts * len(keys)
        sides = found[split:].reshape(starts, 2, count, probes, -1)
        slopes = (sides[:, 1] - sides[:, 0]) / (2 * h)
        return Features(found[:split].reshape(starts, len(keys), -1), np.moveaxis(slopes, 1, -1))

    def cost_of(self, runs: int) -> int:
        """Simulations that the features of so many runs take."""
        return runs + 2 * len(self.trainable.names) * min(self.options.probes, runs)


class Refinement(NamedTuple):
    """A step of Gauss and Newton from simulated features.

    Attributes:
        step: where the features are the observed ones, from where they were simulated.
        covariance: of the vector: noise of the observed features, of the simulated ones, and of their slopes.
        chi2: sum of squared residuals that is left.
        known: whether the slopes stand out of their noise.
    """

    step: Float[np.ndarray, " parameter"]
    covariance: Float[np.ndarray, "parameter parameter"]
    chi2: float
    known: bool


def refined(
    observed: Float[np.ndarray, "run feature"],
    values: Float[np.ndarray, "run feature"],
    slopes: Float[np.ndarray, "probe feature parameter"],
) -> Refinement:
    r"""Take a step, and say how sure it is.

    With the precision \(P\) of simulated minus observed mean features \(r\), \(A = \hat J^T P \hat J\) and
    \(A_0 = A - E[\Delta^T P \Delta]\), the step is \(\delta = -A_0^{-1} \hat J^T P r\). Its covariance is
    \(A_0^{-1} (A + \hat J^T P\, \mathrm{Cov}(\Delta\delta)\, P \hat J)\, A_0^{-1}\).

    Args:
        observed: features of recorded runs.
        values: of simulated runs.
        slopes: of some of them.

    Returns:
        The step.
    """
    spread = np.cov(observed.T) / len(observed) + np.cov(values.T) / len(values)
    precision = np.linalg.inv(spread)
    slope, residual = slopes.mean(0), values.mean(0) - observed.mean(0)
    away = slopes - slope
    both = len(away) * (len(away) - 1)
    gathered = slope.T @ precision
    information = gathered @ slope
    noise = np.einsum("kfp,fg,kgq->pq", away, precision, away) / both
    known = bool(np.linalg.eigvalsh(information - 4 * noise).min() > 0)
    inverse = np.linalg.inv(information - noise if known else information)
    step = -inverse @ gathered @ residual
    length = np.abs(step).max()
    step = step * min(1.0, _FARTHEST / length) if length > 0 else step
    moved = np.einsum("kfp,p->kf", away, step)
    inner = information + gathered @ (moved.T @ moved / both) @ gathered.T
    left = residual + slope @ step
    return Refinement(step, inverse @ inner @ inverse, float(left @ precision @ left), known)


class FeatureFit(NamedTuple):
    """What a fit of a network found.

    Attributes:
        trainable: what was fitted.
        q: the vector.
        values: the fitted values, in their units.
        covariance: of the vector.
        features: of the last simulated runs, moved by the last step along their mean slopes.
        coarse: the search from every start.
        chi2: sum of squared residuals; its expectation is the number of features less that of parameters.
        p_value: of that sum.
        agreeing: share of the starts whose end explains the features.
        ok: whether the fit can be believed.
        reason: if not, why.
        simulated_s: simulated time of all runs together [s].
        seconds: wall time, compilation included.
    """

    trainable: Trainable
    q: Float[np.ndarray, " parameter"]
    values: Float[np.ndarray, " parameter"]
    covariance: Float[np.ndarray, "parameter parameter"]
    features: Float[np.ndarray, "run feature"]
    coarse: Solution
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
    problem = FeatureProblem(simulator, target, trainable, options)
    coarse = _search(problem, key)
    q, observed = np.asarray(coarse.q[coarse.best], float), np.asarray(target.features, float)
    keys, simulated = trial_keys(stream(key, "fine"), options.runs), coarse.simulations
    for step in range(options.steps):
        runs = max(options.runs // 4 ** (options.steps - 1 - step), min(options.probes, options.runs))
        found = problem.features(q[None], keys[:runs], min(options.probes, runs))
        simulated += problem.cost_of(runs)
        last = refined(observed, found.values[0], found.slopes[0])
        q = q + last.step
    values = np.asarray(trainable.constrain(jnp.asarray(q)), float)
    freedom = len(FEATURE_NAMES) - len(q)
    p_value = float(chdtrc(freedom, last.chi2)) if np.isfinite(last.chi2) else 0.0
    explained = np.nan_to_num(chdtrc(freedom, np.asarray(coarse.cost) * len(FEATURE_NAMES)))
    faults = _faults(trainable, values, last, p_value, freedom)
    return FeatureFit(
        trainable=trainable,
        q=q,
        values=values,
        covariance=last.covariance,
        features=found.values[0] + (found.slopes[0].mean(0) @ last.step)[None],
        coarse=coarse,
        chi2=last.chi2,
        p_value=p_value,
        agreeing=float(np.mean(explained > _LEAST)),
        ok=not faults,
        reason="; ".join(faults),
        simulated_s=1e-3 * simulated * (target.duration + options.warmup_ms),
        seconds=time.perf_counter() - began,
    )


def _faults(trainable: Trainable, values: np.ndarray, last: Refinement, p_value: float, freedom: int) -> list[str]:
    """Why a fit should not be believed."""
    faults = []
    if p_value < _LEAST:
        faults.append(
            f"the features are off by a chi-squared of {last.chi2:.3g} where {freedom} is expected: "
            "either a wrong minimum, or a network that cannot have them"
        )
    if not last.known:
        faults.append("the slopes of the features are lost in their noise; take more probes, or a larger difference")
    elif np.any(np.abs(last.step) > _SETTLED * np.sqrt(np.diag(last.covariance))):
        faults.append("the fit was still moving when it ended; take more steps")
    for name, value, a, b in zip(trainable.names, values, trainable.lower, trainable.upper, strict=True):
        if min(value - a, b - value) < 1e-3 * abs(value):
            faults.append(f"{name} = {value:.3g} is at its bound")
    return faults


def _search(problem: FeatureProblem, key: Key[Array, ""]) -> Solution:
    """Levenberg–Marquardt with few runs, from all starts at once."""
    options, observed = problem.options, np.asarray(problem.target.features, float)
    keys = trial_keys(stream(key, "coarse"), options.coarse_runs)
    covariance = np.cov(observed.T) * (1 / len(observed) + 1 / options.coarse_runs)
    whitener = np.linalg.inv(np.linalg.cholesky(covariance))
    best = _starts(problem, key)
    cost, tried = np.full(len(best), np.inf), best
    damping, moved = np.ones(len(best)), np.full(len(best), np.inf)
    history = np.full((len(best), options.coarse_steps + 1), np.nan)
    residual = np.zeros((len(best), len(FEATURE_NAMES)))
    slope = np.zeros((*residual.shape, best.shape[1]))
    for step in range(options.coarse_steps + 1):
        found = problem.features(tried, keys, min(options.probes, len(keys)))
        r = (found.values.mean(1) - observed.mean(0)) @ whitener.T
        new = np.where(np.isfinite(r).all(1), np.square(r).mean(1), np.inf)
        better = new < cost
        best, cost = np.where(better[:, None], tried, best), np.where(better, new, cost)
        residual = np.where(better[:, None], r, residual)
        slope = np.where(better[:, None, None], whitener @ found.slopes.mean(1), slope)
        damping = damping * np.where(better, 0.2, 5.0)
        history[:, step] = cost
        curvature = np.swapaxes(slope, 1, 2) @ slope
        scale = np.einsum("spp->sp", curvature)
        damped = curvature + (damping[:, None] * scale + 1e-9)[:, None] * np.eye(best.shape[1])[None]
        away = -np.linalg.solve(damped, np.einsum("sfp,sf->sp", slope, residual)[..., None])[..., 0]
        away = np.clip(away, -_FARTHEST, _FARTHEST)
        tried, moved = best + away, np.abs(away).max(1)
    each = problem.cost_of(options.coarse_runs) * (options.coarse_steps + 1) * len(best)
    return Solution(jnp.asarray(best), jnp.asarray(cost), jnp.asarray(history), jnp.asarray(moved < 0.1), each)


def _starts(problem: FeatureProblem, key: Key[Array, ""]) -> Float[np.ndarray, "start parameter"]:
    """Random starts. The logistic is uniform between two bounds; its tails, at the bounds themselves, are left out."""
    trainable = problem.trainable
    drawn = jax.random.logistic(stream(key, "starts"), (problem.options.starts, len(trainable.names)))
    starts = np.clip(np.asarray(drawn, float), -2, 2)
    # One bound alone: the number is a logarithm, around the simulator's own value.
    own = np.asarray(trainable.unconstrain(trainable.values(problem.simulator)), float)
    finite = np.isfinite(trainable.lower) & np.isfinite(trainable.upper)
    return np.where(finite[None, :], starts, own[None, :] + 0.5 * starts)
