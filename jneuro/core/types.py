"""Array types of annotations (jaxtyping)."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, UInt

__all__ = ["Array", "Bool", "Float", "Int", "Key", "PyTree", "Scalar", "UInt"]

PyTree = Any
"""Any nest of arrays."""

Scalar = Float[Array, ""]
"""A zero-dimensional floating-point array."""
