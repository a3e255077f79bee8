"""The LSTM: one fast recurrence with its own reverse pass, and layers with PyTorch's parameters.

The gates stand in the order i, f, g, o, and every layer has two bias vectors, as in PyTorch: the effective bias then
takes two optimiser steps at a time, without which training trajectories would not agree.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import orthogonal

from jneuro._types import Array, Float
from jneuro.models.layers import dropout_layer, xavier_uniform

__all__ = ["LSTM", "LSTMLayer", "LSTMState", "lstm"]

LSTMState = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]
"""Hidden and cell state."""


def lstm(
    weight_ih: Float[Array, "feature 4*hidden"],
    weight_hh: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, " 4*hidden"],
    inputs: Float[Array, "batch time feature"],
    initial: LSTMState | None = None,
) -> tuple[Float[Array, "batch time hidden"], LSTMState]:
    """Run one LSTM layer over time.

    With σ the logistic function, at every time step

        (i, f, g, o) = inputs @ weight_ih + h @ weight_hh + bias
        c ← σ(f)·c + σ(i)·tanh(g)
        h ← σ(o)·tanh(c)

    The reverse pass is written by hand: one scan emits the gradients of the gates, then one matrix product over all
    times gives each of the other gradients. Forward mode (`jax.jvp`, `jax.jacfwd`) therefore raises `TypeError`.
    Works under `jit` and `vmap` in any floating-point precision.

    Args:
        weight_ih: from the inputs to the four gates, side by side.
        weight_hh: from the hidden state to the gates.
        bias: of the gates.
        inputs: the sequence.
        initial: state before the first step; zeros if omitted.

    Returns:
        The hidden state after every step, and the state after the last.

    Raises:
        ValueError: if the shapes do not fit together.

    References:
        Hochreiter & Schmidhuber 1997, Neural Computation 9:1735; forget gate: Gers et al. 2000, ibid. 12:2451.
    """
    hidden = weight_hh.shape[0]
    batch, _, features = inputs.shape
    expected = (features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    if (weight_ih.shape, weight_hh.shape, bias.shape) != expected:
        raise ValueError(
            f"inputs with {features} features and weight_hh of {hidden} rows need weights and bias of shapes"
            f" {expected}, got {(weight_ih.shape, weight_hh.shape, bias.shape)}"
        )
    h, c = (jnp.zeros((batch, hidden), inputs.dtype),) * 2 if initial is None else initial
    if h.shape != (batch, hidden) or c.shape != (batch, hidden):
        raise ValueError(f"the initial state must be two arrays of shape {(batch, hidden)}, got {h.shape}, {c.shape}")
    arguments = weight_ih, weight_hh, bias, inputs.swapaxes(0, 1), h, c
    dtype = jnp.result_type(*arguments)
    outputs, h, c = _recurrence(*(a.astype(dtype) for a in arguments))
    return outputs.swapaxes(0, 1), (h, c)


def _scan(weight_ih, weight_hh, bias, inputs, h, c, *, save):
    """Run over time-major inputs; with `save`, stack also what the reverse pass reads."""
    # σ(x) = tanh(x/2)/2 + 1/2, so halving the columns of i, f and o leaves a single tanh over all gates.
    half = jnp.repeat(jnp.asarray([0.5, 0.5, 1, 0.5], bias.dtype), weight_hh.shape[0])
    drive = inputs @ (weight_ih * half[None]) + (bias * half)[None, None]
    weight_hh = weight_hh * half[None]

    def step(state, drive):
        h, c = state
        i, f, g, o = jnp.split(jnp.tanh(drive + h @ weight_hh), 4, axis=1)
        i, f, o = 0.5 * i + 0.5, 0.5 * f + 0.5, 0.5 * o + 0.5
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, i, f, g, o) if save else h

    return lax.scan(step, (h, c), drive)


@jax.custom_vjp
def _recurrence(weight_ih, weight_hh, bias, inputs, h, c):
    """Return all hidden states, time-major, then the last hidden and the last cell state."""
    (h, c), outputs = _scan(weight_ih, weight_hh, bias, inputs, h, c, save=False)
    return outputs, h, c


def _recurrence_forward(weight_ih, weight_hh, bias, inputs, h, c):
    (h_last, c_last), saved = _scan(weight_ih, weight_hh, bias, inputs, h, c, save=True)
    return (saved[0], h_last, c_last), (weight_ih, weight_hh, inputs, h, c, saved)


def _recurrence_reverse(residuals, cotangents):
    weight_ih, weight_hh, inputs, h, c, (outputs, cells, *gates) = residuals
    d_outputs, d_h, d_c = cotangents
    h_before = jnp.concatenate([h[None], outputs[:-1]])
    c_before = jnp.concatenate([c[None], cells[:-1]])
    weight_hh = weight_hh.T  # transposed inside the scan, it costs a third of the step on a CPU

    def step(carry, frame):
        d_h, d_c = carry
        d_output, c, tanh_c, i, f, g, o = frame
        d_h += d_output
        d_c += d_h * o * (1 - tanh_c**2)
        d_gates = d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2), d_h * tanh_c * o * (1 - o)
        d_gates = jnp.concatenate(d_gates, axis=1)
        return (d_gates @ weight_hh, d_c * f), d_gates

    (d_h, d_c), d_gates = lax.scan(step, (d_h, d_c), (d_outputs, c_before, jnp.tanh(cells), *gates), reverse=True)
    rows = d_gates.reshape(-1, d_gates.shape[-1])
    d_weight_ih = inputs.reshape(-1, inputs.shape[-1]).T @ rows
    d_weight_hh = h_before.reshape(-1, h.shape[-1]).T @ rows
    d_inputs = (rows @ weight_ih.T).reshape(inputs.shape)
    return d_weight_ih, d_weight_hh, rows.sum(0), d_inputs, d_h, d_c


_recurrence.defvjp(_recurrence_forward, _recurrence_reverse)


class LSTMLayer(nnx.Module):
    """One LSTM layer with PyTorch's parameters, transposed: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.

    `weight_ih` starts Xavier-uniform and `weight_hh` orthogonal, each drawn for all four gates together; biases start
    at 0, the forget quarter of `bias_ih` at 1.

    Args:
        features: size of the input at each time.
        hidden: size of the hidden state.
        rngs: draws the weights.
    """

    def __init__(self, features: int, hidden: int, *, rngs: nnx.Rngs):
        self.weight_ih = nnx.Param(xavier_uniform(rngs.params(), (features, 4 * hidden), jnp.float32))
        self.weight_hh = nnx.Param(orthogonal()(rngs.params(), (hidden, 4 * hidden), jnp.float32))
        self.bias_ih = nnx.Param(jnp.zeros(4 * hidden, jnp.float32).at[hidden : 2 * hidden].set(1))
        self.bias_hh = nnx.Param(jnp.zeros(4 * hidden, jnp.float32))

    def __call__(
        self, inputs: Float[Array, "batch time feature"], initial: LSTMState | None = None
    ) -> tuple[Float[Array, "batch time hidden"], LSTMState]:
        """Run the layer; see `lstm`."""
        return lstm(self.weight_ih[...], self.weight_hh[...], self.bias_ih[...] + self.bias_hh[...], inputs, initial)


class LSTM(nnx.Module):
    """Stacked LSTM layers with dropout between them.

    Args:
        features: size of the input at each time.
        hidden: size of every layer's hidden state.
        layers: number of layers.
        dropout: probability that a value passed from one layer to the next is dropped in training.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, features: int, hidden: int, layers: int, *, dropout: float = 0.0, rngs: nnx.Rngs):
        self.layers = nnx.List([LSTMLayer(features if k == 0 else hidden, hidden, rngs=rngs) for k in range(layers)])
        self.dropout = dropout_layer(dropout, rngs=rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch time feature"],
        initial: Sequence[LSTMState] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "batch time hidden"], tuple[LSTMState, ...]]:
        """Run all layers.

        Args:
            inputs: the sequence.
            initial: each layer's state before the first step; zeros if omitted.
            train: whether to drop values between layers.

        Returns:
            The last layer's hidden state after every step, and each layer's state after the last step.

        Raises:
            ValueError: if there is not one initial state for each layer, or a shape does not fit.
        """
        if initial is not None and len(initial) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers need as many initial states, got {len(initial)}")
        states = []
        for k, layer in enumerate(self.layers):
            if k:
                inputs = self.dropout(inputs, deterministic=not train)
            inputs, state = layer(inputs, None if initial is None else initial[k])
            states.append(state)
        return inputs, tuple(states)
