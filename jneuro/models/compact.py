"""A small forecaster of our own: one network for all neurons, and one matrix that says who talks to whom."""

from typing import Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import variance_scaling
from pydantic import Field, model_validator

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import ModelConfig, Prediction, check_inputs
from jneuro.models.layers import linear, starts_at

__all__ = ["CompactForecaster", "CompactForecasterConfig"]


class CompactForecasterConfig(ModelConfig):
    """The same weights for every neuron: its own past, and what the others just did.

    Attributes:
        lags: how many of a neuron's own last samples predict its future.
        hidden: width of the shared layers.
        mixing: whether neurons hear each other; helps where all trials share one connectivity.
        mixing_lags: how many of its last samples a neuron's message is made from.
        mixing_hidden: width of the layer that makes the message.
        channels: values in a message, each with a mixing matrix of its own.
        echo: whether a neuron's message also depends on how those who hear it have reacted.
    """

    name: Literal["compact"] = "compact"
    lags: int = Field(default=24, ge=1)
    hidden: int = Field(default=64, ge=1)
    mixing: bool = True
    mixing_lags: int = Field(default=4, ge=1)
    mixing_hidden: int = Field(default=16, ge=1)
    channels: int = Field(default=2, ge=1)
    echo: bool = False

    @model_validator(mode="after")
    def _lags_fit(self) -> Self:
        for name in ("lags", "mixing_lags"):
            if getattr(self, name) > self.length:
                raise ValueError(f"{name} must be at most length = {self.length}, got {getattr(self, name)}")
        if self.echo and not self.mixing:
            raise ValueError("echo = true needs mixing = true: without it, nobody hears")
        return self

    def build(self, *, rngs: nnx.Rngs) -> "CompactForecaster":
        """Build the model with weights of its own."""
        return CompactForecaster(self, rngs=rngs)


class CompactForecaster(nnx.Module):
    """Forecast every neuron with the same weights, from its own past and from what the others just did.

    With x the inputs and n a neuron,

        trunk_n   = MLP(x_n at the last `lags` samples)
        message_n = MLP(x_n at the last `mixing_lags` samples)
        heard_n,c = Σ_m message_m,c · mixing[c, m, n]
        mean_n    = last sample of x_n + MLP(trunk_n, heard_n)

    A nonlinear message can say "I have just spiked", which the voltage says only by its reset. `mixing` starts at
    zero and the last layer small, so that training starts near persistence, from independent neurons.

    Samples tell in which millisecond a neuron spiked, but not whether the spike has arrived by now; those who hear the
    neuron show it. With `echo`, the layer that makes the message reads this as well:

        echo_m,c = Σ_n mixing[c, m, n] · reaction_n,c,    reaction_n = a linear map of n's own message layer

    Args:
        config: the sizes.
        rngs: draws the weights (`params`).
    """

    def __init__(self, config: CompactForecasterConfig, *, rngs: nnx.Rngs):
        self.config = config
        hidden, channels, neurons = config.hidden, config.channels, config.features
        self.trunk = nnx.List([linear(config.lags, hidden, rngs=rngs), linear(hidden, hidden, rngs=rngs)])
        self.head = linear(hidden, hidden, rngs=rngs)
        small = variance_scaling(0.01, "fan_in", "normal")
        self.output_layer = linear(hidden, config.horizons, initialiser=small, rngs=rngs)
        if config.mixing:
            first = linear(config.mixing_lags, config.mixing_hidden, rngs=rngs)
            self.message = nnx.List([first, linear(config.mixing_hidden, channels, rngs=rngs)])
            self.mixing = nnx.Param(starts_at(0, channels, neurons, neurons))
            self.hearing = linear(channels, hidden, use_bias=False, rngs=rngs)
            if config.echo:
                self.reaction = linear(config.mixing_hidden, channels, rngs=rngs)
                self.answer = linear(channels, config.mixing_hidden, use_bias=False, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons at once.

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
        past = batch.inputs[:, -max(config.lags, config.mixing_lags) :].swapaxes(1, 2)
        x = past[..., -config.lags :].reshape(-1, config.lags)
        for layer in self.trunk:
            x = jax.nn.silu(layer(x))
        x = self.head(x)
        if config.mixing:
            x = x + self.hearing(self._listen(past[..., -config.mixing_lags :]))
        change = self.output_layer(jax.nn.silu(x)).reshape(*past.shape[:2], config.horizons)
        return Prediction(batch.inputs[:, -1:] + change.swapaxes(1, 2))

    def _listen(self, past: Float[Array, "batch feature lag"]) -> Float[Array, "batch*feature channel"]:
        """Let all neurons speak, and sum what each hears, channel by channel."""
        first, second = self.message
        neurons = past.shape[:2]
        x = first(past.reshape(-1, past.shape[-1]))
        if self.config.echo:
            reaction = self.reaction(jax.nn.silu(x)).reshape(*neurons, -1)
            echo = jnp.einsum("bnc,cmn->bmc", reaction, self.mixing[...])
            x = x + self.answer(echo.reshape(-1, echo.shape[-1]))
        message = second(jax.nn.silu(x)).reshape(*neurons, -1)
        heard = jnp.einsum("bmc,cmn->bnc", message, self.mixing[...])
        return heard.reshape(-1, heard.shape[-1])
