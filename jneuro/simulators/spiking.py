"""The spike as a function: a step forward, a surrogate derivative backward."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from jneuro.core.types import Array, Float

__all__ = ["Arctan", "Boxcar", "SuperSpike", "Surrogate", "spike"]


class Surrogate(eqx.Module):
    """A stand-in for the derivative of the step function; abstract.

    It acts in every step, so a recurrent network's gradient grows without bound where `scale` is large for its time
    step: about `dt/tau_m` keeps it finite over seconds.
    """

    @abc.abstractmethod
    def derivative(self, x: Float[Array, "*any"]) -> Float[Array, "*any"]:
        """The derivative that replaces Dirac's delta, at distance `x` [mV] above threshold."""


class SuperSpike(Surrogate):
    r"""The derivative of a fast sigmoid, \(s / (1 + \beta|x|)^2\).

    References:
        Zenke F., Ganguli S., Neural Computation 30 (2018) 1514, Section 3.3.
    """

    beta: float = 1.0
    """Steepness [1/mV]."""
    scale: float = 1.0
    """Factor, also called dampening."""

    def derivative(self, x):
        """See the class."""
        return self.scale / jnp.square(1.0 + self.beta * jnp.abs(x))


class Arctan(Surrogate):
    r"""The derivative of an arc tangent, \(s\,(\alpha/2) / (1 + (\pi\alpha x/2)^2)\).

    References:
        Fang W. et al., ICCV (2021) 2661, Equation 10.
    """

    alpha: float = 1.0
    """Steepness [1/mV]."""
    scale: float = 1.0
    """Factor, also called dampening."""

    def derivative(self, x):
        """See the class."""
        return self.scale * 0.5 * self.alpha / (1.0 + jnp.square(0.5 * jnp.pi * self.alpha * x))


class Boxcar(Surrogate):
    r"""A box of area \(s\): \(s/w\) where \(|x| < w/2\).

    References:
        Neftci E. O., Mostafa H., Zenke F., IEEE Signal Processing Magazine 36 (2019) 51.
    """

    width: float = 1.0
    """Width [mV]."""
    scale: float = 1.0
    """Factor, also called dampening."""

    def derivative(self, x):
        """See the class."""
        return (jnp.abs(x) < 0.5 * self.width).astype(x.dtype) * (self.scale / self.width)


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
