"""Figures of the scores: by predictor, by horizon, by epoch, by neuron."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, Score, compared, excitatory, in_unit, scores
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels

__all__ = ["horizon_figure", "learning_figure", "neuron_figure", "score_figure"]


def score_figure(data: ReportData) -> Figure | None:
    """R² of every predictor as bars from zero, and beside them the top of the range, enlarged, with standard errors."""
    shown = [s for s in scores(data) if np.isfinite(s.value("r2"))]
    if not shown:
        return None
    rows = [s for s in shown if s.kind != "ceiling"]
    r2 = np.array([s.value("r2") for s in rows])
    top = max(s.value("r2") for s in shown)
    figure, (bars, zoom) = panels(0.9 + 0.34 * max(len(rows), 2), 1, 2, sharey=True, width_ratios=(1.25, 1))
    for y, s in enumerate(rows):
        leaky = s.kind == "leaky"
        face, hatch = ("white", "////") if leaky else (s.colour, None)
        bars.barh(y, s.value("r2"), height=0.7, facecolor=face, edgecolor=s.colour, hatch=hatch)
        _bar_label(bars, y, s.value("r2"), top)
        zoom.errorbar(
            s.value("r2"),
            y,
            xerr=np.nan_to_num(s.value("r2_se")),
            color=s.colour,
            marker=s.marker,
            markersize=4,
            markerfacecolor=face,
            capsize=4,
        )
    for ax in (bars, zoom):
        _ceiling_line(ax, shown, "x")
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("test R²")
    bars.set_yticks(range(len(rows)), [s.label for s in rows])
    bars.invert_yaxis()
    zoom.tick_params(axis="y", length=0)
    bars.set_xlim(max(min(r2.min(initial=0) * 1.1, 0), -1), max(top, 0.1) * 1.05)
    bars.set_title("from zero", fontsize=9, color=INK)
    lowest = r2[r2 > r2.max(initial=-np.inf) - 0.06].min(initial=top)
    margin = 0.15 * max(top - lowest, 0.02)
    zoom.set_xlim(lowest - margin, top + margin)
    zoom.locator_params(axis="x", nbins=4)
    zoom.set_title("top, enlarged (± SE)", fontsize=9, color=INK)
    return figure


def _bar_label(ax: Axes, y: int, value: float, top: float) -> None:
    """The value inside the end of a long bar, else beside a short one."""
    inside = value > 0.4 * top
    ax.annotate(
        f"{value:.3f}".replace("-", "−"),
        (max(value, 0), y),
        xytext=(-4 if inside else 4, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=8.5,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.9},
    )


def _ceiling_line(ax: Axes, shown: list[Score], axis: str) -> None:
    """The ceiling's R² as a dashed line in a band of one standard error."""
    for s in shown:
        if s.kind == "ceiling":
            r2, se = s.value("r2"), np.nan_to_num(s.value("r2_se"))
            line, band = (ax.axvline, ax.axvspan) if axis == "x" else (ax.axhline, ax.axhspan)
            band(r2 - se, r2 + se, color="#bbbbbb", alpha=0.6, linewidth=0)
            line(r2, color="black", linestyle="--", linewidth=1.2)


