"""The compiled programs: some training steps, validation, predictions.

Each is one loop on the device. The number of steps is a traced argument, so a call of any length, the odd last one of
an epoch included, runs the same program. The model's graph, the recipe and the placement are static; everything else is
an argument.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key, PyTree, Scalar
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction, check_prediction, forward
from jneuro.training.checkpoints import Weights
from jneuro.training.losses import cost
from jneuro.training.optimizers import rate_within, transformation
from jneuro.training.parallel import Placement
from jneuro.training.recipe import TrainConfig, rate_factor

__all__ = [
    "Common",
    "Metrics",
    "Own",
    "Program",
    "TrainState",
    "Validation",
    "begin",
    "predict",
    "run_steps",
    "validate",
]


class Metrics(NamedTuple):
    """What the host reads after every call.

    Attributes:
        loss_sum: sum of the epoch's losses so far.
        loss: the last finite loss.
        learning_rate: learning rate of the last step; −1 if an optax transformation keeps it to itself.
        bad_step: first step whose loss was not finite; −1 if there is none.
    """

    loss_sum: Scalar
    loss: Scalar
    learning_rate: Scalar
    bad_step: Int[Array, ""]


class Validation(NamedTuple):
    """How the windows of the split `validation` are forecast; all but the loss by the mean, at the nearest horizon.

    Attributes:
        loss: mean loss, over all horizons.
        r2: share of the variance that is explained.
        rmse: root of the mean squared error, scaled as the windows are.
        mae: mean absolute error, scaled likewise.
        metrics: the means of the recipe's metrics.
    """

    loss: Scalar
    r2: Scalar
    rmse: Scalar
    mae: Scalar
    metrics: tuple[Scalar, ...]


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        params: the model's parameters.
        rest: its other variables, such as batch statistics; random streams are not among them.
        optimizer: moments and step count.
        step: steps taken so far.
        learning_rate: learning rate of this epoch; the host sets it, the program multiplies the schedule.
        metrics: what the host reads.
    """

    params: PyTree
    rest: PyTree
    optimizer: PyTree
    step: Int[Array, ""]
    learning_rate: Scalar
    metrics: Metrics


class Program(NamedTuple):
    """What a program is compiled for; static.

    Attributes:
        graph: the model's static part.
        config: the recipe.
        placement: where it runs.
    """

    graph: nnx.GraphDef
    config: TrainConfig
    placement: Placement


class Own(NamedTuple):
    """What is one training's own, besides its state.

    Attributes:
        key: of its order and its dropout masks.
        weight_decay: in place of the recipe's; None leaves that.
    """

    key: Key[Array, ""]
    weight_decay: Scalar | None


class Common(NamedTuple):
    """What the members of an ensemble have in common.

    Attributes:
        windows: the windows.
        rngs: random streams of the model's structure; reseeded in every step.
    """

    windows: Windows
    rngs: PyTree


def begin(weights: Weights, own: Own, program: Program) -> TrainState:
    """State before the first step, in buffers of its own: those of the model stay valid when ours are donated.

    Args:
        weights: the model's; of an ensemble, stacked.
        own: what is the training's own; of an ensemble, stacked.
        program: recipe and placement.

    Returns:
        The placed state.
    """
    state = _fresh(weights, own, program=program)
    return program.placement.put(state, each_member=program.placement.mode == "members", copy=True)


@partial(jax.jit, static_argnames="program")
def _fresh(weights: Weights, own: Own, *, program: Program) -> TrainState:
    def one(weights: Weights, own: Own) -> TrainState:
        zero = jnp.zeros(())
        moments = transformation(program.config.optimizer, own.weight_decay).init(weights.params)
        return TrainState(*weights, moments, jnp.int32(0), zero, Metrics(zero, zero, zero, jnp.int32(-1)))

    return (jax.vmap(one) if program.placement.mode == "members" else one)(weights, own)


def run_steps(state: TrainState, own: Own, count: Int[Array, ""], common: Common, program: Program) -> TrainState:
    """Take `count` steps, all within one epoch.

    The epoch's order is drawn from its index, the dropout masks from the step's, so neither depends on where calls end.

    Args:
        state: the state; its buffers are reused.
        own: what is the training's own.
        count: how many steps.
        common: windows, from which the split `train` is drawn, and streams.
        program: what is compiled, once.

    Returns:
        The state after them.
    """
    return program.placement.program(_run_steps, donate=True)(program, state, own, (count, common))


