"""Adam and AdamW as PyTorch defines them, as `optax` transformations.

The transformations return the direction only; the learning rate is an array in the training state and is applied there.
"""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Scalar

__all__ = ["Adam", "AdamW", "Optimizer", "clip_by_norm", "transformation"]

Beta = Annotated[float, Field(ge=0, lt=1)]


class _Moments(Config):
    """What both optimisers need.

    Attributes:
        learning_rate: step size η after the warm-up.
        weight_decay: λ.
        clip_norm: largest norm of the whole gradient; None does not clip.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
    """

    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)


class Adam(_Moments):
    """Adam with coupled weight decay, an L2 penalty: `g ← clip(g) + λ·p` before the moments (`torch.optim.Adam`)."""

    name: Literal["adam"] = "adam"


class AdamW(_Moments):
    """Adam with decoupled weight decay: `p ← p − η·(m̂/(√v̂ + ε) + λ·p)` (`torch.optim.AdamW`)."""

    name: Literal["adamw"] = "adamw"


Optimizer = Annotated[Adam | AdamW, Field(discriminator="name")]
"""An optimiser's configuration, chosen by its name."""


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


def transformation(config: Adam | AdamW, weight_decay: Scalar | None = None) -> optax.GradientTransformation:
    """Build the transformation from a gradient to a direction; the caller subtracts `η ·` direction.

    Args:
        config: which optimiser, and its constants.
        weight_decay: an array in place of the configured λ, so that it can differ within one program.

    Returns:
        The transformation.
    """
    clip = [] if config.clip_norm is None else [clip_by_norm(config.clip_norm)]
    rate = config.weight_decay if weight_decay is None else weight_decay
    decay = [optax.add_decayed_weights(rate)] if weight_decay is not None or config.weight_decay else []
    moments = [optax.scale_by_adam(*config.betas, eps=config.eps)]
    match config:
        case Adam():
            return optax.chain(*clip, *decay, *moments)
        case AdamW():
            return optax.chain(*clip, *moments, *decay)
