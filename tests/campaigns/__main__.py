"""`python -m tests.campaigns NAME... --count N --seed S`: campaigns; prints the row of each, and appends it to a table.

The row is JSON: what was tried, how it came out, and every fault with what it takes to do it again.
`python -m tests.campaigns table` prints the rows of the table as Markdown.
"""

import argparse
import importlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

CAMPAIGNS = ("damage", "fuzz", "begun", "kills", "full", "beside", "foreign")


def _markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| tried | what came out | faults | s | command |", "|---|---|---|---|---|"]
    for row in rows:
        counts = ", ".join(f"{name} {number}" for name, number in row["counts"].items())
        lines.append(
            f"| {row['tried']} | {counts} | {len(row['faults'])} | {row['seconds']:.0f} | `{row['command']}` |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("campaigns", nargs="+", choices=[*CAMPAIGNS, "table"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, default=Path("campaigns.jsonl"), help="the row is appended to it")
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), default=(), help="works: run, sweep, fit")
    parser.add_argument("--fast", action="store_true", help="small configurations, no fresh interpreters, no pictures")
    given = parser.parse_args()
    if given.campaigns == ["table"]:
        print(_markdown([json.loads(line) for line in given.table.read_text().splitlines()]))
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        for name in given.campaigns:
            driver = getattr(importlib.import_module(f"tests.campaigns.{name}"), name)
            row = driver(
                seed=given.seed, count=given.count, home=Path(home).resolve(), only=given.only, fast=given.fast
            )
            with given.table.open("a") as file:
                file.write(json.dumps(row.dump()) + "\n")
            print(json.dumps(row.dump(), indent=1), flush=True)


if __name__ == "__main__":
    main()
