"""The recipe of a training, and what follows from it: the learning rate of an epoch, and when to stop.

Both are functions of the validation losses so far. Nothing else has to be kept, so a resumed training cannot differ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import optax
from pydantic import AfterValidator, Field, model_validator

from jneuro.core.config import Config
from jneuro.core.registry import Block, accepted
from jneuro.core.types import Array, Int, Scalar
from jneuro.training.kinds import CALLBACKS, LOSSES, OPTIMIZERS, SCHEDULES, bound
from jneuro.training.optimizers import Adam, transformation

__all__ = ["Plateau", "StopReason", "TrainConfig", "learning_rate", "rate_factor", "stop_reason"]

StopReason = Literal["epochs", "early_stopping", "diverged"]


def _loss(block: Block) -> Block:
    """Refuse what cannot be called as a loss is."""
    bound(block, ("prediction", "batch"))
    return block


def _schedule(block: Block) -> Block:
    """Refuse what cannot be called as a schedule is."""
    bound(block, ("step",), steps_per_epoch=1, warmup_steps=0, total_steps=1)
    return block


LossBlock = Annotated[Any, LOSSES.field(), AfterValidator(_loss)]
ScheduleBlock = Annotated[Any, SCHEDULES.field(), AfterValidator(_schedule)]


class Plateau(Config):
    """Lower the learning rate when the validation loss stops falling (`torch.optim.lr_scheduler.ReduceLROnPlateau`).

    Attributes:
        factor: what the learning rate is multiplied by.
        patience: bad epochs that are tolerated; the one after them acts.
        min_lr: the learning rate goes no lower.
        threshold: an epoch is good if its loss is below the best by more than `|best|·threshold`. For a positive loss
            this is PyTorch's rule; for a negative one, as of counts, PyTorch would take a rise for a fall.
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
        optimizer: `adam` or `adamw`, and its constants; or an optax transformation, or what makes one, such as
            `{name: "optax:lion", learning_rate: 1e-4}`. Such a one has its own learning rate, so there is no warm-up,
            plateau, schedule or clipping besides.
        loss: what is minimised: `mse`, `mae`, `pinball`, `poisson`, or a function `(prediction, batch) -> [batch]`.
        metrics: further losses, computed over the validation windows after each epoch and kept in the history.
        callbacks: told of the training; classes with any of the hooks of `jneuro.training.callbacks.Callback`.
        warmup_epochs: epochs E of linear warm-up; epoch e < E has `warmup_from + (learning_rate − warmup_from)·e/E`. A
            training of no more epochs than that never has the whole rate.
        warmup_from: learning rate of the first epoch.
        plateau: lowers the learning rate at a plateau after the warm-up; None leaves it.
        schedule: factor of the learning rate by step. `cosine` is ½(1 + cos πx), x from 0 to 1 in the steps after the
            warm-up; or a function of the step, or what makes one, such as an optax schedule.
        early_stopping: epochs without a new lowest validation loss after which to stop; None never stops early.
        steps_per_call: most steps in one compiled call; the results do not depend on it.
        parallel: how several devices share a batch: `jit` lets the compiler divide the program, `pmap` maps it over the
            devices; `auto` is `jit` if there are several. The results do not depend on it, but for rounding.
    """

    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=200, ge=1)
    optimizer: Annotated[Any, OPTIMIZERS.field()] = Adam()
    loss: LossBlock = Field(default="mse", validate_default=True)
    metrics: tuple[LossBlock, ...] = ()
    callbacks: tuple[Annotated[Any, CALLBACKS.field()], ...] = ()
    warmup_epochs: int = Field(default=5, ge=0)
    warmup_from: float = Field(default=5e-6, ge=0)
    plateau: Plateau | None = Plateau()
    schedule: ScheduleBlock = Field(default="constant", validate_default=True)
    early_stopping: int | None = Field(default=20, ge=1)
    steps_per_call: int = Field(default=32, ge=1)
    parallel: Literal["auto", "jit", "pmap"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _leave_to_optax(cls, data: Any) -> Any:
        """A whole optax transformation has its own learning rate and clipping; ours are off, and refused if given."""
        if not isinstance(data, Mapping) or "optimizer" not in data:
            return data
        try:
            block = OPTIMIZERS.block(data["optimizer"])
        except ValueError:
            return data  # refused at its own key
        if not isinstance(block, Block):
            return data
        transformation(block)
        if isinstance(block.target, optax.GradientTransformation):
            block = block.model_copy(update={"name": "optax"})
        off = {"warmup_epochs": 0, "plateau": None, "schedule": "constant"}
        for key, value in off.items():
            given = data.get(key, value)
            if getattr(given, "name", given) != value:
                raise ValueError(
                    f"optimizer {block.name!r} sets its own learning rate, so {key} has no effect; leave it "
                    "out and give optax a schedule, or take adam or adamw"
                )
        return {**data, "optimizer": block, **off}

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.schedule.name != "constant" and self.plateau is not None:
            raise ValueError(
                f"schedule {self.schedule.name!r} and plateau both change the learning rate; set plateau to null"
            )
        return self

    @model_validator(mode="after")
    def _rates_are_reached(self) -> Self:
        """Refuse a warm-up that would never end, and a plateau that could lower nothing; the defaults are for all."""
        if self.whole_optimizer:
            return self
        if self.warmup_epochs > max(self.epochs, type(self).model_fields["warmup_epochs"].default):
            raise ValueError(
                f"warmup_epochs = {self.warmup_epochs} is more than epochs = {self.epochs}, so the learning rate would "
                "never be reached; lower it"
            )
        least, rate = self.plateau.min_lr if self.plateau else 0.0, self.optimizer.learning_rate
        if least > max(rate, Plateau().min_lr):
            raise ValueError(f"plateau.min_lr = {least:g} is more than the learning rate, {rate:g}; lower it")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        """Refuse metrics that would have the same name."""
        names = self.metric_names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"metrics: {twice[0]!r} stands there twice; give one another name")
        return self

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics in the history: without their module."""
        return [block.name.rpartition(":")[2] for block in self.metrics]

    @property
    def whole_optimizer(self) -> bool:
        """Whether the optimiser is a whole optax transformation, with its own learning rate and clipping."""
        return isinstance(self.optimizer, Block)

    @property
    def counts_epochs(self) -> bool:
        """Whether the learning rate depends on how many epochs there will be."""
        return "total_steps" in accepted(self.schedule.target)


