"""Layers that the models share, with PyTorch's semantics where Flax differs.

Flax's own `BatchNorm` keeps the biased variance, its `LayerNorm` has ε = 1e-6, and its `Dropout` draws from a stream
called `default` when `nnx.Rngs` has no `dropout` stream, so that `nnx.reseed(model, dropout=key)` would miss it. Nor do
Flax's know of `batch_axis`, under which each device sees a part of the batch only.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.nn import initializers
from jax.typing import DTypeLike

from jneuro.core.random import key_words, threefry
from jneuro.core.types import Array, Float
from jneuro.models.kernels.convolution import Formulation, convolve, convolve_batch_last, convolve_transposed, resolved
from jneuro.models.kernels.lstm import Backend, LSTMState, LSTMWeights, stacked_lstm

__all__ = [
    "INITIALISERS",
    "LSTM",
    "BatchNorm",
    "Convolution",
    "Dropout",
    "Gates",
    "InitialiserName",
    "LSTMLayer",
    "batch_axis",
    "compute_dtype",
    "layer_norm",
    "lecun_normal",
    "linear",
    "starts_at",
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


InitialiserName = Literal[
    "torch_uniform", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal", "zeros"
]

INITIALISERS: dict[InitialiserName, initializers.Initializer] = {
    "torch_uniform": _compiled(initializers.variance_scaling(1 / 3, "fan_in", "uniform")),
    "xavier_uniform": _compiled(initializers.glorot_uniform()),
    "xavier_normal": _compiled(initializers.glorot_normal()),
    "kaiming_uniform": _compiled(initializers.he_uniform()),
    "kaiming_normal": _compiled(initializers.he_normal()),
    "orthogonal": _compiled(initializers.orthogonal()),
    "zeros": _zeros,
}
"""How weights may start, by the name that a configuration gives; all but the first are PyTorch's `torch.nn.init`.

`torch_uniform` is U(±1/√inputs), with which PyTorch starts the weights of linear and convolution layers, and
`xavier_uniform` is U(±√(6 / (inputs + outputs))).
"""


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
    inputs: int, outputs: int, *, initialiser: initializers.Initializer = lecun_normal, **options: Any
) -> nnx.Linear:
    """Make a linear layer.

    Args:
        inputs: size of what goes in.
        outputs: size of what comes out.
        initialiser: draws the weights; the bias starts at zero.
        options: of `flax.nnx.Linear`: `rngs`, which draws the weights (`params`), `use_bias`, and `dtype` to compute
            in, where None follows parameters and inputs.

    Returns:
        The layer.
    """
    return nnx.Linear(inputs, outputs, kernel_init=initialiser, bias_init=_zeros, **options)


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


class Dropout(nnx.Module):
    """Drop values in training: with probability `rate` a value becomes 0, otherwise it is divided by `1 − rate`.

    The mask is a function of the key and of the place in the whole batch, however many devices share it, and whichever
    axis it is.

    Args:
        rate: probability of dropping a value.
        rngs: seeds the stream of its own, called `dropout`, that the masks are drawn from.
        whole_channels: drop channels, at all positions together, which are the second of three axes, as
            `torch.nn.Dropout1d` does.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs, whole_channels: bool = False):
        self.rate, self.whole_channels = rate, whole_channels
        self.rngs = nnx.RngStream(rngs.dropout(), tag="dropout")

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
        shape = [1 if self.whole_channels and axis == 1 else size for axis, size in enumerate(x.shape)]
        sample = lax.broadcasted_iota(jnp.uint32, shape, batch)
        if (axis := _BATCH_AXIS.get()) is not None:
            sample = sample + lax.axis_index(axis).astype(jnp.uint32) * jnp.uint32(shape[batch])
        others = [*shape[:batch], 1, *shape[batch + 1 :]]
        place = lax.iota(jnp.uint32, math.prod(others)).reshape(others)
        # One counter a value, fused with what consumes it: a seventh of the time of `jax.random.bernoulli`.
        words, _ = threefry(key_words(self.rngs()), sample, jnp.broadcast_to(place, shape))
        keep = words >= jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


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
            axis = _BATCH_AXIS.get()
            count = x.size // mean.size * (1 if axis is None else lax.axis_size(axis))
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


