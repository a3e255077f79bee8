"""Signals at random moments of every command, and what the work is worth at its end."""

import contextlib
import random
import shutil
import signal
import time
from pathlib import Path

from tests.campaigns.common import Row, campaign, made, sketched, write_works
from tests.campaigns.processes import Child, compared, finish, moment, ready, start

__all__ = ["kills", "undisturbed"]

PATIENCE_S = 30.0
"""How long a command may take to end after Ctrl-C or SIGTERM; compiling and writing end first."""

ANEW = 0.1
"""Share of starts in a fresh interpreter."""
WAYS = {"SIGKILL": 60, "SIGINT twice": 15, "SIGINT": 12, "SIGTERM": 13}


def undisturbed(home: Path, names: tuple[str, ...], fast: bool) -> tuple[dict[str, Path], dict[str, float]]:
    """Works that nothing disturbs, and how long they take."""
    ready()
    write_works(home, fast=fast)
    folders = {name: home / "whole" / name / "it" for name in names}
    for name, folder in folders.items():
        if folder in _seconds:
            continue
        began = time.monotonic()
        child = finish(made(home, name, folder), home / f"{name}.log")
        if child.code:
            raise RuntimeError(child.text[-2000:])
        _seconds[folder] = time.monotonic() - began
    return folders, {name: _seconds[folder] for name, folder in folders.items()}


_seconds: dict[Path, float] = {}


def strike(child: Child, way: str, rng: random.Random) -> str:
    """Send a signal, and say how the command ended."""
    number = signal.SIGKILL if way == "SIGKILL" else signal.SIGTERM if way == "SIGTERM" else signal.SIGINT
    child.send(number)
    if way == "SIGINT twice" and not child.ended(rng.uniform(0.05, 0.6)):
        child.send(number)
    if not child.ended(PATIENCE_S):
        child.end()
        return "deaf"
    if way == "SIGKILL":
        return "killed" if child.code == -number else "over"
    if child.traceback:
        return "traceback"
    return {1: "stopped", 0: "over"}.get(child.code or 0, f"exit {child.code}")


@campaign
def kills(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Stop works again and again, resume them, and compare each with an undisturbed one when it is finished.

    A chain is one work: `run`, `sweep` or `fit`, or an experiment by its single commands; each of its starts gets one
    signal, until a start ends first; some are in a fresh interpreter. Metrics, predictions, stores, figures and
    checkpoints must then be the same.
    """
    with sketched() if fast else contextlib.nullcontext():
        _kills(row, rng, count, home, only, fast)


def _kills(row: Row, rng: random.Random, count: int, home: Path, names: tuple[str, ...], fast: bool) -> None:
    whole, seconds = undisturbed(home, names, fast)
    chain = 0
    while row.tried < count:
        name = rng.choice(names)
        chain += 1
        out = home / f"chain{chain}" / name
        verbs = _verbs(home, name, out, rng)
        for words in verbs:
            for _ in range(rng.choice([2, 4, 8])):
                if row.tried >= count:
                    break
                way = rng.choices([*WAYS], [*WAYS.values()])[0]
                fresh = rng.random() < ANEW and not fast
                child = start(words, home / "log", anew=fresh)
                # Well before a whole work would end, for what is resumed takes less.
                if child.ended(moment(rng, (4 if fresh else 0) + 0.6 * seconds[name])):
                    if child.code:
                        row.add("failed", {"work": name, "words": words[0], "text": child.text[-2000:]})
                    break
                row.tried += 1
                how = strike(child, way, rng)
                bad = how not in ("killed", "stopped", "over")
                about = {"work": name, "words": words[0], "way": way, "anew": fresh, "text": child.text[-1500:]}
                row.add(f"{way}: {how}", about if bad else None)
            child = finish(words, home / "log")
            if child.code:
                row.add("not finished", {"work": name, "words": words[0], "text": child.text[-2000:]})
                break
        other = compared(out, whole[name], home / "scratch")
        row.add("chain: other" if other else "chain: same", {"work": name, "other": other[:9]} if other else None)
        shutil.rmtree(out.parent, ignore_errors=not other)


def _verbs(home: Path, name: str, out: Path, rng: random.Random) -> list[list[str]]:
    """The commands of a chain, each of which is stopped and done again until it ends."""
    whole = made(home, name, out, resume=True)
    if name != "run" or rng.random() < 0.5:
        return [whole]
    parts = [["simulate", *made(home, name, out)[1:]], ["train", *made(home, name, out)[1:]], whole]
    return [*parts, ["evaluate", str(out)], ["report", str(out)]]
