"""The ways to fit, as configuration: each knows where it starts and which optimiser it calls."""

from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.gradient import adam
from jneuro.fitting.gradient_free import cma_es, nelder_mead
from jneuro.fitting.least_squares import NUDGES, levenberg_marquardt
from jneuro.fitting.objectives import Residuals, Voltage
from jneuro.fitting.problem import Problem
from jneuro.fitting.solution import Solution, random_starts
from jneuro.fitting.weak_form import linear_stage, suits

__all__ = ["CMA", "Gradient", "LeastSquares", "NelderMead", "starts_of"]


def starts_of(problem: Problem, count: int, spread: float, key: Key[Array, ""]) -> Float[Array, "start unknown"]:
    """Draw starts around the simulator's own values; the same key gives the same ones to every method.

    Args:
        problem: the fit.
        count: how many.
        spread: the factor within which they lie; see `random_starts`.
        key: random key of the fit.

    Returns:
        The starts, with the default start states where these are trained.
    """
    own = problem.trainable.values(problem.simulator)
    drawn = random_starts(problem.trainable, own, count, spread=spread, key=stream(key, "starts"))
    return jnp.stack([problem.pack(q) for q in drawn])


class _Method(Config):
    """A way to fit.

    Attributes:
        spread: random starts lie within this factor of the simulator's own values.
    """

    gradients: ClassVar[bool] = True
    """Whether it needs derivatives."""

    spread: float = Field(default=2.0, gt=1)


class LeastSquares(_Method):
    """Levenberg–Marquardt with a pull towards the data that is let go step by step.

    Attributes:
        first: where it starts: from the linear stage of the weak form, which needs no start; or from `starts` random
            ones; `auto` takes the linear stage where conductances are fitted to potentials.
        starts: random starts.
        steps: most steps without the pull.
        nudges: strengths of the pull [1/ms]; by default 1 and .1 from the linear stage, 10 … .03 from random starts;
            none for a stepped simulator.
        tolerance: the fit ends when neither an unconstrained number nor a residual moves by more.
    """

    name: Literal["least_squares"] = "least_squares"
    first: Literal["auto", "weak_form", "random"] = "auto"
    starts: int = Field(default=64, ge=1)
    steps: int = Field(default=30, ge=1)
    nudges: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    tolerance: float = Field(default=1e-4, gt=0)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT) -> Solution:
        """Fit.

        Raises:
            ValueError: if the linear stage is wanted and no trained parameter enters linearly.
        """
        problem, nudges, stage = residuals.problem, self.nudges, 8
        linear = self.first == "weak_form" or (
            self.first == "auto"
            and any(isinstance(o, Voltage) for o in residuals.objectives)
            and suits(problem.simulator, problem.trainable)
        )
        if linear:
            found = linear_stage(problem.simulator, problem.trainable, problem.target)  # pyright: ignore
            starts = problem.pack(problem.trainable.unconstrain(found))[None]
            nudges, stage = (1.0, 0.1) if nudges is None else nudges, 2
        else:
            starts = starts_of(problem, self.starts, self.spread, key)
            nudges = NUDGES if nudges is None else nudges
        if not problem.continuous:
            nudges = ()
        how: dict[str, Any] = {"steps": self.steps, "tolerance": self.tolerance, "nudges": nudges, "stage": stage}
        return levenberg_marquardt(residuals, starts, progress=progress, **how)


class Gradient(_Method):
    """Adam with Polyak-scaled gradients, from random starts.

    Attributes:
        starts: random starts.
        steps: of each.
        learning_rate: the first step size, in unconstrained numbers.
        polyak: exponent by which gradients are scaled by their norm.
        nudge: first strength of the pull towards the data [1/ms]; none for a stepped simulator.
    """

    name: Literal["gradient"] = "gradient"
    starts: int = Field(default=16, ge=1)
    steps: int = Field(default=400, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    polyak: float = Field(default=0.8, ge=0, le=1)
    nudge: float = Field(default=10.0, ge=0)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT) -> Solution:
        """Fit."""
        problem = residuals.problem
        how: dict[str, Any] = {"steps": self.steps, "learning_rate": self.learning_rate, "polyak": self.polyak}
        nudge = self.nudge if problem.continuous else 0.0
        starts = starts_of(problem, self.starts, self.spread, key)
        return adam(residuals.loss, starts, key=stream(key, "descent"), nudge=nudge, progress=progress, **how)


class CMA(_Method):
    """CMA-ES of the package `cma`, a population in one program, from the first of the random starts.

    Attributes:
        evaluations: most evaluations.
        sigma: first standard deviation, in unconstrained numbers.
    """

    gradients: ClassVar[bool] = False
    name: Literal["cma"] = "cma"
    evaluations: int = Field(default=3000, ge=1)
    sigma: float = Field(default=0.3, gt=0)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT) -> Solution:
        """Fit."""
        start = starts_of(residuals.problem, 1, self.spread, key)[0]
        how: dict[str, Any] = {"evaluations": self.evaluations, "sigma": self.sigma, "progress": progress}
        return cma_es(residuals.cost, start, key=stream(key, "descent"), **how)


class NelderMead(_Method):
    """The simplex method of SciPy, from the first of the random starts.

    Attributes:
        evaluations: most evaluations.
    """

    gradients: ClassVar[bool] = False
    name: Literal["nelder_mead"] = "nelder_mead"
    evaluations: int = Field(default=3000, ge=1)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT) -> Solution:
        """Fit."""
        start = starts_of(residuals.problem, 1, self.spread, key)[0]
        return nelder_mead(residuals.cost, start, evaluations=self.evaluations, progress=progress)
