"""The verb: models scored on the test windows, beside baselines and the noise ceiling."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.registry import Block
from jneuro.datasets.windows import Windows
from jneuro.evaluation.baselines import DEFAULTS, fit_baselines
from jneuro.evaluation.forecasts import forecast, targets, window_scores
from jneuro.evaluation.metrics import forecast_scores, ratio_error
from jneuro.training.kinds import LOSSES

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
    baselines: Sequence[Any] | None = DEFAULTS,
    metrics: Sequence[Any] = (),
    ceiling: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score models on the test windows.

    Beside the scores of `forecast_scores`, every entry has `horizons_ms`, `leaky`, `share_of_ceiling` and, against the
    best baseline (the one of highest R² at the nearest horizon), `skill`, the share of its squared error that is gone,
    and `gain`, the difference in R², with a standard error (`gain_se`) from the same windows of both, run by run.

    Args:
        models: trained models by name: what is called as `model(batch, train=False)` or `model(batch)`.
        windows: the data.

    Other Args:
        baselines: which to fit on the training windows; None fits none. Names of `BASELINES`, `module:name` of your
            own, mappings of a name with its arguments, or objects with a method `fit(windows)` that returns a model.
        metrics: further scores of each window, `(prediction, batch) -> [batch]`, by name or as functions. Their means
            stand in `metrics` of each entry, with standard errors over runs in `metrics_se`.
        ceiling: the noise ceiling, as `ceiling_scores` returns it.

    Returns:
        The scores, and what they were computed from.

    Raises:
        ValueError: if the test windows hold values that are not finite, a baseline does not fit the windows, a model
            and a baseline have one name, or a prediction has another shape than the targets.
    """
    windows.check_finite("test")
    starts = windows.starts["test"]
    runs = np.asarray(starts) // windows.frames_per_trial
    target, scale = targets(windows, starts), np.asarray(windows.target_scaling.scale)
    fitted = {} if baselines is None else fit_baselines(windows, baselines)
    if both := sorted(fitted.keys() & models.keys()):
        raise ValueError(f"a model and a baseline are both called {both[0]!r}; give the model another name")
    predictors = fitted | dict(models)
    predictions = {name: forecast(model, windows, starts) for name, model in predictors.items()}
    scores = {name: forecast_scores(p, target, scale, runs) for name, p in predictions.items()}
    best = max(fitted, key=lambda name: scores[name]["r2"], default=None)
    further = [LOSSES.block(metric) for metric in metrics]
    for name, score in scores.items():
        if further:
            score |= _further(window_scores(predictors[name], windows, starts, further), further, runs)
        score["leaky"] = windows.leaky
        score["horizons_ms"] = [h * windows.dt for h in windows.horizons]
        score["share_of_ceiling"] = score["r2"] / ceiling["r2"] if ceiling else None
        if best is not None:
            score["skill"] = 1 - (score["rmse_z"] / scores[best]["rmse_z"]) ** 2
            score["gain"], score["gain_se"] = _gain(predictions[name], predictions[best], target, runs)
    found = {
        "test": {name: scores[name] for name in models},
        "baselines": {name: scores[name] for name in fitted},
        "ceiling": ceiling,
    }
    return Evaluation(found, dict(fitted), predictions)


def _further(values: np.ndarray, metrics: Sequence[Block], runs: np.ndarray) -> dict[str, dict[str, float]]:
    """Means of the windows' scores by metric, and standard errors over runs."""
    _, cluster = np.unique(runs, return_inverse=True)
    names = [metric.name.rpartition(":")[2] for metric in metrics]
    count = np.bincount(cluster).astype(float)
    errors = [ratio_error(np.bincount(cluster, column), count) for column in values.T.astype(float)]
    return {
        "metrics": dict(zip(names, map(float, values.mean(0, dtype=float)), strict=True)),
        "metrics_se": dict(zip(names, errors, strict=True)),
    }


def _gain(model: np.ndarray, baseline: np.ndarray, target: np.ndarray, runs: np.ndarray) -> tuple[float, float]:
    """Difference in R² at the nearest horizon, paired, and its standard error."""
    model, baseline, target = (x[:, 0].astype(np.float64) for x in (model, baseline, target))
    _, cluster = np.unique(runs, return_inverse=True)
    gained = np.bincount(cluster, np.sum(np.square(baseline - target) - np.square(model - target), axis=1))
    spread = np.bincount(cluster, np.sum(np.square(target - target.mean(0)), axis=1))
    return float(gained.sum() / spread.sum()), ratio_error(gained, spread)
