"""The LSTM autoencoder of spike traces (Kulkarni et al. 2023)."""

from typing import Literal, Self

import jax.numpy as jnp
from flax import nnx
from pydantic import Field, model_validator

from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.stack import StackConfig, build_stack, output_layer, outputs_at_all_times

__all__ = ["LSTMAutoencoder", "LSTMAutoencoderConfig"]


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
        if self.length != self.horizons:
            raise ValueError(
                f"lstm_autoencoder reconstructs the window that it reads, horizons {1 - self.length} to 0, so length"
                f" and horizons must be equal, got {self.length} and {self.horizons}"
            )
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
        self.encoder = build_stack(config, config.features, config.code, rngs=rngs)
        self.decoder = build_stack(config, config.code, config.hidden, rngs=rngs)
        self.output_layer = output_layer(config, config.hidden, config.targets, rngs=rngs)

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
        mean = outputs_at_all_times(self.output_layer, states)
        return Prediction(mean, diagnostics={"code": code.astype(mean.dtype)})
