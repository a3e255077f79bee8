"""What a section of a report is made of: text, tables, and the plots that several sections share.

A section's text is a Jinja template over the findings of its analysis, with a blank line between paragraphs. Its
filters write values: `fixed(digits)` a number (an en dash for what could not be computed), `general` one without
superfluous digits, `percent(digits)` a share, `estimate(error, digits)` a number with its error, `bounds(digits)` a
`Comparison` or a mapping of `value`, `low` and `high` with its interval, `auroc` the same of `auroc`, `low` and `high`,
`seconds` a time, `listed` a sequence as in "a, b and c", and `capital` a text with its first letter upper case.
"""

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined

from jneuro.evaluation.analysis import Findings
from jneuro.evaluation.comparison import Comparison
from jneuro.report.style import COLOURS, INK, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Estimate",
    "Plot",
    "Section",
    "Table",
    "auroc",
    "auroc_cell",
    "auroc_estimate",
    "bounds",
    "duration",
    "estimate",
    "forest",
    "lines",
    "listed",
    "number",
    "plain_section",
    "quantity",
    "read_template",
    "render",
]


class Table(NamedTuple):
    """A table of a section.

    Attributes:
        caption: what it holds.
        columns: headings; the first column names the rows.
        rows: texts.
        prose: whether cells hold sentences, which are wrapped and flush left, rather than numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False


class Plot(NamedTuple):
    """A figure of a section.

    Attributes:
        name: of its files, unique in a report.
        title: heading.
        alt: what is drawn, for readers who cannot see it.
        caption: what to look at.
        figure: the Matplotlib figure.
    """

    name: str
    title: str
    alt: str
    caption: str
    figure: "Figure"


class Section(NamedTuple):
    """How a report tells what an analysis found.

    Attributes:
        title: heading.
        text: a Jinja template of the findings by their names, and of `names`; a blank line ends a paragraph.
        parts: tables and figures, in the order of the page; None is left out.
        names: what else the text uses.
    """

    title: str
    text: str = ""
    parts: Sequence[Table | Plot | None] = ()
    names: Mapping[str, Any] = {}


def number(value: Any) -> float:
    """A float; NaN for `None`, as JSON writes what could not be computed."""
    return float("nan") if value is None else float(value)


def quantity(value: Any, digits: int) -> str:
    """Write a number with a true minus sign.

    Args:
        value: the number, or None.
        digits: decimals.

    Returns:
        The text; an en dash for what is not finite.

    Examples:
        >>> quantity(-0.5, 2), quantity(1234.5, 1), quantity(None, 1)
        ('−0.50', '1,234.5', '–')
    """
    value = number(value)
    return f"{value:,.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Write a time in the two largest units that fit.

    Args:
        seconds: the time [s].

    Returns:
        The text.

    Examples:
        >>> duration(4.25), duration(75), duration(4000)
        ('4.2 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def listed(items: Iterable[Any]) -> str:
    """`a`, `a and b`, `a, b and c`.

    Args:
        items: at least one.
    """
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def estimate(value: Any, half: Any, digits: int) -> str:
    """Write a number with its error, if it has one.

    Args:
        value: the number.
        half: half of its interval, or its standard error; left out if it is not finite.
        digits: decimals.
    """
    return quantity(value, digits) + (f" ± {quantity(half, digits)}" if math.isfinite(number(half)) else "")


def bounds(found: Any, digits: int) -> str:
    """Write a value with the bounds of its interval, if it has one.

    Args:
        found: a `Comparison`, or a mapping with `value`, `low` and `high`.
        digits: decimals.
    """
    if isinstance(found, Comparison):
        value, low, high = found.difference, *found.ci95
    else:
        value, low, high = found["value"], found["low"], found["high"]
    interval = f" ({quantity(low, digits)} to {quantity(high, digits)})" if math.isfinite(number(low)) else ""
    return quantity(value, digits) + interval


@functools.cache
def environment() -> Environment:
    """The Jinja environment of all texts: an unknown name is an error."""
    made = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "auroc": auroc,
        "bounds": bounds,
        "capital": lambda text: text[:1].upper() + text[1:],
        "estimate": estimate,
        "fixed": quantity,
        "general": lambda value: f"{number(value):g}",
        "listed": listed,
        "percent": lambda share, digits=1: f"{quantity(100 * number(share), digits)} %",
        "seconds": duration,
    }
    return made


def read_template(name: str) -> str:
    """The text of a template of reports.

    Args:
        name: of its file in `templates`.
    """
    return (Path(__file__).with_name("templates") / name).read_text(encoding="utf-8")


def render(text: str, names: Mapping[str, Any]) -> list[str]:
    """Fill in a text.

    Args:
        text: a Jinja template; a blank line ends a paragraph.
        names: what it may use.

    Returns:
        The paragraphs.

    Raises:
        jinja2.UndefinedError: if the template uses a name that is not given.
    """
    filled = environment().from_string(text).render(names)
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", filled) if each.strip()]


def plain_section(name: str, findings: Findings) -> Section:
    """A section of an analysis that has none of its own: every number in a table.

    Args:
        name: of the analysis.
        findings: what it found.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name.rpartition(".")[2]).lower()
    rows = [(name, _shown(value)) for name, value in _leaves(findings.numbers)]
    table = Table("All that it found.", ("quantity", "value"), rows) if rows else None
    return Section(words[:1].upper() + words[1:], parts=(table,))


