"""The verb: simulate many points, and stream what is measured into one store."""

import functools
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from jneuro.core.devices import available_memory
from jneuro.core.progress import Progress, showing
from jneuro.core.random import require_key
from jneuro.core.registry import accepted
from jneuro.core.types import Array, Key
from jneuro.simulators.base import Simulator
from jneuro.simulators.kinds import SIMULATORS, as_solver
from jneuro.simulators.paths import parameters
from jneuro.simulators.stimuli import Stimulus
from jneuro.sweeps.batches import NOT_FINITE, run_groups
from jneuro.sweeps.design import Points, as_design, design_points
from jneuro.sweeps.measures import as_measure
from jneuro.sweeps.problem import Drawn, Fixed, Recipe, SweepProblem, described, source_of, targets_of
from jneuro.sweeps.program import REASON, Group, PointProgram, fitting_program, local_devices
from jneuro.sweeps.store import Layout, Quantity, SweepStore, open_sweep

__all__ = ["run_sweep", "sweep"]

_CHUNKS = 256
"""Chunks of a large design."""
_SIDE_BY_SIDE = 4096
"""Neurons of all points that are computed side by side."""
_RECORDED = 256 << 20
"""Recorded values of these points [byte]."""
_KEPT = 64 << 20
"""Results of a chunk [byte]."""


