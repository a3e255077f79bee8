"""Spike counts of a stretch of time, from many futures of the states that a simulation stored."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Float, Int
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Study
from jneuro.evaluation.count_ceiling import stored_states
from jneuro.simulators.simulation import simulate_many

__all__ = ["Futures", "rate_futures"]


class Futures(NamedTuple):
    """Futures of test states.

    Attributes:
        starts: first frame of the window that ends in each state.
        rates: of each neuron over the time to the horizon [Hz].
    """

    starts: Int[np.ndarray, " state"]
    rates: Float[np.ndarray, "future state neuron"]


def rate_futures(study: Study, windows: Windows, futures: int, max_states: int) -> Futures | None:
    """Simulate the rates between the end of a window and its nearest horizon.

    Args:
        study: the experiment.
        windows: a model's, whose nearest horizon is the time over which rates count spikes.
        futures: how many of each state.
        max_states: at most so many states of a test run.

    Returns:
        The futures; None where `count_ceiling` has none either.
    """
    found = stored_states(study, windows, max_states)
    if found is None:
        return None
    simulator, states, last = found
    duration = windows.horizons[0] * windows.dt
    flat = jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), states)
    count = int(flat.step.shape[0])
    key = stream(study.key, "rates")

    @jax.jit
    def draw(index):
        seen = simulate_many(
            simulator,
            key=trial_keys(jax.random.fold_in(key, index), count),
            batched=("initial_state",),
            initial_state=flat,
            duration=duration,
            record=("spikes",),
            record_every=duration,
            throw=False,
        )
        return seen.values["spikes"][:, 0].astype(jnp.float32)

    counts = np.stack([np.asarray(draw(index)) for index in range(futures)])
    trials = windows.trials("test")
    starts = (trials[:, None] * windows.frames_per_trial + last - windows.length + 1).reshape(-1)
    return Futures(starts, counts / (duration * 1e-3))
