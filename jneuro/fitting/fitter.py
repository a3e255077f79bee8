"""The verb: simulator parameters from a recording."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from pydantic import Field, field_validator

from jneuro.core.config import Config
from jneuro.core.devices import double_precision
from jneuro.core.progress import Progress, Task, working
from jneuro.core.random import require_key
from jneuro.core.registry import accepted
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.fitting.data import Target
from jneuro.fitting.driven import where_it_begins
from jneuro.fitting.keeping import Keep, anew
from jneuro.fitting.kinds import METHODS, OBJECTIVES, made, of_networks
from jneuro.fitting.methods import LeastSquares
from jneuro.fitting.objectives import Residuals, Voltage
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Problem
from jneuro.fitting.solution import Solution
from jneuro.recordings.recording import Recording
from jneuro.simulators.kinds import SOLVERS, as_solver
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.spiking import Exact, Surrogate
from jneuro.spikes.detection import Detector, crossings, raster_times

__all__ = ["Fit", "FitOptions", "fit", "predict", "predict_spikes"]

_SAME = 0.02
"""Costs that differ by less, in units of the noise's variance, are the same minimum."""
_EDGE = 1e-3
"""A parameter nearer to its bound, in shares of its scale, is at the bound."""


class FitOptions(Config):
    """How to fit.

    Attributes:
        method: the way.
        objective: what is minimised: a sum of parts.
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
    objective: tuple[Annotated[Any, OBJECTIVES.field()], ...] = Field(default=(Voltage(),), min_length=1)
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
        prediction: the fitted potential [mV].
        data_cost: mean squared error of the potential, in units of the noise's variance, about 1 at the truth; NaN if
            the potential was not fitted.
        agreeing: the share of starts that came to the same cost.
        ok: whether the fit can be believed.
        reason: if not, why.
        simulations: simulation equivalents, all starts together.
        seconds: wall time, compilation included.
    """

    simulator: ODESimulator
    problem: Problem
    q: Float[Array, " unknown"]
    names: tuple[str, ...]
    values: Float[Array, " unknown"]
    solution: Solution
    prediction: Float[Array, "trial time"]
    data_cost: float
    agreeing: float
    ok: bool
    reason: str
    simulations: int
    seconds: float


