"""The verb: simulate many points, and stream what is measured into one store."""

import inspect
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
from jneuro.core.resources import Estimate, Part
from jneuro.core.types import Array, Key
from jneuro.simulators.base import Simulator
from jneuro.simulators.kinds import SIMULATORS, as_solver
from jneuro.simulators.paths import parameters
from jneuro.simulators.stimuli import Stimulus
from jneuro.sweeps.design import Points, as_design, design_points
from jneuro.sweeps.measures import as_measure, unwrapped
from jneuro.sweeps.problem import REASON, StimulusRecipe, SweepProblem, described, source_of
from jneuro.sweeps.program import NOT_FINITE, Group, fitting_program, local_devices, run_groups
from jneuro.sweeps.store import Labelled, Layout, SweepStore, open_sweep

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
    times: dict[str, Any] = {"duration": duration, "warmup": warmup, "record_every": record_every, "dt": dt}
    for name, value in times.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
            raise ValueError(f"{name} = {value!r} must be a number of milliseconds")
        times[name] = None if value is None else float(value)
    for name, value in (("measures", measures), ("keep", keep)):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{name} = {value!r} must be a list, as in [{value!r}]")
    chosen, solver, named = as_design(design, seeds), as_solver(solver), tuple(as_measure(m) for m in measures)
    said = {
        "simulator": described(simulator),
        "stimulus": described(stimulus),
        "solver": described(solver),
        "design": chosen.model_dump(mode="json", exclude={"max_points"}),
        "measures": [m.name for m in named],
        "keep": list(keep),
        "key": jax.random.key_data(require_key(key)).tolist(),
        **times,
    }
    problem = SweepProblem(
        simulator=simulator,
        stimulus=_recipe(stimulus),
        design=chosen,
        solver=solver,
        measures=named,
        keep=tuple(keep),
        key=key,
        name=type(simulator).__name__,
        said=said,
        **times,
    )
    how = {"process": process, "processes": processes, "devices": devices, "memory": memory, "progress": progress}
    if path is not None:
        return run_sweep(problem, path, **how)
    with tempfile.TemporaryDirectory() as folder:
        found = run_sweep(problem, Path(folder) / "sweep.zarr", **how)
        return None if found is None else found.load()


def _recipe(stimulus: Any) -> StimulusRecipe | None:
    """How the stimulus of a point is built."""
    if stimulus is None:
        return None
    if isinstance(stimulus, Stimulus):
        return StimulusRecipe(lambda key, values: stimulus, (), type(stimulus).__name__, source_of(stimulus))
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
    return StimulusRecipe(make, names, unwrapped(stimulus).__name__, source_of(stimulus))


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
    devices = local_devices() if devices is None else devices
    _check_arguments(problem, path, devices, {"process": process, "processes": processes, "memory": memory})
    path, points = Path(path), design_points(problem.design, problem.key)
    if not path.exists():
        about = f"what is kept of {points.count:,} points"
        less = "keep fewer traces, record less often, or take fewer points"
        Estimate((Part("sweep", about, less, disk=points.count * problem.kept_bytes),)).require_disk(path)
    layout, lanes = _layout(points, problem)
    store = SweepStore(path, layout, _quantities(problem), _coords(points, problem), problem.provenance)
    mine = range(process, layout.chunks, processes)
    with showing(progress) as shown:
        _compute(store, mine, points, problem, lanes, tuple(devices), memory, shown)
    if not all(store.done(chunk) for chunk in range(layout.chunks)):
        return None
    store.tidy()
    return open_sweep(path)


def _check_arguments(problem: Any, path: Any, devices: Any, counts: Mapping[str, Any]) -> None:
    """Refuse what is no sweep, no path, no device or no number."""
    if not isinstance(problem, SweepProblem):
        said = f"problem must be a SweepProblem, got {type(problem).__name__}"
        raise ValueError(f"{said}; that of a SweepConfig is config.problem(), and `sweep` takes objects")
    if not isinstance(path, str | Path):
        raise ValueError(f"path = {path!r} must be a path, where the store is or will be")
    if not isinstance(devices, Sequence) or not devices or not all(isinstance(d, jax.Device) for d in devices):
        raise ValueError(f"devices = {devices!r} must be a list of devices, such as jax.devices()")
    for name, value in counts.items():
        least = 0 if name == "process" else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least):
            raise ValueError(f"{name} = {value!r} must be a whole number, {least} or more")
    if counts["process"] >= counts["processes"]:
        raise ValueError(f"process = {counts['process']} must be less than processes = {counts['processes']}")


