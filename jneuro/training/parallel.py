"""Where a training runs: on one device, or on several that share each batch, or the members of an ensemble.

The step is written once. A `Placement` says where its arrays lie, what part of a batch a device gathers, and how the
step becomes a program. With `jit` the compiler divides the program along the batch and keeps its meaning: sums over the
batch run over all devices. With `pmap` each device runs the step on its part of the batch, and what concerns the whole
batch says so: gradients, batch statistics, dropout masks. Everything random is drawn for the whole batch. Results
depend on neither mode nor number of devices or processes, but for the order of floating-point sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jneuro.core.types import Array, Int, PyTree
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.layers import batch_axis
from jneuro.training.recipe import TrainConfig

__all__ = ["Placement", "available_devices", "place_batches", "place_members"]

_AXIS = "devices"
_ALL, _SHARED = PartitionSpec(), PartitionSpec(_AXIS)


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

    def _on_mesh(self, spec: PartitionSpec) -> NamedSharding:
        # `pmap` takes and returns what lies in its own process.
        devices = [d for d in self.devices if self.mode != "pmap" or d.process_index == jax.process_index()]
        return NamedSharding(Mesh(np.array(devices), (_AXIS,), axis_types=(AxisType.Auto,)), spec)

    def put(self, tree: PyTree, *, each_member: bool = False, copy: bool = False) -> PyTree:
        """Place a tree on the devices.

        Args:
            tree: equal in all processes.
            each_member: give each device its members of an ensemble, by the first axis, instead of the whole.
            copy: into buffers of their own, even where a buffer lies right already.

        Returns:
            The placed tree.
        """
        home: Sharding = SingleDeviceSharding(self.devices[0])
        if self.mode != "single":
            home = self._on_mesh(_SHARED if each_member else _ALL)

        def place(leaf):
            if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
                # Keys themselves cannot be placed on the devices of another process.
                data = jax.device_put(jax.random.key_data(leaf), home)
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            return jax.device_put(leaf, home, may_alias=False if copy else None)

        return jax.tree.map(place, tree)

    def whole(self, tree: PyTree) -> PyTree:
        """Make a tree of members readable in every process."""
        return jax.device_put(tree, self._on_mesh(_ALL)) if self.mode == "members" and self.processes > 1 else tree

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask."""
        return flag if self.processes == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())

    def gather(self, windows: Windows, starts: Int[Array, " batch"]) -> Batch:
        """Within a program: gather a batch, each device its part."""
        match self.mode:
            case "jit":
                shared = self._on_mesh(_SHARED)
                batch = windows.gather(lax.with_sharding_constraint(starts, shared))
                return lax.with_sharding_constraint(batch, shared)
            case "pmap":
                size = len(starts) // self.parts
                starts = lax.dynamic_slice_in_dim(starts, lax.axis_index(_AXIS) * size, size)
        return windows.gather(starts)

    def mean(self, tree: PyTree) -> PyTree:
        """Within a program: from the means over the parts of a batch to that over the batch."""
        return lax.pmean(tree, _AXIS) if self.mode == "pmap" else tree

    def collect(self, values: Array) -> Array:
        """Within a program: put the parts of a batch together again."""
        return lax.all_gather(values, _AXIS, tiled=True) if self.mode == "pmap" else values

    def program(self, function: Callable, *, donate: bool = False) -> Callable:
        """Compile `function(static, state, own, common)`; of an ensemble's members each has a state and an `own`.

        Args:
            function: a pure function; `static` can be hashed, the others are trees.
            donate: whether the buffers of `state` are reused.

        Returns:
            The program: one for equal arguments.
        """
        return _program(self, function, (1,) if donate else ())


@cache
def _program(placement: Placement, function: Callable, donated: tuple[int, ...]) -> Callable:
    mesh = placement._on_mesh(_ALL).mesh

    @wraps(function)
    def members(static, state, own, common):
        def each(state, own, common):
            def one(member):
                return function(static, *member, common)

            return jax.vmap(one)((state, own)) if placement.side_by_side else lax.map(one, (state, own))

        specs = (_SHARED, _SHARED, _ALL)
        return jax.shard_map(each, mesh=mesh, in_specs=specs, out_specs=_SHARED, check_vma=False)(state, own, common)

    @wraps(function)
    def part(static, state, own, common, _):
        with batch_axis(_AXIS):
            return function(static, state, own, common)

    match placement.mode:
        case "single":
            return jax.jit(function, static_argnums=0, donate_argnums=donated)
        case "jit":
            out = NamedSharding(mesh, _ALL)
            return jax.jit(function, static_argnums=0, donate_argnums=donated, out_shardings=out)
        case "members":
            return jax.jit(members, static_argnums=0, donate_argnums=donated)
    mapped: Any = jax.pmap(
        part,
        _AXIS,
        in_axes=(None, None, None, None, 0),
        out_axes=None,
        static_broadcasted_argnums=0,
        devices=placement.devices,
        donate_argnums=donated,
    )
    # `pmap` wants an argument with the mapped axis; all that the devices differ in is their index.
    index = jax.device_put(np.zeros(mesh.size), NamedSharding(mesh, _SHARED))
    return lambda *arguments: mapped(*arguments, index)


def available_devices() -> tuple[Any, ...]:
    """The devices to train on: that of `jax.default_device` if it is set, otherwise all, of all processes."""
    default = jax.config.jax_default_device  # pyright: ignore
    return (default,) if isinstance(default, jax.Device) else tuple(jax.devices(default))


def _divide(name: str, number: int, devices: tuple[Any, ...]) -> None:
    if number % (count := len(devices)):
        raise ValueError(
            f"{name} = {number} cannot be divided among {count} devices; use a multiple of {count}, let JAX see fewer "
            "devices (CUDA_VISIBLE_DEVICES), or choose one with jax.default_device"
        )


def place_batches(model: nnx.Module, config: TrainConfig) -> Placement:
    """Choose where one model trains.

    Args:
        model: the model; if there is but one device, training takes place where the model is.
        config: says how, and the batch size.

    Returns:
        The placement.

    Raises:
        ValueError: if the batch cannot be divided, or the model has layers that cannot be with `pmap`.
    """
    devices = available_devices()
    mode = config.parallel if config.parallel != "auto" else "jit" if len(devices) > 1 else "single"
    if mode == "single":
        return Placement(mode, tuple(jax.tree.leaves(nnx.state(model, nnx.Param))[0].devices())[:1])
    _divide("batch_size", config.batch_size, devices)
    if mode == "pmap":
        for path, layer in nnx.iter_graph(model):
            if isinstance(layer, nnx.Dropout | nnx.BatchNorm):
                raise ValueError(
                    f"parallel 'pmap' would give Flax's {type(layer).__name__} at {'.'.join(map(str, path))} a part of "
                    "the batch for the whole; use that of jneuro.models.layers, or parallel 'jit'"
                )
    return Placement(mode, devices)


def place_members(members: int) -> Placement:
    """Choose where the members of an ensemble train.

    Args:
        members: how many there are.

    Returns:
        The placement, with equally many members on each device.

    Raises:
        ValueError: if they cannot be divided.
    """
    devices = available_devices()
    _divide("the number of members", members, devices)
    # On a CPU a batched matrix product takes longer than its parts: 8 small models at once, up to 1.5 times as long.
    return Placement("members", devices, side_by_side=devices[0].platform != "cpu")
