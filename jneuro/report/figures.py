"""The figures of a run: scores by predictor, horizon, epoch and neuron; the forecast; the recording."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jneuro.report.components import Plot, Section
from jneuro.report.data import ReportData, Score, compared, excitatory, in_unit, scores
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels

__all__ = [
    "density_figure",
    "forecast_figure",
    "horizon_figure",
    "learning_figure",
    "neuron_figure",
    "raster_figure",
    "run_sections",
    "score_figure",
    "trace_figure",
]


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


def raster_figure(data: ReportData, *, span: float = 1000.0, bin_width: float = 10.0) -> Figure | None:
    """Draw the spikes of all neurons, and the rate of each population.

    Args:
        data: the run.
        span: how long a stretch [ms].
        bin_width: bins of the rate [ms].

    Returns:
        The figure; None without spikes.
    """
    times, neurons = (np.asarray(data.example.get(k, ())) for k in ("spike_time_ms", "spike_neuron"))
    if not times.size:
        return None
    frames = np.asarray(data.example.get("time_ms", times))
    start = float(frames.min())
    stop = min(start + span, float(frames.max()))
    inside = (times >= start) & (times < stop)
    times, neurons = times[inside], neurons[inside]
    count = np.asarray(data.example["v"]).shape[1] if "v" in data.example else int(neurons.max(initial=0)) + 1
    is_excitatory = excitatory(data, count)
    bins = np.linspace(start, stop, max(2, round((stop - start) / bin_width) + 1))
    width = bins[1] - bins[0]
    figure, (raster, rate) = panels(4.2, 2, sharex=True, height_ratios=(2.6, 1))
    groups = ((is_excitatory, EXCITATORY, "excitatory"), (~is_excitatory, INHIBITORY, "inhibitory"))
    for group, colour, name in groups:
        if not group.any():
            continue
        own = group[neurons]
        raster.plot(times[own], neurons[own], "|", color=colour, rasterized=True, markersize=max(1.2, 180 / count))
        hertz = np.histogram(times[own], bins)[0] / group.sum() / width * 1e3
        rate.stairs(hertz, bins, baseline=None, color=colour, linewidth=1.2, label=name)
    raster.set_ylabel("neuron")
    raster.set_ylim(-1, count)
    raster.grid(visible=False)
    rate.set_ylabel("rate [Hz]")
    rate.set_xlabel("time [ms]")
    rate.set_xlim(start, stop)
    rate.set_ylim(0, None)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def _name_neuron(ax: Axes, neuron: int, is_excitatory: np.ndarray, colour: str) -> None:
    kind = "E" if is_excitatory[neuron] else "I"
    ax.set_title(f"{kind}, neuron {neuron}", loc="right", fontsize=8.5, color=colour, pad=1)


def _label_traces(figure: Figure, axes: Sequence[Axes], values: str) -> None:
    figure.supylabel(values, fontsize=10)
    axes[-1].set_xlabel("time [ms]")


def trace_figure(data: ReportData, *, span: float = 400.0) -> Figure | None:
    """Draw the voltages of a few neurons, their spikes as ticks above.

    Args:
        data: the run.
        span: how long a stretch [ms].

    Returns:
        The figure; None without voltages.
    """
    if "v" not in data.example:
        return None
    time, v = np.asarray(data.example["time_ms"]), np.asarray(data.example["v"])
    shown = time <= time[0] + span
    is_excitatory = excitatory(data, v.shape[1])
    chosen = _some(is_excitatory, 3, 2)
    spikes = np.asarray(data.example.get("spike_time_ms", ()))
    owners = np.asarray(data.example.get("spike_neuron", ()))
    figure, axes = panels(0.6 + 0.72 * len(chosen), len(chosen), sharex=True, sharey=True)
    top = v[shown][:, chosen].max()
    for ax, neuron in zip(axes, chosen, strict=True):
        colour = EXCITATORY if is_excitatory[neuron] else INHIBITORY
        ax.plot(time[shown], v[shown, neuron], color=colour, linewidth=1)
        own = spikes[owners == neuron]
        own = own[(own >= time[0]) & (own <= time[0] + span)]
        ax.plot(own, np.full(own.shape, top + 2), "|", color=INK, markersize=6)
        _name_neuron(ax, neuron, is_excitatory, colour)
    _label_traces(figure, axes, "voltage [mV]")
    return figure


def forecast_figure(data: ReportData, *, span: float = 150.0) -> Figure | None:
    """Draw the true target, best model and best baseline of a few neurons, at the shortest horizon.

    Args:
        data: the run.
        span: how long a stretch [ms].

    Returns:
        The figure; None without forecasts.
    """
    kept = compared(data, data.forecast.get("prediction", {}))
    if not kept or len(data.forecast["target"]) < 2:
        return None
    time, target = np.asarray(data.forecast["time_ms"]), np.asarray(data.forecast["target"])
    h = int(np.argmin(data.forecast["horizons_ms"]))
    shown = time <= time[0] + span
    is_excitatory = excitatory(data, target.shape[2])
    chosen = _some(is_excitatory, 2, 1)
    figure, axes = panels(1.0 + 1.15 * len(chosen), len(chosen), sharex=True, sharey=True)
    for ax, neuron in zip(axes, chosen, strict=True):
        ax.plot(time[shown], target[shown, h, neuron], color="black", linewidth=1.8, alpha=0.75, label="true")
        for s in reversed(kept):
            values = np.asarray(data.forecast["prediction"][s.name])[shown, h, neuron]
            style = "--" if s.kind == "baseline" else "-"
            colour = "#E69F00" if s.kind == "baseline" else s.colour
            ax.plot(time[shown], values, color=colour, linestyle=style, linewidth=1.1, label=s.label)
        _name_neuron(ax, neuron, is_excitatory, INK)
    axes[0].set_title(f"{data.forecast['horizons_ms'][h]:g} ms ahead", loc="left", fontsize=8.5, color=INK, pad=1)
    _label_traces(figure, axes, in_unit(data, ", ".join(data.targets) or "target"))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def density_figure(data: ReportData) -> Figure | None:
    """True against predicted target, all neurons, at the shortest horizon: best model and best baseline."""
    kept = compared(data, data.forecast.get("prediction", {}))
    if not kept or len(data.forecast["target"]) < 2:
        return None
    target = np.asarray(data.forecast["target"])
    h = int(np.argmin(data.forecast["horizons_ms"]))
    true = target[:, h].ravel()
    low, high = np.nanpercentile(true, (0.1, 99.9))
    figure, axes = panels(2.75, 1, len(kept), sharex=True, sharey=True)
    drawn = []
    for ax, s in zip(axes, kept, strict=True):
        predicted = np.asarray(data.forecast["prediction"][s.name])[:, h].ravel()
        ax.plot((low, high), (low, high), color="#D55E00", linewidth=1.2, linestyle="--", zorder=3)
        extent = (low, high, low, high)
        drawn.append(ax.hexbin(predicted, true, gridsize=32, extent=extent, mincnt=1, cmap="cividis", rasterized=True))
        ax.set(xlim=(low, high), ylim=(low, high), xlabel=in_unit(data, "predicted"))
        ax.locator_params(nbins=5)
        ax.set_title(s.label, fontsize=9, color=INK)
    axes[0].set_ylabel(in_unit(data, "true"))
    most = max(float(np.asarray(hexes.get_array()).max(initial=1)) for hexes in drawn)
    for hexes in drawn:
        hexes.set_norm(LogNorm(1, max(most, 2)))
    figure.colorbar(drawn[0], ax=axes, label="samples").ax.tick_params(labelsize=9)
    return figure


def _some(is_excitatory: np.ndarray, excitatory_count: int, inhibitory_count: int) -> list[int]:
    """A few neurons of each population, evenly spaced by index."""
    chosen = []
    for group, count in ((is_excitatory, excitatory_count), (~is_excitatory, inhibitory_count)):
        members = np.flatnonzero(group)
        steps = np.linspace(0, len(members), count + 1)[:-1] + len(members) / (2 * count)
        chosen += [int(i) for i in np.unique(members[steps.astype(int)])] if members.size else []
    return chosen


def run_sections(data: ReportData) -> list[Section]:
    """The sections that every run has, with the figures for which it has data.

    Args:
        data: the run.
    """
    known, sections = bool(data.metrics.get("ceiling")), []
    for title, kinds in _KINDS.items():
        drawn = [(kind, figure) for kind in kinds if (figure := kind.draw(data)) is not None]
        plots = [k.plot(figure, known) for k, figure in drawn]
        sections += [Section(title, parts=plots)] if plots else []
    return sections


class _Kind(NamedTuple):
    """A figure that every run can have; `ceiling` is what else to look at if the run has a noise ceiling."""

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[ReportData], Figure | None]
    ceiling: str = ""

    def plot(self, figure: Figure, ceiling: bool) -> Plot:
        """The figure with its words."""
        caption = f"{self.caption} {self.ceiling}".rstrip() if ceiling else self.caption
        return Plot(self.name, self.title, self.alt, caption, figure)


_KINDS = {
    "Scores": (
        _Kind(
            "scores",
            "Every predictor against the ceiling",
            "Horizontal bars of the test R² of every predictor; the numbers are those of the score table.",
            "How far does the best model rise above the best baseline (grey)? Hatched, hollow marks are leaky and do "
            "not compete.",
            score_figure,
            "The noise ceiling (dashed, band ± one standard error) shows how much room is left.",
        ),
        _Kind(
            "horizons",
            "How far ahead",
            "Lines of test R² against the forecast horizon in milliseconds, for every predictor and the noise ceiling.",
            "All curves fall with the horizon. Below zero a forecast is worse than the mean; curves that leave the "
            "plot are worse still.",
            horizon_figure,
            "The ceiling falls too: what matters is the gap to it at each horizon.",
        ),
        _Kind(
            "learning",
            "Learning curves",
            "Lines of training and validation error by epoch for every model.",
            "Validation (solid) should level off; training (dotted) falling on below it is overfitting. Training error "
            "is measured with dropout and before each update, so it can lie above validation.",
            learning_figure,
            "An honest validation curve cannot stay below the ceiling’s error (dashed); a leaky one may.",
        ),
        _Kind(
            "neurons",
            "Error by neuron",
            "Points of test R² and of root-mean-square error for every neuron, grouped into excitatory and inhibitory.",
            "Does the score rest on a few easy neurons? Neurons are sorted within each population; R² should lie "
            "above the baseline (crosses).",
            neuron_figure,
            "They should stay below the ceiling (dashes), which is known per neuron within its bars only.",
        ),
    ),
    "Forecast": (
        _Kind(
            "forecast",
            "Predicted and true traces",
            "Traces of the target for a few neurons: true, predicted by the best model and by the best baseline.",
            "Between spikes a good forecast follows the drift; the jumps come from unseen input and stay unpredicted. "
            "A copy of the trace shifted by the horizon is persistence.",
            forecast_figure,
        ),
        _Kind(
            "density",
            "Predicted against true",
            "Two-dimensional histograms of true against predicted targets, for the best model and the best baseline.",
            "On the dashed line the forecast is unbiased: at every predicted value the true ones should scatter evenly "
            "around it. In a voltage, a level streak at the reset is spikes that the forecast did not see coming.",
            density_figure,
        ),
    ),
    "Recording": (
        _Kind(
            "raster",
            "Spikes and population rates",
            "Raster of spikes by neuron over time, with the mean rate of excitatory and inhibitory neurons below.",
            "Rows that are empty or solid are silent or runaway neurons; vertical stripes are synchrony. The rates "
            "below should be steady: a drift would let a split by time leak.",
            raster_figure,
        ),
        _Kind(
            "traces",
            "Voltages",
            "Voltage traces of a few excitatory and inhibitory neurons with their spikes as ticks.",
            "This is what the models see. Ticks mark spikes; an integrate-and-fire voltage shows of them only the fall "
            "to the reset value, and the pause.",
            trace_figure,
        ),
    ),
}
"""The figures by section, in the order of the page."""
