"""The one program of a sweep: groups of points, all of the same width, on all devices of this process.

A point's result may depend, in its last bit, on how many points are computed beside it and at which place among them.
So both are fixed by the design: chunks are cut into groups of `lanes` points, side by side, the last one padded. How
many groups a call computes, and where, touches no bit of them: on a CPU a device takes its groups one after the other,
in a loop whose length the compiler does not know. Accelerators take them side by side.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jneuro.core.devices import is_out_of_memory
from jneuro.core.types import Array
from jneuro.sweeps.problem import REASON, SweepProblem

__all__ = [
    "NOT_FINITE",
    "Group",
    "GroupProgram",
    "SweepMemoryError",
    "fitting_program",
    "local_devices",
    "run_groups",
]

NOT_FINITE = "not finite, or the time step too coarse"
"""Why a point failed that raised nothing."""

_AXIS = "devices"
_SPLIT = PartitionSpec(None, _AXIS)

_LONGEST = 200
"""Characters of a reason that are kept."""

Results = dict[str, np.ndarray]
"""Name to what the points of a group gave, `[point, ...]`."""


class SweepMemoryError(MemoryError):
    """Even the smallest batch of points does not fit."""

    outcome = "failed"


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

    def __init__(self, problem: SweepProblem, lanes: int, groups: int, devices: Sequence[Any]) -> None:
        """Compile it; arguments as the attributes.

        Raises:
            jax.errors.JaxRuntimeError: if the compiler itself finds that memory does not suffice.
        """
        self.problem, self.lanes, self.groups, self.devices = problem, lanes, groups, tuple(devices)
        mesh = Mesh(np.array(self.devices), (_AXIS,), axis_types=(AxisType.Auto,))
        self._sharding, self._counts = NamedSharding(mesh, _SPLIT), NamedSharding(mesh, PartitionSpec(_AXIS))
        shape, axes = (groups, len(self.devices), lanes), len(problem.design.varied)
        integers = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self._sharding)
        values = jax.ShapeDtypeStruct((*shape, axes), jnp.result_type(float), sharding=self._sharding)
        counts = jax.ShapeDtypeStruct(shape[1:2], jnp.int32, sharding=self._counts)
        specs = (PartitionSpec(_AXIS), _SPLIT, _SPLIT, _SPLIT)
        part = jax.shard_map(self._part, mesh=mesh, in_specs=specs, out_specs=_SPLIT, check_vma=False)
        self._compiled = jax.jit(part).lower(counts, integers, integers, values).compile()

    def _part(self, count, index, seed, values):
        """One device's groups, `[group, 1, lane]`."""
        group = jax.vmap(self.problem.point)
        index, seed, values = index[:, 0], seed[:, 0], values[:, 0]
        if self.devices[0].platform != "cpu":
            return jax.tree.map(lambda x: x[:, None], jax.vmap(group)(index, seed, values))

        def visit(k, results):
            found = group(index[k], seed[k], values[k])
            return jax.tree.map(lambda a, x: lax.dynamic_update_index_in_dim(a, x[None], k, 0), results, found)

        shape = (self.groups, 1, self.lanes)
        empty = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape), x.dtype), self.problem.like)
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
        shape, devices = (self.groups, len(self.devices), self.lanes), len(self.devices)
        index, seed = (np.stack([getattr(g, name) for g in padded]).reshape(shape) for name in ("index", "seed"))
        dtype = jax.dtypes.canonicalize_dtype(np.float64)
        values = np.stack([g.values for g in padded]).reshape(*shape, -1).astype(dtype)
        counts = np.array([len(range(d, len(groups), devices)) for d in range(devices)], np.int32)
        placed = [jax.device_put(x, self._sharding) for x in (index, seed, values)]
        return self._compiled(jax.device_put(counts, self._counts), *placed)


