"""Gradient descent from many starts in one program, for many parameters, whole arrays of them too."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from pydantic import Field, model_validator

from jneuro.core.progress import SILENT, Task
from jneuro.core.random import trial_keys
from jneuro.core.registry import Block
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.fitting.methods.least_squares import Method
from jneuro.fitting.objectives import Residuals
from jneuro.fitting.solution import Solution
from jneuro.training.kinds import OPTIMIZERS
from jneuro.training.optimizers import transformation

__all__ = ["Gradient", "adam", "scale_by_polyak"]

_FEW = 16
_CALLS = 20
"""Programs that make all steps, one after the other."""


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
    optimizer: optax.GradientTransformation | None = None,
    progress: Task = SILENT,
) -> Solution:
    """Descend by Adam, the step size falling to zero along a cosine; or by another rule.

    Args:
        loss: function of the vector and of a key, which is a new one in each step; with `nudge`, also of the strength.
        starts: where to begin.
        steps: how many.
        key: random key.
        learning_rate: first step size, in unconstrained numbers.
        polyak: exponent of `scale_by_polyak`, which comes before the moments.
        nudge: first strength of synchronisation forcing; it falls exponentially to a thousandth over two thirds of the
            steps and is off in the last. Only points of that last third can be the best.
        optimizer: what makes steps of gradients, step size and all, in place of Adam.
        progress: told how it goes on, from 0 to 1.

    Returns:
        The best point that each start has seen. A gradient that is not finite moves nothing.
    """
    places = jnp.asarray(starts, float)
    rule = _Rule(steps, learning_rate, polyak, optimizer)
    share = jnp.arange(steps) / steps
    strength = jnp.where(share < 2 / 3, nudge * 1e-3 ** (1.5 * share), 0.0)
    inputs = (trial_keys(key, steps), strength)
    stand = _begin(places, rule)
    for i in range(0, steps, together := -(-steps // _CALLS)):
        end = min(i + together, steps)
        stand = _descend(loss, stand, inputs, jnp.asarray(i), jnp.asarray(end), rule, bool(nudge))
        lowest = float(stand.history[:, end - 1].min())
        progress.update(end / steps, text=f"{end} of {steps} steps", cost=lowest)
    q, cost, history = stand.best, stand.least, stand.history
    cost = jnp.where(jnp.isfinite(cost), cost, jnp.inf)
    each = 1 + q.shape[1] if _forward(q) else 3
    # A fixed number of steps has no criterion of its own.
    return Solution(q, cost, history, jnp.isfinite(cost), each * steps * len(q))


def _forward(starts) -> bool:
    """Whether the derivatives of a few unknowns are taken in forward mode, which keeps no states."""
    return starts.shape[1] <= _FEW


class _Rule(NamedTuple):
    """How steps are made."""

    steps: int
    learning_rate: float
    polyak: float
    given: optax.GradientTransformation | None

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """The transformation of gradients into steps."""
        if self.given is not None:
            return optax.with_extra_args_support(optax.chain(optax.zero_nans(), self.given))
        decay = optax.cosine_decay_schedule(self.learning_rate, self.steps)
        ours = optax.chain(optax.zero_nans(), scale_by_polyak(self.polyak), optax.adam(decay))
        return optax.with_extra_args_support(ours)


class _Stand(NamedTuple):
    """Where all starts are, the optimiser's state, and the best that each has seen."""

    q: Array
    state: PyTree
    best: Array
    least: Array
    history: Array


@eqx.filter_jit
def _begin(q, rule: _Rule) -> _Stand:
    nothing, none = jnp.full(q.shape[:1], jnp.inf, q.dtype), jnp.full((len(q), rule.steps), jnp.nan, q.dtype)
    return _Stand(q, jax.vmap(rule.optimiser.init)(q), q, nothing, none)


@eqx.filter_jit
def _descend(loss, stand: _Stand, inputs, begin, end, rule: _Rule, nudged: bool) -> _Stand:
    """Steps from one number to another."""
    slope = _with_slope(loss) if _forward(stand.q) else jax.value_and_grad(loss)
    keys, strength = inputs

    def one(stand):
        def step(i, now):
            pull = strength[i]
            value, gradient = slope(now.q, keys[i], *([pull] if nudged else []))
            better = (value < now.least) & (pull == 0)
            best, least = jnp.where(better, now.q, now.best), jnp.where(better, value, now.least)
            updates, state = rule.optimiser.update(gradient, now.state, now.q, value=value)
            return _Stand(now.q + updates, state, best, least, now.history.at[i].set(value))

        return lax.fori_loop(begin, end, step, stand)

    return jax.vmap(one)(stand)


def _with_slope(loss):
    """A loss and its gradient in forward mode."""

    def both(*args):
        value = loss(*args)
        return value, value

    def slope(*args):
        gradient, value = jax.jacfwd(both, has_aux=True)(*args)
        return value, gradient

    return slope


class Gradient(Method):
    """Adam with Polyak-scaled gradients, or another optimiser, from random starts.

    Attributes:
        starts: random starts.
        steps: of each.
        learning_rate: the first step size, in unconstrained numbers.
        polyak: exponent by which gradients are scaled by their norm.
        nudge: first strength of the pull towards the data [1/ms]; none for cells that are reset.
        optimizer: an optax transformation, or what makes one, such as `{name: "optax:lion", learning_rate: 0.01}`; it
            sets its own step size, in unconstrained numbers.

    Example:
        >>> import optax
        >>> from jneuro.fitting import Gradient
        >>> Gradient(optimizer=optax.sgd(0.01, momentum=0.9), steps=200).starts
        16
    """

    name: Literal["gradient"] = "gradient"
    starts: int = Field(default=16, ge=1)
    steps: int = Field(default=400, ge=1)
    learning_rate: float = Field(default=0.03, gt=0)
    polyak: float = Field(default=0.8, ge=0, le=1)
    nudge: float = Field(default=10.0, ge=0)
    optimizer: Annotated[Any, OPTIMIZERS.field()] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.optimizer is not None and not isinstance(self.optimizer, Block):
            raise ValueError(f"optimizer = {self.optimizer.name} is for trainings; take optax:{self.optimizer.name}")
        if self.optimizer is not None and (given := {"learning_rate", "polyak"} & self.model_fields_set):
            raise ValueError(f"optimizer sets its own steps, so {min(given)} has no effect; leave it out")
        return self

    def descend(
        self, residuals: Residuals, starts: Float[Array, "start unknown"], key: Key[Array, ""], progress: Task
    ) -> Solution:
        """Go down along gradients."""
        return adam(
            residuals.loss,
            starts,
            steps=self.steps,
            key=key,
            learning_rate=self.learning_rate,
            polyak=self.polyak,
            nudge=self.nudge if residuals.problem.continuous else 0.0,
            optimizer=None if self.optimizer is None else transformation(self.optimizer),
            progress=progress,
        )
