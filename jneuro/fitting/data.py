"""What a simulator is fitted to: voltages and the currents that made them, checked."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Float, PyTree
from jneuro.recordings.readers import clipped
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Simulator
from jneuro.simulators.stimuli import Sampled

__all__ = ["Target", "require_unit"]

_QUIETEST = 1e-3
"""Smallest noise [mV] that is believed of a recording."""


class Target(eqx.Module):
    """Trials of one cell: what was injected, and what was measured.

    Sample `i` stands for the time `(i + 1) * dt` after the start, as in a `Recording`. The current of a sample is held
    until the next one; before the first sample, the first one's current flows.

    Attributes:
        v: membrane potential [mV].
        current: injected current, in `current_unit`.
        noise_sd: standard deviation of the measurement noise [mV], the unit of all residuals.
        start: the simulator's state at time 0, each leaf `[trial]`; None where it is not known.
        dt: time between samples [ms].
        current_unit: unit of the current.
    """

    v: Float[Array, "trial time"]
    current: Float[Array, "trial time"]
    noise_sd: Float[Array, ""]
    start: PyTree
    dt: float = eqx.field(static=True)
    current_unit: str = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        recording: Recording,
        *,
        noise_sd: float | None = None,
        start: PyTree = None,
        allow_clipped: bool = False,
    ) -> "Target":
        """Take a recording's potential and current.

        Args:
            recording: has `v` and `current`, each `[time]`, `[time, cell]`, `[trial, time]` or `[trial, time, cell]`.
                Cells count as trials: they are taken for equal ones. A current without trials is that of all.
            noise_sd: standard deviation of the measurement noise [mV]; by default estimated from second differences.
            start: the simulator's state before the first sample, where it is known; each leaf a scalar or `[trial]`.
            allow_clipped: whether potentials that stay at their extreme are taken as they are.

        Returns:
            The target.

        Raises:
            ValueError: if the current is missing, the unit is not mV, a value is not finite, or samples are clipped.
        """
        for name, remedy in {
            "v": "record the membrane potential",
            "current": "a fit needs the stimulus that was injected; record or add it",
        }.items():
            if name not in recording.values:
                raise ValueError(f"the recording has no '{name}'; {remedy}")
        if (unit := recording.units["v"]) != "mV":
            raise ValueError(f"the recording's 'v' is in {unit}; convert it to mV")
        v, current = (_trials(recording, name) for name in ("v", "current"))
        current = np.broadcast_to(current, v.shape).copy()
        for name, values in {"v": v, "current": current}.items():
            if (bad := np.argwhere(~np.isfinite(values))).size:
                trial, sample = bad[0]
                raise ValueError(
                    f"'{name}' of trial {trial} is not finite at {(sample + 1) * recording.dt:g} ms "
                    f"({len(bad)} samples are not); cut these trials or samples out"
                )
        if not allow_clipped:
            _require_unclipped(v, recording.dt)
        if noise_sd is not None and not noise_sd > 0:
            raise ValueError(f"noise_sd = {noise_sd} mV must be positive")
        if start is not None:
            start = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x, np.float64), len(v)), start)
        noise = np.asarray(_noise(v) if noise_sd is None else noise_sd, np.float64)
        return cls(v, current, noise, start, recording.dt, recording.units["current"])  # pyright: ignore

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.v.shape[0]

    @property
    def frames(self) -> int:
        """Samples in a trial."""
        return self.v.shape[1]

    @property
    def duration(self) -> float:
        """Length of a trial [ms]."""
        return self.frames * self.dt

    @property
    def time(self) -> np.ndarray:
        """Time of every sample [ms]."""
        return self.dt * np.arange(1, self.frames + 1)

    def of_trials(self, trials: Sequence[int] | np.ndarray) -> "Target":
        """Some of the trials."""
        index = np.asarray(trials, int)
        start = jax.tree.map(lambda x: x[index], self.start)
        return eqx.tree_at(
            lambda t: (t.v, t.current, t.start),
            self,
            (self.v[index], self.current[index], start),
            is_leaf=lambda x: x is None,
        )

    def stimulus(self, current: Float[Array, " time"]) -> Sampled:
        """The stimulus of one trial, from its current; batch it with `jax.vmap`."""
        return Sampled(jnp.concatenate([current[:1], current]), jnp.asarray(self.dt), hold=True)


def require_unit(simulator: Simulator, target: Target) -> None:
    """Refuse a current in another unit than the simulator's.

    Args:
        simulator: what is fitted.
        target: to what.

    Raises:
        ValueError: naming both units.
    """
    about = simulator.recordables.get("current")
    if about is not None and target.current_unit != about.unit:
        raise ValueError(
            f"the recording's current is in {target.current_unit}, that of {type(simulator).__name__} in {about.unit}; "
            "convert one into the other, by the membrane's area or capacitance"
        )


def _trials(recording: Recording, name: str) -> np.ndarray:
    """One array as `[trial, time]`, in double precision."""
    values, frames = np.asarray(recording.values[name], np.float64), recording.frames
    if values.ndim == 1:
        values = values[None]
    elif values.ndim == 2 and values.shape[1] != frames:
        values = values.T
    elif values.ndim == 3:
        values = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    if values.ndim != 2 or values.shape[1] != frames:
        raise ValueError(f"'{name}' has the shape {values.shape}, but the recording has {frames} frames")
    return values


def _noise(v: np.ndarray) -> float:
    """Standard deviation of white noise, from the median of second differences, which spikes do not move."""
    if v.shape[1] < 3:
        return _QUIETEST
    return max(float(np.median(np.abs(np.diff(v, 2)))) / (0.6745 * np.sqrt(6)), _QUIETEST)


def _require_unclipped(v: np.ndarray, dt: float) -> None:
    for trial, row in enumerate(v):
        if (where := clipped(row)) is not None:
            begin, end = where
            raise ValueError(
                f"'v' of trial {trial} stays at {row[begin]:g} mV from {(begin + 1) * dt:g} to {end * dt:g} ms: "
                "it was clipped; cut the trial out, or pass allow_clipped=True"
            )
