"""Layers that the models share, with PyTorch's semantics where Flax differs.

Flax's own `BatchNorm` keeps the biased variance, its `LayerNorm` has ε = 1e-6, and its `Dropout` draws from a stream
called `default` when `nnx.Rngs` has no `dropout` stream, so that `nnx.reseed(model, dropout=key)` would miss it. Nor do
Flax's know of `batch_axis`, under which each device sees a part of the batch only.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike

from jneuro.core.random import key_words, threefry
from jneuro.core.types import Array, Float

__all__ = [
    "INITIALISERS",
    "BatchNorm",
    "Dropout",
    "InitialiserName",
    "batch_axis",
    "compute_dtype",
    "dropout_layer",
    "layer_norm",
    "lecun_normal",
    "linear",
    "starts_at",
    "torch_uniform",
    "xavier_uniform",
]


def starts_at(value: float, *shape: int) -> Float[Array, "*shape"]:
    """Make a parameter, in single precision, that starts at one value everywhere.

    Args:
        value: where it starts.
        shape: of the parameter.

    Returns:
        The array; copied to the device, where `jnp.full` would compile a program for each shape.
    """
    return jnp.asarray(np.full(shape, value, np.float32))


def _compiled(initialiser: initializers.Initializer) -> initializers.Initializer:
    """One program for each shape, where each of the initialiser's operations would be one by itself."""
    return jax.jit(initialiser, static_argnums=(1, 2))


def _zeros(key, shape, dtype=None, out_sharding=None):
    return jnp.asarray(np.zeros(shape, dtype or jnp.float32))


xavier_uniform = _compiled(initializers.glorot_uniform())
"""U(±√(6 / (inputs + outputs))), `torch.nn.init.xavier_uniform_`."""

torch_uniform = _compiled(initializers.variance_scaling(1 / 3, "fan_in", "uniform"))
"""U(±1/√inputs), with which PyTorch starts the weights of linear and convolution layers."""

InitialiserName = Literal[
    "torch_uniform", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "zeros"
]

INITIALISERS: dict[InitialiserName, initializers.Initializer] = {
    "torch_uniform": torch_uniform,
    "xavier_uniform": xavier_uniform,
    "xavier_normal": _compiled(initializers.glorot_normal()),
    "kaiming_uniform": _compiled(initializers.he_uniform()),
    "kaiming_normal": _compiled(initializers.he_normal()),
    "orthogonal": _compiled(initializers.orthogonal()),
    "zeros": _zeros,
}
"""How weights may start, by the name that a configuration gives."""


def compute_dtype(precision: Literal["float32", "bfloat16"]) -> DTypeLike | None:
    """The `dtype` that Flax's layers compute in.

    Args:
        precision: the model's.

    Returns:
        `bfloat16`; or None, which follows parameters and inputs, so that double precision stays double.
    """
    return jnp.bfloat16 if precision == "bfloat16" else None


lecun_normal = _compiled(initializers.lecun_normal())
"""A normal distribution of variance 1 / inputs, cut at two standard deviations: how Flax's layers start."""


