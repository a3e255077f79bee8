"""A cell whose potential is known: the other variables, driven by the measured one.

Given the potential, gates are stable filters of it. Their course follows from the data, whatever the conductances; a
free run, in contrast, may lose the data at its first wrong spike.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.interpolate import CubicSpline

from jneuro.core.types import Array, Float, PyTree
from jneuro.fitting.data import Target
from jneuro.simulators.ode import ODESimulator

__all__ = ["driven", "held_current", "upsampled", "where_it_begins"]

_FINE = 4
"""Points of the interpolated potential in a sample."""


def upsampled(target: Target) -> Float[Array, "trial fine"]:
    """Interpolate the measured potential by a cubic spline, four points a sample, from time 0 on.

    Args:
        target: the data.

    Returns:
        The potential [mV]. At time 0 it is that of the known start, or else that of the first sample.
    """
    v = np.asarray(target.v)
    first = v[:, 0] if target.start is None else np.asarray(target.start.v)
    spline = CubicSpline(np.arange(target.frames + 1), np.concatenate([first[:, None], v], 1), axis=1)
    return jnp.asarray(spline(np.arange(_FINE * target.frames + 1) / _FINE))


def held_current(target: Target) -> Float[Array, "trial half"]:
    """The current in each half sample.

    Args:
        target: the data.

    Returns:
        The current, in the target's unit; two values a sample.
    """
    current = jnp.asarray(target.current)
    return jnp.repeat(jnp.concatenate([current[:, :1], current[:, :-1]], 1), 2, axis=1)


def where_it_begins(simulator: ODESimulator, target: Target) -> Any:
    """The states at time 0: the known ones, or those in which a cell held at its first potential would be.

    Args:
        simulator: the cell.
        target: the data.

    Returns:
        The states, each leaf `[trial]`.
    """
    if target.start is not None:
        return target.start
    v, current = jnp.asarray(target.v[:, 0]), jnp.asarray(target.current[:, 0])
    state: Any = jax.tree.map(lambda x: jnp.broadcast_to(x, v.shape), simulator.init(jax.random.key(0)))
    # What follows a variable that follows another one needs a pass more.
    for _ in state:
        state = simulator.relaxation(state._replace(v=v), current)[0]
    return state._replace(v=v)


def driven(
    simulator: ODESimulator,
    start: PyTree,
    v: Float[Array, "trial fine"],
    current: Float[Array, "trial half"],
    dt: float,
) -> Any:
    r"""Integrate all variables but the potential, which is given, by the exponential midpoint rule.

    \[ y_k(t + h) = \bar y_k + (y_k(t) - \bar y_k)\,e^{-r_k h}, \quad \bar y_k, r_k \text{ at } t + \tfrac12 h \]

    Args:
        simulator: the cell.
        start: the states at time 0, each leaf `[trial]`.
        v: the potential [mV], from `upsampled`.
        current: the current, from `held_current`.
        dt: time between samples [ms].

    Returns:
        The states at every half sample, time 0 among them: each leaf `[trial, half + 1]`.
    """
    h = 2 * dt / _FINE

    def relaxed(y, state, current, h):
        steady, rate = simulator.relaxation(state, current)
        return jax.tree.map(lambda x, s, r: s + (x - s) * jnp.exp(-r * h), y, steady, rate)

    def step(y, inputs):
        middle, after, current = inputs
        half = relaxed(y, y, current, h / 2)._replace(v=middle)
        y = relaxed(y, half, current, h)._replace(v=after)
        return y, y

    v, current = v.T, current.T
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, v.shape[1:]).astype(v.dtype), start)
    first = start._replace(v=v[0])
    _, states = lax.scan(step, first, (v[1::2], v[2::2], current))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]).T, first, states)
