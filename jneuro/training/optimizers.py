"""Adam and AdamW as PyTorch defines them, as `optax` transformations.

The transformations return the direction only; the learning rate is an array in the training state and is applied there.
"""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.registry import Block
from jneuro.core.types import PyTree, Scalar

__all__ = ["Adam", "AdamW", "OptimizerConfig", "clip_by_norm", "rate_within", "transformation"]

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

    def _clipping(self) -> list[optax.GradientTransformation]:
        return [] if self.clip_norm is None else [clip_by_norm(self.clip_norm)]

    def _decay(self, weight_decay: Scalar | None) -> list[optax.GradientTransformation]:
        rate = self.weight_decay if weight_decay is None else weight_decay
        return [optax.add_decayed_weights(rate)] if weight_decay is not None or self.weight_decay else []


class _Moments(OptimizerConfig):
    """What both optimisers have.

    Attributes:
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
    """

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    @property
    def _moments(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(*self.betas, eps=self.eps)


class Adam(_Moments):
    """Adam with coupled weight decay, an L2 penalty: `g ← clip(g) + λ·p` before the moments (`torch.optim.Adam`)."""

    name: Literal["adam"] = "adam"

    def direction(self, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
        """Clip, add the decay, divide the moments."""
        return optax.chain(*self._clipping(), *self._decay(weight_decay), self._moments)


class AdamW(_Moments):
    """Adam with decoupled weight decay: `p ← p − η·(m̂/(√v̂ + ε) + λ·p)` (`torch.optim.AdamW`)."""

    name: Literal["adamw"] = "adamw"

    def direction(self, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
        """Clip, divide the moments, add the decay."""
        return optax.chain(*self._clipping(), self._moments, *self._decay(weight_decay))


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
