"""Z-scores: fitted on what the model may see, applied to everything."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Float

__all__ = ["Scaling", "fit_scaling", "no_scaling"]


class Scaling(eqx.Module):
    """An affine map, one mean and one scale for each variable.

    Attributes:
        mean: what is subtracted, in the recording's unit.
        scale: what it is divided by, in the recording's unit; positive.
    """

    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]

    def of(self, columns: tuple[int, ...] | None) -> "Scaling":
        """The scaling of some columns; None means all."""
        return self if columns is None else Scaling(*(x[np.asarray(columns)] for x in (self.mean, self.scale)))

    def apply(self, values: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        """From the recording's unit to z-scores."""
        return (values - _align(self.mean, values)) / _align(self.scale, values)

    def invert(self, values: Float[Array, "*any feature"]) -> Float[Array, "*any feature"]:
        """From z-scores to the recording's unit."""
        return values * _align(self.scale, values) + _align(self.mean, values)


def _align(row: Float[Array, " feature"], values: Array) -> Array:
    """Give a row as many axes as the values have."""
    return row.reshape((1,) * (values.ndim - 1) + row.shape)


def fit_scaling(values: Float[np.ndarray, "frame feature"]) -> Scaling:
    """Mean and standard deviation of every variable.

    Args:
        values: the frames to fit on, in the recording's unit.

    Returns:
        The scaling, in `float32`. A variable that never changes gets scale 1.
    """
    mean, sd = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
    return Scaling(jnp.asarray(mean, jnp.float32), jnp.asarray(np.where(sd > 0, sd, 1), jnp.float32))


def no_scaling(features: int) -> Scaling:
    """The identity, for `features` variables."""
    return Scaling(jnp.zeros(features, jnp.float32), jnp.ones(features, jnp.float32))
