"""All of an HDF5 file, gone through as a rehearsal; see `jneuro.core.guard`. Imports no JAX."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from jneuro.core.guard import check_memory
from jneuro.core.names import one_line

__all__ = ["walk"]

_READ = 32 << 20
"""So much of the samples of a file is read [bytes]; of more, the index of their chunks and both ends."""

_PACKED = 1100
"""So many times smaller than its content a file can be, compressed by HDF5's own filters."""


def walk(path: Path) -> None:
    """Visit every object of a file, with all its attributes, references and chunks.

    Args:
        path: the file.

    Raises:
        Unreadable: if an array is declared larger than memory, and than what the file can hold.
    """
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    left, seen = _READ, set()
    with h5py.File(path, "r") as file:
        pending: list[Any] = [file["/"]]
        while pending:
            thing = pending.pop()
            with contextlib.suppress(*_DAMAGE):
                about = h5o.get_info(thing.id)
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
                if thing.nbytes > _PACKED * (thing.id.get_storage_size() + _READ) and not thing.is_virtual:
                    check_memory(f"{one_line(thing.name, most=60)!r} as {list(thing.shape)[:4]}", thing.nbytes)
                whole = thing.nbytes <= left or thing.dtype.hasobject
                left -= thing.nbytes if whole else 0
                read = functools.partial(_content, thing, whole=whole)
                pending += [x for v in _tolerant(read) for x in _referred(file, v)]


_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError)


def _tolerant(read: Any) -> list[Any]:
    """What can be read of a damaged file; the reader will say what cannot."""
    try:
        return read()
    except _DAMAGE as error:
        if "alloc" in str(error) or "memory" in str(error):
            raise MemoryError from error  # which here is the library's own error; without a limit it would go on
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
