"""The verb: simulator parameters from a recording."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, ValidationError, field_validator

from jneuro.core.config import Config, first_error
from jneuro.core.devices import double_precision
from jneuro.core.progress import Progress, Task, working
from jneuro.core.random import require_key
from jneuro.core.registry import accepted
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.fitting.kinds import METHODS, OBJECTIVES, made, of_networks
from jneuro.fitting.methods.least_squares import LeastSquares
from jneuro.fitting.methods.network import NetworkProblem, Runs
from jneuro.fitting.objectives import Residuals, Voltage, require_residuals
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import CellProblem, Trials, clamped
from jneuro.fitting.solution import Keep, Solution, anew, faults, probability
from jneuro.recordings.recording import Recording
from jneuro.simulators.kinds import SOLVERS, as_solver
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.spiking import Exact, Surrogate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.spikes.detection import Detector

__all__ = ["Fit", "FitOptions", "fit", "predict"]

_SAME = 0.02
"""Costs that differ by less, in units of the noise's variance, are the same minimum."""
_PROBABLE = 1e-3
"""A start whose end is at least so probable explains the statistics of a network."""


class FitOptions(Config):
    """How to fit.

    Attributes:
        method: the way.
        objective: what is minimised: a sum of parts; by default the potential of a cell, the statistics of a network.
        free_start: whether the states at the beginning are unknown, and fitted too; else they are the given ones, or
            the simulator's own.
        noise_mv: standard deviation of the measurement noise [mV]; by default estimated from the recording.
        dt_ms: time step of an ODE simulator [ms]; by default its own.
        solver: scheme of an ODE simulator.
        gradient: for cells that are reset at their spikes, such as Izhikevich's: `exact` integrates the equations by
            RK4 and locates spikes within steps, which gives them the derivatives of the equations; a `Surrogate`, such
            as `SuperSpike()`, keeps the cell's own scheme. None: their spikes carry no gradient.
        spikes: what counts as a spike: a threshold, `{threshold_mv: -20}` or `{threshold_mv: auto}`, from which the
            potential must have returned; see `Detector`. Cells with a reset say themselves when they spike.
        accept: a fit whose mean squared error of the potential is more than this, in units of the noise's variance, is
            flagged as not explaining the data.
    """

    method: Annotated[Any, METHODS.field()] = LeastSquares()
    objective: tuple[Annotated[Any, OBJECTIVES.field()], ...] | None = Field(default=None, min_length=1)
    free_start: bool = False
    noise_mv: float | None = Field(default=None, gt=0)
    dt_ms: float | None = Field(default=None, gt=0)
    solver: Annotated[Any, SOLVERS.field()] = Field(default="rk4", validate_default=True)
    gradient: Any = None
    spikes: Detector = Detector()
    accept: float = Field(default=1.2, gt=0)

    @field_validator("solver")
    @classmethod
    def _fixed_step(cls, value: Any) -> Any:
        if isinstance(as_solver(value), diffrax.AbstractSolver):
            return value
        raise ValueError(f"solver = {value.name!r} chooses its own steps; a fit needs fixed ones, as of rk4 or heun")

    @field_validator("gradient")
    @classmethod
    def _derivative(cls, value: Any) -> Any:
        if value in ("exact", None) or isinstance(value, Surrogate):
            return value
        raise ValueError(f"gradient = {value!r} must be exact, or in Python a Surrogate, such as SuperSpike()")


class Fit(NamedTuple):
    """What a fit found.

    Attributes:
        simulator: the simulator with the fitted values.
        problem: the problem, for intervals and profiles.
        q: the best vector of unconstrained numbers.
        names: of the fitted values: parameters, then start states.
        values: the fitted values, in their units.
        solution: the end of every start.
        prediction: the fitted potential of every trial; of a network, the statistics of the last simulated runs, moved
            by the last step along their mean slopes.
        data_cost: mean squared error of the potential, in units of the noise's variance, about 1 at the truth; NaN if
            the potential was not fitted. Of a network, \\(\\chi^2\\) by its degrees of freedom.
        agreeing: the share of starts that came to the same cost; of a network, whose end explains the statistics.
        ok: whether the fit can be believed.
        reason: if not, why.
        simulations: simulation equivalents, all starts together.
        seconds: wall time, compilation included.
    """

    simulator: Any
    problem: Any
    q: Float[Array, " unknown"]
    names: tuple[str, ...]
    values: Float[np.ndarray, " unknown"]
    solution: Solution
    prediction: Float[Array, "trial time"]
    data_cost: float
    agreeing: float
    ok: bool
    reason: str
    simulations: float
    seconds: float


