"""The LSTM: one fast recurrence with its own reverse pass, and layers with PyTorch's parameters.

The gates stand in the order i, f, g, o, and every layer has two bias vectors, as in PyTorch: the effective bias then
takes two optimiser steps at a time, without which training trajectories would not agree.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from jneuro.core.devices import scan
from jneuro.core.types import Array, Float
from jneuro.models.cudnn import LSTMState, LSTMWeights, cudnn_applies, cudnn_lstm
from jneuro.models.layers import INITIALISERS, InitialiserName, dropout_layer, starts_at

__all__ = ["LSTM", "Backend", "Gates", "LSTMLayer", "lstm"]

Backend = Literal["auto", "scan", "cudnn"]
"""What runs an LSTM: cuDNN's, our scan, or whichever suits the device and the numbers."""


class Gates(NamedTuple):
    """The gates of one layer, at every time.

    Attributes:
        input: how much of what is new is taken in.
        forget: how much of the cell's state stays.
        output: how much of the cell's state is shown.
    """

    input: Float[Array, "batch time hidden"]
    forget: Float[Array, "batch time hidden"]
    output: Float[Array, "batch time hidden"]


def lstm(
    weight_ih: Float[Array, "feature 4*hidden"],
    weight_hh: Float[Array, "hidden 4*hidden"],
    bias: Float[Array, " 4*hidden"],
    inputs: Float[Array, "batch time feature"],
    initial: LSTMState | None = None,
    *,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "batch time hidden"], LSTMState]:
    """Run one LSTM layer over time.

    With σ the logistic function, at every time step

        (i, f, g, o) = inputs @ weight_ih + h @ weight_hh + bias
        c ← σ(f)·c + σ(i)·tanh(g)
        h ← σ(o)·tanh(c)

    The reverse pass is written by hand: one scan emits the gradients of the gates, then one matrix product over all
    times gives those of the weights. Forward mode (`jax.jvp`, `jax.jacfwd`) therefore raises `TypeError`. Works under
    `jit` and `vmap` in any floating-point precision.

    Args:
        weight_ih: from the inputs to the four gates, side by side.
        weight_hh: from the hidden state to the gates.
        bias: of the gates.
        inputs: the sequence.
        initial: state before the first step; zeros if omitted.
        dtype: of the operands of all matrix products, such as `bfloat16`; they accumulate, and all else is computed,
            in the arguments' own, which None takes throughout.

    Returns:
        The hidden state after every step, and the state after the last.

    Raises:
        ValueError: if the shapes do not fit together.

    References:
        Hochreiter & Schmidhuber 1997, Neural Computation 9:1735; forget gate: Gers et al. 2000, ibid. 12:2451.
    """
    outputs, state = _batch_last(weight_ih, weight_hh, bias, inputs.transpose(1, 2, 0), initial, dtype)
    return outputs.transpose(2, 0, 1), state


# Inside, the batch is the last axis: `weight.T @ h` then reads the large operand as it lies, where `h @ weight` has it
# rearranged at every step, a tenth of the step's time on a CPU.


def _batch_last(weight_ih, weight_hh, bias, inputs, initial, dtype):
    """`lstm` of inputs `[time, feature, batch]`; returns all hidden states like them, and the state as `lstm` does."""
    hidden = weight_hh.shape[0]
    features = inputs.shape[1]
    expected = (features, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)
    if (weight_ih.shape, weight_hh.shape, bias.shape) != expected:
        raise ValueError(
            f"inputs with {features} features and weight_hh of {hidden} rows need weights and bias of shapes"
            f" {expected}, got {(weight_ih.shape, weight_hh.shape, bias.shape)}"
        )
    h, c = _initial(initial, (inputs.shape[2], hidden), inputs.dtype)
    arguments = weight_ih, weight_hh, bias, inputs, h.T, c.T
    common = jnp.result_type(*arguments)
    outputs, h, c = _recurrence(dtype or common, *(a.astype(common) for a in arguments))  # pyright: ignore
    return outputs, (h.T, c.T)


