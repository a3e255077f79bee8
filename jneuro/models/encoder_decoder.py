"""Convolutional encoder–decoder: a surrogate of a simulator, after the CoNNear family.

The published networks of that family (cochlea, inner hair cell, auditory nerve) differ only in the fields of
`EncoderDecoderConfig`; all join the encoder's convolution *before* its activation to the decoder's activation.

PyTorch's and Keras' parameters: `encoder.{k}` is `nn.Conv1d`, `decoder.{k}` is `nn.ConvTranspose1d` with kernels
`[kernel, out, in]` as in Keras; for both, PyTorch's `weight` is `kernel.transpose(2, 1, 0)`. Where the activation is
"prelu", `encoder_prelu.{k}.weight`, `decoder_prelu.{k}.weight` and `output_prelu.weight` are those of `nn.PReLU`.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Annotated, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import ModelConfig, Prediction, check_inputs
from jneuro.models.kernels.convolution import Formulation, in_microbatches, microbatch
from jneuro.models.layers import INITIALISERS, Convolution, InitialiserName, compute_dtype, starts_at

__all__ = ["ActivationName", "EncoderDecoder", "EncoderDecoderConfig", "LayerSizes", "PReLU"]

ActivationName = Literal["tanh", "sigmoid", "prelu", "silu", "relu", "none"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "none": lambda x: x,
}

Size = Annotated[int, Field(ge=1)]


class LayerSizes(NamedTuple):
    """Sizes of one encoder layer, mirrored by a decoder layer.

    Attributes:
        filters: channels out of the encoder layer, and at the same resolution out of the decoder layer.
        kernel: taps.
        stride: samples in for each sample out.
    """

    filters: int
    kernel: int
    stride: int


class EncoderDecoderConfig(ModelConfig):
    """A convolutional encoder and decoder that map a whole window to as long a window.

    The defaults are the published Hodgkin–Huxley surrogate's, 1,511,489 parameters.

    Attributes:
        layers: encoder layers, and as many decoder layers.
        filters: channels of every encoder layer, or one for each; the decoder mirrors them.
        kernel: taps of every layer, or of each encoder layer; the decoder mirrors them.
        stride: of every layer, or of each encoder layer; the decoder mirrors them.
        encoder_activation: after every encoder layer.
        decoder_activation: after every decoder layer but the last.
        output_activation: after the last decoder layer.
        skip: what joins the decoder: the encoder's convolution before or after its activation.
        bias: whether the convolutions have biases.
        crop: samples of context cut off the output, left and right.
        input_scale: factor on the inputs.
        output_scale: the network's output is this many times the prediction.
        initialiser: of the kernels; biases and the slopes of "prelu" start at 0.
        formulation: how convolutions are computed; see `jneuro.models.kernels.convolution`.
    """

    name: Literal["encoder_decoder"] = "encoder_decoder"
    features: int = Field(default=1, ge=1)
    length: int = Field(default=2560, ge=1)
    horizons: int = Field(default=2048, ge=1)
    layers: int = Field(default=9, ge=1, le=32)
    filters: Size | tuple[Size, ...] = 64
    kernel: Size | tuple[Size, ...] = 16
    stride: Size | tuple[Size, ...] = 2
    encoder_activation: ActivationName = "tanh"
    decoder_activation: ActivationName = "sigmoid"
    output_activation: ActivationName = "none"
    skip: Literal["before_activation", "after_activation"] = "before_activation"
    bias: bool = True
    crop: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (256, 256)
    input_scale: float = Field(default=1e-3, gt=0)
    output_scale: float = Field(default=1e-2, gt=0)
    initialiser: InitialiserName = "xavier_uniform"
    formulation: Formulation = "auto"

    @property
    def sizes(self) -> tuple[LayerSizes, ...]:
        """Sizes of each encoder layer; decoder layer `k` has the kernel and stride of the `k`-th from the end."""
        columns = (self.filters, self.kernel, self.stride)
        return tuple(map(LayerSizes, *((c,) * self.layers if isinstance(c, int) else c for c in columns)))

    def receptive_field(self, layers: int | None = None) -> int:
        """Input samples that reach one value of the deepest layer, or of the last of the first `layers`.

        1 + Σ (kernel − 1) · product of earlier strides
        """
        sizes = self.sizes[:layers]
        return 1 + sum((size.kernel - 1) * prod(s.stride for s in sizes[:k]) for k, size in enumerate(sizes))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("filters", "kernel", "stride"):
            value = getattr(self, name)
            if not isinstance(value, int) and len(value) != self.layers:
                raise ValueError(f"{name} must be one number or one for each of {self.layers} layers, got {value}")
        step = prod(size.stride for size in self.sizes)
        if self.length % step:
            nearest = max(1, round(self.length / step)) * step
            raise ValueError(
                f"length must be divisible by {step}, the product of the strides, got {self.length}; try {nearest}"
            )
        if self.horizons != self.length - sum(self.crop):
            raise ValueError(
                f"horizons must be length - crop = {self.length} - {sum(self.crop)} = {self.length - sum(self.crop)},"
                f" the samples of the window that are left, got {self.horizons}"
            )
        return self

    def build(self, *, rngs: nnx.Rngs) -> "EncoderDecoder":
        """Build the model with weights of its own."""
        return EncoderDecoder(self, rngs=rngs)


class PReLU(nnx.Module):
    """`max(x, 0) + weight · min(x, 0)` with one learned slope a channel, starting at 0 as in Keras.

    Args:
        channels: size of the last axis.
    """

    def __init__(self, channels: int):
        self.weight = nnx.Param(starts_at(0, channels))

    def __call__(self, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
        """Apply it; see the class."""
        return jnp.where(x > 0, x, self.weight[...].astype(x.dtype)[None, None] * x)


class EncoderDecoder(nnx.Module):
    """Map a whole window to as long a window, without recurrence.

    With `e_k` the k-th of `layers` convolutions, `d_k` the k-th transposed one, f and g the activations,

        z_k = e_k(f(z_{k−1})),    z_0 = e_0(input_scale · inputs)
        y_0 = d_0(f(z_last)),     y_k = d_k([g(y_{k−1}), z_{last−k}])
        mean = crop(y_last) / output_scale

    All are padded to "same" as TensorFlow does it, so that `e_k` divides the length by its stride and `d_k`
    multiplies it.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`).

    References:
        Drakopoulos F., Baby D., Verhulst S., Commun. Biol. 4 (2021) 827; Baby D., Van Den Broucke A., Verhulst S.,
        Nat. Mach. Intell. 3 (2021) 134.
    """

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        sizes = config.sizes
        options = {
            "bias": config.bias,
            "initialiser": INITIALISERS[config.initialiser],
            "dtype": compute_dtype(config.precision),
            "formulation": config.formulation,
            "rngs": rngs,
        }
        inputs, outputs = config.features, [size.filters for size in sizes[-2::-1]] + [config.targets]
        encoder, decoder = [], []
        for size in sizes:
            encoder.append(Convolution(inputs, *size, **options))
            inputs = size.filters
        for k, (filters, kernel, stride) in enumerate(reversed(sizes)):
            inputs = filters if k == 0 else 2 * filters  # what is joined has as many
            decoder.append(Convolution(inputs, outputs[k], kernel, stride, transposed=True, **options))
        self.encoder, self.decoder = nnx.List(encoder), nnx.List(decoder)
        learned = {part: getattr(config, f"{part}_activation") == "prelu" for part in ("encoder", "decoder", "output")}
        self.encoder_prelu = nnx.List([PReLU(size.filters) for size in sizes]) if learned["encoder"] else None
        self.decoder_prelu = nnx.List([PReLU(count) for count in outputs[:-1]]) if learned["decoder"] else None
        self.output_prelu = PReLU(config.targets) if learned["output"] else None

    def receptive_field(self, layers: int | None = None) -> int:
        """Input samples that reach one value of the deepest layer, or of the last of the first `layers`."""
        return self.config.receptive_field(layers)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict the window's targets.

        Args:
            batch: the windows; its targets are not read.
            train: without effect: there is no dropout.

        Returns:
            The expected values.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        config = self.config
        check_inputs(config, batch.inputs)
        encode = [(config.encoder_activation, slopes) for slopes in self.encoder_prelu or [None] * config.layers]
        decode = [(config.decoder_activation, slopes) for slopes in self.decoder_prelu or [None] * (config.layers - 1)]
        x, encoded = batch.inputs * config.input_scale, []
        for layer, activation in zip(self.encoder, [_NONE, *encode], strict=False):
            x = _run(layer, [activation], x)
            encoded.append(x)
        x = _run(self.decoder[0], encode[-1:], x)
        for k, layer in enumerate(self.decoder[1:], 1):
            skip = _NONE if config.skip == "before_activation" else encode[-1 - k]
            x = _run(layer, [decode[k - 1], skip], x, encoded[-1 - k])
        x = x[:, config.crop[0] : config.length - config.crop[1]]
        x = _activate((config.output_activation, self.output_prelu), x)
        return Prediction(x.astype(jnp.promote_types(x.dtype, jnp.float32)) / config.output_scale)


_Activation = tuple[str, PReLU | None]
_NONE: _Activation = ("none", None)


def _run(
    layer: Convolution, activations: Sequence[_Activation], *inputs: Float[Array, "batch time channel"]
) -> Float[Array, "batch position out"]:
    """Activate the inputs, join their channels, and apply the layer: a few samples at a time."""
    names, slopes = zip(*activations, strict=True)

    def apply(modules, *inputs):
        layer, slopes = modules
        activated = map(_activate, zip(names, slopes, strict=True), inputs)
        return layer(jnp.concatenate(list(activated), axis=-1))

    batch, time, _ = inputs[0].shape
    positions = time if layer.transposed else -(-time // layer.stride)
    return in_microbatches(apply, (layer, slopes), *inputs, size=microbatch(batch, positions))


def _activate(activation: _Activation, x: Float[Array, "batch time channel"]) -> Float[Array, "batch time channel"]:
    name, slopes = activation
    return _ACTIVATIONS[name](x) if slopes is None else slopes(x)
