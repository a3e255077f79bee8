"""Files of results: one JSON object a line, read back and told apart."""

import json
from pathlib import Path
from typing import Any

__all__ = ["KEYS", "key", "label", "read"]

KEYS = ("subject", "case", "what", "by", "platform", "cores", "dtype", "batch")
"""What tells rows apart."""


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that say what was measured or what is absent; of the same thing measured twice, the last.

    Args:
        path: of JSON lines.

    Returns:
        The rows, in the order in which each was first there.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "entry" not in row:
            rows[key(row)] = row
    return list(rows.values())


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a row from others."""
    return tuple(row.get(name) for name in KEYS)


def label(row: dict[str, Any]) -> str:
    """A row's key in words."""
    named = {"cores": "{} cores", "batch": "batch {}"}
    parts = [named.get(name, "{}").format(row[name]) for name in KEYS if row.get(name) is not None]
    return ", ".join(parts).replace("1 cores", "1 core")