def _initial(initial: LSTMState | None, shape: tuple[int, int], dtype: DTypeLike) -> LSTMState:
    """The state to start from, checked; zeros for None."""
    h, c = (jnp.zeros(shape, dtype),) * 2 if initial is None else initial
    if h.shape != shape or c.shape != shape:
        raise ValueError(f"the initial state must be two arrays of shape {shape}, got {h.shape}, {c.shape}")
    return h, c


def _projection(weight: Array, batch: int, dtype: DTypeLike) -> Callable[[Array], Array]:
    """The map from `[row, batch]` to `weight.T @ x`, `[column, batch]`."""
    product = functools.partial(lax.dot, preferred_element_type=weight.dtype)
    weight = weight.astype(dtype)
    if batch == 1:  # a single row costs nothing to transpose; any more, and XLA finds a slow product
        return lambda x: product(x.T.astype(dtype), weight).T
    weight = weight.T  # transposed inside the scan, it costs a third of the step on a CPU
    return lambda x: product(weight, x.astype(dtype))


def _scan(dtype, weight_ih, weight_hh, bias, inputs, h, c, *, save):
    """Run over time; with `save`, stack also what the reverse pass reads."""
    # σ(x) = tanh(x/2)/2 + 1/2, so halving the columns of i, f and o leaves a single tanh over all gates.
    half = jnp.repeat(jnp.asarray([0.5, 0.5, 1, 0.5], bias.dtype), len(h))
    read, recall = (_projection(w * half[None], h.shape[1], dtype) for w in (weight_ih, weight_hh))
    bias = (bias * half)[:, None]

    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(jnp.tanh(read(x) + recall(h) + bias), 4)
        i, f, o = 0.5 * i + 0.5, 0.5 * f + 0.5, 0.5 * o + 0.5
        c_next = f * c + i * g
        tanh_c = jnp.tanh(c_next)
        h_next = o * tanh_c
        if not save:
            return (h_next, c_next), h_next
        rows = jnp.concatenate([x.T, h.T], axis=1).astype(dtype)
        slopes = g * i * (1 - i), c * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)
        return (h_next, c_next), (h_next, rows, o * (1 - tanh_c**2), f, *slopes)

    return scan(step, (h, c), inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(dtype, weight_ih, weight_hh, bias, inputs, h, c):
    """Return all hidden states `[time, hidden, batch]`, then the last hidden and the last cell state."""
    (h, c), outputs = _scan(dtype, weight_ih, weight_hh, bias, inputs, h, c, save=False)
    return outputs, h, c


def _recurrence_forward(dtype, weight_ih, weight_hh, bias, inputs, h, c):
    (h, c), (outputs, *saved) = _scan(dtype, weight_ih, weight_hh, bias, inputs, h, c, save=True)
    return (outputs, h, c), (weight_ih, weight_hh, saved)


def _recurrence_reverse(dtype, residuals, cotangents):
    weight_ih, weight_hh, (rows, *slopes) = residuals
    d_outputs, d_h, d_c = cotangents
    to_input, to_hidden = (_projection(w.T, d_h.shape[1], dtype) for w in (weight_ih, weight_hh))

    def step(carry, frame):
        d_h, d_c, d_bias = carry
        d_output, dc_dh, forget, *slopes = frame
        d_h += d_output
        d_c += d_h * dc_dh
        d_gates = jnp.concatenate([d * slope for d, slope in zip((d_c, d_c, d_c, d_h), slopes, strict=True)])
        carry = to_hidden(d_gates), d_c * forget, d_bias + d_gates
        return carry, (d_gates.T.astype(dtype), to_input(d_gates))

    d_bias = jnp.zeros((weight_hh.shape[1], d_h.shape[1]), d_h.dtype)
    carry, (d_gates, d_inputs) = scan(step, (d_h, d_c, d_bias), (d_outputs, *slopes), reverse=True)
    d_h, d_c, d_bias = carry
    rows, d_gates = (a.reshape(-1, a.shape[-1]) for a in (rows, d_gates))
    d_weight = lax.dot(rows.T, d_gates, preferred_element_type=d_h.dtype)
    d_weight_ih, d_weight_hh = jnp.split(d_weight, [len(weight_ih)])
    return d_weight_ih, d_weight_hh, d_bias.sum(1), d_inputs, d_h, d_c


_recurrence.defvjp(_recurrence_forward, _recurrence_reverse)


class LSTMLayer(nnx.Module):
    """One LSTM layer with PyTorch's parameters, transposed: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.

    Each weight is drawn for all four gates together; biases start at 0, the forget quarter of `bias_ih` at
    `forget_bias`.

    Args:
        features: size of the input at each time.
        hidden: size of the hidden state.
        input_init: how `weight_ih` starts.
        recurrent_init: how `weight_hh` starts.
        forget_bias: where the forget gates' bias starts.
        dtype: of the matrix products' operands; see `lstm`.
        backend: cuDNN's LSTM (single precision, on CUDA), our scan, or cuDNN's where it can run on the one device.
        rngs: draws the weights.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        *,
        input_init: InitialiserName = "xavier_uniform",
        recurrent_init: InitialiserName = "orthogonal",
        forget_bias: float = 1.0,
        dtype: DTypeLike | None = None,
        backend: Backend = "auto",
        rngs: nnx.Rngs,
    ):
        self.weight_ih = nnx.Param(INITIALISERS[input_init](rngs.params(), (features, 4 * hidden), jnp.float32))
        self.weight_hh = nnx.Param(INITIALISERS[recurrent_init](rngs.params(), (hidden, 4 * hidden), jnp.float32))
        self.bias_ih = nnx.Param(jnp.asarray(np.repeat(np.asarray([0, forget_bias, 0, 0], np.float32), hidden)))
        self.bias_hh = nnx.Param(starts_at(0, 4 * hidden))
        self.dtype = dtype
        self.backend: Backend = backend

    @property
    def weights(self) -> LSTMWeights:
        """The parameters, in PyTorch's order."""
        return self.weight_ih[...], self.weight_hh[...], self.bias_ih[...], self.bias_hh[...]

    def __call__(
        self, inputs: Float[Array, "batch time feature"], initial: LSTMState | None = None
    ) -> tuple[Float[Array, "batch time hidden"], LSTMState]:
        """Run the layer; see `lstm`."""
        if _use_cudnn(self.backend, [self], inputs, [initial]):
            outputs, (state,) = _run_cudnn([self], inputs, [initial])
            return outputs, state
        outputs, state = self.scan(inputs.transpose(1, 2, 0), initial)
        return outputs.transpose(2, 0, 1), state

    def scan(
        self, inputs: Float[Array, "time feature batch"], initial: LSTMState | None = None
    ) -> tuple[Float[Array, "time hidden batch"], LSTMState]:
        """Run the layer as our scan, on sequences as that has them.

        Args:
            inputs: the sequence.
            initial: state before the first step; zeros if omitted.

        Returns:
            The hidden state after every step, and the state after the last.
        """
        weight_ih, weight_hh, bias_ih, bias_hh = self.weights
        return _batch_last(weight_ih, weight_hh, bias_ih + bias_hh, inputs, initial, self.dtype)


def _use_cudnn(
    backend: Backend, layers: Sequence[LSTMLayer], inputs: Array, initial: Sequence[LSTMState | None]
) -> bool:
    """Whether cuDNN shall run these layers."""
    arrays = inputs, [layer.weights for layer in layers], initial
    return backend != "scan" and cudnn_applies(arrays, layers[0].dtype, required=backend == "cudnn")


def _run_cudnn(layers: Sequence[LSTMLayer], inputs: Array, initial: Sequence[LSTMState | None]):
    states = [
        _initial(s, (len(inputs), len(layer.weight_hh[...])), inputs.dtype)
        for layer, s in zip(layers, initial, strict=True)
    ]
    return cudnn_lstm([layer.weights for layer in layers], inputs, states)


class LSTM(nnx.Module):
    """Stacked LSTM layers with dropout between them.

    Args:
        features: size of the input at each time.
        hidden: size of every layer's hidden state.
        layers: number of layers.
        dropout: probability that a value passed from one layer to the next is dropped in training.
        input_init: how the weights from the inputs start.
        recurrent_init: how the weights from the hidden states start.
        forget_bias: where the forget gates' bias starts.
        dtype: of the matrix products' operands; see `lstm`.
        backend: as of `LSTMLayer`.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int,
        *,
        dropout: float = 0.0,
        input_init: InitialiserName = "xavier_uniform",
        recurrent_init: InitialiserName = "orthogonal",
        forget_bias: float = 1.0,
        dtype: DTypeLike | None = None,
        backend: Backend = "auto",
        rngs: nnx.Rngs,
    ):
        build = functools.partial(
            LSTMLayer,
            hidden=hidden,
            input_init=input_init,
            recurrent_init=recurrent_init,
            forget_bias=forget_bias,
            dtype=dtype,
            backend=backend,
            rngs=rngs,
        )
        self.layers = nnx.List([build(features if k == 0 else hidden) for k in range(layers)])
        self.dropout = dropout_layer(dropout, rngs=rngs)
        self.backend: Backend = backend

    def gates(self, inputs: Float[Array, "batch time feature"]) -> list[Gates]:
        """The gates of all layers, without dropout.

        Args:
            inputs: what the first layer reads.

        Returns:
            The gates, layer by layer.
        """
        found, x = [], inputs
        for layer in self.layers:
            weight_ih, weight_hh, bias_ih, bias_hh = layer.weights
            states, _ = layer(x)
            before = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))
            i, f, _, o = jnp.split(x @ weight_ih + before @ weight_hh + (bias_ih + bias_hh)[None, None], 4, axis=-1)
            found.append(Gates(*map(jax.nn.sigmoid, (i, f, o))))
            x = states
        return found

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
            ValueError: if there is not one initial state for each layer, a shape does not fit, or cuDNN is demanded
                where it cannot run.
        """
        outputs, states = self.batch_last(inputs.transpose(1, 2, 0), initial, train=train)
        return outputs.transpose(2, 0, 1), states

    def batch_last(
        self,
        inputs: Float[Array, "time feature batch"],
        initial: Sequence[LSTMState] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "time hidden batch"], tuple[LSTMState, ...]]:
        """Run all layers on sequences that lie with the batch last, as our scan has them; see `__call__`."""
        if initial is not None and len(initial) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers need as many initial states, got {len(initial)}")
        before = [None] * len(self.layers) if initial is None else initial
        x, dropping, states = inputs, train and self.dropout.rate > 0, []
        cudnn = _use_cudnn(self.backend, self.layers, inputs.transpose(2, 0, 1), before)
        if cudnn and not dropping:
            outputs, states = _run_cudnn(self.layers, inputs.transpose(2, 0, 1), before)
            return outputs.transpose(1, 2, 0), states
        # From layer to layer, the batch stays the last axis: each rearrangement takes a hundredth of a training step.
        for k, layer in enumerate(self.layers):
            if k:
                x = self.dropout(x, deterministic=not train, batch=2)
            if cudnn:
                outputs, state = layer(x.transpose(2, 0, 1), before[k])
                x = outputs.transpose(1, 2, 0)
            else:
                x, state = layer.scan(x, before[k])
            states.append(state)
        return x, tuple(states)
