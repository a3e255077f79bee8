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

from jneuro.core.types import Array, Float, Int

__all__ = ["Batch", "Scaling", "Windows", "fit_scaling", "no_scaling", "window_starts"]


class Scaling(eqx.Module):
    """An affine map, one mean and one scale for each variable.

    Attributes:
        mean: what is subtracted, in the recording's unit.
        scale: what it is divided by, in the recording's unit; positive.
    """

    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]

    def of(self, columns: tuple[int, ...] | None) -> "Scaling":
        """The scaling of some columns; None means all."""
        return self if columns is None else Scaling(*(x[np.asarray(columns)] for x in (self.mean, self.scale)))

    def apply(self, values: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        """From the recording's unit to z-scores."""
        return (values - _align(self.mean, values)) / _align(self.scale, values)

    def invert(self, values: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        """From z-scores to the recording's unit."""
        return values * _align(self.scale, values) + _align(self.mean, values)


def _align(row: Float[Array, " feature"], values: Array) -> Array:
    """Give a row as many axes as the values have."""
    return row.reshape((1,) * (values.ndim - 1) + row.shape)


def fit_scaling(values: Float[np.ndarray, "frame feature"]) -> Scaling:
    """Mean and standard deviation of every variable.

    Args:
        values: the frames to fit on, in the recording's unit.

    Returns:
        The scaling, in `float32`. A variable that never changes gets scale 1.
    """
    mean, sd = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    return Scaling(jnp.asarray(mean, jnp.float32), jnp.asarray(np.where(sd > 0, sd, 1), jnp.float32))


def no_scaling(features: int) -> Scaling:
    """The identity, for `features` variables."""
    return Scaling(jnp.zeros(features, jnp.float32), jnp.ones(features, jnp.float32))


class Batch(NamedTuple):
    """A batch of windows, batch first.

    Attributes:
        inputs: the observed past.
        targets: what is to be predicted, one row for each horizon.
        future: at the horizons, the columns that are known ahead, such as a stimulus; None if there are none.
    """

    inputs: Float[Array, "batch time feature"]
    targets: Float[Array, "batch horizon target"]
    future: Float[Array, "batch horizon known"] | None = None


class Windows(eqx.Module):
    """Windows of a recording, by split.

    Attributes:
        values: the scaled recording, trials end to end.
        starts: first frame of every window, by split (`train`, `validation`, `test`).
        scaling: maps `values` back to the recording's unit.
        length: frames in the input of a window.
        horizons: how many frames after its last input frame each target lies; none or fewer, down to `1 - length`,
            for targets within the window.
        dt: time between frames [ms].
        frames_per_trial: frames of one trial; frame `f` belongs to trial `f // frames_per_trial`.
        leaky: whether the split lets test data into the training windows or into the scaling.
        input_columns: the columns of `values` that are observed; None takes all.
        target_columns: the columns that are predicted; None takes all.
        known_columns: the columns that are known ahead.
    """

    values: Float[Array, "frame feature"]
    starts: dict[str, Int[Array, " window"]]
    scaling: Scaling
    length: int = eqx.field(static=True)
    horizons: tuple[int, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    frames_per_trial: int = eqx.field(static=True)
    leaky: bool = eqx.field(static=True)
    input_columns: tuple[int, ...] | None = eqx.field(static=True, default=None)
    target_columns: tuple[int, ...] | None = eqx.field(static=True, default=None)
    known_columns: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        if min(self.horizons) <= -self.length:
            raise ValueError(f"horizons must be more than -{self.length}, the window's length, got {self.horizons}")
        for name in ("input_columns", "target_columns", "known_columns"):
            wrong = [c for c in getattr(self, name) or () if not 0 <= c < self.values.shape[1]]
            if wrong:
                last = self.values.shape[1] - 1
                raise ValueError(f"{name} holds {wrong[0]}, but the values have columns 0 to {last}")

    @property
    def features(self) -> int:
        """Number of observed columns."""
        return self.values.shape[1] if self.input_columns is None else len(self.input_columns)

    @property
    def outputs(self) -> int:
        """Number of predicted columns."""
        return self.values.shape[1] if self.target_columns is None else len(self.target_columns)

    @property
    def target_scaling(self) -> Scaling:
        """Maps predictions back to the recording's unit."""
        return self.scaling.of(self.target_columns)

    @property
    def own_inputs(self) -> tuple[int, ...] | None:
        """For each predicted column, its place among the observed ones; None if one is not observed."""
        observed = range(self.values.shape[1]) if self.input_columns is None else self.input_columns
        predicted = range(self.values.shape[1]) if self.target_columns is None else self.target_columns
        return tuple(observed.index(c) for c in predicted) if set(predicted) <= set(observed) else None

    def count(self, split: str) -> int:
        """Number of windows in a split."""
        return self.starts[split].shape[0]

    def trials(self, split: str) -> np.ndarray:
        """Indices of the trials from which a split draws, ascending."""
        return np.unique(np.asarray(self.starts[split]) // self.frames_per_trial)

    @property
    def extent(self) -> str:
        """What was understood of the recording, such as `10 runs × 600 frames × 40 variables`."""
        sizes = self.values.shape[0] // self.frames_per_trial, self.frames_per_trial, self.values.shape[1]
        named = zip(sizes, ("run", "frame", "variable"), strict=True)
        return " × ".join(f"{size} {name}{'s' * (size != 1)}" for size, name in named)

    def check_finite(self, split: str) -> None:
        """Refuse windows that hold a value that is not finite, before anything is computed from them.

        Args:
            split: which of them.

        Raises:
            ValueError: naming the first run, frame and column, and how many values there are.
        """
        finite = jax.device_get(jnp.isfinite(self.values).all(1))
        if finite.all():
            return
        starts = jax.device_get(self.starts[split])
        used = np.zeros(len(finite) + 1, int)  # frames that begin to be used, less those that end
        for first, count in ((0, self.length), *((h + self.length - 1, 1) for h in self.horizons)):
            np.add.at(used, starts + first, 1)
            np.add.at(used, np.minimum(starts + first + count, len(finite)), -1)
        bad = np.flatnonzero((np.cumsum(used)[:-1] > 0) & ~finite)
        if len(bad):
            values = ~np.isfinite(np.asarray(self.values[bad]))
            run, frame = divmod(bad[0], self.frames_per_trial)
            raise ValueError(
                f"the windows of the split {split!r} hold {values.sum()} values that are not finite, the first in run "
                f"{run}, frame {frame}, column {np.argmax(values[0])}; mend the recording, or "
                "leave that run or column out"
            )

    def gather(self, starts: Int[Array, " batch"]) -> Batch:
        """Gather the windows that begin at the given frames; pure and jittable.

        Args:
            starts: first frame of each window, taken from `self.starts`.

        Returns:
            Inputs, targets and what is known ahead, scaled.
        """
        inputs = jax.vmap(lambda s: lax.dynamic_slice_in_dim(self.values, s, self.length))(starts)
        ahead = jnp.asarray(self.horizons, starts.dtype) + (self.length - 1)
        targets = self.values[starts[:, None] + ahead[None]]
        future = targets[..., np.asarray(self.known_columns)] if self.known_columns else None
        return Batch(_columns(inputs, self.input_columns), _columns(targets, self.target_columns), future)


def _columns(values: Float[Array, "batch time feature"], columns: tuple[int, ...] | None) -> Array:
    return values if columns is None else values[..., np.asarray(columns)]


def window_starts(
    trials: Sequence[int] | np.ndarray,
    frames_per_trial: int,
    *,
    length: int,
    stride: int,
    reach: int,
    discard: int = 0,
    end: int | None = None,
) -> np.ndarray:
    """First frames of all windows that lie wholly inside one of the given trials.

    Args:
        trials: indices of the trials.
        frames_per_trial: frames of each.
        length: frames in the input.
        stride: frames from one window to the next.
        reach: frames from the last input to the farthest target.
        discard: frames dropped from the beginning of every trial.
        end: frame of every trial before which its last window ends; None takes all.

    Returns:
        Ascending within each trial, trials in the order given; int32.
    """
    end = frames_per_trial if end is None else end
    first = np.arange(discard, end - length - reach + 1, stride, dtype=np.int32)
    return (np.asarray(trials, np.int32)[:, None] * np.int32(frames_per_trial) + first).reshape(-1)
