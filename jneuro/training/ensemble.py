"""Training an ensemble: several models of one configuration, in one program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jneuro.core.random import require_key
from jneuro.core.types import Array, Key
from jneuro.datasets.windows import Windows
from jneuro.training.checkpoints import Checkpoints
from jneuro.training.fingerprint import fingerprint
from jneuro.training.loop import Course, Run, TrainResult
from jneuro.training.parallel import place_members
from jneuro.training.recipe import TrainConfig
from jneuro.training.steps import Common, Own, Program
from jneuro.training.trainer import check_windows

__all__ = ["train_ensemble"]


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
    order and dropout masks, learning rate, plateau and early stopping. One that has stopped rides along, ignored, until
    all have; one whose loss is no longer finite stops with the reason `diverged`, where `train` raises.

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
    check_windows(windows, configs[0])
    shared, placement = _shared_recipe(configs), place_members(number)
    graph, weights, rngs = _shared_model(models)
    whole = shared.whole_optimizer
    decays = (
        None
        if whole
        else jnp.asarray([c.optimizer.weight_decay for c in configs], jax.tree.leaves(weights[0].params)[0].dtype)
    )
    saving = range(number if checkpoint else 0)
    run = Run(
        [Course(*of) for of in zip(models, configs, callbacks, strict=True)],
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights),
        Own(jnp.stack(keys), decays),
        Common(windows, rngs),
        Program(graph, shared, placement),
        checkpoint,
        {str(k): fingerprint(configs[k], windows, weights[k], keys[k], models[k]) for k in saving},
    )
    return run()
