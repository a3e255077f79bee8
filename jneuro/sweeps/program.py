"""The one program of a sweep: groups of points, all of the same width, on all devices of this process.

A point's result may depend, in its last bit, on how many points are computed beside it and at which place among them.
So both are fixed by the design: chunks are cut into groups of `lanes` points, side by side, the last one padded. How
many groups a call computes, and where, touches no bit of them: on a CPU a device takes its groups one after the other,
in a loop whose length the compiler does not know. Accelerators take them side by side.
"""

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
from jneuro.recordings.recording import Recording
from jneuro.simulators.simulation import simulate
from jneuro.sweeps.measures import result_like, result_names
from jneuro.sweeps.problem import SweepProblem

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

    outcome = "failed"


class PointProgram:
    """What is computed for one point: pure, and batched by `jax.vmap`."""

    def __init__(self, problem: SweepProblem) -> None:
        """Prepare the point of a sweep."""
        self.problem = problem
        self._populations = tuple(problem.populations.values())

    def __call__(self, index: Int[Array, ""], seed: Int[Array, ""], values: Float[Array, " axis"]) -> dict[str, PyTree]:
        """Simulate a point, and measure.

        Args:
            index: of the parameter set.
            seed: its repetition, or its seed in a table.
            values: of the axes.

        Returns:
            `ok` and every stored quantity.
        """
        key = jax.random.fold_in(stream(self.problem.key, "point"), seed)
        if self.problem.design.draws == "per_point":
            key = jax.random.fold_in(key, index)
        recording = self._simulate(key, values)
        found = {"ok": recording.ok}
        for measure in self.problem.measures:
            for label, array in result_names(measure.name, measure(recording, self._populations)).items():
                floating = jnp.issubdtype(array.dtype, jnp.floating)
                found[label] = jnp.where(recording.ok, array, jnp.nan) if floating else array
        return found | {f"{name}_trace": recording.values[name] for name in self.problem.keep}

    def _simulate(self, key: Key[Array, ""], values: Float[Array, " axis"]) -> Recording:
        """Build the simulator and the stimulus of a point, and run them."""
        problem = self.problem
        simulator, stimulus = problem.at({name: values[k] for k, name in enumerate(problem.design.varied)}, key)
        return simulate(
            simulator.connect(stream(key, "connect")),
            stimulus,
            duration=problem.duration,
            warmup=problem.warmup,
            key=stream(key, "run"),
            record=problem.recorded,
            record_every=problem.frame,
            throw=False,
            **problem.scheme,
        )

    @cached_property
    def like(self) -> dict[str, Any]:
        """Shape and type of every quantity of one point.

        Raises:
            ValueError: if a function of one's own cannot be computed, or two give the same name.
        """
        seen = dict.fromkeys(["ok", REASON], "the sweep")
        for measure in self.problem.measures:
            for label in result_like(measure, self.recording, self._populations):
                if label in seen:
                    raise ValueError(f"measures: {measure.name} gives {label!r}, which is there already")
                seen[label] = measure.name
        scalar = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.eval_shape(self, scalar, scalar, self._values)

    @property
    def _values(self) -> Any:
        return jax.ShapeDtypeStruct((len(self.problem.design.varied),), jnp.result_type(float))

    @cached_property
    def recording(self) -> Recording:
        """Shape and type of one point's recording."""
        return jax.eval_shape(self._simulate, self.problem.key, self._values)

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
        shape, axes = (groups, len(self.devices), lanes), len(point.problem.design.varied)
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
