"""Whether the steps of a run were fine enough: how fast variables relaxed, and by how much a step erred.

Both are watched along the whole trajectory, at next to no cost. In the loop, each cell notes only how far its potential
moved in its steepest step, and every few steps there is a look. The window between two looks that had the steepest step
of all is run once more at the end, and where each cell is steepest in it, steps of the same and of half the length are
compared.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.devices import scan
from jneuro.core.types import Array, Bool, Float, Int, PyTree

__all__ = ["WATCH", "Coarseness", "Place", "Steepest", "Watch", "local_error", "potential", "some"]


WATCH = 50
"""Steps between two looks at how fast the variables relax; one costs no more than a step."""

_SOME = 64

_ROUNDING = 1e-3
"""Errors that are smaller than this share of the potential itself are never too large."""


class Coarseness(NamedTuple):
    """The fastest relaxation along a trajectory, of those looked at, and the largest local error.

    Attributes:
        rate: how fast [1/ms].
        step: when, in steps.
        error: by how much a step errs, as a share of the range of the potential, or of its size if that is more.
        cell: in which cell.
        erred: at which step.
    """

    rate: Float[Array, ""]
    step: Int[Array, ""]
    error: Float[Array, ""] | float = 0.0
    cell: Int[Array, ""] | int = 0
    erred: Int[Array, ""] | int = 0


def potential(y: Any) -> Float[Array, "*neuron"]:
    """The variable whose error is watched: the potential, else the first one.

    Args:
        y: a state.
    """
    return y.v if "v" in y._fields else y[0]


def some(v: Float[Array, "*neuron"]) -> Float[Array, "*neuron"]:
    """The cells that choose which window is the steepest: of many, every so many; in the window, all are compared.

    Args:
        v: a variable.
    """
    return v if v.ndim == 0 or v.size <= _SOME else v[:: -(-v.size // _SOME)]


class Place(NamedTuple):
    """From where a run can be gone on with.

    Attributes:
        carry: what the solver carries.
        step: steps taken.
        waiting: refractory steps to come; None for cells without a refractory period.
    """

    carry: PyTree
    step: Int[Array, ""]
    waiting: Int[Array, "*neuron"] | None


class Watch(NamedTuple):
    """What is known of a run at a look.

    Attributes:
        coarse: the fastest relaxation so far.
        low: the lowest potential seen.
        high: the highest potential seen.
        rise: how far the potential of any cell moved in its steepest step.
        begun: where the window since the last look began.
        steepest: where the window with that step began.
    """

    coarse: Coarseness
    low: Float[Array, "*neuron"]
    high: Float[Array, "*neuron"]
    rise: Float[Array, ""]
    begun: Place
    steepest: Place

    @classmethod
    def begin(cls, v: Float[Array, "*neuron"], place: Place) -> "Watch":
        """At the beginning of a run.

        Args:
            v: the potential.
            place: from where it goes on.
        """
        zero, place = jnp.zeros((), v.dtype), lax.stop_gradient(place)
        return cls(Coarseness(zero, place.step), v, v, zero, place, place)

    def looked(self, rates: Any, v: Float[Array, "*neuron"], rise: Float[Array, "*neuron"], place: Place) -> "Watch":
        """After a look; all of it without derivatives.

        Args:
            rates: how fast the variables relax [1/ms].
            v: the potential.
            rise: how far it moved in the steepest step of the window that ends.
            place: from where the run goes on.
        """
        rate, rise = jnp.stack([jnp.max(r) for r in rates]).max(), jnp.max(rise)
        faster, steeper = rate > self.coarse.rate, rise > self.rise  # not so where it is no number
        coarse = Coarseness(
            jnp.where(faster, rate, self.coarse.rate).astype(self.rise.dtype),
            jnp.where(faster, place.step, self.coarse.step),
        )
        return Watch(
            coarse,
            jnp.minimum(self.low, v),
            jnp.maximum(self.high, v),
            jnp.where(steeper, rise, self.rise),
            place,
            jax.tree.map(lambda a, b: jnp.where(steeper, a, b), self.begun, self.steepest),
        )


class Steepest(NamedTuple):
    """What is kept of a window: where the potential has been, and the step in which it moved most.

    Attributes:
        low: lowest potential.
        high: highest potential.
        rise: by how much it moved in the steepest step; spikes that are cut off by a reset do not count.
        carry: what the solver carried before that step.
        drive: the stimulus in it.
        step: its number.
    """

    low: Float[Array, "*neuron"]
    high: Float[Array, "*neuron"]
    rise: Float[Array, "*neuron"]
    carry: PyTree
    drive: Float[Array, "*neuron"]
    step: Int[Array, "*neuron"]

    @classmethod
    def begin(cls, v: Float[Array, "*neuron"], carry: PyTree, step: Int[Array, ""]) -> "Steepest":
        """At the beginning of a run.

        Args:
            v: the potential.
            carry: what the solver carries.
            step: the number of the step to come.
        """
        return cls(v, v, jnp.zeros_like(v), carry, jnp.zeros_like(v), jnp.broadcast_to(step, v.shape))

    def noted(
        self,
        before: Float[Array, "*neuron"],
        after: Float[Array, "*neuron"],
        carry: PyTree,
        drive: Any,
        step: Int[Array, ""],
        counts: Bool[Array, "*neuron"] | bool = True,
    ) -> "Steepest":
        """After a step.

        Args:
            before: the potential before it.
            after: the potential after it.
            carry: what the solver carried before it.
            drive: the stimulus in it.
            step: its number.
            counts: whether it counts.
        """
        rise = jnp.abs(after - before)
        steeper = rise > self.rise
        low, high = jnp.minimum(self.low, after), jnp.maximum(self.high, after)
        if counts is not True:
            steeper = steeper & counts
            low, high = jnp.where(counts, low, self.low), jnp.where(counts, high, self.high)
        new = (rise, carry, drive, step)
        old = (self.rise, self.carry, self.drive, self.step)
        rise, carry, drive, step = jax.tree.map(lambda a, b: jnp.where(steeper, a, b).astype(b.dtype), new, old)
        return Steepest(low, high, rise, carry, drive, step)


def local_error(stepper: Any, seen: Steepest, coarse: Coarseness, *, observed: bool) -> Coarseness:
    """Compare steps of the same and of half the length from where each cell was steepest.

    Args:
        stepper: the `Stepper` of the run.
        seen: what was kept.
        coarse: the fastest relaxation.
        observed: whether the state was kept, in place of what the solver carries.

    Returns:
        It, with the largest error; infinite where a step from there leaves the finite numbers.
    """
    solver, cell, zero = stepper.solver, stepper.term.simulator, jnp.zeros((), seen.low.dtype)
    drive = seen.drive

    def term(h):
        return dataclasses.replace(stepper.term, stimulus=lambda t: drive, start=None, end=h, dt=h)

    dt = jnp.asarray(stepper.dt, seen.low.dtype)
    y = seen.carry if observed else solver.observe(term(dt), zero, dt, seen.carry)

    def step(carry, given):
        h, fresh = given
        begun = solver.start(term(h), zero, h, y)
        carry = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), begun, carry)
        carry = solver.advance(term(h), zero, h, carry)
        after = solver.observe(term(h), zero, h, carry)
        return carry, (potential(after), cell.threshold(after) < 0 if cell.has_reset else True)

    lengths = dt * jnp.asarray([1, 1, 0.5, 0.5, 0.5, 0.5], dt.dtype)
    fresh = jnp.asarray([True, False, True, False, False, False])
    _, (v, below) = scan(step, solver.start(term(dt), zero, dt, y), (lengths, fresh), unroll=1)
    error = jnp.abs(v[0] - v[3])
    # Beyond the threshold of a reset the potential is cut off, however far the equation would take it.
    error = jnp.where(below[0] & below[3], error, 0) if cell.has_reset else jnp.maximum(error, jnp.abs(v[1] - v[5]))
    size = jnp.maximum(jnp.abs(seen.low), jnp.abs(seen.high))
    covered = jnp.maximum(jnp.maximum(seen.high - seen.low, size), jnp.finfo(dt.dtype).tiny)
    error = jnp.maximum(error - _ROUNDING * size, 0) / covered
    error = jnp.ravel(jnp.where(jnp.isnan(error), jnp.inf, error))
    worst = jnp.argmax(error)
    return coarse._replace(error=error[worst], cell=worst, erred=jnp.ravel(seen.step)[worst])
