"""`python -m tests.campaigns NAME --count N --seed S`: one campaign; prints its row, and appends it to a table.

The row is JSON: what was tried, how it came out, and every fault with what it takes to do it again.
"""

import argparse
import importlib
import json
import tempfile
import warnings
from pathlib import Path

CAMPAIGNS = ("damage", "fuzz", "kills", "full", "beside")


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="where it works; finished works that lie there are used again")
    parser.add_argument("--table", type=Path, default=Path("campaigns.jsonl"))
    parser.add_argument("--only", default="", help="one kind of work alone: run, sweep or fit")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as spare:
        home = (given.home or Path(spare)).resolve()
        driver = getattr(importlib.import_module(f"tests.campaigns.{given.campaign}"), given.campaign)
        options = {"only": given.only} if given.only else {}
        row = driver(seed=given.seed, count=given.count, home=home, **options).dump()
    text = json.dumps(row)
    with given.table.open("a") as file:
        file.write(text + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
