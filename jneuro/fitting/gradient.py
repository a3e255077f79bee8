"""Gradient descent from many starts in one program, for losses with many parameters or without residuals."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax

from jneuro._types import Array, Float, Key
from jneuro.fitting.solution import Solution
from jneuro.prng import trial_keys

__all__ = ["adam", "scale_by_polyak"]

_FEW = 16


def scale_by_polyak(power: float) -> optax.GradientTransformation:
    r"""Divide the gradient by a power of its norm, \(g \leftarrow g / \|g\|^\beta\).

    At \(\beta = 1\) only the direction is left, as if the gradient was clipped always; at 0 it stays as it is. Between,
    the gradients of spiking cells, which differ by many orders from step to step, are held within a few, and still
    vanish at a minimum.

    Args:
        power: the exponent \(\beta\).

    Returns:
        The transformation.

    References:
        Polyak B. T., Introduction to Optimization (1987), Section 5.3, for steps that depend on the norm.
    """

    def update(updates, state, params=None):
        del params
        norm = jnp.maximum(optax.tree.norm(updates), 1e-30)
        return jax.tree.map(lambda g: g / norm**power, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def adam(
    loss: Callable[..., Float[Array, ""]],
    starts: Float[Array, "start unknown"],
    *,
    steps: int,
    key: Key[Array, ""],
    learning_rate: float = 0.03,
    polyak: float = 0.8,
    nudge: float = 0.0,
) -> Solution:
    """Descend by Adam, the step size falling to zero along a cosine.

    Args:
        loss: function of the vector and of a key, which is a new one in each step; with `nudge`, also of the strength.
        starts: where to begin.
        steps: how many.
        key: random key.
        learning_rate: first step size, in unconstrained numbers.
        polyak: exponent of `scale_by_polyak`, which comes before the moments.
        nudge: first strength of synchronisation forcing; it falls exponentially to a thousandth over two thirds of the
            steps and is off in the last. Only points of that last third can be the best.

    Returns:
        The best point that each start has seen. A gradient that is not finite moves nothing.
    """
    q, cost, history = _descend(loss, jnp.asarray(starts, float), key, steps, learning_rate, polyak, nudge)
    cost = jnp.where(jnp.isfinite(cost), cost, jnp.inf)
    each = 1 + q.shape[1] if _forward(q) else 3
    # A fixed number of steps has no criterion of its own.
    return Solution(q, cost, history, jnp.isfinite(cost), each * steps * len(q))


def _forward(starts) -> bool:
    """Whether the derivatives of a few unknowns are taken in forward mode, which keeps no states."""
    return starts.shape[1] <= _FEW


@eqx.filter_jit
def _descend(loss, starts, key, steps: int, learning_rate: float, polyak: float, nudge: float):
    rule = optax.chain(
        optax.zero_nans(), scale_by_polyak(polyak), optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    )

    slope = _with_slope(loss) if _forward(starts) else jax.value_and_grad(loss)
    share = jnp.arange(steps) / steps
    strength = jnp.where(share < 2 / 3, nudge * 1e-3 ** (1.5 * share), 0.0)

    def one(q):
        def step(carry, inputs):
            q, state, best, least = carry
            key, pull = inputs
            value, gradient = slope(q, key, *([pull] if nudge else []))
            better = (value < least) & (pull == 0)
            best, least = jnp.where(better, q, best), jnp.where(better, value, least)
            updates, state = rule.update(gradient, state, q)
            return (q + updates, state, best, least), value

        begin = (q, rule.init(q), q, jnp.asarray(jnp.inf, q.dtype))
        (_, _, best, least), history = lax.scan(step, begin, (trial_keys(key, steps), strength))
        return best, least, history

    return jax.vmap(one)(starts)


def _with_slope(loss):
    """A loss and its gradient in forward mode."""

    def both(*args):
        value = loss(*args)
        return value, value

    def slope(*args):
        gradient, value = jax.jacfwd(both, has_aux=True)(*args)
        return value, gradient

    return slope
