"""Files that others made or damaged, through every reader; see `hostile.py`."""

import random
from pathlib import Path

from tests.campaigns import hostile
from tests.campaigns.common import Row, campaign

__all__ = ["foreign"]


@campaign
def foreign(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Read so many hostile files of every kind."""
    for name in hostile.READERS:
        folder = home / f"hostile {name}"
        folder.mkdir()
        found = hostile.campaign(name, folder, seed=row.seed, count=count)
        row.tried += found.outcomes.total()
        row.counts.update({f"{name}: {outcome}": number for outcome, number in found.outcomes.items()})
        row.faults += [{"outcome": "bad", "work": name, "text": said} for said in found.bad]
