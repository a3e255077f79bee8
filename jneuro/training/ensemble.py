"""Training an ensemble: several models of one configuration, in one program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jneuro.core.random import require_key
from jneuro.core.types import Array, Key, PyTree
from jneuro.datasets.windows import Windows
from jneuro.training.checkpoints import Checkpoints, Weights
from jneuro.training.fingerprint import fingerprint
from jneuro.training.loop import Course, Run, TrainResult, split_model
from jneuro.training.parallel import place_members
from jneuro.training.recipe import TrainConfig
from jneuro.training.steps import Common, Own, Program
from jneuro.training.trainer import check_windows, compiled_recipe

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
    dtype = jax.tree.leaves(weights[0].params)[0].dtype
    decays = None if whole else jnp.asarray([c.optimizer.weight_decay for c in configs], dtype)
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


def _shared_model(models: Sequence[nnx.Module]) -> tuple[nnx.GraphDef, tuple[Weights, ...], PyTree]:
    """The static part of all models, their weights, and the random streams of the first.

    Raises:
        ValueError: if the static parts differ.
    """
    graphs, weights, rngs = zip(*map(split_model, models), strict=True)
    shapes = [[jax.typeof(leaf) for leaf in jax.tree.leaves(each)] for each in weights]
    for k in range(1, len(models)):
        if graphs[k] != graphs[0] or shapes[k] != shapes[0]:
            raise ValueError(f"models[{k}] is of another configuration than models[0]; train it apart")
    return graphs[0], weights, rngs[0]


def _shared_recipe(configs: Sequence[TrainConfig]) -> TrainConfig:
    """The recipe without what the program does not read, or reads from arrays; it must be the same for all.

    Raises:
        ValueError: naming what differs.
    """

    def shared(config: TrainConfig) -> TrainConfig:
        free = {"warmup_from": 0.0, "plateau": None, "early_stopping": None, "parallel": "auto"}
        if not config.counts_epochs:
            free |= {"epochs": 1, "warmup_epochs": 0}
        if not config.whole_optimizer:
            free["optimizer"] = config.optimizer.model_copy(update={"learning_rate": 1.0, "weight_decay": 0.0})
        return compiled_recipe(config.model_copy(update=free))

    first, *others = map(shared, configs)
    for k, other in enumerate(others, 1):
        differ = [name for name in TrainConfig.model_fields if getattr(first, name) != getattr(other, name)]
        if differ:
            ours, theirs = getattr(other, differ[0]), getattr(first, differ[0])
            raise ValueError(
                f"{differ[0]} of configs[{k}] is {ours!r}, that of configs[0] {theirs!r}; one program needs them equal"
            )
    return first
