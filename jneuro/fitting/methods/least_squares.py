"""A way to fit is a start, an optimiser and a refinement; and the way that most fits take, least squares."""

from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.methods.levenberg_marquardt import levenberg_marquardt
from jneuro.fitting.methods.weak_form import linear_stage, suits
from jneuro.fitting.objectives import Residuals
from jneuro.fitting.parameters import random_starts
from jneuro.fitting.problem import Problem
from jneuro.fitting.solution import Keep, Solution, anew

__all__ = ["LeastSquares", "Method", "starts_of"]

_SEARCH = 0.9
"""Share of the search in the work of a method that refines, roughly."""
_NUDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Strengths of the pull towards the data [1/ms], one after the other, before it is let go."""


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


class Method(Config):
    """A way to fit: a start, an optimiser that descends from there, and least squares that refine what it found.

    One of one's own needs no more than `solve`; with this base, `start` or `descend` alone.

    Attributes:
        spread: random starts lie within this factor of the simulator's own values.
        refine: most Levenberg–Marquardt steps from where the optimiser ended; 0 where its end is the result. Spikes
            that have no derivatives are not refined.
    """

    gradients: ClassVar[bool] = True
    """Whether it needs derivatives."""
    of_networks: ClassVar[bool] = False
    """Whether it fits networks, to statistics of their runs, rather than cells."""

    spread: float = Field(default=2.0, gt=1, le=1e6)
    refine: int = Field(default=0, ge=0)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT, keep: Keep = anew) -> Solution:
        """Fit: search, then refine.

        Args:
            residuals: function of the vector; see `Residuals`.
            key: random key.
            progress: told how it goes on, from 0 to 1.
            keep: given what is finished.

        Raises:
            ValueError: for a problem that the method cannot fit.
        """
        if not (self.refine and residuals.problem.smooth):
            return self.search(residuals, key, progress, keep)
        found = self.search(residuals, key, progress.part("search", 0.0, _SEARCH), keep)
        rest = progress.part("refine", _SEARCH, 1.0)
        better = levenberg_marquardt(residuals, found.q, steps=self.refine, progress=rest)
        lower = better.cost < found.cost
        return Solution(
            jnp.where(lower[:, None], better.q, found.q),
            jnp.where(lower, better.cost, found.cost),
            jnp.concatenate([found.history, better.history], 1),
            found.finished | better.finished,
            found.simulations + better.simulations,
        )

    def search(self, residuals: Residuals, key: Key[Array, ""], progress: Task, keep: Keep) -> Solution:
        """Find minima: start, and descend from there."""
        del keep
        return self.descend(residuals, self.start(residuals, key), stream(key, "descent"), progress)

    def start(self, residuals: Residuals, key: Key[Array, ""]) -> Float[Array, "start unknown"]:
        """Where to begin: by default, as many random starts as `starts` says, or one."""
        return starts_of(residuals.problem, getattr(self, "starts", 1), self.spread, key)

    def descend(
        self, residuals: Residuals, starts: Float[Array, "start unknown"], key: Key[Array, ""], progress: Task
    ) -> Solution:
        """Go down from there."""
        raise NotImplementedError(f"{type(self).__name__} has neither solve, nor search, nor descend")


class LeastSquares(Method):
    """Levenberg–Marquardt with nudging: a pull towards the data that is let go step by step.

    Attributes:
        first: where it starts: from the linear stage of the weak form, which needs no start; or from `starts` random
            ones; `auto` takes the linear stage where conductances are fitted to potentials.
        starts: random starts.
        steps: most steps without the pull.
        nudges: strengths of the pull [1/ms]; by default 1 and .1 from the linear stage, 10 … .03 from random starts;
            none for cells that are reset.
        tolerance: the fit ends when neither an unconstrained number nor a residual moves by more.
    """

    name: Literal["least_squares"] = "least_squares"
    first: Literal["auto", "weak_form", "random"] = "auto"
    starts: int = Field(default=64, ge=1)
    steps: int = Field(default=30, ge=1)
    nudges: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    tolerance: float = Field(default=1e-4, gt=0)

    def search(self, residuals: Residuals, key: Key[Array, ""], progress: Task, keep: Keep) -> Solution:
        """Start, and descend; the first strength of the pull depends on how good the start is.

        Raises:
            ValueError: if the linear stage is wanted and no trained parameter enters linearly.
        """
        del keep
        problem, nudges, stage = residuals.problem, self.nudges, 8
        linear = self.first == "weak_form" or (
            self.first == "auto" and residuals.of_potential and suits(problem.simulator, problem.trainable)
        )
        if linear:
            found = linear_stage(problem.simulator, problem.trainable, problem.target)
            starts = problem.pack(problem.trainable.unconstrain(found))[None]
            nudges, stage = (1.0, 0.1) if nudges is None else nudges, 2
        else:
            starts = starts_of(problem, self.starts, self.spread, key)
            nudges = _NUDGES if nudges is None else nudges
        if not problem.continuous:
            nudges = ()
        how: dict[str, Any] = {"steps": self.steps, "tolerance": self.tolerance, "nudges": nudges, "stage": stage}
        return levenberg_marquardt(residuals, starts, progress=progress, **how)
