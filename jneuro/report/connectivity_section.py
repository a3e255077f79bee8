"""The section on what attention says of the connections."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.prose import auroc
from jneuro.report.style import INK, panels

__all__ = ["draw_connectivity", "say_connectivity", "tabulate_connectivity"]

_BLUE, _GREY, _BAND = "#0072B2", "#7d7d7d", "#d9d9d9"


def _of_attention(name: str) -> bool:
    return name.startswith("attention")


def say_connectivity(numbers: Mapping[str, Any]) -> list[str]:
    """For each kind of pair: does attention leave its null, and does it reach the cross-correlation?"""
    if not numbers["settings"]:
        return ["No reservoir stands behind this recording, so there is no truth to compare with."]
    settings, matrices = numbers["settings"], numbers["matrices"]
    said = [
        f"{settings['pairs']:,} pairs whose first neuron is excitatory, from {settings['runs']} training runs. Plastic "
        f"weights at the first and the last snapshot of a run correlate by {settings['weight_drift']:.3f}."
    ]
    for kind, share in settings["share"].items():
        name = max(filter(_of_attention, matrices), key=lambda n: number(matrices[n]["neurons"][kind]["auroc"]))
        mine, other = matrices[name]["neurons"][kind], matrices["cross-correlation"]["neurons"][kind]
        inside = mine["null_low"] <= mine["auroc"] <= mine["null_high"]
        verdict = "within the range of shuffled neurons" if inside else "outside the range of shuffled neurons"
        said.append(
            f"{kind[0].upper()}{kind[1:]} ({share:.1%} of the pairs): {name} has AUROC {auroc(mine)}, {verdict} "
            f"({mine['null_low']:.3f} to {mine['null_high']:.3f}); the spikes' cross-correlation has {auroc(other)}."
        )
    return said


def tabulate_connectivity(numbers: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """AUROC of every matrix for every kind of pair, and its likeness to W and Ω.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of each table.
    """
    if not numbers["settings"]:
        return []
    matrices, kinds = numbers["matrices"], list(numbers["settings"]["share"])
    rows, alike = [], []
    for name, found in matrices.items():
        cells = []
        for kind in kinds:
            one = found["neurons"][kind]
            seeds = f"; seeds {', '.join(f'{s:.3f}' for s in one['seeds'])}" if len(one["seeds"]) > 1 else ""
            cells.append(f"{auroc(one)}; null {one['null_low']:.3f} to {one['null_high']:.3f}{seeds}")
        rows.append((name, *cells))
        both = [found["agreement"][what] for what in ("W", "Ω")]
        alike.append((name, *(f"{number(a[key]):.3f}" for a in both for key in ("cosine", "spearman"))))
    caption = (
        "AUROC: the chance that a pair of the kind scores higher than another, with 95 % bounds over target neurons; "
        "null: 95 % of shuffles of the neurons within their populations."
    )
    heads = ("matrix", "cosine with W", "rank correlation with W", "cosine with Ω", "rank correlation with Ω")
    return [(caption, ("matrix", *kinds), rows), ("Likeness to the weights W and the causal weights Ω.", heads, alike)]


def draw_connectivity(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """AUROC with bounds and null, one panel for each kind of pair; None without a truth.

    Args:
        data: the report's.
        arrays: none are needed.
    """
    numbers = data.analyses["connectivity_recovery"][0]
    if not numbers["settings"]:
        return None
    kinds, matrices = list(numbers["settings"]["share"]), numbers["matrices"]
    names = list(reversed(matrices))
    figure, axes = panels(0.34 * len(names) + 1.1, columns=len(kinds), sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        for place, name in enumerate(names):
            one = matrices[name]["neurons"][kind]
            ax.fill_betweenx([place - 0.3, place + 0.3], one["null_low"], one["null_high"], color=_BAND)
            colour = _BLUE if _of_attention(name) else _GREY
            middle = one["auroc"]
            error = [[max(middle - one["low"], 0)], [max(one["high"] - middle, 0)]]
            ax.errorbar(middle, place, xerr=error, marker="o", markersize=4, color=colour)
            ax.plot(one["seeds"], [place] * len(one["seeds"]), linestyle="", marker="|", color=colour)
        ax.axvline(0.5, color=INK, linewidth=0.8)
        ax.set_title(kind, fontsize=9)
    axes[0].set_yticks(range(len(names)), names)
    axes[len(axes) // 2].set_xlabel("AUROC")
    return figure
