"""Figures of a fit: traces before and after, costs of all starts, intervals, what was predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jneuro.report.style import EXCITATORY, INHIBITORY, INK, legend_above, panels

__all__ = ["draw_costs", "draw_errors", "draw_held_out", "draw_intervals", "draw_traces"]

Arrays = Mapping[str, np.ndarray]
_DATA = "#9a9a9a"
_WIDE = 10.0
"""Costs over a wider range than this factor are shown on a logarithmic axis."""
_SHOWN = 3
"""Trials of a figure."""


def draw_traces(arrays: Arrays) -> Figure:
    """Data, the model before the fit and after it, and what is left over.

    Args:
        arrays: of the fit.
    """
    trials = min(len(arrays["v"]), _SHOWN)
    figure, axes = panels(0.5 + 2.9 * trials, 2 * trials, 1, sharex=True, height_ratios=[3, 1] * trials)
    time = arrays["time"]
    for trial in range(trials):
        upper, lower = axes[2 * trial : 2 * trial + 2]
        data, after = arrays["v"][trial], arrays["prediction"][trial]
        upper.plot(time, data, color=_DATA, linewidth=1.6, label="recorded")
        upper.plot(time, arrays["before"][trial], color=EXCITATORY, linewidth=0.8, linestyle="--", label="before")
        upper.plot(time, after, color=INHIBITORY, linewidth=0.9, label="fitted")
        upper.set_ylabel("mV", color=INK, fontsize=9)
        lower.plot(time, data - after, color=INK, linewidth=0.5)
        lower.set_ylabel("rest", color=INK, fontsize=9)
    legend_above(figure, axes[0])
    axes[-1].set_xlabel("time [ms]", color=INK, fontsize=9)
    return figure


def draw_costs(arrays: Arrays, labels: Sequence[str]) -> Figure:
    """The cost of every start of every method against its iterations, and where each ended.

    Args:
        arrays: of the fit.
        labels: of the method, then of the baselines.
    """
    names = ["fit", *(f"baseline_{i}" for i in range(len(labels) - 1))]
    figure, axes = panels(1.9 * len(names) + 0.3, len(names), 1)
    for ax, name, label in zip(axes, names, labels, strict=True):
        history, cost = arrays[f"{name}_history"], arrays[f"{name}_cost"]
        for curve in history:
            seen = np.flatnonzero(np.isfinite(curve))
            ax.plot(seen + 1, curve[seen], color=INHIBITORY, linewidth=0.7, alpha=max(0.25, 1 / len(history)))
        best = np.min(cost, initial=np.inf)
        if np.isfinite(best):
            ax.axhline(best, color=EXCITATORY, linewidth=0.8)
        positive = history[np.isfinite(history) & (history > 0)]
        if positive.size and (high := 1.4 * np.quantile(positive, 0.99)) > _WIDE * (low := 0.7 * positive.min()):
            ax.set_yscale("log")
            ax.set_ylim(low, high)
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title(f"{label}, {len(cost)} start{'s' * (len(cost) != 1)}", fontsize=9, color=INK, loc="left")
        ax.set_ylabel("cost", color=INK, fontsize=9)
    axes[-1].set_xlabel("iteration", color=INK, fontsize=9)
    return figure


def draw_intervals(parameters: Mapping[str, Any]) -> Figure | None:
    """Fitted values and two standard errors, each in units of the truth, or of itself.

    Args:
        parameters: name to `value`, `se` and `truth`.
    """
    rows = []
    for name, p in parameters.items():
        unit = p["truth"] if p["truth"] is not None else p["value"]
        if unit and p["value"] is not None and (p["truth"] is not None or p["se"]):
            rows.append((name, p["value"] / unit - 1, abs((p["se"] or np.nan) / unit), p["truth"] is not None))
    if not rows:
        return None
    figure, (ax,) = panels(0.8 + 0.32 * len(rows))
    for y, (_, centre, error, known) in enumerate(reversed(rows)):
        colour = INHIBITORY if known else _DATA
        ax.errorbar(100 * centre, y, xerr=200 * error, fmt="o", color=colour, markersize=4, capsize=3, linewidth=1)
    ax.axvline(0, color=EXCITATORY, linewidth=0.9)
    ax.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    ax.set_xlabel("deviation ± 2 standard errors [%]", color=INK, fontsize=9)
    return figure


def draw_errors(repeats: Mapping[str, Any]) -> Figure | None:
    """Errors of all repeats, beside twice the Cramér–Rao bound.

    Args:
        repeats: `parameters` with `bound_percent`, and `errors_percent` of every fit.
    """
    if "errors_percent" not in repeats:
        return None
    names, errors = list(repeats["parameters"]), np.asarray(repeats["errors_percent"], float)
    figure, (ax,) = panels(2.8)
    spread = np.linspace(-0.25, 0.25, len(errors))
    for x, name in enumerate(names):
        bound = repeats["parameters"][name]["bound_percent"]
        ax.bar(x, 4 * bound, 0.7, bottom=-2 * bound, color="#dbe9f4", zorder=0)
        ax.plot(x + spread, errors[:, x], "o", color=INHIBITORY, markersize=2.5, alpha=0.7)
    ax.axhline(0, color=EXCITATORY, linewidth=0.9)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("error [%]", color=INK, fontsize=9)
    return figure


def draw_held_out(arrays: Arrays) -> Figure | None:
    """Trials that were not fitted, and their prediction.

    Args:
        arrays: of the fit.
    """
    if "held_out_v" not in arrays:
        return None
    trials = min(len(arrays["held_out_v"]), _SHOWN)
    figure, axes = panels(0.5 + 1.9 * trials, trials, 1, sharex=True)
    for trial, ax in enumerate(axes):
        ax.plot(arrays["time"], arrays["held_out_v"][trial], color=_DATA, linewidth=1.4, label="recorded")
        ax.plot(
            arrays["time"], arrays["held_out_prediction"][trial], color=INHIBITORY, linewidth=0.8, label="predicted"
        )
        ax.set_ylabel("mV", color=INK, fontsize=9)
    legend_above(figure, axes[0])
    axes[-1].set_xlabel("time [ms]", color=INK, fontsize=9)
    return figure
