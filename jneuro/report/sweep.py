"""The page of a sweep: what was varied, what came of it, and figures: heat maps, families of curves, phase diagrams."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jneuro.report.components import Plot, Section, duration
from jneuro.report.page import shown, write_page
from jneuro.report.style import panels
from jneuro.sweeps.config import SweepConfig, SweepFigure

__all__ = ["default_figures", "draw_sweep_figure", "write_sweep_report"]

_REASONS = 3
"""Reasons that the page names."""

_COLOURS = ("#d9d9d9", "#D55E00", "#E6A532", "#0072B2", "#56B4E9", "#009E73", "#CC79A7")
"""Of named states; the first stands for rest or quiet."""


def write_sweep_report(
    folder: Path, run: Mapping[str, Any], config_yaml: str, config: SweepConfig, data: xr.Dataset
) -> Path:
    """Write report.html and the figures of a sweep.

    Args:
        folder: the run folder.
        run: what the page says of the run; see `write_page`.
        config_yaml: the resolved configuration.
        config: the sweep.
        data: its results.

    Returns:
        The path of the page.
    """
    axes = ", ".join(f"{name} ({config.targets[name]})" for name in config.sweep.varied)
    seeds = "one seed" if config.sweep.seeds == 1 else f"{config.sweep.seeds} seeds"
    plots = [
        Plot(
            "_".join([figure.kind, _stored(figure), "over", *figure.axes]),
            *_words(figure, data),
            draw_sweep_figure(figure, config, data),
        )
        for figure in config.figures or default_figures(config, data)
    ]
    facts = [
        ("Points", f"{data['ok'].size:,}"),
        ("Failed", f"{np.count_nonzero(~data['ok'].values):,}"),
        ("Simulated", f"{config.simulation.duration_ms:g} ms a point"),
        ("Time", duration(run["seconds"])),
        ("Device", str(run["device"])),
        ("Started", str(run["started"]).replace("T", " ")),
    ]
    return write_page(
        folder,
        run=run,
        config_yaml=config_yaml,
        paragraph=f"Varied: {axes}, in a {config.sweep.design} design; {seeds} a point.",
        verdict=[_verdict(data)],
        facts=facts,
        sections=[shown(Section("Figures", parts=plots), folder)] if plots else (),
    )


def _verdict(data: xr.Dataset) -> str:
    """How many points failed, and the most frequent reasons."""
    points, reasons = data["ok"].size, data["reason"].values[~data["ok"].values]
    if not len(reasons):
        return f"No point of {points:,} failed."
    frequent = Counter(map(str, reasons)).most_common()
    said = "; ".join(f"{count:,} × “{reason}”" for reason, count in frequent[:_REASONS])
    rest = f", and {len(frequent) - _REASONS} other reasons" if len(frequent) > _REASONS else ""
    return f"{len(reasons):,} of {points:,} points failed ({said}{rest}); they are white in the figures."


def _words(figure: SweepFigure, data: xr.Dataset) -> tuple[str, str, str]:
    """Heading, description and caption."""
    words, axes = _spoken(_stored(figure)), " and ".join(a for a in (figure.x, figure.y) if a)
    family = f", a curve for each {figure.family}" if figure.family else ""
    doc = data[_stored(figure)].attrs.get("long_name", "")
    return (
        f"{words[0].upper()}{words[1:]} over {axes}",
        f"{figure.kind.replace('_', ' ').capitalize()} of {words} over {axes}{family}.",
        f"{doc[:1].upper()}{doc[1:]}." if doc else f"{words}{family}.",
    )


def _stored(figure: SweepFigure) -> str:
    """The name under which the measure of a figure is stored."""
    return figure.of.rpartition(":")[2]


def _spoken(name: str) -> str:
    """A name of a configuration as one says it."""
    return name.replace("_", " ").replace("isi cv", "ISI CV")


# Figures -------------------------------------------------------------------------------------------------------------


def default_figures(config: SweepConfig, data: xr.Dataset) -> list[SweepFigure]:
    """What suits the design: a figure for each measure that is one number a point.

    Args:
        config: the sweep.
        data: its results.

    Returns:
        The figures.
    """
    x, y, *_ = [*config.sweep.varied, None]
    found = []
    for name in config.measured:
        array = data.get(name.rpartition(":")[2])
        if array is not None and set(array.dims) == set(data["ok"].dims):
            kind = "curves" if y is None else "phase_diagram" if _meanings(array) else "heat_map"
            found.append(SweepFigure(kind=kind, of=name, x=str(x), y=y))
    return found


def draw_sweep_figure(figure: SweepFigure, config: SweepConfig, data: xr.Dataset) -> Figure:
    """Draw one figure. Axes that it does not show, and seeds, are averaged over; of states, the most frequent counts.

    Args:
        figure: what to draw.
        config: the sweep.
        data: its results.

    Returns:
        The figure.
    """
    name = _stored(figure)
    meanings = _meanings(data[name]) if figure.kind == "phase_diagram" else None
    values = data[name].where(data["ok"])
    grid = config.sweep.design == "grid"
    values = _averaged(values, [d for d in values.dims if d not in figure.axes and (grid or d == "seed")], meanings)
    drawn, (ax,) = panels(3.2)
    if figure.kind == "curves":
        _curves(ax, values, figure, grid)
        ax.set_ylabel(_label(data[name]))
    else:
        mappable = _area(ax, values, figure, grid, meanings)
        if meanings is None:
            drawn.colorbar(mappable, ax=ax, label=_label(data[name]))
        ax.set_ylabel(_label(data[figure.y]))
    ax.set_xlabel(_label(data[figure.x]))
    for axis, scale in ((figure.x, ax.set_xscale), (figure.y, ax.set_yscale)):
        if axis is not None and config.sweep.varied[axis].scale == "log":
            scale("log")
    return drawn


def _label(array: xr.DataArray) -> str:
    """What stands beside an axis: name and unit."""
    unit, words = array.attrs.get("units", "1"), _spoken(str(array.name))
    return words if unit == "1" else f"{words} [{unit}]"


def _meanings(array: xr.DataArray) -> list[str] | None:
    """Names of the values of a quantity that is a number for a name; in stores of format 1 they are a list."""
    names = array.attrs.get("meanings") or array.attrs.get("flag_meanings", "").split()
    return [name.replace("_", " ") for name in names] or None


def _averaged(values: xr.DataArray, rest: list, meanings: Any) -> xr.DataArray:
    """Take the mean, or of states the most frequent, over some dimensions."""
    if not rest or meanings is None:
        return values.mean(rest) if rest else values
    votes = xr.concat([(values == k).sum(rest) for k in range(len(meanings))], "state")
    return votes.argmax("state").where(votes.sum("state") > 0)


def _curves(ax: Any, values: xr.DataArray, figure: SweepFigure, grid: bool) -> None:
    """One curve, a family of them, or points."""
    x = np.asarray(values[figure.x])
    if not grid:
        c = None if figure.family is None else np.asarray(values[figure.family])
        ax.scatter(x, values, s=6, c=c, color=_COLOURS[3] if c is None else None, rasterized=True)
        return
    if figure.family is None:
        ax.plot(x, values, color=_COLOURS[3], marker=".", markersize=3)
        return
    values, members = values.transpose(figure.family, figure.x), np.asarray(values[figure.family])
    ramp = mpl.colormaps["viridis"]
    for k, member in enumerate(members):
        colour = ramp(0.9 * k / max(len(members) - 1, 1))
        label = f"{member:.3g}" if len(members) <= 8 or k in (0, len(members) - 1) else None
        ax.plot(x, values[k], color=colour, linewidth=1.2, label=label)
    ax.legend(title=_spoken(figure.family), frameon=False, fontsize=8, title_fontsize=8)


def _area(ax: Any, values: xr.DataArray, figure: SweepFigure, grid: bool, meanings: Any) -> Any:
    """A map of numbers or of states."""
    how: dict[str, Any] = {"cmap": mpl.colormaps["viridis"].with_extremes(bad="white")}
    if meanings is not None:
        colours = [_COLOURS[k % len(_COLOURS)] for k in range(len(meanings))]
        how = {"cmap": ListedColormap(colours), "norm": BoundaryNorm(np.arange(len(meanings) + 1) - 0.5, len(meanings))}
        present = [k for k in range(len(meanings)) if (values == k).any()]
        handles = [Patch(color=colours[k], label=meanings[k]) for k in present]
        ax.figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    ax.grid(False)
    x, y = np.asarray(values[figure.x]), np.asarray(values[figure.y])
    if grid:
        values = values.transpose(figure.y, figure.x)
        return ax.pcolormesh(x, y, np.ma.masked_invalid(values), shading="nearest", rasterized=True, **how)
    return ax.scatter(x, y, c=values, s=10, rasterized=True, **how)
