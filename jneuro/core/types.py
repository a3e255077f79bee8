"""Kinds of arrays that annotations name."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt

__all__ = ["Array", "Bool", "Float", "Int", "Key", "PRNGKeyArray", "PyTree", "Scalar", "UInt"]

PyTree = Any
"""Any nest of arrays."""

Scalar = Float[Array, ""]
"""A zero-dimensional floating-point array."""
