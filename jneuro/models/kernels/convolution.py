"""Strided and transposed convolutions over time, with "same" padding as TensorFlow defines it, and microbatches.

The specification is XLA's own convolution (`formulation="lax"`) and its transpose. On a CPU that is ten times slower
than XLA's matrix products. Here the samples of one stride form a block, so that a convolution of any stride is one of
stride 1 over blocks: shifted views of the blocks laid side by side, then one matrix product. The transposed
convolution, the input gradient of the other, is a matrix product, then a sum of shifted blocks. Where there is enough
to compute, an algebraic identity spares a quarter of the multiplications, and once more a quarter of the rest.

Kernels are `[tap, in, out]` for `convolve` and `[tap, out, in]` for `convolve_transposed`, as in Keras. For both the
weight of PyTorch's `nn.Conv1d` or `nn.ConvTranspose1d` is `kernel.transpose(2, 1, 0)`.

`in_microbatches` applies a layer to a few samples at a time, so that what it makes on the way stays in the cache.
"""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jneuro.core.devices import route
from jneuro.core.process import usable_cores
from jneuro.core.types import Array, Float

__all__ = [
    "Formulation",
    "convolve",
    "convolve_batch_last",
    "convolve_transposed",
    "in_microbatches",
    "microbatch",
    "resolved",
]

Formulation = Literal["auto", "gemm", "lax", "stuffed"]
"""Matrix products; XLA's convolutions; these without dilation, zeros between the samples in its place; or what suits.

"auto" is XLA's on a GPU or TPU, zeros on Metal, which knows no dilation (`jneuro.core.devices`), products on a CPU.
"""

_ROLES = ("long", "short", "kernel")


class _Geometry(NamedTuple):
    """How a long and a short sequence lie: short sample `t` covers `taps` long samples from `t·stride − left`."""

    taps: int
    stride: int
    left: int
    long: int
    short: int


def resolved(formulation: Formulation) -> Formulation:
    """What "auto" is on this device.

    Args:
        formulation: as configured.

    Returns:
        "gemm", "lax" or "stuffed".
    """
    if formulation != "auto":
        return formulation
    usual = "lax" if jax.default_backend() in ("gpu", "tpu") else "gemm"
    return "stuffed" if route() == "metal" else usual


def convolve(
    inputs: Float[Array, "batch time channel"],
    kernel: Float[Array, "tap channel out"],
    stride: int,
    formulation: Formulation = "auto",
) -> Float[Array, "batch position out"]:
    """Convolve over time: ⌈time / stride⌉ positions.

        out[t] = Σ_k inputs[t·stride + k − left] · kernel[k]
        left = ⌊max((positions − 1)·stride + taps − time, 0) / 2⌋

    Args:
        inputs: the sequence; zeros surround it.
        kernel: the weights.
        stride: input samples from one position to the next.
        formulation: how it is computed.

    Returns:
        The values at every position.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    return _apply("short", inputs, kernel, 1, stride, inputs.shape[1], formulation)


def convolve_transposed(
    inputs: Float[Array, "batch position channel"],
    kernel: Float[Array, "tap out channel"],
    stride: int,
    formulation: Formulation = "auto",
) -> Float[Array, "batch time out"]:
    """Transposed convolution: time = positions · stride, the input gradient of `convolve` with the same kernel.

        out[t·stride + k − left] += inputs[t] · kernel[k]ᵀ
        left = ⌊max(taps − stride, 0) / 2⌋

    Args:
        inputs: the sequence.
        kernel: the weights.
        stride: output samples for each input sample.
        formulation: how it is computed.

    Returns:
        The longer sequence.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    return _apply("long", inputs, kernel, 2, stride, inputs.shape[1] * stride, formulation)


