"""The section on where a voltage forecast is wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, compared
from jneuro.report.style import panels

__all__ = ["draw_errors", "say_errors"]


def say_errors(numbers: Mapping[str, Any]) -> list[str]:
    """One sentence for each population: its best predictor."""
    said = []
    for population, scores in numbers.get("populations", {}).items():
        name = max(scores, key=lambda n: -np.inf if scores[n] is None else scores[n])
        said.append(f"Of {population} neurons, {name} forecasts best: R² {scores[name]:.4f}.")
    return said


def draw_errors(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Error against time since the last spike, and against distance to threshold.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    names = {key.split(".", 2)[2]: None for key in arrays if ".rmse." in key}
    figure, axes = panels(4.6, rows=2)
    titles = {"since_spike": "time since the last spike [ms]", "distance": "distance to threshold [mV]"}
    for ax, (group, title) in zip(axes, titles.items(), strict=True):
        edges = arrays[f"{group}_edges"]
        centre = 0.5 * (edges[1:] + edges[:-1])
        for score in compared(data, names):
            rmse, se = (arrays[f"{group}.{what}.{score.name}"] for what in ("rmse", "rmse_se"))
            ax.errorbar(centre, rmse, se, color=score.colour, marker=score.marker, markersize=4, label=score.label)
        ax.set_xlabel(title)
        ax.set_ylabel("RMSE [mV]")
        if group == "since_spike":
            ax.set_xscale("symlog", linthresh=1.0)
    axes[0].legend(frameon=False, fontsize=9)
    return figure
