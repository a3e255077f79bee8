"""What a PyTorch file would build, looked at before PyTorch reads it.

PyTorch's own reader of plain tensors executes nothing, but it builds what it is told: a `bytearray` of any size, or
tuples of tuples of themselves, whose hash takes for ever. Here the pickles are followed without building anything.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from jneuro.core.guard import Unreadable, check_archive
from jneuro.core.names import one_line

__all__ = ["check_torch_file"]

_ENDLESS = 1_000_000
"""Elements of the largest tuple, those within its elements counted each time."""
_NUMBER = re.compile(r"[<>=|]?([?bhilqBHILQefdg]|[biuf]\d{1,2})")
"""NumPy's names of the kinds of plain numbers."""
_LEGACY = 5
"""Pickles at the beginning of a file as PyTorch wrote it before version 1.6."""


class _Item(NamedTuple):
    """Something that a pickle would build: how many elements a tuple would have, and its first word."""

    size: int
    word: str


def check_torch_file(path: Path) -> None:
    """Refuse a PyTorch file that would build something of another size than its own.

    Args:
        path: the file.

    Raises:
        Unreadable: saying what it would build, or that it is damaged.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        archive = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if not archive:
            for _ in range(_LEGACY):
                _follow(file)
            return
    check_archive(path)
    with zipfile.ZipFile(path) as entries:
        held = [entry for entry in entries.infolist() if entry.file_size]
        damaged = [entry.filename for entry in held if not _whole(entries, entry)]
        # PyTorch can be told to write no checksums; then none is right.
        if damaged and len(damaged) < len(held):
            raise Unreadable(f"the checksum of its entry {one_line(damaged[0], most=60)!r} does not match")
        for entry in held:
            if entry.filename.endswith(".pkl"):
                del entry.CRC  # which was compared, or is none
                with entries.open(entry) as content:
                    _follow(io.BytesIO(content.read()))


def _whole(entries: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is what was written."""
    try:
        with entries.open(entry) as content:
            while content.read(1 << 20):
                pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        return False
    return True


def _follow(stream: IO[bytes]) -> None:
    try:
        _build(pickletools.genops(stream))
    except Unreadable:
        raise
    except Exception as error:  # of pickletools, zipfile, and of our stack
        raise Unreadable(f"its pickle is damaged, {one_line(error, most=80)}") from error


def _build(operations: Iterable[tuple[Any, Any, Any]]) -> None:
    """Follow a pickle's stack, of items in place of objects."""
    stack: list[_Item] = []
    marks: list[int] = []
    memo: dict[int, _Item] = {}
    for operation, argument, _ in operations:
        name = operation.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name == "MARK":
            marks.append(len(stack))
        else:
            before = operation.stack_before
            start = marks.pop() if pickletools.markobject in before else len(stack) - len(before)
            if start < 0:
                raise ValueError("its stack is empty")
            taken = stack[start:]
            del stack[start:]
            if pickletools.markobject in before and before.index(pickletools.markobject):
                taken.insert(0, stack.pop())  # what is appended to, or updated
            _check(name, argument, taken)
            if name.startswith("TUPLE"):
                stack.append(_Item(1 + sum(i.size for i in taken), taken[0].word if taken else ""))
            else:
                word = argument if isinstance(argument, str) else ""
                stack += [_Item(1, word)] * len(operation.stack_after)


def _check(name: str, argument: Any, taken: list[_Item]) -> None:
    if name == "GLOBAL" and argument.endswith(" bytearray"):
        raise Unreadable("it holds a bytearray, whose size it may choose")
    if sum(i.size for i in taken) > _ENDLESS:
        raise Unreadable("it holds tuples of themselves")
    if name in ("REDUCE", "NEWOBJ") and taken[0].word == "numpy dtype" and not _NUMBER.fullmatch(taken[1].word):
        raise Unreadable(f"it holds the type {one_line(taken[1].word, most=40)!r} of NumPy's, which is no plain number")
