"""Training one model."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

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
from jneuro.models.base import Sizes, build_model, initialised, model_rngs
from jneuro.training.callbacks import TrainingProgress
from jneuro.training.checkpoints import Checkpoints
from jneuro.training.fingerprint import fingerprint, unseen
from jneuro.training.kinds import CALLBACKS
from jneuro.training.loop import Course, Run, TrainResult, split_model
from jneuro.training.parallel import place_batches
from jneuro.training.recipe import TrainConfig
from jneuro.training.steps import Common, Own, Program

__all__ = ["check_finite", "check_windows", "compiled_recipe", "recipe_of", "train"]


def check_windows(windows: Windows, config: TrainConfig) -> None:
    """Refuse windows that make no batch.

    Args:
        windows: the windows.
        config: the recipe.

    Raises:
        ValueError: if a split lacks windows, or one holds a value that is not finite.
    """
    for split, least in (("train", config.batch_size), ("validation", 1)):
        count = windows.count(split) if split in windows.starts else 0
        if count < least:
            raise ValueError(
                f"training needs at least {least} windows in the split {split!r}, got {count}; "
                "simulate longer, use a smaller stride or lower batch_size"
            )
        check_finite(windows, split)


def check_finite(windows: Windows, split: str) -> None:
    """Refuse windows that hold a value that is not finite.

    Args:
        windows: the windows.
        split: which of them.

    Raises:
        ValueError: naming the first run and column, and how many values there are.
    """
    finite = jax.device_get(jnp.isfinite(windows.values).all(1))
    if finite.all():
        return
    starts = jax.device_get(windows.starts[split])
    used = np.zeros(len(finite) + 1, int)  # frames that begin to be used, less those that end
    for first, count in ((0, windows.length), *((h + windows.length - 1, 1) for h in windows.horizons)):
        np.add.at(used, starts + first, 1)
        np.add.at(used, np.minimum(starts + first + count, len(finite)), -1)
    bad = np.flatnonzero((np.cumsum(used)[:-1] > 0) & ~finite)
    if len(bad):
        values = ~np.isfinite(np.asarray(windows.values[bad]))
        run = bad[0] // windows.frames_per_trial
        raise ValueError(
            f"the windows of the split {split!r} hold {values.sum()} values that are not finite, the first in run "
            f"{run}, frame {bad[0] % windows.frames_per_trial}, column {np.argmax(values[0])}; mend the recording, or "
            "leave that run or column out"
        )


def compiled_recipe(config: TrainConfig) -> TrainConfig:
    """A recipe without what no program is compiled for."""
    return config.model_copy(update={"callbacks": ()})


def recipe_of(config: TrainConfig | None, settings: Mapping[str, Any]) -> TrainConfig:
    """A recipe, with some of its keys changed.

    Args:
        config: the recipe; None takes the defaults.
        settings: the changed ones, by their names in `TrainConfig`.

    Returns:
        The checked recipe.

    Raises:
        ValueError: for an unknown name, with a suggestion, or a wrong value; one line.
    """
    if config is not None and not settings:
        return config
    given = {key: getattr(config, key) for key in config.model_fields_set} if config is not None else {}
    try:
        return TrainConfig.model_validate(given | dict(settings))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"{where + ': ' if where else ''}{first_message(error)}".replace(": = ", " = ")) from None


def _built(model: Any, windows: Windows, key: Key[Array, ""]) -> nnx.Module:
    """The model itself, or one built for the windows."""
    if not isinstance(model, nnx.Module):
        model = build_model(model, Sizes.of(windows), rngs=model_rngs(stream(key, "model")))
        initialised(model, windows)
    if not jax.tree.leaves(nnx.state(model, nnx.Param)):
        raise ValueError(f"{type(model).__name__} has no parameters (flax.nnx.Param), so there is nothing to train")
    return model


def _callbacks(config: TrainConfig, given: Sequence[Any]) -> list[Any]:
    """The recipe's callbacks, built, and those that were given; what is no callback is refused."""
    named = [
        b.build() if inspect.isclass(b.target) or inspect.isroutine(b.target) else b.target for b in config.callbacks
    ]
    every = [*named, *given]
    for callback in every:
        if inspect.isclass(callback):
            raise ValueError(f"the callback {callback.__name__} is a class; give an instance of it")
        CALLBACKS.require(callback)
    return every


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
        progress: shows how far the training is: None trainings that last longer than 2 s, on a terminal and in a
            notebook; True at once, elsewhere as lines on standard error; False never.
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
    config, key = recipe_of(config, settings), require_key(key)
    check_windows(windows, config)
    told, model = _callbacks(config, callbacks), _built(model, windows, key)
    placement = place_batches(model, config)
    graph, weights, rngs = split_model(model)
    own, common, program = Own(key, None), Common(windows, rngs), Program(graph, compiled_recipe(config), placement)
    notes, found = [], {}
    if config.whole_optimizer:
        notes.append(f"the optimizer {config.optimizer.name} is used whole: no warm-up, plateau or clipping besides")
    if checkpoint:
        notes += unseen(config, model)
        found = fingerprint(config, windows, weights, key, model)
    with showing(progress if placement.leads else False) as shown:
        told = [*told, TrainingProgress(shown, f"train {type(model).__name__}")]
        course = Course(model, config, told, tuple(notes))
        return Run([course], weights, own, common, program, checkpoint, found)()[0]
