"""Adam and AdamW as PyTorch defines them, as `optax` transformations, and schedules of the learning rate.

The transformations return the direction only; the learning rate is an array in the training state and is applied there.

A schedule is a function of the step; what it asks for by name it is given: `steps_per_epoch`, `warmup_steps` and
`total_steps`, the last step of the last epoch. The learning rate is that of the epoch times this factor.
"""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.registry import Block
from jneuro.core.types import Array, Int, PyTree, Scalar

__all__ = [
    "Adam",
    "AdamW",
    "OptimizerConfig",
    "clip_by_norm",
    "constant",
    "cosine",
    "rate_within",
    "transformation",
]

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """An optimiser that leaves the learning rate to the training: its warm-up, plateau and schedule.

    Attributes:
        learning_rate: step size η after the warm-up.
        weight_decay: λ.
        clip_norm: largest norm of the whole gradient; None does not clip.
    """

    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)

    def direction(self, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
        """Build the transformation from a gradient to a direction; the caller subtracts `η ·` direction.

        Args:
            weight_decay: an array in place of the configured λ, so that it can differ within one program.

        Returns:
            The transformation.
        """
        raise NotImplementedError

    def _parts(self, weight_decay: Scalar | None) -> tuple[list[optax.GradientTransformation], ...]:
        """Clipping and weight decay, each none or one."""
        rate = self.weight_decay if weight_decay is None else weight_decay
        clip = [] if self.clip_norm is None else [clip_by_norm(self.clip_norm)]
        return clip, [optax.add_decayed_weights(rate)] if weight_decay is not None or self.weight_decay else []


class _Moments(OptimizerConfig):
    """What both optimisers have.

    Attributes:
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
    """

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)


class Adam(_Moments):
    """Adam with coupled weight decay, an L2 penalty: `g ← clip(g) + λ·p` before the moments (`torch.optim.Adam`)."""

    name: Literal["adam"] = "adam"

    def direction(self, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
        """Clip, add the decay, divide the moments."""
        clip, decay = self._parts(weight_decay)
        return optax.chain(*clip, *decay, optax.scale_by_adam(*self.betas, eps=self.eps))


class AdamW(_Moments):
    """Adam with decoupled weight decay: `p ← p − η·(m̂/(√v̂ + ε) + λ·p)` (`torch.optim.AdamW`)."""

    name: Literal["adamw"] = "adamw"

    def direction(self, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
        """Clip, divide the moments, add the decay."""
        clip, decay = self._parts(weight_decay)
        return optax.chain(*clip, optax.scale_by_adam(*self.betas, eps=self.eps), *decay)


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """Scale the gradient by `min(1, limit / (‖g‖ + 1e-6))`.

    Args:
        limit: largest norm.

    Returns:
        The transformation.
    """

    def update(updates, state, params=None):
        # optax.clip_by_global_norm has no 1e-6; torch.nn.utils.clip_grad_norm_ has, and a trajectory shows it.
        factor = jnp.minimum(1, limit / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def transformation(optimizer: Any, weight_decay: Scalar | None = None) -> optax.GradientTransformationExtraArgs:
    """Build the transformation of an optimiser.

    Args:
        optimizer: an `OptimizerConfig`, whose updates are directions; or a `Block` that means an optax transformation,
            or makes one, whose updates are the steps themselves.
        weight_decay: of an `OptimizerConfig`, an array in place of the configured λ.

    Returns:
        The transformation.

    Raises:
        ValueError: if a function made something else.
    """
    if not isinstance(optimizer, Block):
        return optax.with_extra_args_support(optimizer.direction(weight_decay))
    made = optimizer.target
    if not isinstance(made, optax.GradientTransformation):
        made = optimizer.build()
    if isinstance(made, optax.MultiSteps):
        made = made.gradient_transformation()
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(f"{optimizer.name} made {type(made).__name__}, which is not an optax.GradientTransformation")
    return optax.with_extra_args_support(made)


def rate_within(state: PyTree) -> Scalar:
    """The learning rate that an optax state tells (`optax.inject_hyperparams`); −1 if it tells none.

    Args:
        state: of the transformation.
    """
    found = optax.tree_utils.tree_get_all_with_path(state, "learning_rate")
    return jnp.asarray(found[0][1]) if found else -jnp.ones(())


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
