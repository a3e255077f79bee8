"""What a forecast is made of: permutation importance, and integrated gradients.

Both look at one target neuron in each window, so that whatever belongs to that neuron, such as those that have a
synapse on it, can be asked for in one pass over many windows.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jneuro.core.types import Array, Bool, Float, Int
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import forward

__all__ = [
    "Attribution",
    "input_groups",
    "integrated_gradients",
    "members",
    "permuted_errors",
    "shuffled_within",
]


def shuffled_within(runs: Int[np.ndarray, " window"], rng: np.random.Generator) -> Int[np.ndarray, " window"]:
    """For each window another one of the same run.

    Args:
        runs: the run of each window; at least two windows have each.
        rng: draws them.

    Returns:
        The other windows' indices: each run's windows, turned around by a random number of places.
    """
    other = np.arange(len(runs))
    for run in np.unique(runs):
        mine = np.flatnonzero(runs == run)
        other[mine] = np.roll(mine, rng.integers(1, len(mine)))
    return other


def _batched(function: Callable, arrays: tuple[np.ndarray, ...], batch_size: int) -> tuple[np.ndarray, ...]:
    """Apply a compiled function of rows, in batches of one size; the last one is padded."""
    count, found = len(arrays[0]), []
    for first in range(0, count, batch_size):
        rows = [a[first : first + batch_size] for a in arrays]
        padded = [np.concatenate([r, np.repeat(r[-1:], batch_size - len(r), axis=0)]) for r in rows]
        found.append([np.asarray(x)[: len(rows[0])] for x in function(*padded)])
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def permuted_errors(
    model: nnx.Module,
    windows: Windows,
    starts: Int[np.ndarray, " window"],
    target: Int[np.ndarray, " window"],
    groups: Bool[np.ndarray, "group window feature"],
    other: Int[np.ndarray, " window"],
    batch_size: int = 64,
) -> Float[np.ndarray, "group window"]:
    """Squared errors at the nearest horizon when groups of inputs come from another window.

    Args:
        model: predicts what it observes.
        windows: the data.
        starts: first frame of each window.
        target: the neuron that is looked at in each.
        groups: the inputs that are taken from the other window, for each group; none leaves the forecast as it is.
        other: index of that window.
        batch_size: windows at once.

    Returns:
        The errors [z²].
    """
    graph, variables = nnx.split(model)

    @jax.jit
    def one(variables, data, start, stranger, target, taken):
        batch = data.gather(start)
        inputs = jnp.where(taken[:, None, :], data.gather(stranger).inputs, batch.inputs)
        said = forward(nnx.merge(graph, variables), batch._replace(inputs=inputs)).mean[:, 0]
        return (jnp.square(_pick(said - batch.targets[:, 0], target)),)

    def errors(taken):
        rows = starts, starts[other], target, taken
        return _batched(lambda *batch: one(variables, windows, *batch), rows, batch_size)[0]

    return np.stack([errors(taken) for taken in groups]).astype(np.float64)


def _pick(rows: Float[Array, "window target"], target: Int[Array, " window"]) -> Float[Array, " window"]:
    return jnp.take_along_axis(rows, target[:, None], axis=1)[:, 0]


class Attribution(NamedTuple):
    r"""Integrated gradients of the forecast of one neuron in each window.

    Attributes:
        pairs: mean absolute attribution by input neuron, summed over time, and target; NaN for targets never looked at.
        lags: mean absolute attribution by group and lag, the last sample first, summed over the group.
        change: forecast less the forecast from the baseline, window by window [z].
        explained: sum of the attributions, which completeness wants to equal `change` [z].
    """

    pairs: Float[np.ndarray, "pre post"]
    lags: Float[np.ndarray, "group lag"]
    change: Float[np.ndarray, " window"]
    explained: Float[np.ndarray, " window"]


def integrated_gradients(
    model: nnx.Module,
    windows: Windows,
    starts: Int[np.ndarray, " window"],
    target: Int[np.ndarray, " window"],
    groups: Bool[np.ndarray, "group window feature"],
    steps: int,
    batch_size: int = 32,
) -> Attribution:
    r"""Attribute forecasts at the nearest horizon to inputs, along the straight line from the mean input, zero.

    \[ a_{t,i} = x_{t,i} \int_0^1 \frac{\partial f}{\partial x_{t,i}}(\alpha x) \, d\alpha, \qquad
       \sum_{t,i} a_{t,i} = f(x) - f(0), \]

    the integral by Gauss and Legendre's rule.

    Args:
        model: predicts what it observes.
        windows: the data, z-scored.
        starts: first frame of each window.
        target: the neuron whose forecast is attributed, in each.
        groups: the inputs of each group, for the profile over lags.
        steps: points of the rule.
        batch_size: windows at once.

    Returns:
        The attributions, averaged over windows.

    References:
        Sundararajan, Taly & Yan, International Conference on Machine Learning (2017).
    """
    graph, variables = nnx.split(model)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    line = jnp.asarray(np.stack([(nodes + 1) / 2, weights / 2], 1), jnp.float32)

    @jax.jit
    def one(variables, data, start, target, members):
        batch = data.gather(start)

        def said(inputs):
            return _pick(forward(nnx.merge(graph, variables), Batch(inputs, batch.targets)).mean[:, 0], target)

        def add(total, point):
            gradient = jax.grad(lambda x: said(x).sum())(point[0] * batch.inputs)
            return total + point[1] * gradient, None

        slope, _ = lax.scan(add, jnp.zeros_like(batch.inputs), line)
        parts = batch.inputs * slope
        lags = jnp.einsum("btf,bgf->bgt", jnp.abs(parts), members.astype(parts.dtype))[..., ::-1]
        return parts.sum(1), lags, said(batch.inputs) - said(jnp.zeros_like(batch.inputs)), parts.sum((1, 2))

    rows = starts, target, np.moveaxis(groups, 0, 1)
    parts, lags, change, explained = _batched(lambda *batch: one(variables, windows, *batch), rows, batch_size)
    chosen = target[:, None] == np.arange(windows.outputs)
    with np.errstate(invalid="ignore"):
        pairs = np.abs(parts).T.astype(np.float64) @ chosen / chosen.sum(0)
    return Attribution(pairs, lags.mean(0, dtype=np.float64), change, explained)


def input_groups(
    populations: Mapping[str, Bool[np.ndarray, " neuron"]],
    synapse: Bool[np.ndarray, "run pre post"] | None,
    rng: np.random.Generator,
) -> dict[str, Bool[np.ndarray, "run pre post"]]:
    """Sort the inputs of every neuron into groups that may overlap.

    Args:
        populations: their names, and which neurons are in each.
        synapse: whether there is a synapse, run by run, or in the one network of all runs; None if that is unknown.
        rng: draws the strangers.

    Returns:
        By name: the neuron itself, all others, those of each population and, if synapses are known, in each population
        the partners, who have a synapse on the neuron, and as many strangers, who have none, as far as there are so
        many.
    """
    size = len(next(iter(populations.values())))
    shape = (1 if synapse is None else len(synapse), size, size)
    self = np.broadcast_to(np.eye(size, dtype=bool), shape)
    groups = {"own past": self, "all others": ~self}
    rows = {name: np.broadcast_to(mask[:, None], shape) & ~self for name, mask in populations.items()}
    groups |= {f"{name} others": mask for name, mask in rows.items()}
    if synapse is None:
        return groups
    for name, mask in rows.items():
        groups[f"{name} partners"] = partners = mask & synapse
        draws = np.where(mask & ~partners, rng.random(shape), np.inf)
        rank = draws.argsort(1).argsort(1)
        groups[f"{name} strangers"] = np.isfinite(draws) & (rank < partners.sum(1, keepdims=True))
    return groups


def members(
    group: Bool[np.ndarray, "run pre post"], run: Int[np.ndarray, " window"], target: Int[np.ndarray, " window"]
) -> Bool[np.ndarray, "window pre"]:
    """The group's neurons for the target of each window.

    Args:
        group: from `input_groups`.
        run: of each window, as an index into the group's runs; ignored where all have one network.
        target: of each window.

    Returns:
        Which inputs belong to it.
    """
    return group[run if len(group) > 1 else np.zeros_like(run), :, target]
