"""Compare every model with its PyTorch twin, print the largest errors, and keep them in docs/equivalence.md."""

import sys
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = []

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "equivalence.md"
BEGIN, END = "<!-- made by `make equivalence` -->\n", "<!-- end -->\n"
sys.path.insert(0, str(ROOT / "tests" / "torch_equivalence"))


def main():
    """Run all cases in both precisions."""
    from cases import CASES, RECIPES
    from equivalence import WHAT, compare

    tables = []
    for title, cases, dtypes in (("model", CASES, (np.float64, np.float32)), ("training", RECIPES, (np.float64,))):
        table = Table(title, "precision", *WHAT)
        rows = [(name, dtype.__name__, compare(case, dtype)[0]) for name, case in cases.items() for dtype in dtypes]
        for name, precision, errors in rows:
            table.add_row(name, precision, *(f"{errors[what]:.0e}" if what in errors else "–" for what in WHAT))
        Console(width=160).print(table)
        cells = [[c.header for c in table.columns], ["---"] * len(table.columns)]
        cells += zip(*(c.cells for c in table.columns), strict=True)
        tables.append("".join(f"| {' | '.join(row)} |\n" for row in cells))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(tables) + "\n" + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
