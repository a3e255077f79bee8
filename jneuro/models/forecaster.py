"""The forecasters of the CNN-LSTM technical report (2025): a ladder of LSTMs, and the CNN-LSTM at its top.

Where the report and its public code disagree, the code wins: two *sequential* convolutions whose result is *added* to
the input, and an LSTM in one direction.
"""

from typing import Annotated, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.convolution import Convolution
from jneuro.models.layers import (
    INITIALISERS,
    BatchNorm,
    InitialiserName,
    compute_dtype,
    dropout_layer,
    layer_norm,
    linear,
)
from jneuro.models.recurrent import Gates
from jneuro.models.stack import StackConfig, build_stack, output_layer

__all__ = ["CNNLSTM", "CNNLSTMConfig", "LSTMForecaster", "LSTMForecasterConfig"]


class LSTMForecasterConfig(StackConfig):
    """An LSTM that forecasts from its last hidden state.

    Attributes:
        dropout: probability of dropping a value, between the layers and before the output.
        residual: whether the last input, projected linearly, is added to the last hidden state.
        layer_norm: whether the last hidden state is normalised first.
        projection_init: how the weights of that projection start.
    """

    name: Literal["lstm"] = "lstm"
    hidden: int = Field(default=384, ge=1)
    layers: int = Field(default=2, ge=1, le=16)
    dropout: float = Field(default=0.25, ge=0, lt=1)
    residual: bool = True
    layer_norm: bool = True
    projection_init: InitialiserName = "torch_uniform"

    @classmethod
    def forecasting_report(cls, rung: int) -> Self:
        """One of the report's three LSTMs, with its test R² on the report's own, leaky split.

        1. two layers of 256, window 100: R² 0.511;
        2. three layers of 512, residual and layer normalisation: R² 0.526;
        3. two layers of 384, residual and layer normalisation: R² 0.615.

        Dropout is the final code's 0.25 throughout; the report names none for the first two.

        Args:
            rung: 1, 2 or 3.

        Returns:
            The configuration, for 100 neurons.

        Raises:
            ValueError: for any other rung.
        """
        match rung:
            case 1:
                return cls(hidden=256, layers=2, residual=False, layer_norm=False, length=100)
            case 2:
                return cls(hidden=512, layers=3)
            case 3:
                return cls(hidden=384, layers=2)
        raise ValueError(f"the report's ladder has rungs 1, 2 and 3, got {rung}; the fourth is CNNLSTMConfig()")

    def build(self, *, rngs: nnx.Rngs) -> "LSTMForecaster":
        """Build the model with weights of its own."""
        return LSTMForecaster(self, rngs=rngs)


class CNNLSTMConfig(StackConfig):
    """Convolutions over the neuron index, added to the window, then an LSTM.

    The defaults are the report's, 2,188,168 parameters.

    Attributes:
        kernels: widths of the convolutions over the neuron index, one after the other.
        channel_dropout: probability of dropping a whole time step after each convolution.
        dropout: probability of dropping a value, between the LSTM layers and before the output.
        residual: whether the last input, projected linearly, is added to the last hidden state.
        layer_norm: whether the last hidden state is normalised first.
        projection_init: how the weights of the convolutions and of the last input's projection start.
    """

    name: Literal["cnn_lstm"] = "cnn_lstm"
    kernels: tuple[Annotated[int, Field(ge=1, le=99)], ...] = (3, 5)
    channel_dropout: float = Field(default=0.1, ge=0, lt=1)
    hidden: int = Field(default=384, ge=1)
    layers: int = Field(default=2, ge=1, le=16)
    dropout: float = Field(default=0.25, ge=0, lt=1)
    residual: bool = True
    layer_norm: bool = True
    projection_init: InitialiserName = "torch_uniform"

    def build(self, *, rngs: nnx.Rngs) -> "CNNLSTM":
        """Build the model with weights of its own."""
        return CNNLSTM(self, rngs=rngs)


class LSTMForecaster(nnx.Module):
    """Predict the future from an LSTM's last hidden state.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: LSTMForecasterConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lstm = build_stack(config, config.features, config.hidden, rngs=rngs)
        self.head = ForecastHead(config, residual=config.residual, normalise=config.layer_norm, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons at once.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The expected values.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        _, states = self.lstm(batch.inputs, train=train)
        return Prediction(self.head(states[-1][0], batch.inputs[:, -1], train=train))

    def gates(self, inputs: Float[Array, "batch time feature"]) -> list[Gates]:
        """The LSTM's gates, layer by layer, when it reads these inputs."""
        return self.lstm.gates(inputs)


