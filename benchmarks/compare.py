"""Whether anything became slower: `python benchmarks/compare.py BEFORE AFTER [--margin 0.1] [--confidence 0.95]`.

Rows that both files have are compared by the ratio of median times, after ÷ before. In every round the harness also
timed a matrix product and a copy; each time is divided by that of its round, which takes out how fast the machine was
just then. A bootstrap of the rounds gives the ratio's one-sided lower confidence bound, at a level that allows for the
number of rows. A row is a regression if the bound lies above 1 + margin: between two runs of one program, more changes
than between the rounds of one run (where its memory lies, what else the machine does), and the margin is for that. The
exit code is 1 if there is a regression, and 2 if nothing can be compared.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rows import key, label, read

__all__ = ["Compared", "compare"]

RESAMPLES = 4000


class Compared(NamedTuple):
    """A row of both files.

    Attributes:
        name: what was timed.
        ratio: of the median times, after ÷ before.
        bound: lower confidence bound of the ratio.
        regression: whether it became slower by more than the margin.
    """

    name: str
    ratio: float
    bound: float
    regression: bool


def paced(row: dict[str, Any]) -> np.ndarray:
    """The times of a row's rounds, in units of the machine's pace in each."""
    times = np.asarray(row["samples_s"], float)
    pace = np.asarray(row.get("yardstick_s", []), float)
    return times / pace if len(pace) == len(times) else times


def compare(
    before: list[dict[str, Any]], after: list[dict[str, Any]], *, margin: float = 0.1, confidence: float = 0.95
) -> list[Compared]:
    """Compare the rows that two sets of results share.

    Args:
        before: rows.
        after: rows.
        margin: by which share a row may become slower.
        confidence: that nothing is called a regression, over all rows, where nothing became slower than the margin.

    Returns:
        The shared rows, the slowest first.
    """
    old = {key(row): row for row in before if "samples_s" in row}
    pairs = [(old[key(row)], row) for row in after if "samples_s" in row and key(row) in old]
    rng, found = np.random.default_rng(0), []
    for first, second in pairs:
        drawn = [np.median(rng.choice(x, (RESAMPLES, len(x))), axis=1) for x in (paced(first), paced(second))]
        ratio = float(np.median(paced(second)) / np.median(paced(first)))
        bound = float(np.quantile(drawn[1] / drawn[0], (1 - confidence) / len(pairs)))
        found.append(Compared(label(second), ratio, bound, bound > 1 + margin))
    return sorted(found, key=lambda c: -c.ratio)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--margin", type=float, default=0.1, help="share by which a row may become slower")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the whole table")
    given = parser.parse_args()
    found = compare(read(given.before), read(given.after), margin=given.margin, confidence=given.confidence)
    if not found:
        print("the files share no row that was measured", file=sys.stderr)
        sys.exit(2)
    width = max(len(c.name) for c in found)
    print(f"{'':{width}}  ratio  at least")
    for c in found:
        print(f"{c.name:{width}}  {c.ratio:5.2f}  {c.bound:8.2f}{'  SLOWER' if c.regression else ''}")
    slower = sum(c.regression for c in found)
    print(f"{len(found)} rows compared, {slower} slower by more than {given.margin:.0%}")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
