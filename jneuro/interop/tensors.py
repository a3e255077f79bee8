"""Named tensors that come from elsewhere, and the one check that says everything that is wrong with them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.guard import Unreadable, found_in, shortened
from jneuro.core.names import one_line

__all__ = ["WeightsError", "check_sizes", "check_tensors", "reading", "without_prefix"]


_MOST = 300
"""Characters of a message."""

_SPARE = 10
"""So many times larger than the number of weights a size may be, such as the length of a window."""


class WeightsError(ValueError):
    """Weights that do not fit a model, or cannot be read or written; the message says which and what to do."""

    outcome = "error"


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Make whatever a parser raises of a file a WeightsError of one line.

    Args:
        path: the file.
        kind: what it should be, such as "an HDF5 file".

    Raises:
        WeightsError: naming the file, what it is found to be, and what to do.
    """
    try:
        yield
    except WeightsError as error:
        raise shortened(error, path) from error.__cause__
    except Unreadable as error:
        raise WeightsError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # parsers raise whatever they like
        said = one_line(f"{type(error).__name__}: {error}", most=100)
        raise WeightsError(
            f"{path}: cannot be read as {kind} ({said}); it is {found_in(path)}: damaged, or another kind; get it anew"
        ) from error


def without_prefix(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop what all names begin with, where they fit only without: `module.` of DDP, `_orig_mod.` of `torch.compile`.

    Args:
        found: tensors by name.
        expected: what is expected, by name.

    Returns:
        The tensors, under names without the prefix.
    """
    named = found
    while not named.keys() & expected.keys():
        if len({name.partition(".")[0] for name in named}) != 1 or not all("." in name for name in named):
            return found
        named = {name.partition(".")[2]: value for name, value in named.items()}
    return named


def check_sizes(config: Any, found: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration with a size far beyond that of the weights, before a model of that size is built.

    Args:
        config: keys and values, at any depth.
        found: tensors by name.
        source: where the configuration comes from, in the message.

    Raises:
        WeightsError: naming the size.
    """
    held = sum(int(np.prod(np.shape(tensor), dtype=object)) for tensor in found.values())
    largest = max(_integers(config), default=0)
    if largest > _SPARE * (held + 1_000_000):
        raise WeightsError(
            f"{source}: {largest} is no size of a model whose weights are {held} numbers; build the model with the"
            " configuration that the weights were made with"
        )


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int):
        yield value


def check_tensors(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray], model: str, *, hint: str = ""
) -> None:
    """Refuse tensors that are missing, unknown, of another shape, or that would lose precision.

    Args:
        expected: shape of every tensor, by name.
        found: what came.
        model: what the tensors are for, in the message.
        hint: a further remedy, at the message's end.

    Raises:
        WeightsError: listing such tensors, by name and shape; where they are too many for a line, all of them in a
            note, which tracebacks show.
    """
    both = [n for n in expected if n in found]
    problems = {
        "missing": [f"{n} {list(s)}" for n, s in expected.items() if n not in found],
        "unknown": [f"{n} {list(a.shape)}" for n, a in found.items() if n not in expected],
        "of another shape": [
            f"{n} is {list(found[n].shape)}, expected {list(expected[n])}"
            for n in both
            if found[n].shape != tuple(expected[n])
        ],
        "not of floating point": [
            f"{n} {found[n].dtype}" for n in both if not jnp.issubdtype(found[n].dtype, jnp.floating)
        ],
        "in double precision, which needs `jax.enable_x64(True)` or a conversion to float32": [
            n for n in both if found[n].dtype == np.float64 != jax.dtypes.canonicalize_dtype(np.float64)
        ],
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if not problems:
        return

    def message(most: int) -> str:
        listed = {
            kind: ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
            for kind, names in problems.items()
        }
        said = "; ".join(f"{len(problems[kind])} {kind}: {names}" for kind, names in listed.items())
        return (
            f"the weights do not fit {model}, so none was loaded; {said}; build the model with the configuration that"
            f" the weights were made with{hint}"
        )

    every = max(map(len, problems.values()))
    short = next((m for n in range(min(every, 12), 0, -1) if len(m := message(n)) <= _MOST), message(1))
    error = WeightsError(one_line(short))
    if short != message(every):
        error.add_note(message(every))
    raise error
