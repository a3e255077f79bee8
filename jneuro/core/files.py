"""Atomic writes of files and folders, flushed to disk, and JSON without NaN."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["finite", "flush", "naming", "remove", "write_json", "write_text", "written"]


@contextlib.contextmanager
def written(path: Path, *, first: bool = False) -> Iterator[Path]:
    """Write a file or a folder atomically: it takes its place when the body ends without an error.

    What is at `path` afterwards has reached the disk, so that a power loss does not undo it.

    Args:
        path: where it will be; what is there is replaced.
        first: whether what another process has put there meanwhile stays, and this one is dropped instead.

    Yields:
        Where to write it: a name of the same ending, beside `path`.
    """
    mark = uuid.uuid4().hex if first else "new"
    fresh, former = (path.with_name(f".{word}-{path.name}") for word in (mark, "former"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not first:
        if former.exists() and not path.exists():
            os.replace(former, path)  # a process was killed between the two steps below
        remove(fresh)
        remove(former)
    try:
        with naming(path):
            yield fresh
            flush(fresh)
            if first:
                try:
                    os.rename(fresh, path)  # onto nothing, or onto an empty folder
                except OSError:
                    if not path.exists():
                        raise
            else:
                if path.is_dir():
                    os.replace(path, former)
                os.replace(fresh, path)
            _flush_one(path.parent)
    finally:
        remove(fresh)
        if not first:
            remove(former)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system say where it happened: a full disk names no file.

    Args:
        path: what is written meanwhile.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def remove(path: Path) -> None:
    """Remove a file, or a folder and all that is in it, if it is there.

    Args:
        path: what.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or all of a folder, has reached the disk; what does not exist is passed over.

    Args:
        path: what.
    """
    if path.is_dir():
        for inner in path.rglob("*"):
            _flush_one(inner)
    if path.exists():
        _flush_one(path)


def _flush_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    # Some network file systems cannot; they are then as safe as they are.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: the file.
        text: its content.
    """
    with written(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; see `finite`.

    Args:
        path: the file.
        value: its content.
    """
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False))


def finite(value: Any) -> Any:
    """Make a value fit for JSON, which has no NaN: what could not be computed becomes null.

    Args:
        value: dictionaries, lists, strings, numbers and NumPy scalars.
    """
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1):
        value = value.item()
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
