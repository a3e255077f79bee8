"""Who hears whom: adjacency drawn at random, and the propagation of spikes through it."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro._types import Array, Float, Key

__all__ = ["Dense", "Rule", "draw_adjacency"]

Rule = Literal["bernoulli", "fixed_in_degree"]


class Dense(eqx.Module):
    """Connections as a full matrix: right for small networks, exact in both gradient modes.

    Attributes:
        adjacency: number of synapses (0 or 1) from each neuron to each neuron.
    """

    adjacency: Float[Array, "pre post"]

    def propagate(self, signal: Float[Array, "step pre"]) -> Float[Array, "step post"]:
        """Sum what every neuron receives, for a block of steps in one matrix product."""
        return signal @ self.adjacency


def draw_adjacency(
    key: Key[Array, ""], rule: Rule, pre: tuple[int, ...], post: int, probability: float
) -> Float[Array, "pre post"]:
    """Draw a random adjacency matrix without multiple synapses; a neuron may hear itself.

    Args:
        key: random key.
        rule: `bernoulli`, every pair with the given probability; or `fixed_in_degree`, every neuron hears the same
            number of neurons, `round(probability * size)`, of each population.
        pre: size of each presynaptic population, in the order of their neurons.
        post: number of receiving neurons.
        probability: connection probability.

    Returns:
        Ones where there is a synapse.
    """
    dtype = jnp.result_type(float)
    if rule == "bernoulli":
        return jax.random.bernoulli(key, probability, (sum(pre), post)).astype(dtype)

    def sources(key, size):
        chosen = jax.random.permutation(key, size)[: round(probability * size)]
        return jnp.zeros(size, dtype).at[chosen].set(1, unique_indices=True)

    def column(index):
        keys = jax.random.split(jax.random.fold_in(key, index), len(pre))
        return jnp.concatenate([sources(k, size) for k, size in zip(keys, pre, strict=True)])

    return lax.map(column, jnp.arange(post), batch_size=min(post, 64)).T
