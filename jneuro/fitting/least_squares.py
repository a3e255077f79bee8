"""Levenberg–Marquardt from many starts in one program, with Jacobians in forward mode."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix
from jax import lax

from jneuro.core.progress import SILENT, Task
from jneuro.core.types import Array, Float
from jneuro.fitting.solution import Solution

__all__ = ["NUDGES", "levenberg_marquardt", "minimise", "with_columns"]

_IDLE = 3
"""Accepted steps in a row that hardly lower the cost, after which there is nothing to gain."""

NUDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""Strengths of the pull towards the data [1/ms], one after the other, before it is let go."""


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
    solver: Any = optimistix.LevenbergMarquardt(rtol=0.0, atol=tolerance)
    # The defaults hardly ever let go of the damping.
    search = optimistix.ClassicalTrustRegion(high_cutoff=0.75, low_cutoff=1e-3, high_constant=5.0, low_constant=0.2)
    solver = eqx.tree_at(lambda s: s.search, solver, search)
    scale = 1 / jnp.sqrt(jax.eval_shape(residuals, q).size)

    def function(q, args):
        del args
        return with_columns(q, residuals=residuals) * scale, None

    how = (function, q, None, {})
    shapes = jax.eval_shape(lambda: function(q, None))
    begun = solver.init(*how, *shapes, frozenset())
    arrays, rest = eqx.partition(begun, eqx.is_array)
    history = jnp.full(steps, jnp.nan)

    def unfinished(carry):
        _, state, taken, _, _, idle = carry
        return (taken < steps) & ~state.terminate & (idle < _IDLE)

    def step(carry):
        q, state, taken, history, before, idle = carry
        accepted = state.num_accepted_steps
        q, state, _ = solver.step(function, q, None, {}, eqx.combine(state, rest), frozenset())
        cost = jnp.sum(jnp.square(state.f_info.residual))
        # Along a direction that the data leave open, the vector may move for ever and the cost does not.
        gained = (state.num_accepted_steps > accepted) & (before - cost > 1e-2 * tolerance * cost)
        idle = jnp.where(gained, 0, idle + (state.num_accepted_steps > accepted))
        return q, eqx.filter(state, eqx.is_array), taken + 1, history.at[taken].set(cost), cost, idle

    zero = jnp.asarray(0)
    q, state, taken, history, cost, idle = lax.while_loop(
        unfinished, step, (q, arrays, zero, history, jnp.asarray(jnp.inf), zero)
    )
    return q, cost, history, state.terminate | (idle >= _IDLE), taken


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
