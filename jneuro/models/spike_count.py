"""An LSTM that predicts spike counts, with a Poisson or a squared-error head."""

from typing import Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.layers import INITIALISERS, linear
from jneuro.models.stack import StackConfig, build_stack, output_layer

__all__ = ["LOWEST_RATE", "SpikeCountLSTM", "SpikeCountLSTMConfig"]

LOWEST_RATE = 1e-6
"""The Poisson head predicts no less, in spikes a bin: a bin's likelihood stays finite, whatever comes."""


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
        self.lstm = build_stack(config, config.features, config.hidden, rngs=rngs)
        self.output_layer = output_layer(config, config.hidden, config.horizons * config.targets, rngs=rngs)
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
