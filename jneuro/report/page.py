"""The page: one self-contained HTML file that says what was run, what it scored, and what that is worth."""

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jinja2 import Environment, StrictUndefined

from jneuro.datasets.variables import shared_unit
from jneuro.evaluation.analysis import Findings
from jneuro.evaluation.claims import Status
from jneuro.report.components import (
    Plot,
    Section,
    Table,
    duration,
    number,
    plain_section,
    quantity,
    read_template,
    render,
)
from jneuro.report.data import BASELINES, ReportData, Score, best, in_unit, scores
from jneuro.report.figures import run_sections
from jneuro.report.style import save
from jneuro.report.summary import facts, paragraph, verdict

__all__ = ["inline", "shown", "write_page", "write_report"]

LARGEST_SVG = 150_000

GROUPS = (
    ("baseline", "Baselines"),
    ("model", "Models, tested on unseen runs"),
    ("leaky", "Leaky split, saw test data: not comparable"),
    ("ceiling", "Upper bound"),
)


class Cell(NamedTuple):
    """A number of the score table.

    Attributes:
        value: the number as the metrics have it; `None` if missing.
        text: the number as it is shown.
    """

    value: float | None
    text: str


class Row(NamedTuple):
    """A line of the score table.

    Attributes:
        name: of the predictor.
        kind: of the predictor.
        best: whether it is the best of its kind.
        own_windows: whether it was scored on windows of its own.
        cells: its numbers, one for each of the table's columns.
    """

    name: str
    kind: str
    best: bool
    own_windows: bool
    cells: list[Cell]


def write_report(data: ReportData, folder: Path) -> Path:
    """Write `report.html`, and every figure as `figures/<name>.png` and `.svg`.

    The page loads nothing: figures are inlined, as SVG where that is small, else as PNG. Parts for which the run
    has no data are left out.

    Args:
        data: the run.
        folder: the run folder; created if missing.

    Returns:
        Path of the page.
    """
    claims = _claims(data)
    first = [] if claims is None else [shown(claims, folder)]
    return write_page(
        folder,
        run=data.run,
        paragraph=paragraph(data),
        verdict=verdict(data),
        facts=facts(data),
        errors=[in_unit(data, what) for what in ("RMSE", "MAE")],
        groups=[(title, rows) for kind, title in GROUPS if (rows := _rows(data, kind))],
        sections=[*first, *_analyses(data, folder), *(shown(s, folder) for s in run_sections(data))],
        config_yaml=data.config_yaml,
    )


def _analyses(data: ReportData, folder: Path) -> list[dict[str, Any]]:
    """What the page shows of each analysis; one whose section fails costs its own section alone."""
    found = []
    for name, (analysis, findings) in data.analyses.items():
        if "failed" in findings.numbers:
            found.append(_failed(name, f"This analysis failed ({findings.numbers['failed']})"))
            continue
        try:
            section = analysis.section(findings) or plain_section(name, findings)
            found.append(shown(section, folder, findings.numbers))
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            found.append(_failed(name, f"This section failed ({said}); its numbers are in metrics.json"))
    return found


def _failed(name: str, said: str) -> dict[str, Any]:
    title, said = plain_section(name, Findings({})).title, f"{said}; all else in this report does without it."
    return {"title": title, "sentences": [said], "tables": [], "figures": []}


def _claims(data: ReportData) -> Section | None:
    """The section on the claims of the study, if it has any."""
    if not data.claims:
        return None
    counts = Counter(c.status for c in data.claims)
    said = ", ".join(f"{counts[s]} {s}" for s in get_args(Status) if counts[s])
    rows = [(c.text, c.status, "; ".join(c.evidence), c.source or "–") for c in data.claims]
    caption = "Each claim beside the numbers that bear on it: difference with its 95 % interval, and what pairs it."
    table = Table(caption, ("claim", "verdict", "evidence", "source"), rows, prose=True)
    return Section("Claims", f"Of {len(rows)} claims: {said}.", (table,))


