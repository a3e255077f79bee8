"""Training a model, or several of one configuration together: the host's loop around the compiled steps."""

import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import ValidationError

from jneuro.core.config import first_message
from jneuro.core.progress import Progress, showing
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Key
from jneuro.datasets.windows import Windows
from jneuro.models.base import Sizes, build_model, initialised, model_rngs, takes_train
from jneuro.training.callbacks import EpochRecord, StepProgress, TrainingProgress
from jneuro.training.checkpoints import (
    CheckpointError,
    Checkpoints,
    CheckpointStore,
    Weights,
    fingerprint,
    named_arrays,
    on_termination,
    split_model,
    unseen,
    with_arrays,
    with_best,
)
from jneuro.training.kinds import CALLBACKS
from jneuro.training.recipe import StopReason, TrainConfig, learning_rate, stop_reason
from jneuro.training.steps import Inputs, Placement, Program, place

__all__ = ["TrainResult", "TrainingDiverged", "TrainingInterrupted", "train", "train_ensemble"]


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


def train(
    model: Any,
    windows: Windows,
    config: TrainConfig | None = None,
    *,
    key: Key[Array, ""],
    callbacks: Sequence[Any] = (),
    checkpoint: Checkpoints | None = None,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a model on windows.

    One compiled program draws the epoch's order, gathers batches and updates, for as many steps as it is asked; the
    host reads four numbers after each call. Order and dropout depend on `key`, epoch and step alone, so the result does
    not depend on `steps_per_call`, and a training that was killed and resumed ends bit-identical on a CPU.

    Several devices share each batch, as `config.parallel` says. Where several processes train together
    (`jax.distributed`), each calls with the same arguments and gets the same result; the first alone is heard by the
    callbacks and writes checkpoints.

    Args:
        model: a `flax.nnx.Module`, called as `model(batch, train=...)` or `model(batch)`, which is not changed; or what
            `jneuro.models.build_model` takes, such as its class, which is built with the sizes of the windows.
        windows: has the splits `train` and `validation`.
        config: the recipe; None takes the defaults of `TrainConfig`.
        key: draws the order of the windows and the dropout masks, and the weights of a model that is built here.
        callbacks: told of the training; objects with any of the methods of `jneuro.training.callbacks.Callback`.
        checkpoint: where to save, and whether to resume from there; None saves nothing. With it, SIGTERM saves and
            raises, if `train` runs in the main thread.
        progress: shows how far the training is, and what the windows are: None trainings that last longer than 2 s, on
            a terminal and in a notebook; True at once, elsewhere as lines on standard error; False never.
        **settings: keys of `TrainConfig` that differ from the recipe, such as `epochs=20`, `loss=` a function
            `(prediction, batch) -> [batch]`, `optimizer=` an optax transformation, `metrics=` further losses.

    Returns:
        The model with the weights of the lowest validation loss, the history, and why it stopped.

    Raises:
        ValueError: if there are too few windows for a batch, or values among them are not finite; the model's
            prediction has another shape than the targets; the loss does not return one value a window; a setting is
            unknown; the devices cannot share a batch equally; or the checkpoints are those of another training.
        TrainingDiverged: if the loss or the weights are no longer finite.
        TrainingInterrupted: after SIGTERM, once the state is saved.
    """
    config, key = _recipe(config, settings), require_key(key)
    _check_windows(windows, config)
    told = _callbacks(config, callbacks)
    if not isinstance(model, nnx.Module):
        model = build_model(model, Sizes.of(windows), rngs=model_rngs(stream(key, "model")))
        initialised(model, windows)
    if not jax.tree.leaves(nnx.state(model, nnx.Param)):
        raise ValueError(f"{type(model).__name__} has no parameters (flax.nnx.Param), so there is nothing to train")
    placement = place(model, config)
    notes = []
    if config.whole_optimizer:
        notes.append(f"the optimizer {config.optimizer.name} is used whole: no warm-up, plateau or clipping besides")
    if checkpoint:
        notes += unseen(config, model)
    with showing(progress if placement.leads else False) as shown:
        told.append(TrainingProgress(shown, f"train {type(model).__name__} on {windows.extent}"))
        member = _Member(model, config, key, told, tuple(notes))
        return _Run([member], windows, config, placement, checkpoint)()[0]


def train_ensemble(
    models: Sequence[nnx.Module],
    windows: Windows,
    configs: TrainConfig | Sequence[TrainConfig],
    *,
    keys: Sequence[Key[Array, ""]] | Key[Array, " member"],
    callbacks: Sequence[Sequence[Any]] = (),
    checkpoint: Checkpoints | None = None,
) -> list[TrainResult]:
    """Train several models of one configuration on the same windows, in one program.

    Member k comes out as from `train(models[k], windows, configs[k], key=keys[k])`, but for rounding: it has its own
    order and dropout masks, learning rate, plateau and early stopping. Members that have stopped keep stepping until
    all have, and their updates are discarded; one whose loss is no longer finite stops with the reason `diverged`,
    where `train` raises.

    Each device has equally many members, side by side by `jax.vmap`, or on a CPU, where that is slower, one after the
    other. Devices need not talk to each other. The recipes' `parallel` is without effect.

    Args:
        models: of one configuration, such as with other seeds; they are not changed.
        windows: have the splits `train` and `validation`.
        configs: the recipe, or each member's. They may differ in learning rates, `optimizer.weight_decay` and when to
            stop; with a cosine, epochs and warm-up must agree.
        keys: each member's, for the order of its windows and its dropout masks.
        callbacks: each member's, told what they would be told if it trained alone; none, or as many as members.
        checkpoint: where to save all members together, and whether to resume from there.

    Returns:
        The result of each member.

    Raises:
        ValueError: if models or recipes differ in what the program is compiled for, their numbers differ, the devices
            cannot share the members equally, there are too few windows, or the checkpoints are of another training.
        TrainingInterrupted: after SIGTERM, once the state is saved.
    """
    number = len(models)
    configs = [configs] * number if isinstance(configs, TrainConfig) else list(configs)
    keys, callbacks = [require_key(key) for key in keys], callbacks or [()] * number
    if not number or {len(configs), len(keys), len(callbacks)} != {number}:
        raise ValueError(
            "every member needs a model, a recipe, a key and its callbacks, got "
            f"{number}, {len(configs)}, {len(keys)} and {len(callbacks)}"
        )
    _check_windows(windows, configs[0])
    shared, placement = _shared_recipe(configs), place(models[0], configs[0], number)
    members = [_Member(*of) for of in zip(models, configs, keys, callbacks, strict=True)]
    return _Run(members, windows, shared, placement, checkpoint)()


def _check_windows(windows: Windows, config: TrainConfig) -> None:
    """Refuse windows that make no batch, or hold values that are not finite."""
    for split, least in (("train", config.batch_size), ("validation", 1)):
        count = windows.count(split) if split in windows.starts else 0
        if count < least:
            raise ValueError(
                f"training needs at least {least} windows in the split {split!r}, got {count}; "
                "simulate longer, use a smaller stride or lower batch_size"
            )
        windows.check_finite(split)


def _recipe(config: TrainConfig | None, settings: Mapping[str, Any]) -> TrainConfig:
    """A recipe, with some of its keys changed; what is unknown or wrong is refused in one line."""
    if config is not None and not settings:
        return config
    given = {key: getattr(config, key) for key in config.model_fields_set} if config is not None else {}
    try:
        return TrainConfig.model_validate(given | dict(settings))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"{where + ': ' if where else ''}{first_message(error)}".replace(": = ", " = ")) from None


def _callbacks(config: TrainConfig, given: Sequence[Any]) -> list[Any]:
    """The recipe's callbacks, built, and those that were given; what is no callback is refused."""
    made = [
        b.build() if inspect.isclass(b.target) or inspect.isroutine(b.target) else b.target for b in config.callbacks
    ]
    for callback in (every := [*made, *given]):
        if inspect.isclass(callback):
            raise ValueError(f"the callback {callback.__name__} is a class; give an instance of it")
        CALLBACKS.require(callback)
    return every


def _shared_recipe(configs: Sequence[TrainConfig]) -> TrainConfig:
    """The recipe without what the program does not read, or reads from arrays; what else differs is refused by name."""

    def shared(config: TrainConfig) -> TrainConfig:
        free = {"warmup_from": 0.0, "plateau": None, "early_stopping": None, "parallel": "auto", "callbacks": ()}
        if not config.counts_epochs:
            free |= {"epochs": 1, "warmup_epochs": 0}
        if not config.whole_optimizer:
            free["optimizer"] = config.optimizer.model_copy(update={"learning_rate": 1.0, "weight_decay": 0.0})
        return config.model_copy(update=free)

    first, *others = map(shared, configs)
    for k, other in enumerate(others, 1):
        differ = [name for name in TrainConfig.model_fields if getattr(first, name) != getattr(other, name)]
        if differ:
            ours, theirs = getattr(other, differ[0]), getattr(first, differ[0])
            raise ValueError(
                f"{differ[0]} of configs[{k}] is {ours!r}, that of configs[0] {theirs!r}; one program needs them equal"
            )
    return first


@dataclass
class _Member:
    """Host-side state of one model's training: where it began, its history, and its stopping rule.

    Attributes:
        model: where it began.
        config: its recipe.
        key: of its order and its dropout masks.
        callbacks: what listens.
        notes: what its result says besides.
        history: its epochs so far; a validation loss that is not finite is the last of a member that diverged.
    """

    model: nnx.Module
    config: TrainConfig
    key: Key[Array, ""]
    callbacks: Sequence[Any]
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


class _Run:
    """A training while it runs: of one model, or of an ensemble, whose arrays have the member as their first axis."""

    def __init__(
        self,
        members: Sequence[_Member],
        windows: Windows,
        config: TrainConfig,
        placement: Placement,
        checkpoint: Checkpoints | None,
    ):
        self._members, self._placement, self._checkpoint = members, placement, checkpoint
        self._config, self._ensemble = config, placement.mode == "members"
        graph, weights, rngs, decays = self._joined()
        # No program is compiled for callbacks.
        self._program = Program(graph, config.model_copy(update={"callbacks": ()}), placement)
        own = placement.put((self._stacked([member.key for member in members]), decays), each_member=True)
        self._inputs = Inputs(*placement.put((windows, rngs)), *own)
        self._state = self._program.begin(weights, self._inputs)
        self._best = named_arrays({"best": weights})
        self._step, self._saved_at = 0, time.monotonic()
        self._steps_per_epoch = windows.count("train") // config.batch_size
        self._store: CheckpointStore | None = None
        self._terminated = Event()
        self._failures: list[Exception] = []

    def _stacked(self, trees: Sequence[Any]) -> Any:
        """The members' trees as one; of a single model its own."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) if self._ensemble else trees[0]

    def _joined(self) -> tuple[nnx.GraphDef, Weights, Any, Array | None]:
        """The static part of all models, their weights, the random streams of the first, and the weight decays."""
        graphs, weights, rngs = zip(*(split_model(member.model) for member in self._members), strict=True)
        shapes = [[jax.typeof(leaf) for leaf in jax.tree.leaves(each)] for each in weights]
        for k in range(1, len(graphs)):
            if graphs[k] != graphs[0] or shapes[k] != shapes[0]:
                raise ValueError(f"models[{k}] is of another configuration than models[0]; train it apart")
        decays = None
        if self._ensemble and not self._config.whole_optimizer:
            dtype = jax.tree.leaves(weights[0].params)[0].dtype
            decays = jnp.asarray([member.config.optimizer.weight_decay for member in self._members], dtype)
        return graphs[0], self._stacked(weights), rngs[0], decays

    def _fingerprint(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be resumed."""
        found = {}
        for k, m in enumerate(self._members):
            found[str(k)] = fingerprint(m.config, self._inputs.windows, split_model(m.model)[1], m.key, m.model)
        return found if self._ensemble else found["0"]

    def __call__(self) -> list[TrainResult]:
        """Train to the end, or on from the latest checkpoint."""
        where = self._checkpoint
        opened = nullcontext() if where is None else CheckpointStore(where, self._fingerprint())
        with opened as self._store, on_termination(where is not None) as self._terminated:
            self._restore()
            try:
                self._tell("on_start", [(m, (m.config, tuple(m.history))) for m in self._members])
                self._raise_failure()
                while any(member.stopped is None for member in self._members):
                    self._epoch()
            finally:
                self._tell("on_end", [(m, (tuple(m.history),)) for m in self._members])
            self._raise_failure()
        return [self._result(k, member) for k, member in enumerate(self._members)]

    def _result(self, k: int, member: _Member) -> TrainResult:
        """A member's result; its best weights are placed as those it began with."""
        arrays = {name: array[k] if self._ensemble else array for name, array in self._best.items()}
        model, losses = with_best(member.model, arrays), [loss for loss in member.losses if np.isfinite(loss)]
        if not takes_train(model):
            model.eval()
        best_epoch = int(np.argmin(losses)) if losses else -1
        return TrainResult(model, tuple(member.history), best_epoch, member.stopped, member.notes)  # type: ignore

    def _epoch(self) -> None:
        """Train to the end of the epoch, validate, tell and save."""
        began, epoch = time.perf_counter(), max(len(member.history) for member in self._members)
        state, end = self._state, (epoch + 1) * self._steps_per_epoch
        rates = np.array([learning_rate(m.config, m.losses) for m in self._members], state.learning_rate.dtype)
        rates = rates.reshape(state.learning_rate.shape)
        self._state = state._replace(learning_rate=self._placement.put(rates, each_member=True))
        while self._step < end:
            self._steps(min(self._config.steps_per_call, end - self._step), epoch)
            if self._step < end and self._save_due():
                self._save()
        weights = Weights(self._state.params, self._state.rest)
        validations = self._by_member(self._program.validate(weights, self._inputs))
        better, seconds = np.zeros(len(self._members), bool), time.perf_counter() - began
        every = zip(self._members, self._by_member(self._state.metrics), validations, strict=True)
        told = []
        for k, (member, metrics, validation) in enumerate(every):
            if member.stopped is not None:
                continue
            *scores, named = validation
            loss, r2, rmse, mae = map(float, scores)
            loss = loss if metrics.bad_step < 0 else np.nan
            if not (np.isfinite(loss) or self._ensemble):
                raise self._diverged("the validation loss")
            better[k] = loss < min(member.losses, default=np.inf)
            rate = float(str(metrics.learning_rate))  # 0.003, not 0.003000000026
            mean = float(metrics.loss_sum) / self._steps_per_epoch
            named = dict(zip(member.config.metric_names, map(float, named), strict=True))
            rate = None if rate < 0 else rate
            member.history.append(EpochRecord(epoch, self._step, mean, loss, r2, rmse, mae, rate, seconds, named))
            told.append((member, (member.history[-1],)))
        self._tell("on_epoch", told)
        self._keep(better, weights)
        self._save()

    def _tell(self, hook: str, told: Iterable[tuple[_Member, tuple[Any, ...]]]) -> None:
        """Call a hook of every callback that has it, of each member with its arguments.

        What it raises is kept until the state is saved.
        """
        for member, arguments in told if self._placement.leads else ():
            for callback in member.callbacks:
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

    def _by_member(self, numbers: Any) -> list[Any]:
        """Copy `Metrics` or a `Validation` to the host, and take it apart by member, be it the only one."""
        leaves, structure = jax.tree.flatten(jax.device_get(self._placement.whole(numbers)))
        return [structure.unflatten(row) for row in zip(*map(np.atleast_1d, leaves), strict=True)]

    def _steps(self, count: int, epoch: int) -> None:
        """One compiled call."""
        began = time.perf_counter()
        self._state = self._program.steps(self._state, self._inputs, self._placement.put(np.int32(count)))
        metrics = self._by_member(self._state.metrics)
        if metrics[0].bad_step >= 0 and not self._ensemble:
            raise self._diverged("the loss", int(metrics[0].bad_step))
        self._step += count
        speed, done = count / (time.perf_counter() - began), self._step - epoch * self._steps_per_epoch
        told = []
        for member, own in zip(self._members, metrics, strict=True):
            if member.stopped is None:
                loss, epochs = float(own.loss_sum) / done, member.config.epochs
                told.append((member, (StepProgress(epoch, epochs, self._step, self._steps_per_epoch, loss, speed),)))
        self._tell("on_steps", told)

    def _save_due(self) -> bool:
        """Whether to save within the epoch, or to end it because a callback raised."""
        if self._checkpoint is None:
            return bool(self._failures)
        every = self._checkpoint.every_seconds
        timed = every is not None and time.monotonic() - self._saved_at >= every
        return self._placement.any_process(self._terminated.is_set() or timed or bool(self._failures))

    def _save(self) -> None:
        """Save the state if it is good; end the training if it is to end, or a callback raised."""
        if self._store is None:
            self._raise_failure()
            return
        arrays = named_arrays({"state": self._placement.whole(self._state)}) | self._best
        # An optax state may hold an infinity, such as the best loss so far before the first.
        free = "state.optimizer" if self._config.whole_optimizer else "-"
        kept = {k: a for k, a in arrays.items() if np.issubdtype(a.dtype, np.inexact) and not k.startswith(free)}
        bad = [k for k, a in kept.items() if not np.isfinite(a).all()]
        if bad and not self._ensemble:
            raise self._diverged(bad[0])
        self._store.save(self._step, arrays, [[r._asdict() for r in member.history] for member in self._members])
        self._saved_at = time.monotonic()
        if self._placement.any_process(self._terminated.is_set()):
            raise TrainingInterrupted(f"saved step {self._step} in {self._store.directory}; resume to continue")
        self._raise_failure()

    def _restore(self) -> None:
        """Continue from the latest checkpoint, if there is one."""
        saved = self._store.restore() if self._store else None
        if saved is None:
            return
        self._state = with_arrays({"state": self._state}, saved.arrays)["state"]
        self._best = {name: array for name, array in saved.arrays.items() if name.startswith("best.")}
        self._step = saved.step
        for member, records in zip(self._members, saved.histories, strict=True):
            member.history = [EpochRecord(**record) for record in records]
            if len(records) > member.config.epochs:
                raise CheckpointError(
                    f"{self._store.directory} holds {len(records)} epochs of this training, more than epochs = "  # type: ignore
                    f"{member.config.epochs}; raise epochs, or choose another directory"
                )

    def _diverged(self, what: str, step: int | None = None) -> TrainingDiverged:
        """The error, with what is known."""
        (metrics,), epoch = self._by_member(self._state.metrics), len(self._members[0].history)
        step = self._step if step is None else step
        return TrainingDiverged(what, step, epoch, float(metrics.learning_rate), float(metrics.loss))
