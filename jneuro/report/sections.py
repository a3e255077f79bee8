"""The sections of a report that show analyses, by the analysis's name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData
from jneuro.report.error_section import draw_errors, say_errors

__all__ = ["SECTIONS", "Section", "SectionFigure", "Table"]


class SectionFigure(NamedTuple):
    """A figure of a section.

    Attributes:
        name: of its files.
        title: heading of the figure.
        alt: what is drawn, for readers who cannot see it.
        caption: what to look at.
        draw: from the report and the analysis's arrays to the figure, or to `None` where there is nothing to see.
    """

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[ReportData, Mapping[str, np.ndarray]], Figure | None]


class Table(NamedTuple):
    """A table of a section.

    Attributes:
        caption: what it holds.
        columns: headings; the first column names the rows.
        rows: texts.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Section(NamedTuple):
    """How an analysis is told.

    Attributes:
        title: heading.
        say: from its numbers to sentences.
        figures: its figures.
        tables: from its numbers to tables.
    """

    title: str
    say: Callable[[Mapping[str, Any]], list[str]]
    figures: tuple[SectionFigure, ...] = ()
    tables: Callable[[Mapping[str, Any]], list[Table]] = lambda numbers: []


SECTIONS: dict[str, Section] = {
    "error_analysis": Section(
        "Where the forecast is wrong",
        say_errors,
        (
            SectionFigure(
                "error_analysis",
                "Error by what the neuron was doing",
                "Root-mean-square error of the best model and the best baseline against the time since the last spike "
                "and against the distance to threshold.",
                "Error should be largest just below threshold, where a spike may or may not come, and a model that "
                "listens to other neurons should gain there most.",
                draw_errors,
            ),
        ),
    ),
}
"""Every analysis's section."""
