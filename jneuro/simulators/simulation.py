"""From a simulator to a recording."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer

from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Key, PyTree
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Simulator, step_count
from jneuro.simulators.integration import begin, integrate, require_integrable
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.spiking import Surrogate
from jneuro.simulators.spiking import spike_gradient as differentiating_spikes
from jneuro.simulators.stepped import SteppedSimulator, begin_stepped
from jneuro.simulators.stepping import advance_blocks
from jneuro.simulators.stimuli import Stimulus, draw_outside_loops

__all__ = ["SimulationError", "first_state", "simulate"]

_NOT_FINITE = (
    "the simulation left the finite numbers: a parameter, a stimulus or the time step is too large for the scheme, "
    "or an adaptive solver used up its steps; "
    "simulate(..., throw=False) returns the recording with its `ok` flag"
)


class SimulationError(FloatingPointError):
    """A simulated value is not finite."""


def simulate(
    simulator: SteppedSimulator | ODESimulator,
    stimulus: Stimulus | None = None,
    *,
    duration: float,
    key: Key[Array, ""],
    dt: float | None = None,
    record: Sequence[str] | None = None,
    record_every: int = 1,
    warmup: float = 0.0,
    initial_state: PyTree | None = None,
    solver: Any = None,
    spike_gradient: Surrogate | None = None,
    checkpoint: int | None = None,
    throw: bool = True,
) -> Recording:
    """Simulate, and record on the way; pure, jittable, and batched by the caller's `jax.vmap`.

    Args:
        simulator: what to simulate; a network must be connected (`simulator.connect(key)`).
        stimulus: what drives it, in the simulator's unit.
        duration: recorded time [ms].
        key: random key of the run. Randomness is drawn by absolute step: a run cut into pieces (`initial_state`) and
            continued with the same key equals the whole.

    Other Args:
        dt: time step [ms]; an ODE simulator has a default for its default solver. Stepped simulators own theirs.
        record: names of what to record; all of `simulator.recordables` by default.
        record_every: steps in one recorded frame. States are sampled at its end, spikes are summed over it.
        warmup: time simulated first and not recorded [ms].
        initial_state: a state to start from: the `final_state` of a recording, or the simulator's bare state.
        solver: how to integrate an ODE, see `jneuro.simulators.solvers`; stepped simulators bring their own scheme.
        spike_gradient: what stands for the derivative of a spike, such as `SuperSpike(scale=0.01)`; by default spikes
            are booleans and carry no gradient.
        checkpoint: in reverse mode, keep states only every so many frames and recompute between them; bounds memory.
        throw: raise if a value is not finite; otherwise the recording's `ok` says so.

    Returns:
        The recording, with the final state.

    Raises:
        ValueError: for a bad argument, before anything is compiled.
        SimulationError: if a value is not finite and `throw` is set; inside `jit` or `vmap`, equinox's run-time error.
    """
    require_key(key)
    if not isinstance(spike_gradient, Surrogate | None):
        raise ValueError(f"spike_gradient = {spike_gradient!r} must be a Surrogate, such as SuperSpike(), or None")
    solver, dt = _scheme(simulator, solver, dt)
    names = _names(simulator, record)
    for argument, value in {"record_every": record_every, "checkpoint": checkpoint}.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{argument} = {value!r} must be a positive whole number")
    steps, before = step_count(duration, dt, "duration"), step_count(warmup, dt, "warmup")
    if steps < 1 or steps % record_every:
        raise ValueError(
            f"duration = {duration} ms is {steps} steps of {dt:g} ms, "
            f"which must be a positive multiple of record_every = {record_every}"
        )
    if before < 0:
        raise ValueError(f"warmup = {warmup} ms must not be negative")
    if isinstance(simulator, ODESimulator):
        require_integrable(simulator, stimulus, solver, dt, initial_state)
    recording = _simulate(
        simulator,
        stimulus,
        key,
        initial_state,
        solver,
        spike_gradient,
        dt=dt,
        names=names,
        frames=steps // record_every,
        record_every=record_every,
        warmup=before,
        checkpoint=checkpoint,
    )
    if not throw:
        return recording
    if isinstance(recording.ok, Tracer):
        return eqx.error_if(recording, ~recording.ok, _NOT_FINITE)
    if not recording.ok:
        raise SimulationError(f"{_where(recording)}: {_NOT_FINITE}")
    return recording


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
    if isinstance(simulator, ODESimulator):
        return begin(simulator, stimulus, stream(key, "init"), None, *_scheme(simulator, solver, dt))
    return begin_stepped(simulator, stream(key, "init"), None)


def _scheme(simulator: SteppedSimulator | ODESimulator, solver: Any, dt: float | None) -> tuple[Any, float]:
    """The solver and the time step, where the caller leaves them open."""
    name = type(simulator).__name__
    if isinstance(simulator, ODESimulator):
        dt = float(simulator.default_dt if dt is None else dt)
        if not (math.isfinite(dt) and dt > 0):
            raise ValueError(f"dt = {dt} ms must be positive")
        return simulator.default_solver if solver is None else solver, dt
    if dt is not None and dt != simulator.dt:
        raise ValueError(f"dt = {dt} ms, but {name} steps by its own dt = {simulator.dt} ms; build it with dt={dt}")
    if solver is not None:
        raise ValueError(f"{name} brings its own scheme and takes no solver")
    return None, simulator.dt


def _names(simulator: Simulator, record: Sequence[str] | None) -> tuple[str, ...]:
    """The names to record."""
    names = tuple(simulator.recordables) if record is None else tuple(record)
    if unknown := [n for n in names if n not in simulator.recordables]:
        raise ValueError(
            f"{type(simulator).__name__} cannot record {unknown[0]!r}; it records {', '.join(simulator.recordables)}"
        )
    return names


def _where(recording: Recording) -> str:
    """Name the first value that is not finite."""
    found = []
    for name in recording.units:
        bad = ~np.isfinite(np.asarray(recording.values[name], np.float64))
        if bad.any():
            found.append((*(int(i[0]) for i in np.nonzero(bad)[:2]), name))
    if not found:
        return "final state"
    frame, *cell, name = min(found, key=lambda at: at[0])
    return f"{name}{f' of cell {cell[0]}' if cell else ''} at t = {recording.time[frame]:g} ms"


@eqx.filter_jit
def _simulate(simulator, stimulus, key, initial_state, solver, spike_gradient, *, dt, **how) -> Recording:
    """Start, and hand over to the engine."""
    stimulus = draw_outside_loops(stimulus)
    with differentiating_spikes(spike_gradient):
        if isinstance(simulator, ODESimulator):
            start = begin(simulator, stimulus, stream(key, "init"), initial_state, solver, dt)
            return integrate(simulator, stimulus, start, solver=solver, dt=dt, **how)
        state = begin_stepped(simulator, stream(key, "init"), initial_state)
        return advance_blocks(simulator, stimulus, stream(key, "noise"), state, **how)
