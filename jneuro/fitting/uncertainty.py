"""How sure a fit is: intervals from the curvature, directions that the data leave open, profiles of the likelihood."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.names import unknown_name
from jneuro.core.types import Array, Float
from jneuro.fitting.methods.levenberg_marquardt import minimise

__all__ = ["Intervals", "Likelihood", "Profile", "intervals", "profile"]

_SMALL_SHARE = 0.15
"""A parameter with a smaller part in a direction is not named in it."""
_WIDEST = 3.0
"""How far, in unconstrained numbers, a profile goes at most where the curvature is flat."""
_LEVELS = {"68 %": 1.0, "95 %": 3.841}
"""Quantiles of the chi-squared distribution with one degree of freedom."""


class Intervals(NamedTuple):
    r"""The Gauss–Newton approximation of the likelihood around a vector; at the truth it is the Cramér–Rao bound.

    A direction is a combination \(\prod_i \theta_i^{w_i}\): a singular vector of the Jacobian with respect to the
    logarithms of the values (relative changes, for negative ones). The sharpest comes first.

    Attributes:
        names: what the values are.
        values: the values, in their units.
        covariance: of the values.
        singular_values: of the Jacobian, in units of the noise for a relative change of one.
        directions: the right singular vectors, one a row, each with 1 as its largest element.
        spreads: standard deviation of the logarithm of each combination.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, " unknown"]
    covariance: Float[np.ndarray, "unknown unknown"]
    singular_values: Float[np.ndarray, " direction"]
    directions: Float[np.ndarray, "direction unknown"]
    spreads: Float[np.ndarray, " direction"]

    @property
    def standard_errors(self) -> Float[np.ndarray, " unknown"]:
        """Standard deviation of each value, in its unit; infinite where the data say nothing."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Float[np.ndarray, "unknown unknown"]:
        """Correlation of the estimates."""
        sd = np.where(self.standard_errors > 0, self.standard_errors, np.nan)
        return self.covariance / np.outer(sd, sd)

    def table(self) -> list[dict[str, Any]]:
        """Every direction by name, the sloppiest last."""
        return [
            {"singular_value": float(s), "factor": float(spread), "direction": _named(self.names, direction)}
            for s, spread, direction in zip(self.singular_values, self.spreads, self.directions, strict=True)
        ]


class Likelihood(Protocol):
    """A least-squares problem: a `CellProblem`, or any other with these."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values."""
        ...

    def residuals(self, q: Float[Array, " unknown"], /) -> Float[Array, " residual"]:
        """In units of the noise."""
        ...

    def values(self, q: Float[Array, " unknown"], /) -> Float[Array, " unknown"]:
        """The physical values for which a vector stands; each a function of its own element."""
        ...


def intervals(
    problem: Likelihood, q: Float[Array, " unknown"], covariance: Float[Array, "unknown unknown"] | None = None
) -> Intervals:
    r"""Measurement noise alone: intervals of a fitted problem, or at the truth the Cramér–Rao bound.

    By the delta method: with the Jacobian \(J\) of the residuals and \(D = \mathrm{d}\theta/\mathrm{d}q\), the
    covariance of the values is \(D (J^T J)^{-1} D^T\).

    Args:
        problem: the fit.
        q: the fitted vector, or the true one.
        covariance: of the vector, where the method knows it; else it is that of one run from the start.

    Returns:
        The intervals, in the parameters' own units.
    """
    residuals: Any = problem.residuals
    if covariance is not None:
        # Residuals of which it is the covariance.
        root = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
        residuals = lambda x: root @ (x - q)  # noqa: E731
    return _intervals(problem.names, residuals, problem.values, q)


def _intervals(names: Sequence[str], residuals: Any, values: Any, q: Array) -> Intervals:
    """Intervals of residuals, for functions of the vector."""
    found, jacobian, inner = map(np.asarray, _derivatives(residuals, values, q))
    # Values do not mix: each is a function of its own unconstrained number.
    slope = np.diag(inner)
    relative = np.abs(found) / np.where(slope == 0, np.inf, slope)
    scaled = jacobian * relative
    usable = np.isfinite(scaled).all()
    count = len(found)
    if not usable:
        nothing = np.full((count, count), np.inf)
        return Intervals(tuple(names), found, nothing, np.zeros(count), np.eye(count), np.full(count, np.inf))
    _, s, directions = np.linalg.svd(scaled, full_matrices=len(scaled) < count)
    s = np.concatenate([s, np.zeros(count - len(s))])
    variances = _inverse_square(s, max(scaled.shape))
    logarithmic = _covariance(directions, variances)
    # A value of zero has no logarithm; its own unit then is that of its unconstrained number.
    unit = np.where(relative > 0, np.abs(found), np.abs(slope))
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    spreads = np.sqrt(variances) / np.abs(largest[:, 0])
    return Intervals(tuple(names), found, logarithmic * np.outer(unit, unit), s, directions / largest, spreads)


@eqx.filter_jit
def _derivatives(residuals, values, q):
    return values(q), jax.jacfwd(residuals)(q), jax.jacfwd(values)(q)


