"""From a recording to windows: what is to be predicted from what, and what may be learned from."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from jneuro.core.config import Config
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Float, Key
from jneuro.datasets.variables import VariableConfig, columns_of, frames_in, series
from jneuro.datasets.windows import Scaling, Windows, fit_scaling, no_scaling, window_starts
from jneuro.recordings.recording import Recording

__all__ = [
    "SPLITS",
    "Fractions",
    "HorizonRange",
    "Horizons",
    "Scale",
    "WindowConfig",
    "split_counts",
    "split_indices",
    "window",
]

SPLITS = ("train", "validation", "test")


class Fractions(Config):
    """Shares of the whole, which sum to one.

    Attributes:
        train: what models, baselines and scaling are fitted on.
        validation: what decides when to stop.
        test: what is scored, once.
    """

    train: float = Field(default=0.7, gt=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test = {total:g}, but shares must sum to 1")
        return self

    def bounds(self, count: int) -> tuple[int, int]:
        """Where training, and then validation, end among `count` things in their order."""
        train = round(count * self.train)
        return train, train + round(count * self.validation)


def split_counts(count: int, fractions: Fractions) -> dict[str, int]:
    """How many of `count` things each split gets.

    Args:
        count: how many there are.
        fractions: the shares.

    Raises:
        ValueError: if a split would be empty, with the number that it takes.
    """
    first, second = fractions.bounds(count)
    counts: dict[str, int] = dict(zip(SPLITS, (first, second - first, count - second), strict=True))
    if empty := [name for name, share in counts.items() if share < 1]:
        least = max(count + 1, int(0.5 / min(fractions.train, fractions.validation)))
        few = (n for n in range(least, least + 10_000) if 0 < fractions.bounds(n)[0] < fractions.bounds(n)[1] < n)
        enough = next(few, 1 / min(fractions.train, fractions.validation, fractions.test))
        raise ValueError(
            f"fractions {fractions.train:g}/{fractions.validation:g}/{fractions.test:g} of {count} "
            f"leave nothing for {empty[0]}; use more runs or a larger share: {enough:.10g} are enough; "
            "one long run can be cut in time, by split = 'time'"
        )
    return counts


def split_indices(count: int, fractions: Fractions, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shuffle `count` things and deal them out.

    Args:
        count: how many.
        fractions: the shares.
        rng: decides the order.

    Returns:
        Ascending indices by split.

    Raises:
        ValueError: if a split would be empty, with the number that it takes.
    """
    counts = split_counts(count, fractions)
    ends = np.cumsum([*counts.values()])[:-1]
    return {n: np.sort(dealt) for n, dealt in zip(counts, np.split(rng.permutation(count), ends), strict=True)}


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


_MOST_FRAMES = 10_000_000
"""Most frames, and most horizons, of a window."""