def _apply(wanted, inputs, kernel, axis, stride, long, formulation):
    """Check the shapes, and compute in the wider of the two precisions."""
    if inputs.ndim != 3 or kernel.ndim != 3 or inputs.shape[2] != kernel.shape[axis]:
        raise ValueError(
            f"inputs [batch, time, channel] of shape {inputs.shape} need a kernel of three axes with as many channels"
            f" along axis {axis}, got shape {kernel.shape}"
        )
    dtype, taps, short = jnp.result_type(inputs, kernel), kernel.shape[0], -(-long // stride)
    geometry = _Geometry(taps, stride, max((short - 1) * stride + taps - long, 0) // 2, long, short)
    return _form(wanted, geometry, resolved(formulation), inputs.astype(dtype), kernel.astype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _form(wanted, geometry, formulation, one, other):
    """The derivative of `Σ short · convolve(long, kernel)` by one of its three arrays, which it is linear in.

    By "short" it is the convolution, by "long" the transposed one, by "kernel" the gradient of the weights; and the
    gradients of each of these are the other two.

    Args:
        wanted: one of `_ROLES`.
        geometry: of the sequences.
        formulation: how it is computed.
        one: the first of the other two, in the order of `_ROLES`.
        other: the second.
    """
    shorten = _shorten_gemm if formulation == "gemm" else _shorten_lax
    if wanted == "short":
        return shorten(geometry, one, other)
    if formulation == "stuffed":
        return (_lengthen_stuffed if wanted == "long" else _kernel_gradient_stuffed)(geometry, one, other)
    if wanted == "long":
        start = jnp.zeros((one.shape[0], geometry.long, other.shape[1]), one.dtype)
        linear, cotangent = partial(shorten, geometry, kernel=other), one
    else:
        start = jnp.zeros((geometry.taps, one.shape[2], other.shape[2]), one.dtype)
        linear, cotangent = partial(shorten, geometry, one), other
    pullback = jax.linear_transpose(linear, start) if formulation == "lax" else jax.vjp(linear, start)[1]
    return pullback(cotangent)[0]


def _form_reverse(wanted, geometry, formulation, residuals, cotangent):
    known = [role for role in _ROLES if role != wanted]
    arrays = dict(zip(known, residuals, strict=True)) | {wanted: cotangent}
    pairs = [[arrays[other] for other in _ROLES if other != role] for role in known]
    return tuple(_form(role, geometry, formulation, *pair) for role, pair in zip(known, pairs, strict=True))


_form.defvjp(lambda *a: (_form(*a), a[3:]), _form_reverse)


def _shorten_lax(geometry, long, kernel):
    taps, stride, left, length, count = geometry
    padding = (left, (count - 1) * stride + taps - left - length)
    return lax.conv_general_dilated(long, kernel, (stride,), [padding], dimension_numbers=("NWC", "WIO", "NWC"))


def _stuffed(geometry, short):
    """The short sequence with zeros between its samples, as long as the last of them needs."""
    zeros = jnp.pad(short[:, :, None], ((0, 0), (0, 0), (0, geometry.stride - 1), (0, 0)))
    return zeros.reshape(short.shape[0], -1, short.shape[2])[:, : (geometry.short - 1) * geometry.stride + 1]


def _lengthen_stuffed(geometry, short, kernel):
    stuffed = _stuffed(geometry, short)
    padding = geometry.taps - 1 - geometry.left, geometry.long - stuffed.shape[1] + geometry.left
    flipped = kernel[::-1].swapaxes(1, 2)
    return lax.conv_general_dilated(stuffed, flipped, (1,), [padding], dimension_numbers=("NWC", "WIO", "NWC"))


def _kernel_gradient_stuffed(geometry, long, short):
    # The batch is what is summed over: it takes the place of the channels.
    stuffed = _stuffed(geometry, short)
    padding = geometry.left, stuffed.shape[1] + geometry.taps - 1 - geometry.left - geometry.long
    layout = lax.conv_dimension_numbers(long.shape, stuffed.shape, ("CWN", "IWO", "WNC"))
    return lax.conv_general_dilated(long, stuffed, (1,), [padding], dimension_numbers=layout)


def _shorten_gemm(geometry, long, kernel):
    taps, stride, left, length, count = geometry
    blocks = -(-taps // stride)
    end = (count + blocks - 1) * stride
    long = jnp.pad(long, ((0, 0), (left, max(end - left - length, 0)), (0, 0)))[:, :end]
    kernel = jnp.pad(kernel, ((0, -taps % stride), (0, 0), (0, 0)))
    matrices = kernel.reshape(blocks, -1, kernel.shape[2])
    levels = 0 if long.dtype.itemsize < 4 else 2
    return _correlate(long.reshape(long.shape[0], count + blocks - 1, -1), matrices, levels)


def _correlate(x, w, levels):
    """`y[t] = Σ_j x[t + j] @ w[j]`, by three correlations of a quarter of the work where that pays.

    With subscripts e and o for even and odd rows, and x_e⁺ the even ones from the second on,

        y_e = w_e ∗ (x_e − x_o) + (w_e + w_o) ∗ x_o
        y_o = w_o ∗ (x_e⁺ − x_o) + (w_e + w_o) ∗ x_o

    (a fast FIR algorithm; Parker & Parhi, J. VLSI Signal Process. 17 (1997) 75.)
    """
    batch, rows, p = x.shape
    blocks, _, q = w.shape
    count = rows - blocks + 1
    # Additions take the time of the products they save where there are few rows or channels; a batch may be left open.
    if (
        not levels
        or not isinstance(batch, int)
        or blocks < 4
        or blocks % 2
        or count % 2
        or batch * count < 256
        or p * q < 4096
    ):
        return _product(x, w)
    pairs = jnp.pad(x, ((0, 0), (0, 1), (0, 0))).reshape(batch, -1, 2, p)
    even, odd = pairs[:, :, 0], pairs[:, :-1, 1]
    common = _correlate(odd, w[::2] + w[1::2], levels - 1)
    y_even = _correlate(even[:, :-1] - odd, w[::2], levels - 1) + common
    y_odd = _correlate(even[:, 1:] - odd, w[1::2], levels - 1) + common
    return jnp.stack([y_even, y_odd], axis=2).reshape(batch, count, q)


@jax.custom_vjp
def _product(x, w):
    """`y[t] = Σ_j x[t + j] @ w[j]` as one matrix product."""
    return (_frames(x, w.shape[0]) @ w.reshape(-1, w.shape[2])).reshape(x.shape[0], -1, w.shape[2])


def _product_reverse(residuals, d_y):
    x, w = residuals
    blocks, p, q = w.shape
    rows = d_y.reshape(-1, q)
    parts = (rows @ w.reshape(-1, q).T).reshape(*d_y.shape[:2], blocks, p)
    d_x = sum(jnp.pad(parts[:, :, j], ((0, 0), (j, blocks - 1 - j), (0, 0))) for j in range(blocks))
    # Without the barrier, XLA takes the transposition into the product, which then runs at a third of its speed.
    d_w = lax.optimization_barrier(rows.T @ _frames(x, blocks)).T
    return d_x, d_w.reshape(blocks, p, q)


_product.defvjp(lambda x, w: (_product(x, w), (x, w)), _product_reverse)


def _frames(x, blocks):
    """Views of the rows, each one row later, side by side: `[batch·count, blocks·channel]`."""
    count = x.shape[1] - blocks + 1
    return jnp.concatenate([x[:, j : j + count] for j in range(blocks)], axis=-1).reshape(-1, blocks * x.shape[2])


def convolve_batch_last(
    inputs: Float[Array, "channel time batch"], kernel: Float[Array, "tap channel out"]
) -> Float[Array, "out time batch"]:
    """`convolve` with a stride of 1 of sequences that lie with the batch last, as one matrix product.

    Args:
        inputs: the sequence; zeros surround it.
        kernel: the weights.

    Returns:
        The values at every time.
    """
    return _correlate_batch_last(inputs, kernel, (len(kernel) - 1) // 2)  # pyright: ignore


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate_batch_last(x, w, left):
    """`y[:, t] = Σ_k w[k]ᵀ @ x[:, t + k − left]`."""
    return jnp.tensordot(w.reshape(-1, w.shape[2]).T, _taps(x, len(w), left), 1)


def _correlate_batch_last_reverse(left, residuals, d_y):
    x, w = residuals
    taps = len(w)
    d_x = _correlate_batch_last(d_y, w[::-1].swapaxes(1, 2), taps - 1 - left)
    return d_x, jnp.tensordot(_taps(x, taps, left), d_y, ((1, 2), (1, 2))).reshape(w.shape)


_correlate_batch_last.defvjp(
    lambda x, w, left: (_correlate_batch_last(x, w, left), (x, w)), _correlate_batch_last_reverse
)


def _taps(x, taps, left):
    """What each tap sees, one below the other: `[tap·channel, time, batch]`."""
    padded = jnp.pad(x, ((0, 0), (left, taps - 1 - left), (0, 0)))
    return jnp.concatenate([padded[:, k : k + x.shape[1]] for k in range(taps)])


def microbatch(batch: int, rows: int) -> int:
    """How many samples to process at a time.

    On one CPU device, the divisor of the batch that comes closest to 640 rows of a matrix product on one core, and to
    5120 for each of several cores. Elsewhere the whole batch: accelerators want it, and over several CPU devices a loop
    would gather the samples that they share out.

    Args:
        batch: samples there are.
        rows: rows that one sample has in the matrix products.

    Returns:
        A divisor of `batch`.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or not isinstance(batch, int):
        return batch  # an export may leave it open
    cores = usable_cores()
    # 640 rows fill a core's second-level cache with what surrounds them; 5120 are worth sharing out.
    wanted = 640 if cores == 1 else 5120 * cores
    divisors = [size for size in range(1, batch + 1) if batch % size == 0]
    return min(divisors, key=lambda size: abs(log(size * rows / wanted)))


def in_microbatches(
    function: Callable[..., Float[Array, "batch *out"]], modules: Any, *inputs: Float[Array, "batch *in"], size: int
) -> Float[Array, "batch *out"]:
    """Compute `function(modules, *inputs)`, `size` samples at a time.

    The reverse pass runs over the same microbatches, sums the gradients of the parameters, and computes what it needs
    from the inputs again, which costs nothing where that is no matrix product: memory holds only the inputs.

    Args:
        function: must treat the samples independently, and close over no array.
        modules: its parameters, one or several `nnx.Module`; it must leave their state as it is.
        inputs: batch first.
        size: samples at a time, a divisor of the batch.

    Returns:
        What the function returns for the whole batch.
    """
    if size == inputs[0].shape[0]:
        return function(modules, *inputs)
    graph, state = nnx.split(modules)
    split = tuple(x.reshape(-1, size, *x.shape[1:]) for x in inputs)
    outputs: Array = _looped(lambda state, inputs: function(nnx.merge(graph, state), *inputs), state, split)  # pyright: ignore
    return outputs.reshape(-1, *outputs.shape[2:])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _looped(function, state, inputs):
    return lax.map(lambda inputs: function(state, inputs), inputs)


def _looped_reverse(function, residuals, cotangents):
    state, inputs = residuals

    def step(total, frame):
        d_state, d_inputs = jax.vjp(function, state, frame[0])[1](frame[1])
        return jax.tree.map(jnp.add, total, d_state), d_inputs

    return lax.scan(step, jax.tree.map(jnp.zeros_like, state), (inputs, cotangents))


_looped.defvjp(lambda function, *arguments: (_looped(function, *arguments), arguments), _looped_reverse)
