"""The verb: models scored on the test windows, beside baselines and the noise ceiling."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.registry import Block
from jneuro.datasets.windows import Windows
from jneuro.evaluation.baselines import DEFAULTS, fit_baselines
from jneuro.evaluation.comparison import Comparison, compare_ratios, holm
from jneuro.evaluation.forecasts import forecast, targets, window_scores
from jneuro.evaluation.metrics import forecast_scores, ratio_error, sums_by_run
from jneuro.evaluation.results import Metrics
from jneuro.training.kinds import LOSSES

__all__ = ["Evaluation", "evaluate"]


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: `test`, the scores of each model; `baselines`; and `ceiling`.
        baselines: the fitted baselines.
        predictions: every model's and baseline's forecasts of the test windows `[window, horizon, target]`, scaled.
    """

    metrics: Metrics
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
    best baseline (the one of highest R² at the nearest horizon), `skill`, `gain` and a `comparison`; see
    `jneuro.evaluation.Scores`. Differences are taken on the same windows, run by run.

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
    gains = {name: _gain(predictions, name, best, target, runs) for name in predictions} if best is not None else {}
    judged = holm({name: gain for name, gain in gains.items() if name in models})
    further = [LOSSES.block(metric) for metric in metrics]
    for name, score in scores.items():
        if further:
            score |= _further(window_scores(predictors[name], windows, starts, further), further, runs)
        score["leaky"] = windows.leaky
        score["horizons_ms"] = [h * windows.dt for h in windows.horizons]
        score["share_of_ceiling"] = score["r2"] / ceiling["r2"] if ceiling else None
        if best is not None:
            score["skill"] = 1 - (score["rmse_z"] / scores[best]["rmse_z"]) ** 2
            score["gain"] = gains[name].difference
            score["comparison"] = judged.get(name, gains[name])
        if name in models:
            others = [other for other in predictors if other != name]
            score["against"] = {other: _gain(predictions, name, other, target, runs) for other in others}
    found: Metrics = {
        "test": {name: scores[name] for name in models},
        "baselines": {name: scores[name] for name in fitted},
        "ceiling": ceiling,  # pyright: ignore[reportAssignmentType]
    }
    return Evaluation(found, dict(fitted), predictions)


def _further(values: np.ndarray, metrics: Sequence[Block], runs: np.ndarray) -> dict[str, dict[str, float]]:
    """Means of the windows' scores by metric, and standard errors over runs."""
    names = [metric.name.rpartition(":")[2] for metric in metrics]
    count, *sums = sums_by_run(runs, np.ones(len(runs)), *values.T)
    return {
        "metrics": dict(zip(names, map(float, values.mean(0, dtype=float)), strict=True)),
        "metrics_se": {name: ratio_error(total, count) for name, total in zip(names, sums, strict=True)},
    }


def _gain(
    predictions: Mapping[str, np.ndarray], model: str, baseline: str, target: np.ndarray, runs: np.ndarray
) -> Comparison:
    """Difference in R² at the nearest horizon, paired by run."""
    ours, theirs, truth = (x[:, 0].astype(np.float64) for x in (predictions[model], predictions[baseline], target))
    gained = np.square(theirs - truth) - np.square(ours - truth)
    return compare_ratios(*sums_by_run(runs, gained, np.square(truth - truth.mean(0))))
