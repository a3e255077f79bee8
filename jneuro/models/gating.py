"""Gates of the Temporal Fusion Transformer: how much of what a layer makes is added to what came in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.types import Array, Float
from jneuro.models.layers import INITIALISERS, compute_dtype, dropout_layer, layer_norm, linear, starts_at
from jneuro.models.tft_config import TemporalFusionTransformerConfig

__all__ = ["GateAddNorm", "GatedResidualNetwork", "ResampledNorm", "dense", "gated_linear", "interpolation"]


def dense(
    config: TemporalFusionTransformerConfig, inputs: int, outputs: int, *, use_bias: bool = True, rngs: nnx.Rngs
) -> nnx.Linear:
    """Make a linear layer as the configuration says.

    Args:
        config: the model's.
        inputs: size of what goes in.
        outputs: size of what comes out.
        use_bias: whether a bias is added; it starts at zero.
        rngs: draws the weights (`params`).

    Returns:
        The layer.
    """
    init, dtype = INITIALISERS[config.kernel_init], compute_dtype(config.precision)
    return linear(inputs, outputs, initialiser=init, use_bias=use_bias, dtype=dtype, rngs=rngs)


def gated_linear(x: Float[Array, "*any two_hidden"]) -> Float[Array, "*any hidden"]:
    """The first half of the last axis, times the logistic function of the second half."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


class GateAddNorm(nnx.Module):
    """LayerNorm(skip + GLU(dropout(x))), with GLU(x) = (W₁x + b₁) ⊙ σ(W₂x + b₂); both maps are the one layer `fc`.

    Args:
        config: the model's.
        inputs: size of what is gated.
        outputs: size of what it is added to.
        dropout: probability of dropping a value; the configuration's if omitted.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(
        self,
        config: TemporalFusionTransformerConfig,
        inputs: int,
        outputs: int,
        *,
        dropout: float | None = None,
        rngs: nnx.Rngs,
    ):
        self.dropout = dropout_layer(config.dropout if dropout is None else dropout, rngs=rngs)
        self.fc = dense(config, inputs, 2 * outputs, rngs=rngs)
        self.norm = layer_norm(outputs, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*any inputs"], skip: Float[Array, "*any outputs"], *, train: bool
    ) -> Float[Array, "*any outputs"]:
        """Gate `x` and add it to `skip`."""
        return self.norm(skip + gated_linear(self.fc(self.dropout(x, deterministic=not train))))


class GatedResidualNetwork(nnx.Module):
    """A small network that its gate can skip.

        GRN(x, c) = LayerNorm(x + GLU(dropout(W₂ ELU(W₁x + W_c c + b₁) + b₂)))

    Args:
        config: the model's.
        inputs: size of x.
        hidden: size within.
        outputs: size of what comes out; where it is not that of x, call `finish` with something of that size.
        context: whether there is a c.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 2 to 5.
    """

    def __init__(
        self,
        config: TemporalFusionTransformerConfig,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        context: bool = False,
        rngs: nnx.Rngs,
    ):
        self.fc1 = dense(config, inputs, hidden, rngs=rngs)
        self.context = dense(config, config.hidden, hidden, use_bias=False, rngs=rngs) if context else None
        self.fc2 = dense(config, hidden, hidden, rngs=rngs)
        self.gate = GateAddNorm(config, hidden, outputs, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch *time hidden"], context: Float[Array, "batch hidden"] | None = None, *, train: bool
    ) -> Float[Array, "batch *time hidden"]:
        """Run the network; one context serves all times."""
        return self.finish(self.fc1(x), x, context, train=train)

    def finish(
        self,
        first: Float[Array, "batch *time inner"],
        skip: Float[Array, "batch *time outputs"],
        context: Float[Array, "batch hidden"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "batch *time outputs"]:
        """Run what comes after the first layer."""
        if self.context is not None and context is not None:
            first = first + self.context(context)[:, None]
        return self.gate(self.fc2(jax.nn.elu(first)), skip, train=train)


class ResampledNorm(nnx.Module):
    """pytorch-forecasting's skip between sizes: LayerNorm(2σ(mask) ⊙ x), where x was interpolated to the new size.

    Args:
        outputs: the new size.
        rngs: required by Flax; nothing is drawn.
    """

    def __init__(self, outputs: int, *, rngs: nnx.Rngs):
        self.mask = nnx.Param(starts_at(0, outputs))
        self.norm = layer_norm(outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time outputs"]) -> Float[Array, "batch time outputs"]:
        """Weigh and normalise."""
        return self.norm(x * (2 * jax.nn.sigmoid(self.mask[...]))[None, None])


@functools.cache
def interpolation(inputs: int, outputs: int) -> np.ndarray:
    """The matrix that interpolates linearly from one number of equidistant points to another, ends to ends.

    Args:
        inputs: points given.
        outputs: points wanted.

    Returns:
        A matrix `[inputs, outputs]`; the identity where they are equal.
    """
    wanted = np.linspace(0, inputs - 1, outputs)
    return np.maximum(1 - np.abs(wanted[None] - np.arange(inputs)[:, None]), 0)
