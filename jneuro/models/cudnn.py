"""The LSTM of cuDNN, NVIDIA's library, by way of `jax.experimental.rnn`: all layers and all times in one call."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.experimental import rnn
from jax.typing import DTypeLike

from jneuro.core.types import Array, Float

__all__ = ["LSTMState", "LSTMWeights", "cudnn_applies", "cudnn_lstm", "pack_weights"]

LSTMState = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]
"""Hidden and cell state."""

LSTMWeights = tuple[
    Float[Array, "feature 4*hidden"],
    Float[Array, "hidden 4*hidden"],
    Float[Array, " 4*hidden"],
    Float[Array, " 4*hidden"],
]
"""A layer's `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`, gates in the order i, f, g, o."""


def cudnn_applies(arrays: object, dtype: DTypeLike | None, *, required: bool) -> bool:
    """Decide, while tracing, whether cuDNN's LSTM can run, and where there is a choice, whether it should.

    It computes in single precision and only on CUDA. Of several devices that share a batch each would run all of it, so
    there it runs only if `required`. It is JAX's default backend that counts.

    Args:
        arrays: all that the LSTM reads.
        dtype: of the matrix products' operands, if not the arrays' own.
        required: whether to raise where it cannot run.

    Returns:
        Whether to call `cudnn_lstm`.

    Raises:
        ValueError: if it is required and cannot run.
    """
    types = {jnp.dtype(a.dtype) for a in jax.tree.leaves(arrays)} | ({jnp.dtype(dtype)} if dtype else set())
    platform = jax.default_backend()
    reason = None
    if platform != "gpu" or "rocm" in jax.devices()[0].client.platform_version:
        reason = f"needs CUDA, and JAX computes on {platform!r}"
    elif types != {jnp.dtype(jnp.float32)}:
        reason = f"computes in float32 alone, and was given {', '.join(sorted(map(str, types)))}"
    if required and reason:
        raise ValueError(f"backend = 'cudnn' {reason}; choose 'auto', or 'scan', which runs everywhere")
    return reason is None and (required or jax.local_device_count() == 1)


def pack_weights(weights: Sequence[LSTMWeights]) -> Float[Array, " weight"]:
    """Lay out all layers' parameters as cuDNN reads them: the matrices, transposed, then the biases.

    Args:
        weights: each layer's.

    Returns:
        One vector.
    """
    matrices = [matrix.T.reshape(-1) for layer in weights for matrix in layer[:2]]
    return jnp.concatenate([*matrices, *(bias for layer in weights for bias in layer[2:])])


def cudnn_lstm(
    weights: Sequence[LSTMWeights], inputs: Float[Array, "batch time feature"], initial: Sequence[LSTMState]
) -> tuple[Float[Array, "batch time hidden"], tuple[LSTMState, ...]]:
    """Run stacked LSTM layers without dropout; under `vmap`, one member after the other.

    Args:
        weights: each layer's.
        inputs: the sequence.
        initial: each layer's state before the first step.

    Returns:
        The last layer's hidden state after every step, and each layer's state after the last step.
    """
    h, c = (jnp.stack(states) for states in zip(*initial, strict=True))
    sizes = inputs.shape[-1], h.shape[-1], len(weights)
    outputs, h, c = _run(sizes, inputs, h, c, pack_weights(weights))  # pyright: ignore
    return outputs, tuple(zip(h, c, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(sizes, inputs, h, c, packed):
    """Outputs, last hidden and last cell states; sizes are of features and hidden state, and the number of layers."""
    return _forward(sizes, inputs, h, c, packed)[0]


def _forward(sizes, inputs, h, c, packed):
    features, hidden, layers = sizes

    @sequential_vmap  # JAX has no batching rule for cuDNN's call
    def forward(inputs, h, c, packed):
        lengths = jnp.full(len(inputs), inputs.shape[1], jnp.int32)
        return rnn.lstm_fwd(inputs, h, c, packed, lengths, features, hidden, layers, 0.0, False, None)

    return forward(inputs, h, c, packed)


def _reverse(sizes, residuals, cotangents):
    features, hidden, layers = sizes

    @sequential_vmap
    def reverse(residuals, cotangents):
        return rnn.lstm_bwd(features, hidden, layers, 0.0, False, None, residuals, cotangents)[:4]

    return reverse(residuals, cotangents)


_run.defvjp(_forward, _reverse)
