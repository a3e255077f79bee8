"""The stage that simulates: all runs in one program, chunk by chunk into the store."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Key, PyTree
from jneuro.experiment.folder import RunFolder, Stage
from jneuro.recordings import Recording, RecordingWriter, read_state
from jneuro.simulators import ODESimulator, SimulationError, SteppedSimulator, first_state, simulate, simulate_many
from jneuro.simulators.config import SimulationConfig
from jneuro.simulators.stimuli import Stimulus

__all__ = ["Runs", "build_runs", "read_stage", "simulate_stage"]

_CHUNK = 5_000_000
"""Recorded values of one array that are in memory at once."""


class _Simulated(Protocol):
    """A plan that simulates."""

    @property
    def simulation(self) -> SimulationConfig | None: ...

    @property
    def seed(self) -> int: ...

    @property
    def stages(self) -> Mapping[str, Stage]: ...


class Runs(eqx.Module):
    """All runs of a simulation, ready to be simulated.

    Attributes:
        simulators: one network for all runs, or a batch with a leading trial axis.
        stimulus: what drives them.
        keys: one a run.
        solver: how an ODE simulator is integrated.
        dt: its time step [ms]; None for a simulator that has its own.
        record: what to record.
        per_trial: whether every run has its own network.
        stimuli: whether every run has its own stimulus.
    """

    simulators: SteppedSimulator | ODESimulator
    stimulus: Stimulus | None
    keys: Key[Array, " trial"]
    solver: Any
    dt: float | None = eqx.field(static=True)
    record: tuple[str, ...] = eqx.field(static=True)
    per_trial: bool = eqx.field(static=True)
    stimuli: bool = eqx.field(static=True)

    @property
    def axes(self) -> Any:
        """Where `vmap` finds the trials of `simulators` and of `stimulus`."""
        return tuple(eqx.if_array(0) if batched else None for batched in (self.per_trial, self.stimuli))

    @property
    def batched(self) -> tuple[str, ...]:
        """What every run has its own of, as `simulate_many` names it, states among it."""
        own = {"simulator": self.per_trial, "stimulus": self.stimuli, "initial_state": True}
        return tuple(name for name, batched in own.items() if batched)

    def of(self, trials: np.ndarray) -> "Runs":
        """Some of the runs."""

        def some(tree, batched):
            return jax.tree.map(lambda x: x[trials] if eqx.is_array(x) else x, tree) if batched else tree

        simulators, stimulus = some(self.simulators, self.per_trial), some(self.stimulus, self.stimuli)
        return dataclasses.replace(self, simulators=simulators, stimulus=stimulus, keys=self.keys[trials])


def build_runs(config: SimulationConfig, key: Key[Array, ""]) -> Runs:
    """Build and connect the networks of a simulation.

    Args:
        config: the simulation.
        key: the experiment's key; the same key gives the same networks.

    Returns:
        The runs.
    """
    simulator, how = config.simulator.build(), {"record": config.recorded, **config.scheme}
    own = config.stimulus is not None and config.stimulus.random
    stimulus, drawn = None, stream(key, "stimulus")
    if config.stimulus is not None:
        build = eqx.filter_vmap(config.stimulus.build) if own else config.stimulus.build
        stimulus = build(trial_keys(drawn, config.runs) if own else drawn)
    wiring, keys = stream(key, "connect"), trial_keys(stream(key, "run"), config.runs)
    # A cell of which nothing is drawn is itself.
    alike = isinstance(simulator, ODESimulator) and simulator.connect(wiring) is simulator
    shared = config.connectivity == "fixed" or alike
    connect = simulator.connect if shared else eqx.filter_vmap(simulator.connect)
    connected = connect(wiring if shared else trial_keys(wiring, config.runs))
    return Runs(connected, stimulus, keys, per_trial=not shared, stimuli=own, **how)


@eqx.filter_jit
def initial_states(runs: Runs) -> PyTree:
    """The states in which all runs begin, each leaf `[trial, ...]`."""

    def one(simulator, stimulus, key):
        return first_state(simulator, key, stimulus=stimulus, dt=runs.dt, solver=runs.solver)

    return eqx.filter_vmap(one, in_axes=(*runs.axes, 0))(runs.simulators, runs.stimulus, runs.keys)


@eqx.filter_jit
def _simulate_chunk(
    runs: Runs, states: PyTree, snapshots: int, duration: float, record_every: float
) -> tuple[Recording, PyTree]:
    """Simulate `snapshots` stretches of `duration` ms; also return the state after each, `[trial, snapshot, ...]`."""

    def batch(runs, states):
        return simulate_many(
            runs.simulators,
            runs.stimulus,
            key=runs.keys,
            batched=runs.batched,
            initial_state=states,
            duration=duration,
            dt=runs.dt,
            solver=runs.solver,
            record=runs.record,
            record_every=record_every,
            throw=False,
        )

    def body(states, _):
        recording = batch(runs, states)
        return recording.final_state, (recording.values, recording.ok.all(), recording.final_state)

    final, (values, ok, seen) = lax.scan(body, states, None, length=snapshots)
    # A single cell's values have no axis for neurons; a store's always do.
    values = jax.tree.map(
        lambda v: jnp.moveaxis(v, 0, 1).reshape(v.shape[1], v.shape[0] * v.shape[2], *(v.shape[3:] or (1,))), values
    )
    like = eqx.filter_eval_shape(batch, runs, states)
    recording = Recording(
        values=values,
        ok=ok.all(),
        first_step=states.step[0],
        final_state=final,
        step=like.step,
        record_every=like.record_every,
        frames=snapshots * like.frames,
        unit_pairs=like.unit_pairs,
    )
    return recording, jax.tree.map(lambda s: jnp.moveaxis(s, 0, 1), seen)


def simulate_stage(plan: _Simulated, folder: RunFolder, tell: Callable[[float, float], None]) -> None:
    """Simulate all runs into the folder's recording; continue where a killed process stopped.

    Args:
        plan: the experiment or fit.
        folder: of the run.
        tell: told, after every chunk, the simulated and the whole time of all runs together [ms].

    Raises:
        SimulationError: if a value is not finite; what was written before stays.
    """
    config, seed, stage = plan.simulation, plan.seed, plan.stages["simulate"]
    if config is None or folder.done(stage) or folder.reuse(stage):
        return
    with folder.stage(stage):
        provenance = {"simulation": config.model_dump(mode="json"), "seed": seed}
        writer = RecordingWriter(folder.path / "recording.zarr", provenance, config.populations)
        if not writer.complete:
            _simulate_into(writer, config, seed, tell)
            writer.finish()


def read_stage(plan: Any, folder: RunFolder) -> None:
    """Read a recording of another format into the folder's store.

    Args:
        plan: the experiment.
        folder: of the run.
    """
    given, stage = plan.config.recording, plan.stages["read"]
    with folder.stage(stage):
        recording = given.read()
        writer = RecordingWriter(folder.path / "recording.zarr", {"file": str(given.path), **recording.about})
        writer.append(recording)
        writer.finish()


def _settled(runs: Runs, states: PyTree, duration: float, seed: int) -> PyTree:
    """The state of every run after a past that all share, at time zero."""
    first = jax.tree.map(lambda s: s[0], states)
    key = stream(jax.random.key(seed), "settle")
    past = simulate(runs.simulators, duration=duration, key=key, record=(), initial_state=first)
    shared = jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(runs.keys), *s.shape)), past.final_state)
    return shared._replace(step=states.step)


def _simulate_into(writer: RecordingWriter, config: SimulationConfig, seed: int, tell) -> None:
    """Simulate what is missing; the next chunk is computed while the last one is written."""
    neurons, runs = config.neurons, build_runs(config, jax.random.key(seed))
    states = initial_states(runs)
    if writer.frames:
        states = jax.tree.map(jnp.asarray, read_state(writer.path, states, complete=False))
    elif config.warmup_ms:
        states = _settled(runs, states, config.warmup_ms, seed)
    frames = round(config.snapshot_every_ms / config.record_every_ms)
    total, done = round(config.duration_ms / config.snapshot_every_ms), writer.frames // frames
    most = max(1, _CHUNK // (frames * config.runs * neurons))
    size = max(n for n in range(1, min(total, most) + 1) if (total - done) % n == 0) if done < total else 1
    every, waiting = config.record_every_ms, None
    while done < total or waiting is not None:
        following = None
        if done < total:
            following = _simulate_chunk(runs, states, size, config.snapshot_every_ms, every)
            states, done = following[0].final_state, done + size
        if waiting is not None:
            _write(writer, *waiting)
            tell(*(config.runs * ms for ms in (writer.frames * config.record_every_ms, config.duration_ms)))
        waiting = following


def _write(writer: RecordingWriter, recording: Recording, states: PyTree) -> None:
    """Write a chunk, unless it is not finite."""
    if not recording.ok:
        for name, values in recording.values.items():
            bad = np.argwhere(~np.isfinite(np.asarray(values, np.float64)))
            if len(bad):
                trial, frame, *cell = bad[np.argmin(bad[:, 1])]
                raise SimulationError(
                    f"{name} of run {trial}, cell {cell[0] if cell else 0}, is not finite at "
                    f"t = {recording.time[frame]:g} ms; a parameter, the stimulus or the time step is too large"
                )
        raise SimulationError("a state is not finite; a parameter, the stimulus or the time step is too large")
    writer.append(recording, states)
