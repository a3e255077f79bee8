"""Searches without gradients, from libraries: for spikes, which come and go, and to compare the others with."""

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field
from scipy.optimize import minimize

from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.methods.least_squares import Method
from jneuro.fitting.objectives import Residuals
from jneuro.fitting.solution import Solution

__all__ = ["CMA", "NelderMead", "Spikes", "cma_es", "nelder_mead"]

_WORST = 1e30
"""The cost of what is not finite."""
_SETTLED = 1e-3
"""A search has come to rest if its cost falls by no more than this share in its last fifth."""
_GENERATIONS = 50
"""In fewer, a pause says nothing."""


class _Counted:
    """A batched loss that counts its evaluations, keeps the best cost after each batch, and tells of both."""

    def __init__(self, loss, most: int, progress: Task) -> None:
        self._loss, self.evaluations, self.history = loss, 0, []
        self._most, self._progress = most, progress

    def __call__(self, q) -> np.ndarray:
        q = np.atleast_2d(np.asarray(q))
        cost = np.asarray(_batch(self._loss, jnp.asarray(q)))
        self.evaluations += len(q)
        cost = np.where(np.isfinite(cost), cost, _WORST)
        self.history.append(min(cost.min(), self.history[-1] if self.history else math.inf))
        text, share = f"{self.evaluations:,} of {self._most:,} evaluations", min(self.evaluations / self._most, 1.0)
        self._progress.update(share, text=text, cost=float(self.history[-1]))
        return cost

    def solution(self, q, cost: float, finished: bool) -> Solution:
        """The result of one start."""
        cost = cost if cost < _WORST else math.inf
        return Solution(
            jnp.asarray(q)[None],
            jnp.asarray([cost]),
            jnp.asarray([self.history]),
            jnp.asarray([finished]),
            self.evaluations,
        )


@eqx.filter_jit
def _batch(loss, q):
    return jax.vmap(loss)(q)