def _rows(data: ReportData, kind: str) -> list[Row]:
    """The score table's lines of one kind."""
    top = best(data, "model")
    unit = shared_unit(data.targets)
    found = [s for s in scores(data) if s.kind == kind]
    return [Row(BASELINES.get(s.name, s.name), s.kind, s == top, s.own_windows, _cells(s, unit)) for s in found]


def _cells(score: Score, unit: str) -> list[Cell]:
    """One predictor's numbers in the order of the table's columns; no skill over baselines that are not in it."""

    def cell(key: str, text: Any) -> Cell:
        value = score.value(key)
        return Cell(value, text(value)) if math.isfinite(value) else Cell(None, "–")

    se = number(score.values.get("r2_se"))
    error = f" ± {quantity(se, 4)}" if math.isfinite(se) else ""
    seeds = score.values.get("seeds") or {}
    mean, spread = number(seeds.get("mean")), quantity(number(seeds.get("ci95")), 4)
    again = Cell(mean, f"{quantity(mean, 4)} ± {spread} ({len(seeds['r2'])})") if seeds else Cell(None, "–")
    own = shared_unit(score.values.get("targets") or {})
    other = f" {own}" if own not in ("", unit) else ""
    skill = cell("skill", lambda x: f"{quantity(100 * x, 1)} %")
    return [
        cell("r2", lambda x: quantity(x, 4) + error),
        again,
        cell("rmse", lambda x: quantity(x, 3) + other),
        cell("mae", lambda x: quantity(x, 3) + other),
        cell("share_of_ceiling", lambda x: f"{quantity(100 * x, 1)} %"),
        Cell(None, "–") if score.own_windows else skill,
        cell("parameters", lambda x: f"{x:,.0f}"),
        cell("train_seconds", duration),
    ]


def shown(section: Section, folder: Path, numbers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fill in a section's text and write its figures.

    Args:
        section: what to show.
        folder: the run folder; figures go to `figures/<name>.png` and `.svg` in it.
        numbers: names that the text may use, besides the section's own.

    Returns:
        What the page's template shows: `title`, `sentences`, `tables` and `figures`.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    parts = [part for part in section.parts if part is not None]
    return {
        "title": section.title,
        "sentences": render(section.text, {**(numbers or {}), **section.names}),
        "tables": [part for part in parts if isinstance(part, Table)],
        "figures": [
            {**part._asdict(), "source": inline(*save(part.figure, folder / "figures" / part.name))}
            for part in parts
            if isinstance(part, Plot)
        ],
    }


def write_page(
    folder: Path,
    *,
    run: Mapping[str, Any],
    config_yaml: str,
    paragraph: str = "",
    verdict: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    groups: Sequence[tuple[str, Sequence[Any]]] = (),
    errors: Sequence[str] = (),
    sections: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write report.html.

    Args:
        folder: the run folder.
        run: `name`, `hash`, `jneuro_version`, `versions`, `git_commit` and `command`.
        config_yaml: the resolved configuration.
        paragraph: what was run, in plain words.
        verdict: what it shows, one sentence an item.
        facts: names and values of the table at a glance.
        groups: titles and rows of the score table.
        errors: headings of its columns of errors.
        sections: each with `title`, `sentences`, `tables` and `figures`; see `shown`.

    Returns:
        The path of the page.
    """
    html = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = html.from_string(read_template("page.html.j2"))
    page = template.render(
        run=run,
        paragraph=paragraph,
        verdict=verdict,
        facts=facts,
        groups=groups,
        errors=errors,
        sections=sections,
        config_yaml=config_yaml,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def inline(png: bytes, svg: bytes) -> str:
    """Make a data URI of a figure: the SVG unless it is heavy and the PNG is lighter.

    Args:
        png: the figure as PNG.
        svg: the figure as SVG.

    Returns:
        The URI.
    """
    heavy = len(svg) > LARGEST_SVG and len(png) < len(svg)
    kind, content = ("png", png) if heavy else ("svg+xml", svg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
