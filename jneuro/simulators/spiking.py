"""The spike as a function: a step forward, a surrogate derivative backward."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jneuro._types import Array, Float

__all__ = ["Arctan", "Boxcar", "SuperSpike", "Surrogate", "spike"]


class Surrogate(eqx.Module):
    """A stand-in for the derivative of the step function; abstract."""

    @abc.abstractmethod
    def derivative(self, x: Float[Array, "*any"]) -> Float[Array, "*any"]:
        """The derivative that replaces Dirac's delta, at distance `x` [mV] above threshold."""


class SuperSpike(Surrogate):
    r"""The derivative of a fast sigmoid, \(1 / (1 + \beta|x|)^2\).

    References:
        Zenke F., Ganguli S., Neural Computation 30 (2018) 1514, Section 3.3.
    """

    beta: float = 1.0
    """Steepness [1/mV]."""

    def derivative(self, x):
        """See the class."""
        return 1.0 / jnp.square(1.0 + self.beta * jnp.abs(x))


class Arctan(Surrogate):
    r"""The derivative of an arc tangent, \((\alpha/2) / (1 + (\pi\alpha x/2)^2)\).

    References:
        Fang W. et al., ICCV (2021) 2661, Equation 10.
    """

    alpha: float = 1.0
    """Steepness [1/mV]."""

    def derivative(self, x):
        """See the class."""
        return 0.5 * self.alpha / (1.0 + jnp.square(0.5 * jnp.pi * self.alpha * x))


class Boxcar(Surrogate):
    r"""A box of unit area, \(1/w\) where \(|x| < w/2\).

    References:
        Neftci E. O., Mostafa H., Zenke F., IEEE Signal Processing Magazine 36 (2019) 51.
    """

    width: float = 1.0
    """Width [mV]."""

    def derivative(self, x):
        """See the class."""
        return (jnp.abs(x) < 0.5 * self.width).astype(x.dtype) / self.width


@jax.custom_jvp
def _step(x, slope):
    del slope
    return (x > 0).astype(x.dtype)


@_step.defjvp
def _step_jvp(primals, tangents):
    x, slope = primals
    return _step(x, slope), slope * tangents[0]


def spike(x: Float[Array, "*any"], surrogate: Surrogate) -> Float[Array, "*any"]:
    """One where `x > 0`, else zero, with the surrogate's derivative.

    Args:
        x: membrane potential above threshold [mV].
        surrogate: what replaces the derivative, in forward and in reverse mode.

    Returns:
        Zeros and ones of the type of `x`.
    """
    return _step(x, jax.lax.stop_gradient(surrogate.derivative(x)))