def horizon_figure(data: ReportData) -> Figure | None:
    """R² against the forecast horizon; `None` for a single horizon."""
    drawn = [(s, s.series("per_horizon", "r2")) for s in scores(data)]
    drawn = [(s, r2) for s, r2 in drawn if len(r2) > 1]
    if not drawn:
        return None
    main = data.metrics.get("windows", {}).get("horizons_ms") or []
    figure, (ax,) = panels(3.5)
    ticks: set[float] = set()
    for s, r2 in drawn:
        horizons = s.values.get("horizons_ms") or main
        ticks |= set(horizons)
        style = {"baseline": ":", "model": "-", "leaky": "-.", "ceiling": "--"}[s.kind]
        ax.plot(horizons, r2, color=s.colour, linestyle=style, marker=s.marker, markersize=4.5, label=s.label)
        if s.kind == "ceiling" and len(se := s.series("per_horizon", "se")) == len(r2):
            ax.fill_between(horizons, r2 - se, r2 + se, color="#bbbbbb", alpha=0.6, linewidth=0)
    ax.axhline(0, color="#888888", linewidth=0.8)
    lowest = np.nanmin([np.nanmin(r2, initial=0) for _, r2 in drawn])
    ax.set_ylim(max(lowest - 0.03, -0.25), None)
    if min(ticks) > 0 and len(ticks) <= 12:
        ax.set_xscale("log")
        ax.set_xticks(sorted(ticks), [f"{h:g}" for h in sorted(ticks)])
        ax.minorticks_off()
    ax.set_xlabel("forecast horizon [ms]")
    ax.set_ylabel("test R²")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def learning_figure(data: ReportData) -> Figure | None:
    """Training and validation error by epoch, above the ceiling's error: the mean of 1 − R² over the horizons."""
    curves = [(s, data.history[s.name]) for s in scores(data) if data.history.get(s.name)]
    if not curves:
        return None
    figure, (ax,) = panels(2.7 + 0.2 * -(-(len(curves) + 1) // 2))
    seen = []
    for s, records in curves:
        epoch = [r["epoch"] + 1 for r in records]
        for key, width, style, label in (("train_loss", 1.0, ":", None), ("validation_loss", 1.8, "-", s.label)):
            loss = np.array([r.get(key) for r in records], float)
            dot = s.marker if len(epoch) < 20 else None
            ax.plot(
                epoch, loss, color=s.colour, linestyle=style, linewidth=width, marker=dot, markersize=3, label=label
            )
            seen.append(loss)
    squared = data.run.get("loss", "mse") == "mse"
    ceilings = [s.series("per_horizon", "r2") for s in scores(data) if s.kind == "ceiling" and squared]
    floors = [float(np.mean(1 - r2)) for r2 in ceilings if r2.size]
    for floor in floors:
        ax.axhline(floor, color="black", linestyle="--", linewidth=1.2, label="noise ceiling, 1 − R²")
    values = np.concatenate([*seen, floors])
    values = values[np.isfinite(values)]
    least = [loss[np.isfinite(loss)].min(initial=np.inf) for loss in seen]
    if values.size and 0 < 10 * min(least) < max(least) < np.inf:
        ax.set_yscale("log")
    elif values.size:
        low, high = values.min(), min(values.max(), 2.2 * np.median(values))
        ax.set_ylim(low - 0.08 * (high - low) - 1e-6, high + 0.05 * (high - low) + 1e-6)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("squared error [z-score²]" if squared else "loss, each its own")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def neuron_figure(data: ReportData) -> Figure | None:
    """R² and error of every neuron, excitatory ones first, each group sorted by the model's R²."""
    by_name = {s.name: s for s in scores(data) if len(s.series("per_neuron", "r2"))}
    kept = compared(data, by_name)
    if not kept:
        return None
    ceiling = [s for s in by_name.values() if s.kind == "ceiling"]
    key = kept[0].series("per_neuron", "r2")
    is_excitatory = excitatory(data, len(key))
    order = np.lexsort((key, ~is_excitatory))
    rank = np.arange(len(key))
    both = not is_excitatory.all()
    figure, axes = panels(4.6, 2, sharex=True)
    for ax, field, unit in zip(axes, ("r2", "rmse"), ("test R²", in_unit(data, "RMSE")), strict=True):
        for s in reversed(kept):
            values = s.series("per_neuron", field)
            if len(values) != len(key):
                continue
            if s.kind == "baseline":
                ax.plot(rank, values[order], "x", color="#888888", markersize=3.5, label=s.label)
                continue
            for group, colour, marker, kind in (
                (is_excitatory, EXCITATORY, "o", "excitatory"),
                (~is_excitatory, INHIBITORY, "^", "inhibitory"),
            ):
                shown = group[order]
                label = f"{s.label}, {kind}" if both else s.label
                if shown.any():
                    ax.plot(rank[shown], values[order][shown], marker, color=colour, markersize=4, label=label)
        ax.set_ylabel(unit)
    for s in ceiling:
        error = s.series("per_neuron", "se")
        bars = error[order] if len(error) == len(rank) else None
        style = {"fmt": "_", "color": "black", "ecolor": "#cccccc", "elinewidth": 1, "markersize": 4, "zorder": 0}
        axes[0].errorbar(rank, s.series("per_neuron", "r2")[order], bars, label=f"{s.label} (± SE)", **style)
    axes[1].set_xlabel("neuron, sorted by R²")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure
