"""The section on predicted spike counts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.style import INK, panels

__all__ = ["draw_counts", "draw_sizes", "say_counts", "tabulate_counts"]

_GREY, _BLUE, _ORANGE = "#7d7d7d", "#0072B2", "#D55E00"


def say_counts(numbers: Mapping[str, Any]) -> list[str]:
    """The verdict: the best model against the best baseline and the ceiling."""
    settings, predictors = numbers["settings"], numbers["predictors"]
    said = [
        f"A bin of {settings['bin_ms']:g} ms holds {settings['spikes_per_bin']:.3f} spikes on average. Bits per spike "
        f"count from each neuron's mean rate in training runs; no prediction's logarithm is taken below "
        f"{settings['floor']:.0%} of that rate."
    ]
    whole = {n: p for n, p in predictors.items() if p["neurons"] == settings["neurons"]}
    best = {k: _best({n: p for n, p in whole.items() if p["kind"] == k}) for k in ("model", "baseline")}
    if best["model"] and best["baseline"]:
        (model, one), (baseline, other) = best["model"], best["baseline"]
        apart, error = one["bits"] - other["bits"], np.hypot(number(one["bits_se"]), number(other["bits_se"]))
        verdict = "beats" if apart > 2 * error else "does not beat"
        said.append(
            f"Of all {settings['neurons']} neurons, the best model, {model}, gains {_pair(one, 'bits')} bits per spike "
            f"and the best baseline, {baseline}, {_pair(other, 'bits')}: the model {verdict} it by more than two "
            f"standard errors."
        )
    if ceiling := numbers["ceiling"]:
        c = ceiling["all"]
        said.append(
            f"Whoever knew the simulator's full state would gain {c['bits']:.3f} bits per spike (between "
            f"{c['bits_low']:.3f} and {c['bits_high']:.3f}, from {settings['futures']} futures of each state), explain "
            f"{c['r2']:.1%} of the variance, and still err by a mean square of {c['mse']:.4f}: the rest is input that "
            f"has not come yet."
        )
    return said


def _best(predictors: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    if not predictors:
        return None
    name = max(predictors, key=lambda n: number(predictors[n]["groups"]["all"]["bits"]))
    return name, predictors[name]["groups"]["all"]


def _pair(scores: Mapping[str, Any], key: str, digits: int = 3) -> str:
    error = number(scores.get(f"{key}_se"))
    return f"{number(scores[key]):.{digits}f}" + (f" ± {error:.{digits}f}" if np.isfinite(error) else "")


def tabulate_counts(numbers: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Scores on all neurons of each predictor, and bits per spike by group.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of each table.
    """
    predictors, ceiling = numbers["predictors"], numbers["ceiling"] or {}
    rows = [_row(name, str(p["neurons"]), p["groups"]["all"]) for name, p in predictors.items()]
    if ceiling:
        c = ceiling["all"]
        rows.append(("ceiling", "state", _pair(c, "bits"), "—", "—", _pair(c, "mse", 5), f"{c['r2']:.4f}"))
    heads = ("predictor", "neurons", "bits per spike", "over seeds", "deviance", "MSE", "R²")
    caption = "All neurons that each predicts; ± one standard error, clustered by run; over seeds: mean ± 95 %."
    named = {n: p["groups"] for n, p in predictors.items()} | ({"ceiling": ceiling} if ceiling else {})
    groups = list(dict.fromkeys(g for p in named.values() for g in p))
    split = [(n, *(_pair(p[g], "bits") if g in p else "—" for g in groups)) for n, p in named.items()]
    shared = f"Bits per spike by group; shared: the {numbers['settings']['shared']} neurons that all predict."
    return [(caption, heads, rows), (shared, ("predictor", *groups), split)]


def _row(name: str, neurons: str, s: Mapping[str, Any]) -> tuple[str, ...]:
    over = f"{s['seeds_mean']:.3f} ± {number(s['seeds_ci95']):.3f}" if len(s["seeds"]) > 1 else "—"
    return name, neurons, _pair(s, "bits"), over, _pair(s, "deviance", 4), _pair(s, "mse", 5), f"{number(s['r2']):.4f}"


def draw_counts(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Bits per spike of every predictor on the shared neurons, with the ceiling.

    Args:
        data: the report's.
        arrays: none.
    """
    numbers = data.analyses["count_scores"][0]
    predictors = numbers["predictors"]
    figure, (ax,) = panels(0.32 * len(predictors) + 1.2)
    for place, predictor in enumerate(reversed(predictors.values())):
        s = predictor["groups"]["shared"]
        colour = _GREY if predictor["kind"] == "baseline" else _BLUE
        ax.errorbar(number(s["bits"]), place, xerr=number(s["bits_se"]), marker="o", color=colour)
        ax.plot(s["seeds"], [place] * len(s["seeds"]), linestyle="", marker="|", color=colour)
    _ceiling(ax, numbers, "axvspan")
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(predictors)), list(reversed(predictors)))
    ax.set_xlabel(f"bits per spike over the mean rate, {numbers['settings']['shared']} shared neurons")
    return figure


def _ceiling(ax: Axes, numbers: Mapping[str, Any], span: str) -> None:
    if numbers["ceiling"]:
        c = numbers["ceiling"]["shared"]
        getattr(ax, span)(c["bits_low"], c["bits_high"], color=_ORANGE, alpha=0.35, label="ceiling")
        ax.legend(frameon=False, fontsize=9)


def draw_sizes(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """Bits per spike on the shared neurons against how many neurons a model saw; None for a single size.

    Args:
        data: the report's.
        arrays: none.
    """
    numbers = data.analyses["count_scores"][0]
    models = [(n, p) for n, p in numbers["predictors"].items() if p["kind"] == "model"]
    if len({p["neurons"] for _, p in models}) < 2:
        return None
    figure, (ax,) = panels(3.2)
    for name, predictor in models:
        s = predictor["groups"]["shared"]
        at = predictor["neurons"]
        ax.errorbar(at, number(s["bits"]), number(s["bits_se"]), marker="o", capsize=3, label=name)
        ax.plot([at] * len(s["seeds"]), s["seeds"], linestyle="", marker="_", color=INK)
    _ceiling(ax, numbers, "axhspan")
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xscale("log")
    sizes = sorted({p["neurons"] for _, p in models})
    ax.set_xticks(sizes, [str(s) for s in sizes])
    ax.minorticks_off()
    ax.set_xlabel("neurons observed and predicted")
    ax.set_ylabel("bits per spike, shared neurons")
    ax.legend(frameon=False, fontsize=8)
    return figure
