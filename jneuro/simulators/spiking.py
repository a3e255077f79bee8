r"""The spike as a function: a step forward, and backward the derivative of a surrogate, where one is asked for.

Simulators say where a neuron spikes and what a spike resets, once: `spikes = spike(v - v_threshold)` and
`v = reset(spikes, v, to=v_reset)`. How spikes are differentiated is chosen by whoever simulates, with
`simulate(..., spike_gradient=SuperSpike())`: without it spikes are booleans, cheap, and carry no gradient.

With `Exact()`, spikes are located within steps, so that their times have exact derivatives. Where a step takes
`threshold` past zero, the cubic interpolant of the states at its ends does so at a time \(\tau\); there the state
jumps, and the rest of the step is taken from behind the jump. \(\tau\) is a root, and the derivative of a root is one
step of Newton's method: with it, all that depends on the time of the jump has the derivative that the equations have
there (the jump's saltation), and no surrogate is needed.
"""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Bool, Float, Int, PyTree

__all__ = [
    "Arctan",
    "Boxcar",
    "Exact",
    "SuperSpike",
    "Surrogate",
    "located_step",
    "parts",
    "reset",
    "spike",
    "spike_gradient",
    "spread",
    "surrogate_in_force",
]


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


# Spikes located within steps -----------------------------------------------------------------------------------------

_HALVINGS, _NEWTON = 8, 3
"""Steps of the search for a root between 0 and 1: to the last digit."""


class Exact(eqx.Module):
    """Differentiate spikes as the equations do: each is located within its step; for `simulate(spike_gradient=...)`.

    Spikes are then numbers: each is split between two frames so that the sum over frames, drawn with straight lines,
    passes a half at the spike's own time. Jumps carry the derivative of their time. At most one spike a step is found.
    """


def located_step(
    stepper: Any, carry: PyTree, step: Int[Array, ""]
) -> tuple[PyTree, Bool[Array, "*neuron"], Float[Array, "*neuron"]]:
    """Take one step of a solver that carries the state itself.

    Args:
        stepper: a `Stepper`.
        carry: the state.
        step: its number.

    Returns:
        The state after it, whether there was a spike, and in which share of the step.
    """
    term, t0, h = stepper.at(step, carry)
    cell, t1 = term.simulator, term.end
    y, end = carry, stepper.advance(carry, step)
    spiked = cell.threshold(end) >= 0
    if not cell.has_reset:
        spiked = spiked & (cell.threshold(y) < 0)
    slopes = [jax.tree.map(lambda f: h * f, term.vf(t, x, None)) for t, x in ((t0, y), (t1, end))]
    ends = (y, end, *slopes)
    share = _root(cell, ends, spiked)
    if not cell.has_reset:
        return end, spiked, share
    # Within the rest, which begins at another time in every cell, the stimulus is a straight line.
    first, last = (jnp.asarray(term.drive(t, y)) for t in (t0, t1))
    straight: Any = lambda t: first + (t - t0) / h * (last - first)  # noqa: E731
    line = dataclasses.replace(stepper.term, stimulus=straight)
    jumped = cell.reset(jax.tree.map(lambda *e: _cubic(e, share), *ends))
    jumped = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), jumped, end)
    after = stepper.solver.advance(line, t0 + share * h, (1 - share) * h, jumped)
    return jax.tree.map(lambda a, b: jnp.where(spiked, a, b), after, end), spiked, share


def _cubic(ends: Any, s: Float[Array, "*neuron"]) -> Float[Array, "*neuron"]:
    """Hermite's interpolant between 0 and 1: from the values at both, and the slopes at both."""
    first, last, rising, arriving = ends
    return first + s * (
        rising + s * (3 * (last - first) - 2 * rising - arriving + s * (2 * (first - last) + rising + arriving))
    )


def _root(cell: Any, ends: Any, spiked: Bool[Array, "*neuron"]) -> Float[Array, "*neuron"]:
    """Where the threshold, along the interpolant, passes zero upwards; one half where there is no spike."""

    def above(cell, ends, s):
        # Without a spike, a straight line has the root: what is not used must have derivatives, too.
        return jnp.where(spiked, cell.threshold(jax.tree.map(lambda *e: _cubic(e, s), *ends)), 2 * s - 1)

    still = lax.stop_gradient((cell, ends))

    def fixed(s):
        return above(*still, s)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = fixed(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    zero = jnp.zeros_like(ends[0][0])
    low, high = lax.fori_loop(0, _HALVINGS, halve, (zero, zero + 1))

    def newton(_, s):
        value, slope = jax.jvp(fixed, (s,), (jnp.ones_like(s),))
        return jnp.clip(s - value / slope, low, high)

    s = lax.stop_gradient(lax.fori_loop(0, _NEWTON, newton, 0.5 * (low + high)))
    slope = jax.jvp(fixed, (s,), (jnp.ones_like(s),))[1]
    # Its value is that of the root; its derivative that of the implicit function.
    return s - above(cell, ends, s) / slope


def parts(spiked: Bool[Array, "*neuron"], place: Float[Array, "*neuron"]) -> tuple[Array, Array, Array]:
    """Split a spike, at a place in its frame between 0 and 1, between this frame and the one before or after.

    Args:
        spiked: whether there is one.
        place: where.

    Returns:
        What belongs to this frame, to the one before, and to the one after.
    """
    early = place < 0.5
    before = jnp.where(spiked & early, (0.5 - place) / (1 - jnp.where(early, place, 0)), 0)
    after = jnp.where(spiked & ~early, 1 - 0.5 / jnp.where(early, 1, place), 0)
    return spiked - before - after, before, after


def spread(
    whole: Float[Array, "time *neuron"], before: Float[Array, "time *neuron"], after: Float[Array, "time *neuron"]
) -> Float[Array, "time *neuron"]:
    """Give every frame what `parts` made of its own spikes and of its neighbours'.

    Args:
        whole: what belongs to the frame itself.
        before: to the one before; the first frame keeps its own.
        after: to the one after; the last frame keeps its own.

    Returns:
        The spikes of each frame.
    """
    whole = whole.at[0].add(before[0]).at[-1].add(after[-1])
    edge = jnp.zeros_like(before[:1])
    return whole + jnp.concatenate([before[1:], edge]) + jnp.concatenate([edge, after[:-1]])
