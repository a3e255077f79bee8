"""The compiled programs, some training steps, validation and predictions, and the devices on which they run.

Each is one loop on the device. The number of steps is a traced argument, so a call of any length, the odd last one of
an epoch included, runs the same program. The model's graph, the recipe and the placement are static; everything else is
an argument.

The step is written once. With `jit` the compiler divides it along the batch and keeps its meaning: sums over the batch
run over all devices. With `pmap` each device runs the step on its part of the batch, by `jax.shard_map`, and what
concerns the whole batch says so: gradients, batch statistics, dropout masks. An ensemble is the same step, mapped over
its members. Everything random is drawn for the whole batch, so that results depend on neither mode nor number of
devices or processes, but for the order of floating-point sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key, PyTree, Scalar
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction, check_prediction, forward
from jneuro.models.layers import batch_axis
from jneuro.training.checkpoints import Weights
from jneuro.training.losses import cost
from jneuro.training.optimizers import rate_within, transformation
from jneuro.training.recipe import TrainConfig, rate_factor

__all__ = ["Inputs", "Metrics", "Placement", "Program", "TrainState", "Validation", "place", "predict"]

_AXIS = "devices"
_ALL, _SHARED = PartitionSpec(), PartitionSpec(_AXIS)


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
    """Everything that a step changes; of an ensemble, every array has the member as its first axis.

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


class Inputs(NamedTuple):
    """What a step reads and does not change.

    Attributes:
        windows: the windows.
        rngs: random streams of the model's structure; reseeded in every step.
        key: of the order of the windows and the dropout masks; of an ensemble, one for each member.
        weight_decay: in place of the recipe's; None leaves that. Of an ensemble, one for each member.
    """

    windows: Windows
    rngs: PyTree
    key: Key[Array, ""]
    weight_decay: Scalar | None = None


@dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Attributes:
        mode: `single` device; batches divided by `jit` or by `pmap`; or `members` of an ensemble, divided.
        devices: the devices of all processes that take part.
        side_by_side: whether a device computes its members of an ensemble at once, or one after the other.
    """

    mode: Literal["single", "jit", "pmap", "members"]
    devices: tuple[Any, ...]
    side_by_side: bool = True

    @property
    def processes(self) -> int:
        """Number of processes that take part."""
        return len({device.process_index for device in self.devices})

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.devices[0].process_index == jax.process_index()

    @property
    def parts(self) -> int:
        """Number of parts that a batch is divided into."""
        return len(self.devices) if self.mode in ("jit", "pmap") else 1

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Over all devices, as the spec says."""
        return NamedSharding(Mesh(np.array(self.devices), (_AXIS,), axis_types=(AxisType.Auto,)), spec)

    def put(self, tree: PyTree, *, each_member: bool = False, copy: bool = False) -> PyTree:
        """Place a tree, equal in all processes, on the devices.

        Args:
            tree: the tree.
            each_member: give each device of an ensemble its members, by the first axis, instead of the whole.
            copy: into buffers of their own, even where a buffer lies right already.

        Returns:
            The placed tree.
        """
        home: Sharding = SingleDeviceSharding(self.devices[0])
        if self.mode != "single":
            home = self.sharding(_SHARED if each_member and self.mode == "members" else _ALL)

        def put(leaf):
            if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
                # Keys themselves cannot be placed on the devices of another process.
                data = jax.device_put(jax.random.key_data(leaf), home)
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            return jax.device_put(leaf, home, may_alias=False if copy else None)

        return jax.tree.map(put, tree)

    def whole(self, tree: PyTree) -> PyTree:
        """Make a tree of members readable in every process."""
        return jax.device_put(tree, self.sharding(_ALL)) if self.mode == "members" and self.processes > 1 else tree

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask."""
        return flag if self.processes == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())

    def gather(self, windows: Windows, starts: Int[Array, " batch"]) -> Batch:
        """Within a program: gather a batch, each device its part."""
        if self.mode == "jit":
            shared = self.sharding(_SHARED)
            batch = windows.gather(lax.with_sharding_constraint(starts, shared))
            return lax.with_sharding_constraint(batch, shared)
        if self.mode == "pmap":
            size = len(starts) // self.parts
            starts = lax.dynamic_slice_in_dim(starts, lax.axis_index(_AXIS) * size, size)
        return windows.gather(starts)


@dataclass(frozen=True)
class Program:
    """The compiled programs of a training: what they are compiled for, which is static, and how they are called.

    Attributes:
        graph: the model's static part.
        config: the recipe.
        placement: where they run.
    """

    graph: nnx.GraphDef
    config: TrainConfig
    placement: Placement

    def begin(self, weights: Weights, inputs: Inputs) -> TrainState:
        """The placed state before the first step, in buffers of its own: those of the model are never donated."""
        return self.placement.put(_begin(self, weights, inputs.weight_decay), each_member=True, copy=True)

    def steps(self, state: TrainState, inputs: Inputs, count: Int[Array, ""]) -> TrainState:
        """Take `count` steps, all within one epoch; the buffers of the state are reused.

        The epoch's order is drawn from its index, the dropout masks from the step's, so neither depends on where calls
        end.
        """
        return _compiled(self.placement, _steps, (1,))(self, state, inputs, count)

    def validate(self, weights: Weights, inputs: Inputs) -> Validation:
        """Loss and scores over all windows of the split `validation`, each counted once, in one pass."""
        return _compiled(self.placement, _validate, ())(self, weights, inputs, None)


@cache
def _compiled(placement: Placement, function: Callable, donated: tuple[int, ...]) -> Callable:
    """Compile `function(program, state, inputs, count)` for a placement; of an ensemble it is mapped over members."""

    def members(program, state, inputs, count):
        def one(member):
            state, key, decay = member
            return function(program, state, inputs._replace(key=key, weight_decay=decay), count)

        own = state, inputs.key, inputs.weight_decay
        return jax.vmap(one)(own) if placement.side_by_side else lax.map(one, own)

    def part(program, state, inputs, count):
        with batch_axis(_AXIS):
            return function(program, state, inputs, count)

    def mapped(program, *arguments):
        one, own = (members, _SHARED) if placement.mode == "members" else (part, _ALL)
        specs = (own, Inputs(_ALL, _ALL, own, own), _ALL)  # type: ignore[arg-type]
        each, mesh = partial(one, program), placement.sharding(_ALL).mesh
        return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)(*arguments)

    chosen = function if placement.mode in ("single", "jit") else mapped
    out = placement.sharding(_ALL) if placement.mode == "jit" else None
    return jax.jit(chosen, static_argnums=0, donate_argnums=donated, out_shardings=out)


@partial(jax.jit, static_argnums=0)
def _begin(program: Program, weights: Weights, decay: Scalar | None) -> TrainState:
    def one(weights: Weights, decay: Scalar | None) -> TrainState:
        zero = jnp.zeros(())
        moments = transformation(program.config.optimizer, decay).init(weights.params)
        return TrainState(*weights, moments, jnp.int32(0), zero, Metrics(zero, zero, zero, jnp.int32(-1)))

    return (jax.vmap(one) if program.placement.mode == "members" else one)(weights, decay)


def _steps(program: Program, state: TrainState, inputs: Inputs, count: Int[Array, ""]) -> TrainState:
    graph, config, placement = program.graph, program.config, program.placement
    windows, rngs, key, decay = inputs
    steps_per_epoch = windows.count("train") // config.batch_size
    epoch = state.step // steps_per_epoch
    order = jax.random.permutation(jax.random.fold_in(stream(key, "order"), epoch), windows.starts["train"])
    dropout, optimizer = stream(key, "dropout"), transformation(config.optimizer, decay)
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
        if placement.mode == "pmap":  # from the means over the parts of the batch to that over the batch
            loss, gradient = lax.pmean((loss, gradient), _AXIS)
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

    def one(batch: Int[Array, " batch"]) -> Array:
        found = function(placement.gather(windows, batch))
        return lax.all_gather(found, _AXIS, tiled=True) if placement.mode == "pmap" else found

    out = lax.map(one, jnp.pad(starts, (0, -count % size), mode="edge").reshape(-1, size))
    return out.reshape(-1, *out.shape[2:])[:count]


def _validate(program: Program, weights: Weights, inputs: Inputs, _: None) -> Validation:
    windows, config = inputs.windows, program.config
    costs = [cost(block) for block in (config.loss, *config.metrics)]
    model = nnx.merge(program.graph, weights.params, inputs.rngs, weights.rest, copy=True)

    def one(batch: Batch) -> Float[Array, "batch column"]:
        prediction = _checked(model, batch, train=False)
        error = prediction.mean[:, 0] - batch.targets[:, 0]
        loss, *metrics = (each(prediction, batch) for each in costs)
        columns = loss, jnp.square(error).mean(-1), jnp.abs(error).mean(-1), *metrics
        return jnp.stack([c.astype(error.dtype) for c in columns], axis=1)

    starts = windows.starts["validation"]
    mean, mse, mae, *metrics = _map_windows(one, windows, starts, config.batch_size, program.placement).mean(0)
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


def place(model: nnx.Module, config: TrainConfig, members: int | None = None) -> Placement:
    """Choose where a model, or an ensemble, trains.

    The devices are that of `jax.default_device` if it is set, otherwise all, of all processes.

    Args:
        model: the model; if there is but one device, training takes place where the model is.
        config: says how devices share a batch, and the batch size.
        members: how many there are in an ensemble, whose members the devices share instead, equally many each.

    Returns:
        The placement.

    Raises:
        ValueError: if the batch or the members cannot be divided, or the model has layers that cannot with `pmap`.
    """
    default = jax.config.jax_default_device  # pyright: ignore
    devices: tuple[Any, ...] = (default,) if isinstance(default, jax.Device) else tuple(jax.devices(default))
    mode = config.parallel if config.parallel != "auto" else "jit" if len(devices) > 1 else "single"
    if mode == "single" and members is None:
        return Placement(mode, tuple(jax.tree.leaves(nnx.state(model, nnx.Param))[0].devices())[:1])
    divided, number = ("batch_size", config.batch_size) if members is None else ("the number of members", members)
    if number % (count := len(devices)):
        raise ValueError(
            f"{divided} = {number} cannot be divided among {count} devices; use a multiple of {count}, let JAX see "
            "fewer devices (CUDA_VISIBLE_DEVICES), or choose one with jax.default_device"
        )
    if members is not None:
        # On a CPU a batched matrix product takes longer than its parts: 8 small models at once, up to 1.5 times.
        return Placement("members", devices, side_by_side=all(d.platform != "cpu" for d in devices))
    for path, layer in nnx.iter_graph(model) if mode == "pmap" else ():
        if isinstance(layer, nnx.Dropout | nnx.BatchNorm):
            raise ValueError(
                f"parallel 'pmap' would give Flax's {type(layer).__name__} at {'.'.join(map(str, path))} a part of "
                "the batch for the whole; use that of jneuro.models.layers, or parallel 'jit'"
            )
    return Placement(mode, devices)
