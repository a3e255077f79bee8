"""A layer applied to a few samples of its batch at a time, so that what it makes on the way stays in the cache."""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jneuro.core.process import usable_cores
from jneuro.core.types import Array, Float

__all__ = ["in_microbatches", "microbatch"]

_ROWS = 640
"""Rows of a matrix product that fill a core's second-level cache with what surrounds them."""

_SHARED_ROWS = 5120
"""Rows for each of several cores, enough to be worth sharing out."""


def microbatch(batch: int, rows: int) -> int:
    """How many samples to process at a time.

    On one CPU device, the divisor of the batch that comes closest to 640 rows of a matrix product on one core, and to
    5120 for each of several cores. Elsewhere the whole batch: accelerators want it, and over several CPU devices a loop
    would gather the samples that they share out.

    Args:
        batch: samples there are.
        rows: rows that one sample has in the matrix products.

    Returns:
        A divisor of `batch`.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return batch
    cores = usable_cores()
    wanted = _ROWS if cores == 1 else _SHARED_ROWS * cores
    divisors = [size for size in range(1, batch + 1) if batch % size == 0]
    return min(divisors, key=lambda size: abs(log(size * rows / wanted)))


def in_microbatches(
    function: Callable[..., Float[Array, "batch *out"]],
    modules: Any,
    *inputs: Float[Array, "batch *in"],
    size: int,
) -> Float[Array, "batch *out"]:
    """Compute `function(modules, *inputs)`, `size` samples at a time.

    The reverse pass runs over the same microbatches, sums the gradients of the parameters, and computes what it needs
    from the inputs again, which costs nothing where that is no matrix product: memory holds only the inputs.

    Args:
        function: must treat the samples independently, and close over no array.
        modules: its parameters, one or several `nnx.Module`; it must leave their state as it is.
        inputs: batch first.
        size: samples at a time, a divisor of the batch.

    Returns:
        What the function returns for the whole batch.
    """
    if size == inputs[0].shape[0]:
        return function(modules, *inputs)
    graph, state = nnx.split(modules)
    split = tuple(x.reshape(-1, size, *x.shape[1:]) for x in inputs)
    outputs: Array = _looped(lambda state, inputs: function(nnx.merge(graph, state), *inputs), state, split)  # pyright: ignore
    return outputs.reshape(-1, *outputs.shape[2:])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _looped(function, state, inputs):
    return lax.map(lambda inputs: function(state, inputs), inputs)


def _looped_reverse(function, residuals, cotangents):
    state, inputs = residuals

    def step(total, frame):
        d_state, d_inputs = jax.vjp(function, state, frame[0])[1](frame[1])
        return jax.tree.map(jnp.add, total, d_state), d_inputs

    return lax.scan(step, jax.tree.map(jnp.zeros_like, state), (inputs, cotangents))


_looped.defvjp(lambda function, *arguments: (_looped(function, *arguments), arguments), _looped_reverse)
