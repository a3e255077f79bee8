"""The method for recordings with spikes: global searches at once, then least squares where spikes are smooth."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Key
from jneuro.fitting.gradient_free import cma_es
from jneuro.fitting.least_squares import levenberg_marquardt
from jneuro.fitting.objectives import Residuals
from jneuro.fitting.solution import Solution

__all__ = ["Spikes"]

_SETTLED = 1e-3
"""A search has come to rest if its cost falls by no more than this share in its last fifth."""
_GENERATIONS = 50
"""In fewer, a pause says nothing."""
_SEARCH = 0.9
"""Share of the searches in the work, roughly."""


class Spikes(Config):
    """CMA-ES from the simulator's own values and places around them, all searches in one program; then refinement.

    Where a spike comes or goes, the error of a recording has a corner, and between corners many minima; a population
    steps over them. An ODE cell's spikes are smooth in its parameters, and so are located ones (`gradient: exact`), so
    their minima are refined by Levenberg and Marquardt's method; those of other stepped simulators stay as they are.

    Attributes:
        starts: searches; the first begins at the simulator's own values.
        evaluations: most evaluations of each.
        sigma: first standard deviation, in unconstrained numbers, and that of the starts.
        refine: most steps of least squares; none for a stepped simulator.
        spread: repeated fits begin within this factor of the simulator's own values.
    """

    gradients: ClassVar[bool] = False
    name: Literal["spikes"] = "spikes"
    starts: int = Field(default=4, ge=1)
    evaluations: int = Field(default=2000, ge=1)
    sigma: float = Field(default=0.5, gt=0)
    refine: int = Field(default=10, ge=0)
    spread: float = Field(default=2.0, gt=1)

    def solve(self, residuals: Residuals, key: Key[Array, ""], progress: Task = SILENT) -> Solution:
        """Fit."""
        own = residuals.problem.first
        away = self.sigma * jax.random.normal(stream(key, "starts"), (self.starts, len(own)), own.dtype)
        starts = own[None] + away.at[0].set(0.0)
        how = {"evaluations": self.evaluations, "sigma": self.sigma}
        search = progress.part("search", 0.0, _SEARCH)
        found = cma_es(residuals.cost, starts, key=stream(key, "descent"), progress=search, **how)
        if (generations := found.history.shape[1]) >= _GENERATIONS:
            # A search that ended by itself before has no late history.
            late = found.history[:, int(0.8 * generations)]
            found = found._replace(finished=found.finished | (late - found.cost <= _SETTLED * found.cost))
        if not (self.refine and residuals.problem.smooth):
            return found
        refine = progress.part("refine", _SEARCH, 1.0)
        refined = levenberg_marquardt(residuals, found.q, steps=self.refine, progress=refine)
        better = refined.cost < found.cost
        return Solution(
            jnp.where(better[:, None], refined.q, found.q),
            jnp.where(better, refined.cost, found.cost),
            jnp.concatenate([found.history, refined.history], 1),
            found.finished | refined.finished,
            found.simulations + refined.simulations,
        )
