"""The recipe of a training, and what follows from it: the learning rate of an epoch, and when to stop.

Both are functions of the validation losses so far. Nothing else has to be kept, so a resumed training cannot differ.
"""

from collections.abc import Sequence
from typing import Literal, Self

import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from jneuro.core.config import Config
from jneuro.core.types import Array, Int, Scalar
from jneuro.training.losses import LossName
from jneuro.training.optimizers import Adam, Optimizer

__all__ = ["Plateau", "StopReason", "TrainConfig", "decay", "learning_rate", "stop_reason"]

StopReason = Literal["epochs", "early_stopping", "diverged"]


class Plateau(Config):
    """Lower the learning rate when the validation loss stops falling (`torch.optim.lr_scheduler.ReduceLROnPlateau`).

    Attributes:
        factor: what the learning rate is multiplied by.
        patience: bad epochs that are tolerated; the one after them acts.
        min_lr: the learning rate goes no lower.
        threshold: an epoch is good if its loss is below `best·(1 − threshold)`.
    """

    factor: float = Field(default=0.7, gt=0, lt=1)
    patience: int = Field(default=3, ge=0)
    min_lr: float = Field(default=1e-5, ge=0)
    threshold: float = Field(default=1e-4, ge=0, lt=1)


class TrainConfig(Config):
    """How to train; the defaults are those of the CNN-LSTM study.

    Attributes:
        batch_size: windows in a step; an epoch's incomplete last batch is dropped, and each epoch shuffles anew.
        epochs: most passes over the training windows.
        optimizer: `adam` or `adamw`, and its constants.
        loss: what is minimised.
        warmup_epochs: epochs E of linear warm-up; epoch e < E has `warmup_from + (learning_rate − warmup_from)·e/E`.
        warmup_from: learning rate of the first epoch.
        plateau: lowers the learning rate at a plateau after the warm-up; None leaves it.
        schedule: `cosine` multiplies the learning rate by ½(1 + cos πx), x from 0 to 1 in the steps after the warm-up.
        early_stopping: epochs without a new lowest validation loss after which to stop; None never stops early.
        steps_per_call: most steps in one compiled call; the results do not depend on it.
        parallel: how several devices share a batch: `jit` lets the compiler divide the program, `pmap` maps it over the
            devices; `auto` is `jit` if there are several. The results do not depend on it, but for rounding.
    """

    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=200, ge=1)
    optimizer: Optimizer = Adam()
    loss: LossName = "mse"
    warmup_epochs: int = Field(default=5, ge=0)
    warmup_from: float = Field(default=5e-6, ge=0)
    plateau: Plateau | None = Plateau()
    schedule: Literal["constant", "cosine"] = "constant"
    early_stopping: int | None = Field(default=20, ge=1)
    steps_per_call: int = Field(default=32, ge=1)
    parallel: Literal["auto", "jit", "pmap"] = "auto"

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.schedule == "cosine" and self.plateau is not None:
            raise ValueError("schedule 'cosine' and plateau both change the learning rate; set plateau to null")
        return self


def learning_rate(config: TrainConfig, losses: Sequence[float]) -> float:
    """Learning rate of the next epoch, without the cosine.

    Args:
        config: the recipe.
        losses: validation loss of every epoch so far.

    Returns:
        The learning rate of epoch `len(losses)`.
    """
    rate, warmup, epoch = config.optimizer.learning_rate, config.warmup_epochs, len(losses)
    if epoch < warmup:
        return config.warmup_from + (rate - config.warmup_from) * epoch / warmup
    if (plateau := config.plateau) is None:
        return rate
    best, bad = np.inf, 0
    for loss in losses[warmup:]:
        best, bad = (loss, 0) if loss < best * (1 - plateau.threshold) else (best, bad + 1)
        if bad > plateau.patience:
            lower, bad = max(rate * plateau.factor, plateau.min_lr), 0
            # torch leaves the learning rate when the change would be below 1e-8.
            rate = lower if rate - lower > 1e-8 else rate
    return rate


def decay(config: TrainConfig, step: Int[Array, ""], steps_per_epoch: int) -> Scalar:
    """Factor of the learning rate at a step: one, or the cosine.

    Args:
        config: the recipe.
        step: steps taken so far.
        steps_per_epoch: steps in an epoch.

    Returns:
        The factor.
    """
    if config.schedule == "constant":
        return jnp.ones(())
    first = config.warmup_epochs * steps_per_epoch
    # Two integers divided would be single precision, whatever the training's.
    progress = (step - first).astype(float) / max(config.epochs * steps_per_epoch - first, 1)
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))


def stop_reason(config: TrainConfig, losses: Sequence[float]) -> StopReason | None:
    """Why to stop before the next epoch.

    Args:
        config: the recipe.
        losses: validation loss of every epoch so far.

    Returns:
        The reason, or None to go on.
    """
    if config.early_stopping and losses and len(losses) - 1 - int(np.argmin(losses)) >= config.early_stopping:
        return "early_stopping"
    return "epochs" if len(losses) >= config.epochs else None
