"""What the models made of plain LSTM stacks share: their fields, their stacks and their output layers."""

import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from jneuro.core.types import Array, Float
from jneuro.models.base import ModelConfig
from jneuro.models.layers import INITIALISERS, InitialiserName, compute_dtype, linear
from jneuro.models.recurrent import LSTM, Backend

__all__ = ["StackConfig", "build_stack", "output_layer", "outputs_at_all_times"]


class StackConfig(ModelConfig):
    """Sizes of LSTM stacks and how they start.

    Attributes:
        hidden: size of every layer's hidden state.
        layers: number of LSTM layers.
        dropout: probability of dropping a value between the layers.
        input_init: how the weights from the inputs to the gates start, drawn for all four gates together.
        recurrent_init: how the weights from the hidden state to the gates start, likewise.
        kernel_init: how the output layer's weights start; its bias starts at zero.
        backend: what runs the LSTM: cuDNN's (single precision, on CUDA), our scan, or whichever suits the device.
    """

    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=1, ge=1, le=16)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    input_init: InitialiserName = "xavier_uniform"
    recurrent_init: InitialiserName = "orthogonal"
    kernel_init: InitialiserName = "xavier_uniform"
    backend: Backend = "auto"


def build_stack(config: StackConfig, features: int, hidden: int, *, rngs: nnx.Rngs) -> LSTM:
    """Build LSTM layers as a configuration says.

    Args:
        config: the model's.
        features: size of the input at each time.
        hidden: size of every layer's hidden state.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    Returns:
        The layers.
    """
    return LSTM(
        features,
        hidden,
        config.layers,
        dropout=config.dropout,
        input_init=config.input_init,
        recurrent_init=config.recurrent_init,
        dtype=compute_dtype(config.precision),
        backend=config.backend,
        rngs=rngs,
    )


def output_layer(config: StackConfig, features: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Build the linear layer from hidden states to predictions; it computes in its parameters' precision.

    Args:
        config: the model's.
        features: size of a hidden state.
        outputs: size of a prediction.
        rngs: draws the weights (`params`).

    Returns:
        The layer.
    """
    return linear(features, outputs, initialiser=INITIALISERS[config.kernel_init], rngs=rngs)


def outputs_at_all_times(
    layer: nnx.Linear, states: Float[Array, "time hidden batch"]
) -> Float[Array, "batch time output"]:
    """Apply an output layer to every hidden state of `LSTM.batch_last`.

    Args:
        layer: from `output_layer`.
        states: the hidden states.

    Returns:
        The predictions.
    """
    kernel, bias = layer.kernel[...], layer.bias[...]  # pyright: ignore
    # A product for each time: one for all would have the states rearranged, which takes eight times as long.
    each = jnp.broadcast_to(kernel.T, (len(states), *kernel.T.shape))
    return (each @ states).transpose(2, 0, 1) + bias[None, None]
