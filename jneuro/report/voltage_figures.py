"""Figures of the data and of the forecast itself: spikes, voltages, predicted against true."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, compared, excitatory, in_unit
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels

__all__ = ["density_figure", "forecast_figure", "raster_figure", "trace_figure"]


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
