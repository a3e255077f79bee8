"""Layers that the models share, with PyTorch's semantics where Flax differs.

Flax's own `BatchNorm` keeps the biased variance, its `LayerNorm` has ε = 1e-6, and its `Dropout` draws from a stream
called `default` when `nnx.Rngs` has no `dropout` stream, so that `nnx.reseed(model, dropout=key)` would miss it.
"""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn import initializers

from jneuro._types import Array, Float

__all__ = ["BatchNorm", "dropout_layer", "layer_norm", "torch_uniform", "xavier_uniform"]

xavier_uniform = initializers.glorot_uniform()
"""U(±√(6 / (inputs + outputs))), `torch.nn.init.xavier_uniform_`."""

torch_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(±1/√inputs), with which PyTorch starts the weights of linear and convolution layers."""


def dropout_layer(rate: float, *, rngs: nnx.Rngs, whole_channels: bool = False) -> nnx.Dropout:
    """Make a dropout layer with a `dropout` stream of its own; call it with `deterministic=not train`.

    Args:
        rate: probability of dropping a value.
        rngs: seeds the stream.
        whole_channels: drop channels of `batch position channel` at all positions together, as
            `torch.nn.Dropout1d` does.

    Returns:
        The layer.
    """
    stream = nnx.RngStream(rngs.dropout(), tag="dropout")
    return nnx.Dropout(rate, broadcast_dims=(1,) if whole_channels else (), rngs=stream)


def layer_norm(features: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Make a layer normalisation over the last axis with PyTorch's ε = 1e-5.

    Args:
        features: size of the last axis.
        rngs: required by Flax; scale and bias start at 1 and 0.

    Returns:
        The layer.
    """
    return nnx.LayerNorm(features, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


class BatchNorm(nnx.Module):
    """Normalise each channel over batch and positions, as `torch.nn.BatchNorm1d`.

        y = (x − mean) / √(var + ε) · scale + bias,    ε = 1e-5

    In training, mean and (biased) variance are the batch's, and the running statistics move a tenth of the way to the
    batch's mean and *unbiased* variance (PyTorch's momentum 0.1, Flax's 0.9). Otherwise the running ones are used.

    Args:
        channels: size of the last axis.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))

    def __call__(
        self, x: Float[Array, "batch position channel"], *, train: bool
    ) -> Float[Array, "batch position channel"]:
        """Normalise; in training, update the running statistics.

        Args:
            x: the values.
            train: whether to use, and learn from, the batch's own statistics.

        Returns:
            The normalised values.

        Raises:
            ValueError: if `train` and there is only one value for each channel.
        """
        mean, var = self.mean[...], self.var[...]
        if train:
            count = x.shape[0] * x.shape[1]
            if count < 2:
                raise ValueError(f"batch statistics need at least 2 values for each channel, got inputs {x.shape}")
            batch_mean, batch_var = x.mean((0, 1)), x.var((0, 1))
            self._update(self.mean, batch_mean)
            self._update(self.var, batch_var * (count / (count - 1)))
            mean, var = batch_mean, batch_var
        factor = self.scale[...] * lax.rsqrt(var + 1e-5)
        return (x - mean[None, None]) * factor[None, None] + self.bias[...][None, None]

    @staticmethod
    def _update(running: nnx.BatchStat, value: Float[Array, " channel"]) -> None:
        running[...] = (0.9 * running[...] + 0.1 * lax.stop_gradient(value)).astype(running[...].dtype)
