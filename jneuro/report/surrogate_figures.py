"""The figures of the section on surrogates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels

__all__ = ["draw_gradients", "draw_map", "draw_questions", "draw_timings"]

Arrays = Mapping[str, np.ndarray]

TRUE: dict[str, Any] = {"color": INK, "label": "simulator"}
PREDICTED: dict[str, Any] = {"color": EXCITATORY, "label": "surrogate"}

AXES = {
    "step": "step [µA/cm²]",
    "ramp": "ramp [µA/cm²]",
    "noise": "noise, SD [µA/cm²]",
    "pulses": "pulses [Hz]",
    "sine": "sine [Hz]",
}


def draw_questions(data: ReportData, arrays: Arrays) -> Figure:
    """The step, the sines and the noise: simulator beside surrogate.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    figure, (step, sine, counts, heights) = panels(7.2, rows=4)
    step.plot(arrays["target_ms"], arrays["step_true"], linewidth=1.2, **TRUE)
    step.plot(arrays["target_ms"], arrays["step_predicted"], linewidth=1.0, linestyle="--", **PREDICTED)
    step.set(xlabel="time [ms], step of 20 µA/cm² from 17.8 ms", ylabel="V [mV]")
    step.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    sine.plot(arrays["sine_hz"], arrays["sine_true"], marker="o", markersize=3, **TRUE)
    sine.plot(arrays["sine_hz"], arrays["sine_predicted"], marker="s", markersize=3, linestyle="--", **PREDICTED)
    sine.set(xscale="log", xlabel="sine of 80 µA/cm² [Hz]", ylabel="spikes")
    both = [arrays[f"noise_counts_{who}"] for who in ("true", "predicted")]
    edges = np.arange(-0.5, max(b.max() for b in both) + 1.5).tolist()
    counts.hist(both, edges, color=[INK, EXCITATORY])
    counts.set(xlabel="spikes under white noise of SD 20 µA/cm²", ylabel="draws")
    both = [arrays[f"noise_heights_{who}"] for who in ("true", "predicted")]
    heights.hist(both, 20, color=[INK, EXCITATORY])
    heights.set(xlabel="height of these spikes [mV]", ylabel="spikes")
    return figure


def draw_map(data: ReportData, arrays: Arrays) -> Figure:
    """Voltage error over the families of stimuli.

    Args:
        data: the report's; the points are in the analysis's numbers.
        arrays: the analysis's.
    """
    points = data.analyses["surrogate"][0]["map"]
    figure, axes = panels(7.2, rows=3, columns=2)
    for ax, (family, label) in zip(axes, AXES.items(), strict=False):
        mine = [p for p in points if p["family"] == family]
        for series, style in zip(dict.fromkeys(p["series"] for p in mine), ("-", "--", ":"), strict=False):
            part = [p for p in mine if p["series"] == series]
            ax.plot([p["x"] for p in part], [p["rmse"] for p in part], style, color=EXCITATORY, label=series or None)
        _points(ax, mine)
        ax.plot(
            [p["x"] for p in mine if p["series"] == mine[-1]["series"]],
            [p["neighbour_rmse"] for p in mine if p["series"] == mine[-1]["series"]],
            color="#969696",
            linewidth=0.9,
        )
        ax.set(xlabel=label, ylabel="RMSE [mV]", ylim=(0, None))
        if family == "sine":
            ax.set_xscale("log")
            ax.legend(frameon=False, fontsize=7)
    legend = axes[-1]
    legend.set_axis_off()
    for row, (colour, face, text) in enumerate(
        (
            (INHIBITORY, INHIBITORY, "inside the training range"),
            (EXCITATORY, EXCITATORY, "unseen waveform, trained level"),
            (EXCITATORY, "white", "unseen waveform or level,\nlevel beyond the trained"),
        )
    ):
        legend.plot([0.05], [0.85 - 0.22 * row], "o", color=colour, markerfacecolor=face, transform=legend.transAxes)
        legend.text(0.12, 0.85 - 0.22 * row, text, va="center", fontsize=8, transform=legend.transAxes)
    legend.plot([0.02, 0.08], [0.19, 0.19], color="#969696", transform=legend.transAxes)
    legend.text(
        0.12, 0.19, "nearest neighbour in the training set", va="center", fontsize=8, transform=legend.transAxes
    )
    return figure


def _points(ax, mine) -> None:
    for p in mine:
        colour = INHIBITORY if p["inside"] else EXCITATORY
        face = colour if p["level_inside"] else "white"
        ax.plot([p["x"]], [p["rmse"]], "o", color=colour, markerfacecolor=face, markersize=4.5)


def draw_timings(data: ReportData, arrays: Arrays) -> Figure:
    """Time of one call against the size of the batch.

    Args:
        data: the report's; the times are in the analysis's numbers.
        arrays: the analysis's.
    """
    figure, (ax,) = panels(2.8)
    times = data.analyses["surrogate"][0]["timings"]
    for kind, style in (("simulator", TRUE), ("surrogate", PREDICTED)):
        known = [t for t in times if t[f"{kind}_s"]]
        ax.plot([t["batch"] for t in known], [1e3 * t[f"{kind}_s"] for t in known], marker="o", markersize=4, **style)
    ax.set(xscale="log", yscale="log", xlabel="runs in a batch", ylabel="time of a call [ms]")
    ax.legend(frameon=False, fontsize=9)
    return figure


def draw_gradients(data: ReportData, arrays: Arrays) -> Figure:
    """Derivatives with respect to the amplitude of a step.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    figure, axes = panels(4.4, rows=2)
    titles = {"mean_v": "∂⟨V⟩/∂a [mV cm²/µA]", "latency": "∂t/∂a [ms cm²/µA]"}
    for ax, (quantity, title) in zip(axes, titles.items(), strict=True):
        for kind, style in (("simulator", TRUE), ("surrogate", PREDICTED)):
            ax.plot(arrays["amplitude"], arrays[f"{quantity}_{kind}"], marker="o", markersize=4, **style)
        ax.set(xlabel="amplitude of the step [µA/cm²]", ylabel=title)
    axes[0].legend(frameon=False, fontsize=9)
    return figure
