"""The vocabulary of every module: kinds of arrays, and the base of every typed configuration."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt
from pydantic import BaseModel, ConfigDict

__all__ = ["Array", "Bool", "Config", "Float", "Int", "Key", "PRNGKeyArray", "PyTree", "Scalar", "UInt"]

PyTree = Any
"""Any nest of arrays."""

Scalar = Float[Array, ""]
"""A zero-dimensional floating-point array."""


class Config(BaseModel):
    """A frozen piece of configuration: unknown keys are refused, and numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)
