r"""Parameters of a spiking network from statistics of its runs, by least squares under common random numbers.

Every run draws connections, start and background from its own key, and the keys stay the same whatever the parameters
are. The derivative is the central difference of statistics between networks that share their keys: a spike is an event,
and what a parameter does to statistics passes through its disappearance, which no derivative of a spike time has.
Common random numbers keep the difference's own noise \(\Delta\) small, but not zero: \(\hat J^T P \hat J\) exceeds the
information \(J^T P J\) by \(E[\Delta^T P \Delta]\) on average. That is known from the spread over keys, and taken off;
else the noise of a slope would pass for information.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.devices import double_precision
from jneuro.core.progress import Task
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.methods.least_squares import Method
from jneuro.fitting.methods.levenberg_marquardt import Point, Rule, Stand
from jneuro.fitting.objectives import Match, Residuals
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Problem
from jneuro.fitting.solution import Keep, Solution, faults
from jneuro.recordings.recording import Recording
from jneuro.simulators.simulation import simulate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.sweeps.measures import as_measure, result_like

__all__ = ["NetworkFeatures", "NetworkProblem", "Refinement", "Runs", "refined", "simulate_runs"]

_STATISTICS = (Match("network_statistics"),)
"""What is matched unless something else is named."""
_RULE = Rule(factor=5.0, low=None, high=None)
_RIDGE = 1e-9
"""Added to the curvature, so that a direction without any has a step."""
_FARTHEST = 1.0
"""The longest step, in unconstrained numbers."""
_SETTLED, _RESTS = 3.0, 0.1
"""Standard errors that the last step of a refinement may have; and longest step of a search that is at rest."""


def _numbers(objectives: Sequence[Match], recording: Recording, populations: Sequence[int]) -> dict[str, Array]:
    """All statistics of one run by name."""
    found = {}
    for objective in objectives:
        for name, values in objective.numbers(recording, populations).items():
            flat = jnp.ravel(values)
            found |= {name if flat.size == 1 else f"{name}[{i}]": x for i, x in enumerate(flat)}
    return found


class Runs(NamedTuple):
    """Recorded runs of a network, by their statistics.

    Attributes:
        names: of the statistics.
        features: the statistics of each run.
        duration: of each run [ms]; simulations are as long, because statistics depend on it.
        dt: time between frames [ms].
    """

    names: tuple[str, ...]
    features: Float[Array, "run feature"]
    duration: float
    dt: float

    @classmethod
    def of(cls, spikes: Any, dt: float, objectives: Sequence[Match] = _STATISTICS, populations: Any = ()) -> "Runs":
        """Describe recorded runs.

        Args:
            spikes: of every run, frame and neuron.
            dt: length of a frame [ms].
            objectives: the measures that describe them.
            populations: sizes of the populations of neurons, for measures that take them.

        Returns:
            The runs.

        Raises:
            ValueError: if there are too few runs for a covariance, or a measure fails.
        """
        if np.ndim(spikes) != 3:
            raise ValueError(f"the spikes have the shape {np.shape(spikes)}; a network's are [run, time, neuron]")
        names: list[str] = []

        def recording(run):
            origin = {"ok": jnp.asarray(True), "first_step": jnp.asarray(0), "final_state": None}
            how = {"step": dt, "record_every": 1, "frames": run.shape[0], "unit_pairs": (("spikes", "1"),)}
            return Recording({"spikes": run}, **origin, **how)

        @jax.jit
        def describe(run):
            found = _numbers(objectives, recording(run), populations)
            names[:] = found
            return jnp.stack([*found.values()]) if found else jnp.zeros(0)

        for objective in objectives if len(spikes) else ():
            result_like(as_measure(objective.measure), jax.eval_shape(recording, jnp.asarray(spikes[0])), populations)

        described = [describe(jnp.asarray(run)) for run in spikes]
        if len(described) < max(2 * len(names), 2):
            raise ValueError(
                f"the recording has {len(described)} runs; the covariance of {len(names)} features takes "
                f"{2 * len(names)} or more: cut a long run into pieces, or record more"
            )
        features = jnp.stack(described)
        for name, column in zip(names, np.asarray(features).T, strict=True):
            if bad := int(np.sum(~np.isfinite(column))):
                raise ValueError(f"{name} of {bad} of {len(column)} runs is not finite; a fit needs a number of each")
        return cls(tuple(names), features, dt * np.shape(spikes)[1], dt)


class NetworkProblem(Problem):
    """A network, not connected, and statistics of its recorded runs: each simulated run draws its own connections.

    Attributes:
        simulator: everything that is not trained.
        target: the recorded runs.
        trainable: what is trained.
        objectives: the measures that describe a run.
    """

    simulator: SteppedSimulator
    target: Runs
    trainable: Trainable
    objectives: tuple[Match, ...] = eqx.field(static=True)

    @classmethod
    def of(
        cls, simulator: SteppedSimulator, target: Recording | Runs, trainable: Trainable, objectives: tuple[Any, ...]
    ) -> "NetworkProblem":
        """Put a fit together.

        Args:
            simulator: what is fitted.
            target: to what: the recorded runs, or a recording of their spikes, `[run, time, neuron]`.
            trainable: which parameters.
            objectives: what is matched, each a `Match`; by default `network_statistics`.

        Raises:
            ValueError: for another objective, or a recording that cannot be described.
        """
        objectives = objectives or _STATISTICS
        for objective in objectives:
            if not isinstance(objective, Match):
                raise ValueError(
                    f"objective: {type(objective).__name__} compares trials; of a network, statistics of runs are "
                    "compared: give measures, as in {name: match, measure: network_statistics}"
                )
            if objective.sd is not None:
                raise ValueError("objective: sd of a network's statistics is that over its runs; leave it out")
            if other := [name for name in as_measure(objective.measure).needs if name != "spikes"]:
                raise ValueError(f"objective: {objective.measure.name} needs {other[0]!r}; a network shows spikes")
        if not isinstance(target, Recording | Runs):
            said = f"got {type(target).__name__}; jneuro.recordings.read(path) gives one of a store"
            raise ValueError(f"a fit of a network takes a Recording of several runs, {said}")
        if isinstance(target, Recording):
            if "spikes" not in target.values:
                raise ValueError("the recording has no 'spikes'; record the spikes of every neuron")
            target = Runs.of(target.values["spikes"], target.dt, objectives, tuple(simulator.populations.values()))
        if len(target.names) < len(trainable.names):
            raise ValueError(
                f"objective: {len(target.names)} statistics ({', '.join(target.names)}) cannot tell "
                f"{len(trainable.names)} parameters; match more measures"
            )
        return cls(simulator, target, trainable, objectives)


def simulate_runs(
    problem: NetworkProblem, q: Float[np.ndarray, "run parameter"], keys: Key[Array, " run"], warmup: float, batch: int
) -> Float[np.ndarray, "run feature"]:
    """Draw, connect and run a network for each vector and key, and describe it.

    Args:
        problem: the network, and how its runs are described.
        q: unconstrained numbers of each run.
        keys: of each run.
        warmup: before it [ms].
        batch: runs that are computed side by side. There is one program, whatever the number of runs and parameters.

    Returns:
        The statistics.
    """
    target = problem.target
    how = (target.duration, warmup, target.dt, problem.trainable, problem.objectives)
    found = []
    for first in range(0, len(keys), batch):
        some = np.minimum(np.arange(first, first + batch), len(keys) - 1)
        features = _simulated(problem.simulator, keys[some], jnp.asarray(q[some], float), how)
        found.append(np.asarray(features, np.float64)[: len(keys) - first])
    return np.concatenate(found)


@eqx.filter_jit
def _simulated(simulator, keys, q, how):
    """The statistics of some runs, side by side."""
    duration, warmup, dt, trainable, objectives = how

    def one(key, q):
        network = trainable.insert(simulator, trainable.constrain(q))
        recording = simulate(
            network.connect(stream(key, "connectivity")),
            duration=duration,
            key=stream(key, "run"),
            record=("spikes",),
            record_every=dt,
            warmup=warmup,
            throw=False,
        )
        return jnp.stack([*_numbers(objectives, recording, tuple(simulator.populations.values())).values()])

    return jax.vmap(one)(keys, q)


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
    spread = np.atleast_2d(np.cov(observed.T) / len(observed) + np.cov(values.T) / len(values))
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


class NetworkFeatures(Method):
    """Least squares on statistics of a network, whose derivatives are differences under common random numbers.

    Levenberg–Marquardt searches with few runs from random starts, anywhere between the bounds; steps of Gauss and
    Newton refine the best end with more and more.

    Attributes:
        starts: random starts.
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

    def features(
        self, problem: NetworkProblem, q: Float[np.ndarray, "start parameter"], keys: Key[Array, " run"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Simulate around some vectors, all with the same keys.

        Returns:
            Statistics `[start, run, feature]`, and their derivatives `[start, probe, feature, parameter]`.
        """
        (starts, count), h, probes = q.shape, self.difference, min(self.probes, len(keys))
        moved = q[:, None, None] + h * np.array([-1.0, 1.0])[None, :, None, None] * np.eye(count)[None, None]
        wanted = [np.repeat(q, len(keys), 0), np.repeat(moved.reshape(-1, count), probes, 0)]
        which = [np.tile(np.arange(len(keys)), starts), np.tile(np.arange(probes), starts * 2 * count)]
        found = simulate_runs(problem, np.concatenate(wanted), keys[np.concatenate(which)], self.warmup_ms, self.batch)
        split = starts * len(keys)
        sides = found[split:].reshape(starts, 2, count, probes, -1)
        slopes = (sides[:, 1] - sides[:, 0]) / (2 * h)
        return found[:split].reshape(starts, len(keys), -1), np.moveaxis(slopes, 1, -1)

    def search(self, residuals: Residuals, key: Key[Array, ""], progress: Task, keep: Keep) -> Solution:
        """Search with few runs, refine with many."""
        del keep
        problem: Any = residuals.problem
        coarse = self._coarse(problem, self.start(residuals, key), key, progress.part("search", 0.0, 0.5))
        q, target = np.asarray(coarse.q[coarse.best], float), problem.target
        observed, keys, simulated = np.asarray(target.features, float), trial_keys(stream(key, "fine"), self.runs), 0
        for step in range(self.steps):
            text = f"refinement {step + 1} of {self.steps}"
            progress.update(0.5 + 0.5 * step / self.steps, text=text, cost=float(np.min(coarse.cost)))
            runs = max(self.runs // 4 ** (self.steps - 1 - step), min(self.probes, self.runs))
            values, slopes = self.features(problem, q[None], keys[:runs])
            simulated += self._cost_of(problem, runs)
            last = refined(observed, values[0], slopes[0])
            q = q + last.step
        moving = last.known and bool(np.any(np.abs(last.step) > _SETTLED * np.sqrt(np.diag(last.covariance))))
        return coarse._replace(
            finished=jnp.full(len(coarse.q), not moving),
            simulations=(coarse.simulations + simulated) * (1 + self.warmup_ms / target.duration),
            prediction=values[0] + (slopes[0].mean(0) @ last.step)[None],  # along the mean slopes
            covariance=last.covariance,
            fault="; ".join(faults(slopes=last.known)),
            chi2=last.chi2,
            refined=q,
        )

    def _cost_of(self, problem: NetworkProblem, runs: int) -> int:
        """Simulations that the statistics of so many runs, and their derivatives, take."""
        return runs + 2 * len(problem.trainable.names) * min(self.probes, runs)

    def start(self, residuals: Residuals, key: Key[Array, ""]) -> Any:
        """Random starts. The logistic is uniform between two bounds; its tails, at the bounds, are left out."""
        trainable = residuals.problem.trainable
        drawn = jax.random.logistic(stream(key, "starts"), (self.starts, len(trainable.names)))
        starts = np.clip(np.asarray(drawn, float), -2, 2)
        # One bound alone: the number is a logarithm, around the simulator's own value.
        own = np.asarray(trainable.unconstrain(trainable.values(residuals.problem.simulator)), float)
        finite = np.isfinite(trainable.lower) & np.isfinite(trainable.upper)
        return np.where(finite[None, :], starts, own[None, :] + 0.5 * starts)

    def _coarse(self, problem: NetworkProblem, starts: np.ndarray, key: Key[Array, ""], progress: Task) -> Solution:
        """Levenberg–Marquardt with few runs, from all starts at once."""
        observed, keys = np.asarray(problem.target.features, float), trial_keys(stream(key, "coarse"), self.coarse_runs)
        covariance = np.atleast_2d(np.cov(observed.T)) * (1 / len(observed) + 1 / self.coarse_runs)
        whitener = np.linalg.inv(np.linalg.cholesky(covariance)) / np.sqrt(observed.shape[1])
        history = np.full((len(starts), self.coarse_steps + 1), np.nan)
        with double_precision():
            stand = jax.vmap(lambda q: _before(q, observed.shape[1]))(jnp.asarray(starts))
        for step in range(self.coarse_steps + 1):
            with double_precision():
                tried = np.asarray(_propose(stand)[0])
            values, slopes = self.features(problem, tried, keys)
            residual = (values.mean(1) - observed.mean(0)) @ whitener.T
            with double_precision():
                stand = _judge(stand, tried, residual, whitener @ slopes.mean(1))
            history[:, step] = stand.best.cost
            text, lowest = f"step {step + 1} of {self.coarse_steps + 1}", float(np.min(history[:, step]))
            progress.update((step + 1) / (self.coarse_steps + 1), text=text, cost=lowest)
        with double_precision():
            q, cost, moved = (np.asarray(x) for x in (stand.best.q, stand.best.cost, _propose(stand)[1]))
        each = self._cost_of(problem, self.coarse_runs) * (self.coarse_steps + 1) * len(q)
        return Solution(jnp.asarray(q), jnp.asarray(cost), jnp.asarray(history), jnp.asarray(moved < _RESTS), each)


def _before(q: Array, features: int) -> Stand:
    """A start, from which the first step does not move, and than which anything finite is better."""
    stand = Stand.at(Point.before(q, features, np.inf), 1.0)
    return stand._replace(fresh=jnp.asarray(False))


@jax.jit
def _propose(stand: Stand) -> tuple[Array, Array]:
    """The places of the next visits, and how far away they are."""

    def one(stand):
        best: Point = stand.best
        curvature = jnp.einsum("rp,rp->p", best.root, best.root)
        step = jnp.clip(best.step(stand.damping, curvature + _RIDGE / stand.damping), -_FARTHEST, _FARTHEST)
        return best.q + step, jnp.abs(step).max()

    return jax.vmap(one)(stand)


@jax.jit
def _judge(stand: Stand, q: Array, residual: Array, slope: Array) -> Stand:
    """Go on from what was simulated."""

    def one(stand, q, residual, slope):
        finite = jnp.isfinite(residual).all()
        point = Point.of(q, residual, slope)._replace(cost=jnp.where(finite, jnp.sum(jnp.square(residual)), jnp.inf))
        return _RULE.advance(stand, point, _RULE.judge(stand, point.cost))

    return jax.vmap(one)(stand, q, residual, slope)
