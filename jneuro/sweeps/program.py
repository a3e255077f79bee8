"""The one program of a sweep: groups of points, all of the same width, on all devices of this process.

A point's result may depend, in its last bit, on how many points are computed beside it and at which place among them.
So both are fixed by the design: chunks are cut into groups of `lanes` points, side by side, the last one padded. How
many groups a call computes, and where, touches no bit of them: on a CPU a device takes its groups one after the other,
in a loop whose length the compiler does not know. Accelerators take them side by side.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jneuro.core.devices import is_out_of_memory
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key, PyTree
from jneuro.recordings import Recording
from jneuro.simulators import ODESimulator, SteppedSimulator, simulate
from jneuro.sweeps.config import SweepConfig
from jneuro.sweeps.measures import load_measure, result_names

__all__ = [
    "REASON",
    "Group",
    "GroupProgram",
    "PointProgram",
    "SweepMemoryError",
    "fitting_program",
    "local_devices",
]

REASON = "reason"
"""The quantity that says why a point failed."""

_AXIS = "devices"
_SPLIT = PartitionSpec(None, _AXIS)


class SweepMemoryError(MemoryError):
    """Even the smallest batch of points does not fit."""


class PointProgram:
    """What is computed for one point: pure, and batched by `jax.vmap`."""

    def __init__(self, config: SweepConfig, key: Key[Array, ""]) -> None:
        """Prepare the simulator and the measures of a sweep."""
        self.config, self.key = config, key
        self._plain = config.simulation.plain(config.recorded)
        self._base: Any = config.simulation.simulator.build()
        self._measures = {name: load_measure(name) for name in config.measures}
        self._populations = tuple(self._plain.populations.values())

    def __call__(self, index: Int[Array, ""], seed: Int[Array, ""], values: Float[Array, " axis"]) -> dict[str, PyTree]:
        """Simulate a point, and measure.

        Args:
            index: of the parameter set.
            seed: its repetition, or its seed in a table.
            values: of the axes.

        Returns:
            `ok` and every stored quantity.
        """
        key = jax.random.fold_in(stream(self.key, "point"), seed)
        if self.config.sweep.draws == "per_point":
            key = jax.random.fold_in(key, index)
        recording = self._simulate(key, values)
        measured = {name: measure.function(recording, self._populations) for name, measure in self._measures.items()}
        found = {"ok": recording.ok}
        for name, result in measured.items():
            for label, array in result_names(name, result).items():
                if label in (*found, REASON):
                    raise ValueError(f"measures: {name} gives {label!r}, which is there already")
                nothing = jnp.issubdtype(array.dtype, jnp.floating)
                found[label] = jnp.where(recording.ok, array, jnp.nan) if nothing else array
        return found | {f"{name}_trace": recording.values[name] for name in self.config.keep}

    def _simulate(self, key: Key[Array, ""], values: Float[Array, " axis"]) -> Recording:
        """Build the simulator and the stimulus of a point, and run them."""
        changed: dict[str, dict[str, Array]] = {"simulator": {}, "stimulus": {}}
        for k, (name, axis) in enumerate(self.config.sweep.varied.items()):
            where, _, argument = self.config.targets[name].partition(".")
            changed[where][argument] = values[k] * axis.times if axis.times != 1 else values[k]
        simulator: SteppedSimulator | ODESimulator = dataclasses.replace(self._base, **changed["simulator"])
        simulation, stimulus = self.config.simulation, None
        if simulation.stimulus is not None:
            described = simulation.stimulus.model_copy(update=changed["stimulus"])
            stimulus = described.build(stream(key, "stimulus"))
        return simulate(
            simulator.connect(stream(key, "connect")),
            stimulus,
            duration=simulation.duration_ms,
            warmup=simulation.warmup_ms,
            key=stream(key, "run"),
            record=self._plain.recorded,
            record_every=self._plain.record_every_ms,
            throw=False,
            **self._plain.scheme,
        )

    @cached_property
    def like(self) -> dict[str, Any]:
        """Shape and type of every quantity of one point.

        Raises:
            ValueError: if a function of one's own cannot be computed.
        """
        axes = len(self.config.sweep.varied)
        scalar = jax.ShapeDtypeStruct((), jnp.int32)
        values = jax.ShapeDtypeStruct((axes,), jnp.result_type(float))
        try:
            return jax.eval_shape(self, scalar, scalar, values)
        except Exception as error:  # whatever a function of one's own raises
            own = [name for name in self._measures if ":" in name]
            if not own:
                raise
            raise ValueError(f"measures: {', '.join(own)}: {type(error).__name__}: {error}") from error

    @property
    def recording(self) -> Recording:
        """Shape and type of one point's recording."""
        values = jax.ShapeDtypeStruct((len(self.config.sweep.varied),), jnp.result_type(float))
        return jax.eval_shape(self._simulate, self.key, values)

    @cached_property
    def recorded_bytes(self) -> int:
        """Size of the recording of one point."""
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.recording.values))


