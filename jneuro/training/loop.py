"""The host's loop around the compiled steps: one training, or the members of an ensemble side by side."""

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jneuro.core.types import PyTree
from jneuro.models.base import takes_train
from jneuro.training.callbacks import Callback, EpochRecord, StepProgress
from jneuro.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    CheckpointStore,
    Weights,
    named_arrays,
    on_termination,
    with_arrays,
)
from jneuro.training.recipe import StopReason, TrainConfig, learning_rate, stop_reason
from jneuro.training.steps import Common, Own, Program, TrainState, begin, run_steps, validate

__all__ = ["Course", "Run", "TrainResult", "TrainingDiverged", "TrainingInterrupted", "split_model"]


class TrainResult(NamedTuple):
    """What a training leaves.

    Attributes:
        model: a new model with the weights of the lowest validation loss; one that is called without `train=` is in
            Flax's mode for predictions.
        history: one record for each epoch.
        best_epoch: the epoch of those weights; −1 if they are the initial ones.
        stopped: why it stopped: all `epochs`, or `early_stopping`; of an ensemble's member also `diverged`.
        notes: what had no effect, or could not be checked, in whole sentences.
    """

    model: nnx.Module
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: StopReason
    notes: tuple[str, ...] = ()


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite; the last good checkpoint is left as it was.

    Attributes:
        step: the step at which it was noticed.
        epoch: its epoch.
        learning_rate: its learning rate.
        last_loss: the last finite loss of a step.
    """

    outcome = "failed"

    def __init__(self, what: str, step: int, epoch: int, learning_rate: float, last_loss: float):
        super().__init__(
            f"{what} is not finite at step {step} (epoch {epoch}, learning rate {learning_rate:g}, "
            f"last finite loss {last_loss:g}); lower optimizer.learning_rate or set a smaller optimizer.clip_norm"
        )
        self.step, self.epoch, self.learning_rate, self.last_loss = step, epoch, learning_rate, last_loss


class TrainingInterrupted(RuntimeError):
    """SIGTERM came, and the state was saved: the same call resumes."""

    outcome = "stopped"


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Weights, PyTree]:
    """Split a model into its static part, its weights and its random streams."""
    graph, params, rngs, rest = nnx.split(model, nnx.Param, nnx.RngState, ...)
    return graph, Weights(params, rest), rngs


@dataclass
class Course:
    """The course of one training, on the host.

    Attributes:
        model: where it began.
        config: its recipe.
        callbacks: what listens.
        notes: what its result says besides.
        history: its epochs so far; a validation loss that is not finite is the last of a member that diverged.
    """

    model: nnx.Module
    config: TrainConfig
    callbacks: Sequence[Callback]
    notes: tuple[str, ...] = ()
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """The validation losses so far."""
        return [record.validation_loss for record in self.history]

    @property
    def stopped(self) -> StopReason | None:
        """Why it is over; None while it runs."""
        if self.history and not np.isfinite(self.history[-1].validation_loss):
            return "diverged"
        return stop_reason(self.config, self.losses)

    def result(self, best: dict[str, np.ndarray]) -> TrainResult:
        """The result, given the best weights; they are placed as those it began with."""
        graph, weights, rngs = split_model(self.model)
        params, rest = with_arrays({"best": weights}, best)["best"]
        losses = [loss for loss in self.losses if np.isfinite(loss)]
        model = nnx.merge(graph, params, rngs, rest, copy=True)
        if not takes_train(model):
            model.eval()
        best_epoch = int(np.argmin(losses)) if losses else -1
        return TrainResult(model, tuple(self.history), best_epoch, self.stopped, self.notes)  # type: ignore


class Run:
    """One training while it runs, or an ensemble; then every array has the member as its first axis.

    A member that has stopped goes on with the others and is ignored.
    """

    def __init__(
        self,
        courses: Sequence[Course],
        weights: Weights,
        own: Own,
        common: Common,
        program: Program,
        checkpoint: Checkpoints | None,
        fingerprint: dict[str, Any],
    ):
        """Place everything, and continue from the latest checkpoint if there is one.

        Args:
            courses: of one training, or of each member.
            weights: those to begin with; of an ensemble, stacked.
            own: what is each training's own; of an ensemble, stacked.
            common: what they have in common.
            program: what is compiled.
            checkpoint: where to save.
            fingerprint: what a checkpoint must agree with to be resumed.
        """
        self._courses, self._program, self._placement = courses, program, program.placement
        self._checkpoint, self._fingerprint = checkpoint, fingerprint
        self._ensemble = self._placement.mode == "members"
        self._own = self._placement.put(own, each_member=self._ensemble)
        self._common = self._placement.put(common)
        self._state = begin(weights, own, program)
        self._best = named_arrays({"best": weights})
        self._step, self._saved_at = 0, time.monotonic()
        self._steps_per_epoch = common.windows.count("train") // program.config.batch_size
        self._store: CheckpointStore | None = None
        self._terminated = Event()
        self._failures: list[Exception] = []

    def __call__(self) -> list[TrainResult]:
        """Train to the end, or on from the latest checkpoint."""
        where = self._checkpoint
        opened = nullcontext() if where is None else CheckpointStore(where, self._fingerprint)
        with opened as self._store, on_termination(where is not None) as self._terminated:
            self._restore()
            try:
                self._tell("on_start", [(course.config, tuple(course.history)) for course in self._courses])
                self._raise_failure()
                while any(course.stopped is None for course in self._courses):
                    self._epoch()
            except BaseException:
                with suppress(Exception):
                    self._tell("on_end", [(tuple(course.history),) for course in self._courses])
                raise
            self._tell("on_end", [(tuple(course.history),) for course in self._courses])
            self._raise_failure()
        best = [{n: a[k] if self._ensemble else a for n, a in self._best.items()} for k in range(len(self._courses))]
        return [course.result(arrays) for course, arrays in zip(self._courses, best, strict=True)]

    def _epoch(self) -> None:
        """Train to the end of the epoch, validate, tell and save."""
        began, epoch = time.perf_counter(), max(len(course.history) for course in self._courses)
        state, end = self._state, (epoch + 1) * self._steps_per_epoch
        rates = np.array([learning_rate(c.config, c.losses) for c in self._courses], state.learning_rate.dtype)
        rates = rates.reshape(state.learning_rate.shape)
        self._state = state._replace(learning_rate=self._placement.put(rates, each_member=self._ensemble))
        while self._step < end:
            self._steps(min(self._program.config.steps_per_call, end - self._step), epoch)
            if self._step < end and self._save_due():
                self._save()
                self._raise_failure()
        weights = Weights(self._state.params, self._state.rest)
        validations = self._split(validate(weights, self._common, self._program))
        better, seconds = np.zeros(len(self._courses), bool), time.perf_counter() - began
        every = zip(self._courses, self._split(self._state.metrics), validations, strict=True)
        told: list[tuple[Any, ...] | None] = [None] * len(self._courses)
        for k, (course, metrics, validation) in enumerate(every):
            if course.stopped is None:
                loss, r2, rmse, mae = map(float, validation[:4])
                loss = loss if metrics.bad_step < 0 else np.nan
                if not (np.isfinite(loss) or self._ensemble):
                    raise self._diverged("the validation loss")
                better[k] = loss < min(course.losses, default=np.inf)
                rate = float(str(metrics.learning_rate))  # 0.003, not 0.003000000026
                mean = float(metrics.loss_sum) / self._steps_per_epoch
                named = dict(zip(course.config.metric_names, map(float, validation.metrics), strict=True))
                record = EpochRecord(
                    epoch, self._step, mean, loss, r2, rmse, mae, None if rate < 0 else rate, seconds, named
                )
                course.history.append(record)
                told[k] = (record,)
        self._tell("on_epoch", told)
        self._keep(better, weights)
        self._save()
        self._raise_failure()

    def _tell(self, hook: str, told: Sequence[tuple[Any, ...] | None]) -> None:
        """Call a hook of every callback that has it; what it raises is kept until the state is saved.

        Args:
            hook: its name.
            told: what each training's callbacks are told; None tells them nothing.
        """
        for course, arguments in zip(self._courses, told, strict=True):
            if not self._placement.leads or arguments is None:
                continue
            for callback in course.callbacks:
                if not callable(method := getattr(callback, hook, None)):
                    continue
                try:
                    method(*arguments)
                except Exception as error:
                    error.add_note(f"raised by {hook} of the callback {type(callback).__name__}")
                    self._failures.append(error)

    def _raise_failure(self) -> None:
        """Raise what a callback raised."""
        if self._failures:
            raise self._failures.pop(0)

    def _keep(self, better: np.ndarray, weights: Weights) -> None:
        """Take over the weights of the members that have never been better."""
        if not better.any():
            return
        better = better.reshape(self._state.step.shape)
        for name, array in named_arrays({"best": self._placement.whole(weights)}).items():
            mask = better.reshape(better.shape + (1,) * (array.ndim - better.ndim))
            self._best[name] = np.where(mask, array, self._best[name])

    def _split(self, numbers: Any) -> list[Any]:
        """Copy `Metrics` or a `Validation` to the host, and take it apart by member, be it the only one."""
        leaves, structure = jax.tree.flatten(jax.device_get(self._placement.whole(numbers)))
        return [structure.unflatten(row) for row in zip(*map(np.atleast_1d, leaves), strict=True)]

    def _steps(self, count: int, epoch: int) -> None:
        """One compiled call."""
        began = time.perf_counter()
        number = self._placement.put(np.int32(count))
        self._state = run_steps(self._state, self._own, number, self._common, self._program)
        metrics = self._split(self._state.metrics)
        if metrics[0].bad_step >= 0 and not self._ensemble:
            raise self._diverged("the loss", int(metrics[0].bad_step))
        self._step += count
        speed, done = count / (time.perf_counter() - began), self._step - epoch * self._steps_per_epoch
        told: list[tuple[Any, ...] | None] = [None] * len(self._courses)
        for k, (course, own) in enumerate(zip(self._courses, metrics, strict=True)):
            if course.stopped is None:
                loss, epochs = float(own.loss_sum) / done, course.config.epochs
                told[k] = (StepProgress(epoch, epochs, self._step, self._steps_per_epoch, loss, speed),)
        self._tell("on_steps", told)
        if self._store is None:
            self._raise_failure()

    def _save_due(self) -> bool:
        """Whether to save within the epoch."""
        if self._checkpoint is None:
            return False
        every = self._checkpoint.every_seconds
        timed = every is not None and time.monotonic() - self._saved_at >= every
        return self._placement.any_process(self._terminated.is_set() or timed or bool(self._failures))

    def _save(self) -> None:
        """Save the state if it is good; end the training if it is to end."""
        if self._store is None:
            return
        arrays = named_arrays({"state": self._placement.whole(self._state)}) | self._best
        # An optax state may hold an infinity, such as the best loss so far before the first.
        free = "state.optimizer" if self._program.config.whole_optimizer else "-"
        kept = {k: a for k, a in arrays.items() if np.issubdtype(a.dtype, np.inexact) and not k.startswith(free)}
        bad = [k for k, a in kept.items() if not np.isfinite(a).all()]
        if bad and not self._ensemble:
            raise self._diverged(bad[0])
        self._store.save(self._step, arrays, [[r._asdict() for r in course.history] for course in self._courses])
        self._saved_at = time.monotonic()
        if self._placement.any_process(self._terminated.is_set()):
            raise TrainingInterrupted(f"saved step {self._step} in {self._store.directory}; resume to continue")

    def _restore(self) -> None:
        """Continue from the latest checkpoint, if there is one."""
        saved = self._store.restore() if self._store else None
        if saved is not None:
            self._state: TrainState = with_arrays({"state": self._state}, saved.arrays)["state"]
            self._best = {name: array for name, array in saved.arrays.items() if name.startswith("best.")}
            self._step = saved.step
            for course, records in zip(self._courses, saved.histories, strict=True):
                course.history = [EpochRecord(**record) for record in records]
                if len(records) > course.config.epochs:
                    raise CheckpointError(
                        f"{self._store.directory} holds {len(records)} epochs of this training, more than epochs = "  # type: ignore
                        f"{course.config.epochs}; raise epochs, or choose another directory"
                    )

    def _diverged(self, what: str, step: int | None = None) -> TrainingDiverged:
        """The error, with what is known."""
        (metrics,), epoch = self._split(self._state.metrics), len(self._courses[0].history)
        step = self._step if step is None else step
        return TrainingDiverged(what, step, epoch, float(metrics.learning_rate), float(metrics.loss))
