"""Named tensors that come from elsewhere, and the one check that says everything that is wrong with them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["WeightsError", "check_tensors", "without_prefix"]


class WeightsError(ValueError):
    """Weights that do not fit a model, or cannot be read or written; the message says which and what to do."""

    outcome = "error"


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
        WeightsError: listing every such tensor, by name and shape.
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
    said = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if said:
        raise WeightsError(
            f"the weights do not fit {model}, so none was loaded; {'; '.join(said)}; build the model with the"
            f" configuration that the weights were made with{hint}"
        )
