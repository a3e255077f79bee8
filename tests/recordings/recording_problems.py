"""Small recordings, made without a simulator."""

from typing import NamedTuple

import numpy as np

from jneuro.recordings import Recording

PROVENANCE = {"simulation": {"runs": 3}, "seed": 4}
POPULATIONS = {"excitatory": 3, "inhibitory": 2}


class State(NamedTuple):
    v: np.ndarray
    refractory: np.ndarray
    pending: np.ndarray
    step: np.ndarray


class Other(NamedTuple):
    gate: np.ndarray
    step: np.ndarray


def make(trials=3, frames=12, neurons=5, snapshots=3, seed=0):
    """A recording and its states `[trial, snapshot, ...]`; frames are 1 ms, steps 0.1 ms."""
    rng = np.random.default_rng(seed)
    counts = rng.choice(3, size=(trials, frames, neurons), p=[0.8, 0.15, 0.05]).astype(np.uint8)
    values = {"v": rng.normal(size=(trials, frames, neurons)).astype(np.float32), "spikes": counts}
    states = State(
        v=rng.normal(size=(trials, snapshots, neurons)).astype(np.float32),
        refractory=rng.integers(0, 20, (trials, snapshots, neurons), dtype=np.int32),
        pending=rng.normal(size=(trials, snapshots, 4, neurons)).astype(np.float32),
        step=np.repeat(10 * frames // snapshots * np.arange(1, snapshots + 1, dtype=np.int32)[None], trials, 0),
    )
    return recording(values, states, 0, frames), states


def recording(values, states, first, frames):
    """A recording that begins `first` frames after the start."""
    return Recording(
        values=values,
        ok=np.asarray(True),
        first_step=np.asarray(10 * first),
        final_state=State(*(leaf[:, -1] for leaf in states)),
        step=0.1,
        record_every=10,
        frames=frames,
        unit_pairs=(("v", "mV"), ("spikes", "1")),
    )


def piece(whole, states, first, last, every=4):
    """Frames `first` to `last` of a recording; a state stands at the end of `every` frames."""
    values = {n: v[:, first:last] for n, v in whole.values.items()}
    part = State(*(leaf[:, first // every : last // every] for leaf in states))
    return recording(values, part, first, last - first), part
