"""All of an HDF5 file, gone through as a rehearsal; see `jneuro.core.guard`. Imports no JAX."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from jneuro.core.guard import Unreadable, one_line

__all__ = ["walk"]

_READ = 32 << 20
"""So much of the samples of a file is read [bytes]; of more, the index of their chunks and both ends."""


def walk(path: Path) -> None:
    """Visit every object of a file, with all its attributes, references and chunks.

    Args:
        path: the file.

    Raises:
        Unreadable: if an array is declared larger than memory.
    """
    import h5py
    import psutil

    memory, left, seen = psutil.virtual_memory().available, _READ, set()
    with h5py.File(path, "r") as file:
        pending: list[Any] = [file["/"]]
        while pending:
            thing = pending.pop()
            with contextlib.suppress(*_DAMAGE):
                about = h5py.h5o.get_info(thing.id)
                if (about.fileno, about.addr) in seen:
                    continue
                seen.add((about.fileno, about.addr))
            for name in _tolerant(lambda thing=thing: list(thing.attrs)):
                value = _tolerant(lambda thing=thing, name=name: [thing.attrs[name]])
                pending += [x for v in value for x in _referred(file, v)]
            if isinstance(thing, h5py.Group):
                for name in _tolerant(lambda thing=thing: list(thing)):
                    pending += _tolerant(lambda thing=thing, name=name: [thing[name]])
            elif isinstance(thing, h5py.Dataset):
                if thing.nbytes > memory:
                    raise Unreadable(
                        f"declares {one_line(thing.name, most=60)!r} as {list(thing.shape)[:4]}, {thing.nbytes:.3g}"
                        f" bytes, but {memory:.3g} bytes are free; it is damaged, or too large for this machine"
                    )
                whole = thing.nbytes <= left or thing.dtype.hasobject
                left -= thing.nbytes if whole else 0
                read = functools.partial(_content, thing, whole=whole)
                pending += [x for v in _tolerant(read) for x in _referred(file, v)]


_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError)


def _tolerant(read: Any) -> list[Any]:
    """What can be read of a damaged file; the reader will say what cannot."""
    try:
        return read()
    except _DAMAGE:
        return []


def _content(data: Any, *, whole: bool) -> list[Any]:
    """What a dataset holds, or nothing of a large one, whose chunks are counted, and which is read at both ends."""
    if data.chunks and data.size:
        data.id.get_num_chunks()
    if whole:
        return [data[()]]
    for end in (0, -1):
        data[(end,) * data.ndim]
    return []


def _referred(file: Any, value: Any) -> list[Any]:
    """The objects that a value refers to."""
    import h5py
    import numpy as np

    array = np.asarray(value)
    columns = [array[name] for name in array.dtype.names or ()] or [array]
    references = [x for column in columns if column.dtype.hasobject for x in column.ravel()[:100_000]]
    return [found for r in references if isinstance(r, h5py.Reference) for found in _tolerant(lambda r=r: [file[r]])]
