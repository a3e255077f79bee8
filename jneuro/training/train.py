"""Training: the host's loop around the compiled steps."""

import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jneuro._types import Array, Key, PyTree
from jneuro.datasets.windows import Windows
from jneuro.prng import require_key
from jneuro.training.callbacks import Callback, EpochRecord, StepProgress
from jneuro.training.checkpoints import (
    Checkpoints,
    CheckpointStore,
    Weights,
    named_arrays,
    on_termination,
    with_arrays,
)
from jneuro.training.recipe import StopReason, TrainConfig, learning_rate, stop_reason
from jneuro.training.steps import TrainState, begin, run_steps, validation_loss

__all__ = ["TrainResult", "TrainingDiverged", "TrainingInterrupted", "train"]


class TrainResult(NamedTuple):
    """What a training leaves.

    Attributes:
        model: a new model with the weights of the lowest validation loss.
        history: one record for each epoch.
        best_epoch: the epoch of those weights.
        stopped: why it stopped: all `epochs`, or `early_stopping`.
    """

    model: nnx.Module
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: StopReason


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite; the last good checkpoint is left as it was.

    Attributes:
        step: the step at which it was noticed.
        epoch: its epoch.
        learning_rate: its learning rate.
        last_loss: the last finite loss of a step.
    """

    def __init__(self, what: str, step: int, epoch: int, learning_rate: float, last_loss: float):
        super().__init__(
            f"{what} is not finite at step {step} (epoch {epoch}, learning rate {learning_rate:g}, "
            f"last finite loss {last_loss:g}); lower optimizer.learning_rate or set a smaller optimizer.clip_norm"
        )
        self.step, self.epoch, self.learning_rate, self.last_loss = step, epoch, learning_rate, last_loss


class TrainingInterrupted(RuntimeError):
    """SIGTERM came, and the state was saved: the same call resumes."""


@dataclass
class _Run:
    """One training while it runs: what stays, then what changes."""

    config: TrainConfig
    graph: nnx.GraphDef
    rngs: PyTree
    windows: Windows
    key: Key[Array, ""]
    callbacks: Sequence[Callback]
    store: CheckpointStore | None
    every_seconds: float | None
    terminated: Event
    state: TrainState
    best: dict[str, np.ndarray]
    step: int
    history: list[EpochRecord]
    saved_at: float

    @property
    def losses(self) -> list[float]:
        return [record.validation_loss for record in self.history]

    @property
    def steps_per_epoch(self) -> int:
        return self.windows.count("train") // self.config.batch_size

    def epoch(self) -> None:
        """Train to the end of the epoch, validate, tell and save."""
        began = time.perf_counter()
        rate = np.asarray(learning_rate(self.config, self.losses), self.state.learning_rate.dtype)
        home = self.state.learning_rate.sharding
        self.state = self.state._replace(learning_rate=jax.device_put(rate, home))
        end = (len(self.history) + 1) * self.steps_per_epoch
        while self.step < end:
            self.steps(min(self.config.steps_per_call, end - self.step))
            if self.step < end and self.save_due():
                self.save()
        loss = jax.device_get(
            validation_loss(
                self.state.params, self.state.rest, self.windows, self.rngs, graph=self.graph, config=self.config
            )
        )
        if not np.isfinite(loss):
            raise self.diverged("the validation loss")
        if not self.history or loss < min(self.losses):
            self.best = named_arrays({"best": Weights(self.state.params, self.state.rest)})
        metrics = jax.device_get(self.state.metrics)
        record = EpochRecord(
            epoch=len(self.history),
            step=self.step,
            train_loss=float(metrics.loss_sum) / self.steps_per_epoch,
            validation_loss=float(loss),
            learning_rate=float(str(metrics.learning_rate)),  # 0.003, not 0.003000000026
            seconds=time.perf_counter() - began,
        )
        self.history.append(record)
        for callback in self.callbacks:
            callback.on_epoch(record)
        self.save()

    def steps(self, count: int) -> None:
        """One compiled call."""
        began = time.perf_counter()
        self.state = run_steps(
            self.state,
            jax.device_put(np.int32(count)),
            self.windows,
            self.rngs,
            self.key,
            graph=self.graph,
            config=self.config,
        )
        metrics = jax.device_get(self.state.metrics)
        if metrics.bad_step >= 0:
            raise self.diverged("the loss", int(metrics.bad_step))
        self.step += count
        epoch, speed = len(self.history), count / (time.perf_counter() - began)
        done = self.step - epoch * self.steps_per_epoch
        loss = float(metrics.loss_sum) / done
        progress = StepProgress(epoch, self.config.epochs, self.step, self.steps_per_epoch, loss, speed)
        for callback in self.callbacks:
            callback.on_steps(progress)

    def save_due(self) -> bool:
        """Whether to save within the epoch."""
        timed = self.every_seconds is not None and time.monotonic() - self.saved_at >= self.every_seconds
        return self.terminated.is_set() or timed

    def save(self) -> None:
        """Save the state if it is good; end the training if it is to end."""
        if self.store is None:
            return
        arrays = named_arrays({"state": self.state}) | self.best
        bad = [k for k, a in arrays.items() if np.issubdtype(a.dtype, np.inexact) and not np.isfinite(a).all()]
        if bad:
            raise self.diverged(bad[0])
        self.store.save(self.step, arrays, [record._asdict() for record in self.history])
        self.saved_at = time.monotonic()
        if self.terminated.is_set():
            raise TrainingInterrupted(f"saved step {self.step} in {self.store.directory}; resume to continue")

    def restore(self) -> None:
        """Continue from the latest checkpoint, if there is one."""
        saved = self.store.restore() if self.store else None
        if saved is not None:
            self.state = with_arrays({"state": self.state}, saved.arrays)["state"]
            self.best = {name: array for name, array in saved.arrays.items() if name.startswith("best.")}
            self.step, self.history = saved.step, [EpochRecord(**record) for record in saved.history]

    def diverged(self, what: str, step: int | None = None) -> TrainingDiverged:
        """The error, with what is known."""
        metrics = jax.device_get(self.state.metrics)
        step = self.step if step is None else step
        return TrainingDiverged(what, step, len(self.history), float(metrics.learning_rate), float(metrics.loss))


def _check(windows: Windows, config: TrainConfig) -> None:
    """Refuse windows that make no batch."""
    for split, least in (("train", config.batch_size), ("validation", 1)):
        count = windows.count(split) if split in windows.starts else 0
        if count < least:
            raise ValueError(
                f"training needs at least {least} windows in the split {split!r}, got {count}; "
                "simulate longer, use a smaller stride or lower batch_size"
            )


def _fingerprint(config: TrainConfig, windows: Windows, state: TrainState, key: Key[Array, ""]) -> dict[str, Any]:
    """What must be the same for a training to be resumed; `steps_per_call` changes no result."""
    model = named_arrays(Weights(state.params, state.rest))
    crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.values)).data)
    for split in ("train", "validation"):
        crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.starts[split])).data, crc)
    return {
        "config": config.model_dump(mode="json", exclude={"steps_per_call"}),
        "model": {name: f"{array.dtype}{list(array.shape)}" for name, array in model.items()},
        "windows": {"length": windows.length, "horizons": list(windows.horizons), "crc32": crc},
        "key": np.asarray(jax.device_get(jax.random.key_data(key))).tolist(),
    }


def train(
    model: nnx.Module,
    windows: Windows,
    config: TrainConfig,
    *,
    key: Key[Array, ""],
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoints | None = None,
) -> TrainResult:
    """Train a model on windows.

    One compiled program draws the epoch's order, gathers batches and updates, for as many steps as it is asked; the
    host reads four numbers after each call. Order and dropout depend on `key`, epoch and step alone, so the result does
    not depend on `steps_per_call`, and a training that was killed and resumed ends bit-identical on a CPU.

    Args:
        model: a model with the call signature of `jneuro.models.base.Model`; it is not changed.
        windows: has the splits `train` and `validation`.
        config: the recipe.
        key: draws the order of the windows and the dropout masks.
        callbacks: told of every call and every epoch.
        checkpoint: where to save, and whether to resume from there; None saves nothing. With it, SIGTERM saves and
            raises, if `train` runs in the main thread.

    Returns:
        The model with the weights of the lowest validation loss, the history, and why it stopped.

    Raises:
        ValueError: if there are too few windows for a batch, or the checkpoints are those of another training.
        TrainingDiverged: if the loss or the weights are no longer finite.
        TrainingInterrupted: after SIGTERM, once the state is saved.
    """
    _check(windows, config)
    windows, key = jax.device_put((windows, require_key(key)))
    graph, params, rngs, rest = nnx.split(model, nnx.Param, nnx.RngState, ...)
    state = begin(params, rest, config)
    opened = nullcontext()
    if checkpoint is not None:
        opened = CheckpointStore(checkpoint, _fingerprint(config, windows, state, key))
    with opened as store, on_termination(store is not None) as terminated:
        run = _Run(
            config=config,
            graph=graph,
            rngs=rngs,
            windows=windows,
            key=key,
            callbacks=callbacks,
            store=store,
            every_seconds=checkpoint.every_seconds if checkpoint else None,
            terminated=terminated,
            state=state,
            best=named_arrays({"best": Weights(params, rest)}),
            step=0,
            history=[],
            saved_at=time.monotonic(),
        )
        run.restore()
        while (stopped := stop_reason(config, run.losses)) is None:
            run.epoch()
    best = with_arrays({"best": Weights(run.state.params, run.state.rest)}, run.best)["best"]
    trained = nnx.merge(graph, best.params, rngs, best.rest, copy=True)
    return TrainResult(trained, tuple(run.history), int(np.argmin(run.losses)), stopped)
