"""A Temporal Fusion Transformer that forecasts neuron by neuron: each is a series, known by its number."""

from typing import Literal, Self

import jax.numpy as jnp
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.types import Array
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.tft import TemporalFusionTransformer, TemporalFusionTransformerConfig, TransformerConfig

__all__ = ["NeuronTFT", "NeuronTFTConfig"]


class NeuronTFTConfig(TransformerConfig):
    """One Temporal Fusion Transformer for all neurons, each a series known by its number.

    Its keys are explained in `TemporalFusionTransformerConfig`.

    The first inputs must be what is predicted; whatever else is observed, such as the population's rate, is told to
    every neuron.

    Attributes:
        hidden: size of everything.
        heads: of the attention.
    """

    name: Literal["neuron_tft"] = "neuron_tft"
    hidden: int = Field(default=16, ge=1)
    heads: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.targets > self.features:
            raise ValueError(
                f"outputs = {self.targets} must be among the features = {self.features}; observe the targets"
            )
        self.one_series()
        return self

    def one_series(self) -> TemporalFusionTransformerConfig:
        """The network of one neuron: its own past, what all are told, the time step and its number."""
        told = self.features - self.targets
        same = self.model_dump(exclude={"name", "features", "outputs"})
        return TemporalFusionTransformerConfig(
            **same,
            features=told + 3,
            outputs=1,
            known=(told + 1,),
            static=(told + 2,),
            categories=((told + 2, self.targets),),
        )

    def build(self, *, rngs: nnx.Rngs) -> "NeuronTFT":
        """Build the model with weights of its own."""
        return NeuronTFT(self, rngs=rngs)


class NeuronTFT(nnx.Module):
    r"""Forecast every neuron from its own past, with one `TemporalFusionTransformer` for all.

    To that network a neuron is a series. Its static variable is the neuron's number; the time step, \(k / N\) for
    \(k\) steps after the last of the \(N\) observed, is known ahead; its own values, and columns that are not
    predicted, are the past. No neuron is told of another one, except through such columns.

    Besides quantiles and their median, a prediction holds in `diagnostics` the network's, with an axis `neuron` after
    the batch, such as `attention [batch neuron horizon time]`.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Kulkarni et al., Neuro-Inspired Computational Elements Conference (2023), for the variables.
        Lim B., Arık S. Ö., Loeff N. & Pfister T., Int. J. Forecasting 37 (2021) 1748, for the network.
    """

    def __init__(self, config: NeuronTFTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.network = TemporalFusionTransformer(config.one_series(), rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons of all neurons at once.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The quantiles, their median as the mean, their levels, and the weights of variables and times.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        config = self.config
        check_inputs(config, batch.inputs)
        count, neurons, length = batch.inputs.shape[0], config.targets, config.length
        dtype = batch.inputs.dtype
        own = jnp.moveaxis(batch.inputs[..., :neurons], 2, 1)[..., None]
        told = batch.inputs[:, None, :, neurons:]
        steps = jnp.arange(1 - length, config.horizons + 1, dtype=dtype)[:, None] / length
        number = jnp.arange(neurons, dtype=dtype)[:, None, None]
        shape = (count, neurons, length)
        parts = [own, told, steps[None, None, :length], number[None]]
        inputs = jnp.concatenate([jnp.broadcast_to(p, (*shape, p.shape[-1])) for p in parts], -1)
        future = jnp.broadcast_to(steps[None, length:], (count * neurons, config.horizons, 1))
        series = Batch(inputs.reshape(-1, length, inputs.shape[-1]), batch.targets, future)
        found = self.network(series, train=train)
        each = {name: x.reshape(count, neurons, *x.shape[1:]) for name, x in found.diagnostics.items()}
        assert found.quantiles is not None
        quantiles = _by_neuron(found.quantiles[:, :, 0], count)
        return Prediction(_by_neuron(found.mean, count)[..., 0], quantiles, each, found.levels)


def _by_neuron(values: Array, count: int) -> Array:
    """`[batch*neuron, horizon, value]` as `[batch, horizon, neuron, value]`."""
    return jnp.moveaxis(values.reshape(count, -1, *values.shape[1:]), 1, 2)
