"""The section on a cell under steps of current: what is predicted of it, beside the recording's own references."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.components import number, quantity
from jneuro.report.page import inline
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, legend_above, panels, save

__all__ = ["recording_section"]

_NAMES = {
    "model": "the model",
    "repeat": "one of two equal steps, as the other",
    "interpolation": "the mean of both neighbouring trials",
}
_COLUMNS = {
    "rate_rms_hz": "Rate [Hz]",
    "latency_ms": "First spike [ms]",
    "adaptation": "Adaptation",
    "gamma": "Γ",
    "rmse_mv": "Potential [mV]",
}
_SHOWN = 4
"""Trials of the overlay."""


def recording_section(
    folder: Path, metrics: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Make the section.

    Args:
        folder: where figures are written.
        metrics: the content of metrics.json; `steps` holds the scores.
        arrays: the content of fit.zarr.

    Returns:
        Title, sentences, tables and figures; None without steps.
    """
    found = metrics.get("steps")
    if not found:
        return None
    doubts = [f"Trial {trial} is not scored: {said}." for trial, said in found["doubts"].items()]
    title = "What it predicts of the cell"
    if not found["scores"]:
        return {"title": title, "sentences": doubts, "tables": [], "figures": []}
    rows = [
        [_NAMES[name], *(quantity(number(scores[key]), 2) for key in _COLUMNS)]
        for name, scores in found["scores"].items()
    ]
    caption = (
        f"Errors of {len(found['trials'])} held-out trials, step by step: of rates, root mean square; of first spikes "
        "and of the adaptation index, median; of the potential, root mean square away from spikes. Γ is the "
        f"coincidence of spikes within ±{found['tolerance_ms']:g} ms (1 at best, 0 by chance). Below the model, what "
        "the recording itself says."
    )
    curve = {k: np.array([[number(x) for x in row] for row in v]) for k, v in found["curve"].items()}
    drawn = [
        (
            "overlay",
            "Held-out trials",
            _overlay(arrays),
            "Recorded potential and the model's; some of the trials that were not fitted.",
        ),
        (
            "steps_curve",
            "Rates and first spikes",
            _curves(curve, found["current_unit"]),
            "Rate, and time of the first spike, in each step of the held-out trials: recorded (circles) and predicted "
            "(lines), one line a step.",
        ),
    ]
    figures = [
        {"name": name, "title": title, "alt": text, "caption": text, "source": inline(*save(figure, folder / name))}
        for name, title, figure, text in drawn
    ]
    return {
        "title": title,
        "sentences": [*_sentences(found["scores"]), *doubts],
        "tables": [{"caption": caption, "columns": ["Prediction", *_COLUMNS.values()], "rows": rows}],
        "figures": figures,
    }


def _sentences(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The model beside the best reference, in words."""
    model, said = scores["model"], []
    for key, what, unit in (("rate_rms_hz", "rates", "Hz"), ("latency_ms", "first spikes", "ms")):
        others = {n: number(s[key]) for n, s in scores.items() if n != "model"}
        text = f"The model's {what} are off by {quantity(number(model[key]), 2)} {unit}"
        if others:
            best = min(others, key=lambda n: others[n])
            text += f"; the best reference, {_NAMES[best]}, by {quantity(others[best], 2)} {unit}"
        said.append(f"{text}.")
    return said


def _overlay(arrays: Mapping[str, np.ndarray]) -> Figure:
    v, predicted, time = arrays["held_out_v"], arrays["held_out_prediction"], arrays["time"]
    shown = np.unique(np.linspace(0, len(v) - 1, min(len(v), _SHOWN)).round().astype(int))
    figure, axes = panels(1.7 * len(shown) + 0.4, len(shown), 1, sharex=True, sharey=True)
    for ax, trial in zip(axes, shown, strict=True):
        ax.plot(time, v[trial], color="#9a9a9a", linewidth=0.9, label="recorded", rasterized=True)
        ax.plot(time, predicted[trial], color=INHIBITORY, linewidth=0.6, label="predicted", rasterized=True)
        ax.set_ylabel("mV", color=INK, fontsize=9)
    legend_above(figure, axes[0])
    axes[-1].set_xlabel("time [ms]", color=INK, fontsize=9)
    return figure


def _curves(curve: Mapping[str, np.ndarray], unit: str) -> Figure:
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
