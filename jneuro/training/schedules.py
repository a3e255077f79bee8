"""Factors of the learning rate as a function of the step.

A schedule is a function of the step; what it asks for by name it is given: `steps_per_epoch`, `warmup_steps` and
`total_steps`, the last step of the last epoch. The learning rate is that of the epoch times the factor.
"""

import jax.numpy as jnp

from jneuro.core.types import Array, Int, Scalar

__all__ = ["constant", "cosine"]


def constant(step: Int[Array, ""]) -> Scalar:
    """One, at every step.

    Args:
        step: steps taken so far.

    Returns:
        The factor.
    """
    return jnp.ones(())


def cosine(step: Int[Array, ""], *, warmup_steps: int, total_steps: int) -> Scalar:
    """Half a cosine, `½(1 + cos πx)`, x from 0 to 1 in the steps after the warm-up.

    Args:
        step: steps taken so far.
        warmup_steps: of the linear warm-up.
        total_steps: of the whole training.

    Returns:
        The factor.
    """
    # Two integers divided would be single precision, whatever the training's.
    progress = (step - warmup_steps).astype(float) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
