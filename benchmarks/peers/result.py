"""What a peer hands back: the seconds of each round, then one JSON line; or one small file."""

import importlib.metadata
import json
import os
import platform
import sys

import numpy as np

__all__ = ["report", "rounds", "save", "versions"]


def versions(*packages):
    """Versions of Python, NumPy and the packages named."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in ("numpy", *packages)}


def rounds(run, scale, alone=3):
    """Run `alone` times; or, as one side of a benchmark, once for every line that comes in.

    Args:
        run: runs once, and returns its seconds.
        scale: from these to the unit of the case.
        alone: how often, if nobody says when.

    Returns:
        The seconds of all rounds, not scaled.
    """
    if not os.environ.get("JNEURO_ROUNDS"):
        return [run() for _ in range(alone)]
    print(json.dumps({"built": True}), flush=True)
    found = []
    for _ in sys.stdin:
        found.append(run())
        print(json.dumps({"seconds": found[-1] * scale}), flush=True)
    return found


def report(peer, case, packages=(), **values):
    """Print one JSON line."""
    print(json.dumps({"peer": peer, "case": case, **values, "versions": versions(*packages)}))


def save(settings, packages=(), **arrays):
    """Write a reference to the path given on the command line; settings and versions go into it as JSON."""
    text = json.dumps(settings | {"versions": versions(*packages)}, sort_keys=True)
    np.savez_compressed(sys.argv[1], settings=np.array(text), **arrays)
