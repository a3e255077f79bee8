"""From a recording to windows: what is to be predicted from what, and what may be learned from."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Discriminator, Field, Tag

from jneuro.core.config import Config
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Float, Key
from jneuro.datasets.scaling import Scaling, fit_scaling, no_scaling
from jneuro.datasets.splits import Fractions, split_indices
from jneuro.datasets.variables import VariableConfig, columns_of, series
from jneuro.datasets.windows import Windows, window_starts
from jneuro.recordings.recording import Recording

__all__ = ["HorizonRange", "Horizons", "Scale", "WindowConfig", "window"]


class HorizonRange(Config):
    """Every frame from one time to another, relative to a window's last.

    Attributes:
        first_ms: the first [ms]; 0 is the window's last frame, and negative times lie within the window.
        last_ms: the last [ms].
    """

    first_ms: float
    last_ms: float


Horizons = Annotated[
    Annotated[tuple[float, ...], Field(min_length=1), Tag("list")]
    | Annotated[HorizonRange, Tag("range")]
    | Annotated[Literal["next_window", "same_window"], Tag("word")],
    Discriminator(lambda value: {str: "word", dict: "range", HorizonRange: "range"}.get(type(value), "list")),
]
"""Where targets lie: times, a range of times, or the frames of a window."""

Scale = Literal["zscore", "inputs", "none"]
"""How values are scaled."""


class WindowConfig(VariableConfig):
    """How a recording becomes windows.

    Attributes:
        targets: the variables that are predicted.
        inputs: the variables that are observed; null takes the targets.
        known: the variables that are known ahead, such as a stimulus; a model sees them at the horizons too.
        discard_ms: dropped from the beginning of every run [ms].
        measurement_noise: SD of the white noise added to every sample of the targets, in their unit.
        length_ms: the observed past [ms].
        stride_ms: from one window to the next [ms].
        horizons_ms: how far ahead the targets lie [ms], ascending; `next_window`, every frame of the stretch that
            follows, as long as the window; `same_window`, the frames of the window itself; or a range.
        split: `run`, whole runs are train, validation or test, and only training runs set the scaling; or `report`, the
            leaky protocol of the report: windows that overlap are shuffled before they are split, test data enter
            the scaling, and runs are laid end to end, so that some windows cross from one into the next.
        fractions: shares of the splits.
        scaling: `zscore`; `inputs`, z-scores of what is only observed, while targets keep their unit, as the likelihood
            of counts needs; or `none`.
        neurons: only so many are observed and predicted, evenly spaced among all, and therefore as many of each
            population as its share; null takes all.
    """

    targets: tuple[str, ...] = Field(default=("v",), min_length=1)
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    known: tuple[str, ...] = ()
    discard_ms: float = Field(default=800.0, ge=0)
    measurement_noise: float = Field(default=0.2, ge=0)
    length_ms: float = Field(default=150.0, gt=0)
    stride_ms: float = Field(default=15.0, gt=0)
    horizons_ms: Horizons = (1.0,)
    split: Literal["run", "report"] = "run"
    fractions: Fractions = Fractions()
    scaling: Scale = "zscore"
    neurons: int | None = Field(default=None, ge=1)

    def kept(self, neurons: int) -> np.ndarray:
        """Which neurons are observed and predicted.

        Args:
            neurons: of the recording.

        Returns:
            Their indices, ascending.

        Raises:
            ValueError: if there are not as many.
        """
        count = neurons if self.neurons is None else self.neurons
        if count > neurons:
            raise ValueError(f"neurons = {count} is more than the recording's {neurons}; lower it")
        return np.arange(count) * neurons // count

    @property
    def observed(self) -> tuple[str, ...]:
        """The variables that are observed."""
        return self.targets if self.inputs is None else self.inputs

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables, in the order of the columns."""
        return tuple(dict.fromkeys([*self.observed, *self.targets, *self.known]))

    def frames(self, dt: float) -> tuple[int, int, int, tuple[int, ...]]:
        """Discard, length, stride and horizons in frames.

        Raises:
            ValueError: if a time is not a positive multiple of `dt` [ms], or the horizons do not ascend.
        """

        def convert(name: str, ms: float, least: int) -> int:
            count = round(ms / dt)
            if abs(count * dt - ms) > 1e-6 * max(abs(ms), dt) or count < least:
                raise ValueError(
                    f"{name} = {ms:g} must be a multiple of the recording's {dt:g} ms, at least {least * dt:g}"
                )
            return count

        length = convert("length_ms", self.length_ms, 1)
        match self.horizons_ms:
            case "next_window":
                horizons = tuple(range(1, length + 1))
            case "same_window":
                horizons = tuple(range(1 - length, 1))
            case HorizonRange(first_ms=first, last_ms=last):
                ends = [convert("horizons_ms", h, 1 - length) for h in (first, last)]
                horizons = tuple(range(ends[0], ends[1] + 1))
            case times:
                horizons = tuple(convert("horizons_ms", h, 1) for h in times)
        if not horizons or list(horizons) != sorted(set(horizons)):
            raise ValueError(f"horizons_ms = {list(horizons)} frames must ascend")
        stride = convert("stride_ms", self.stride_ms, 1)
        return convert("discard_ms", self.discard_ms, 0), length, stride, horizons

    def check(self, duration_ms: float, dt: float, runs: int) -> dict[str, int]:
        """Refuse what leaves no windows, before anything is computed.

        Args:
            duration_ms: length of one run [ms].
            dt: time between recorded frames [ms].
            runs: number of runs.

        Returns:
            Number of windows by split.

        Raises:
            ValueError: with the key and the remedy.
        """
        dt = self.frame(dt) * dt
        discard, length, stride, horizons = self.frames(dt)
        have, ahead = int(duration_ms / dt + 1e-6) - discard, max(horizons[-1], 0)
        if length + ahead > have:
            raise ValueError(
                f"length_ms = {self.length_ms:g} and the farthest of horizons_ms = {ahead * dt:g} "
                f"do not fit into a run of {duration_ms:g} ms less discard_ms = {self.discard_ms:g}"
            )
        rng, reach = np.random.default_rng(0), length + ahead
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
        ValueError: if the recording lacks a variable or is too short.
    """
    require_key(key)
    parts = {name: _kept(series(recording, name, config), name, config) for name in config.variables}
    trials, frames = parts[config.targets[0]].shape[:2]
    config.check(recording.frames * recording.dt, recording.dt, trials)
    dt = config.frame(recording.dt) * recording.dt
    discard, length, stride, horizons = config.frames(dt)
    frames, reach = frames - discard, max(horizons[-1], 0)
    values = _joined(parts, config, discard, stream(key, "measurement"))
    features = values.shape[2]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(key, "split"))))
    if config.split == "run":
        runs = split_indices(trials, config.fractions, rng)
        sizes = {"length": length, "stride": stride, "reach": reach}
        starts = {name: window_starts(index, frames, **sizes) for name, index in runs.items()}
        learned = values[runs["train"]].reshape(-1, features)
    else:
        learned = values.reshape(-1, features)
        every = np.arange(0, trials * frames - length - reach + 1, stride, dtype=np.int32)
        starts = {name: every[index] for name, index in split_indices(len(every), config.fractions, rng).items()}
    columns = _columns({name: part.shape[2] for name, part in parts.items()}, config)
    scaling = no_scaling(features) if config.scaling == "none" else fit_scaling(learned)
    if config.scaling == "inputs":
        predicted = np.arange(features) if columns["target_columns"] is None else np.asarray(columns["target_columns"])
        scaling = Scaling(scaling.mean.at[predicted].set(0), scaling.scale.at[predicted].set(1))
    del learned
    values -= np.asarray(scaling.mean)
    values /= np.asarray(scaling.scale)
    return Windows(
        values=jnp.asarray(values.reshape(-1, features)),
        starts={name: jnp.asarray(s) for name, s in starts.items()},
        scaling=scaling,
        length=length,
        horizons=horizons,
        dt=dt,
        frames_per_trial=frames,
        leaky=config.split == "report",
        **columns,
    )


def _kept(values: Float[np.ndarray, "trial frame column"], name: str, config: WindowConfig) -> np.ndarray:
    """The columns of the neurons that are observed and predicted; a variable of the whole network stays."""
    whole = config.neurons is None or columns_of(name, 2) == 1
    return values if whole else values[..., config.kept(values.shape[2])]


def _columns(widths: Mapping[str, int], config: WindowConfig) -> dict[str, Any]:
    """Which columns are observed, predicted and known ahead."""
    first, at = 0, {}
    for name, width in widths.items():
        at[name] = range(first, first + width)
        first += width

    def of(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(c for name in names for c in at[name])

    every = tuple(range(first))
    observed, predicted = of(config.observed), of(config.targets)
    return {
        "input_columns": None if observed == every else observed,
        "target_columns": None if predicted == every else predicted,
        "known_columns": of(config.known),
    }


def _joined(
    parts: Mapping[str, np.ndarray], config: WindowConfig, discard: int, key: Key[Array, ""]
) -> Float[np.ndarray, "trial frame feature"]:
    """Copy all variables, without the discarded beginning, the targets with measurement noise, trial by trial."""
    trials, frames = next(iter(parts.values())).shape[:2]
    values = np.empty((trials, frames - discard, sum(p.shape[2] for p in parts.values())), np.float32)
    first = 0
    for name, part in parts.items():
        mine = values[:, :, first : first + part.shape[2]]
        noisy = bool(config.measurement_noise) and name in config.targets
        own, sd, shape = (
            key if name == config.targets[0] else stream(key, name),
            config.measurement_noise,
            mine.shape[1:],
        )
        draw = jax.jit(
            lambda i, k=own, sd=sd, n=shape: sd * jax.random.normal(jax.random.fold_in(k, i), n, jnp.float32)
        )
        for trial in range(trials):
            mine[trial] = part[trial, discard:]
            if noisy:
                mine[trial] += draw(trial)
        first += part.shape[2]
    return values