def linear(
    inputs: int,
    outputs: int,
    *,
    initialiser: initializers.Initializer = lecun_normal,
    use_bias: bool = True,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Make a linear layer.

    Args:
        inputs: size of what goes in.
        outputs: size of what comes out.
        initialiser: draws the weights.
        use_bias: whether a bias is added; it starts at zero.
        dtype: to compute in; None follows parameters and inputs.
        rngs: draws the weights (`params`).

    Returns:
        The layer.
    """
    return nnx.Linear(
        inputs, outputs, use_bias=use_bias, kernel_init=initialiser, bias_init=_zeros, dtype=dtype, rngs=rngs
    )


_BATCH_AXIS: ContextVar[str | None] = ContextVar("batch_axis", default=None)


@contextmanager
def batch_axis(name: str) -> Iterator[None]:
    """While a model is traced under `jax.pmap`, tell its layers over which mapped axis the batch is divided.

    `BatchNorm` then takes the statistics of the whole batch, and `Dropout` its part of the whole batch's mask.

    Args:
        name: the mapped axis; device k has the k-th of equal parts of the batch.
    """
    token = _BATCH_AXIS.set(name)
    try:
        yield
    finally:
        _BATCH_AXIS.reset(token)


def _batch_mean(x: Float[Array, "*any"], axes: tuple[int, ...]) -> Float[Array, "*any"]:
    """Mean over these axes, one of them the whole batch's; they are kept."""
    mean, axis = x.mean(axes, keepdims=True), _BATCH_AXIS.get()
    return mean if axis is None else lax.pmean(mean, axis)


def _parts() -> int:
    """How many devices share the batch."""
    axis = _BATCH_AXIS.get()
    return 1 if axis is None else lax.axis_size(axis)


class Dropout(nnx.Module):
    """Drop values in training: with probability `rate` a value becomes 0, otherwise it is divided by `1 − rate`.

    The mask is a function of the key and of the place in the whole batch, however many devices share it, and whichever
    axis it is.

    Args:
        rate: probability of dropping a value.
        rngs: the stream that the masks are drawn from.
        whole_channels: drop channels, at all positions together, which are the second of three axes.
    """

    def __init__(self, rate: float, *, rngs: nnx.RngStream, whole_channels: bool = False):
        self.rate, self.rngs, self.whole_channels = rate, rngs, whole_channels

    def __call__(self, x: Float[Array, "*any"], *, deterministic: bool, batch: int = 0) -> Float[Array, "*any"]:
        """Drop values unless `deterministic`.

        Args:
            x: the values.
            deterministic: leave them as they are.
            batch: the axis of the batch.

        Returns:
            The values that are left, scaled, and zeros.
        """
        if deterministic or not self.rate:
            return x
        shape = [*x.shape]
        if self.whole_channels:
            shape[1] = 1
        sample = lax.broadcasted_iota(jnp.uint32, shape, batch)
        if (axis := _BATCH_AXIS.get()) is not None:
            sample = sample + lax.axis_index(axis).astype(jnp.uint32) * jnp.uint32(shape[batch])
        others = [*shape[:batch], 1, *shape[batch + 1 :]]
        place = lax.iota(jnp.uint32, math.prod(others)).reshape(others)
        # One counter a value, fused with what consumes it: a seventh of the time of `jax.random.bernoulli`.
        words, _ = threefry(key_words(self.rngs()), sample, jnp.broadcast_to(place, shape))
        keep = words >= jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


def dropout_layer(rate: float, *, rngs: nnx.Rngs, whole_channels: bool = False) -> Dropout:
    """Make a dropout layer with a `dropout` stream of its own; call it with `deterministic=not train`.

    Args:
        rate: probability of dropping a value.
        rngs: seeds the stream.
        whole_channels: drop channels, at all positions together, which are the second of three axes, as
            `torch.nn.Dropout1d` does.

    Returns:
        The layer.
    """
    return Dropout(rate, rngs=nnx.RngStream(rngs.dropout(), tag="dropout"), whole_channels=whole_channels)


def layer_norm(features: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Make a layer normalisation over the last axis with PyTorch's ε = 1e-5.

    Args:
        features: size of the last axis.
        rngs: required by Flax; scale and bias start at 1 and 0.

    Returns:
        The layer.
    """
    start = {"scale_init": lambda key, shape, dtype: starts_at(1, *shape), "bias_init": _zeros}
    return nnx.LayerNorm(features, epsilon=1e-5, use_fast_variance=False, **start, rngs=rngs)


class BatchNorm(nnx.Module):
    """Normalise each channel over batch and positions, as `torch.nn.BatchNorm1d`.

        y = (x − mean) / √(var + ε) · scale + bias,    ε = 1e-5

    In training, mean and (biased) variance are the batch's, and the running statistics move a tenth of the way to the
    batch's mean and *unbiased* variance (PyTorch's momentum 0.1, Flax's 0.9). Otherwise the running ones are used.

    Args:
        channels: how many there are.
        axis: of the channels; the others are batch and positions.
    """

    def __init__(self, channels: int, *, axis: int = 2):
        self.scale = nnx.Param(starts_at(1, channels))
        self.bias = nnx.Param(starts_at(0, channels))
        self.mean = nnx.BatchStat(starts_at(0, channels))
        self.var = nnx.BatchStat(starts_at(1, channels))
        self.others = tuple(a for a in range(3) if a != axis)

    def __call__(self, x: Float[Array, "_ _ _"], *, train: bool) -> Float[Array, "_ _ _"]:
        """Normalise; in training, update the running statistics.

        Args:
            x: the values.
            train: whether to use, and learn from, the batch's own statistics.

        Returns:
            The normalised values.

        Raises:
            ValueError: if `train` and there is only one value for each channel.
        """
        spread = partial(jnp.expand_dims, axis=self.others)
        mean, var = spread(self.mean[...]), spread(self.var[...])
        if train:
            count = x.size // mean.size * _parts()
            if count < 2:
                raise ValueError(f"batch statistics need at least 2 values for each channel, got inputs {x.shape}")
            x = x.astype(jnp.result_type(x, mean))  # a bfloat16 mean has 8 bits
            mean = _batch_mean(x, self.others)
            var = _batch_mean(jnp.square(x - mean), self.others)
            self._update(self.mean, mean)
            self._update(self.var, var * (count / (count - 1)))
        return (x - mean) * (spread(self.scale[...]) * lax.rsqrt(var + 1e-5)) + spread(self.bias[...])

    @staticmethod
    def _update(running: nnx.BatchStat, value: Float[Array, "_ _ _"]) -> None:
        value = lax.stop_gradient(value).reshape(-1)
        running[...] = (0.9 * running[...] + 0.1 * value).astype(running[...].dtype)