def _compute(
    store: SweepStore,
    mine: range,
    points: Points,
    problem: SweepProblem,
    lanes: int,
    devices: Sequence[Any],
    memory: int | None,
    progress: Progress,
) -> None:
    """Compute the chunks that are missing or damaged, and write every one when its last group is there."""
    sizes = {chunk: len(store.layout.points(chunk)) for chunk in mine}
    there = {chunk: failures for chunk in mine if (failures := store.failures(chunk)) is not None}
    missing = [chunk for chunk in mine if chunk not in there]
    if not missing:
        return
    done, failed = sum(sizes[chunk] for chunk in there), sum(there.values())
    with progress.begin("sweep", sum(sizes.values()), "points", done) as task:
        task.update(text="compiling", failed=failed)
        groups = [group for chunk in missing for group in _groups(points, store.layout, chunk, lanes)]
        most = -(-len(groups) // len(devices))
        if devices[0].platform == "cpu":
            # More groups than a chunk has take longer, and no more of them at once.
            most = min(most, -(-sizes[missing[0]] // lanes))
        budget = memory or available_memory(devices[0], len(devices))
        program = fitting_program(problem, lanes, most, devices, budget)
        task.update(done, sum(sizes.values()), text="")  # from here on speed counts
        parts: list[dict[str, np.ndarray]] = []
        for group, found in run_groups(program, groups):
            parts.append({name: np.array(x) for name, x in found.items()})  # a view would keep the whole batch
            if group.first + group.count == sizes[group.chunk]:
                store.write(group.chunk, {name: np.concatenate([p[name] for p in parts]) for name in found})
                parts.clear()
            done, failed = done + group.count, failed + int(np.count_nonzero(~found["ok"]))
            task.update(done, failed=failed)


def _groups(points: Points, layout: Layout, chunk: int, lanes: int) -> Iterator[Group]:
    """Cut a chunk into groups; what is missing in the last one repeats its last point."""
    indices = layout.points(chunk)
    for first in range(0, len(indices), lanes):
        some = indices[first : first + lanes]
        padded = np.concatenate([some, np.repeat(some[-1:], lanes - len(some))])
        index, seed = np.divmod(padded, points.seeds)
        seed = seed if points.seed is None else points.seed[index]
        yield Group(chunk, first, len(some), index.astype(np.int32), seed.astype(np.int32), points.values[index])


def _layout(points: Points, problem: SweepProblem) -> tuple[Layout, int]:
    """How points are cut into chunks, and how many of them are computed side by side: functions of the design alone."""
    design, neurons = problem.design, sum(problem.populations.values())
    wide = design.lanes or min(_SIDE_BY_SIDE // neurons, _RECORDED // max(problem.recorded_bytes, 1), 256)
    wide = max(1, wide)
    wanted = design.chunk or max(1, min(max(wide, points.count // _CHUNKS), _KEPT // max(problem.kept_bytes, 1)))
    layout = Layout.cut(points.dims, wanted)
    size = int(np.prod(layout.block))
    return layout, design.lanes or -(-size // -(-size // wide))


def _quantities(problem: SweepProblem) -> Labelled:
    """What is stored of every point, with units and meanings."""
    about: dict[str, Any] = {"ok": {"long_name": "whether nothing was raised and all that was recorded is finite"}}
    for measure in problem.measures:
        about[measure.name] = {"units": measure.unit, "long_name": measure.doc}
        if measure.meanings:  # as climate data name flags
            names = " ".join(name.replace(" ", "_") for name in measure.meanings)
            about[measure.name] |= {"flag_values": [*range(len(measure.meanings))], "flag_meanings": names}
    for name, recordable in problem.simulator.recordables.items():
        if name in problem.keep:
            about[f"{name}_trace"] = {"units": recordable.unit, "long_name": recordable.doc}
    found = {}
    for name, like in problem.like.items():
        dims = tuple(f"{name}_{k}" for k in range(len(like.shape)))
        if name == "population_rates":
            dims = ("population",)
        elif name.removesuffix("_trace") in problem.keep and name.endswith("_trace"):
            dims = ("time", *(("neuron",) if len(like.shape) == 2 else dims[1:]))
        found[name] = (dims, like, about.get(name, {}))
    said = {"long_name": f"why a point failed: '{NOT_FINITE}', or what was raised; empty where it did not"}
    return found | {REASON: ((), np.zeros((), np.dtypes.StringDType()), said)}


def _coords(points: Points, problem: SweepProblem) -> Labelled:
    """The labels: values of the axes, and what a quantity's own dimensions are."""
    declared, recordables = parameters(problem.simulator), problem.simulator.recordables
    coords: dict[str, Any] = {}
    for name, values in points.coords.items():
        attributes: dict[str, Any] = {"role": "axis"}
        if name in problem.targets:
            times, targets = problem.design.varied[name].times, problem.targets[name]
            attributes |= {"target": ", ".join(map(".".join, targets)), "times": times}
            where, path = targets[0]
            if where == "simulator":
                attributes |= {"units": declared[path].unit if times == 1 else "1", "long_name": declared[path].doc}
            elif path == "amplitude" and times == 1 and "current" in recordables:
                attributes |= {"units": recordables["current"].unit}
        coords[name] = ((name if name in points.dims else "point",), values, attributes)
    if problem.keep:
        steps = problem.recording.record_every * np.arange(1, problem.recording.frames + 1)
        time = problem.warmup + steps * problem.recording.step
        coords["time"] = (("time",), time, {"role": "axis", "units": "ms"})
    if "population_rates" in [measure.name for measure in problem.measures]:
        names = [name.replace(" ", "_") for name in problem.populations]
        flags = {"flag_values": [*range(len(names))], "flag_meanings": " ".join(names)}
        coords["population"] = (("population",), np.arange(len(names)), {"role": "axis", **flags})
    return coords
