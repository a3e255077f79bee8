"""Figures of a sweep: heat maps, families of curves, phase diagrams, and points where there is no grid."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jneuro.report.style import panels
from jneuro.sweeps.config import SweepConfig, SweepFigure

__all__ = ["default_figures", "draw_sweep_figure", "spoken"]

_COLOURS = ("#d9d9d9", "#D55E00", "#E6A532", "#0072B2", "#56B4E9", "#009E73", "#CC79A7")
"""Of named states; the first stands for rest or quiet."""


def default_figures(config: SweepConfig, data: xr.Dataset) -> list[SweepFigure]:
    """What suits the design: a figure for each measure that is one number a point.

    Args:
        config: the sweep.
        data: its results.

    Returns:
        The figures.
    """
    axes = list(config.sweep.varied)
    points = set(data["ok"].dims)
    found = []
    for name in config.measured:
        plain = name.rpartition(":")[2]
        if plain not in data or set(data[plain].dims) != points:
            continue
        if len(axes) == 1:
            found.append(SweepFigure(kind="curves", of=name, x=axes[0]))
        else:
            kind = "phase_diagram" if "meanings" in data[plain].attrs else "heat_map"
            found.append(SweepFigure(kind=kind, of=name, x=axes[0], y=axes[1]))
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
    name = figure.of.rpartition(":")[2]
    meanings = data[name].attrs.get("meanings")
    shown = [axis for axis in (figure.family, figure.y, figure.x) if axis is not None]
    values = data[name].where(data["ok"])
    if config.sweep.design == "grid":
        values = _collapsed(values, shown, meanings if figure.kind == "phase_diagram" else None)
    elif "seed" in values.dims:
        values = values.median("seed") if figure.kind == "phase_diagram" else values.mean("seed")
    drawn, (ax,) = panels(3.2)
    if figure.kind == "curves":
        _curves(ax, values, figure, config)
        ax.set_ylabel(_label(name, data[name]))
    else:
        mappable = _area(ax, values, figure, config, meanings)
        if meanings is None or figure.kind == "heat_map":
            drawn.colorbar(mappable, ax=ax, label=_label(name, data[name]))
        ax.set_ylabel(_label(str(figure.y), data[figure.y]))
    ax.set_xlabel(_label(figure.x, data[figure.x]))
    for axis, scale in ((figure.x, ax.set_xscale), (figure.y, ax.set_yscale)):
        if axis is not None and config.sweep.varied[axis].scale == "log":
            scale("log")
    return drawn


def spoken(name: str) -> str:
    """A name of a configuration as one says it."""
    return name.replace("_", " ").replace("isi cv", "ISI CV")


def _label(name: str, array: xr.DataArray) -> str:
    unit = array.attrs.get("units", "1")
    words = spoken(name)
    return words if unit == "1" else f"{words} [{unit}]"


def _collapsed(values: xr.DataArray, shown: Sequence[str], meanings: Any) -> xr.DataArray:
    """Take the mean, or the most frequent state, over all that is not shown."""
    rest = [d for d in values.dims if d not in shown]
    if rest and meanings is not None:
        votes = xr.concat([(values == k).sum(rest) for k in range(len(meanings))], "state")
        values = votes.argmax("state").where(votes.sum("state") > 0)
    elif rest:
        values = values.mean(rest)
    return values.transpose(*shown)


def _curves(ax: Any, values: xr.DataArray, figure: SweepFigure, config: SweepConfig) -> None:
    """One curve, a family of them, or points."""
    x = np.asarray(values[figure.x])
    if config.sweep.design != "grid":
        c = None if figure.family is None else np.asarray(values[figure.family])
        ax.scatter(x, values, s=6, c=c, color=_COLOURS[3] if c is None else None, rasterized=True)
        return
    if figure.family is None:
        ax.plot(x, values, color=_COLOURS[3], marker=".", markersize=3)
        return
    members = np.asarray(values[figure.family])
    ramp = mpl.colormaps["viridis"]
    for k, member in enumerate(members):
        colour = ramp(0.9 * k / max(len(members) - 1, 1))
        label = f"{member:.3g}" if len(members) <= 8 or k in (0, len(members) - 1) else None
        ax.plot(x, values[k], color=colour, linewidth=1.2, label=label)
    ax.legend(title=spoken(figure.family), frameon=False, fontsize=8, title_fontsize=8)


def _area(ax: Any, values: xr.DataArray, figure: SweepFigure, config: SweepConfig, meanings: Any) -> Any:
    """A map of numbers or of states."""
    how: dict[str, Any] = {"cmap": mpl.colormaps["viridis"].with_extremes(bad="white")}
    if meanings is not None and figure.kind == "phase_diagram":
        colours = [_COLOURS[k % len(_COLOURS)] for k in range(len(meanings))]
        how = {"cmap": ListedColormap(colours), "norm": BoundaryNorm(np.arange(len(meanings) + 1) - 0.5, len(meanings))}
        present = [k for k in range(len(meanings)) if (values == k).any()]
        handles = [Patch(color=colours[k], label=meanings[k]) for k in present]
        ax.figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    ax.grid(False)
    x, y = np.asarray(values[figure.x]), np.asarray(values[figure.y])
    if config.sweep.design == "grid":
        return ax.pcolormesh(x, y, np.ma.masked_invalid(values), shading="nearest", rasterized=True, **how)
    return ax.scatter(x, y, c=values, s=10, rasterized=True, **how)
