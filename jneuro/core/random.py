"""Randomness: named streams from one seed, and random words by counter.

Every consumer of randomness folds its own name, and every trial its own index, into the experiment's key. Results
therefore do not depend on the order in which streams are drawn, nor on batch, chunk, device or process count.
"""

import zlib

import jax
import jax.numpy as jnp

from jneuro.core.types import Array, Int, Key, UInt

__all__ = ["KeyWords", "key_words", "require_key", "stream", "threefry", "trial_keys"]


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Derive the random stream called `name`.

    Args:
        key: the parent key.
        name: the stream's name; equal names give equal streams.

    Returns:
        A key that is independent of the parent and of every other name.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def trial_keys(key: Key[Array, ""], trials: int | Int[Array, " trial"]) -> Key[Array, " trial"]:
    """Derive one key for each trial, by its index.

    Args:
        key: the parent key.
        trials: the number of trials, or their indices; trial 7 gets the same key in any batch.

    Returns:
        The keys, one a trial.
    """
    index = jnp.arange(trials) if isinstance(trials, int) else trials
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def require_key(key: object) -> Key[Array, ""]:
    """Check that `key` is one typed key.

    Args:
        key: what the caller passed.

    Returns:
        The same key.

    Raises:
        ValueError: if it is an integer, a raw `uint32` key or a batch of keys.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key must be a typed key such as jax.random.key(0), got {key!r}")
    if key.ndim:
        raise ValueError(f"key must be one key, got a batch of shape {key.shape}; use jax.vmap over the keys")
    return key


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