def fit(
    simulator: ODESimulator | SteppedSimulator,
    recording: Recording | Trials | Runs,
    trainable: Sequence[str] | Mapping[str, tuple[float, float] | None] | Trainable,
    *,
    key: Key[Array, ""],
    objective: Any = None,
    method: Any = None,
    options: FitOptions | None = None,
    start: PyTree = None,
    progress: Task | Progress | bool | None = None,
    keep: Keep = anew,
) -> Fit:
    """Fit parameters of a cell to recorded potentials, in double precision, or of a network to statistics of its runs.

    Args:
        simulator: the cell; its values are the middle of random starts, and hold where nothing is trained. Or the
            network, not connected.
        recording: `v` and `current` of one or several trials; of a network, `spikes` of several runs.
        trainable: names of the parameters, or names and bounds.
        key: random key, of the starts and of simulated runs.
        objective: what is minimised, or a list of parts: names, mappings of a name and arguments, or objects with a
            method `residuals(predicted, recorded)`; by default the potential, or statistics of a network.
        method: the way: a name, a mapping, or an object with a method `solve(residuals, key, progress)` that returns a
            `Solution`; by default least squares.
        options: how, in all else, and where `objective` and `method` are not given.
        start: the cell's state before the first sample, where it is known.
        progress: shows how far the fit is: None fits that last longer than 2 s, on a terminal and in a notebook; True
            at once, elsewhere as lines on standard error; False never.
        keep: given what is finished, which it may have already.

    Returns:
        The fit; `ok` and `reason` say whether to believe it.

    Raises:
        ValueError: for a recording, parameters, an objective or a method that do not fit each other, before anything is
            simulated.
    """
    require_key(key)
    if not isinstance(simulator, ODESimulator | SteppedSimulator):
        said = f"{simulator.__name__} is a class" if isinstance(simulator, type) else f"got {type(simulator).__name__}"
        raise ValueError(f"simulator must be an object of an ODESimulator or a SteppedSimulator; {said}")
    if not isinstance(options, FitOptions | None):
        raise ValueError(f"options = {options!r} must be FitOptions, as in FitOptions(dt_ms=0.01)")
    network = isinstance(simulator, SteppedSimulator)
    try:
        options = _chosen(options or FitOptions(), objective, method, network)
    except ValidationError as error:
        raise ValueError(f"objective or method: {first_error(error)}") from None
    way = made(METHODS, options.method)
    parts = options.objective or (() if network else (Voltage(),))
    objectives = tuple(made(OBJECTIVES, part) for part in parts)
    with contextlib.nullcontext() if network else double_precision():
        if not isinstance(trainable, Trainable):
            trainable = Trainable.of(simulator, trainable)
        if network:
            found: Any = recording
            problem: Any = NetworkProblem.of(simulator, found, trainable, objectives)
        else:
            problem = _cell(simulator, recording, trainable, start, options)
            _require_gradients(problem, way, options.method.name)
            for i, (part, one) in enumerate(zip(parts, objectives, strict=True)):
                slopes = getattr(way, "gradients", False)
                require_residuals(one, problem.target, f"objective.{i}: {part.name}", slopes=slopes)
        residuals = Residuals(problem, objectives)

        def solve() -> Solution:
            began = time.perf_counter()
            further = {"keep": keep} if "keep" in accepted(way.solve) else {}
            with working(progress, f"fit: {options.method.name.replace('_', ' ')}") as task:
                solution = way.solve(residuals, key, task, **further)
            if not isinstance(solution, Solution):
                said = f"{type(solution).__name__}, not a jneuro.fitting.Solution"
                raise ValueError(f"{options.method.name}: solve returned {said}")
            return solution._replace(seconds=time.perf_counter() - began)

        return conclude(residuals, keep("solution", Solution, solve), options)


def _chosen(options: FitOptions, objective: Any, method: Any, network: bool) -> FitOptions:
    """The options with an objective and a method that were given besides."""
    if objective is not None:
        parts = objective if isinstance(objective, list | tuple) else [objective]
        if not parts:
            raise ValueError("objective names nothing to minimise; leave it out for the potential")
        options = options.model_copy(update={"objective": tuple(OBJECTIVES.block(part) for part in parts)})
    if method is not None:
        options = options.model_copy(update={"method": METHODS.block(method)})
    elif network and "method" not in options.model_fields_set:
        options = options.model_copy(update={"method": METHODS.block("features")})
    if of_networks(options.method) and not network:
        raise ValueError(f"method: {options.method.name} is for networks; a cell takes least_squares, spikes or others")
    if network and not of_networks(options.method):
        raise ValueError(f"method: {options.method.name} is for cells; a network takes features")
    return options


def _cell(simulator: Any, recording: Any, trainable: Trainable, start: PyTree, options: FitOptions) -> CellProblem:
    """The problem of a cell."""
    if not isinstance(recording, Trials):
        recording = Trials.of(recording, noise_sd=options.noise_mv, start=start)
    state = jax.eval_shape(simulator.init, jax.random.key(0))
    if recording.start is not None and jax.tree.structure(recording.start) != jax.tree.structure(state):
        said = f"{type(state).__name__}({', '.join(state._fields)}), got {type(recording.start).__name__}"
        raise ValueError(f"start must be a state of {type(simulator).__name__}, {said}")
    spikes = options.spikes.fixed(np.asarray(recording.v), recording.dt)
    recording = dataclasses.replace(recording, threshold=float(spikes.threshold_mv), fall=spikes.return_mv)
    how = {"dt": options.dt_ms, "solver": _scheme(simulator, options.solver), "free_start": options.free_start}
    return CellProblem.of(simulator, recording, trainable, spike_gradient=_gradient(options.gradient), **how)


