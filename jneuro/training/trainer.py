"""Training one model."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from jneuro.core.random import require_key
from jneuro.core.types import Array, Key
from jneuro.datasets.windows import Windows
from jneuro.training.callbacks import Callback
from jneuro.training.checkpoints import Checkpoints, Weights, named_arrays
from jneuro.training.loop import Course, Run, TrainResult, split_model
from jneuro.training.parallel import place_batches
from jneuro.training.recipe import TrainConfig
from jneuro.training.steps import Common, Own, Program

__all__ = ["check_windows", "fingerprint", "train"]


def check_windows(windows: Windows, config: TrainConfig) -> None:
    """Refuse windows that make no batch.

    Args:
        windows: the windows.
        config: the recipe.

    Raises:
        ValueError: if a split lacks windows.
    """
    for split, least in (("train", config.batch_size), ("validation", 1)):
        count = windows.count(split) if split in windows.starts else 0
        if count < least:
            raise ValueError(
                f"training needs at least {least} windows in the split {split!r}, got {count}; "
                "simulate longer, use a smaller stride or lower batch_size"
            )


def fingerprint(config: TrainConfig, windows: Windows, weights: Weights, key: Key[Array, ""]) -> dict[str, Any]:
    """What must be the same for a training to be resumed; what changes no result is not in it.

    Args:
        config: the recipe.
        windows: the windows.
        weights: the model's.
        key: the training's key.

    Returns:
        Values that JSON knows.
    """
    crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.values)).data)
    for split in ("train", "validation"):
        crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.starts[split])).data, crc)
    return {
        "config": config.model_dump(mode="json", exclude={"steps_per_call", "parallel"}),
        "model": {name: f"{array.dtype}{list(array.shape)}" for name, array in named_arrays(weights).items()},
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

    Several devices share each batch, as `config.parallel` says. Where several processes train together
    (`jax.distributed`), each calls with the same arguments and gets the same result; the first alone is heard by the
    callbacks and writes checkpoints.

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
        ValueError: if there are too few windows for a batch, the devices cannot share it equally, or the checkpoints
            are those of another training.
        TrainingDiverged: if the loss or the weights are no longer finite.
        TrainingInterrupted: after SIGTERM, once the state is saved.
    """
    check_windows(windows, config)
    key = require_key(key)
    placement = place_batches(model, config)
    graph, weights, rngs = split_model(model)
    own, common, program = Own(key, None), Common(windows, rngs), Program(graph, config, placement)
    found = fingerprint(config, windows, weights, key) if checkpoint else {}
    run = Run([Course(model, config, callbacks)], weights, own, common, program, checkpoint, found)
    return run()[0]
