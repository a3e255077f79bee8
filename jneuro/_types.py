"""The vocabulary of every module: kinds of arrays, and the base of every typed configuration."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt
from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Array", "Bool", "Config", "Float", "Int", "Key", "PRNGKeyArray", "PyTree", "Scalar", "UInt", "unknown_name"]

PyTree = Any
"""Any nest of arrays."""

Scalar = Float[Array, ""]
"""A zero-dimensional floating-point array."""


class Config(BaseModel):
    """A frozen piece of configuration: unknown keys are refused with a suggestion, and numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """Refuse unknown keys, and say which one was probably meant."""
        if isinstance(data, Mapping) and cls.model_config.get("extra") == "forbid":
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_name(str(key), cls.model_fields, "key"))
        return data


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
