r"""Spikes located within steps, so that their times have exact derivatives.

Where a step takes `threshold` past zero, the cubic interpolant of the states at its ends does so at a time \(\tau\);
there the state jumps, and the rest of the step is taken from behind the jump. \(\tau\) is a root, and the derivative
of a root is one step of Newton's method: with it, all that depends on the time of the jump has the derivative that the
equations have there (the jump's saltation), and no surrogate is needed.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Bool, Float, Int, PyTree
from jneuro.simulators.solvers import MembraneTerm

__all__ = ["Exact", "located_step", "parts", "spread"]

_HALVINGS, _NEWTON = 8, 3
"""Steps of the search for a root between 0 and 1: to the last digit."""


class Exact(eqx.Module):
    """Differentiate spikes as the equations do: each is located within its step; for `simulate(spike_gradient=...)`.

    Spikes are then numbers: each is split between two frames so that the sum over frames, drawn with straight lines,
    passes a half at the spike's own time. Jumps carry the derivative of their time. At most one spike a step is found.
    """


def located_step(
    stepper: Any, carry: PyTree, step: Int[Array, ""]
) -> tuple[PyTree, Bool[Array, "*neuron"], Float[Array, "*neuron"]]:
    """Take one step of a solver that carries the state itself.

    Args:
        stepper: a `Stepper`.
        carry: the state.
        step: its number.

    Returns:
        The state after it, whether there was a spike, and in which share of the step.
    """
    term, t0, t1 = stepper.at(step, carry)
    cell, h = term.simulator, jnp.asarray(stepper.dt, t0.dtype)
    y, end = carry, stepper.advance(carry, step)
    spiked = cell.threshold(end) >= 0
    if not cell.has_reset:
        spiked = spiked & (cell.threshold(y) < 0)
    slopes = [jax.tree.map(lambda f: h * f, term.vf(t, x, None)) for t, x in ((t0, y), (t1, end))]
    ends = (y, end, *slopes)
    share = _root(cell, ends, spiked)
    if not cell.has_reset:
        return end, spiked, share
    # Within the rest, which begins at another time in every cell, the stimulus is a straight line.
    first, last = (jnp.asarray(term.drive(t, y)) for t in (t0, t1))
    straight: Any = lambda t: first + (t - t0) / h * (last - first)  # noqa: E731
    line = MembraneTerm(cell, straight)
    jumped = cell.reset(jax.tree.map(lambda *e: _cubic(e, share), *ends))
    jumped = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), jumped, end)
    after = stepper.solver.advance(line, t0 + share * h, (1 - share) * h, jumped)
    return jax.tree.map(lambda a, b: jnp.where(spiked, a, b), after, end), spiked, share


def _cubic(ends: Any, s: Float[Array, "*neuron"]) -> Float[Array, "*neuron"]:
    """Hermite's interpolant between 0 and 1: from the values at both, and the slopes at both."""
    first, last, rising, arriving = ends
    return first + s * (
        rising + s * (3 * (last - first) - 2 * rising - arriving + s * (2 * (first - last) + rising + arriving))
    )


def _root(cell: Any, ends: Any, spiked: Bool[Array, "*neuron"]) -> Float[Array, "*neuron"]:
    """Where the threshold, along the interpolant, passes zero upwards; one half where there is no spike."""

    def above(cell, ends, s):
        # Without a spike, a straight line has the root: what is not used must have derivatives, too.
        return jnp.where(spiked, cell.threshold(jax.tree.map(lambda *e: _cubic(e, s), *ends)), 2 * s - 1)

    still = lax.stop_gradient((cell, ends))

    def fixed(s):
        return above(*still, s)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = fixed(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    zero = jnp.zeros_like(ends[0][0])
    low, high = lax.fori_loop(0, _HALVINGS, halve, (zero, zero + 1))

    def newton(_, s):
        value, slope = jax.jvp(fixed, (s,), (jnp.ones_like(s),))
        return jnp.clip(s - value / slope, low, high)

    s = lax.stop_gradient(lax.fori_loop(0, _NEWTON, newton, 0.5 * (low + high)))
    slope = jax.jvp(fixed, (s,), (jnp.ones_like(s),))[1]
    # Its value is that of the root; its derivative that of the implicit function.
    return s - above(cell, ends, s) / slope


def parts(spiked: Bool[Array, "*neuron"], place: Float[Array, "*neuron"]) -> tuple[Array, Array, Array]:
    """Split a spike, at a place in its frame between 0 and 1, between this frame and the one before or after.

    Args:
        spiked: whether there is one.
        place: where.

    Returns:
        What belongs to this frame, to the one before, and to the one after.
    """
    early = place < 0.5
    before = jnp.where(spiked & early, (0.5 - place) / (1 - jnp.where(early, place, 0)), 0)
    after = jnp.where(spiked & ~early, 1 - 0.5 / jnp.where(early, 1, place), 0)
    return spiked - before - after, before, after


def spread(
    whole: Float[Array, "time *neuron"], before: Float[Array, "time *neuron"], after: Float[Array, "time *neuron"]
) -> Float[Array, "time *neuron"]:
    """Give every frame what `parts` made of its own spikes and of its neighbours'.

    Args:
        whole: what belongs to the frame itself.
        before: to the one before; the first frame keeps its own.
        after: to the one after; the last frame keeps its own.

    Returns:
        The spikes of each frame.
    """
    whole = whole.at[0].add(before[0]).at[-1].add(after[-1])
    edge = jnp.zeros_like(before[:1])
    return whole + jnp.concatenate([before[1:], edge]) + jnp.concatenate([edge, after[:-1]])