class CNNLSTM(nnx.Module):
    """Add features convolved over the neuron index to the window, and forecast from it with an LSTM.

    *Time is the channel axis* of the convolutions: each of their outputs is a mix of all time steps and of a few
    neurons with neighbouring indices. Every convolution is followed by ReLU, batch normalisation and channel dropout.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: CNNLSTMConfig, *, rngs: nnx.Rngs):
        self.config = config
        options = {"initialiser": INITIALISERS[config.projection_init], "dtype": compute_dtype(config.precision)}
        length = config.length
        self.convolutions = nnx.List([Convolution(length, length, k, 1, **options, rngs=rngs) for k in config.kernels])
        self.norms = nnx.List([BatchNorm(config.length, axis=0) for _ in config.kernels])
        self.dropout = dropout_layer(config.channel_dropout, whole_channels=True, rngs=rngs)
        self.lstm = build_stack(config, config.features, config.hidden, rngs=rngs)
        self.head = ForecastHead(config, residual=config.residual, normalise=config.layer_norm, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons at once.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values, and to use and update batch statistics.

        Returns:
            The expected values.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        x = self.augment(batch.inputs, train=train)
        _, states = self.lstm(x, train=train)
        return Prediction(self.head(states[-1][0], x[:, -1], train=train))

    def augment(self, inputs: Float[Array, "batch time feature"], *, train: bool) -> Float[Array, "batch time feature"]:
        """Add the convolved features to the window: what the LSTM reads.

        Args:
            inputs: the window.
            train: whether to drop channels, and to use and update batch statistics.

        Returns:
            The window, augmented.
        """
        window = x = inputs.transpose(1, 2, 0)  # channels first; the batch last, as the LSTM has it
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(jax.nn.relu(convolution.batch_last(x)), train=train)
            x = self.dropout(x, deterministic=not train, batch=2)
        return (window + x).transpose(2, 0, 1)

    def gates(self, inputs: Float[Array, "batch time feature"]) -> list[Gates]:
        """The LSTM's gates, layer by layer, when these inputs are augmented and read."""
        return self.lstm.gates(self.augment(inputs, train=False))

    def without_convolutions(self) -> Self:
        """A copy whose convolutions add nothing."""
        copy = nnx.clone(self)
        if len(copy.norms):
            for parameter in (copy.norms[-1].scale, copy.norms[-1].bias):
                parameter[...] = jnp.zeros_like(parameter[...])
        return copy

    def taps(self) -> list[Float[np.ndarray, " tap"]]:
        """The sum of the squared weights of each convolution by its offset on the neuron index."""
        return [np.square(np.asarray(c.kernel[...], np.float64)).sum((1, 2)) for c in self.convolutions]


class ForecastHead(nnx.Module):
    """From the last hidden state and the last input to all horizons.

    Normalise the state, add the projected input, drop values, map linearly.

    Args:
        config: the model's sizes.
        residual: whether to add the input.
        normalise: whether to normalise the state.
        rngs: draws the weights and the dropout masks.
    """

    def __init__(
        self, config: LSTMForecasterConfig | CNNLSTMConfig, *, residual: bool, normalise: bool, rngs: nnx.Rngs
    ):
        hidden, init = config.hidden, INITIALISERS[config.projection_init]
        self.horizons = config.horizons
        self.layer_norm = layer_norm(hidden, rngs=rngs) if normalise else None
        self.residual_projection = (
            linear(config.features, hidden, initialiser=init, dtype=compute_dtype(config.precision), rngs=rngs)
            if residual
            else None
        )
        self.dropout = dropout_layer(config.dropout, rngs=rngs)
        self.output_layer = output_layer(config, hidden, config.horizons * config.targets, rngs=rngs)

    def __call__(
        self, state: Float[Array, "batch hidden"], inputs: Float[Array, "batch feature"], *, train: bool
    ) -> Float[Array, "batch horizon target"]:
        """Map one state and one input to the forecast.

        Args:
            state: the LSTM's last hidden state.
            inputs: the last time step of what the LSTM read.
            train: whether to drop values.

        Returns:
            The forecast.
        """
        if self.layer_norm is not None:
            state = self.layer_norm(state)
        if self.residual_projection is not None:
            state = state + self.residual_projection(inputs)
        outputs = self.output_layer(self.dropout(state, deterministic=not train))
        return jnp.reshape(outputs, (len(inputs), self.horizons, -1))