class Convolution(nnx.Module):
    """A convolution over time, plain or transposed, with a learned kernel and bias; see `models.kernels.convolution`.

    Args:
        features: channels in.
        filters: channels out.
        taps: width of the kernel.
        stride: input samples from one position to the next; transposed, output samples for each input sample.
        transposed: whether it makes the sequence longer; the kernel's axes are then `[tap, out, in]`.
        bias: whether there is one; it starts at 0.
        initialiser: of the kernel, given the axes `[tap, in, out]`.
        dtype: to compute in; None follows parameters and inputs.
        formulation: how it is computed.
        rngs: draws the kernel.
    """

    def __init__(
        self,
        features: int,
        filters: int,
        taps: int,
        stride: int,
        *,
        transposed: bool = False,
        bias: bool = True,
        initialiser: initializers.Initializer = INITIALISERS["xavier_uniform"],
        dtype: DTypeLike | None = None,
        formulation: Formulation = "auto",
        rngs: nnx.Rngs,
    ):
        kernel = initialiser(rngs.params(), (taps, features, filters), jnp.float32)
        self.kernel = nnx.Param(kernel.swapaxes(1, 2) if transposed else kernel)
        self.bias = nnx.Param(starts_at(0, filters)) if bias else None
        self.stride, self.transposed, self.dtype = stride, transposed, dtype
        self.formulation: Formulation = formulation

    def __call__(self, inputs: Float[Array, "batch time channel"]) -> Float[Array, "batch position out"]:
        """Convolve `[batch, time, channel]` to ⌈time / stride⌉ positions, or transposed to time · stride."""
        function = convolve_transposed if self.transposed else convolve
        out = function(*self._operands(inputs), self.stride, self.formulation)
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)[None, None]

    def batch_last(self, inputs: Float[Array, "channel time batch"]) -> Float[Array, "out position batch"]:
        """Convolve sequences that lie with the batch last; with a stride of 1, without rearranging them on a CPU."""
        if self.stride > 1 or self.transposed or resolved(self.formulation) != "gemm":
            return self(inputs.T).T
        out = convolve_batch_last(*self._operands(inputs))
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)[:, None, None]

    def _operands(self, inputs: Array) -> tuple[Array, Array]:
        """Inputs and kernel in the precision to compute in."""
        kernel = self.kernel[...]
        dtype = self.dtype or jnp.result_type(inputs, kernel)
        return inputs.astype(dtype), kernel.astype(dtype)


class Gates(NamedTuple):
    """The gates of one layer, at every time.

    Attributes:
        input: how much of what is new is taken in.
        forget: how much of the cell's state stays.
        output: how much of the cell's state is shown.
    """

    input: Float[Array, "batch time hidden"]
    forget: Float[Array, "batch time hidden"]
    output: Float[Array, "batch time hidden"]


class LSTMLayer(nnx.Module):
    """One LSTM layer with PyTorch's parameters, transposed: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.

    Each weight is drawn for all four gates together; biases start at 0, the forget quarter of `bias_ih` at
    `forget_bias`.

    Args:
        features: size of the input at each time.
        hidden: size of the hidden state.
        input_init: how `weight_ih` starts.
        recurrent_init: how `weight_hh` starts.
        forget_bias: where the forget gates' bias starts.
        dtype: of the matrix products' operands; see `models.kernels.lstm.lstm`.
        backend: cuDNN's LSTM (single precision, on CUDA), our scan, or cuDNN's where it can run on the one device.
        rngs: draws the weights.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        input_init: InitialiserName = "xavier_uniform",
        recurrent_init: InitialiserName = "orthogonal",
        forget_bias: float = 1.0,
        dtype: DTypeLike | None = None,
        backend: Backend = "auto",
        rngs: nnx.Rngs,
    ):
        self.weight_ih = nnx.Param(INITIALISERS[input_init](rngs.params(), (features, 4 * hidden), jnp.float32))
        self.weight_hh = nnx.Param(INITIALISERS[recurrent_init](rngs.params(), (hidden, 4 * hidden), jnp.float32))
        self.bias_ih = nnx.Param(jnp.asarray(np.repeat(np.asarray([0, forget_bias, 0, 0], np.float32), hidden)))
        self.bias_hh = nnx.Param(starts_at(0, 4 * hidden))
        self.dtype = dtype
        self.backend: Backend = backend

    @property
    def weights(self) -> LSTMWeights:
        """The parameters, in PyTorch's order."""
        return self.weight_ih[...], self.weight_hh[...], self.bias_ih[...], self.bias_hh[...]

    def __call__(
        self, inputs: Float[Array, "batch time feature"], initial: LSTMState | None = None
    ) -> tuple[Float[Array, "batch time hidden"], LSTMState]:
        """Run the layer: the hidden state after every step, and the state after the last."""
        outputs, (state,) = _run([self], inputs.transpose(1, 2, 0), [initial])
        return outputs.transpose(2, 0, 1), state