def sweep(
    simulator: Simulator,
    design: Any,
    stimulus: Stimulus | Callable[..., Stimulus] | None = None,
    *,
    duration: float,
    key: Key[Array, ""],
    measures: Sequence[Any] = (),
    keep: Sequence[str] = (),
    seeds: int | None = None,
    dt: float | None = None,
    solver: Any = None,
    record_every: float | None = None,
    warmup: float = 0.0,
    path: Path | str | None = None,
    process: int = 0,
    processes: int = 1,
    devices: Sequence[Any] | None = None,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> xr.Dataset | None:
    """Simulate at many points of parameters, stimuli and seeds, and keep what is measured of each.

    Args:
        simulator: what is simulated, not yet connected: every point draws its own network.
        design: path to values, such as `{"g": [3, 4], "stimulus.amplitude": [0, 5, 10]}`, whose combinations are the
            points; a DataFrame, or `zipped({...})`, whose rows are the points; or a `DesignConfig`, for random and
            Sobol designs.
        stimulus: what drives it; or a function of `key`, and perhaps further arguments that are varied, which returns
            the stimulus of a point, such as `partial(WhiteNoise, sd=1, hold=1, duration=100)`.
        duration: recorded time [ms].
        key: random key; every point, and every seed, derives its own.
        measures: what is computed of every point's recording: names of `MEASURES`, and functions of one's own.

    Other Args:
        keep: recorded quantities whose raw traces are stored, as `v_trace`.
        seeds: repetitions of every point, each with random numbers of its own; 1 by default.
        dt: time step of an ODE simulator [ms]; by default its own.
        solver: how to integrate an ODE: a solver, or its name; by default the simulator's own.
        record_every: time between recorded frames [ms]; by default every step.
        warmup: time simulated first and not recorded [ms].
        path: where the results are stored while they come, so that a sweep that was killed goes on; by default they
            are only in memory.
        process: which one this is of several that write the store.
        processes: how many there are.
        devices: which devices are used; by default all of this process.
        memory: most memory of a device that may be used [byte]; by default half of what is free.
        progress: where it is shown how far the sweep is: None shows sweeps that last longer than 2 s, on a terminal and
            in a notebook; True always, elsewhere as lines; False never; or a `Progress` of one's own.

    Returns:
        What was measured, labelled by the axes; see `open_sweep`. None while chunks of other processes are missing.

    Raises:
        ValueError: for a bad argument, or a function of one's own that cannot be computed, before anything else is.
        StoreError: if the path holds something else, or a sweep of another design or of other code.
        SweepMemoryError: if not even the smallest batch fits.

    Example:
        ```python
        table = jn.sweep(
            jn.simulators.HodgkinHuxley(),
            {"g_k": jnp.linspace(20, 50, 31), "stimulus.amplitude": jnp.arange(5.0, 20)},
            jn.stimuli.Constant(0),
            duration=500,
            measures=["rate", lambda recording: recording["v"].max()],
            key=jax.random.key(0),
        )
        table.rate.sel(g_k=36, amplitude=10, method="nearest")
        ```
    """
    SIMULATORS.require(simulator)
    if inspect.isclass(simulator) or inspect.isroutine(simulator):
        raise ValueError(f"simulator = {simulator.__name__} must be an object; call it, as in {simulator.__name__}()")
    chosen, driven = as_design(design, seeds), _drawn(stimulus)
    times = {"duration": duration, "warmup": warmup, "record_every": record_every, "dt": dt}
    for name, value in times.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
            raise ValueError(f"{name} = {value!r} must be a number of milliseconds")
    for name, value in (("measures", measures), ("keep", keep)):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{name} = {value!r} must be a list, as in [{value!r}]")
    solver, named = as_solver(solver), tuple(as_measure(m) for m in measures)
    said = {
        "simulator": described(simulator),
        "stimulus": described(stimulus),
        "solver": described(solver),
        "design": chosen.model_dump(mode="json", exclude={"max_points"}),
        "measures": [m.name for m in named],
        "keep": list(keep),
        "key": jax.random.key_data(require_key(key)).tolist(),
        **{name: None if value is None else float(value) for name, value in times.items()},
    }
    problem = SweepProblem(
        simulator=simulator,
        stimulus=driven,
        design=chosen,
        targets=targets_of(chosen, simulator, driven),
        duration=float(duration),
        warmup=float(warmup),
        record_every=None if record_every is None else float(record_every),
        dt=None if dt is None else float(dt),
        solver=solver,
        measures=named,
        keep=tuple(keep),
        key=key,
        name=type(simulator).__name__,
        said=said,
    )
    how = {"process": process, "processes": processes, "devices": devices, "memory": memory, "progress": progress}
    if path is not None:
        return run_sweep(problem, path, **how)
    with tempfile.TemporaryDirectory() as folder:
        found = run_sweep(problem, Path(folder) / "sweep.zarr", **how)
        return None if found is None else found.load()


def _drawn(stimulus: Any) -> Drawn | None:
    """How the stimulus of a point comes about."""
    if stimulus is None:
        return None
    if isinstance(stimulus, Stimulus):
        return Fixed(stimulus, type(stimulus).__name__)
    if not callable(stimulus) or "key" not in accepted(stimulus):
        raise ValueError(
            f"stimulus = {stimulus!r} must be a stimulus, such as stimuli.Constant(10.0), or a function of a key that "
            "returns one"
        )

    def make(key: Key[Array, ""], values: Mapping[str, Any]) -> Stimulus:
        found = stimulus(key=key, **values)
        if not isinstance(found, Stimulus):
            raise ValueError(f"stimulus: {stimulus!r} returned {found!r}, not a stimulus")
        return found

    names = tuple(n for n in accepted(stimulus) if n != "key")
    made = stimulus.func if isinstance(stimulus, functools.partial) else stimulus
    return Recipe(make, names, made.__name__, source_of(stimulus))


def run_sweep(
    problem: SweepProblem,
    path: Path | str,
    *,
    process: int = 0,
    processes: int = 1,
    devices: Sequence[Any] | None = None,
    memory: int | None = None,
    progress: Progress | bool | None = None,
) -> xr.Dataset | None:
    """Simulate every point of a sweep, and stream what is measured into one store; go on with what is there.

    Results depend on the design alone: not on the number of devices or processes, the size of a batch, or how often
    the sweep was killed; on a CPU the finished store is the same to the last byte. A point that leaves the finite
    numbers, or for which a function on the host raises (`eqx.error_if`, a callback), has `ok=False`, floats that are
    NaN and a `reason`, and stops nothing.

    Args:
        problem: the sweep; that of a configuration is `SweepConfig.problem()`.
        path: the store, which is made unless it is there.
        process: which one this is of several that write the store; each computes every `processes`-th chunk. They
            need not run at the same time, nor know of each other.
        processes: how many there are.
        devices: which devices are used; by default all of this process.
        memory: most memory of a device that may be used [byte]; by default half of what is free.
        progress: where it is shown how far the sweep is: None shows sweeps that last longer than 2 s, on a terminal and
            in a notebook; True always, elsewhere as lines; False never; or a `Progress` of one's own.

    Returns:
        The results, opened lazily (see `open_sweep`); None while chunks of other processes are missing.

    Raises:
        StoreError: if the folder holds something else, or a sweep of another design.
        ValueError: if a function of one's own cannot be computed, before anything else is.
        SweepMemoryError: if not even the smallest batch fits.
    """
    if not 0 <= process < processes:
        raise ValueError(f"process = {process} must be at least 0 and less than processes = {processes}")
    points, point = design_points(problem.design, problem.key), PointProgram(problem)
    layout, lanes = _layout(points, point)
    _require_room(Path(path), points, point)
    store = SweepStore.create(Path(path), layout, _quantities(point), _coords(points, point), problem.provenance)
    chosen = tuple(devices) if devices is not None else local_devices()
    mine = range(process, layout.chunks, processes)
    with showing(progress) as shown:
        _compute(store, points, point, lanes, mine, chosen, memory, shown)
    if not all(store.done(chunk) for chunk in range(layout.chunks)):
        return None
    store.tidy()
    return open_sweep(path)


def _compute(
    store: SweepStore,
    points: Points,
    point: PointProgram,
    lanes: int,
    mine: range,
    devices: Sequence[Any],
    memory: int | None,
    progress: Progress,
) -> None:
    """Compute the chunks that are missing."""
    layout = store.layout
    missing = [chunk for chunk in mine if not store.done(chunk)]
    there = sorted(set(mine) - set(missing))
    total = sum(len(layout.points(chunk)) for chunk in mine)
    done, failed = sum(len(layout.points(c)) for c in there), sum(store.failures(c) for c in there)
    if not missing:
        return
    with progress.begin("sweep", total, "points", done) as task:
        task.update(text="compiling", failed=failed)
        groups = [group for chunk in missing for group in _groups(points, layout, chunk, lanes)]
        most = -(-len(groups) // len(devices))
        if devices[0].platform == "cpu":
            # More groups than a chunk has take longer, and no more of them at once.
            most = min(most, -(-len(layout.points(missing[0])) // lanes))
        program = fitting_program(point, lanes, most, devices, memory or available_memory(devices[0], len(devices)))
        task.update(text="")
        for count, bad in _write(store, run_groups(program, groups)):
            done, failed = done + count, failed + bad
            task.update(done, failed=failed)


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


def _require_room(path: Path, points: Points, point: PointProgram) -> None:
    """Refuse results that do not fit on the disk, before anything is laid out."""
    above = next(p for p in path.resolve().parents if p.exists())
    need = points.count * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(point.like))
    free = shutil.disk_usage(above).free
    if not path.exists() and need > free:
        raise ValueError(
            f"{path}: the results of {points.count:,} points need up to {need / 2**30:,.1f} GiB, of "
            f"{free / 2**30:,.1f} GiB that are free; keep fewer traces, record less often, or take fewer points"
        )


def _layout(points: Points, point: PointProgram) -> tuple[Layout, int]:
    """How points are cut into chunks, and how many of them are computed side by side: functions of the design alone."""
    design, neurons = point.problem.design, sum(point.problem.populations.values())
    wide = design.lanes or min(_SIDE_BY_SIDE // neurons, _RECORDED // max(point.recorded_bytes, 1), 256)
    wide = max(1, wide)
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(point.like))
    wanted = design.chunk or max(1, min(max(wide, points.count // _CHUNKS), _KEPT // max(kept, 1)))
    layout = Layout.cut(points.dims, wanted)
    size = int(np.prod(layout.block))
    return layout, design.lanes or -(-size // -(-size // wide))


def _quantities(point: PointProgram) -> dict[str, Quantity]:
    """What is stored of every point, with units and meanings."""
    problem = point.problem
    about = {measure.name: measure for measure in problem.measures}
    recordables = problem.simulator.recordables
    found = {}
    for name, like in point.like.items():
        dims = tuple(f"{name}_{k}" for k in range(len(like.shape)))
        attributes: dict[str, Any] = {}
        if name == "ok":
            attributes = {"long_name": "whether nothing was raised and all that was recorded is finite"}
        elif name == "population_rates":
            dims = ("population",)
        if (plain := name.removesuffix("_trace")) in problem.keep and plain != name:
            dims = ("time", *(("neuron",) if len(like.shape) == 2 else dims[1:]))
            attributes = {"units": recordables[plain].unit, "long_name": recordables[plain].doc}
        elif name in about:
            attributes = {"units": about[name].unit, "long_name": about[name].doc}
            if about[name].meanings:
                attributes["meanings"] = list(about[name].meanings)
        found[name] = Quantity(tuple(like.shape), np.dtype(like.dtype), dims, attributes)
    said = {"long_name": f"why a point failed: '{NOT_FINITE}', or what was raised; empty where it did not"}
    return found | {REASON: Quantity((), np.dtypes.StringDType(), (), said)}


def _coords(points: Points, point: PointProgram) -> dict[str, Any]:
    """The labels: values of the axes, and what a quantity's own dimensions are."""
    problem = point.problem
    declared, recordables = parameters(problem.simulator), problem.simulator.recordables
    coords: dict[str, Any] = {}
    for name, values in points.coords.items():
        attributes: dict[str, Any] = {"role": "axis"}
        if name in problem.targets:
            target, times = problem.targets[name], problem.design.varied[name].times
            where, _, argument = target[0].partition(".")
            attributes |= {"target": ", ".join(target), "times": times}
            if where == "simulator":
                unit = declared[argument].unit if times == 1 else "1"
                attributes |= {"units": unit, "long_name": declared[argument].doc}
            elif argument == "amplitude" and times == 1 and "current" in recordables:
                attributes |= {"units": recordables["current"].unit}
        coords[name] = ((name if name in points.dims else "point",), values, attributes)
    if problem.keep:
        recording = point.recording
        steps = recording.record_every * np.arange(1, recording.frames + 1)
        coords["time"] = (("time",), problem.warmup + steps * recording.step, {"role": "axis", "units": "ms"})
    if "population_rates" in [measure.name for measure in problem.measures]:
        meaning = {str(k): name for k, name in enumerate(problem.populations)}
        coords["population"] = (("population",), np.arange(len(meaning)), {"role": "axis", "meaning": meaning})
    return coords
