"""Four processes in one folder tree, with kills, full disks and a slow one."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.campaigns.common import Row, campaign, made, sketched
from tests.campaigns.full import limited, no_space
from tests.campaigns.kills import undisturbed
from tests.campaigns.processes import Child, compared, finish, start

__all__ = ["beside"]

OTHER = "evaluate.baselines=[persistence, mean]"
"""What makes the second experiment another one, with the same recording and the same training."""


def slow_disk(seed: int) -> None:
    """Every file takes up to 60 ms more to reach the disk, and to take its place, in this process."""
    rng = random.Random(seed)

    def late(function: Callable) -> Callable:
        def call(*args, **words):
            time.sleep(rng.uniform(0, 0.06))
            return function(*args, **words)

        return call

    os.fsync, os.replace, os.rename = late(os.fsync), late(os.replace), late(os.rename)


@campaign
@sketched()
def beside(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Two processes of one sweep and two experiments that share a recording, all in one tree, disturbed all the while.

    Each is begun again with `--resume` until it ends well; `count` starts are disturbed. Every result must be that of
    an undisturbed work.
    """
    whole, seconds = undisturbed(home, ("run", "sweep"), fast)
    whole["other"] = home / "whole" / "other" / "it"
    child = finish([*made(home, "run", whole["other"]), OTHER], home / "log")
    if child.code:
        raise RuntimeError(child.text)
    rounds = 0
    while row.tried < count:
        rounds += 1
        _round(row, rng, count, home, home / f"tree{rounds}", whole, 2 * seconds["run"])


def _round(
    row: Row, rng: random.Random, count: int, home: Path, tree: Path, whole: dict[str, Path], seconds: float
) -> None:
    """One tree until all in it is finished."""
    parts = {i: [*made(home, "sweep", tree / "sweep", resume=True), "--processes=2", f"--process={i}"] for i in (0, 1)}
    jobs = {"sweep 0": parts[0], "sweep 1": parts[1], "run": made(home, "run", tree / "run", resume=True)}
    jobs["other"] = [*made(home, "run", tree / "other", resume=True), OTHER]
    at_work: dict[str, tuple[Child, str, float]] = {}
    unfinished, starts, began = set(jobs), dict.fromkeys(jobs, 0), time.monotonic()
    while unfinished:
        for name in sorted(unfinished - at_work.keys()):
            starts[name] += 1
            most = 4 if row.tried < count else 0
            way = rng.choice(["kill", "limit", "no space", "slow"]) if starts[name] <= most else "nothing"
            number = rng.randrange(10**6)
            before = {
                "limit": partial(limited, 4096 << number % 4),
                "no space": partial(no_space, number % 60),
                "slow": partial(slow_disk, number),
            }.get(way)
            child = start(jobs[name], home / f"{name}.log", before=before)
            until = time.monotonic() + (rng.uniform(0, seconds) if way == "kill" else 1e9)
            at_work[name] = (child, way, until)
            row.tried += way != "nothing"
        time.sleep(0.05)
        for name, (child, way, until) in [*at_work.items()]:
            if time.monotonic() > until:
                child.send(signal.SIGKILL)
            if not child.ended(0):
                continue
            del at_work[name]
            how = "traceback" if child.traceback else {0: "finished", 1: "failed", 2: "refused"}.get(child.code or 0)
            how = "killed" if child.code == -signal.SIGKILL else how or f"exit {child.code}"
            fine = how in ("finished", "killed", "refused") or (how == "failed" and way in ("limit", "no space"))
            about = {"work": name, "way": way, "text": child.text[-1500:]}
            row.add(f"{way}: {how}", None if fine else about)
            if child.code == 0:
                unfinished.discard(name)
            elif starts[name] > 12 or time.monotonic() - began > 1800:
                row.add("not finished", about)
                unfinished.discard(name)
    same = True
    for name in ("sweep", "run", "other"):
        other = compared(tree / name, whole[name], home / "scratch")
        row.add("other" if other else "same", {"work": name, "other": other[:9]} if other else None)
        same = same and not other
    if same:
        shutil.rmtree(tree, ignore_errors=True)
