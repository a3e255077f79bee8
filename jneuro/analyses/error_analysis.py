"""Where a voltage forecast is wrong: by population, by the time since the last spike, by the distance to threshold."""

from typing import Literal

import numpy as np
from pydantic import Field

from jneuro.core.types import Float, Int
from jneuro.datasets import WindowConfig
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.forecasts import targets
from jneuro.evaluation.metrics import ratio_error
from jneuro.recordings import open_recording, populations_of, read_recording
from jneuro.report.components import Plot, Section
from jneuro.report.style import COLOURS, GREY, panels

_TEXT = """
{% for population, best in best_of.items() %}
Of {{ population }} neurons, {{ best }} has the highest R², {{ populations[population][best] | fixed(4) }}.

{% endfor %}
"""

_ALT = (
    "Root-mean-square error of the best model and the best baseline against the time since the last spike and, "
    "where a threshold is given, against the distance to it."
)
_CAPTION = (
    "Error should be largest just below threshold, where a spike may or may not come, and a model that listens to "
    "other neurons should gain there most."
)

__all__ = ["ErrorAnalysis", "binned_error", "time_since_spike"]


class ErrorAnalysis(Analysis):
    """The error at the nearest horizon, split by what the neuron was doing at the end of the window.

    Attributes:
        bins: quantile bins of the time since the last spike and of the voltage below threshold.
        threshold: of the spikes, in the target's unit; null leaves the distance to it out.
    """

    name: Literal["error_analysis"] = "error_analysis"
    bins: int = Field(default=12, ge=2)
    threshold: float | None = None

    def check(self, windows: WindowConfig, models) -> None:
        """Needs one variable that is also observed."""
        if windows.observed[:1] != windows.targets:
            raise ValueError("error_analysis needs one variable, which is observed and predicted")

    def compute(self, study: Study) -> Findings:
        """Squared errors of every predictor in bins, over test windows and neurons."""
        windows, starts = study.windows, np.asarray(study.windows.starts["test"])
        scaling = windows.target_scaling
        scale = np.asarray(scaling.scale, np.float64)
        truth = targets(windows, starts)[:, 0] * scale
        runs = starts // windows.frames_per_trial
        last = starts + windows.length - 1
        present = np.asarray(windows.values)[last][:, : windows.outputs] * scale + np.asarray(scaling.mean)
        data = open_recording(study.recording)
        predictions = {n: p for n, p in study.predictions.items() if study.windows_of.get(n, windows) is windows}
        groups = {} if self.threshold is None else {"distance": self.threshold - present}
        spikes = np.asarray(read_recording(study.recording, ("spikes",)).values["spikes"])
        discard = round(study.config.discard_ms / windows.dt)
        since = time_since_spike(spikes) * windows.dt
        groups["since_spike"] = since[runs, last % windows.frames_per_trial + discard]
        score = {n: (study.metrics["baselines"] | study.metrics["test"])[n]["r2"] for n in predictions}
        kinds = [[n for n in predictions if (n in study.baselines) == baseline] for baseline in (False, True)]
        shown = [max(names, key=lambda n: np.nan_to_num(score[n], nan=-np.inf)) for names in kinds if names]
        unit = study.metrics["test"][kinds[0][0]]["unit"] if kinds[0] else ""
        numbers: dict = {"populations": {}, "shown": shown, "unit": unit}
        arrays = {}
        for name, value in groups.items():
            edges = np.unique(np.quantile(value[np.isfinite(value)], np.linspace(0, 1, self.bins + 1)))
            arrays[f"{name}_edges"] = ((f"{name}_edge",), edges)
            for predictor, forecast in predictions.items():
                rmse, se, r2 = binned_error(forecast[:, 0] * scale - truth, truth, value, edges, runs)
                for what, values in {"rmse": rmse, "rmse_se": se, "r2": r2}.items():
                    arrays[f"{name}.{what}.{predictor}"] = ((f"{name}_bin",), values)
        for title, mask in populations_of(data).items():
            numbers["populations"][title] = {
                predictor: 1
                - float(
                    np.square((forecast[:, 0] * scale - truth)[:, mask]).sum()
                    / np.square(truth - truth.mean(0))[:, mask].sum()
                )
                for predictor, forecast in predictions.items()
                if mask.any()
            }
        return Findings(numbers, arrays)

    def section(self, findings: Findings) -> Section:
        """The best predictor of each population, and errors of the best model and the best baseline."""
        unit = findings.numbers["unit"]
        titles = {"since_spike": "time since the last spike [ms]", "distance": f"distance to threshold [{unit}]"}
        titles = {group: title for group, title in titles.items() if f"{group}_edges" in findings.arrays}
        figure, axes = panels(2.3 * len(titles), rows=len(titles))
        for ax, (group, title) in zip(axes, titles.items(), strict=True):
            edges = findings.arrays[f"{group}_edges"][1]
            centre = 0.5 * (edges[1:] + edges[:-1])
            # The model above the baseline, which is wider, so that both are seen where they are alike.
            styles = ({"color": COLOURS[0], "zorder": 3}, {"color": GREY, "linewidth": 3, "alpha": 0.6})
            for name, style in zip(findings.numbers["shown"], styles, strict=False):
                rmse, se = (findings.arrays[f"{group}.{what}.{name}"][1] for what in ("rmse", "rmse_se"))
                ax.errorbar(centre, rmse, se, marker="o", markersize=4, label=name, **style)
            ax.set_xlabel(title)
            ax.set_ylabel(f"RMSE [{unit}]")
            if group == "since_spike":
                ax.set_xscale("symlog", linthresh=1.0)
        axes[0].legend(frameon=False, fontsize=9)
        populations = findings.numbers["populations"]
        best = {p: max(s, key=lambda n: -np.inf if s[n] is None else s[n]) for p, s in populations.items()}
        plot = Plot("error_analysis", "Error by what the neuron was doing", _ALT, _CAPTION, figure)
        return Section("Where the forecast is wrong", _TEXT, (plot,), {"best_of": best})


