"""The recurrence of the LSTM, its reverse pass by hand, and cuDNN's LSTM by way of `jax.experimental.rnn`.

The specification is the recurrence in `lstm`, differentiated by JAX. Gates stand in the order i, f, g, o, and every
layer has two bias vectors, as in PyTorch: the effective bias then takes two optimiser steps at a time, without which
training trajectories would not agree.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.experimental import rnn
from jax.typing import DTypeLike

from jneuro.core.devices import scan
from jneuro.core.types import Array, Float

__all__ = ["Backend", "LSTMState", "LSTMWeights", "lstm", "stacked_lstm"]

Backend = Literal["auto", "scan", "cudnn"]
"""What runs an LSTM: cuDNN's, our scan, or whichever suits the device and the numbers."""

LSTMState = tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]
"""Hidden and cell state."""

LSTMWeights = tuple[
    Float[Array, "feature 4*hidden"],
    Float[Array, "hidden 4*hidden"],
    Float[Array, " 4*hidden"],
    Float[Array, " 4*hidden"],
]
"""A layer's `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`, gates in the order i, f, g, o."""


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


def stacked_lstm(
    weights: Sequence[LSTMWeights],
    inputs: Float[Array, "time feature batch"],
    initial: Sequence[LSTMState | None],
    *,
    dtype: DTypeLike | None = None,
    backend: Backend = "auto",
) -> tuple[Float[Array, "time hidden batch"], tuple[LSTMState, ...]]:
    """Run LSTM layers one after the other, without dropout, on sequences that lie with the batch last.

    Args:
        weights: each layer's.
        inputs: the sequence.
        initial: each layer's state before the first step; zeros for None.
        dtype: of the matrix products' operands; see `lstm`.
        backend: cuDNN's (single precision, on CUDA), our scan, or cuDNN's where it can run on the one device.

    Returns:
        The last layer's hidden state after every step, and each layer's state after the last step.

    Raises:
        ValueError: if a shape does not fit, or cuDNN is demanded where it cannot run.
    """
    required = backend == "cudnn"
    if backend != "scan" and _cudnn_applies((inputs, weights, initial), dtype, required=required):
        shapes = [(inputs.shape[2], layer[1].shape[0]) for layer in weights]
        states = [_initial(s, shape, inputs.dtype) for s, shape in zip(initial, shapes, strict=True)]
        outputs, states = _cudnn_lstm(weights, inputs.transpose(2, 0, 1), states)
        return outputs.transpose(1, 2, 0), states
    # From layer to layer, the batch stays the last axis: each rearrangement takes a hundredth of a training step.
    outputs, states = inputs, []
    for (weight_ih, weight_hh, bias_ih, bias_hh), start in zip(weights, initial, strict=True):
        outputs, state = _batch_last(weight_ih, weight_hh, bias_ih + bias_hh, outputs, start, dtype)
        states.append(state)
    return outputs, tuple(states)


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


def _cudnn_applies(arrays: object, dtype: DTypeLike | None, *, required: bool) -> bool:
    """Decide, while tracing, whether cuDNN's LSTM can run, and where there is a choice, whether it should.

    It computes in single precision and only on CUDA. Of several devices that share a batch each would run all of it, so
    there it runs only if `required`; where it then cannot, `ValueError`. It is JAX's default backend that counts.
    """
    types = {jnp.dtype(a.dtype) for a in jax.tree.leaves(arrays)} | ({jnp.dtype(dtype)} if dtype else set())
    platform = jax.default_backend()
    reason = None
    if platform != "gpu" or "rocm" in jax.devices()[0].client.platform_version:
        reason = f"needs CUDA, and JAX computes on {platform!r}"
    elif types != {jnp.dtype(jnp.float32)}:
        reason = f"computes in float32 alone, and was given {', '.join(sorted(map(str, types)))}"
    if required and reason:
        raise ValueError(f"backend = 'cudnn' {reason}; choose 'auto', or 'scan', which runs everywhere")
    return reason is None and (required or jax.local_device_count() == 1)


def _cudnn_lstm(weights, inputs, initial):
    """Stacked layers on `[batch, time, feature]`, without dropout; under `vmap`, one member after the other."""
    h, c = (jnp.stack(states) for states in zip(*initial, strict=True))
    # All layers' matrices, transposed, then their biases.
    matrices = [matrix.T.reshape(-1) for layer in weights for matrix in layer[:2]]
    packed = jnp.concatenate([*matrices, *(bias for layer in weights for bias in layer[2:])])
    sizes = inputs.shape[-1], h.shape[-1], len(weights)
    outputs, h, c = _cudnn(sizes, inputs, h, c, packed)  # pyright: ignore
    return outputs, tuple(zip(h, c, strict=True))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cudnn(sizes, inputs, h, c, packed):
    """Outputs, last hidden and last cell states; sizes are of features and hidden state, and the number of layers."""
    return _cudnn_forward(sizes, inputs, h, c, packed)[0]


def _cudnn_forward(sizes, inputs, h, c, packed):
    features, hidden, layers = sizes

    @sequential_vmap  # JAX has no batching rule for cuDNN's call
    def forward(inputs, h, c, packed):
        lengths = jnp.full(len(inputs), inputs.shape[1], jnp.int32)
        return rnn.lstm_fwd(inputs, h, c, packed, lengths, features, hidden, layers, 0.0, False, None)

    return forward(inputs, h, c, packed)


def _cudnn_reverse(sizes, residuals, cotangents):
    features, hidden, layers = sizes

    @sequential_vmap
    def reverse(residuals, cotangents):
        return rnn.lstm_bwd(features, hidden, layers, 0.0, False, None, residuals, cotangents)[:4]

    return reverse(residuals, cotangents)


_cudnn.defvjp(_cudnn_forward, _cudnn_reverse)
