"""Rate functions of ion channels."""

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float

__all__ = ["exponentials", "linoid"]


def linoid(x: Float[Array, "*any"], exponential: Float[Array, "*any"]) -> Float[Array, "*any"]:
    r"""Compute \(x / (1 - e^{-x})\), smooth through \(x = 0\), where value and derivatives are those of the limit.

    Args:
        x: the argument.
        exponential: \(e^{-x}\), however the caller came by it.

    Returns:
        The value, 1 at `x = 0`.
    """
    # Near zero the quotient loses digits; the series' first omitted term is x⁸/1209600.
    near = jnp.abs(x) < 0.1
    square = x * x
    series = 1 + 0.5 * x + square * (1 / 12 - square * (1 / 720 - square * (1 / 30240)))
    return jnp.where(near, series, x / jnp.where(near, 1.0, 1 - exponential))


def exponentials(v: Float[Array, "*neuron"], *slopes: float) -> tuple[Float[Array, "*neuron"], ...]:
    r"""Compute \(e^{sv}\) for several slopes, once: a barrier keeps XLA from repeating them for every use.

    Args:
        v: potential [mV], of one cell or of a population.
        slopes: the slopes [1/mV].

    Returns:
        One array a slope.
    """
    if jnp.ndim(v) == 0:
        return lax.optimization_barrier(tuple(jnp.exp(s * v) for s in slopes))
    scale = jnp.asarray(slopes, v.dtype)[:, None]
    return tuple(lax.optimization_barrier(jnp.exp(scale * v[None])))