def cma_es(
    loss: Callable[[Float[Array, " unknown"]], Float[Array, ""]],
    starts: Float[Array, "*start unknown"],
    *,
    key: Key[Array, ""],
    evaluations: int,
    sigma: float = 0.3,
    progress: Task = SILENT,
) -> Solution:
    """Minimise by CMA-ES (package `cma`), the populations of all starts in one program.

    Args:
        loss: function of the vector.
        starts: where to begin: one place, or several for as many searches.
        key: random key.
        evaluations: most evaluations of the loss, of each search.
        sigma: first standard deviation, in unconstrained numbers.
        progress: told how it goes on, from 0 to 1.

    Returns:
        The solutions; `finished` if a search ended by itself.

    Raises:
        ImportError: without the package.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cma
    except ImportError as error:
        raise ImportError("CMA-ES needs the package cma: pip install 'jneuro[fit]'") from error
    options = {"maxfevals": evaluations, "verbose": -9, "tolfun": 1e-6, "tolx": 1e-5}
    places = np.atleast_2d(np.asarray(starts, float))
    counted = _Counted(loss, evaluations * len(places), progress)
    seeds = 1 + np.asarray(jax.random.randint(key, places.shape[:1], 0, 2**31 - 2))
    searches: list[Any] = [
        cma.CMAEvolutionStrategy(place.tolist(), sigma, options | {"seed": int(seed)})
        for place, seed in zip(places, seeds, strict=True)
    ]
    histories = [[] for _ in searches]
    while running := [(s, h) for s, h in zip(searches, histories, strict=True) if not s.stop()]:
        populations = [search.ask() for search, _ in running]
        costs = np.split(counted(np.concatenate(populations)), len(running))
        for (search, history), population, cost in zip(running, populations, costs, strict=True):
            search.tell(population, cost.tolist())
            history.append(min([cost.min(), *history[-1:]]))
    longest = max(map(len, histories))
    results: list[Any] = [s.result for s in searches]
    best = np.array([r.fbest for r in results])
    return Solution(
        jnp.asarray(np.stack([r.xbest for r in results])),
        jnp.asarray(np.where(best < _WORST, best, np.inf)),
        jnp.asarray([h + [np.nan] * (longest - len(h)) for h in histories]),
        jnp.asarray(["maxfevals" not in s.stop() for s in searches]),
        counted.evaluations,
    )


def nelder_mead(
    loss: Callable[[Float[Array, " unknown"]], Float[Array, ""]],
    start: Float[Array, " unknown"],
    *,
    evaluations: int,
    progress: Task = SILENT,
) -> Solution:
    """Minimise by the simplex method of Nelder and Mead (SciPy).

    Args:
        loss: function of the vector.
        start: where to begin.
        evaluations: most evaluations of the loss.
        progress: told how it goes on, from 0 to 1.

    Returns:
        The solution of the one start; `finished` if it ended by itself.
    """
    counted = _Counted(loss, evaluations, progress)
    options = {"maxfev": evaluations, "maxiter": evaluations, "xatol": 1e-5, "fatol": 1e-6}
    found = minimize(lambda q: counted(q)[0], np.asarray(start), method="Nelder-Mead", options=options)
    return counted.solution(found.x, float(found.fun), bool(found.success))


class CMA(Method):
    """CMA-ES of the package `cma`, a population in one program, from the first of the random starts.

    Attributes:
        evaluations: most evaluations.
        sigma: first standard deviation, in unconstrained numbers.
    """

    gradients: ClassVar[bool] = False
    name: Literal["cma"] = "cma"
    evaluations: int = Field(default=3000, ge=1)
    sigma: float = Field(default=0.3, gt=0)

    def descend(
        self, residuals: Residuals, starts: Float[Array, "start unknown"], key: Key[Array, ""], progress: Task
    ) -> Solution:
        """Search."""
        how: dict[str, Any] = {"evaluations": self.evaluations, "sigma": self.sigma, "progress": progress}
        return cma_es(residuals.cost, starts, key=key, **how)


class NelderMead(Method):
    """The simplex method of SciPy, from the first of the random starts.

    Attributes:
        evaluations: most evaluations.
    """

    gradients: ClassVar[bool] = False
    name: Literal["nelder_mead"] = "nelder_mead"
    evaluations: int = Field(default=3000, ge=1)

    def descend(
        self, residuals: Residuals, starts: Float[Array, "start unknown"], key: Key[Array, ""], progress: Task
    ) -> Solution:
        """Search."""
        return nelder_mead(residuals.cost, starts[0], evaluations=self.evaluations, progress=progress)


class Spikes(Method):
    """CMA-ES from the simulator's own values and places around them, all searches in one program; then refinement.

    Where a spike comes or goes, the error of a recording has a corner, and between corners many minima; a population
    steps over them. An ODE cell's spikes are smooth in its parameters, and so are located ones (`gradient: exact`), so
    their minima are refined by least squares; those of other cells with a reset stay as they are.

    Attributes:
        starts: searches; the first begins at the simulator's own values.
        evaluations: most evaluations of each.
        sigma: first standard deviation, in unconstrained numbers, and that of the starts.
    """

    gradients: ClassVar[bool] = False
    name: Literal["spikes"] = "spikes"
    starts: int = Field(default=4, ge=1)
    evaluations: int = Field(default=2000, ge=1)
    sigma: float = Field(default=0.5, gt=0)
    refine: int = Field(default=10, ge=0)

    def start(self, residuals: Residuals, key: Key[Array, ""]) -> Float[Array, "start unknown"]:
        """The simulator's own values, and places around them."""
        own = residuals.problem.first
        away = self.sigma * jax.random.normal(stream(key, "starts"), (self.starts, len(own)), own.dtype)
        return own[None] + away.at[0].set(0.0)

    def descend(
        self, residuals: Residuals, starts: Float[Array, "start unknown"], key: Key[Array, ""], progress: Task
    ) -> Solution:
        """Search; one that hardly gains any more has come to rest, as one that ended by itself."""
        how: dict[str, Any] = {"evaluations": self.evaluations, "sigma": self.sigma, "progress": progress}
        found = cma_es(residuals.cost, starts, key=key, **how)
        if (generations := found.history.shape[1]) >= _GENERATIONS:
            # A search that ended by itself before has no late history.
            late = found.history[:, int(0.8 * generations)]
            found = found._replace(finished=found.finished | (late - found.cost <= _SETTLED * found.cost))
        return found