class _Layout(NamedTuple):
    """Where windows may lie: frames of a run less the discarded ones, and of each split the part of a run that is its.

    Without parts, whole runs, or the windows of all runs end to end, are dealt out.
    """

    frames: int
    length: int
    stride: int
    ahead: int
    parts: dict[str, tuple[int, int]]

    def count(self, first: int, end: int) -> int:
        """How many windows lie from one frame to another."""
        return max(0, (end - first - self.length - self.ahead) // self.stride + 1)


class _Dealt(NamedTuple):
    """Which windows, and of which frames of which runs the training may learn."""

    starts: dict[str, np.ndarray]
    runs: np.ndarray | slice = slice(None)
    frames: slice = slice(None)


class WindowConfig(VariableConfig):
    """How a recording becomes windows; nothing is dropped from it or added to it unless it is asked for.

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
        split: `run`, whole runs are train, validation or test, and only training runs set the scaling; `time`, each run
            is cut in time, for a single long series: the first share trains, windows lie wholly within their share,
            and only the first shares set the scaling; or `report`, the leaky protocol of the report: windows that
            overlap are shuffled before they are split, test data enter the scaling, and runs are laid end to end, so
            that some windows cross from one into the next.
        gap_ms: left out between the shares of the split `time` [ms].
        fractions: shares of the splits.
        scaling: `zscore`; `inputs`, z-scores of what is only observed, while targets keep their unit, as the likelihood
            of counts needs; or `none`.
        neurons: only so many are observed and predicted, evenly spaced among all, and therefore as many of each
            population as its share; null takes all.
    """

    targets: tuple[str, ...] = Field(default=("v",), min_length=1)
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    known: tuple[str, ...] = ()
    discard_ms: float = Field(default=0.0, ge=0)
    measurement_noise: float = Field(default=0.0, ge=0)
    length_ms: float = Field(default=150.0, gt=0)
    stride_ms: float = Field(default=15.0, gt=0)
    horizons_ms: Horizons = (1.0,)
    split: Literal["run", "time", "report"] = "run"
    gap_ms: float = Field(default=0.0, ge=0)
    fractions: Fractions = Fractions()
    scaling: Scale = "zscore"
    neurons: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _nothing_told(self) -> Self:
        """Refuse targets that a model would be told, and a gap that nothing has."""
        if told := [name for name in self.targets if name in self.known]:
            raise ValueError(f"known: {told[0]!r} is a target, so a model would be told what it predicts; leave it out")
        if self.gap_ms and self.split != "time":
            raise ValueError(f"gap_ms = {self.gap_ms:g} has no effect with split = {self.split!r}, but with 'time'")
        return self

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
        length = frames_in("length_ms", self.length_ms, dt)
        if length > _MOST_FRAMES:
            raise ValueError(f"length_ms = {self.length_ms:g} is {length:,} frames, of {_MOST_FRAMES:,} at most")
        match self.horizons_ms:
            case "next_window":
                horizons = tuple(range(1, length + 1))
            case "same_window":
                horizons = tuple(range(1 - length, 1))
            case HorizonRange(first_ms=first, last_ms=last):
                ends = [frames_in("horizons_ms", h, dt, 1 - length) for h in (first, last)]
                if ends[1] - ends[0] > _MOST_FRAMES:
                    raise ValueError(f"horizons_ms has {ends[1] - ends[0]:,} frames, of {_MOST_FRAMES:,} at most")
                horizons = tuple(range(ends[0], ends[1] + 1))
            case times:
                horizons = tuple(frames_in("horizons_ms", h, dt) for h in times)
        if not horizons or list(horizons) != sorted(set(horizons)):
            raise ValueError(f"horizons_ms = {list(horizons)} frames must ascend")
        stride = frames_in("stride_ms", self.stride_ms, dt)
        return frames_in("discard_ms", self.discard_ms, dt, 0), length, stride, horizons

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
        layout = self._layout(duration_ms, dt, runs)
        if self.split == "report":
            return split_counts(layout.count(0, runs * layout.frames), self.fractions)
        if self.split == "run":
            each = layout.count(0, layout.frames)
            return {name: count * each for name, count in split_counts(runs, self.fractions).items()}
        return {name: runs * layout.count(*part) for name, part in layout.parts.items()}

    def _layout(self, duration_ms: float, dt: float, runs: int) -> _Layout:
        """Where windows may lie; refuse what leaves none."""
        dt = self.frame(dt) * dt
        discard, length, stride, horizons = self.frames(dt)
        total, ahead = int(duration_ms / dt + 1e-6), max(horizons[-1], 0)
        frames, reach = total - discard, length + ahead
        if reach > frames:
            raise ValueError(
                f"length_ms = {self.length_ms:g} and the farthest of horizons_ms = {ahead * dt:g} "
                f"do not fit into a run of {duration_ms:g} ms less discard_ms = {self.discard_ms:g}; the recording is "
                f"taken for {runs} runs of {total} frames each"
            )
        if runs * frames >= 2**31:
            raise ValueError(
                f"{runs} runs of {frames:,} frames are more frames than windows can be counted in, {2**31:,}; take "
                "fewer or shorter runs, or a longer frame_ms"
            )
        gap, ends = frames_in("gap_ms", self.gap_ms, dt, 0), (*self.fractions.bounds(frames), frames)
        parts: dict[str, tuple[int, int]] = dict(
            zip(SPLITS, zip((0, ends[0] + gap, ends[1] + gap), ends, strict=True), strict=True)
        )
        layout = _Layout(frames, length, stride, ahead, parts)
        for name, (first, end) in parts.items():
            if self.split == "time" and not layout.count(first, end):
                raise ValueError(
                    f"split = 'time' leaves {max(end - first, 0)} frames of each run for {name}, but a window and its "
                    f"farthest horizon take {reach}; use a larger share, a smaller gap_ms or length_ms, or longer runs"
                )
        return layout

    def _deal(self, duration_ms: float, dt: float, runs: int, rng: np.random.Generator) -> _Dealt:
        """The windows of each split, by their first frame after the discarded ones, runs end to end."""
        layout = self._layout(duration_ms, dt, runs)
        frames, sizes = layout.frames, {"length": layout.length, "stride": layout.stride, "reach": layout.ahead}
        if self.split == "report":
            every = np.arange(layout.count(0, runs * frames), dtype=np.int32) * np.int32(layout.stride)
            dealt = split_indices(len(every), self.fractions, rng)
            return _Dealt({name: every[index] for name, index in dealt.items()})
        if self.split == "run":
            dealt = split_indices(runs, self.fractions, rng)
            return _Dealt({n: window_starts(own, frames, **sizes) for n, own in dealt.items()}, dealt["train"])
        parts = layout.parts.items()
        starts = {n: window_starts(range(runs), frames, **sizes, discard=first, end=end) for n, (first, end) in parts}
        return _Dealt(starts, frames=slice(layout.parts["train"][1]))


def window(recording: Recording, config: WindowConfig, *, key: Key[Array, ""]) -> Windows:
    """Cut a recording into windows and put it on the device, once.

    Args:
        recording: values `[trial, time, feature]`.
        config: how.
        key: decides the measurement noise and the split.

    Returns:
        The windows, by split.

    Raises:
        ValueError: if the recording lacks a variable, is too short, says another number of frames than it has, holds
            values that are not finite where the scaling is learned, a target never changes there, or a run of the test
            is one of the training.
    """
    require_key(key)
    parts = {name: _kept(series(recording, name, config), name, config) for name in config.variables}
    trials = len(parts[config.targets[0]])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(key, "split"))))
    dealt = config._deal(recording.frames * recording.dt, recording.dt, trials, rng)
    dt = config.frame(recording.dt) * recording.dt
    discard, length, _, horizons = config.frames(dt)
    values = _joined(parts, config, discard, stream(key, "measurement"))
    frames, features = values.shape[1:]
    columns = _columns({name: part.shape[2] for name, part in parts.items()})
    _check_values(values, dealt, columns, config, discard)
    learned = values[dealt.runs, dealt.frames].reshape(-1, features)
    scaling = no_scaling(features) if config.scaling == "none" else fit_scaling(learned)
    observed, predicted = ([c for n in names for c in columns[n]] for names in (config.observed, config.targets))
    if config.scaling == "inputs":
        scaling = Scaling(scaling.mean.at[np.array(predicted)].set(0), scaling.scale.at[np.array(predicted)].set(1))
    del learned
    values -= np.asarray(scaling.mean)
    values /= np.asarray(scaling.scale)
    every = list(range(features))
    return Windows(
        values=jnp.asarray(values.reshape(-1, features)),
        starts={name: jnp.asarray(s) for name, s in dealt.starts.items()},
        scaling=scaling,
        length=length,
        horizons=horizons,
        dt=dt,
        frames_per_trial=frames,
        leaky=config.split == "report",
        input_columns=None if observed == every else tuple(observed),
        target_columns=None if predicted == every else tuple(predicted),
        known_columns=tuple(c for name in config.known for c in columns[name]),
    )