def _require_gradients(problem: CellProblem, method: Any, name: str) -> None:
    """Refuse a method that would see no slope."""
    simulator = problem.simulator
    if getattr(method, "gradients", False) and not problem.smooth and problem.spike_gradient is None:
        raise ValueError(
            f"{name} needs derivatives, which the spikes of {type(simulator).__name__} do not have; "
            "take gradient: exact, in Python gradient=SuperSpike(), or the method cma"
        )


def conclude(residuals: Residuals, solution: Solution, options: FitOptions) -> Fit:
    """Take the best of all starts, and judge it.

    Args:
        residuals: what was minimised.
        solution: the end of every start.
        options: of the fit.
    """
    began, best = time.perf_counter(), solution.best
    problem: Any = residuals.problem
    prediction: Any = solution.prediction
    q, cost = (solution.q[best] if solution.refined is None else solution.refined), np.asarray(solution.cost)
    if isinstance(problem, CellProblem):
        prediction, values, error = _judged(problem, q, prediction)
        data_cost = float(error) if residuals.of_potential else float("nan")
        agreeing = cost <= cost[best] + _SAME
        evidence: dict[str, Any] = {"data_cost": float(error) if residuals.of_potential else 0.0}
        evidence["quiet"] = problem.target.quiet
        if problem.simulator.has_threshold and not residuals.of_potential_alone:
            target = problem.target
            evidence["doubts"] = options.spikes(np.asarray(target.v), target.dt).doubts
    else:
        values = problem.values(jnp.asarray(q))
        count = problem.target.features.shape[1]
        freedom = count - len(problem.names)
        chi2 = solution.chi2
        data_cost = float("nan") if chi2 is None else chi2 / max(freedom, 1)
        agreeing = probability(cost * count, max(freedom, 1)) > _PROBABLE
        evidence = {"chi2": (chi2, freedom) if freedom and chi2 is not None else None}
    trainable, values = problem.trainable, np.asarray(values)
    evidence["values"] = {
        name: (float(value), bounds, scale)
        for name, value, bounds, scale in zip(trainable.names, values, trainable.bounds, trainable.scale, strict=False)
    }
    reasons = faults(
        finite=bool(np.isfinite(cost[best])),
        finished=bool(solution.finished[best]),
        method=solution.fault,
        accept=options.accept,
        **evidence,
    )
    reason = "; ".join(reasons)
    return Fit(
        simulator=problem.unpack(jnp.asarray(q))[0],
        problem=problem,
        q=q,
        names=problem.names,
        values=values,
        solution=solution,
        prediction=prediction,
        data_cost=data_cost,
        agreeing=float(np.mean(agreeing)),
        ok=not reason,
        reason=reason,
        simulations=solution.simulations,
        seconds=solution.seconds + time.perf_counter() - began,
    )


@eqx.filter_jit
def _judged(problem: CellProblem, q: Array, predicted: Array | None) -> tuple[Array, Array, Array]:
    """Prediction, values and the mean squared error."""
    v = problem.predict(q) if predicted is None else predicted
    return v, problem.values(q), jnp.mean(jnp.square((v - problem.target.v) / problem.target.noise_sd))


def predict(
    simulator: ODESimulator,
    target: Trials,
    *,
    dt: float | None = None,
    solver: str = "rk4",
    gradient: Any = None,
    own_start: bool = False,
) -> Trials:
    """Predict trials that were not fitted: potentials `v`, and `spike_times()`.

    Args:
        simulator: a fitted one.
        target: the currents; and, where their start is not known, the potentials with which to begin.
        dt: time step [ms], as it was fitted with.
        solver: scheme, as it was fitted with.
        gradient: as it was fitted with.
        own_start: begin in the simulator's own start rather than in the state of a cell held at the first sample.

    Returns:
        The trials, as the simulator shows them.
    """
    with double_precision():
        return _observed(_untrained(simulator, target, dt, solver, gradient, own_start))


def _untrained(simulator, target: Trials, dt: float | None, solver: str, gradient: Any, own_start: bool) -> CellProblem:
    """A problem in which nothing is trained."""
    if target.start is None and not own_start and not simulator.has_reset:
        start = clamped(simulator, target)
        target = eqx.tree_at(lambda t: t.start, target, start, is_leaf=lambda x: x is None)
    how = {"dt": dt, "solver": _scheme(simulator, solver), "spike_gradient": _gradient(gradient)}
    return CellProblem.of(simulator, target, Trainable((), (), ()), **how)


def _scheme(simulator, solver: str):
    """The scheme of a cell; one with a reset brings its own."""
    return None if simulator.has_reset else as_solver(solver)


def _gradient(value: Any) -> Any:
    """What `simulate` takes for `gradient`."""
    return Exact() if value == "exact" else value


@eqx.filter_jit
def _observed(problem: CellProblem) -> Trials:
    """Potential and spikes."""
    return problem.observe(jnp.zeros(0))
