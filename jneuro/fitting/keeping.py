"""Where a fit keeps what is finished, so that it is not done again after a kill."""

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Keep", "anew", "named"]

_Piece = TypeVar("_Piece", bound=tuple)


class Keep(Protocol):
    """Gives a piece of work that was kept, or else makes it and keeps it."""

    def __call__(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Give the piece.

        Args:
            name: of the piece, unique in the fit.
            kind: a named tuple of arrays, numbers and strings.
            make: makes it.

        Returns:
            The piece.
        """
        ...


def anew(name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
    """Make every piece, and keep none.

    Args:
        name: of the piece.
        kind: what it is.
        make: makes it.

    Returns:
        The piece.
    """
    del name, kind
    return make()


def named(keep: Keep, part: str) -> Keep:
    """Keep the pieces of a part of the work among those of the whole.

    Args:
        keep: keeps those of the whole.
        part: the part's name, which stands before theirs.
    """
    return lambda name, kind, make: keep(f"{part}, {name}", kind, make)
