"""What every optimiser returns, and where many starts begin."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Bool, Float, Key
from jneuro.fitting.parameters import Trainable

__all__ = ["Solution", "random_starts"]


class Solution(NamedTuple):
    """Where an optimiser came to, from each of its starts.

    Attributes:
        q: the best vectors of unconstrained numbers.
        cost: their costs; infinite where nothing finite was found.
        history: the cost after each iteration, of the pulled model while there is a pull; NaN after the last.
        finished: whether the optimiser's own criterion was met, rather than its limit of iterations.
        simulations: simulation equivalents of all starts together. A run is one, a column of a Jacobian in forward mode
            is one, a gradient in reverse mode is three.
        prediction: the potential [mV] that the best one gives, where it is not that of one run from the start.
        covariance: of the best one's unconstrained numbers, where the method knows it.
        fault: why the best one should not be believed, where the method knows it.
        seconds: wall time that it took, where somebody looked.
    """

    q: Float[Array, "start unknown"]
    cost: Float[Array, " start"]
    history: Float[Array, "start iteration"]
    finished: Bool[Array, " start"]
    simulations: int
    prediction: Float[Array, "trial time"] | None = None
    covariance: Float[Array, "unknown unknown"] | None = None
    fault: str = ""
    seconds: float = 0.0

    @property
    def best(self) -> int:
        """The start that came farthest down."""
        return int(np.argmin(np.asarray(self.cost)))


def random_starts(
    trainable: Trainable, values: Float[Array, " parameter"], count: int, *, spread: float, key: Key[Array, ""]
) -> Float[Array, "start parameter"]:
    """Draw unconstrained starts around given values.

    Args:
        trainable: the parameters.
        values: the middle. A positive parameter is drawn log-uniformly within a factor of it; one that may change its
            sign, uniformly between its bounds or, where one is infinite, within `spread - 1` of its size.
        count: how many.
        spread: the factor, 2 for half to double.
        key: random key.

    Returns:
        The starts, in unconstrained numbers.
    """
    uniform = jax.random.uniform(key, (count, len(trainable.names)), minval=-1.0)
    values, lower, upper = jnp.asarray(values)[None], trainable.lower[None], trainable.upper[None]
    finite = np.isfinite(lower) & np.isfinite(upper)
    middle, half = np.where(finite, (lower + upper) / 2, 0.0), np.where(finite, (upper - lower) / 2, 0.0)
    signed = jnp.where(finite, middle + half * uniform, values + jnp.abs(values) * (spread - 1) * uniform)
    return trainable.unconstrain(jnp.where(lower >= 0, values * spread**uniform, signed))
