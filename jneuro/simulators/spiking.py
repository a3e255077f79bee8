"""The spike as a function: a step forward, and backward the derivative of a surrogate, where one is asked for.

Simulators say where a neuron spikes and what a spike resets, once: `spikes = spike(v - v_threshold)` and
`v = reset(spikes, v, to=v_reset)`. How spikes are differentiated is chosen by whoever simulates, with
`simulate(..., spike_gradient=SuperSpike())`: without it spikes are booleans, cheap, and carry no gradient.
"""

import abc
import contextlib
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jneuro.core.types import Array, Bool, Float

__all__ = ["Arctan", "Boxcar", "SuperSpike", "Surrogate", "reset", "spike", "spike_gradient", "surrogate_in_force"]


class Surrogate(eqx.Module):
    """A stand-in for the derivative of the step function; abstract.

    It acts in every step, so a recurrent network's gradient grows without bound where `scale` is large for its time
    step: about `dt/tau_m` keeps it finite over seconds.
    """

    detach_reset: bool = eqx.field(static=True, default=True, kw_only=True)
    """Whether what a spike resets passes no gradient back to the spike."""

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


class _Choice:
    """A surrogate, as what compiled programs are looked up by."""

    def __init__(self, surrogate: Surrogate) -> None:
        self.surrogate = surrogate
        leaves, structure = jax.tree.flatten(surrogate)
        # Arrays, which may be traced, have no value to compare: such a surrogate equals itself alone.
        plain = all(isinstance(x, int | float) for x in leaves)
        self._key = (structure, *leaves) if plain else object()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Choice) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


_chosen: Any = jax.make_user_context(None)


@contextlib.contextmanager
def spike_gradient(surrogate: Surrogate | None) -> Iterator[None]:
    """Differentiate spikes by a surrogate, in all that is traced inside of a `with` block.

    `simulate(..., spike_gradient=surrogate)` does this for a run; it is for those who call a simulator's own methods.

    Args:
        surrogate: what stands for the derivative of the spike; None: spikes are booleans.

    Raises:
        ValueError: if it is no `Surrogate`.
    """
    if not isinstance(surrogate, Surrogate | None):
        raise ValueError(f"spike_gradient = {surrogate!r} must be a Surrogate, such as SuperSpike(scale=0.01), or None")
    with _chosen(None if surrogate is None else _Choice(surrogate)):
        yield


def surrogate_in_force() -> Surrogate | None:
    """The surrogate that differentiates spikes here; None where spikes are booleans."""
    return None if _chosen.value is None else _chosen.value.surrogate


@jax.custom_jvp
def _step(x, fired, slope):
    del slope
    return fired.astype(x.dtype)


@_step.defjvp
def _step_jvp(primals, tangents):
    return _step(*primals), primals[2] * tangents[0]


def spike(x: Float[Array, "*any"], *, inclusive: bool = False) -> Bool[Array, "*any"] | Float[Array, "*any"]:
    """Whether a neuron spikes: where `x > 0`.

    Args:
        x: membrane potential above threshold [mV].
        inclusive: whether a potential at the threshold is a spike: `x >= 0`.

    Returns:
        Booleans; where a gradient of spikes is asked for, zeros and ones of the type of `x`, with the surrogate's
        derivative in forward and in reverse mode.
    """
    fired = x >= 0 if inclusive else x > 0
    surrogate = surrogate_in_force()
    if surrogate is None:
        return fired
    return _step(x, fired, jax.lax.stop_gradient(surrogate.derivative(x)))


def reset(
    spikes: Bool[Array, "*any"] | Float[Array, "*any"], value: Float[Array, "*any"], *, to: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """A variable after a reset: `to` where a neuron spikes, `value` elsewhere.

    Args:
        spikes: what `spike` returned, or a product of it.
        value: the variable before.
        to: what a spike sets it to, such as `v_reset`, or `u + d`.

    Returns:
        The variable after. Whether the gradient passes through the reset to the spike is `Surrogate.detach_reset`.
    """
    if spikes.dtype == jnp.bool_:
        return jnp.where(spikes, to, value)
    surrogate = surrogate_in_force()
    gate = jax.lax.stop_gradient(spikes) if surrogate is None or surrogate.detach_reset else spikes
    return (1 - gate) * value + gate * to
