"""The stage that makes the recording: all runs simulated in one program, chunk by chunk; or a file that is read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.files import remove
from jneuro.core.random import stream, trial_keys
from jneuro.core.seals import store_damages
from jneuro.core.types import Array, Key, PyTree
from jneuro.experiment.folder import RunFolder
from jneuro.recordings.kinds import RecordingFile
from jneuro.recordings.recording import Recording
from jneuro.recordings.store import RecordingWriter, read_state, require_whole
from jneuro.simulators import ODESimulator, SimulationError, SteppedSimulator, first_state, simulate, simulate_many
from jneuro.simulators.config import SimulationConfig
from jneuro.simulators.stimuli import Stimulus

if TYPE_CHECKING:
    from jneuro.experiment.plan import Plan  # which estimates a simulation

__all__ = ["Runs", "build_runs", "initial_states", "read_stage", "require_recording", "simulate_stage"]

_CHUNK = 5_000_000
"""Recorded values of one array that are in memory at once."""


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

    axes = (eqx.if_array(0) if own else None for own in (runs.per_trial, runs.stimuli))
    return eqx.filter_vmap(one, in_axes=(*axes, 0))(runs.simulators, runs.stimulus, runs.keys)


@eqx.filter_jit
def _simulate_chunk(
    runs: Runs, states: PyTree, snapshots: int, duration: float, record_every: float
) -> tuple[Recording, PyTree]:
    """Simulate `snapshots` stretches of `duration` ms; also return the state after each, `[trial, snapshot, ...]`."""

    def batch(runs, states):
        how = {"dt": runs.dt, "solver": runs.solver, "record": runs.record, "record_every": record_every}
        return simulate_many(
            runs.simulators,
            runs.stimulus,
            key=runs.keys,
            batched=runs.batched,
            initial_state=states,
            duration=duration,
            throw=False,
            **how,
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
    changed = {"values": values, "ok": ok.all(), "first_step": states.step[0], "final_state": final}
    recording = dataclasses.replace(like, frames=snapshots * like.frames, **changed)
    return recording, jax.tree.map(lambda s: jnp.moveaxis(s, 0, 1), seen)


def simulate_stage(config: SimulationConfig, seed: int, path: Path, tell: Callable[[float, float], None]) -> None:
    """Simulate all runs into a store, chunk by chunk; continue where a killed process stopped, or before damage.

    Args:
        config: the simulation.
        seed: of all that is random.
        path: the store.
        tell: told, after every chunk, the simulated and the whole time of all runs together [ms].

    Raises:
        SimulationError: if a value is not finite; what was written before stays.
    """
    provenance = {"simulation": config.model_dump(mode="json"), "seed": seed}
    if path.exists() and store_damages(path, under=None):
        remove(path)  # it says no more what it is
    writer = RecordingWriter(path, provenance, config.populations)
    if writer.complete:
        return
    runs = build_runs(config, jax.random.key(seed))
    states = initial_states(runs)
    if writer.frames:
        states = jax.tree.map(jnp.asarray, read_state(path, states, complete=False))
    elif config.warmup_ms:
        states = _settled(runs, states, config.warmup_ms, seed)
    # The next chunk is computed while the last one is written.
    waiting = None
    for size in [*_chunks(config, writer.frames), 0]:
        following = None
        if size:
            following = _simulate_chunk(runs, states, size, config.snapshot_every_ms, config.record_every_ms)
            states = following[0].final_state
        if waiting is not None:
            _write(writer, *waiting)
            tell(*(config.runs * ms for ms in (writer.frames * config.record_every_ms, config.duration_ms)))
        waiting = following
    writer.finish()


def read_stage(source: RecordingFile, path: Path) -> str:
    """Read a recording of another format into a store.

    Args:
        source: the recording.
        path: the store.

    Returns:
        In one line, what was understood: which axis is which.
    """
    recording = source.read()
    remove(path)  # what is left of it may be damaged
    writer = RecordingWriter(path, {"file": str(source.path), **recording.about})
    writer.append(recording)
    writer.finish()
    lines = repr(recording).splitlines()[: 1 + len(recording.values)]
    return f"{source.path.name}: {'; '.join(' '.join(x.split()) for x in lines)}"


def require_recording(plan: "Plan", folder: RunFolder) -> None:
    """Refuse a recording that is missing, damaged or not of the run, wherever it is.

    Args:
        plan: the experiment.
        folder: of the run.

    Raises:
        ConfigError: if it is the run's own, with the remedy.
        StoreError: if it is one from elsewhere.
    """
    for name in ("simulate", "read"):
        if name in plan.stages:
            folder.require(plan.stages[name], "there is no recording")
            return
    require_whole(plan.recording(folder))


def _chunks(config: SimulationConfig, written: int) -> list[int]:
    """Snapshots in each of the chunks that are left after so many frames: all alike, as one program computes them."""
    frames = round(config.snapshot_every_ms / config.record_every_ms)
    whole = round(config.duration_ms / config.snapshot_every_ms)
    left = whole - written // frames
    most = max(1, _CHUNK // (frames * config.runs * config.neurons))
    # Those of the whole, so that a run that goes on cuts where it did before, unless it stopped elsewhere.
    cut = whole if left % _divisor(whole, most) == 0 else left
    size = _divisor(cut, most)
    return [size] * (left // size)


def _divisor(count: int, most: int) -> int:
    """The largest divisor that is not above `most`."""
    return max((n for n in range(1, min(count, most) + 1) if count % n == 0), default=1)


def _settled(runs: Runs, states: PyTree, duration: float, seed: int) -> PyTree:
    """The state of every run after a past that all share, at time zero."""
    first = jax.tree.map(lambda s: s[0], states)
    key = stream(jax.random.key(seed), "settle")
    past = simulate(runs.simulators, duration=duration, key=key, record=(), initial_state=first)
    shared = jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(runs.keys), *s.shape)), past.final_state)
    return shared._replace(step=states.step)


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
