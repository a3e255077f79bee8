"""From a simulator to a recording."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jneuro.core.devices import require_memory
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Key, PyTree
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Simulator, state_variables, step_count
from jneuro.simulators.integration import (
    ODEState,
    begin,
    cells_of,
    erred,
    integrate,
    require_integrable,
    too_coarse,
)
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.paths import draw, resolve
from jneuro.simulators.solvers import RK4
from jneuro.simulators.spiking import Exact, Surrogate
from jneuro.simulators.spiking import spike_gradient as differentiating_spikes
from jneuro.simulators.stepped import SteppedSimulator, advance_blocks, begin_stepped
from jneuro.simulators.stepping import Frames, finite
from jneuro.simulators.stimuli import Sampled, Stimulus, draw_outside_loops

__all__ = ["SimulationError", "first_state", "recorded_bytes", "simulate", "simulate_many"]

_NOT_FINITE = (
    "the simulation left the finite numbers: a parameter, a stimulus or the time step is too large for the scheme, "
    "or an adaptive solver used up its steps"
)
_FLAG = "simulate(..., throw=False) returns the recording with its `ok` flag"
_NOT_OK = f"{_NOT_FINITE}; or the time step is too coarse, for how fast a variable relaxes or a step errs; {_FLAG}"


class SimulationError(FloatingPointError):
    """A simulated value is not finite, or the time step was too coarse."""

    outcome = "failed"


def simulate(
    simulator: SteppedSimulator | ODESimulator,
    stimulus: Stimulus | None = None,
    *,
    duration: float,
    key: Key[Array, ""],
    dt: float | None = None,
    solver: Any = None,
    record: Sequence[str] | None = None,
    record_every: float | None = None,
    warmup: float = 0.0,
    initial_state: PyTree | None = None,
    spike_gradient: Surrogate | Exact | None = None,
    checkpoint: int | None = None,
    throw: bool = True,
) -> Recording:
    """Simulate, and record on the way; pure, jittable, and batched by the caller's `jax.vmap`.

    Args:
        simulator: what to simulate; a network, or one with a number that is drawn, must be connected
            (`simulator.connect(key)`).
        stimulus: what drives it, in the simulator's unit; numbers in it that are drawn are drawn from `key`.
        duration: recorded time [ms].
        key: random key of the run. Randomness is drawn by absolute step: a run cut into pieces (`initial_state`) and
            continued with the same key equals the whole.

    Other Args:
        dt: time step [ms]; an ODE simulator has a default for its default solver. Stepped simulators own theirs.
        record: names of what to record, of `simulator.recordables`; by default `simulator.default_record`.
        record_every: time between two recorded frames [ms]; by default every step is recorded. States are sampled at a
            frame's end, spikes are summed over it.
        warmup: time simulated first and not recorded [ms].
        initial_state: a state to start from: the `final_state` of a recording, or the simulator's bare state.
        solver: how to integrate an ODE, see `jneuro.simulators.solvers`; stepped simulators bring their own scheme.
        spike_gradient: what stands for the derivative of a spike, such as `SuperSpike(scale=0.01)`; or `Exact()`, which
            locates the spikes of cells within steps; by default spikes are booleans and carry no gradient.
        checkpoint: in reverse mode, keep states only every so many frames and recompute between them; bounds memory.
        throw: raise if a value is not finite, or the time step was too coarse for what happened; otherwise the
            recording's `ok` says so.

    Returns:
        The recording, with the final state.

    Raises:
        ValueError: for a bad argument, before anything is compiled.
        SimulationError: if the recording is not `ok` and `throw` is set; inside `jit` or `vmap`, equinox's run-time
            error.

    Example:
        ```python
        cell = jn.simulators.HodgkinHuxley()
        recording = jn.simulate(cell, jn.stimuli.Step(10.0, onset=50.0), duration=500.0, key=jax.random.key(0))
        recording.values["v"]  # [time]
        ```
    """
    require_key(key)
    _require_instances(simulator, stimulus)
    simulator, stimulus = resolve(simulator), resolve(draw(stimulus, stream(key, "stimulus")))
    solver, dt = _scheme(simulator, solver, dt, spike_gradient)
    if not isinstance(spike_gradient, Surrogate | Exact | None):
        raise ValueError(
            f"spike_gradient = {spike_gradient!r} must be a Surrogate, such as SuperSpike(), or Exact(), or None"
        )
    if isinstance(simulator, ODESimulator):
        require_integrable(simulator, stimulus, solver, dt, initial_state, spike_gradient)
    elif isinstance(spike_gradient, Exact):
        raise ValueError(f"spike_gradient = Exact() is for cells; {type(simulator).__name__} takes a Surrogate")
    frames = _frames(simulator, dt, duration, record, record_every, warmup, checkpoint)
    less = "record less (record=['spikes']), less often (record_every=), or simulate in pieces (initial_state=)"
    about = f"{frames.count:,} frames of {', '.join(frames.names)}"
    require_memory(about, recorded_bytes(simulator, stimulus, frames, initial_state), less)
    _warn_of_silence(stimulus, frames, initial_state)
    recording, coarse = _simulate(simulator, stimulus, key, initial_state, solver, spike_gradient, frames)
    return _require_ok(recording, lambda: _fault(simulator, solver, dt, recording, coarse)) if throw else recording


def _require_instances(simulator: Any, stimulus: Any) -> None:
    """Refuse a class in place of an object, and a number or an array in place of a stimulus."""
    if isinstance(simulator, type):
        raise ValueError(f"simulator = {simulator.__name__} is a class; make an object of it: {simulator.__name__}()")
    if not isinstance(simulator, SteppedSimulator | ODESimulator):
        raise ValueError(f"simulator = {simulator!r} must be an ODESimulator or a SteppedSimulator")
    for one in stimulus.values() if isinstance(stimulus, Mapping) else [stimulus]:
        if isinstance(one, type):
            raise ValueError(f"stimulus = {one.__name__} is a class; make an object of it: {one.__name__}(...)")
        if isinstance(one, Stimulus | None):
            continue
        remedy = "Constant(x) for a constant one, Sampled(x, dt) for samples, the first axis being time"
        if isinstance(one, jax.Array | np.ndarray | float | int | list | tuple):
            raise ValueError(f"stimulus must be one of jneuro.simulators.stimuli, got {one!r}; take {remedy}")
        raise ValueError(f"stimulus = {one!r} must be one of jneuro.simulators.stimuli: {remedy}")


def _number(name: str, value: Any) -> float:
    """A number that is known before anything is compiled."""
    if isinstance(value, Tracer):
        raise ValueError(f"{name} must be known when the program is compiled; pass a number, not a traced array")
    if isinstance(value, str | bool | complex | None) or np.ndim(value):
        raise ValueError(f"{name} = {value!r} must be a number [ms]")
    return float(value)


def simulate_many(
    simulator: SteppedSimulator | ODESimulator,
    stimulus: Stimulus | None = None,
    *,
    key: Key[Array, "*run"],
    batched: Sequence[str] = (),
    initial_state: PyTree | None = None,
    devices: Sequence[Any] | None = None,
    throw: bool = True,
    **how: Any,
) -> Recording:
    """Simulate many runs side by side, in one program: the place where `simulate` is batched.

    Args:
        simulator: of all runs, or of each.
        stimulus: of all runs, or of each.
        key: one a run, or one of all.
        batched: which of `simulator`, `stimulus` and `initial_state` have a value for each run: every array in them
            then has a leading axis. Of `key` it is seen.

    Other Args:
        initial_state: of all runs, or of each; as for `simulate`.
        devices: among which the runs are divided, in equal parts; by default they stay where they are. The last bit of
            a result may depend on how many runs a device computes side by side.
        throw: raise if a run is not `ok`; otherwise the recording's `ok`, one a run, says so.
        how: further arguments of `simulate`, the same for all.

    Returns:
        A recording, every array of which has a leading axis of runs.

    Raises:
        ValueError: if nothing has an axis of runs, or they do not agree in their number, or cannot be divided.
        SimulationError: if a run is not `ok`, and `throw` is set.

    Example:
        ```python
        keys = jax.random.split(jax.random.key(0), 8)
        runs = jn.simulate_many(network, key=keys, duration=500.0, record_every=1.0)
        runs.values["spikes"]  # [run, time, neuron]
        ```
    """
    given = {"simulator": simulator, "stimulus": stimulus, "initial_state": initial_state, "key": key}
    known = ("simulator", "stimulus", "initial_state")
    if unknown := [n for n in batched if n not in known]:
        raise ValueError(f"batched: {unknown[0]!r} must be one of {', '.join(known)}")
    names = (*batched, "key") if key.ndim else tuple(batched)
    sizes = {n: {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(given[n]) if eqx.is_array(x)} for n in names}
    counts = set().union(*sizes.values())
    if len(counts) != 1 or 0 in counts:
        seen = ", ".join(f"{n}: {sorted(s)}" for n, s in sizes.items()) or "none"
        raise ValueError(f"the runs must agree in their number, the length of every array's first axis, got {seen}")
    if devices is not None:
        if (runs := counts.pop()) % len(devices):
            raise ValueError(f"{runs} runs cannot be divided among {len(devices)} devices in equal parts")
        mesh = Mesh(np.array(devices), ("run",), axis_types=(AxisType.Auto,))
        split, whole = NamedSharding(mesh, PartitionSpec("run")), NamedSharding(mesh, PartitionSpec())
        for name, value in given.items():
            arrays, rest = eqx.partition(value, eqx.is_array)
            given[name] = eqx.combine(jax.device_put(arrays, split if name in names else whole), rest)
    axes = {n: eqx.if_array(0) if n in names else None for n in given}

    def one(given):
        arguments = (given["simulator"], given["stimulus"])
        return simulate(*arguments, key=given["key"], initial_state=given["initial_state"], **how, throw=False)

    batch = eqx.filter_vmap(one, in_axes=(axes,))
    recording = (batch if devices is None else eqx.filter_jit(batch))(given)

    def fault():
        bad = int(np.argmin(np.asarray(recording.ok)))
        first = eqx.tree_at(lambda r: r.values, recording, jax.tree.map(lambda x: x[bad], recording.values))
        return f"run {bad}: {_where(first) or 'final state, or dt'}: {_NOT_OK}"

    return _require_ok(recording, fault) if throw else recording


def first_state(
    simulator: SteppedSimulator | ODESimulator,
    key: Key[Array, ""],
    *,
    stimulus: Stimulus | None = None,
    dt: float | None = None,
    solver: Any = None,
) -> PyTree:
    """Draw the state in which `simulate` starts a run.

    Args:
        simulator: what will be simulated.
        key: the run's key.
        stimulus: what will drive it; an ODE simulator's population may be as large as the stimulus.
        dt: the time step, as for `simulate`.
        solver: the solver, as for `simulate`.

    Returns:
        The state.
    """
    simulator = resolve(simulator)
    if isinstance(simulator, ODESimulator):
        stimulus = resolve(draw(stimulus, stream(key, "stimulus")))
        return begin(simulator, stimulus, stream(key, "init"), None, *_scheme(simulator, solver, dt))
    return begin_stepped(simulator, stream(key, "init"), None)


def _scheme(
    simulator: SteppedSimulator | ODESimulator, solver: Any, dt: float | None, gradient: Any = None
) -> tuple[Any, float]:
    """The solver and the time step, where the caller leaves them open."""
    name = type(simulator).__name__
    if isinstance(simulator, ODESimulator):
        dt = _number("dt", simulator.default_dt if dt is None else dt)
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"dt = {dt} ms must be positive")
        default = RK4() if isinstance(gradient, Exact) else simulator.default_solver
        return default if solver is None else solver, dt
    if dt is not None and dt != simulator.dt:
        raise ValueError(f"dt = {dt} ms, but {name} steps by its own dt = {simulator.dt} ms; build it with dt={dt}")
    if solver is not None:
        raise ValueError(f"{name} brings its own scheme and takes no solver")
    return None, simulator.dt


def _frames(simulator: Simulator, dt: float, duration, record, record_every, warmup, checkpoint) -> Frames:
    """What is recorded, and when."""
    known, name = simulator.recordables, type(simulator).__name__
    if not isinstance(record, str | Sequence | None):
        raise ValueError(f"record = {record!r} must be names of what {name} records: {', '.join(known)}")
    names = simulator.default_record if record is None else (record,) if isinstance(record, str) else tuple(record)
    if unknown := [n for n in names if n not in known]:
        part = ", of all neurons; take those that you want from recording.values" if "[" in str(unknown[0]) else ""
        raise ValueError(f"{name} cannot record {unknown[0]!r}; it records {', '.join(known)}{part}")
    if checkpoint is not None and (isinstance(checkpoint, bool) or not isinstance(checkpoint, int | np.integer)):
        raise ValueError(f"checkpoint = {checkpoint!r} must be a whole number of frames")
    if checkpoint is not None and checkpoint < 1:
        raise ValueError(f"checkpoint = {checkpoint!r} must be a positive whole number")
    every = 1 if record_every is None else step_count(_number("record_every", record_every), dt, "record_every")
    steps, before = (step_count(_number(n, x), dt, n) for n, x in (("duration", duration), ("warmup", warmup)))
    if every < 1:
        raise ValueError(f"record_every = {record_every} ms must be at least the time step, {dt:g} ms")
    if steps < 1 or steps % every:
        raise ValueError(
            f"duration = {duration} ms must be a positive multiple of record_every = {every * dt:g} ms, the time "
            "between two recorded frames"
        )
    if before < 0:
        raise ValueError(f"warmup = {warmup} ms must not be negative")
    if before + steps > _MOST_STEPS:
        raise ValueError(
            f"duration = {duration} ms is {before + steps:,} steps of {dt:g} ms, and at most {_MOST_STEPS:,}; take "
            "a shorter one"
        )
    records = tuple((n, known[n]) for n in names)
    return Frames(records, steps // every, every, before, None if checkpoint is None else int(checkpoint), dt)


def recorded_bytes(simulator: Simulator, stimulus: Any, frames: Frames, start: Any = None) -> int:
    """What a run keeps of what it records [byte], of the numbers of the precision in force.

    Args:
        simulator: what is simulated.
        stimulus: what drives it; an ODE simulator's population may be as large as it.
        frames: what is recorded.
        start: the initial state, or None; likewise.
    """
    if isinstance(simulator, ODESimulator):
        cells = math.prod(cells_of(simulator, stimulus, start))
    else:
        cells = sum(cast(Any, simulator).populations.values())
    return frames.count * cells * len(frames.records) * jnp.result_type(float).itemsize


_MOST_STEPS = 2**31 - 1
"""Steps are counted in 32 bits."""


def _warn_of_silence(stimulus: Any, frames: Frames, start: Any) -> None:
    """Say where samples end before the run does, and the stimulus is zero from then on."""
    step = start.step if isinstance(start, ODEState) else 0
    sampled = [x for x in jax.tree.leaves(stimulus, is_leaf=lambda x: isinstance(x, Sampled)) if isinstance(x, Sampled)]
    for one in sampled:
        if any(isinstance(x, Tracer) for x in (one.onset, one.dt, step)):
            continue
        end, last = float(np.min(one.end)), (int(step) + frames.warmup + frames.count * frames.every) * frames.dt
        if end < last - 0.5 * max(frames.dt, float(np.max(one.dt))):
            shape = " of ".join(f"{n} {w}" for n, w in zip(one.values.shape, ("samples", "neurons"), strict=False))
            warnings.warn(
                f"the stimulus, {shape} every {float(np.max(one.dt)):g} ms (the first axis is time), ends at {end:g} "
                f"ms and is zero until the run's end at {last:g} ms; append zeros if it is meant so",
                stacklevel=3,
            )


def _require_ok(recording: Recording, fault: Callable[[], str]) -> Recording:
    """Raise if a run is not `ok`."""
    if isinstance(recording.ok, Tracer):
        return eqx.error_if(recording, ~recording.ok.all(), _NOT_OK)
    if not recording.ok.all():
        raise SimulationError(fault())
    return recording


def _fault(simulator, solver, dt: float, recording: Recording, coarse: Any) -> str:
    """What is wrong with a recording."""
    # While a derivative is taken, values are seen without their tangents.
    recording, coarse = lax.stop_gradient((recording, coarse))
    where = _where(recording)
    found = [] if where is None else [f"{where}: {_NOT_FINITE}"]
    if coarse is not None:
        when = f"at t = {int(coarse.step) * dt:g} ms"
        found += [s for s in [too_coarse(simulator, solver, dt, float(coarse.rate), when)] if s]
        found = found or [s for s in [erred(simulator, solver, dt, coarse)] if s]
    if not found and isinstance(simulator, ODESimulator) and not isinstance(recording.final_state.y[0], Tracer):
        found += [s for s in [_strayed(simulator, recording)] if s]
    return "; ".join([*(found or [f"final state: {_NOT_FINITE}"]), _FLAG])


_ASTRAY = 0.01
"""By which share of its bounds, or of 1, a variable may leave them by the error of a scheme."""


def _limits(simulator: ODESimulator) -> dict[str, tuple[float, float]]:
    """Between which values each variable must stay that has bounds."""
    found = {}
    for name, about in state_variables(simulator.State).items():
        low, high = about.bounds.low, about.bounds.high
        slack = _ASTRAY * (high - low if math.isfinite(high - low) else 1.0)
        if math.isfinite(low) or math.isfinite(high):
            found[name] = (low - slack, high + slack)
    return found


def _inside(simulator: ODESimulator, values: Mapping[str, Array], final: Any) -> Array:
    """Whether variables have stayed within the bounds that their class declares."""
    inside = jnp.asarray(True)
    for name, (low, high) in _limits(simulator).items():
        for x in [getattr(final, name), *([values[name]] if name in values else [])]:
            inside = inside & ~((x < low) | (x > high)).any()
    return inside


def _strayed(simulator: Any, recording: Recording) -> str | None:
    """Name the first variable that has left its bounds."""
    for name, (low, high) in _limits(simulator).items():
        every = np.asarray(recording.values.get(name, getattr(recording.final_state.y, name)))
        out = (every < low) | (every > high)
        if out.any():
            bounds = state_variables(simulator.State)[name].bounds
            return f"{name} = {every[out][0]:g} has left its bounds, {bounds}: the time step is too coarse"
    return None


def _where(recording: Recording) -> str | None:
    """Name the first value that is not finite."""
    found = []
    for name in recording.units:
        if isinstance(recording.values[name], Tracer):
            return "a value"
        bad = ~np.isfinite(np.asarray(recording.values[name], np.float64))
        if bad.any():
            found.append((*(int(i[0]) for i in np.nonzero(bad)[:2]), name))
    if not found:
        return None
    frame, *cell, name = min(found, key=lambda at: at[0])
    return f"{name}{f' of cell {cell[0]}' if cell else ''} at t = {recording.time[frame]:g} ms"


@eqx.filter_jit
def _simulate(simulator, stimulus, key, initial_state, solver, gradient, frames) -> tuple[Recording, Any]:
    """Start, hand over to the engine, and make a recording of what it returns."""
    stimulus, coarse = draw_outside_loops(stimulus), None
    if isinstance(simulator, ODESimulator):
        start = begin(simulator, stimulus, stream(key, "init"), initial_state, solver, frames.dt)
        final, values, ok, coarse = integrate(simulator, stimulus, start, solver, frames, gradient)
        ok = ok & _inside(simulator, values, final.y)
    else:
        with differentiating_spikes(gradient):
            start, ok = begin_stepped(simulator, stream(key, "init"), initial_state), True
            final, values = advance_blocks(simulator, stimulus, stream(key, "noise"), start, frames)
    # Engines count events in the smallest integers that hold them; arithmetic with these would wrap.
    counts = [n for n, about in frames.records if about.reduce == "sum" and values[n].dtype.kind == "u"]
    values |= {n: values[n].astype(jnp.int32) for n in counts}
    recording = Recording(
        values=values,
        ok=ok & finite((values, final)),
        first_step=start.step + frames.warmup,
        final_state=final,
        step=frames.dt,
        record_every=frames.every,
        frames=frames.count,
        unit_pairs=tuple((name, about.unit) for name, about in frames.records),
    )
    return recording, coarse
