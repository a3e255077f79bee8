"""The finished pieces of a fit that is not yet done, on disk: a start, a fit, some draws of a chain."""

import contextlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.files import remove, written

__all__ = ["Pieces"]

_Piece = TypeVar("_Piece", bound=tuple)


class Pieces:
    """Keeps what is finished of a fit, so that it is not done again after a kill.

    A piece is one file, there whole or not at all. Its folder belongs to one configuration, and so do its names.
    """

    def __init__(self, path: Path) -> None:
        """Keep pieces in a folder, which is made when there is one."""
        self._path = path

    def keep(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Read a piece that is there, or make it and write it."""
        file = self._path / f"{re.sub(r'[^a-z0-9]+', '-', name)}.npz"
        # What is damaged is made again, as what is missing.
        damaged = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
        with contextlib.suppress(*damaged), np.load(file) as stored:
            plain = json.loads(str(stored["plain"]))
            return kind(**plain, **{k: jnp.asarray(stored[k]) for k in stored.files if k != "plain"})
        piece = make()
        _write(file, piece._asdict())  # pyright: ignore
        return piece

    def clear(self) -> None:
        """Remove all, once the whole is written."""
        remove(self._path)


def _write(file: Path, fields: dict[str, object]) -> None:
    """Write arrays as they are, and numbers, strings and what is missing as JSON."""
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, jax.Array | np.ndarray)}
    plain = json.dumps({k: v for k, v in fields.items() if k not in arrays})
    with written(file) as fresh, fresh.open("wb") as stream:
        np.savez(stream, plain=np.asarray(plain), **arrays)  # pyright: ignore
