"""Named random streams from one seed.

Every consumer of randomness folds its own name, and every trial its own index, into the experiment's key. Results
therefore do not depend on the order in which streams are drawn, nor on batch, chunk, device or process count.
"""

import zlib

import jax
import jax.numpy as jnp

from jneuro._types import Array, Int, Key

__all__ = ["require_key", "stream", "trial_keys"]


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
