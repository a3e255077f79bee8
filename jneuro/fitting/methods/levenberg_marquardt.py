r"""Levenberg–Marquardt: the one rule by which steps are damped, and least squares from many starts in one program.

A step of a problem whose residuals \(r\) are nearly linear, \(r(q + \delta) \approx r + J\delta\), is

\[ \delta = -(J^T J + \lambda D)^{-1} J^T r, \]

and \(\lambda\) shrinks where steps keep what they promise and grows where they do not. `Rule` and `Stand` hold this
much; what a step is, and what a visit costs, is the problem's own: dense here, chains of blocks in
`multiple_shooting`, simulated statistics in `network`. (Optimistix has the dense one, with the same trust region. It
cannot take steps that lead up, solve by blocks, or visit places outside of its own program.)

References:
    Marquardt D. W., SIAM J. Appl. Math. 11 (1963) 431; Nocedal & Wright, Numerical Optimization (2006), Algorithm 4.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.progress import SILENT, Task
from jneuro.core.types import Array, Bool, Float, PyTree
from jneuro.fitting.solution import Solution

__all__ = ["Point", "Rule", "Stand", "Verdict", "levenberg_marquardt", "minimise", "with_columns"]

_IDLE = 3
"""Accepted steps in a row that hardly lower the cost, after which there is nothing to gain."""


# The rule ------------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What becomes of a step.

    Attributes:
        accepted: it is the best place so far.
        good: and the next one may be longer.
        daring: it leads up, and one goes on from there nevertheless.
    """

    accepted: Bool[Array, ""]
    good: Bool[Array, ""]
    daring: Bool[Array, ""]


class Stand(NamedTuple):
    """Where a descent is.

    Attributes:
        here: the point from which the next step goes; has a `cost`.
        best: the lowest one.
        damping: \\(\\lambda\\) of the next step.
        uphill: steps in a row that led up.
        fresh: whether nothing has been visited yet: the first visit is accepted whatever it costs.
    """

    here: PyTree
    best: PyTree
    damping: Float[Array, ""]
    uphill: Array
    fresh: Bool[Array, ""]

    @classmethod
    def at(cls, point: PyTree, damping: float) -> "Stand":
        """Before the first visit."""
        return cls(point, point, jnp.asarray(damping, float), jnp.asarray(0), jnp.asarray(True))


class Rule(NamedTuple):
    r"""How the damping follows from what steps gain: a trust region.

    Attributes:
        factor: by which \(\lambda\) grows after a refused step and shrinks after a good one.
        low: share of the promised decrease from which on a step is accepted; None: any decrease will do.
        high: share above which it is good; None: every accepted one is.
        floor: the least \(\lambda\), where steps count as undamped.
        uphill: undamped steps in a row that may lead up: along a bent valley with steep walls, the next one leads below
            where the first began.
    """

    factor: float = 5.0
    low: float | None = 1e-3
    high: float | None = 0.75
    floor: float = 0.0
    uphill: int = 0

    def judge(self, stand: Stand, cost: Float[Array, ""], promise: Any = 0.0) -> Verdict:
        """Judge a step by its cost.

        Args:
            stand: where it began.
            cost: where it leads.
            promise: by how much linear residuals would have lowered the cost.
        """
        drop = stand.best.cost - cost
        lower = drop > 0 if self.low is None else drop >= self.low * promise
        good = lower if self.high is None else (drop > self.high * promise) & (promise > 0)
        free = (stand.uphill < self.uphill) & (stand.damping <= self.floor)
        return Verdict(stand.fresh | lower, good & ~stand.fresh, ~(stand.fresh | lower) & jnp.isfinite(cost) & free)

    def advance(self, stand: Stand, point: PyTree, verdict: Verdict) -> Stand:
        """Go on from the point that was visited, or from the best one."""
        accepted, good, daring = verdict
        best = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), point, stand.best)
        here = jax.tree.map(lambda new, old: jnp.where(daring, new, old), point, best) if self.uphill else best
        change = jnp.where(good, 1 / self.factor, jnp.where(accepted | daring, 1.0, self.factor))
        damping = jnp.maximum(stand.damping * change, self.floor)
        return Stand(here, best, damping, jnp.where(daring, stand.uphill + 1, 0), jnp.zeros_like(stand.fresh))


class Point(NamedTuple):
    """A place, its residuals, and their Jacobian reduced to as many rows as unknowns.

    Attributes:
        q: the vector.
        cost: sum of the squared residuals.
        residual: the residuals.
        root: a triangle \\(R\\) with \\(R^T R = J^T J\\).
        right: \\(Q^T r\\), with \\(J = Q R\\).
    """

    q: Float[Array, " unknown"]
    cost: Float[Array, ""]
    residual: Float[Array, " residual"]
    root: Float[Array, "row unknown"]
    right: Float[Array, " row"]

    @classmethod
    def of(cls, q: Array, residual: Array, columns: Float[Array, "residual unknown"]) -> "Point":
        """A point from its residuals and their Jacobian."""
        orthogonal, root = jnp.linalg.qr(columns)
        return cls(q, jnp.sum(jnp.square(residual)), residual, root, orthogonal.T @ residual)

    @classmethod
    def before(cls, q: Array, residuals: int, cost: float = 0.0) -> "Point":
        """A point that was not visited, from which no step leads away."""
        return cls.of(q, jnp.zeros(residuals, q.dtype), jnp.zeros((residuals, q.size), q.dtype))._replace(
            cost=jnp.asarray(cost, q.dtype)
        )

    def step(self, damping: Float[Array, ""], scale: Any = 1.0) -> Float[Array, " unknown"]:
        """The damped step; `scale` is the diagonal of D."""
        damped = jnp.diag(jnp.sqrt(damping * scale) * jnp.ones_like(self.q))
        orthogonal, root = jnp.linalg.qr(jnp.concatenate([self.root, damped]))
        right = orthogonal.T @ jnp.concatenate([self.right, jnp.zeros_like(self.q)])
        return -jax.scipy.linalg.solve_triangular(root, right)

    def promise(self, step: Float[Array, " unknown"]) -> Float[Array, ""]:
        """By how much a step lowers the cost if residuals are linear."""
        along = self.root @ step
        return -(2 * self.right @ along + along @ along)


