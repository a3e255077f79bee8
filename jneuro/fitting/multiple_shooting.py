"""The method for long, spiking or bursting traces of an ODE cell: the linear stage, then multiple shooting."""

from typing import Annotated, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.keeping import Keep, anew, named
from jneuro.fitting.objectives import Residuals, Voltage
from jneuro.fitting.problem import Problem
from jneuro.fitting.shooting import Shots, first_states, shoot
from jneuro.fitting.solution import Solution, random_starts
from jneuro.fitting.weak_form import linear_stage, roles, suits

__all__ = ["Shooting"]

_FARTHEST = 1.0
"""How far from the simulator's own values the linear stage is believed, in unconstrained numbers."""
_DEVIATIONS = 10
"""A data cost that lies so many of its standard deviations above 1 is not the noise alone."""
_OPEN = 1.0
"""Gaps larger than their width, in the mean of squares, are not closed."""


class Shooting(Config):
    """Multiple shooting, from the linear stage, and from other starts as long as the data are not explained.

    A weak prior around the simulator's own values decides what the data do not.

    Attributes:
        segment_ms: length of a segment [ms]; 1 or 2.
        widths: widths of the gaps between segments, stage by stage; see `shoot`.
        steps: most Gauss–Newton steps of a stage.
        starts: most starts: the linear stage, the simulator's own values, then random ones.
        prior: standard deviation of the parameters, in unconstrained numbers.
        spread: random starts lie within this factor of the simulator's own values.
    """

    gradients: ClassVar[bool] = True
    name: Literal["shooting"] = "shooting"
    segment_ms: float = Field(default=1.0, gt=0)
    widths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 0.1, 0.03, 0.01, 0.003, 0.001), min_length=1
    )
    steps: int = Field(default=50, ge=1)
    starts: int = Field(default=3, ge=1)
    prior: float = Field(default=0.4, gt=0)
    spread: float = Field(default=2.0, gt=1)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT, keep: Keep = anew) -> Solution:
        """Fit.

        Raises:
            ValueError: if something else than the potential is to be matched, or by a simulator that is not an ODE.
        """
        problem = residuals.problem
        if not problem.continuous or any(not isinstance(o, Voltage) for o in residuals.objectives):
            raise ValueError("shooting matches the potential of an ODE simulator; take another method or objective")
        found: list[tuple[Shots, str]] = []
        for i, q in enumerate(self._starts(problem, key)):
            part = progress.part(name := f"start {i + 1} of {self.starts}", i / self.starts, (i + 1) / self.starts)
            shots = named(keep, name)("end", Shots, lambda q=q, part=part: self._shoot(problem, q, part))
            found.append((shots, _fault(problem, shots)))
            if not found[-1][1]:
                break
        cost = jnp.stack([s.cost / problem.target.v.size for s, _ in found])
        shots, fault = found[int(jnp.argmin(jnp.where(jnp.isfinite(cost), cost, jnp.inf)))]
        # A step is a run, and a column of the Jacobian for each parameter and state.
        columns = shots.states.shape[-1] + len(shots.q)
        return Solution(
            jnp.stack([_packed(problem, s) for s, _ in found]),
            jnp.where(jnp.isfinite(cost), cost, jnp.inf),
            jnp.stack([s.history for s, _ in found]) / problem.target.v.size,
            jnp.stack([s.converged for s, _ in found]),
            sum(int(s.iterations) for s, _ in found) * (2 + columns),
            prediction=shots.prediction.reshape(problem.target.trials, -1)[:, : problem.target.frames],
            covariance=None if problem.free_start else shots.covariance,
            fault=fault,
        )

    def _starts(self, problem: Problem, key: Key[Array, ""]):
        """The starts, one after the other."""
        trainable, simulator = problem.trainable, problem.simulator
        own = trainable.values(simulator)
        middle = trainable.unconstrain(own)
        starts = [middle, *random_starts(trainable, own, self.starts, spread=self.spread, key=stream(key, "starts"))]
        if suits(simulator, trainable):
            linear = trainable.unconstrain(linear_stage(simulator, trainable, problem.target))  # pyright: ignore
            starts.insert(0, jnp.clip(linear, middle - _FARTHEST, middle + _FARTHEST))
        return starts[: self.starts]

    def _shoot(self, problem: Problem, q: Float[Array, " parameter"], progress: Task) -> Shots:
        """From one start."""
        trainable, samples = problem.trainable, max(1, round(self.segment_ms / problem.target.dt))
        middle = trainable.unconstrain(trainable.values(problem.simulator))
        follow = roles(problem.simulator, trainable).scanned  # pyright: ignore
        segments, states = first_states(problem, q, samples, follow, (middle, self.prior))
        return shoot(problem, segments, q, states, jnp.asarray(self.widths), self.steps, progress)


def _fault(problem: Problem, shots: Shots) -> str:
    """Why the end of a start should not be believed; empty if it can be."""
    data, gaps = float(shots.data_cost), float(shots.gap_cost)
    limit = 1 + _DEVIATIONS * np.sqrt(2 / problem.target.v.size)
    if not np.isfinite(data):
        return "the potentials of the segments are not finite"
    if data > limit:
        return f"the mean squared residual of the segments is {data:.3g} times the noise's variance, above {limit:.3g}"
    if gaps > _OPEN:
        return f"the segments do not join: the mean squared gap is {gaps:.3g} times what was allowed"
    return ""


def _packed(problem: Problem, shots: Shots) -> Float[Array, " unknown"]:
    """The problem's vector."""
    if not problem.free_start:
        return shots.q
    v, *rest = jnp.moveaxis(shots.states[:, 0], 1, 0)
    rest = [jnp.log(jnp.maximum(x, 1e-6)) for x in rest]
    return jnp.concatenate([shots.q, (v - problem.target.v[:, 0]) / 10, *rest])
