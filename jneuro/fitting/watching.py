"""How a fit tells where it is, and where it keeps what is finished."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

__all__ = ["SILENT", "FitProgress", "Part", "Watcher"]

_Piece = TypeVar("_Piece", bound=tuple)


class FitProgress(NamedTuple):
    """Where a fit is.

    Attributes:
        text: what is being done.
        share: how much of the most work is done, from 0 to 1; a method may end before.
        cost: the lowest cost so far, in the method's own measure; NaN if there is none.
    """

    text: str
    share: float
    cost: float = float("nan")


class Watcher:
    """Told how a fit goes on, and asked for what is finished already; this one neither shows nor keeps anything."""

    def show(self, progress: FitProgress) -> None:
        """Take note of where the fit is."""

    def keep(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Give a piece of work that was kept, or else make it and keep it.

        Args:
            name: of the piece, unique in the fit.
            kind: a named tuple of arrays, numbers and strings.
            make: makes it.

        Returns:
            The piece.
        """
        del name, kind
        return make()


SILENT = Watcher()


class Part(Watcher):
    """One of several parts of the work of another watcher, which sees its share and its name."""

    def __init__(self, whole: Watcher, name: str, begin: float, end: float) -> None:
        """Name a part that goes from one share of the whole to another."""
        self._whole, self._name, self._begin, self._end = whole, name, begin, end

    def show(self, progress: FitProgress) -> None:
        """Show where the whole is."""
        share = self._begin + (self._end - self._begin) * progress.share
        self._whole.show(FitProgress(f"{self._name}, {progress.text}", share, progress.cost))

    def keep(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Keep it among the whole's."""
        return self._whole.keep(f"{self._name}, {name}", kind, make)
