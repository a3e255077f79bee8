"""The largest Lyapunov exponent: how fast small errors grow, whoever forecasts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jneuro.core.devices import double_precision
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, PyTree
from jneuro.evaluation.analysis import Source
from jneuro.simulators import simulate
from jneuro.simulators.stimuli import Constant

__all__ = ["lyapunov_of_currents", "tangent_growth"]


def tangent_growth(
    step: Callable[[PyTree], PyTree], state: PyTree, tangent: PyTree, count: int
) -> Float[Array, " step"]:
    r"""Follow a tangent along a trajectory, made as long as one again after every step.

    The mean of what is returned, over the time of a step, tends to the largest Lyapunov exponent,
    \(\lambda = \lim \frac1T \ln \|D\phi_T\,u\|\).

    Args:
        step: from a state to the next.
        state: where to start.
        tangent: a direction.
        count: steps.

    Returns:
        The logarithm of the growth in each step.
    """

    def body(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], Array]:
        state, tangent = jax.jvp(step, carry[:1], carry[1:])
        norm = optax.tree.norm(tangent)
        return (state, jax.tree.map(lambda t: t / norm, tangent)), jnp.log(norm)

    norm = optax.tree.norm(tangent)
    start = state, jax.tree.map(lambda t: t / norm, tangent)
    return lax.scan(body, start, None, length=count)[1]


def lyapunov_of_currents(
    source: Source, currents: Float[np.ndarray, " current"], *, warmup: float, duration: float, block: float, key: Array
) -> Float[np.ndarray, " current"]:
    """The largest Lyapunov exponent of a cell under constant currents, in double precision.

    Args:
        source: the simulator, of ordinary differential equations.
        currents: the currents.
        warmup: time left for the trajectory to settle and the tangent to turn [ms].
        duration: time over which growth is averaged [ms].
        block: time after which the tangent is made short again [ms].
        key: draws the initial state, if it is random.

    Returns:
        The exponents [1/ms].
    """
    with double_precision():
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), source.simulator)

        def exponent(current: Array) -> Array:
            def step(y: PyTree) -> PyTree:
                run = simulate(
                    double, Constant(current), duration=block, key=key, dt=source.dt, solver=source.solver,
                    record=("v",), record_every=block, initial_state=y, throw=False,
                )  # fmt: skip
                return run.final_state.y

            y = jax.tree.map(jnp.atleast_1d, double.init(stream(key, "init")))  # type: ignore[union-attr]
            before = round(warmup / block)
            growth = tangent_growth(step, y, jax.tree.map(jnp.ones_like, y), before + round(duration / block))
            return growth[before:].mean() / block

        return np.asarray(jax.jit(jax.vmap(exponent))(jnp.asarray(currents, jnp.float64)))
