"""The verb: simulate many points, and stream what is measured into one store."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jneuro.core.devices import available_memory
from jneuro.simulators import SIMULATORS
from jneuro.simulators.base import parameters
from jneuro.sweeps.batches import NOT_FINITE, run_groups
from jneuro.sweeps.config import SweepConfig
from jneuro.sweeps.design import Points, design_points
from jneuro.sweeps.measures import load_measure
from jneuro.sweeps.program import REASON, Group, PointProgram, fitting_program, local_devices
from jneuro.sweeps.store import Layout, Quantity, SweepStore, open_sweep

__all__ = ["SweepProgress", "sweep"]

_CHUNKS = 256
"""Chunks of a large design."""
_SIDE_BY_SIDE = 4096
"""Neurons of all points that are computed side by side."""
_RECORDED = 256 << 20
"""Recorded values of these points [byte]."""
_KEPT = 64 << 20
"""Results of a chunk [byte]."""


class SweepProgress(NamedTuple):
    """Where a sweep is.

    Attributes:
        done: points of this process that are done.
        total: points of this process.
        failed: those of them that left the finite numbers, or raised an error.
        points_per_second: speed since the program was compiled.
    """

    done: int
    total: int
    failed: int
    points_per_second: float


def sweep(
    config: SweepConfig,
    path: Path | str,
    *,
    process: int = 0,
    processes: int = 1,
    memory: int | None = None,
    tell: Callable[[SweepProgress], None] | None = None,
) -> xr.Dataset | None:
    """Simulate every point of a design, and stream what is measured into one store; go on with what is there.

    Results depend on the design alone: not on the number of devices or processes, the size of a batch, or how often
    the sweep was killed; on a CPU the finished store is the same to the last byte. A point that leaves the finite
    numbers, or for which a function on the host raises (`eqx.error_if`, a callback), has `ok=False`, floats that are
    NaN and a `reason`, and stops nothing.

    Args:
        config: the sweep.
        path: the store, which is made unless it is there.
        process: which one this is of several that write the store; each computes every `processes`-th chunk. They
            need not run at the same time, nor know of each other.
        processes: how many there are.
        memory: most memory of a device that may be used [byte]; by default half of what is free.
        tell: hears how it goes on.

    Returns:
        The results, opened lazily (see `open_sweep`); None while chunks of other processes are missing.

    Raises:
        StoreError: if the folder holds something else, or a sweep of another design.
        ValueError: if a function of one's own cannot be computed, before anything else is.
        SweepMemoryError: if not even the smallest batch fits.
    """
    if not 0 <= process < processes:
        raise ValueError(f"process = {process} must be at least 0 and less than processes = {processes}")
    key = jax.random.key(config.seed)
    points, point = design_points(config.sweep, key), PointProgram(config, key)
    layout, lanes = _layout(config, points, point)
    store = SweepStore.create(
        Path(path), layout, _quantities(config, point), _coords(config, points, point), _provenance(config, point)
    )
    _compute(store, points, point, lanes, range(process, layout.chunks, processes), memory, tell or (lambda _: None))
    if not all(store.done(chunk) for chunk in range(layout.chunks)):
        return None
    store.tidy()
    return open_sweep(path)


def _compute(
    store: SweepStore, points: Points, point: PointProgram, lanes: int, mine: range, memory: int | None, tell: Callable
) -> None:
    """Compute the chunks that are missing."""
    layout = store.layout
    missing = [chunk for chunk in mine if not store.done(chunk)]
    there = sorted(set(mine) - set(missing))
    total = sum(len(layout.points(chunk)) for chunk in mine)
    done, failed = sum(len(layout.points(c)) for c in there), sum(store.failures(c) for c in there)
    if not missing:
        return
    tell(SweepProgress(done, total, failed, 0.0))
    devices = local_devices()
    groups = [group for chunk in missing for group in _groups(points, layout, chunk, lanes)]
    most = -(-len(groups) // len(devices))
    if devices[0].platform == "cpu":
        # More groups than a chunk has take longer, and no more of them at once.
        most = min(most, -(-len(layout.points(missing[0])) // lanes))
    program = fitting_program(point, lanes, most, devices, memory or available_memory(devices[0], len(devices)))
    began, before = time.perf_counter(), done
    for count, bad in _write(store, run_groups(program, groups)):
        done, failed = done + count, failed + bad
        tell(SweepProgress(done, total, failed, (done - before) / (time.perf_counter() - began)))


def _write(store: SweepStore, results: Iterator[tuple[Group, dict[str, np.ndarray]]]) -> Iterator[tuple[int, int]]:
    """Write every chunk when its last group is there; yield how many points came, and how many of them failed."""
    parts: list[dict[str, np.ndarray]] = []
    for group, found in results:
        # A view would keep the whole batch.
        parts.append({name: np.array(x) for name, x in found.items()})
        if group.first + group.count == len(store.layout.points(group.chunk)):
            store.write(group.chunk, {name: np.concatenate([p[name] for p in parts]) for name in found})
            parts.clear()
        yield group.count, int(np.count_nonzero(~found["ok"]))


def _groups(points: Points, layout: Layout, chunk: int, lanes: int) -> Iterator[Group]:
    """Cut a chunk into groups; what is missing in the last one repeats its last point."""
    indices = layout.points(chunk)
    for first in range(0, len(indices), lanes):
        some = indices[first : first + lanes]
        padded = np.concatenate([some, np.repeat(some[-1:], lanes - len(some))])
        index, seed = np.divmod(padded, points.seeds)
        seed = seed if points.seed is None else points.seed[index]
        yield Group(chunk, first, len(some), index.astype(np.int32), seed.astype(np.int32), points.values[index])


def _layout(config: SweepConfig, points: Points, point: PointProgram) -> tuple[Layout, int]:
    """How points are cut into chunks, and how many of them are computed side by side: functions of the design alone."""
    neurons = config.simulation.plain().neurons
    wide = config.sweep.lanes or min(_SIDE_BY_SIDE // neurons, _RECORDED // max(point.recorded_bytes, 1), 256)
    wide = max(1, wide)
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(point.like))
    wanted = config.sweep.chunk or max(1, min(max(wide, points.count // _CHUNKS), _KEPT // max(kept, 1)))
    layout = Layout.cut(points.dims, wanted)
    size = int(np.prod(layout.block))
    return layout, config.sweep.lanes or -(-size // -(-size // wide))


def _quantities(config: SweepConfig, point: PointProgram) -> dict[str, Quantity]:
    """What is stored of every point, with units and meanings."""
    about = {name.rpartition(":")[2]: load_measure(name) for name in config.measures}
    recordables = SIMULATORS[config.simulation.simulator.name].recordables
    found = {}
    for name, like in point.like.items():
        dims = tuple(f"{name}_{k}" for k in range(len(like.shape)))
        attributes: dict[str, Any] = {}
        if name == "ok":
            attributes = {"long_name": "whether nothing was raised and all that was recorded is finite"}
        elif name == "population_rates":
            dims = ("population",)
        if (plain := name.removesuffix("_trace")) in config.keep and plain != name:
            dims = ("time", *(("neuron",) if len(like.shape) == 2 else dims[1:]))
            attributes = {"units": recordables[plain].unit, "long_name": recordables[plain].doc}
        elif name in about:
            attributes = {"units": about[name].unit, "long_name": about[name].doc}
            if about[name].meanings:
                attributes["meanings"] = list(about[name].meanings)
        found[name] = Quantity(tuple(like.shape), np.dtype(like.dtype), dims, attributes)
    said = {"long_name": f"why a point failed: '{NOT_FINITE}', or what was raised; empty where it did not"}
    return found | {REASON: Quantity((), np.dtypes.StringDType(), (), said)}


def _coords(config: SweepConfig, points: Points, point: PointProgram) -> dict[str, Any]:
    """The labels: values of the axes, and what a quantity's own dimensions are."""
    simulator = SIMULATORS[config.simulation.simulator.name]
    declared = parameters(simulator)
    coords: dict[str, Any] = {}
    for name, values in points.coords.items():
        attributes: dict[str, Any] = {"role": "axis"}
        if name in config.sweep.varied:
            where, _, argument = config.targets[name].partition(".")
            attributes |= {"target": config.targets[name], "times": config.sweep.varied[name].times}
            if where == "simulator":
                unit = declared[argument].unit if config.sweep.varied[name].times == 1 else "1"
                attributes |= {"units": unit, "long_name": declared[argument].doc}
            elif argument == "amplitude" and attributes["times"] == 1 and "current" in simulator.recordables:
                attributes |= {"units": simulator.recordables["current"].unit}
        coords[name] = ((name if name in points.dims else "point",), values, attributes)
    if config.keep:
        recording = point.recording
        steps = recording.record_every * np.arange(1, recording.frames + 1)
        time_ms = config.simulation.warmup_ms + steps * recording.step
        coords["time"] = (("time",), time_ms, {"role": "axis", "units": "ms"})
    if "population_rates" in config.measures:
        meaning = {str(k): name for k, name in enumerate(config.simulation.plain().populations)}
        coords["population"] = (("population",), np.arange(len(meaning)), {"role": "axis", "meaning": meaning})
    return coords


def _provenance(config: SweepConfig, point: PointProgram) -> dict[str, Any]:
    """All that results depend on."""
    said = config.model_dump(mode="json", exclude={"name", "figures"})
    del said["sweep"]["max_points"]
    own = {name: load_measure(name).source for name in config.measures if ":" in name}
    return said | {"own_measures": own, "precision": str(jax.dtypes.canonicalize_dtype(float))}