def _run_steps(program: Program, state: TrainState, own: Own, counted: tuple[Int[Array, ""], Common]) -> TrainState:
    (graph, config, placement), (count, (windows, rngs)) = program, counted
    steps_per_epoch = windows.count("train") // config.batch_size
    epoch = state.step // steps_per_epoch
    order = jax.random.permutation(jax.random.fold_in(stream(own.key, "order"), epoch), windows.starts["train"])
    dropout, optimizer = stream(own.key, "dropout"), transformation(config.optimizer, own.weight_decay)
    loss_of, factor = cost(config.loss), rate_factor(config, steps_per_epoch)

    def objective(params: PyTree, rest: PyTree, batch: Batch, seed: Key[Array, ""]) -> tuple[Scalar, PyTree]:
        model = nnx.merge(graph, params, rngs, rest, copy=True)
        tags = {m.tag for _, m in nnx.iter_graph(model) if isinstance(m, nnx.RngStream)}
        keys: dict[str, Any] = {tag: stream(seed, tag) for tag in sorted(tags)}
        nnx.reseed(model, policy="match_shape", **keys)
        loss = loss_of(_checked(model, batch, train=True), batch).mean()
        return loss, nnx.split(model, nnx.Param, nnx.RngState, ...)[3]

    def step(_, state: TrainState) -> TrainState:
        position = state.step - epoch * steps_per_epoch
        starts = lax.dynamic_slice_in_dim(order, position * config.batch_size, config.batch_size)
        batch, seed = placement.gather(windows, starts), jax.random.fold_in(dropout, state.step)
        (loss, rest), gradient = jax.value_and_grad(objective, has_aux=True)(state.params, state.rest, batch, seed)
        loss, gradient = placement.mean((loss, gradient))
        updates, moments = optimizer.update(gradient, state.optimizer, state.params, value=loss)
        if config.whole_optimizer:
            rate = rate_within(moments).astype(state.learning_rate.dtype)
        else:
            rate = state.learning_rate * jnp.asarray(factor(state.step)).astype(state.learning_rate.dtype)
            updates = jax.tree.map(lambda d: (-rate).astype(d.dtype) * d, updates)
        params = optax.apply_updates(state.params, updates)
        last, loss = state.metrics, loss.astype(rate.dtype)
        finite = jnp.isfinite(loss)
        metrics = Metrics(
            jnp.where(position == 0, 0, last.loss_sum) + loss,
            jnp.where(finite, loss, last.loss),
            rate,
            jnp.where(finite | (last.bad_step >= 0), last.bad_step, state.step),
        )
        return TrainState(params, rest, moments, state.step + 1, state.learning_rate, metrics)

    return lax.fori_loop(0, count, step, state)


def _checked(model: Any, batch: Batch, *, train: bool) -> Prediction:
    """A model's prediction, of the shape of the targets."""
    return check_prediction(forward(model, batch, train=train), batch, model)


def _map_windows(
    function: Callable[[Batch], Array],
    windows: Windows,
    starts: Int[Array, " window"],
    batch_size: int,
    placement: Placement,
) -> Array:
    """Apply a function of a batch to all windows in order; the last batch is padded, and the padding cut off."""
    count = starts.shape[0]
    size = min(batch_size, count + -count % placement.parts)
    batches = jnp.pad(starts, (0, -count % size), mode="edge").reshape(-1, size)
    out = lax.map(lambda batch: placement.collect(function(placement.gather(windows, batch))), batches)
    return out.reshape(-1, *out.shape[2:])[:count]


def validate(weights: Weights, common: Common, program: Program) -> Validation:
    """Loss and scores over all windows of the split `validation`, each counted once, in one pass.

    Args:
        weights: the model's.
        common: windows and streams, of which only the former are used.
        program: what is compiled, once.

    Returns:
        Loss and scores; of an ensemble, each member's.
    """
    return program.placement.program(_validate)(program, weights, None, common)


def _validate(program: Program, weights: Weights, _: None, common: Common) -> Validation:
    (graph, config, placement), windows = program, common.windows
    costs = [cost(block) for block in (config.loss, *config.metrics)]
    model = nnx.merge(graph, weights.params, common.rngs, weights.rest, copy=True)

    def one(batch: Batch) -> Float[Array, "batch column"]:
        prediction = _checked(model, batch, train=False)
        error = prediction.mean[:, 0] - batch.targets[:, 0]
        loss, *metrics = (each(prediction, batch) for each in costs)
        columns = loss, jnp.square(error).mean(-1), jnp.abs(error).mean(-1), *metrics
        return jnp.stack([c.astype(error.dtype) for c in columns], axis=1)

    starts = windows.starts["validation"]
    mean, mse, mae, *metrics = _map_windows(one, windows, starts, config.batch_size, placement).mean(0)
    r2 = 1 - mse / windows.gather(starts).targets[:, 0].var(0).mean()
    return Validation(mean, r2, jnp.sqrt(mse), mae, tuple(metrics))


@partial(jax.jit, static_argnames=("graph", "batch_size"))
def _predict(variables: PyTree, windows: Windows, starts: Int[Array, " window"], *, graph, batch_size: int) -> Array:
    model = nnx.merge(graph, variables, copy=True)
    here = Placement("single", ())
    return _map_windows(lambda batch: _checked(model, batch, train=False).mean, windows, starts, batch_size, here)


def predict(
    model: nnx.Module, windows: Windows, starts: Int[Array | np.ndarray, " window"], *, batch_size: int = 256
) -> Float[np.ndarray, "window horizon feature"]:
    """Predict windows in one compiled loop.

    Args:
        model: the model; it is not changed.
        windows: the windows, whichever split.
        starts: first frame of each window to predict.
        batch_size: windows predicted at once.

    Returns:
        The predicted means, scaled as `windows.values` are, in the order of `starts`.

    Raises:
        ValueError: if there is no window, or `batch_size` is not positive.
    """
    if np.ndim(starts) != 1 or not np.size(starts) or batch_size < 1:
        raise ValueError(f"need a list of windows and batch_size ≥ 1, got {np.shape(starts)} and {batch_size}")
    graph, variables = nnx.split(model)
    windows, starts = jax.device_put((windows, starts))
    return np.array(jax.device_get(_predict(variables, windows, starts, graph=graph, batch_size=batch_size)))
