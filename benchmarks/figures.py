"""The figures of the benchmark's report, each drawn from rows of results."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels

__all__ = ["FIGURES", "Drawing"]

Rows = list[dict[str, Any]]
COLOURS = (INHIBITORY, EXCITATORY, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)


class Drawing(NamedTuple):
    """A figure of the report.

    Attributes:
        name: of its files.
        title: heading.
        caption: what it shows.
        draw: makes it, or None where the rows say nothing of it.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Rows], Figure | None]


def _logarithmic(ax: Axes) -> None:
    """Both scales, with numbers at powers of ten only where there are any."""
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1, 0.4)))


def _short(row: dict[str, Any], *names: str) -> str:
    return ", ".join(str(row[n]) for n in names if row.get(n) is not None)


def _finished(figure: Figure, axes: Sequence[Axes], used: int, x: str, y: str) -> Figure:
    """Panels without content hidden, labels and one legend for all."""
    for ax in axes[used:]:
        ax.set_visible(False)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    handles = {t: h for ax in axes for h, t in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=7, frameon=False)
    return figure


def speed_up(rows: Rows) -> Figure | None:
    """Bars of how many times longer each peer takes."""
    found = [r for r in rows if "ratio" in r and r["what"] != "gradient"]
    if not found:
        return None
    names = [f"{_short(r, 'case', 'what', 'dtype')}, {r['platform']} ×{r.get('cores', 1)}: {r['by']}" for r in found]
    figure, (ax,) = panels(0.8 + 0.19 * len(found))
    place = np.arange(len(found))[::-1]
    ratios = [r["ratio"] for r in found]
    ax.barh(place, ratios, color=[INHIBITORY if x >= 1 else EXCITATORY for x in ratios], height=0.7)
    for y, x in zip(place, ratios, strict=True):
        ax.text(x * 1.04, y, f"{x:.2g}", va="center", fontsize=7, color=INK)
    bars = [(y, r["bar"]) for y, r in zip(place, found, strict=True) if "bar" in r]
    ax.plot([b for _, b in bars], [y for y, _ in bars], "|", color=INK, markersize=9)
    ax.axvline(1, color=INK, linewidth=0.8)
    ax.set(xscale="log", xlabel="times longer than jneuro", yticks=place, ylim=(-0.6, len(found) - 0.4))
    ax.set_yticklabels(names, fontsize=6)
    return figure


def throughput(rows: Rows) -> Figure | None:
    """Throughput against batch size, a panel for each simulator."""
    found = [r for r in rows if "throughput" in r and r.get("subject") == "ladder"]
    if not found:
        return None
    cases = list(dict.fromkeys(r["case"] for r in found))
    lines = sorted({_short(r, "what", "platform", "dtype") for r in found})
    colours = dict(zip(lines, itertools.cycle(COLOURS)))
    figure, axes = panels(1.9 * -(-len(cases) // 2), -(-len(cases) // 2), 2, sharex=True)
    for ax, case in zip(axes, cases, strict=False):
        for line in lines:
            mine = sorted(
                (r["batch"], r["throughput"])
                for r in found
                if r["case"] == case and _short(r, "what", "platform", "dtype") == line
            )
            if mine:
                ax.plot(*zip(*mine, strict=True), "o-", color=colours[line], label=line, markersize=3, linewidth=1)
        _logarithmic(ax)
        ax.set_title(case, fontsize=9)
    return _finished(figure, axes, len(cases), "batch size", "neurons × simulated seconds in a second")


def accuracy(rows: Rows) -> Figure | None:
    """Error of the spike times against the time of a run, a panel for each simulator and precision."""
    found = [r for r in rows if r.get("subject") == "solvers" and "error_ms" in r]
    if not found:
        return None
    kinds = list(dict.fromkeys((r["case"], r["dtype"]) for r in found))
    solvers = list(dict.fromkeys(r["solver"] for r in found))
    colours = dict(zip(solvers, itertools.cycle(COLOURS)))
    figure, axes = panels(2.3 * -(-len(kinds) // 2), -(-len(kinds) // 2), min(2, len(kinds)), sharey=True)
    for ax, kind in zip(axes, kinds, strict=False):
        for solver in solvers:
            mine = [r for r in found if (r["case"], r["dtype"]) == kind and r["solver"] == solver]
            mine.sort(key=lambda r: r["median_s"])
            x, y = [r["median_s"] for r in mine], [max(r["error_ms"], 1e-6) for r in mine]
            ax.plot(x, y, "-", color=colours[solver], linewidth=1)
            for r, a, b in zip(mine, x, y, strict=True):
                face = "none" if r["counts_wrong"] else colours[solver]
                ax.plot(a, b, "o", color=colours[solver], markerfacecolor=face, markersize=4, label=solver)
        _logarithmic(ax)
        ax.set_title(", ".join(kind), fontsize=9)
    return _finished(figure, axes, len(kinds), "time of 256 cells × 50 ms [s]", "median error of spike times [ms]")


def roofline(rows: Rows) -> Figure | None:
    """Operations a second against operations a byte, below the measured limits of each platform and number of cores."""
    found = [r for r in rows if r.get("flop_per_s") and r.get("byte")]
    if not found:
        return None
    kinds = list(dict.fromkeys((r["platform"], r.get("cores", 1)) for r in found))
    figure, axes = panels(2.9 * len(kinds), len(kinds), 1)
    subjects = list(dict.fromkeys(r["subject"] for r in found))
    for ax, kind in zip(axes, kinds, strict=True):
        mine = [r for r in found if (r["platform"], r.get("cores", 1)) == kind]
        flop, byte = (float(np.median([r[f"limit_{n}_per_s"] for r in mine])) for n in ("flop", "byte"))
        x = np.geomspace(1e-2, 1e3, 100)
        ax.plot(x, np.minimum(flop, byte * x) / 1e9, color=INK, linewidth=1.2)
        for subject, colour in zip(subjects, itertools.cycle(COLOURS)):
            points = [(r["flop"] / r["byte"], r["flop_per_s"] / 1e9) for r in mine if r["subject"] == subject]
            if points:
                ax.plot(*zip(*points, strict=True), "o", color=colour, markersize=3.5, label=subject, alpha=0.8)
        ax.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10⁹ operations / s")
        ax.set_title(f"{kind[0]}, {kind[1]} core{'s' if kind[1] != 1 else ''}", fontsize=9)
        ax.legend(fontsize=7, frameon=False)
    return figure


FIGURES = (
    Drawing(
        "speed_up",
        "Speed-up against each peer",
        "Ratio of median times in alternating rounds on the same cores; the mark is what is to be reached.",
        speed_up,
    ),
    Drawing("throughput", "Throughput against batch size", "A batch is cells or networks in one program.", throughput),
    Drawing(
        "accuracy",
        "Accuracy against cost of the ODE solvers",
        "Each point is a step or a tolerance; hollow where some currents have a wrong number of spikes.",
        accuracy,
    ),
    Drawing(
        "roofline",
        "Roofline",
        "The roof is a matrix product and a copy in main memory, timed in the same rounds. Operations and bytes are as "
        "the compiler counts them, bytes that a cache serves among them: hence points above the slope.",
        roofline,
    ),
)