def _leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{above} {key}".strip())
    else:
        yield above, value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Comparison):
        return f"{bounds(value, 4)}, {value.verdict}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


class Estimate(NamedTuple):
    """A line of a forest plot.

    Attributes:
        label: at the axis.
        value: a point.
        low: lower bound of its interval; NaN for none.
        high: upper bound.
        ticks: single values, such as one a seed.
        band: the range of a null, or None.
        colour: of the point.
        series: estimates of one series share a colour and an entry of the legend; empty for none.
    """

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    ticks: Sequence[float] = ()
    band: tuple[float, float] | None = None
    colour: str = COLOURS[0]
    series: str = ""


def auroc(found: Mapping[str, Any]) -> str:
    """Write an area under the ROC curve with its bounds.

    Args:
        found: `auroc`, `low` and `high`.
    """
    return bounds({"value": found["auroc"], **found}, 3)


def auroc_cell(found: Mapping[str, Any]) -> str:
    """Write an area with its bounds, its null and its seeds, for a table.

    Args:
        found: `auroc`, `low`, `high`, `null_low`, `null_high` and `seeds`.
    """
    seeds = f"; seeds {', '.join(quantity(s, 3) for s in found['seeds'])}" if len(found["seeds"]) > 1 else ""
    return f"{auroc(found)}; null {quantity(found['null_low'], 3)} to {quantity(found['null_high'], 3)}{seeds}"


def auroc_estimate(label: str, found: Mapping[str, Any], colour: str) -> Estimate:
    """A line of a forest plot from an area with bounds, null and seeds.

    Args:
        label: at the axis.
        found: see `auroc_cell`.
        colour: of the point.
    """
    band = (found["null_low"], found["null_high"])
    return Estimate(label, found["auroc"], found["low"], found["high"], found["seeds"], band, colour)


def forest(
    groups: Mapping[str, Sequence[Estimate]],
    xlabel: str,
    *,
    reference: float | None = 0.0,
    linear_below: float | None = None,
    span: tuple[float, float] | None = None,
) -> "Figure":
    """Draw names on the y axis, values with intervals on the x axis: one panel a group, side by side.

    Args:
        groups: estimates, from top to bottom, by the title of their panel; all panels have the same labels.
        xlabel: what the values are.
        reference: a vertical line.
        linear_below: values beyond are drawn on a logarithmic axis; None for a linear one.
        span: a range that is marked behind all lines, such as the ceiling's.

    Returns:
        The figure.
    """
    labels = list(dict.fromkeys(e.label for group in groups.values() for e in group))
    figure, axes = panels(0.36 * len(labels) + 1.2, columns=len(groups), sharey=True)
    for ax, (title, group) in zip(axes, groups.items(), strict=True):
        if span is not None:
            ax.axvspan(*span, color="#D55E00", alpha=0.35, label="ceiling")
        series = list(dict.fromkeys(e.series for e in group))
        for e in group:
            at = labels.index(e.label) + 0.7 * ((series.index(e.series) + 0.5) / len(series) - 0.5)
            error = [[max(e.value - e.low, 0)], [max(e.high - e.value, 0)]] if math.isfinite(e.low) else None
            colour = COLOURS[series.index(e.series) % len(COLOURS)] if e.series else e.colour
            if e.band is not None:
                ax.fill_betweenx([at - 0.3, at + 0.3], *e.band, color="#d9d9d9")
            first = e.series and e is next(x for x in group if x.series == e.series)
            ax.errorbar(
                e.value, at, xerr=error, linestyle="", marker="o", markersize=4, color=colour,
                label=e.series if first else None,
            )  # fmt: skip
            ax.plot(e.ticks, [at] * len(e.ticks), linestyle="", marker="|", color=colour)
        if reference is not None:
            ax.axvline(reference, color=INK, linewidth=0.8)
        if linear_below is not None:
            ax.set_xscale("symlog", linthresh=linear_below)
        ax.set_title(title, fontsize=9)
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False, fontsize=8)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    axes[len(axes) // 2].set_xlabel(xlabel)
    return figure


def lines(
    findings: Findings,
    name: str,
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    alt: str = "",
    caption: str = "",
    log: str = "",
) -> Plot:
    """Plot an array of the findings against the coordinate of its first dimension, a line for each column.

    Args:
        findings: of the analysis.
        name: of the array.

    Other Args:
        xlabel: what the coordinate is; by default its name.
        ylabel: what the array is; by default its name.
        title: heading.
        alt: what is drawn.
        caption: what to look at.
        log: axes with a logarithmic scale: `x`, `y` or `xy`.

    Returns:
        A part of a section.

    Raises:
        ValueError: if there is no such array.
    """
    if name not in findings.arrays:
        raise ValueError(f"there is no array {name!r} to plot; there are {', '.join(findings.arrays) or 'none'}")
    dims, values = findings.arrays[name]
    values = np.asarray(values)
    x = findings.arrays[dims[0]][1] if dims[0] in findings.arrays else np.arange(len(values))
    figure, (ax,) = panels(2.9)
    ax.plot(x, values.reshape(len(values), -1), linewidth=1.3)
    ax.set_xlabel(xlabel or dims[0])
    ax.set_ylabel(ylabel or name)
    for axis in log:
        getattr(ax, f"set_{axis}scale")("log")
    heading = title or name[:1].upper() + name[1:]
    said = alt or f"Lines of {ylabel or name} against {xlabel or dims[0]}."
    return Plot(name, heading, said, caption, figure)
