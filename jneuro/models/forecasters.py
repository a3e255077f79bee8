"""Forecasters made of LSTM stacks: the ladder of the CNN-LSTM report, sequence to sequence, autoencoder, spike counts.

Where the CNN-LSTM technical report (2025) and its public code disagree, the code wins: two *sequential* convolutions
whose result is *added* to the input, and an LSTM in one direction.
"""

from typing import Annotated, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import ModelConfig, Prediction, check_inputs
from jneuro.models.kernels.lstm import Backend
from jneuro.models.layers import (
    INITIALISERS,
    LSTM,
    BatchNorm,
    Convolution,
    Dropout,
    Gates,
    InitialiserName,
    compute_dtype,
    layer_norm,
    linear,
)

__all__ = [
    "CNNLSTM",
    "LOWEST_RATE",
    "CNNLSTMConfig",
    "LSTMAutoencoder",
    "LSTMAutoencoderConfig",
    "LSTMForecaster",
    "LSTMForecasterConfig",
    "Seq2SeqLSTM",
    "Seq2SeqLSTMConfig",
    "SpikeCountLSTM",
    "SpikeCountLSTMConfig",
    "StackConfig",
]

LOWEST_RATE = 1e-6
"""The Poisson head predicts no less, in spikes a bin: a bin's likelihood stays finite, whatever comes."""


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

    def stack(self, features: int, hidden: int, *, rngs: nnx.Rngs) -> LSTM:
        """The LSTM layers, from `features` inputs at each time to hidden states of size `hidden`."""
        shared = self.model_dump(include={"dropout", "input_init", "recurrent_init", "backend"})
        return LSTM(features, hidden, self.layers, **shared, dtype=compute_dtype(self.precision), rngs=rngs)

    def output_layer(self, features: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Linear:
        """The linear layer from hidden states to predictions; it computes in its parameters' precision."""
        return linear(features, outputs, initialiser=INITIALISERS[self.kernel_init], rngs=rngs)


class ForecasterConfig(StackConfig):
    """What the LSTM and the CNN-LSTM share: a stack whose last hidden state is mapped to all horizons.

    Attributes:
        hidden: size of every layer's hidden state.
        layers: number of LSTM layers.
        dropout: probability of dropping a value, between the layers and before the output.
        residual: whether the last input, projected linearly, is added to the last hidden state; "identity" adds it as
            it is, which the public reference code does where it is as large as the state.
        layer_norm: whether the last hidden state is normalised first.
        projection_init: how the weights of that projection, and of convolutions, start.
    """

    hidden: int = Field(default=384, ge=1)
    layers: int = Field(default=2, ge=1, le=16)
    dropout: float = Field(default=0.25, ge=0, lt=1)
    residual: bool | Literal["identity"] = True
    layer_norm: bool = True
    projection_init: InitialiserName = "torch_uniform"

    @model_validator(mode="after")
    def _residual_fits(self) -> Self:
        if self.residual == "identity" and self.features != self.hidden:
            raise ValueError(
                f"residual = identity adds the inputs to the hidden state, so features = {self.features} and hidden ="
                f" {self.hidden} must be equal; residual = true projects the inputs"
            )
        return self


class LSTMForecasterConfig(ForecasterConfig):
    """An LSTM that forecasts from its last hidden state."""

    name: Literal["lstm"] = "lstm"

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
        plain = {"residual": False, "layer_norm": False, "length": 100}
        ladder = {1: {"hidden": 256, "layers": 2} | plain, 2: {"hidden": 512, "layers": 3}, 3: {"hidden": 384}}
        if rung not in ladder:
            raise ValueError(f"the report's ladder has rungs 1, 2 and 3, got {rung}; the fourth is CNNLSTMConfig()")
        return cls(**ladder[rung])

    def build(self, *, rngs: nnx.Rngs) -> "LSTMForecaster":
        """Build the model with weights of its own."""
        return LSTMForecaster(self, rngs=rngs)


class CNNLSTMConfig(ForecasterConfig):
    """Convolutions over the neuron index, added to the window, then an LSTM.

    The defaults are the report's, 2,188,168 parameters.

    Attributes:
        kernels: widths of the convolutions over the neuron index, one after the other.
        channel_dropout: probability of dropping a whole time step after each convolution.
    """

    name: Literal["cnn_lstm"] = "cnn_lstm"
    kernels: tuple[Annotated[int, Field(ge=1, le=99)], ...] = (3, 5)
    channel_dropout: float = Field(default=0.1, ge=0, lt=1)

    def build(self, *, rngs: nnx.Rngs) -> "CNNLSTM":
        """Build the model with weights of its own."""
        return CNNLSTM(self, rngs=rngs)


class LSTMForecaster(nnx.Module):
    """Predict the future from an LSTM's last hidden state.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: ForecasterConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lstm = config.stack(config.features, config.hidden, rngs=rngs)
        self.head = ForecastHead(config, rngs=rngs)

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
        """What the LSTM reads: the window as it is."""
        del train
        return inputs

    def gates(self, inputs: Float[Array, "batch time feature"]) -> list[Gates]:
        """The LSTM's gates, layer by layer, when it reads these inputs."""
        return self.lstm.gates(self.augment(inputs, train=False))


class CNNLSTM(LSTMForecaster):
    """Add features convolved over the neuron index to the window, and forecast from it with an LSTM.

    *Time is the channel axis* of the convolutions: each of their outputs is a mix of all time steps and of a few
    neurons with neighbouring indices. Every convolution is followed by ReLU, batch normalisation and channel dropout.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    config: CNNLSTMConfig

    def __init__(self, config: CNNLSTMConfig, *, rngs: nnx.Rngs):
        options = {"initialiser": INITIALISERS[config.projection_init], "dtype": compute_dtype(config.precision)}
        length = config.length
        self.convolutions = nnx.List([Convolution(length, length, k, 1, **options, rngs=rngs) for k in config.kernels])
        self.norms = nnx.List([BatchNorm(length, axis=0) for _ in config.kernels])
        self.dropout = Dropout(config.channel_dropout, whole_channels=True, rngs=rngs)
        super().__init__(config, rngs=rngs)

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
        rngs: draws the weights and the dropout masks.
    """

    def __init__(self, config: ForecasterConfig, *, rngs: nnx.Rngs):
        self.config, hidden = config, config.hidden
        self.layer_norm = layer_norm(hidden, rngs=rngs) if config.layer_norm else None
        options = {"initialiser": INITIALISERS[config.projection_init], "dtype": compute_dtype(config.precision)}
        projected = config.residual is True
        self.residual_projection = linear(config.features, hidden, **options, rngs=rngs) if projected else None
        self.dropout = Dropout(config.dropout, rngs=rngs)
        self.output_layer = config.output_layer(hidden, config.horizons * config.targets, rngs=rngs)

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
            inputs = self.residual_projection(inputs)
        if self.config.residual:
            state = state + inputs
        outputs = self.output_layer(self.dropout(state, deterministic=not train))
        return jnp.reshape(outputs, (inputs.shape[0], self.config.horizons, -1))


def _at_all_times(layer: nnx.Linear, states: Float[Array, "time hidden batch"]) -> Float[Array, "batch time output"]:
    """Apply an output layer to every hidden state of `LSTM.batch_last`."""
    kernel, bias = layer.kernel[...], layer.bias[...]  # pyright: ignore
    # A product for each time: one for all would have the states rearranged, which takes eight times as long.
    each = jnp.broadcast_to(kernel.T, (len(states), *kernel.T.shape))
    return (each @ states).transpose(2, 0, 1) + bias[None, None]


def _require_equal(config: "Seq2SeqLSTMConfig | LSTMAutoencoderConfig", what: str) -> None:
    """Refuse a window of another length than what is predicted of it."""
    if config.length != config.horizons:
        raise ValueError(
            f"{config.name} {what}, so length and horizons must be equal, got {config.length} and {config.horizons}"
        )


class Seq2SeqLSTMConfig(StackConfig):
    """An LSTM that reads the window, newest first, and one that emits the next.

    The defaults are the paper's for the CA1 neuron, with its horizon of 50 steps.

    Attributes:
        hidden: size of every layer's hidden state; the paper's is 4·9².
        order: in which the window is read; the paper's is the reverse one, newest first.
        residual: whether the network predicts the change from the last observed values, which must then be the first
            `outputs` features; not in the paper.
    """

    name: Literal["seq2seq_lstm"] = "seq2seq_lstm"
    features: int = Field(default=10, ge=1)
    length: int = Field(default=50, ge=1)
    horizons: int = Field(default=50, ge=1)
    outputs: int | None = Field(default=9, ge=1)
    hidden: int = Field(default=324, ge=1)
    layers: int = Field(default=3, ge=1, le=16)
    recurrent_init: InitialiserName = "xavier_uniform"
    order: Literal["reverse", "forward"] = "reverse"
    residual: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require_equal(self, "emits one prediction for each step it reads")
        if self.residual and self.targets > self.features:
            raise ValueError(
                f"residual = True needs every output among the features, got outputs = {self.targets} and"
                f" features = {self.features}"
            )
        return self

    def build(self, *, rngs: nnx.Rngs) -> "Seq2SeqLSTM":
        """Build the model with weights of its own."""
        return Seq2SeqLSTM(self, rngs=rngs)


class Seq2SeqLSTM(nnx.Module):
    r"""Read a window of \(N\) steps, newest first, and emit the next \(N\), one after every step read.

    With \(x_t\) the newest input, \(F\) the stacked LSTM and \(k = 1, …, N\),

    \[ (h_k, s_k) = F(x_{t+1-k}, s_{k-1}), \qquad \hat y_{t+k} = W h_k + b. \]

    So the prediction \(k\) steps ahead has read the newest \(k\) inputs, \(x_t\) to \(x_{t+1-k}\), and nothing else: it
    lies \(k\) steps after the newest input that it knows, and looks as far back as it looks ahead. The first starts
    from the present itself, where no memory is needed.

    Read forward, it would have read the *oldest* \(k\), \(x_{t+1-N}\) to \(x_{t+k-N}\), and lie \(N\) steps after the
    newest of them, whatever \(k\); only the last prediction has then seen the present. The paper claims that the
    reverse order helps early predictions; `order` puts that to a test.

    Known inputs, such as the current, are read with the window; a current that changes during the horizon is not seen
    before the next window.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Plaster B. & Kumar G., Algorithms 12 (2019) 203.
    """

    def __init__(self, config: Seq2SeqLSTMConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lstm = config.stack(config.features, config.hidden, rngs=rngs)
        self.output_layer = config.output_layer(config.hidden, config.targets, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict as many steps as are read.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The expected values, nearest first.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        inputs = batch.inputs[:, ::-1] if self.config.order == "reverse" else batch.inputs
        states, _ = self.lstm.batch_last(inputs.transpose(1, 2, 0), train=train)
        mean = _at_all_times(self.output_layer, states)
        if self.config.residual:
            mean = batch.inputs[:, -1:, : self.config.targets] + mean
        return Prediction(mean)

    def reading_order(self) -> str:
        """In which order the window is read: `reverse`, newest first, or `forward`."""
        return self.config.order


class LSTMAutoencoderConfig(StackConfig):
    """An LSTM that squeezes a window into a code, and one that rebuilds it.

    The defaults are the source's, for its reservoir of 1000 neurons.

    Attributes:
        code: size of the code, which is the hidden state of every encoder layer.
        hidden: size of every decoder layer's hidden state.
        layers: number of LSTM layers in the encoder, and in the decoder.
    """

    name: Literal["lstm_autoencoder"] = "lstm_autoencoder"
    features: int = Field(default=1000, ge=1)
    length: int = Field(default=20, ge=1)
    horizons: int = Field(default=20, ge=1)
    code: int = Field(default=100, ge=1)
    hidden: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _require_equal(self, f"reconstructs the window that it reads, horizons {1 - self.length} to 0")
        return self

    def build(self, *, rngs: nnx.Rngs) -> "LSTMAutoencoder":
        """Build the model with weights of its own."""
        return LSTMAutoencoder(self, rngs=rngs)


class LSTMAutoencoder(nnx.Module):
    r"""Squeeze a window through one vector, and reconstruct it from there.

    With \(x_1, …, x_N\) the window, \(E\) and \(D\) stacked LSTMs,

    \[ (e_k, s_k) = E(x_k, s_{k-1}), \qquad z = e_N, \qquad (d_k, r_k) = D(z, r_{k-1}), \qquad \hat x_k = W d_k + b. \]

    The decoder reads the code \(z\) anew at every step, and emits the window from its oldest step to its newest, as in
    the usual Keras form: `LSTM`, `RepeatVector`, `LSTM`, `TimeDistributed(Dense)`. The windows' horizons are
    \(1 - N, …, 0\).

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: LSTMAutoencoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = config.stack(config.features, config.code, rngs=rngs)
        self.decoder = config.stack(config.code, config.hidden, rngs=rngs)
        self.output_layer = config.output_layer(config.hidden, config.targets, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Reconstruct the window.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The reconstruction, oldest step first, and in `diagnostics` the `code [batch, code]`.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        _, states = self.encoder(batch.inputs, train=train)
        code = states[-1][0]
        repeated = jnp.broadcast_to(code.T, (self.config.length, *code.T.shape))
        states, _ = self.decoder.batch_last(repeated, train=train)
        mean = _at_all_times(self.output_layer, states)
        return Prediction(mean, diagnostics={"code": code.astype(mean.dtype)})


class SpikeCountLSTMConfig(StackConfig):
    """An LSTM that predicts the spike counts of the next bins, with a Poisson or a squared-error head.

    The defaults fit the ring of 600 neurons, each with its external input.

    Attributes:
        hidden: size of every layer's hidden state.
        head: what the mean is made of: `poisson`, for the loss `poisson` on raw counts, is always positive; `mse`, for
            the loss `mse`, may be anything.
        own_hidden: width of the layer through which a neuron's own past reaches its mean past the LSTM; 0 has no such
            path, as in the source.
    """

    name: Literal["spike_count_lstm"] = "spike_count_lstm"
    features: int = Field(default=1200, ge=1)
    length: int = Field(default=20, ge=1)
    outputs: int | None = Field(default=600, ge=1)
    hidden: int = Field(default=256, ge=1)
    head: Literal["poisson", "mse"] = "poisson"
    own_hidden: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _own_past_is_observed(self) -> Self:
        if self.own_hidden and self.features < self.targets:
            raise ValueError(f"own_hidden needs the counts of all {self.targets} neurons among the inputs; set it to 0")
        return self

    @property
    def own_variables(self) -> int:
        """How many variables are observed of every neuron."""
        return self.features // self.targets

    def build(self, *, rngs: nnx.Rngs) -> "SpikeCountLSTM":
        """Build the model with weights of its own."""
        return SpikeCountLSTM(self, rngs=rngs)


class SpikeCountLSTM(nnx.Module):
    r"""Predict the counts of the next bins from an LSTM's last hidden state \(h\).

    \[ z = W h + b, \qquad \lambda = \log(1 + e^z) + 10^{-6} \;\text{(poisson)}, \qquad \hat y = z \;\text{(mse)}. \]

    The softplus grows linearly, so that no excursion of \(z\) overflows, as \(e^z\) would in single precision from
    \(z\) = 89 on; at the rates of sparse spikes, far below one a bin, the two agree.

    With `own_hidden`, \(z_n\) also has a small network's view of what neuron \(n\) itself did: its counts and whatever
    else is observed of each neuron, at all times of the window. The network is the same for all neurons and its last
    layer starts at zero. A dense LSTM would have to find those few among all inputs, for every neuron anew.

    The features are the counts of all neurons, then whatever else is observed, such as their external input. With the
    Poisson head the windows must hold **raw counts**: the likelihood of a z-score has no meaning, and \(\lambda\) is in
    spikes a bin. With the squared-error head either will do.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Xiao & Lin, J. Comput. Neurosci. 50 (2022) 9, for the network whose counts are predicted.
    """

    def __init__(self, config: SpikeCountLSTMConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lstm = config.stack(config.features, config.hidden, rngs=rngs)
        self.output_layer = config.output_layer(config.hidden, config.horizons * config.targets, rngs=rngs)
        if config.own_hidden:
            first = linear(config.own_variables * config.length, config.own_hidden, rngs=rngs)
            last = linear(config.own_hidden, config.horizons, initialiser=INITIALISERS["zeros"], rngs=rngs)
            self.own = nnx.List([first, last])

    def start_at(self, mean: Float[Array, "horizon target"]) -> None:
        """Let the output start at known means instead of at zero, or at the softplus of zero, 0.69.

        Args:
            mean: of the training targets.
        """
        # The inverse of the softplus; the floor is where a neuron that never fired starts.
        start = jnp.log(jnp.expm1(jnp.maximum(mean, 1e-3))) if self.config.head == "poisson" else mean
        bias: nnx.Param = self.output_layer.bias  # pyright: ignore
        bias[...] = start.reshape(-1).astype(bias.dtype)

    def initialise(self, windows: Windows) -> None:
        """Start at the means of the training targets.

        Args:
            windows: those of the training.
        """
        values, last = np.asarray(windows.values), np.asarray(windows.starts["train"]) + windows.length - 1
        means = np.stack([values[last + h].mean(0) for h in windows.horizons])
        self.start_at(jnp.asarray(means if windows.target_columns is None else means[:, windows.target_columns]))

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons at once.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The expected counts.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        _, states = self.lstm(batch.inputs, train=train)
        mean = self.output_layer(states[-1][0]).reshape(-1, self.config.horizons, self.config.targets)
        if self.config.own_hidden:
            mean = mean + self._from_own_past(batch.inputs)
        return Prediction(jax.nn.softplus(mean) + LOWEST_RATE if self.config.head == "poisson" else mean)

    def _from_own_past(self, inputs: Float[Array, "batch time feature"]) -> Float[Array, "batch horizon target"]:
        """What each neuron's own past adds."""
        config, (first, last) = self.config, self.own
        past = inputs[..., : config.own_variables * config.targets]
        past = past.reshape(*past.shape[:2], config.own_variables, config.targets).transpose(0, 3, 2, 1)
        return last(jax.nn.silu(first(past.reshape(*past.shape[:2], -1)))).swapaxes(1, 2)