def fit(
    simulator: ODESimulator,
    recording: Recording | Target,
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
    """Fit parameters of a simulator of one cell to recorded potentials; all in double precision.

    Args:
        simulator: the cell; its values are the middle of random starts, and hold where nothing is trained.
        recording: `v` [mV] and `current` of one or several trials.
        trainable: names of the parameters, or names and bounds.
        key: random key, of the starts.
        objective: what is minimised, or a list of parts: names, mappings of a name and arguments, or objects with a
            method `residuals(model, data, target)`; by default the potential.
        method: the way: a name, a mapping, or an object with a method `solve(residuals, key, progress)` that returns a
            `Solution`; by default least squares.
        options: how, in all else, and where `objective` and `method` are not given.
        start: the simulator's state before the first sample, where it is known.
        progress: shows how far the fit is: None fits that last longer than 2 s, on a terminal and in a notebook; True
            at once, elsewhere as lines on standard error; False never.
        keep: given what is finished, which it may have already.

    Returns:
        The fit; `ok` and `reason` say whether to believe it.

    Raises:
        ValueError: for a recording or parameters that cannot be fitted, before anything is compiled.
    """
    require_key(key)
    options = _chosen(options or FitOptions(), objective, method)
    way, objectives = made(METHODS, options.method), tuple(made(OBJECTIVES, o) for o in options.objective)
    with double_precision():
        target = recording
        if not isinstance(target, Target):
            target = Target.of(target, noise_sd=options.noise_mv, start=start)
        if not isinstance(trainable, Trainable):
            trainable = Trainable.of(simulator, trainable)
        how = {"dt": options.dt_ms, "solver": _scheme(simulator, options.solver), "free_start": options.free_start}
        problem = Problem.of(simulator, target, trainable, spike_gradient=_gradient(options.gradient), **how)
        _require_gradients(problem, way, options.method.name)
        spikes = options.spikes.fixed(np.asarray(target.v), target.dt)
        residuals = Residuals(problem, objectives, spikes)

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


def _chosen(options: FitOptions, objective: Any, method: Any) -> FitOptions:
    """The options with an objective and a method that were given besides."""
    if objective is not None:
        parts = objective if isinstance(objective, list | tuple) else [objective]
        if not parts:
            raise ValueError("objective names nothing to minimise; leave it out for the potential")
        options = options.model_copy(update={"objective": tuple(OBJECTIVES.block(part) for part in parts)})
    if method is not None:
        options = options.model_copy(update={"method": METHODS.block(method)})
    if of_networks(options.method):
        raise ValueError(f"method: {options.method.name} is for networks, whose features `fit_features` fits")
    return options


def _require_gradients(problem: Problem, method: Any, name: str) -> None:
    """Refuse a method that would see no slope."""
    simulator = problem.simulator
    if getattr(method, "gradients", False) and not problem.smooth and problem.spike_gradient is None:
        raise ValueError(
            f"{name} needs derivatives, which the spikes of {type(simulator).__name__} do not have; "
            "take gradient: exact, in Python gradient=SuperSpike(), or the method cma"
        )


def conclude(residuals: Residuals, solution: Solution, options: FitOptions) -> Fit:
    """Take the best of all starts, and judge it."""
    began, problem, best = time.perf_counter(), residuals.problem, solution.best
    q = solution.q[best]
    prediction, values, data_cost = _judged(problem, q, solution.prediction)
    cost = np.asarray(solution.cost)
    agreeing = float(np.mean(cost <= cost[best] + _SAME))
    faults = list(_faults(problem, np.asarray(values), float(data_cost), solution, options))
    return Fit(
        simulator=problem.unpack(q)[0],
        problem=problem,
        q=q,
        names=problem.names,
        values=values,
        solution=solution,
        prediction=prediction,
        data_cost=float(data_cost) if _of_voltage(options) else float("nan"),
        agreeing=agreeing,
        ok=not faults,
        reason="; ".join(faults),
        simulations=solution.simulations,
        seconds=solution.seconds + time.perf_counter() - began,
    )


@eqx.filter_jit
def _judged(problem: Problem, q: Array, predicted: Array | None) -> tuple[Array, Array, Array]:
    """Prediction, values and the mean squared error."""
    v = problem.predict(q) if predicted is None else predicted
    return v, problem.values(q), jnp.mean(jnp.square((v - problem.target.v) / problem.target.noise_sd))


def _of_voltage(options: FitOptions) -> bool:
    return any(isinstance(o, Voltage) for o in options.objective)


def _faults(problem: Problem, values: np.ndarray, data_cost: float, solution: Solution, options: FitOptions):
    """Why a fit should not be believed."""
    best = solution.best
    if not np.isfinite(solution.cost[best]):
        yield "no start gave finite potentials; start nearer to the truth, or take a shorter time step"
        return
    if not solution.finished[best]:
        yield "the best start was still moving at its last step; allow more steps"
    if solution.fault:
        yield solution.fault
    if not all(isinstance(o, Voltage) for o in options.objective):
        for trial, doubt in enumerate(options.spikes(np.asarray(problem.target.v), problem.target.dt).doubts):
            if doubt:
                yield f"the spikes of trial {trial} are in doubt: {doubt}"
    if _of_voltage(options) and not data_cost <= options.accept:
        yield (
            f"the mean squared error is {data_cost:.3g} times the noise's variance, more than {options.accept:g}: "
            "either a wrong minimum, or a model that cannot explain the data"
        )
    trainable = problem.trainable
    for name, value, (low, high), scale in zip(
        trainable.names, values, trainable.bounds, trainable.scale, strict=False
    ):
        if min(value - low, high - value) < _EDGE * scale:
            yield f"{name} = {value:.3g} is at its bound"


def predict(
    simulator: ODESimulator,
    target: Target,
    *,
    dt: float | None = None,
    solver: str = "rk4",
    gradient: Any = None,
    own_start: bool = False,
) -> Float[Array, "trial time"]:
    """Predict potentials that were not fitted.

    Args:
        simulator: a fitted one.
        target: the currents; and, where their start is not known, the potentials with which to begin.
        dt: time step [ms], as it was fitted with.
        solver: scheme, as it was fitted with.
        gradient: as it was fitted with.
        own_start: begin in the simulator's own start rather than in the state of a cell held at the first sample.

    Returns:
        The potentials [mV].
    """
    with double_precision():
        return _observed(_untrained(simulator, target, dt, solver, gradient, own_start))[0]


def predict_spikes(
    simulator: ODESimulator,
    target: Target,
    *,
    dt: float | None = None,
    solver: str = "rk4",
    gradient: Any = None,
    own_start: bool = False,
    threshold: float = 0.0,
    fall: float = 10.0,
) -> list[Float[np.ndarray, " spike"]]:
    """Predict the spikes of every trial; arguments as for `predict`.

    Args:
        simulator: a fitted one.
        target: the currents.
        dt: time step [ms].
        solver: scheme.
        gradient: as it was fitted with.
        own_start: begin in the simulator's own start.
        threshold: that spikes of a cell without a reset cross [mV].
        fall: how far below it the potential must return before the next spike [mV].

    Returns:
        Their times after the first sample [ms]; those of a cell with a reset lie amid its steps, or where
        they were located.
    """
    with double_precision():
        v, spikes = _observed(_untrained(simulator, target, dt, solver, gradient, own_start))
    if spikes is not None:
        return [raster_times(s, target.dt) for s in np.asarray(spikes)]
    return [crossings(x, target.dt, threshold, fall) for x in np.asarray(v)]


def _untrained(simulator, target: Target, dt: float | None, solver: str, gradient: Any, own_start: bool) -> Problem:
    """A problem in which nothing is trained."""
    if target.start is None and not own_start and not simulator.has_reset:
        start = where_it_begins(simulator, target)
        target = eqx.tree_at(lambda t: t.start, target, start, is_leaf=lambda x: x is None)
    how = {"dt": dt, "solver": _scheme(simulator, solver), "spike_gradient": _gradient(gradient)}
    return Problem.of(simulator, target, Trainable((), (), ()), **how)


def _scheme(simulator, solver: str):
    """The scheme of a cell; one with a reset brings its own."""
    return None if simulator.has_reset else as_solver(solver)


def _gradient(value: Any) -> Any:
    """What `simulate` takes for `gradient`."""
    return Exact() if value == "exact" else value


@eqx.filter_jit
def _observed(problem: Problem) -> tuple[Array, Array | None]:
    """Potential and spikes."""
    return problem.observe(jnp.zeros(0))