class Group(NamedTuple):
    """Points that are computed side by side.

    Attributes:
        chunk: which they belong to.
        first: the place of the first of them within the chunk.
        count: points that are not padding.
        index: of their parameter sets, `[lane]`.
        seed: of each.
        values: of the axes, `[lane, axis]`.
    """

    chunk: int
    first: int
    count: int
    index: np.ndarray
    seed: np.ndarray
    values: np.ndarray


def local_devices() -> tuple[Any, ...]:
    """The devices of this process: that of `jax.default_device` if it is set, otherwise all."""
    default = jax.config.jax_default_device  # pyright: ignore
    return (default,) if isinstance(default, jax.Device) else tuple(jax.local_devices(backend=default))


class GroupProgram:
    """The compiled program, for so many groups a device and call."""

    def __init__(self, point: PointProgram, lanes: int, groups: int, devices: Sequence[Any]) -> None:
        """Compile it; arguments as the attributes.

        Raises:
            jax.errors.JaxRuntimeError: if the compiler itself finds that memory does not suffice.
        """
        self.point, self.lanes, self.groups, self.devices = point, lanes, groups, tuple(devices)
        self._mesh = Mesh(np.array(self.devices), (_AXIS,), axis_types=(AxisType.Auto,))
        self._sharding = NamedSharding(self._mesh, _SPLIT)
        self._counts = NamedSharding(self._mesh, PartitionSpec(_AXIS))
        self._side_by_side = self.devices[0].platform != "cpu"
        shape, axes = (groups, len(self.devices), lanes), len(point.config.sweep.varied)
        integers = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self._sharding)
        values = jax.ShapeDtypeStruct((*shape, axes), jnp.result_type(float), sharding=self._sharding)
        counts = jax.ShapeDtypeStruct(shape[1:2], jnp.int32, sharding=self._counts)
        part = jax.shard_map(
            self._part,
            mesh=self._mesh,
            in_specs=(PartitionSpec(_AXIS), _SPLIT, _SPLIT, _SPLIT),
            out_specs=_SPLIT,
            check_vma=False,
        )
        self._compiled = jax.jit(part).lower(counts, integers, integers, values).compile()

    def _part(self, count, index, seed, values):
        """One device's groups, `[group, 1, lane]`."""
        group = jax.vmap(self.point)
        index, seed, values = index[:, 0], seed[:, 0], values[:, 0]
        if self._side_by_side:
            return jax.tree.map(lambda x: x[:, None], jax.vmap(group)(index, seed, values))

        def visit(k, results):
            found = group(index[k], seed[k], values[k])
            return jax.tree.map(lambda a, x: lax.dynamic_update_index_in_dim(a, x[None], k, 0), results, found)

        shape = (self.groups, 1, self.lanes)
        empty = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), self.point.like)
        return lax.fori_loop(0, count[0], visit, empty)

    @property
    def memory(self) -> int:
        """What a device needs, two calls being under way at once [byte]."""
        found = self._compiled.memory_analysis()
        if found is None:
            return 0
        return int(found.temp_size_in_bytes + 2 * (found.output_size_in_bytes + found.argument_size_in_bytes))

    @property
    def size(self) -> int:
        """Groups in a call, on all devices together."""
        return self.groups * len(self.devices)

    def __call__(self, groups: Sequence[Group]) -> dict[str, Array]:
        """Begin to compute some groups, at most `size`: results `[group, device, lane, ...]`, in turn among devices."""
        padded = [*groups, *[groups[-1]] * (self.size - len(groups))]
        shape = (self.groups, len(self.devices), self.lanes)
        index, seed = (np.stack([getattr(g, name) for g in padded]).reshape(shape) for name in ("index", "seed"))
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        values = np.stack([g.values for g in padded]).reshape(*shape, -1).astype(dtype)
        counts = np.array([len(range(d, len(groups), len(self.devices))) for d in range(len(self.devices))], np.int32)
        placed = [jax.device_put(x, self._sharding) for x in (index, seed, values)]
        return self._compiled(jax.device_put(counts, self._counts), *placed)


def fitting_program(point: PointProgram, lanes: int, most: int, devices: Sequence[Any], budget: int) -> GroupProgram:
    """Compile for the largest batch that memory allows.

    Args:
        point: what is computed.
        lanes: points in a group.
        most: groups a device that are of use.
        devices: where.
        budget: memory of a device [byte].

    Returns:
        The program.

    Raises:
        SweepMemoryError: if not even one group a device fits.
    """
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(point.like))
    each = lanes * (2 * kept if devices[0].platform == "cpu" else 2 * kept + 2 * point.recorded_bytes)
    groups = 1 << max(0, min(most, budget // max(each, 1)).bit_length() - 1)
    while True:
        try:
            program = GroupProgram(point, lanes, groups, devices)
            if program.memory <= budget:
                return program
            need = f"{program.memory / 2**20:.0f} MiB"
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            need = "more than there is"
        if groups == 1:
            raise SweepMemoryError(
                f"{lanes} points side by side need {need}, of {budget / 2**20:.0f} MiB that may be used; "
                "lower sweep.lanes, or record less"
            )
        groups //= 2
