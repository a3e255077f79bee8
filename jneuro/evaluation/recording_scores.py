"""Scores of a cell's prediction under steps of current, beside what the recording itself can predict of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.types import Bool, Float
from jneuro.evaluation.spike_matching import coincidence, crossings

__all__ = ["Described", "Steps", "describe", "recording_scores", "steps_of"]

_SHORTEST = 100.0
"""A step lasts at least so long [ms]."""
_BEFORE, _AFTER = 3.0, 12.0
"""How long before and after a spike the potential is not compared [ms]."""
TOLERANCE = 4.0
"""Of coincidences [ms]."""


class Steps(NamedTuple):
    """Stretches of constant current that differ from trial to trial.

    Attributes:
        begin: of each, after the first sample [ms].
        end: of each [ms].
        amplitude: the current of each trial.
    """

    begin: Float[np.ndarray, " step"]
    end: Float[np.ndarray, " step"]
    amplitude: Float[np.ndarray, "trial step"]


def steps_of(current: Float[np.ndarray, "trial time"], dt: float) -> Steps:
    """Find the steps of a protocol: constant in every trial, not the same in all, and not too short.

    Args:
        current: of all trials.
        dt: time between samples [ms].

    Returns:
        The steps; none where the current is the same in all trials, or changes all the time.
    """
    changes = np.flatnonzero((np.diff(current, axis=1) != 0).any(0)) + 1
    edges = np.concatenate([[0], changes, [current.shape[1]]])
    long = np.flatnonzero(np.diff(edges) * dt >= _SHORTEST)
    found = [(edges[k], edges[k + 1]) for k in long if np.ptp(current[:, edges[k]]) > 0]
    begin, end = np.array(found, int).reshape(-1, 2).T
    return Steps(dt * begin, dt * end, current[:, begin])


class Described(NamedTuple):
    """What a cell did in each step of each trial.

    Attributes:
        rate: spikes by the step's length [Hz].
        latency: from the step's beginning to the first spike [ms]; NaN without one.
        adaptation: mean of the change of successive intervals by their sum; NaN with fewer than three spikes.
        trains: times of the spikes after the step's beginning [ms], by trial and step.
    """

    rate: Float[np.ndarray, "trial step"]
    latency: Float[np.ndarray, "trial step"]
    adaptation: Float[np.ndarray, "trial step"]
    trains: list[list[Float[np.ndarray, " spike"]]]


def describe(times: Sequence[Float[np.ndarray, " spike"]], steps: Steps) -> Described:
    """Describe the spikes of every trial.

    Args:
        times: of the spikes of every trial, after the first sample [ms].
        steps: the protocol's steps.

    Returns:
        The description.
    """
    trains = [[t[(t >= b) & (t < e)] - b for b, e in zip(steps.begin, steps.end, strict=True)] for t in times]
    return _described(trains, steps)


def _described(trains: list[list[np.ndarray]], steps: Steps) -> Described:
    shape = (len(trains), len(steps.begin))
    length = steps.end - steps.begin
    rate = np.array([[1e3 * len(t) / x for t, x in zip(row, length, strict=True)] for row in trains])
    latency = np.array([[t[0] if len(t) else np.nan for t in row] for row in trains])
    adaptation = np.array([[_adaptation(t) for t in row] for row in trains])
    return Described(rate.reshape(shape), latency.reshape(shape), adaptation.reshape(shape), trains)


def _adaptation(times: np.ndarray) -> float:
    interval = np.diff(times)
    return float(np.mean(np.diff(interval) / (interval[1:] + interval[:-1]))) if len(interval) > 1 else np.nan


def _between(first: Described, second: Described, steps: Steps) -> Described:
    """Halfway between two descriptions: the n-th spike lies between the n-th ones, as far as both have it."""
    trains = [
        [0.5 * (a[: len(b)] + b[: len(a)]) for a, b in zip(*rows, strict=True)]
        for rows in zip(first.trains, second.trains, strict=True)
    ]
    halves = [0.5 * (a + b) for a, b in zip(first[:3], second[:3], strict=True)]
    return Described._make([*halves, trains])


def _compared(true: Described, other: Described, length: np.ndarray) -> dict[str, float]:
    """The scores of one description as a prediction of another."""
    gamma = [
        coincidence(a, b, tolerance=TOLERANCE, duration=float(x))
        for rows in zip(true.trains, other.trains, strict=True)
        for a, b, x in zip(*rows, length, strict=True)
    ]
    return {
        "rate_rms_hz": float(np.sqrt(np.mean(np.square(other.rate - true.rate)))),
        "latency_ms": _median(np.abs(other.latency - true.latency)),
        "adaptation": _median(np.abs(other.adaptation - true.adaptation)),
        "gamma": float(np.nanmean(gamma)) if np.isfinite(gamma).any() else np.nan,
    }


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan


def _quiet(times: np.ndarray, samples: int, dt: float) -> Bool[np.ndarray, " time"]:
    """Which samples are not near a spike."""
    quiet = np.ones(samples, bool)
    for t in times:
        quiet[max(round((t - _BEFORE) / dt), 0) : round((t + _AFTER) / dt) + 1] = False
    return quiet


def _rmse(a: np.ndarray, b: np.ndarray, quiet: np.ndarray) -> float:
    """Root mean square difference of potentials away from spikes [mV]."""
    return float(np.sqrt(np.mean(np.square((a - b)[quiet])))) if quiet.any() else np.nan


def recording_scores(
    v: Float[np.ndarray, "trial time"],
    current: Float[np.ndarray, "trial time"],
    dt: float,
    *,
    held_out: Sequence[int],
    predicted_v: Float[np.ndarray, "held_out time"],
    predicted_times: Sequence[Float[np.ndarray, " spike"]],
) -> dict[str, Any] | None:
    """Score the prediction of the held-out trials, and give the references that the recording offers.

    The references: the second step of a trial as a prediction of the first one, where both have the same current; and
    the mean of a trial's two neighbours, where neither is held out.

    Args:
        v: potentials of all trials of the recording [mV].
        current: their currents.
        dt: time between samples [ms].

    Other Args:
        held_out: trials that were not fitted.
        predicted_v: their predicted potentials [mV].
        predicted_times: their predicted spikes, after the first sample [ms].

    Returns:
        `scores` by `model`, `repeat` and `interpolation` (where there are any), each with the root mean square error of
        the rates [Hz], the median error of first spikes [ms] and of the adaptation index, Γ and the root mean square
        error of the potential away from spikes [mV]; `curve` of the held-out trials; None without steps.
    """
    steps = steps_of(current, dt)
    if not len(steps.begin):
        return None
    trials, length = np.asarray(held_out), steps.end - steps.begin
    times = [crossings(x, dt) for x in v]
    every = describe(times, steps)
    true, model = _of(every, trials), describe(predicted_times, steps)
    quiet = np.stack([_quiet(t, v.shape[1], dt) for t in times])
    both = quiet[trials] & np.stack([_quiet(t, v.shape[1], dt) for t in predicted_times])
    found = {"model": _compared(true, model, length) | {"rmse_mv": _rmse(v[trials], predicted_v, both)}}
    if (repeat := _repeat(v, every, steps, quiet, dt)) is not None:
        found["repeat"] = repeat
    inner = [t for t in trials if 0 < t < len(v) - 1 and t - 1 not in trials and t + 1 not in trials]
    if inner:
        left, right = np.array(inner) - 1, np.array(inner) + 1
        scores = _compared(_of(every, np.array(inner)), _between(_of(every, left), _of(every, right), steps), length)
        alike = quiet[inner] & quiet[left] & quiet[right]
        found["interpolation"] = scores | {"rmse_mv": _rmse(v[inner], 0.5 * (v[left] + v[right]), alike)}
    curve = {
        "current": steps.amplitude[trials].tolist(),
        **{
            f"{n}_{k}": getattr(d, n).tolist()
            for n in ("rate", "latency")
            for k, d in (("true", true), ("model", model))
        },
    }
    return {"scores": found, "curve": curve, "tolerance_ms": TOLERANCE, "trials": [int(t) for t in trials]}


def _of(described: Described, trials: np.ndarray) -> Described:
    return Described._make([*(x[trials] for x in described[:3]), [described.trains[t] for t in trials]])


def _repeat(v, every: Described, steps: Steps, quiet, dt: float) -> dict[str, float] | None:
    """The second of two equal steps as a prediction of the first."""
    length = steps.end - steps.begin
    if len(length) != 2 or not np.isclose(*length) or not np.allclose(*steps.amplitude.T):
        return None
    first, second = (
        Described._make([*(x[:, k : k + 1] for x in every[:3]), [row[k : k + 1] for row in every.trains]])
        for k in (0, 1)
    )
    a, b = (slice(begin, begin + round(length[0] / dt)) for begin in np.round(steps.begin / dt).astype(int))
    return _compared(first, second, length[:1]) | {"rmse_mv": _rmse(v[:, a], v[:, b], quiet[:, a] & quiet[:, b])}
