"""What a peer hands back: one JSON line, or one small file."""

import importlib.metadata
import json
import platform
import sys

import numpy as np

__all__ = ["report", "save", "versions"]


def versions(*packages):
    """Versions of Python, NumPy and the packages named."""
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in ("numpy", *packages)}


def report(peer, case, packages=(), **values):
    """Print one JSON line."""
    print(json.dumps({"peer": peer, "case": case, **values, "versions": versions(*packages)}))


def save(settings, packages=(), **arrays):
    """Write a reference to the path given on the command line; settings and versions go into it as JSON."""
    text = json.dumps(settings | {"versions": versions(*packages)}, sort_keys=True)
    np.savez_compressed(sys.argv[1], settings=np.array(text), **arrays)
