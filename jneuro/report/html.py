"""The page: one self-contained HTML file that says what was run, what it scored, and what that is worth."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, get_args

from jneuro.datasets.variables import shared_unit
from jneuro.evaluation.analysis import Findings
from jneuro.evaluation.claims import Status
from jneuro.report.components import Plot, Table, duration, number, plain_section, quantity, render
from jneuro.report.data import BASELINES, ReportData, Score, best, in_unit, scores
from jneuro.report.figures import draw_figures
from jneuro.report.page import inline, write_page
from jneuro.report.style import save
from jneuro.report.summary import facts, paragraph, verdict

__all__ = ["write_report"]

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
    figures = draw_figures(data, folder / "figures")
    sections: dict[str, list[dict[str, str]]] = {}
    for drawn in figures:
        kind = drawn.kind
        caption = f"{kind.caption} {kind.ceiling}" if data.metrics.get("ceiling") else kind.caption
        entry = {"name": kind.name, "title": kind.title, "alt": kind.alt, "caption": caption}
        sections.setdefault(kind.section, []).append({**entry, "source": inline(drawn.png, drawn.svg)})
    return write_page(
        folder,
        run=data.run,
        paragraph=paragraph(data),
        verdict=verdict(data),
        facts=facts(data),
        errors=[in_unit(data, what) for what in ("RMSE", "MAE")],
        groups=[(title, rows) for kind, title in GROUPS if (rows := _rows(data, kind))],
        sections=sections,
        analyses=[*_claims(data), *_analyses(data, folder / "figures")],
        config_yaml=data.config_yaml,
    )


def _analyses(data: ReportData, folder: Path) -> list[dict[str, Any]]:
    """What the page shows of each analysis; one whose section fails costs its own section alone."""
    shown = []
    for name, (analysis, findings) in data.analyses.items():
        if "failed" in findings.numbers:
            shown.append(_failed(name, f"This analysis failed ({findings.numbers['failed']})"))
            continue
        try:
            section = analysis.section(findings) or plain_section(name, findings)
            sentences = render(section.text, {**findings.numbers, **section.names})
            tables = [part for part in section.parts if isinstance(part, Table)]
            figures = [
                {**part._asdict(), "source": inline(*save(part.figure, folder / part.name))}
                for part in section.parts
                if isinstance(part, Plot)
            ]
            shown.append({"title": section.title, "sentences": sentences, "tables": tables, "figures": figures})
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            shown.append(_failed(name, f"This section failed ({said}); its numbers are in metrics.json"))
    return shown


def _claims(data: ReportData) -> list[dict[str, Any]]:
    """The section on the claims of the study, if it has any."""
    if not data.claims:
        return []
    counts = Counter(c.status for c in data.claims)
    said = ", ".join(f"{counts[s]} {s}" for s in get_args(Status) if counts[s])
    rows = [(c.text, c.status, "; ".join(c.evidence), c.source or "–") for c in data.claims]
    caption = "Each claim beside the numbers that bear on it: difference with its 95 % interval, and what pairs it."
    table = Table(caption, ("claim", "verdict", "evidence", "source"), rows)
    return [{"title": "Claims", "sentences": [f"Of {len(rows)} claims: {said}."], "tables": [table], "figures": []}]


def _failed(name: str, said: str) -> dict[str, Any]:
    title = plain_section(name, Findings({})).title
    return {
        "title": title,
        "sentences": [f"{said}; all else in this report does without it."],
        "tables": [],
        "figures": [],
    }


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
