"""One self-contained HTML page from its parts, whatever the report is of."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

__all__ = ["inline", "write_page"]

LARGEST_SVG = 150_000


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
    sections: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    analyses: Sequence[Mapping[str, Any]] = (),
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
        sections: title to figures; each has `name`, `title`, `alt`, `caption` and `source`.
        analyses: further sections, each with `title`, `sentences`, `tables` and `figures`.

    Returns:
        The path of the page.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = Path(__file__).with_name("templates") / "page.html.j2"
    template = environment.from_string(page.read_text(encoding="utf-8"))
    page = template.render(
        run=run,
        paragraph=paragraph,
        verdict=verdict,
        facts=facts,
        groups=groups,
        errors=errors,
        sections=sections or {},
        analyses=analyses,
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
