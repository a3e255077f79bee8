"""How every figure looks and is written, without touching Matplotlib's global state."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "EXCITATORY", "GREY", "INHIBITORY", "INK", "WIDTH", "legend_above", "panels", "save"]

INK = "#222222"
EXCITATORY = "#D55E00"
INHIBITORY = "#0072B2"
GREY = "#7d7d7d"
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")
"""Of models, distinguishable by colour-blind readers."""

WIDTH = 5.2
"""Width of a figure [inch]: its text stays readable in a column of 340 pixels."""


def panels(height: float, rows: int = 1, columns: int = 1, **options: Any) -> "tuple[Figure, list[Axes]]":
    """A figure of the common width and its panels, row by row.

    Args:
        height: of the figure [inch].
        rows: of panels.
        columns: of panels.
        options: further arguments of `Figure.subplots`.

    Returns:
        The figure and its axes, with quiet frames and grids.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # with all of Matplotlib, which only a report needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#888888")
        ax.tick_params(color="#888888", labelcolor=INK, labelsize=9)
        ax.set_axisbelow(True)
        ax.grid(color="#e6e6e6", linewidth=0.7)
    return figure, axes


def legend_above(figure: "Figure", ax: "Axes") -> None:
    """One row of legend above a figure, where it covers no data.

    Args:
        figure: the figure.
        ax: has what is explained.
    """
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=8)


def save(figure: "Figure", path: Path, dpi: int = 160) -> tuple[bytes, bytes]:
    """Write a figure as PNG and as SVG, the same bytes whenever the figure is the same.

    Args:
        figure: what to write.
        path: the file name without its ending.
        dpi: resolution of the PNG and of what is rasterised inside the SVG.

    Returns:
        What was written: PNG, SVG.
    """
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    figure.set_layout_engine("none")  # it is laid out: the SVG takes the same places
    figure.savefig(svg, format="svg", dpi=dpi, metadata={"Date": None, "Creator": None})
    drawn = png.getvalue(), _stable_ids(svg.getvalue().decode()).encode()
    path.with_suffix(".png").write_bytes(drawn[0])
    path.with_suffix(".svg").write_bytes(drawn[1])
    return drawn


def _stable_ids(svg: str) -> str:
    """Number the ids in the order in which they come: Matplotlib draws them at random unless a global is set."""
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        return match[1] + names.setdefault(match[2], f"id{len(names)}")

    return re.sub(r'(id="|#)(\w*[0-9a-f]{10})(?=[")])', rename, svg)
