"""The verb: models scored on the test windows, beside baselines and the noise ceiling."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jneuro.datasets.windows import Windows
from jneuro.evaluation.baselines import BaselineConfig, fit_baselines
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import forecast_scores, ratio_error

__all__ = ["Evaluation", "evaluate"]


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: `test`, the scores of each model; `baselines`; and `ceiling`.
        baselines: the fitted baselines.
        predictions: every model's and baseline's forecasts of the test windows `[window, horizon, target]`, scaled.
    """

    metrics: dict[str, Any]
    baselines: dict[str, Callable]
    predictions: dict[str, np.ndarray]


def evaluate(
    models: Mapping[str, Callable],
    windows: Windows,
    *,
    baselines: BaselineConfig | None = BaselineConfig(),  # noqa: B008, frozen
    ceiling: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score models on the test windows.

    Beside the scores of `forecast_scores`, every entry has `horizons_ms`, `leaky`, `share_of_ceiling` and, against the
    best baseline (the one of highest R² at the nearest horizon), `skill`, the share of its squared error that is gone,
    and `gain`, the difference in R², with a standard error (`gain_se`) from the same windows of both, run by run.

    Args:
        models: trained models by name.
        windows: the data.

    Other Args:
        baselines: which to fit on the training windows; None fits none.
        ceiling: the noise ceiling, as `ceiling_scores` returns it.

    Returns:
        The scores, and what they were computed from.
    """
    starts = windows.starts["test"]
    runs = np.asarray(starts) // windows.frames_per_trial
    target, scale = targets(windows, starts), np.asarray(windows.target_scaling.scale)
    fitted = {} if baselines is None else fit_baselines(windows, baselines)
    predictions = {name: forecast(model, windows, starts) for name, model in (fitted | dict(models)).items()}
    scores = {name: forecast_scores(p, target, scale, runs) for name, p in predictions.items()}
    best = max(fitted, key=lambda name: scores[name]["r2"], default=None)
    for name, score in scores.items():
        score["leaky"] = windows.leaky
        score["horizons_ms"] = [h * windows.dt for h in windows.horizons]
        score["share_of_ceiling"] = score["r2"] / ceiling["r2"] if ceiling else None
        if best is not None:
            score["skill"] = 1 - (score["rmse_z"] / scores[best]["rmse_z"]) ** 2
            score["gain"], score["gain_se"] = _gain(predictions[name], predictions[best], target, runs)
    metrics = {
        "test": {name: scores[name] for name in models},
        "baselines": {name: scores[name] for name in fitted},
        "ceiling": ceiling,
    }
    return Evaluation(metrics, dict(fitted), predictions)


def _gain(model: np.ndarray, baseline: np.ndarray, target: np.ndarray, runs: np.ndarray) -> tuple[float, float]:
    """Difference in R² at the nearest horizon, paired, and its standard error."""
    model, baseline, target = (x[:, 0].astype(np.float64) for x in (model, baseline, target))
    _, cluster = np.unique(runs, return_inverse=True)
    gained = np.bincount(cluster, np.sum(np.square(baseline - target) - np.square(model - target), axis=1))
    spread = np.bincount(cluster, np.sum(np.square(target - target.mean(0)), axis=1))
    return float(gained.sum() / spread.sum()), ratio_error(gained, spread)
