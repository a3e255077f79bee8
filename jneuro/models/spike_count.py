"""An LSTM that predicts spike counts, with a Poisson or a squared-error head."""

from typing import Literal

import jax
from flax import nnx
from pydantic import Field

from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.stack import StackConfig, build_stack, output_layer

__all__ = ["LOWEST_RATE", "SpikeCountLSTM", "SpikeCountLSTMConfig"]

LOWEST_RATE = 1e-6
"""The Poisson head predicts no less, in spikes a bin: a bin's likelihood stays finite, whatever comes."""


class SpikeCountLSTMConfig(StackConfig):
    """Sizes of a `SpikeCountLSTM`; the defaults fit the ring of 600 neurons, each with its external input.

    Attributes:
        hidden: size of every layer's hidden state.
        head: what the mean is made of: `poisson`, for the loss `poisson` on raw counts, is always positive; `mse`, for
            the loss `mse`, may be anything.
    """

    name: Literal["spike_count_lstm"] = "spike_count_lstm"
    features: int = Field(default=1200, ge=1)
    length: int = Field(default=20, ge=1)
    outputs: int | None = Field(default=600, ge=1)
    hidden: int = Field(default=256, ge=1)
    head: Literal["poisson", "mse"] = "poisson"


class SpikeCountLSTM(nnx.Module):
    r"""Predict the counts of the next bins from an LSTM's last hidden state \(h\).

    \[ z = W h + b, \qquad \lambda = \log(1 + e^z) + 10^{-6} \;\text{(poisson)}, \qquad \hat y = z \;\text{(mse)}. \]

    The softplus grows linearly, so that no excursion of \(z\) overflows, as \(e^z\) would in single precision from
    \(z\) = 89 on; at the rates of sparse spikes, far below one a bin, the two agree.

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
        return Prediction(jax.nn.softplus(mean) + LOWEST_RATE if self.config.head == "poisson" else mean)
