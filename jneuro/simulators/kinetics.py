"""Rate functions of ion channels."""

import jax.numpy as jnp

from jneuro.core.types import Array, Float

__all__ = ["linoid"]


def linoid(x: Float[Array, "*any"], exponential: Float[Array, "*any"] | None = None) -> Float[Array, "*any"]:
    r"""Compute \(x / (1 - e^{-x})\), smooth through \(x = 0\), where value and derivatives are those of the limit.

    Args:
        x: the argument.
        exponential: \(e^{-x}\), where the caller has it already.

    Returns:
        The value, 1 at `x = 0`.
    """
    # Near zero the quotient loses digits; the series' first omitted term is x⁸/1209600.
    near = jnp.abs(x) < 0.1
    square = x * x
    exponential = jnp.exp(-x) if exponential is None else exponential
    series = 1 + 0.5 * x + square * (1 / 12 - square * (1 / 720 - square * (1 / 30240)))
    return jnp.where(near, series, x / jnp.where(near, 1.0, 1 - exponential))