def _inverse_square(s: np.ndarray, size: int) -> np.ndarray:
    """Variances along singular vectors; infinite where the singular value is zero to rounding."""
    floor = np.finfo(s.dtype).eps * size * s.max(initial=0)
    return np.where(s > floor, 1 / np.square(np.where(s > floor, s, 1)), np.inf)


def _covariance(directions: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """The covariance with these principal axes; what has no part in an open direction stays finite."""
    known = np.isfinite(variances)
    covariance = (directions[known].T * variances[known]) @ directions[known]
    involved = (np.square(directions[~known]) > 1e-12).any(0) if (~known).any() else np.zeros(len(covariance), bool)
    covariance[involved, involved] = np.inf
    return covariance


def _named(names: Sequence[str], direction: np.ndarray) -> str:
    """A direction as a product of powers, the largest part first."""
    order = np.argsort(-np.abs(direction), kind="stable")
    parts = [(names[i], direction[i]) for i in order if abs(direction[i]) >= _SMALL_SHARE]
    return " · ".join(str(name) if abs(power - 1) < 0.05 else f"{name}^{power:.1f}" for name, power in parts)


class Profile(NamedTuple):
    """The likelihood of one value when all others are fitted anew at each.

    Attributes:
        name: of the value.
        value: where, in its unit, from low to high; the best one is among them.
        excess: twice the log-likelihood lost, one where one standard error away if the curvature is all there is.
        others: all values at each point.
        intervals: low and high end by confidence; infinite where the profile does not rise enough.
    """

    name: str
    value: Float[np.ndarray, " point"]
    excess: Float[np.ndarray, " point"]
    others: Float[np.ndarray, "point unknown"]
    intervals: dict[str, tuple[float, float]]


def profile(
    problem: Likelihood, q: Float[Array, " unknown"], name: str, *, points: int = 6, reach: float = 3.0
) -> Profile:
    """Profile the likelihood of one value of a fit, both sides in one program.

    The grid is even in the unconstrained number. At each point the others are fitted again by Levenberg–Marquardt,
    from where they were at the point before.

    Args:
        problem: the fit.
        q: the fitted vector.
        name: of the value.
        points: on either side of the fitted one.
        reach: how far the grid goes, in standard errors of the curvature.

    Returns:
        The profile, with its intervals.

    Raises:
        ValueError: for a name that is not fitted.
    """
    if name not in problem.names:
        raise ValueError(f"profile: {unknown_name(name, problem.names, 'fitted value')}")
    index = list(problem.names).index(name)
    certain = _intervals(problem.names, problem.residuals, lambda q: q, q)
    step = min(reach * float(certain.standard_errors[index]), _WIDEST) / points
    sides = _walk(problem.residuals, problem.values, q, jnp.asarray(index), jnp.asarray([-step, step]), points)
    (best, best_cost), (found, cost) = jax.tree.map(np.asarray, sides)
    every = np.concatenate([found[0, ::-1], best[None], found[1]])
    together = np.concatenate([cost[0, ::-1], best_cost[None], cost[1]])
    excess = np.where(np.isfinite(together), together - np.nanmin(together), np.inf)
    return Profile(name, every[:, index], excess, every, _crossings(every[:, index], excess))


@eqx.filter_jit
def _walk(residuals, values, q, index, steps, points: int):
    """Values and sums of squares at the best vector, and on both sides from it outwards."""
    rest = jnp.arange(q.size - 1)
    rest = rest + (rest >= index)

    def at(fixed, others):
        return jnp.zeros_like(q).at[index].set(fixed).at[rest].set(others)

    def side(step):
        def point(others, i):
            fixed = q[index] + step * i
            if q.size > 1:
                others = minimise(lambda x: residuals(at(fixed, x)), others, 20, 1e-5)[0]
            vector = at(fixed, others)
            return others, (values(vector), jnp.sum(jnp.square(residuals(vector))))

        return lax.scan(point, q[rest], jnp.arange(1, points + 1) * 1.0)[1]

    return (values(q), jnp.sum(jnp.square(residuals(q)))), jax.vmap(side)(steps)


def _crossings(value: np.ndarray, excess: np.ndarray) -> dict[str, tuple[float, float]]:
    """Where the profile crosses each level, by interpolating its signed root, which is nearly a straight line."""
    best = int(np.argmin(excess))
    root = np.sqrt(np.maximum(excess, 0))
    found = {}
    for name, level in _LEVELS.items():
        ends = []
        for side in (range(best, -1, -1), range(best, len(value))):
            above = [i for i in side if excess[i] >= level]
            if not above or not np.isfinite(excess[above[0]]):
                ends.append(-np.inf if not ends else np.inf)
                continue
            last, before = above[0], above[0] + (1 if not ends else -1)
            share = (np.sqrt(level) - root[before]) / (root[last] - root[before])
            ends.append(float(value[before] + share * (value[last] - value[before])))
        found[name] = (ends[0], ends[1])
    return found
