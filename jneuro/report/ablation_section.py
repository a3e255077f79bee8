"""The section on what each part of a model is worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.prose import quantity
from jneuro.report.style import INK, panels

__all__ = ["draw_ablation", "say_ablation", "tabulate_ablation"]


def say_ablation(numbers: Mapping[str, Any]) -> list[str]:
    """One sentence for each part, and how far the whole is from the best baseline."""
    whole = numbers["scores"][numbers["whole"]]
    said = [f"{part['part'][0].upper()}{part['part'][1:]}: {_worth(part)}." for part in numbers["parts"].values()]
    if numbers["best_baseline"] is not None:
        gap = whole["mean"] - numbers["best_baseline"]
        side = "above" if gap > 0 else "below"
        said.append(
            f"{numbers['whole']} as a whole has R² {_with_bounds(whole)}, {quantity(abs(gap), 4)} {side} the best "
            "baseline."
        )
    return said


def _worth(part: Mapping[str, Any]) -> str:
    mean, half = part["mean"], number(part["ci95"])
    seeds = len(part["gains"])
    if not np.isfinite(half):
        return f"a difference in R² of {quantity(mean, 4)}, from one seed: no bounds"
    bounds = f"{quantity(abs(mean), 4)} ± {quantity(half, 4)} (95 %, {seeds} pairs of seeds)"
    if mean > half:
        return f"raises R² by {bounds}"
    if mean < -half:
        return f"lowers R² by {bounds}"
    return f"no effect that could be told from the spread of seeds, {quantity(mean, 4)} ± {quantity(half, 4)}"


def _with_bounds(score: Mapping[str, Any]) -> str:
    half = number(score["ci95"])
    return quantity(score["mean"], 4) + (f" ± {quantity(half, 4)}" if np.isfinite(half) else "")


def tabulate_ablation(numbers: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """R² of the whole and of every model without a part.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of the table.
    """
    rows = []
    for name, score in numbers["scores"].items():
        part = numbers["parts"].get(name)
        worth = f"{quantity(part['mean'], 4)} ± {quantity(number(part['ci95']), 4)}" if part else "–"
        seeds = ", ".join(quantity(r2, 4) for r2 in score["seeds"])
        lacking = part["part"] if part else "nothing"
        rows.append((name, lacking, f"{score['parameters']:,}", _with_bounds(score), seeds, worth))
    heads = ("model", "without", "parameters", "R²", "seeds", "worth of the part")
    caption = (
        "Test R² at the nearest horizon: mean over seeds with its 95 % interval (Student), and what the missing part "
        "adds, as the mean difference of pairs of seeds with its 95 % interval."
    )
    return [(caption, heads, rows)]


def draw_ablation(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Worth of each part with bounds, and every pair of seeds.

    Args:
        data: the report's.
        arrays: none are needed.
    """
    parts = data.analyses["ablation"][0]["parts"]
    figure, (ax,) = panels(0.42 * len(parts) + 1.0)
    for place, part in enumerate(parts.values()):
        half = number(part["ci95"])
        error = half if np.isfinite(half) else None
        ax.errorbar(part["mean"], place, xerr=error, marker="o", markersize=5, color="#0072B2")
        ax.plot(part["gains"], [place] * len(part["gains"]), linestyle="", marker="|", color=INK)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(parts)), [part["part"] for part in parts.values()])
    ax.invert_yaxis()
    ax.set_xlabel("R² with the part less R² without it")
    return figure