def learning_rate(config: TrainConfig, losses: Sequence[float]) -> float:
    """Learning rate of the next epoch, without the schedule's factor.

    Args:
        config: the recipe.
        losses: validation loss of every epoch so far.

    Returns:
        The learning rate of epoch `len(losses)`; 0 where optax sets it.
    """
    if config.whole_optimizer:
        return 0.0
    rate, warmup, epoch = config.optimizer.learning_rate, config.warmup_epochs, len(losses)
    if epoch < warmup:
        return config.warmup_from + (rate - config.warmup_from) * epoch / warmup
    if (plateau := config.plateau) is None:
        return rate
    best, bad = np.inf, 0
    for loss in losses[warmup:]:
        bar = best * (1 - np.copysign(plateau.threshold, best))
        best, bad = (loss, 0) if loss < bar else (best, bad + 1)
        if bad > plateau.patience:
            lower, bad = max(rate * plateau.factor, plateau.min_lr), 0
            # torch leaves the learning rate when the change would be below 1e-8.
            rate = lower if rate - lower > 1e-8 else rate
    return rate


def rate_factor(config: TrainConfig, steps_per_epoch: int) -> Callable[[Int[Array, ""]], Scalar]:
    """Factor of the learning rate as a function of the step.

    Args:
        config: the recipe.
        steps_per_epoch: steps in an epoch.

    Returns:
        The function.
    """
    steps = {"warmup_steps": config.warmup_epochs * steps_per_epoch, "total_steps": config.epochs * steps_per_epoch}
    return bound(config.schedule, ("step",), steps_per_epoch=steps_per_epoch, **steps)


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
