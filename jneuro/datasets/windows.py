"""Windows over a recording: index arithmetic on the device, never a copy of the data.

A window is known by its first frame. The recording stays on the device once, trials end to end, and a batch is
gathered inside the compiled step, so 30,000 windows of 150 × 100 values cost their start frames (120 kB), not 1.8 GB.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro._types import Array, Float, Int
from jneuro.datasets.scaling import Scaling

__all__ = ["Batch", "Windows", "window_starts"]


class Batch(NamedTuple):
    """A batch of windows, batch first.

    Attributes:
        inputs: the observed past.
        targets: the future, one row for each horizon.
    """

    inputs: Float[Array, "batch time feature"]
    targets: Float[Array, "batch horizon feature"]


class Windows(eqx.Module):
    """Windows of a recording, by split.

    Attributes:
        values: the scaled recording, trials end to end.
        starts: first frame of every window, by split (`train`, `validation`, `test`).
        scaling: maps `values` back to the recording's unit.
        length: frames in the input of a window.
        horizons: how many frames after its last input frame each target lies.
        dt: time between frames [ms].
        frames_per_trial: frames of one trial; frame `f` belongs to trial `f // frames_per_trial`.
        leaky: whether the split lets test data into the training windows or into the scaling.
    """

    values: Float[Array, "frame feature"]
    starts: dict[str, Int[Array, " window"]]
    scaling: Scaling
    length: int = eqx.field(static=True)
    horizons: tuple[int, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    frames_per_trial: int = eqx.field(static=True)
    leaky: bool = eqx.field(static=True)

    @property
    def features(self) -> int:
        """Number of variables in each frame."""
        return self.values.shape[1]

    def count(self, split: str) -> int:
        """Number of windows in a split."""
        return self.starts[split].shape[0]

    def trials(self, split: str) -> np.ndarray:
        """Indices of the trials from which a split draws, ascending."""
        return np.unique(np.asarray(self.starts[split]) // self.frames_per_trial)

    def gather(self, starts: Int[Array, " batch"]) -> Batch:
        """Gather the windows that begin at the given frames; pure and jittable.

        Args:
            starts: first frame of each window, taken from `self.starts`.

        Returns:
            Inputs and targets, scaled.
        """
        inputs = jax.vmap(lambda s: lax.dynamic_slice_in_dim(self.values, s, self.length))(starts)
        ahead = jnp.asarray(self.horizons, starts.dtype) + (self.length - 1)
        return Batch(inputs, self.values[starts[:, None] + ahead[None]])


def window_starts(
    trials: Sequence[int] | np.ndarray, frames_per_trial: int, *, length: int, stride: int, reach: int, discard: int = 0
) -> np.ndarray:
    """First frames of all windows that lie wholly inside one of the given trials.

    Args:
        trials: indices of the trials.
        frames_per_trial: frames of each.
        length: frames in the input.
        stride: frames from one window to the next.
        reach: frames from the last input to the farthest target.
        discard: frames dropped from the beginning of every trial.

    Returns:
        Ascending within each trial, trials in the order given; int32.
    """
    first = np.arange(discard, frames_per_trial - length - reach + 1, stride, dtype=np.int32)
    return (np.asarray(trials, np.int32)[:, None] * np.int32(frames_per_trial) + first).reshape(-1)
