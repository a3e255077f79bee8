r"""Izhikevich's cell with spikes located within steps, so that their times have exact derivatives.

A step takes the equations on by Runge and Kutta's method. Where it passes the peak, its cubic interpolant does so at a
time \(\tau\); there v and u jump, and the rest of the step is taken from behind the jump. \(\tau\) is a root, and the
derivative of a root is one step of Newton's method: with it, all that depends on the time of the jump has the
derivative that the equations have there (the jump's saltation), and no surrogate is needed.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Bool, Float
from jneuro.simulators.izhikevich import Izhikevich

__all__ = ["located_spikes"]

_HALVINGS, _NEWTON = 8, 3
"""Steps of the search for a root between 0 and 1: to the last digit."""


def located_spikes(
    cell: Izhikevich, current: Float[Array, " time"], *, dt: float, steps: int
) -> tuple[Float[Array, " time"], Float[Array, " time"]]:
    """Integrate one cell under a current that is held from sample to sample.

    Args:
        cell: the cell; its own time step and surrogate do not matter.
        current: at every sample [pA]; before the first, that of the first.
        dt: time between samples [ms].
        steps: steps between them.

    Returns:
        The potential at every sample [mV], and the spikes: each is split between two samples so that the sum over
        samples, drawn with straight lines, passes a half at the spike's own time.
    """
    held = jnp.concatenate([current[:1], current[:-1]])
    h = dt / steps
    start = jnp.stack([cell.v_initial, cell.b * (cell.v_initial - cell.v_u)]).astype(current.dtype)

    def frame(y, drive):
        return lax.scan(lambda y, _: _step(cell, y, drive, h), y, None, length=steps)

    def sample(y, drive):
        y, (spiked, share) = frame(y, drive)
        return y, (y[0], spiked, share)

    v, spiked, share = lax.scan(sample, start, held)[1]
    return v, _parts(spiked, (jnp.arange(steps)[None] + share) / steps)


def _slope(cell: Izhikevich, y: Float[Array, "2"], drive: Float[Array, ""]) -> Float[Array, "2"]:
    v, u = y
    membrane = (cell.k * (v - cell.v_r) * (v - cell.v_t) - u + drive) / cell.capacitance
    return jnp.stack([membrane, cell.a * (cell.b * (v - cell.v_u) - u)])


def _runge_kutta(cell: Izhikevich, y: Float[Array, "2"], drive: Float[Array, ""], h: Array | float):
    first = _slope(cell, y, drive)
    second = _slope(cell, y + 0.5 * h * first, drive)
    third = _slope(cell, y + 0.5 * h * second, drive)
    return y + h / 6 * (first + 2 * second + 2 * third + _slope(cell, y + h * third, drive))


def _step(cell: Izhikevich, y: Float[Array, "2"], drive: Float[Array, ""], h: float):
    """One step: the state, whether there was a spike, and in which share of the step."""
    end = _runge_kutta(cell, y, drive, h)
    spiked = end[0] >= cell.v_peak
    ends = jnp.stack([y, end, h * _slope(cell, y, drive), h * _slope(cell, end, drive)])
    # Without a spike, a straight line has the root: what is not used must have derivatives, too.
    line = jnp.asarray([[-1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 0.0]], y.dtype)
    ends = jnp.where(spiked, ends.at[:2, 0].add(-cell.v_peak), line)
    share = _root(ends[:, 0])
    jumped = jnp.stack([cell.c, _cubic(ends[:, 1], share) + cell.d])
    after = _runge_kutta(cell, jumped, drive, (1 - share) * h)
    return jnp.where(spiked, after, end), (spiked, share)


def _cubic(ends: Float[Array, "4"], s: Float[Array, ""]) -> Float[Array, ""]:
    """Hermite's interpolant between 0 and 1: from the values at both, and the slopes at both."""
    first, last, rising, arriving = ends
    return first + s * (
        rising + s * (3 * (last - first) - 2 * rising - arriving + s * (2 * (first - last) + rising + arriving))
    )


def _root(ends: Float[Array, "4"]) -> Float[Array, ""]:
    """Where the interpolant passes zero upwards."""
    fixed = lax.stop_gradient(ends)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = _cubic(fixed, middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    zero = jnp.zeros_like(ends[0])
    low, high = lax.fori_loop(0, _HALVINGS, halve, (zero, zero + 1))

    def newton(_, s):
        value, slope = jax.jvp(lambda s: _cubic(fixed, s), (s,), (jnp.ones_like(s),))
        return jnp.clip(s - value / slope, low, high)

    s = lax.stop_gradient(lax.fori_loop(0, _NEWTON, newton, 0.5 * (low + high)))
    slope = jax.jvp(lambda s: _cubic(fixed, s), (s,), (jnp.ones_like(s),))[1]
    # Its value is that of the root; its derivative that of the implicit function.
    return s - _cubic(ends, s) / slope


def _parts(spiked: Bool[Array, "time step"], share: Float[Array, "time step"]) -> Float[Array, " time"]:
    """Split every spike, at a share of its sample, between this sample and the one before or after."""
    early = share < 0.5
    before = jnp.where(spiked & early, (0.5 - share) / (1 - jnp.where(early, share, 0)), 0).sum(1)
    after = jnp.where(spiked & ~early, 1 - 0.5 / jnp.where(early, 1, share), 0).sum(1)
    whole = spiked.sum(1) - before - after
    # At the ends of the trace there is no neighbour.
    whole = whole.at[0].add(before[0]).at[-1].add(after[-1])
    return whole + jnp.pad(before[1:], (0, 1)) + jnp.pad(after[:-1], (1, 0))
