"""Random words by counter: cheap, without state, and the same wherever and in whatever batch they are computed."""

import jax
import jax.numpy as jnp

from jneuro._types import Array, Key, UInt

__all__ = ["KeyWords", "key_words", "threefry"]

KeyWords = tuple[UInt[Array, ""], UInt[Array, ""]]
"""A key of `threefry`."""

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_ROUNDS = 13
_PARITY = 0x1BD11BDA


def key_words(key: Key[Array, ""]) -> KeyWords:
    """The two words that key `threefry`: those of a JAX key of two words, and a hash of a longer one."""
    data = jax.random.key_data(key).reshape(-1, 2)
    words = data[0, 0], data[0, 1]
    for more in data[1:]:
        words = threefry(words, more[0], more[1])
    return words


def threefry(
    key: KeyWords, high: UInt[Array, "*any"], low: UInt[Array, "*any"]
) -> tuple[UInt[Array, "*any"], UInt[Array, "*any"]]:
    """Threefry-2×32 with 13 rounds: two uniformly distributed words for every counter.

    `jax.random` runs 20 rounds, one array at a time. Thirteen, written out, vectorise and fuse with what consumes them,
    at a few per cent of the cost.

    Args:
        key: two words.
        high: first word of the counter.
        low: second word of the counter, of the same shape.

    Returns:
        Two words for every counter.

    References:
        Salmon J. et al., SC11 (2011) 16, Sections 4.3 and 5.
    """
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = high + keys[0], low + keys[1]
    for k in range(_ROUNDS):
        x = x + y
        turn = _ROTATIONS[k % 8]
        y = (y << jnp.uint32(turn) | y >> jnp.uint32(32 - turn)) ^ x
        if k % 4 == 3:
            block = k // 4 + 1
            x, y = x + keys[block % 3], y + (keys[(block + 1) % 3] + jnp.uint32(block))
    return x, y
