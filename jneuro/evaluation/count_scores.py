"""Scores of predicted spike counts: squared error, Poisson deviance and bits per spike, by population and by size."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from jneuro.core.types import Float, Int
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.count_ceiling import count_ceiling, futures_of_counts
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import interval, ratio_error
from jneuro.recordings import open_recording

__all__ = ["CountScores", "mean_rate", "score_counts"]


class CountScores(Analysis):
    """The next bin's counts, by every model of every seed, the baselines, and the best that could be.

    Attributes:
        floor: no prediction is less than this share of the neuron's mean rate where its logarithm is taken: linear
            predictors and the squared-error head may be negative. The same for all predictors.
        futures: of each state, for the ceiling; even.
        max_states: at most so many states of each test run.
    """

    name: Literal["count_scores"] = "count_scores"
    floor: float = Field(default=0.05, gt=0, lt=1)
    futures: int = Field(default=256, ge=4, multiple_of=2)
    max_states: int = Field(default=10, ge=2)

    def check(self, windows: WindowConfig, models) -> None:
        """Needs counts as they are."""
        if windows.targets != ("spikes",) or windows.measurement_noise:
            raise ValueError("count_scores needs targets: [spikes] and measurement_noise: 0")

    def analyse(self, study: Study) -> Findings:
        """Score everything on all neurons it predicts, on each population, and on the neurons that all predict."""
        data = open_recording(study.recording)
        total = data.sizes["neuron"]
        main = study.windows
        # A model with windows of its own for another bin is no model of these counts.
        same = {n: w for n, w in study.windows_of.items() if (w.dt, w.horizons[0]) == (main.dt, main.horizons[0])}
        kept = {n: _kept(study, w, total) for n, w in same.items()}
        main = _kept(study, study.windows, total)
        groups = {"all": np.ones(total, bool)}
        for label, title in data["population"].attrs["meaning"].items() if "population" in data else ():
            groups[title] = np.asarray(data["population"]) == int(label)
        groups["shared"] = np.bincount(np.concatenate([main, *kept.values()]), minlength=total) == len(kept) + 1
        rate = np.ones(total)
        rate[main] = mean_rate(_counts(study.windows, targets(study.windows, study.windows.starts["train"])))
        found = {}
        for name, baseline in study.baselines.items():
            found[name] = {"kind": "baseline"} | self._score(study, name, [baseline], study.windows, main, rate, groups)
        for name, mine in kept.items():
            study.tell(f"counts of {name}")
            windows, models = study.windows_of[name], study.models[name]
            found[name] = {"kind": "model"} | self._score(study, name, models, windows, mine, rate, groups)
        numbers: dict[str, Any] = {
            "settings": {
                "bin_ms": study.windows.dt,
                "neurons": len(main),
                "shared": int(groups["shared"].sum()),
                "spikes_per_bin": float(rate[main].mean()),
                "test_runs": len(study.windows.trials("test")),
                "floor": self.floor,
                "futures": self.futures,
            },
            "predictors": found,
            "ceiling": None,
        }
        study.tell("ceiling of counts")
        halves = futures_of_counts(study, self.futures, self.max_states)
        if halves is not None:
            mine = np.isin(np.arange(total), main)
            numbers["ceiling"] = {n: count_ceiling(halves, rate, self.futures, g & mine) for n, g in groups.items()}
        return Findings(numbers)

    def _score(self, study, name, predictors, windows: Windows, kept, rate, groups) -> dict[str, Any]:
        """One model's scores by group: the first seed's, with the bits of all seeds."""
        starts = windows.starts["test"]
        truth = _counts(windows, targets(windows, starts))
        runs = np.asarray(starts) // windows.frames_per_trial
        inside = {group: mask[kept] for group, mask in groups.items() if mask[kept].any()}
        every = []
        for seed, predictor in enumerate(predictors):
            scaled = forecast(predictor, windows, starts) if seed else study.predictions[name]
            predicted = _counts(windows, scaled)
            every.append(
                {
                    group: score_counts(predicted[:, m], truth[:, m], rate[kept][m], runs, self.floor)
                    for group, m in inside.items()
                }
            )
        for group in inside:
            bits = [scores[group]["bits"] for scores in every]
            every[0][group] |= {"seeds": bits, "seeds_mean": float(np.mean(bits)), "seeds_ci95": interval(bits)}
        return {"neurons": len(kept), "features": windows.features, "groups": every[0]}


def _kept(study: Study, windows: Windows, total: int) -> Int[np.ndarray, " neuron"]:
    """The neurons that windows predict."""
    return study.config.model_copy(update={"neurons": windows.outputs}).kept(total)


def _counts(windows: Windows, values: np.ndarray) -> Float[np.ndarray, "window neuron"]:
    """Counts at the nearest horizon, in spikes."""
    scaling = windows.target_scaling
    return values[:, 0].astype(np.float64) * np.asarray(scaling.scale) + np.asarray(scaling.mean)


def mean_rate(counts: Float[np.ndarray, "window neuron"]) -> Float[np.ndarray, " neuron"]:
    """Mean count of every neuron; one that never fires is given half a spike.

    Args:
        counts: of training runs.

    Returns:
        The means, positive.
    """
    return np.maximum(counts.sum(0), 0.5) / len(counts)


def score_counts(
    predicted: Float[np.ndarray, "window neuron"],
    truth: Float[np.ndarray, "window neuron"],
    rate: Float[np.ndarray, " neuron"],
    runs: Int[np.ndarray, " window"],
    floor: float,
) -> dict[str, float]:
    r"""Score predicted counts.

    With \(\lambda\) the prediction, no less than `floor` of the rate, and \(m\) the rate:

    \[ D = \langle 2\,(y \log(y/\lambda) - y + \lambda) \rangle, \qquad \mathrm{bits} = \frac{\sum y \log(\lambda/m) -
    \lambda + m}{\log 2 \; \sum y}. \]

    Args:
        predicted: the expected counts; the squared error takes them as they are.
        truth: what came.
        rate: each neuron's mean count in training runs.
        runs: the run of each window, the independent clusters of the standard errors.
        floor: see above.

    Returns:
        `mse`, `deviance` (a bin), `bits` (per spike, over the mean rate), each with its standard error (`_se`), and
        `r2`, the share of the mean rate's squared error that is explained.
    """
    expected = np.maximum(predicted, floor * rate)
    squared = np.square(predicted - truth)
    deviance = 2 * (truth * np.log(np.where(truth > 0, truth, 1) / expected) - truth + expected)
    gain = truth * np.log(expected / rate) - expected + rate
    _, cluster = np.unique(runs, return_inverse=True)
    sums = {
        "mse": (squared, np.ones_like(truth)),
        "deviance": (deviance, np.ones_like(truth)),
        "bits": (gain, truth * np.log(2)),
    }
    found = {}
    for name, pair in sums.items():
        a, b = (np.bincount(cluster, x.sum(1)) for x in pair)
        found |= {name: float(a.sum() / b.sum()), f"{name}_se": ratio_error(a, b)}
    return found | {"r2": float(1 - squared.sum() / np.square(truth - rate).sum())}