# Least squares -------------------------------------------------------------------------------------------------------


def minimise(
    residuals: Callable[..., Float[Array, " residual"]], q: Float[Array, " unknown"], steps: int, tolerance: float
) -> tuple[Array, Array, Array, Array, Array]:
    """One descent, to be traced.

    Args:
        residuals: function of the vector.
        q: where to begin.
        steps: most steps.
        tolerance: as for `levenberg_marquardt`.

    Returns:
        The vector, its cost, the cost after each step, whether it ended by itself, and the number of steps.
    """
    count, rule = jax.eval_shape(residuals, q).size, Rule()
    scale = 1 / jnp.sqrt(count)

    def both(q):
        value = residuals(q) * scale
        return value, value

    def unfinished(carry):
        _, taken, _, rests, idle = carry
        return (taken < steps) & ~rests & (idle < _IDLE)

    def step(carry):
        stand, taken, history, _, idle = carry
        old: Point = stand.best
        move = old.step(stand.damping)
        columns, value = jax.jacfwd(both, has_aux=True)(old.q + move)
        point = Point.of(old.q + move, value, columns)
        verdict = rule.judge(stand, point.cost, old.promise(move))
        small = jnp.maximum(jnp.abs(move).max(), jnp.abs(value - old.residual).max()) < tolerance
        # Along a direction that the data leave open, the vector may move for ever and the cost does not.
        gained = stand.fresh | (old.cost - point.cost > 1e-2 * tolerance * point.cost)
        idle = jnp.where(verdict.accepted, jnp.where(gained, 0, idle + 1), idle)
        stand = rule.advance(stand, point, verdict)
        return stand, taken + 1, history.at[taken].set(stand.best.cost), verdict.accepted & small, idle

    zero = jnp.asarray(0)
    begin = (Stand.at(Point.before(q, count), 1.0), zero, jnp.full(steps, jnp.nan), jnp.asarray(False), zero)
    stand, taken, history, rests, idle = lax.while_loop(unfinished, step, begin)
    return stand.best.q, stand.best.cost, history, rests | (idle >= _IDLE), taken


def levenberg_marquardt(
    residuals: Callable[..., Float[Array, " residual"]],
    starts: Float[Array, "start unknown"],
    *,
    steps: int = 30,
    tolerance: float = 1e-4,
    nudges: tuple[float, ...] = (),
    stage: int = 8,
    progress: Task = SILENT,
) -> Solution:
    """Minimise the mean square of residuals.

    Args:
        residuals: function of the vector and, with `nudges`, of the strength of the pull.
        starts: where to begin.
        steps: most steps with the residuals themselves.
        tolerance: the method ends when neither an element of the vector nor a residual, divided by the root of their
            number, moves by more; or when the cost falls by less than a hundredth of it, relatively, in each of three
            steps that are accepted in a row.
        nudges: strengths of synchronisation forcing, taken first, one after the other; see `integrate`.
        stage: most steps with one strength.
        progress: told how it goes on, from 0 to 1.

    Returns:
        The solution. A step costs one run and one column for each unknown, whether it is accepted or not.
    """
    q, histories, taken = jnp.asarray(starts, float), [], 0
    for i, nudge in enumerate(nudges):
        q, cost, history, _, few = _descend(residuals, q, stage, 1e-2, jnp.asarray(nudge))
        histories, taken = [*histories, history], taken + int(few.sum())
        text = f"pull {nudge:g} / ms is done, {i + 1} of {len(nudges)}"
        progress.update((i + 1) * stage / (len(nudges) * stage + steps), text=text, cost=float(cost.min()))
    q, cost, history, finished, few = _descend(residuals, q, steps, tolerance, None)
    cost, taken = jnp.where(jnp.isfinite(cost), cost, jnp.inf), taken + int(few.sum())
    progress.update(1.0, text=f"{int(finished.sum())} of {len(q)} starts at rest", cost=float(cost.min()))
    return Solution(q, cost, jnp.concatenate([*histories, history], 1), finished, taken * (1 + q.shape[1]))


@eqx.filter_jit
def _descend(residuals, starts, steps: int, tolerance: float, nudge):
    """All starts, with one pull or none; all pulls have the same program."""
    function = residuals if nudge is None else lambda q: residuals(q, nudge)
    return jax.vmap(lambda q: minimise(function, q, steps, tolerance))(starts)


@eqx.filter_custom_jvp
def with_columns(
    q: Float[Array, " unknown"], *, residuals: Callable[..., Float[Array, " residual"]]
) -> Float[Array, " residual"]:
    """The residuals; their derivative is all columns at once, in forward mode, to be used as often as one likes.

    Args:
        q: the vector.
        residuals: function of it.

    Returns:
        The residuals.
    """
    return residuals(q)


@with_columns.def_jvp
def _with_columns_jvp(primals, tangents, *, residuals):
    (q,), (t,) = primals, tangents

    def both(q):
        value = residuals(q)
        return value, value

    columns, value = jax.jacfwd(both, has_aux=True)(q)
    return value, columns @ t if t is not None else jnp.zeros_like(value)
