"""Scores of a cell's prediction, by steps of current if there are any, beside what the recording itself predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jneuro.core.types import Float
from jneuro.spikes.detection import Detector, away_from_spikes
from jneuro.spikes.distances import coincidence
from jneuro.spikes.protocols import Described, Steps, between, describe, is_repetition, steps_of

__all__ = ["recording_scores"]

TOLERANCE = 4.0
"""Of coincidences [ms]."""


def recording_scores(
    v: Float[np.ndarray, "trial time"],
    current: Float[np.ndarray, "trial time"],
    dt: float,
    *,
    held_out: Sequence[int],
    predicted_v: Float[np.ndarray, "held_out time"],
    predicted_times: Sequence[Float[np.ndarray, " spike"]],
    detector: Detector | None = None,
) -> dict[str, Any]:
    """Score the prediction of the held-out trials, and give the references that the recording offers.

    A trial is scored step by step; where the current does not go in steps, as a whole. The references: the second step
    of a trial as a prediction of the first one, where it repeats it, what came before included; and the mean of a
    trial's two neighbours, where neither is held out. Trials whose spikes are in doubt are neither scored nor used.

    Args:
        v: potentials of all trials of the recording [mV].
        current: their currents.
        dt: time between samples [ms].

    Other Args:
        held_out: trials that were not fitted.
        predicted_v: their predicted potentials [mV].
        predicted_times: their predicted spikes, after the first sample [ms].
        detector: what counts as a spike; by default a crossing of 0 mV.

    Returns:
        `scores` by `model`, `repeat` and `interpolation` (where there are any), each with the root mean square error of
        the rates [Hz], the median error of first spikes [ms] and of the adaptation index, Γ and the root mean square
        error of the potential away from spikes [mV]; `whole`, whether there are no steps; `curve` of the held-out
        trials, None without steps; `doubts` by trial. No scores where all held-out trials are in doubt.
    """
    steps, whole = _pieces(current, dt)
    detected = (detector or Detector())(v, dt)
    sure = [k for k, t in enumerate(held_out) if not detected.doubts[t]]
    trials = np.asarray(held_out, int)[sure]
    found: dict[str, Any] = {
        "scores": {},
        "tolerance_ms": TOLERANCE,
        "trials": trials.tolist(),
        "whole": whole,
        "curve": None,
        "doubts": {str(t): said for t, said in enumerate(detected.doubts) if said},
    }
    if not len(trials):
        return found
    predicted_v, predicted_times = predicted_v[sure], [predicted_times[k] for k in sure]
    length, count = steps.end - steps.begin, v.shape[1]
    every, quiet = describe(detected.times, steps), _quiet(detected.times, count, dt)
    true, model = every.part(trials), describe(predicted_times, steps)
    both = quiet[trials] & _quiet(predicted_times, count, dt)
    scores = {"model": _compared(true, model, length) | {"rmse_mv": _rmse(v[trials], predicted_v, both)}}
    certain = [t for t, said in enumerate(detected.doubts) if not said]
    if is_repetition(current[certain], dt, steps):
        scores["repeat"] = _repeat(v[certain], every.part(certain), steps, quiet[certain], dt)
    inner = [t for t in trials.tolist() if {t - 1, t + 1} <= {*certain} - {*held_out}]
    if inner:
        scores["interpolation"] = _interpolation(v, every, length, quiet, np.array(inner))
    return found | {"scores": scores, "curve": None if whole else _curve(steps.amplitude[trials], true, model)}


def _pieces(current: np.ndarray, dt: float) -> tuple[Steps, bool]:
    """The steps of a protocol; or the whole of each trial, without a current, where there are none."""
    steps = steps_of(current, dt)
    if len(steps.begin):
        return steps, False
    return Steps(np.zeros(1), np.full(1, dt * current.shape[1]), np.full((len(current), 1), np.nan)), True


def _curve(current: np.ndarray, true: Described, model: Described) -> dict[str, Any]:
    """Rates and first spikes over the current of each trial and step."""
    ways = {"true": true, "model": model}
    curve = {f"{n}_{k}": getattr(d, n).tolist() for n in ("rate", "latency") for k, d in ways.items()}
    return {"current": current.tolist(), **curve}


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


def _repeat(v: np.ndarray, every: Described, steps: Steps, quiet: np.ndarray, dt: float) -> dict[str, float]:
    """The second of two equal steps as a prediction of the first."""
    length = steps.end - steps.begin
    first, second = (every.part(range(len(v)), slice(k, k + 1)) for k in (0, 1))
    a, b = (slice(begin, begin + round(length[0] / dt)) for begin in np.round(steps.begin / dt).astype(int))
    return _compared(first, second, length[:1]) | {"rmse_mv": _rmse(v[:, a], v[:, b], quiet[:, a] & quiet[:, b])}


def _interpolation(
    v: np.ndarray, every: Described, length: np.ndarray, quiet: np.ndarray, inner: np.ndarray
) -> dict[str, float]:
    """The mean of both neighbours of some trials as a prediction of them."""
    left, right = inner - 1, inner + 1
    halfway = _compared(every.part(inner), between(every.part(left), every.part(right)), length)
    alike = quiet[inner] & quiet[left] & quiet[right]
    return halfway | {"rmse_mv": _rmse(v[inner], 0.5 * (v[left] + v[right]), alike)}


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan


def _quiet(times: Sequence[np.ndarray], samples: int, dt: float) -> np.ndarray:
    """Which samples are not near a spike."""
    raster = np.zeros((len(times), samples))
    for row, t in zip(raster, times, strict=True):
        row[np.minimum(np.round(t / dt).astype(int), samples - 1)] = 1
    return away_from_spikes(raster, dt)


def _rmse(a: np.ndarray, b: np.ndarray, quiet: np.ndarray) -> float:
    """Root mean square difference of potentials away from spikes [mV]."""
    return float(np.sqrt(np.mean(np.square((a - b)[quiet])))) if quiet.any() else np.nan
