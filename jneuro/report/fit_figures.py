"""Figures of a fit: traces, intervals, profiles and draws, costs of all starts, errors, what was predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jneuro.report.components import Estimate, forest
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, WIDTH, legend_above, panels

__all__ = [
    "costs",
    "errors",
    "features",
    "held_out",
    "intervals",
    "posterior",
    "profiles",
    "ranks",
    "step_curves",
    "traces",
]

Arrays = Mapping[str, np.ndarray]
_DATA = "#9a9a9a"
_WIDE = 10.0
"""Costs over a wider range than this factor are shown on a logarithmic axis."""
_SHOWN = 3
"""Trials of a figure."""
_BAND = 3.841**0.5
"""Signed root of a profile at the ends of its interval of 95 %."""
_PAIRS = 6
"""Values of a figure of pairs."""


def traces(arrays: Arrays) -> Figure:
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


def intervals(parameters: Mapping[str, Any]) -> Figure | None:
    """Fitted values and two standard errors, each relative to the truth, or to itself.

    Args:
        parameters: name to `value`, `se` and `truth`.
    """
    rows = []
    for name, p in parameters.items():
        unit, known = p["truth"] if p["truth"] is not None else p["value"], p["truth"] is not None
        if unit and p["value"] is not None and (known or p["se"]):
            centre, half = 100 * (p["value"] / unit - 1), 200 * abs((p["se"] or np.nan) / unit)
            ends = (centre - half, centre + half)
            rows.append(Estimate(name, centre, *ends, colour=INHIBITORY if known else _DATA))
    return forest({"": rows}, "deviation ± 2 standard errors [%]") if rows else None


def profiles(found: Any, arrays: Arrays) -> Figure:
    """The signed root of every profile.

    Args:
        found: the profiles of the metrics.
        arrays: of the fit.
    """
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure, axes = panels(0.3 + 2.0 * rows, rows, columns)
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    for i, (p, ax) in enumerate(zip(found, axes, strict=False)):
        value, excess = arrays[f"profile_{i}_value"], arrays[f"profile_{i}_excess"]
        best = int(np.argmin(excess))
        root = np.sqrt(np.maximum(excess, 0)) * np.sign(np.arange(len(value)) - best)
        ax.axhspan(-_BAND, _BAND, color="#eeeeee", zorder=0)
        ax.plot(value, root, "o-", color=INHIBITORY, markersize=3, linewidth=1)
        if p["truth"] is not None:
            ax.axvline(p["truth"], color=EXCITATORY, linewidth=0.9)
        ax.set_xlabel(p["name"], color=INK, fontsize=9)
        ax.set_ylabel("signed root", color=INK, fontsize=9)
    return figure


def posterior(names: list[str], draws: np.ndarray, truth: Mapping[str, Any]) -> Figure:
    """Marginals on the diagonal, pairs below it.

    Args:
        names: of the values; the first six are drawn.
        draws: of every chain.
        truth: the known values.
    """
    flat, count = draws.reshape(-1, draws.shape[-1]), min(len(names), _PAIRS)
    figure, axes = panels(WIDTH, count, count, sharex="col")
    shown = flat[:: max(len(flat) // 1000, 1)]
    for row in range(count):
        for column in range(count):
            ax = axes[row * count + column]
            ax.tick_params(labelsize=6)
            ax.locator_params(nbins=3)
            x, y = names[column], names[row]
            if column > row:
                ax.set_visible(False)
                continue
            if column == row:
                ax.hist(flat[:, row], 30, color=INHIBITORY, alpha=0.6)
                ax.set_yticks([])
            else:
                ax.plot(shown[:, column], shown[:, row], ".", color=INHIBITORY, markersize=1, alpha=0.4)
                if truth[y] is not None:
                    ax.axhline(truth[y], color=EXCITATORY, linewidth=0.8)
            if truth[x] is not None:
                ax.axvline(truth[x], color=EXCITATORY, linewidth=0.8)
            if row == count - 1:
                ax.set_xlabel(x, color=INK, fontsize=8)
            if column == 0 and row:
                ax.set_ylabel(y, color=INK, fontsize=8)
    return figure


def ranks(names: list[str], found: np.ndarray, draws: int) -> Figure:
    """Histograms of ranks, with the band of a binomial distribution.

    Args:
        names: of the values.
        found: the rank of each value in every data set.
        draws: the highest possible rank.
    """
    columns = min(len(names), 2)
    rows, bins = -(-len(names) // columns), max(2, min(len(found) // 10, 20))
    figure, axes = panels(0.3 + 1.7 * rows, rows, columns)
    mean = len(found) / bins
    sd = np.sqrt(mean * (1 - 1 / bins))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for name, column, ax in zip(names, found.T, axes, strict=False):
        ax.axhspan(mean - 1.96 * sd, mean + 1.96 * sd, color="#dddddd", zorder=0)
        ax.hist(column, list(np.linspace(0, draws + 1, bins + 1) - 0.5), color=INHIBITORY, alpha=0.7)
        ax.set_title(name, fontsize=9, color=INK, loc="left")
    axes[-1].set_xlabel("rank", color=INK, fontsize=9)
    return figure


def costs(arrays: Arrays, labels: Sequence[str]) -> Figure:
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


def errors(repeats: Mapping[str, Any]) -> Figure | None:
    """Errors of all repeats, beside twice the Cramér–Rao bound.

    Args:
        repeats: `parameters` with `bound_percent`, and `errors_percent` of every fit.
    """
    if "errors_percent" not in repeats:
        return None
    names, found = list(repeats["parameters"]), np.asarray(repeats["errors_percent"], float)
    figure, (ax,) = panels(2.8)
    spread = np.linspace(-0.25, 0.25, len(found))
    for x, name in enumerate(names):
        bound = repeats["parameters"][name]["bound_percent"]
        ax.bar(x, 4 * bound, 0.7, bottom=-2 * bound, color="#dbe9f4", zorder=0)
        ax.plot(x + spread, found[:, x], "o", color=INHIBITORY, markersize=2.5, alpha=0.7)
    ax.axhline(0, color=EXCITATORY, linewidth=0.9)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("error [%]", color=INK, fontsize=9)
    return figure


def features(names: list[str], arrays: Arrays) -> Figure | None:
    """Statistics of single runs against the first one, observed and of the fitted network.

    Args:
        names: of the statistics.
        arrays: of the fit.
    """
    if len(names) < 2:
        return None
    figure, axes = panels(2.2, 1, len(names) - 1)
    count = min(len(arrays["features"]), len(arrays["fitted_features"]))  # as many of both
    for i, ax in enumerate(axes, 1):
        for key, colour in (("fitted_features", EXCITATORY), ("features", INHIBITORY)):
            ax.plot(arrays[key][:count, 0], arrays[key][:count, i], ".", color=colour, markersize=3, alpha=0.4)
        ax.set_xlabel(names[0], color=INK, fontsize=8)
        ax.set_title(names[i], fontsize=8, color=INK, loc="left")
        ax.tick_params(labelsize=7)
    return figure


def held_out(arrays: Arrays, numbers: Sequence[int]) -> Figure | None:
    """Trials that were not fitted, spread over all of them, and their prediction.

    Args:
        arrays: of the fit.
        numbers: what each of them is called.
    """
    if "held_out_v" not in arrays:
        return None
    v, predicted = arrays["held_out_v"], arrays["held_out_prediction"]
    shown = np.unique(np.linspace(0, len(v) - 1, min(len(v), _SHOWN + 1)).round().astype(int))
    figure, axes = panels(1.7 * len(shown) + 0.4, len(shown), 1, sharex=True, sharey=True)
    for ax, trial in zip(axes, shown, strict=True):
        ax.plot(arrays["time"], v[trial], color=_DATA, linewidth=1.0, label="recorded", rasterized=True)
        ax.plot(arrays["time"], predicted[trial], color=INHIBITORY, linewidth=0.7, label="predicted", rasterized=True)
        ax.set_ylabel("mV", color=INK, fontsize=9)
        ax.set_title(f"trial {numbers[trial]}", fontsize=8, color=INK, loc="right")
    legend_above(figure, axes[0])
    axes[-1].set_xlabel("time [ms]", color=INK, fontsize=9)
    return figure


def step_curves(curve: Arrays, unit: str) -> Figure:
    """Rate and first spike of every step against its current, recorded and predicted.

    Args:
        curve: `current`, and `rate` and `latency` of truth and model, each `[trial, step]`.
        unit: of the current.
    """
    figure, (rate, latency) = panels(2.6, 1, 2)
    order = np.argsort(curve["current"][:, 0])
    for ax, name, label in ((rate, "rate", "rate [Hz]"), (latency, "latency", "first spike [ms]")):
        for step in range(curve["current"].shape[1]):
            color = (INHIBITORY, EXCITATORY, INK)[step % 3]
            current = curve["current"][order, step]
            ax.plot(current, curve[f"{name}_true"][order, step], "o", color=color, markersize=4)
            ax.plot(current, curve[f"{name}_model"][order, step], color=color, linewidth=1.2, label=f"step {step + 1}")
        ax.set_xlabel(f"current [{unit}]", color=INK, fontsize=9)
        ax.set_ylabel(label, color=INK, fontsize=9)
    latency.set_ylim(bottom=0)
    rate.legend(frameon=False, fontsize=8)
    return figure
