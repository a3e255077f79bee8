"""Error messages for misspelt names, with the closest match. Imports nothing heavy, for `jneuro.simulate` needs it."""

import difflib
from collections.abc import Iterable

__all__ = ["unknown_name"]


def unknown_name(name: str, known: Iterable[str], kind: str) -> str:
    """Say that a name is unknown, and which one was probably meant.

    Args:
        name: what was written.
        known: what would have been right.
        kind: what the name is of, such as "parameter".

    Returns:
        A phrase for an error message.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"
