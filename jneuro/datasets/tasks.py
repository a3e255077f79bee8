"""From a recording to windows: what is to be predicted from what, and what may be learned from."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro._types import Array, Config, Key
from jneuro.datasets.scaling import fit_scaling
from jneuro.datasets.splits import Fractions, split_indices
from jneuro.datasets.windows import Windows, window_starts
from jneuro.prng import require_key, stream
from jneuro.recordings.recording import Recording

__all__ = ["WindowConfig", "window"]


class WindowConfig(Config):
    """How a recording becomes windows.

    Attributes:
        variable: which of its arrays.
        discard_ms: dropped from the beginning of every run [ms].
        measurement_noise: SD of the white noise added to every sample, in the variable's unit.
        length_ms: the observed past [ms].
        stride_ms: from one window to the next [ms].
        horizons_ms: how far ahead the targets lie [ms], ascending.
        split: `run`, whole runs are train, validation or test, and only training runs set the scaling; or `report`, the
            leaky protocol of the report: windows that overlap are shuffled before they are split, test data enter
            the scaling, and runs are laid end to end, so that some windows cross from one into the next.
        fractions: shares of the splits.
    """

    variable: str = "v"
    discard_ms: float = Field(default=800.0, ge=0)
    measurement_noise: float = Field(default=0.2, ge=0)
    length_ms: float = Field(default=150.0, gt=0)
    stride_ms: float = Field(default=15.0, gt=0)
    horizons_ms: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    split: Literal["run", "report"] = "run"
    fractions: Fractions = Fractions()

    def frames(self, dt: float) -> tuple[int, int, int, tuple[int, ...]]:
        """Discard, length, stride and horizons in frames.

        Raises:
            ValueError: if a time is not a positive multiple of `dt` [ms], or the horizons do not ascend.
        """

        def convert(name: str, ms: float, least: int) -> int:
            count = round(ms / dt)
            if abs(count * dt - ms) > 1e-6 * max(ms, dt) or count < least:
                raise ValueError(
                    f"{name} = {ms:g} must be a multiple of the recording's {dt:g} ms, at least {least * dt:g}"
                )
            return count

        horizons = tuple(convert("horizons_ms", h, 1) for h in self.horizons_ms)
        if list(horizons) != sorted(set(horizons)):
            raise ValueError(f"horizons_ms = {list(self.horizons_ms)} must ascend")
        sizes = (convert("discard_ms", self.discard_ms, 0), convert("length_ms", self.length_ms, 1))
        return *sizes, convert("stride_ms", self.stride_ms, 1), horizons

    def check(self, duration_ms: float, dt: float, runs: int) -> dict[str, int]:
        """Refuse what leaves no windows, before anything is computed.

        Args:
            duration_ms: length of one run [ms].
            dt: time between frames [ms].
            runs: number of runs.

        Returns:
            Number of windows by split.

        Raises:
            ValueError: with the key and the remedy.
        """
        discard, length, stride, horizons = self.frames(dt)
        have = round(duration_ms / dt) - discard
        if length + horizons[-1] > have:
            raise ValueError(
                f"length_ms = {self.length_ms:g} and the farthest of horizons_ms = {self.horizons_ms[-1]:g} "
                f"do not fit into a run of {duration_ms:g} ms less discard_ms = {self.discard_ms:g}"
            )
        rng, reach = np.random.default_rng(0), length + horizons[-1]
        if self.split == "report":
            dealt = split_indices((runs * have - reach) // stride + 1, self.fractions, rng)
            return {name: len(index) for name, index in dealt.items()}
        each = (have - reach) // stride + 1
        return {name: each * len(index) for name, index in split_indices(runs, self.fractions, rng).items()}


def window(recording: Recording, config: WindowConfig, *, key: Key[Array, ""]) -> Windows:
    """Cut a recording into windows and put it on the device, once.

    Args:
        recording: values `[trial, time, feature]`.
        config: how.
        key: decides the measurement noise and the split.

    Returns:
        The windows, by split.

    Raises:
        ValueError: if the recording has no such variable or is too short.
    """
    require_key(key)
    if config.variable not in recording.values:
        raise ValueError(f"the recording has no {config.variable!r}; it has {', '.join(recording.values)}")
    source = recording.values[config.variable]
    if source.ndim != 3:
        raise ValueError(f"{config.variable} must be [trial, time, feature], got shape {source.shape}")
    config.check(recording.frames * recording.dt, recording.dt, source.shape[0])
    discard, length, stride, horizons = config.frames(recording.dt)
    values = _noisy(source, discard, config.measurement_noise, stream(key, "measurement"))
    trials, frames, features = values.shape
    rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(key, "split"))))
    if config.split == "run":
        runs = split_indices(trials, config.fractions, rng)
        sizes = {"length": length, "stride": stride, "reach": horizons[-1]}
        starts = {name: window_starts(index, frames, **sizes) for name, index in runs.items()}
        learned = values[runs["train"]].reshape(-1, features)
    else:
        learned = values.reshape(-1, features)
        every = np.arange(0, trials * frames - length - horizons[-1] + 1, stride, dtype=np.int32)
        starts = {name: every[index] for name, index in split_indices(len(every), config.fractions, rng).items()}
    scaling = fit_scaling(learned)
    del learned
    values -= np.asarray(scaling.mean)
    values /= np.asarray(scaling.scale)
    return Windows(
        values=jnp.asarray(values.reshape(-1, features)),
        starts={name: jnp.asarray(s) for name, s in starts.items()},
        scaling=scaling,
        length=length,
        horizons=horizons,
        dt=recording.dt,
        frames_per_trial=frames,
        leaky=config.split == "report",
    )


def _noisy(source: Array | np.ndarray, discard: int, sd: float, key: Key[Array, ""]) -> np.ndarray:
    """Copy without the discarded beginning, with measurement noise, trial by trial."""
    values = np.empty((source.shape[0], source.shape[1] - discard, source.shape[2]), np.float32)
    draw = jax.jit(lambda i: sd * jax.random.normal(jax.random.fold_in(key, i), values.shape[1:], jnp.float32))
    for trial in range(source.shape[0]):
        values[trial] = source[trial, discard:]
        if sd:
            values[trial] += draw(trial)
    return values
