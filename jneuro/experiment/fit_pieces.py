"""The finished pieces of a fit that is not yet done, on disk: a start, a fit, some draws of a chain."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.fitting.watching import FitProgress, Watcher

__all__ = ["Pieces"]

_Piece = TypeVar("_Piece", bound=tuple)


class Pieces(Watcher):
    """Shows how a fit goes on, and keeps what is finished, so that it is not done again after a kill.

    A piece is one file, there whole or not at all. Its folder belongs to one configuration, and so do its names.
    """

    def __init__(self, path: Path, show: Callable[[FitProgress], None]) -> None:
        """Keep pieces in a folder, which is made when there is one.

        Args:
            path: the folder.
            show: told how the fit goes on.
        """
        self._path, self._show = path, show

    def show(self, progress: FitProgress) -> None:
        """Pass it on."""
        self._show(progress)

    def keep(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Read a piece that is there, or make it and write it."""
        file = self._path / f"{re.sub(r'[^a-z0-9]+', '-', name)}.npz"
        if not file.exists():
            piece = make()
            _write(file, piece._asdict())  # pyright: ignore
            return piece
        with np.load(file) as stored:
            plain = json.loads(str(stored["plain"]))
            return kind(**plain, **{k: jnp.asarray(stored[k]) for k in stored.files if k != "plain"})

    def clear(self) -> None:
        """Remove all, once the whole is written."""
        shutil.rmtree(self._path, ignore_errors=True)


def _write(file: Path, fields: dict[str, object]) -> None:
    """Write arrays as they are, and numbers, strings and what is missing as JSON."""
    arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, jax.Array | np.ndarray)}
    plain = json.dumps({k: v for k, v in fields.items() if k not in arrays})
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    with fresh.open("wb") as stream:
        np.savez(stream, plain=np.asarray(plain), **arrays)  # pyright: ignore
    os.replace(fresh, file)
