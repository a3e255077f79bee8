"""Figures of rollouts: the error as it grows, and traces beside the true ones."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.rollout_section import CHAOTIC
from jneuro.report.style import INK, panels

__all__ = ["draw_rollout_errors", "draw_rollout_traces"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_GREYS = {"mean": ("#b0b0b0", ":"), "last_period": ("#222222", "-"), "nearest": ("#777777", "--")}

_HIGHEST = 4.0
"""Errors above this are not shown [SD]."""


def _style(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and line of every predictor."""
    models = [n for n, p in numbers["predictors"].items() if p["kind"] == "model"]
    styles = {n: {"color": c, "linestyle": line} for n, (c, line) in _GREYS.items()}
    return styles | {n: {"color": _COLOURS[i % 6], "linestyle": "-"} for i, n in enumerate(models)}


def draw_rollout_errors(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Error over all states against time, a panel for each regime, with the growth that chaos imposes.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    numbers = data.analyses["rollout"][0]
    regimes = list(numbers["scores"])
    figure, axes = panels(2.3 * len(regimes) + 0.9, rows=len(regimes), sharex=True)
    for i, (regime, ax) in enumerate(zip(regimes, axes, strict=True)):
        curves = {n: np.sqrt(np.square(arrays[f"rmse_by_state.{n}"][i]).mean(1)) for n in numbers["predictors"]}
        at = np.arange(1, len(next(iter(curves.values()))) + 1)
        for name, style in _style(numbers).items():
            if np.nanmin(curves[name]) < _HIGHEST:
                ax.plot(at, _smooth(curves[name]), linewidth=1.2, label=name, **style)
        models = [c for n, c in curves.items() if numbers["predictors"][n]["kind"] == "model"]
        first = min(c[0] for c in models)
        rate = max(number(v) for v in numbers["lyapunov"][regime]["per_ms"])
        growth = first * np.exp((rate if rate > CHAOTIC else 0.0) * at)
        ax.plot(at, np.where(growth < 2, growth, np.nan), color=INK, linewidth=2.2, alpha=0.35, label="exp λt")
        ax.set_title(regime, fontsize=10, loc="left")
        ax.set_ylabel("RMSE [SD]")
        ax.set_yscale("log")
        ax.set_ylim(0.01, _HIGHEST)
        ax.set_xscale("log")
    axes[-1].set_xlabel("time ahead [ms]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Root mean square over the tenth of the time before: what scores state."""
    total = np.concatenate([[0.0], np.cumsum(np.square(curve))])
    last = np.arange(1, len(curve) + 1)
    first = np.minimum(last - 1, np.round(0.9 * last).astype(int))
    return np.sqrt((total[last] - total[first]) / (last - first))


def draw_rollout_traces(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """The potential of one example of each regime: true, its last period repeated, and two models'.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    numbers = data.analyses["rollout"][0]
    regimes, styles = list(numbers["scores"]), _style(numbers)
    lengths = {n: p["steps"] for n, p in numbers["predictors"].items() if p["kind"] == "model" and p["scaled"]}
    shown = list(dict.fromkeys([min(lengths, key=lambda n: lengths[n]), max(lengths, key=lambda n: lengths[n])]))
    rows = ["last_period", *shown]
    dt = numbers["settings"]["dt"]
    figure, axes = panels(
        1.25 * len(regimes) * len(rows) + 0.6, rows=len(regimes) * len(rows), sharex=True, sharey=True
    )
    for k, ax in enumerate(axes):
        i, name = k // len(rows), rows[k % len(rows)]
        truth = arrays["trace.truth"][i]
        kept = np.arange(min(len(truth), round(200 / dt)))
        ax.plot(dt * (kept + 1), truth[kept], color="#b0b0b0", linewidth=1.6)
        ax.plot(dt * (kept + 1), arrays[f"trace.{name}"][i][kept], color=styles[name]["color"], linewidth=0.9)
        ax.set_title(f"{regimes[i]}: {name}", fontsize=9, loc="left")
        ax.set_ylim(-90, 40)
    axes[len(axes) // 2].set_ylabel("v [mV]")
    axes[-1].set_xlabel("time ahead [ms]")
    return figure