def _kept(values: Float[np.ndarray, "trial frame column"], name: str, config: WindowConfig) -> np.ndarray:
    """The columns of the neurons that are observed and predicted; a variable of the whole network stays."""
    whole = config.neurons is None or columns_of(name, 2) == 1
    return values if whole else values[..., config.kept(values.shape[2])]


def _columns(widths: Mapping[str, int]) -> dict[str, range]:
    """The columns of each variable."""
    ends = np.cumsum([*widths.values()]).tolist()
    return {name: range(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def _check_values(
    values: Float[np.ndarray, "trial frame feature"],
    dealt: _Dealt,
    columns: Mapping[str, Sequence[int]],
    config: WindowConfig,
    discard: int,
) -> None:
    """Refuse what cannot be learned from, or would be told in advance."""
    learned = values[dealt.runs, dealt.frames]
    for name, own in columns.items():
        mine = learned[..., own[0] : own[-1] + 1]
        bad = ~np.isfinite(mine)
        if bad.any():
            run, frame, column = np.argwhere(bad)[0]
            run = np.arange(len(values))[dealt.runs][run]
            raise ValueError(
                f"{name} holds {bad.sum()} values that are not finite where the training learns, the first in run {run}"
                f", frame {frame + discard}, column {column}; mend the recording, or leave that run or column out"
            )
        if name in config.targets and (mine == mine[:1, :1]).all():
            raise ValueError(
                f"{name} is a target, but none of its {len(own)} columns ever changes where the training learns; "
                "leave it out of targets"
            )
    if config.split == "run":
        first: dict[int, int] = {}
        split = {int(run): n for n, s in dealt.starts.items() for run in np.unique(s // values.shape[1])}
        for run, content in enumerate(values):
            same = first.setdefault(zlib.crc32(np.ascontiguousarray(content).data), run)
            if split[same] != split[run]:
                raise ValueError(
                    f"run {run} is the same as run {same}, and one is in {split[same]}, the other in {split[run]}; "
                    "leave one out"
                )


def _joined(
    parts: Mapping[str, np.ndarray], config: WindowConfig, discard: int, key: Key[Array, ""]
) -> Float[np.ndarray, "trial frame feature"]:
    """Copy all variables, without the discarded beginning, the targets with measurement noise, trial by trial."""
    trials, frames = next(iter(parts.values())).shape[:2]
    values = np.empty((trials, frames - discard, sum(p.shape[2] for p in parts.values())), np.float32)
    sd = config.measurement_noise
    for name, columns in _columns({name: part.shape[2] for name, part in parts.items()}).items():
        mine = values[:, :, columns[0] : columns[-1] + 1]
        own = key if name == config.targets[0] else stream(key, name)
        draw = jax.jit(
            lambda i, k=own, n=mine.shape[1:]: sd * jax.random.normal(jax.random.fold_in(k, i), n, jnp.float32)
        )
        for trial in range(trials):
            mine[trial] = parts[name][trial, discard:]
            if sd and name in config.targets:
                mine[trial] += draw(trial)
    return values
