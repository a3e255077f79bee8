"""Scores of rollouts against the trajectories that they should follow."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jneuro.core.types import Float, Int
from jneuro.spikes.detection import crossings
from jneuro.spikes.distances import match_spikes, van_rossum, victor_purpura

__all__ = ["Predict", "RolloutScores", "Sample", "score_rollouts", "valid_frames"]

Predict = Callable[[Int[np.ndarray, " example"]], Float[np.ndarray, "example step state"]]
"""From examples to what is predicted of them, in the recording's units."""


class Sample(NamedTuple):
    """Trajectories under constant currents, and the moments from which they are to be predicted.

    Attributes:
        values: the trajectories, in the recording's units; the states come first, then what drives them.
        regime: of each current, by its place.
        current: of each example, by its place.
        now: of each example, its last observed frame.
    """

    values: Float[np.ndarray, "current frame column"]
    regime: Int[np.ndarray, " current"]
    current: Int[np.ndarray, " example"]
    now: Int[np.ndarray, " example"]

    def cut(
        self, index: Int[np.ndarray, " example"], first: int, count: int
    ) -> Float[np.ndarray, "example frame column"]:
        """`count` frames of some examples, from `first` frames after the last observed one."""
        frames = self.now[index][:, None] + first + np.arange(count)
        return self.values[self.current[index][:, None], frames]


class RolloutScores(NamedTuple):
    """How good a predictor's rollouts are.

    Attributes:
        squared: mean squared error of the z-scored states, over a current's examples, in bins of 1 ms.
        by_current: means over a current's examples: `valid_ms`, `coincidence` (matched spikes over the mean number of
            predicted and true ones), `spike_error_ms` (mean distance of matched spikes), `van_rossum`,
            `victor_purpura`, `spikes` and `true_spikes` (how many).
        scale: of the z-scores.
    """

    squared: Float[np.ndarray, "current bin state"]
    by_current: Mapping[str, Float[np.ndarray, " current"]]
    scale: Float[np.ndarray, " state"]


def score_rollouts(
    predict: Predict,
    sample: Sample,
    scale: Float[np.ndarray, " state"],
    dt: float,
    steps: int,
    *,
    batch_size: int,
    valid_error: float,
    tolerance: float,
    tau: float,
    cost: float,
) -> RolloutScores:
    """Predict all examples, batch by batch, and keep what is scored.

    Args:
        predict: the predictor.
        sample: the examples.
        scale: standard deviations of the states, which make errors comparable; the potential is the first state.
        dt: time between frames [ms].
        steps: frames that are predicted.

    Other Args:
        batch_size: examples predicted together.
        valid_error: see `valid_frames`.
        tolerance: spikes farther apart do not match [ms].
        tau: time constant of van Rossum's distance [ms].
        cost: of moving a spike, in Victor and Purpura's distance [1/ms].

    Returns:
        The scores.
    """
    count, states, frames_per_bin = len(sample.current), len(scale), max(1, round(1 / dt))
    bins = max(1, steps // frames_per_bin)
    squared = np.zeros((len(sample.values), bins, states))
    single: dict[str, list[float]] = {}
    for first in range(0, count, batch_size):
        # The last batch is filled up, so that all compile once.
        index = np.minimum(np.arange(first, first + min(batch_size, count)), count - 1)
        kept = min(batch_size, count - first)
        truth = sample.cut(index[:kept], 1, steps)[..., :states]
        error = ((predict(index)[:kept] - truth) / scale).astype(np.float64)
        binned = np.square(error[:, : bins * frames_per_bin]).reshape(kept, bins, -1, states).mean(2)
        np.add.at(squared, sample.current[index[:kept]], binned)
        single.setdefault("valid_ms", []).extend(valid_frames(error, valid_error) * dt)
        potential = truth[..., 0] + error[..., 0] * scale[0]
        for v, w in zip(truth[..., 0], potential, strict=True):
            for name, value in _spike_scores(crossings(v, dt), crossings(w, dt), tolerance, tau, cost).items():
                single.setdefault(name, []).append(value)
    number = np.bincount(sample.current, minlength=len(sample.values))
    squared /= number[:, None, None]
    by_current = {n: _by_current(np.asarray(v), sample.current, len(number)) for n, v in single.items()}
    return RolloutScores(squared, by_current, scale)


def valid_frames(error: Float[np.ndarray, "example frame state"], limit: float) -> Int[np.ndarray, " example"]:
    """Frames until the error first exceeds a limit.

    Args:
        error: of the z-scored states.
        limit: of the root mean square over the states.

    Returns:
        The frames before it; all where it never does.
    """
    wrong = np.sqrt(np.square(error).mean(2)) > limit
    return np.where(wrong.any(1), wrong.argmax(1), error.shape[1])


def _spike_scores(
    truth: np.ndarray, predicted: np.ndarray, tolerance: float, tau: float, cost: float
) -> dict[str, float]:
    errors, total = match_spikes(truth, predicted, tolerance).errors, len(truth) + len(predicted)
    return {
        "coincidence": 2 * len(errors) / total if total else 1.0,
        "spike_error_ms": float(np.abs(errors).mean()) if len(errors) else np.nan,
        "van_rossum": float(van_rossum(truth, predicted, tau)),
        "victor_purpura": victor_purpura(truth, predicted, cost),
        "spikes": float(len(predicted)),
        "true_spikes": float(len(truth)),
    }


def _by_current(values: np.ndarray, current: np.ndarray, count: int) -> Float[np.ndarray, " current"]:
    """Mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    total = np.bincount(current[finite], values[finite], minlength=count)
    number = np.bincount(current[finite], minlength=count)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)
