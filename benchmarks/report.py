"""The report of a file of results: `python benchmarks/report.py RESULTS`.

Writes `report.html`, `report.md` and the figures into a folder beside the file: what is to be reached and whether it
is, speed-up against each peer, throughput against batch size, accuracy against cost of the ODE solvers, the roofline,
every row, and what is absent, with its reason.
"""

import base64
import html
import sys
from pathlib import Path
from typing import Any, NamedTuple

from figures import FIGURES
from rows import KEYS, label, read

from jneuro.report.style import save

__all__ = ["write"]

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:13px;margin:1rem 0}th,td{padding:.15rem .7rem .15rem 0;text-align:right}"
    "th:first-child,td:first-child{text-align:left}tr{border-bottom:1px solid #e6e6e6}img{max-width:100%}"
    ".wide{overflow-x:auto}"
)


class Table(NamedTuple):
    """A table of the report.

    Attributes:
        title: heading.
        about: a sentence about it.
        columns: names.
        rows: texts.
    """

    title: str
    about: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def quantity(value: float | None, digits: int = 3) -> str:
    """A number in few digits."""
    return "–" if value is None else f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """A time with its unit."""
    if value is None:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def reached(rows: list[dict[str, Any]]) -> Table:
    """The ratios that are to be reached."""
    found = []
    for row in rows:
        if "ratio" not in row or not {"bar", "at_most"} & row.keys():
            continue
        wanted, well = (
            (f"≥ {row['bar']:g}", row["ratio"] >= row["bar"])
            if "bar" in row
            else (f"≤ {row['at_most']:g}", row["ratio"] <= row["at_most"])
        )
        found.append((label(row), f"{row['ratio']:.2f}", wanted, "yes" if well else "no"))
    about = "Ratio of median times: of the peer to ours, or of the gradient to the forward pass, in alternating rounds."
    return Table("What is to be reached", about, ("row", "ratio", "wanted", "reached"), found)


def measured(rows: list[dict[str, Any]]) -> Table:
    """Every row."""
    found = [
        (
            label(row),
            seconds(row["median_s"]),
            f"{seconds(row['q1_s'])} … {seconds(row['q3_s'])}",
            str(row["rounds"]),
            quantity(row.get("ratio")),
            seconds(row.get("compile_s")),
            quantity(row.get("memory_mib", row.get("peak_mib"))),
            quantity(row.get("throughput")),
            f"{100 * row['flop_share']:.0f} %" if "flop_share" in row else "–",
            f"{100 * row['byte_share']:.0f} %" if "byte_share" in row else "–",
        )
        for row in rows
        if "median_s" in row
    ]
    columns = ("row", "median", "quartiles", "rounds", "ratio", "compilation", "MiB", "per s", "of flop/s", "of byte/s")
    about = "Shares are of the machine's limits, a matrix product and a copy timed in the same rounds."
    return Table("Every row", about, columns, found)


def others(rows: list[dict[str, Any]]) -> Table:
    """Rows that are no times of rounds: whole fits and sweeps, and memory."""
    named = {*KEYS, "fingerprint"}
    found = []
    for row in rows:
        if not {"median_s", "absent"} & row.keys():
            facts = {k: v for k, v in row.items() if k not in named and not isinstance(v, dict | list)}
            said = (f"{k} {quantity(v) if isinstance(v, float) else v}" for k, v in facts.items())
            found.append((label(row), ", ".join(said)))
    return Table("Fits, sweeps and memory", "Once each, not in rounds.", ("row", "found"), found)


def missing(rows: list[dict[str, Any]]) -> Table:
    """What is absent, and why."""
    found = [(label(row), row["absent"]) for row in rows if "absent" in row]
    return Table("Absent", "What could not be measured, and the reason.", ("row", "reason"), found)


def machine(rows: list[dict[str, Any]]) -> Table:
    """The fingerprints."""
    prints = {str(row["fingerprint"]): row["fingerprint"] for row in rows if "fingerprint" in row}
    found = []
    for one in prints.values():
        facts = {k: v for k, v in one.items() if k != "versions"} | one["versions"]
        found += [(str(k), str(v)) for k, v in facts.items() if (str(k), str(v)) not in found]
    return Table("Where", "The devices, versions and settings of these rows.", ("", ""), found)


def write(path: Path) -> Path:
    """Write the report of a file of results.

    Args:
        path: the results.

    Returns:
        The HTML page.
    """
    rows, folder = read(path), path.with_suffix("")
    folder.mkdir(exist_ok=True)
    drawn = [(figure, figure.draw(rows)) for figure in FIGURES]
    pages = [f"# Benchmark {path.stem}", ""]
    body = [f"<h1>Benchmark {html.escape(path.stem)}</h1>"]

    def tabulate(table: Table) -> None:
        if not table.rows:
            return
        pages.extend(
            [f"## {table.title}", "", table.about, "", _line(table.columns), _line(["---"] * len(table.columns))]
        )
        pages.extend([*(_line([c.replace("|", "/") for c in row]) for row in table.rows), ""])
        head = "".join(f"<th>{html.escape(c)}</th>" for c in table.columns)
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
        body.append(
            f"<h2>{table.title}</h2><p>{table.about}</p><div class=wide><table><tr>{head}</tr>{cells}</table></div>"
        )

    tabulate(reached(rows))
    for figure, image in drawn:
        if image is None:
            continue
        png, _ = save(image, folder / figure.name)
        pages.extend([f"## {figure.title}", "", figure.caption, "", f"![{figure.title}]({figure.name}.png)", ""])
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        body.append(f'<h2>{figure.title}</h2><p>{figure.caption}</p><img alt="{figure.title}" src="{source}">')
    for table in (others(rows), missing(rows), measured(rows), machine(rows)):
        tabulate(table)
    (folder / "report.md").write_text("\n".join(pages), encoding="utf-8")
    page = folder / "report.html"
    whole = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{path.stem}</title><style>{STYLE}</style>'
    page.write_text(whole + "".join(body) + "</html>", encoding="utf-8")
    return page


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
