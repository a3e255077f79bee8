"""Spikes as events: packed into bits, and visited one by one at a cost that grows with their number."""

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Bool, Int, UInt

__all__ = ["each_chunk", "each_spike", "pack", "select", "unpack", "word_count"]

Carry = TypeVar("Carry")


def word_count(neurons: int) -> int:
    """The number of 32-bit words that hold one bit of every neuron."""
    return -(-neurons // 32)


def pack(spikes: Bool[Array, "*any neuron"]) -> UInt[Array, "*any word"]:
    """Pack booleans into 32-bit words.

    Bit b of word w stands for neuron `b * words + w`: the neurons, padded to a multiple of 32 by silent ones, are a
    matrix `[32, word]`, whose rows vectorise where runs of 32 neighbours would not.

    Args:
        spikes: who spikes.

    Returns:
        `word_count(neurons)` words.
    """
    neurons, words = spikes.shape[-1], word_count(spikes.shape[-1])
    padded = jnp.pad(spikes, [(0, 0)] * (spikes.ndim - 1) + [(0, 32 * words - neurons)])
    bits = padded.reshape(*spikes.shape[:-1], 32, words).astype(jnp.uint32)
    # A sum of distinct powers of two.
    return (bits << _bits(bits.ndim)).sum(-2, dtype=jnp.uint32)


def unpack(words: UInt[Array, "*any word"], neurons: int) -> Bool[Array, "*any neuron"]:
    """The booleans that `pack` packed.

    Args:
        words: packed spikes.
        neurons: how many there were.

    Returns:
        Who spikes.
    """
    bits = words[..., None, :] >> _bits(words.ndim + 1) & 1
    return bits.reshape(*words.shape[:-1], 32 * words.shape[-1])[..., :neurons].astype(bool)


def each_chunk(
    words: UInt[Array, " word"],
    body: Callable[[Int[Array, " chunk"], Int[Array, ""], Carry], Carry],
    carry: Carry,
    *,
    chunk: int = 64,
) -> Carry:
    """Run `body` for every `chunk` of spikes, in a loop that ends when none is left.

    No buffer overflows, however many neurons spike, and silence costs next to nothing.

    Args:
        words: packed spikes.
        body: from the indices of spiking neurons, the number of them that is valid (they come first; the others are
            arbitrary neurons) and the carry to the next carry. Neurons come word by word, and in one word by rising
            index.
        carry: the first carry.
        chunk: indices compacted at once.

    Returns:
        The last carry.
    """
    upto = jnp.cumsum(lax.population_count(words).astype(jnp.int32))
    ranks = jnp.arange(chunk, dtype=jnp.int32)

    def visit(state):
        first, carry = state
        indices = select(words, upto, first + ranks)
        return first + chunk, body(indices, jnp.minimum(upto[-1] - first, chunk), carry)

    return lax.while_loop(lambda state: state[0] < upto[-1], visit, (jnp.int32(0), carry))[1]


def each_spike(
    words: UInt[Array, " word"], body: Callable[[Int[Array, ""], Carry], Carry], carry: Carry, *, chunk: int = 64
) -> Carry:
    """Run `body` for every spike, one after the other; see `each_chunk`.

    Args:
        words: packed spikes.
        body: from a spiking neuron's index and the carry to the next carry.
        carry: the first carry.
        chunk: indices compacted at once; a matter of speed only.

    Returns:
        The last carry.
    """

    def visit(indices, valid, carry):
        return lax.fori_loop(0, valid, lambda k, c: body(indices[k], c), carry)

    return each_chunk(words, visit, carry, chunk=chunk)


def select(words: UInt[Array, " word"], upto: Int[Array, " word"], ranks: Int[Array, " rank"]) -> Int[Array, " rank"]:
    """Find the neurons that are the first, second … of all that spike, in the order of `each_chunk`.

    Args:
        words: packed spikes.
        upto: spikes up to and including each word.
        ranks: which, from 0; beyond the last, an arbitrary neuron is found.

    Returns:
        Their indices.
    """
    word = jnp.searchsorted(upto, ranks, side="right", method="scan_unrolled").astype(jnp.int32)
    word = jnp.minimum(word, words.shape[0] - 1)
    chosen = words[word]
    rank = ranks - (upto[word] - lax.population_count(chosen).astype(jnp.int32))
    bit = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        below = lax.population_count((chosen >> bit.astype(jnp.uint32)) & jnp.uint32((1 << width) - 1))
        beyond = rank >= below.astype(jnp.int32)
        rank = jnp.where(beyond, rank - below.astype(jnp.int32), rank)
        bit = jnp.where(beyond, bit + width, bit)
    return bit * words.shape[0] + word


def _bits(dimensions: int) -> UInt[Array, "*any"]:
    """The numbers of the bits of a word, along the last axis but one."""
    return jnp.arange(32, dtype=jnp.uint32).reshape((1,) * (dimensions - 2) + (32, 1))