def time_since_spike(spikes: Int[np.ndarray, "trial frame neuron"]) -> Float[np.ndarray, "trial frame neuron"]:
    """Frames since each neuron's last spike.

    Args:
        spikes: counts; a spike in the frame itself is zero frames ago.

    Returns:
        The frames; infinite before the first spike.
    """
    frames = np.arange(spikes.shape[1], dtype=np.float64)[None, :, None]
    latest = np.maximum.accumulate(np.where(spikes > 0, frames, -np.inf), axis=1)
    return frames - latest


def binned_error(
    error: Float[np.ndarray, "window neuron"],
    truth: Float[np.ndarray, "window neuron"],
    by: Float[np.ndarray, "window neuron"],
    edges: Float[np.ndarray, " edge"],
    runs: Int[np.ndarray, " window"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors in bins of another quantity.

    Args:
        error: of the forecast.
        truth: what came.
        by: the quantity; what lies beyond the outer edges, or is not finite, counts in no bin.
        edges: of the bins, ascending; the last bin holds its upper edge.
        runs: the run of each window, the independent clusters of the standard error.

    Returns:
        Root-mean-square error by bin, its standard error, and R² (against the bin's own mean); NaN where a bin is
        empty.
    """
    bins = len(edges) - 1
    at = np.where(by == edges[-1], bins - 1, np.digitize(by, edges) - 1)
    inside = np.isfinite(by) & (at >= 0) & (at < bins)
    _, cluster = np.unique(runs, return_inverse=True)
    count = cluster.max() + 1
    place = (at * count + cluster[:, None])[inside]
    total = lambda x: np.bincount(place, x[inside], bins * count).reshape(bins, count)  # noqa: E731
    squared, number = total(np.square(error)), total(np.ones_like(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        mse = squared.sum(1) / number.sum(1)
        mean, square = total(truth).sum(1) / number.sum(1), total(np.square(truth)).sum(1) / number.sum(1)
        rmse = np.sqrt(mse)
        se = np.array([ratio_error(*pair) for pair in zip(squared, number, strict=True)]) / (2 * rmse)
        return rmse, se, 1 - mse / (square - mean**2)