def fitting_program(problem: SweepProblem, lanes: int, most: int, devices: Sequence[Any], budget: int) -> GroupProgram:
    """Compile for the largest batch that memory allows.

    Args:
        problem: of which points are computed.
        lanes: points in a group.
        most: groups a device that are of use.
        devices: where.
        budget: memory of a device [byte].

    Returns:
        The program.

    Raises:
        SweepMemoryError: if not even one group a device fits.
    """
    recorded = 0 if devices[0].platform == "cpu" else problem.recorded_bytes
    each = 2 * lanes * (problem.kept_bytes + recorded)
    groups = 1 << max(0, min(most, budget // max(each, 1)).bit_length() - 1)
    while True:
        try:
            program = GroupProgram(problem, lanes, groups, devices)
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


# Batch by batch, with less memory than thought, and past points that raise --------------------------------------------


def run_groups(program: GroupProgram, groups: Sequence[Group]) -> Iterator[tuple[Group, Results]]:
    """Compute groups in order; the next batch is computed while the last one is used.

    A function that a point calls on the host, such as `eqx.error_if` or a callback of one's own, may raise. That ends
    the call of the whole batch, which is then divided until the point is found.

    Args:
        program: the program to begin with; where memory does not suffice after all, the batch is halved.
        groups: what to compute.

    Yields:
        Every group, and the results of its points, with `reason`, which is empty where a point did not fail.

    Raises:
        SweepMemoryError: if memory does not suffice for one group a device.
    """
    first = ahead = 0
    waiting: deque[tuple[Sequence[Group], dict[str, Array] | str]] = deque()
    with _one_traceback(program.devices):
        while first < len(groups):
            try:
                while ahead < len(groups) and len(waiting) < 2:
                    batch = groups[ahead : ahead + program.size]
                    waiting.append((batch, _unless_raised(program, batch)))
                    ahead += len(batch)
                batch, results = waiting.popleft()
                if not isinstance(results, str):
                    results = _unless_raised(_by_group, batch, results)
                found = _divided(program, batch, np.arange(program.lanes)) if isinstance(results, str) else results
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if program.groups == 1:
                    raise SweepMemoryError(
                        f"{program.lanes} points side by side do not fit; lower sweep.lanes, or record less"
                    ) from error
                waiting.clear()
                ahead = first
                program = GroupProgram(program.problem, program.lanes, program.groups // 2, program.devices)
                continue
            first += len(batch)
            for group, values in zip(batch, found, strict=True):
                yield group, {name: x[: group.count] for name, x in values.items()}


def _unless_raised(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns; or, as text and without its traceback, what a function on the host has raised."""
    try:
        return call(*arguments)
    except jax.errors.JaxRuntimeError as error:
        lines = str(error).splitlines()
        if not lines or "callback" not in lines[0].lower():
            raise
        last = max((k for k, line in enumerate(lines) if line.startswith("  File ")), default=0)
        said = next((line for line in lines[last + 1 :] if line and not line.startswith(" ")), lines[0])
        return said.removeprefix("_")[:_LONGEST]


def _by_group(batch: Sequence[Group], results: dict[str, Array]) -> list[Results]:
    """Wait for the results of a call, and divide them among its groups."""
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in jax.device_get(results).items()}
    flat[REASON] = np.where(flat["ok"], "", NOT_FINITE).astype(np.dtypes.StringDType())
    return [{name: x[k] for name, x in flat.items()} for k in range(len(batch))]


def _divided(program: GroupProgram, batch: Sequence[Group], lanes: np.ndarray) -> list[Results]:
    """The results of some lanes of groups of which points may raise: by halves, until such a point is alone."""
    # To change no bit of them, their neighbours are computed too: the first of them, again and again.
    take = np.full(program.lanes, lanes[0])
    take[lanes] = lanes
    alone = [g._replace(index=g.index[take], seed=g.seed[take], values=g.values[take]) for g in batch]
    found = _unless_raised(lambda: _by_group(alone, program(alone)))
    if not isinstance(found, str):
        return [{name: x[lanes] for name, x in results.items()} for results in found]
    if len(batch) > 1:
        half = len(batch) // 2
        return _divided(program, batch[:half], lanes) + _divided(program, batch[half:], lanes)
    if len(lanes) > 1:
        parts = [_divided(program, batch, half)[0] for half in np.array_split(lanes, 2)]
        return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}]
    nothing: Results = {REASON: np.array([found], np.dtypes.StringDType())}
    for name, like in program.problem.like.items():
        value = np.nan if np.issubdtype(like.dtype, np.floating) else 0
        nothing[name] = np.full((1, *like.shape), value, like.dtype)
    return [nothing]


@contextmanager
def _one_traceback(devices: Sequence[Any]) -> Iterator[None]:
    """Let JAX write the traceback of the first point that raises, not those of all, and not again at the end."""
    logger, seen = logging.getLogger("jax._src.callback"), []

    def first(record: logging.LogRecord) -> bool:
        seen.append(record)
        return len(seen) == 1

    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)
        for device in devices if seen else ():
            # JAX waits for each device's last callback when Python ends, and would raise what that one raised.
            with jax.default_device(device):
                jax.jit(lambda: jax.debug.callback(lambda: None))()
