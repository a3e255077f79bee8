"""The variables that windows are cut from: those of a recording, and those that its spikes give."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Float
from jneuro.recordings.recording import Recording

__all__ = ["FROM_SPIKES", "VariableConfig", "columns_of", "frames_in", "needed", "series", "shared_unit", "units_of"]

FROM_SPIKES = {"spikes": "1", "trace": "1", "rate": "Hz", "population_rate": "Hz"}
"""Variables that spikes give, and their units."""


class VariableConfig(Config):
    """How a recording becomes series of frames.

    Attributes:
        frame_ms: length of a frame [ms]; null keeps the recording's. A longer frame takes the last sample of a
            variable, and the sum of what is counted: `spikes` and `external`.
        trace_ms: time constant τ of the variable `trace`, the spikes filtered by exp(−t/τ) [ms].
        rate_ms: the past over which `rate` (each neuron's) and `population_rate` (the mean of all) count spikes [ms].
    """

    frame_ms: float | None = Field(default=None, gt=0)
    trace_ms: float = Field(default=20.0, gt=0)
    rate_ms: float = Field(default=100.0, gt=0)

    def frame(self, dt: float) -> int:
        """Recorded frames of `dt` ms in one of ours.

        Raises:
            ValueError: if `frame_ms` is not a multiple of `dt`.
        """
        if self.frame_ms is None:
            return 1
        return frames_in("frame_ms", self.frame_ms, dt)


def frames_in(name: str, ms: float, dt: float, least: int = 1, of: str = "the recording's") -> int:
    """How many frames a time has.

    Args:
        name: of the time, for the message.
        ms: the time [ms].
        dt: time between frames [ms].
        least: fewest frames that there may be.
        of: whose frames they are, for the message.

    Returns:
        The number of frames.

    Raises:
        ValueError: if it is not a whole number, or too low, naming the times beside it.
    """
    count = round(ms / dt)
    if abs(count * dt - ms) > 1e-6 * max(abs(ms), dt) or count < least:
        near = sorted({max(math.floor(ms / dt) + k, least) for k in (0, 1)})
        raise ValueError(
            f"{name} = {ms:g} must be a multiple of {of} {dt:g} ms, at least {least * dt:g}, "
            f"such as {' or '.join(f'{n * dt:g}' for n in near)}"
        )
    return count


def needed(names: Iterable[str]) -> tuple[str, ...]:
    """The arrays of a recording from which these variables are made."""
    return tuple(dict.fromkeys("spikes" if name in FROM_SPIKES else name for name in names))


def units_of(recording: Recording, names: Iterable[str]) -> dict[str, str]:
    """The unit of each of these variables.

    Args:
        recording: what they are made from.
        names: of the variables.
    """
    units = {**recording.units, **FROM_SPIKES}
    return {name: units[name] for name in names}


def shared_unit(units: Mapping[str, str]) -> str:
    """The unit that all variables have.

    Args:
        units: unit of each variable.

    Returns:
        The unit; `mixed units` where they differ, nothing where there are none.
    """
    found = set(units.values())
    return "mixed units" if len(found) > 1 else next(iter(found), "")


def columns_of(name: str, neurons: int) -> int:
    """Columns of a variable.

    Args:
        name: of the variable.
        neurons: of the recording.
    """
    return 1 if name == "population_rate" else neurons


def series(recording: Recording, name: str, config: VariableConfig) -> Float[np.ndarray, "trial frame column"]:
    """One variable of a recording, frame by frame.

    Args:
        recording: values `[trial, time, neuron]`; `spikes` are counts.
        name: one of its arrays, or of `FROM_SPIKES`.
        config: the frames and the filters.

    Returns:
        The series; a view of the recording where nothing has to be computed.

    Raises:
        ValueError: if the recording has no such variable, it is empty, or its frames do not fit.
    """
    (source,) = needed((name,))
    if source not in recording.values:
        raise ValueError(f"the recording has no {source!r}; it has {', '.join(recording.values)}")
    values = np.asarray(recording.values[source])
    if values.ndim != 3 or not values.size:
        raise ValueError(f"{source} must be [trial, time, feature], got shape {values.shape}")
    if values.shape[1] != recording.frames:
        raise ValueError(f"{source} has {values.shape[1]} frames, but frames = {recording.frames}; mend the recording")
    each = config.frame(recording.dt)
    frames = values.shape[1] // each
    values = values[:, : frames * each]
    if each > 1 and source in ("spikes", "external"):
        values = values.reshape(len(values), frames, each, -1).sum(2, dtype=np.float32)
    elif each > 1:
        values = values[:, each - 1 :: each]
    dt = each * recording.dt
    match name:
        case "trace":
            return _trace(values, np.exp(-dt / config.trace_ms))
        case "rate" | "population_rate":
            counted = values if name == "rate" else values.mean(2, keepdims=True, dtype=np.float32)
            width = frames_in("rate_ms", config.rate_ms, dt, of="the frames'")
            return _rate(counted, width) * np.float32(1e3 / config.rate_ms)
    return values


def _trace(spikes: np.ndarray, decay: float) -> np.ndarray:
    """Each spike adds one, and what was there decays."""
    trace = np.empty(spikes.shape, np.float32)
    now = np.zeros(spikes[:, 0].shape, np.float32)
    for frame in range(spikes.shape[1]):
        now = now * np.float32(decay) + spikes[:, frame]
        trace[:, frame] = now
    return trace


def _rate(counts: np.ndarray, width: int) -> np.ndarray:
    """The sum over each frame and the `width − 1` before it; none before the first."""
    total = np.cumsum(counts, axis=1, dtype=np.float64)
    total[:, width:] -= total[:, :-width].copy()
    return total.astype(np.float32)
