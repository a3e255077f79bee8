"""Words of error messages: values as they are shown, misspelt names with the closest match, names of folders.

Imports nothing heavy, for `jneuro.simulate` needs it.
"""

import difflib
import re
import reprlib
from collections.abc import Iterable
from typing import Any

__all__ = ["one_line", "shown", "unknown_name", "unusable_name"]


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
    close = difflib.get_close_matches(name, known, 1) if len(name) < 100 else []
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown {kind} {shown(name)}; {hint}"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 4, 120, 40, 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


def shown(value: Any) -> str:
    """A value as a message shows it: whole if it is short, else without its middle."""
    return one_line(_SHORT.repr(value), 160)


def one_line(text: object, most: int = 300, *, name: object = "") -> str:
    """Text as a single line that a terminal takes for nothing but text; of a long one the middle is left out.

    Args:
        text: what is said, such as an error of another library; colours are taken out.
        most: most characters.
        name: of a file; where the text begins with it, it stays whole, and at least half of `most` is left besides.
    """
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(text)).split())
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain)
    kept = len(str(name)) if name and plain.startswith(str(name)) else 0
    most = max(most, kept + most // 2)
    if len(plain) <= most:
        return plain
    end = (most - kept) // 2
    return f"{plain[: most - end - 3]} … {plain[-end:]}"


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unusable_name(name: str) -> str:
    """Say why a name cannot be that of a folder on any system, or would lead out of the folder above; empty if it can.

    Args:
        name: the name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return "must be made of letters, digits, '_', '.' and '-', and begin with a letter or digit"
    if len(name) > 100:
        return "is longer than 100 characters; shorten it"
    if name.endswith("."):
        return "must not end with a dot"
    return "is reserved on Windows; choose another" if _RESERVED.fullmatch(name) else ""