def _run(layers: Sequence[LSTMLayer], inputs: Array, initial: Sequence[LSTMState | None]):
    first = layers[0]
    weights = [layer.weights for layer in layers]
    return stacked_lstm(weights, inputs, initial, dtype=first.dtype, backend=first.backend)


class LSTM(nnx.Module):
    """Stacked LSTM layers with dropout between them.

    Args:
        features: size of the input at each time.
        hidden: size of every layer's hidden state.
        layers: number of layers.
        dropout: probability that a value passed from one layer to the next is dropped in training.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
        options: of every `LSTMLayer`: `input_init`, `recurrent_init`, `forget_bias`, `dtype`, `backend`.
    """

    def __init__(
        self, features: int, hidden: int, layers: int, *, dropout: float = 0.0, rngs: nnx.Rngs, **options: Any
    ):
        sizes = [features, *[hidden] * (layers - 1)]
        self.layers = nnx.List([LSTMLayer(size, hidden, rngs=rngs, **options) for size in sizes])
        self.dropout = Dropout(dropout, rngs=rngs)

    def gates(self, inputs: Float[Array, "batch time feature"]) -> list[Gates]:
        """The gates of all layers, without dropout.

        Args:
            inputs: what the first layer reads.

        Returns:
            The gates, layer by layer.
        """
        found, x = [], inputs
        for layer in self.layers:
            weight_ih, weight_hh, bias_ih, bias_hh = layer.weights
            states, _ = layer(x)
            before = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))
            i, f, _, o = jnp.split(x @ weight_ih + before @ weight_hh + (bias_ih + bias_hh)[None, None], 4, axis=-1)
            found.append(Gates(*map(jax.nn.sigmoid, (i, f, o))))
            x = states
        return found

    def __call__(
        self, inputs: Float[Array, "batch time feature"], initial: Sequence[LSTMState] | None = None, *, train: bool
    ) -> tuple[Float[Array, "batch time hidden"], tuple[LSTMState, ...]]:
        """Run all layers.

        Args:
            inputs: the sequence.
            initial: each layer's state before the first step; zeros if omitted.
            train: whether to drop values between layers.

        Returns:
            The last layer's hidden state after every step, and each layer's state after the last step.

        Raises:
            ValueError: if there is not one initial state for each layer, a shape does not fit, or cuDNN is demanded
                where it cannot run.
        """
        outputs, states = self.batch_last(inputs.transpose(1, 2, 0), initial, train=train)
        return outputs.transpose(2, 0, 1), states

    def batch_last(
        self, inputs: Float[Array, "time feature batch"], initial: Sequence[LSTMState] | None = None, *, train: bool
    ) -> tuple[Float[Array, "time hidden batch"], tuple[LSTMState, ...]]:
        """Run all layers on sequences that lie with the batch last, as our scan has them; see `__call__`."""
        if initial is not None and len(initial) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers need as many initial states, got {len(initial)}")
        before = initial or [None] * len(self.layers)
        if not (train and self.dropout.rate):
            return _run(self.layers, inputs, before)
        x, states = inputs, []
        for k, layer in enumerate(self.layers):
            x = self.dropout(x, deterministic=k == 0, batch=2)
            x, state = _run([layer], x, before[k : k + 1])
            states += state
        return x, tuple(states)
