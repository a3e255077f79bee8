"""The page of a sweep: what was varied, what came of it, and its figures."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jneuro.report.components import duration
from jneuro.report.page import inline, write_page
from jneuro.report.style import save
from jneuro.report.sweep_figures import default_figures, draw_sweep_figure, spoken
from jneuro.sweeps.config import SweepConfig, SweepFigure

__all__ = ["write_sweep_report"]

_REASONS = 3
"""Reasons that the page names."""


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
    (folder / "figures").mkdir(exist_ok=True)
    failed = int(np.count_nonzero(~np.asarray(data["ok"])))
    points = int(data["ok"].size)
    axes = ", ".join(f"{name} ({config.targets[name]})" for name in config.sweep.varied)
    seeds = "one seed" if config.sweep.seeds == 1 else f"{config.sweep.seeds} seeds"
    figures = []
    for figure in config.figures or default_figures(config, data):
        of, axes = figure.of.rpartition(":")[2], (figure.x, figure.y, figure.family)
        name = "_".join([figure.kind, of, "over", *(a for a in axes if a)])
        source = inline(*save(draw_sweep_figure(figure, config, data), folder / "figures" / name))
        figures.append({**_words(figure, data), "name": name, "source": source})
    facts = [
        ("Points", f"{points:,}"),
        ("Failed", f"{failed:,}"),
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
        sections=[{"title": "Figures", "sentences": [], "tables": [], "figures": figures}] if figures else (),
    )


def _verdict(data: xr.Dataset) -> str:
    """How many points failed, and the most frequent reasons."""
    points = int(data["ok"].size)
    reasons = np.asarray(data["reason"])[~np.asarray(data["ok"])]
    if not len(reasons):
        return f"No point of {points:,} failed."
    frequent = Counter(map(str, reasons)).most_common()
    said = "; ".join(f"{count:,} × “{reason}”" for reason, count in frequent[:_REASONS])
    rest = f", and {len(frequent) - _REASONS} other reasons" if len(frequent) > _REASONS else ""
    return f"{len(reasons):,} of {points:,} points failed ({said}{rest}); they are white in the figures."


def _words(figure: SweepFigure, data: xr.Dataset) -> dict[str, str]:
    """Heading, description and caption."""
    of = figure.of.rpartition(":")[2]
    words, axes = spoken(of), " and ".join(a for a in (figure.x, figure.y) if a)
    kinds = {"heat_map": "Heat map", "curves": "Curves", "phase_diagram": "Phase diagram"}
    family = f", a curve for each {figure.family}" if figure.family else ""
    doc = data[of].attrs.get("long_name", "")
    return {
        "title": f"{words[0].upper()}{words[1:]} over {axes}",
        "alt": f"{kinds[figure.kind]} of {words} over {axes}{family}.",
        "caption": f"{doc[:1].upper()}{doc[1:]}." if doc else f"{words}{family}.",
    }
