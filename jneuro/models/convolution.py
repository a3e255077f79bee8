"""Strided and transposed convolutions over time, with "same" padding as TensorFlow defines it.

On a CPU, XLA's convolutions are ten times slower than its matrix products. Here the samples of one stride form a
block, so that a convolution of any stride is one of stride 1 over blocks: shifted views of the blocks laid side by
side, then one matrix product. The transposed convolution, the input gradient of the other, is a matrix product, then
a sum of shifted blocks. Where there is enough to compute, an algebraic identity spares a quarter of the
multiplications, and once more a quarter of the rest.

Kernels are `[kernel, in, out]` for `convolve` and `[kernel, out, in]` for `convolve_transposed`, as in Keras. For both
layers the weight of PyTorch's `nn.Conv1d` or `nn.ConvTranspose1d` is `kernel.transpose(2, 1, 0)`.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from jneuro.core.devices import route
from jneuro.core.types import Array, Float
from jneuro.models.layers import starts_at, xavier_uniform

__all__ = ["Convolution", "Formulation", "TransposedConvolution", "convolve", "convolve_transposed"]

Formulation = Literal["auto", "gemm", "lax", "stuffed"]
"""Matrix products; XLA's convolutions; these without dilation, zeros between the samples in its place; or what suits.

"auto" is XLA's on a GPU or TPU, zeros on Metal, which knows no dilation (`jneuro.core.devices`), products on a CPU.
"""


class _Geometry(NamedTuple):
    """How a long and a short sequence lie: short sample `t` covers long samples from `t·stride − left`."""

    stride: int
    left: int
    long: int
    short: int


def _geometry(kernel: int, stride: int, long: int) -> _Geometry:
    short = -(-long // stride)
    return _Geometry(stride, max((short - 1) * stride + kernel - long, 0) // 2, long, short)


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
    _check(inputs, kernel, 1)
    geometry = _geometry(kernel.shape[0], stride, inputs.shape[1])
    return _shorten(*_promote(inputs, kernel), geometry, formulation)


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
    _check(inputs, kernel, 2)
    geometry = _geometry(kernel.shape[0], stride, inputs.shape[1] * stride)
    return _lengthen(*_promote(inputs, kernel), geometry, formulation)


def _check(inputs, kernel, axis):
    if inputs.ndim != 3 or kernel.ndim != 3 or inputs.shape[2] != kernel.shape[axis]:
        raise ValueError(
            f"inputs [batch, time, channel] of shape {inputs.shape} need a kernel of three axes with as many channels"
            f" along axis {axis}, got shape {kernel.shape}"
        )


def _promote(*arrays, dtype=None):
    dtype = dtype or jnp.result_type(*arrays)
    return tuple(a.astype(dtype) for a in arrays)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shorten(long, kernel, geometry, formulation):
    """The convolution."""
    return _choose(formulation, _shorten_gemm, _shorten_lax, _shorten_lax, geometry, long, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _lengthen(short, kernel, geometry, formulation):
    """The transposed convolution."""
    return _choose(formulation, _lengthen_gemm, _lengthen_lax, _lengthen_stuffed, geometry, short, kernel)


def _kernel_gradient(long, short, kernel, geometry, formulation):
    """What kernel joins the two sequences: the gradient of `Σ short · shorten(long)`."""
    ways = _kernel_gradient_gemm, _kernel_gradient_lax, _kernel_gradient_stuffed
    return _choose(formulation, *ways, geometry, long, short, kernel)


def _shorten_reverse(geometry, formulation, residuals, d_short):
    long, kernel = residuals
    d_long = _lengthen(d_short, kernel, geometry, formulation)
    return d_long, _kernel_gradient(long, d_short, kernel, geometry, formulation)


def _lengthen_reverse(geometry, formulation, residuals, d_long):
    short, kernel = residuals
    d_short = _shorten(d_long, kernel, geometry, formulation)
    return d_short, _kernel_gradient(d_long, short, kernel, geometry, formulation)


_shorten.defvjp(lambda *a: (_shorten(*a), a[:2]), _shorten_reverse)
_lengthen.defvjp(lambda *a: (_lengthen(*a), a[:2]), _lengthen_reverse)


def _choose(formulation, gemm, xla, stuffed, geometry, *operands):
    return {"gemm": gemm, "lax": xla, "stuffed": stuffed}[_resolved(formulation)](geometry, *operands)


def _resolved(formulation: Formulation) -> Formulation:
    """What "auto" is here."""
    if formulation != "auto":
        return formulation
    usual = "lax" if jax.default_backend() in ("gpu", "tpu") else "gemm"
    return "stuffed" if route() == "metal" else usual


def _shorten_lax(geometry, long, kernel):
    stride, left, length, count = geometry
    padding = (left, (count - 1) * stride + kernel.shape[0] - left - length)
    return lax.conv_general_dilated(long, kernel, (stride,), [padding], dimension_numbers=("NWC", "WIO", "NWC"))


def _lengthen_lax(geometry, short, kernel):
    long = jax.ShapeDtypeStruct((short.shape[0], geometry.long, kernel.shape[1]), short.dtype)
    return jax.linear_transpose(lambda long: _shorten_lax(geometry, long, kernel), long)(short)[0]


def _kernel_gradient_lax(geometry, long, short, kernel):
    return jax.linear_transpose(lambda kernel: _shorten_lax(geometry, long, kernel), kernel)(short)[0]


def _stuffed(geometry, short):
    """The short sequence with zeros between its samples, as long as the last of them needs."""
    zeros = jnp.pad(short[:, :, None], ((0, 0), (0, 0), (0, geometry.stride - 1), (0, 0)))
    return zeros.reshape(short.shape[0], -1, short.shape[2])[:, : (geometry.short - 1) * geometry.stride + 1]


def _lengthen_stuffed(geometry, short, kernel):
    stuffed, taps = _stuffed(geometry, short), kernel.shape[0]
    padding = taps - 1 - geometry.left, geometry.long - stuffed.shape[1] + geometry.left
    flipped = kernel[::-1].swapaxes(1, 2)
    return lax.conv_general_dilated(stuffed, flipped, (1,), [padding], dimension_numbers=("NWC", "WIO", "NWC"))


def _kernel_gradient_stuffed(geometry, long, short, kernel):
    # The batch is what is summed over: it takes the place of the channels.
    stuffed, taps = _stuffed(geometry, short), kernel.shape[0]
    padding = geometry.left, stuffed.shape[1] + taps - 1 - geometry.left - geometry.long
    layout = lax.conv_dimension_numbers(long.shape, stuffed.shape, ("CWN", "IWO", "WNC"))
    return lax.conv_general_dilated(long, stuffed, (1,), [padding], dimension_numbers=layout)


def _shorten_gemm(geometry, long, kernel):
    stride, left, length, count = geometry
    blocks = -(-kernel.shape[0] // stride)
    end = (count + blocks - 1) * stride
    long = jnp.pad(long, ((0, 0), (left, max(end - left - length, 0)), (0, 0)))[:, :end]
    kernel = jnp.pad(kernel, ((0, -kernel.shape[0] % stride), (0, 0), (0, 0)))
    matrices = kernel.reshape(blocks, -1, kernel.shape[2])
    levels = 0 if long.dtype.itemsize < 4 else 2
    return _correlate(long.reshape(long.shape[0], count + blocks - 1, -1), matrices, levels)


def _lengthen_gemm(geometry, short, kernel):
    long = jnp.zeros((short.shape[0], geometry.long, kernel.shape[1]), short.dtype)
    return jax.vjp(lambda long: _shorten_gemm(geometry, long, kernel), long)[1](short)[0]


def _kernel_gradient_gemm(geometry, long, short, kernel):
    return jax.vjp(lambda kernel: _shorten_gemm(geometry, long, kernel), kernel)[1](short)[0]


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
    # Additions take the time of the products they save where there are few rows or channels.
    if not levels or blocks < 4 or blocks % 2 or count % 2 or batch * count < 256 or p * q < 4096:
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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _correlate_batch_last(x, w, left):
    """`y[:, t] = Σ_k w[k]ᵀ @ x[:, t + k − left]` as one matrix product."""
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


class Convolution(nnx.Module):
    """`convolve` with a learned kernel and bias.

    Args:
        features: channels in.
        filters: channels out.
        taps: width of the kernel.
        stride: input samples from one position to the next.
        bias: whether there is one.
        initialiser: of the kernel, with axes `[tap, in, out]`; the bias starts at 0.
        dtype: to compute in; None follows parameters and inputs.
        formulation: how it is computed.
        rngs: draws the kernel.
    """

    def __init__(
        self,
        features: int,
        filters: int,
        taps: int,
        stride: int,
        *,
        bias: bool = True,
        initialiser: Initializer = xavier_uniform,
        dtype: DTypeLike | None = None,
        formulation: Formulation = "auto",
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(initialiser(rngs.params(), (taps, features, filters), jnp.float32))
        self.bias = nnx.Param(starts_at(0, filters)) if bias else None
        self.stride, self.dtype = stride, dtype
        self.formulation: Formulation = formulation

    def __call__(self, inputs: Float[Array, "batch time channel"]) -> Float[Array, "batch position out"]:
        """Convolve; see `convolve`."""
        inputs, kernel = _promote(inputs, self.kernel[...], dtype=self.dtype)
        out = convolve(inputs, kernel, self.stride, self.formulation)
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)[None, None]

    def batch_last(self, inputs: Float[Array, "channel time batch"]) -> Float[Array, "out position batch"]:
        """Convolve sequences that lie with the batch last; with a stride of 1, without rearranging them on a CPU."""
        if self.stride > 1 or _resolved(self.formulation) != "gemm":
            return self(inputs.T).T
        inputs, kernel = _promote(inputs, self.kernel[...], dtype=self.dtype)
        out: Array = _correlate_batch_last(inputs, kernel, (len(kernel) - 1) // 2)  # pyright: ignore
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)[:, None, None]


class TransposedConvolution(nnx.Module):
    """`convolve_transposed` with a learned kernel `[tap, out, in]` and bias.

    Args:
        features: channels in.
        filters: channels out.
        taps: width of the kernel.
        stride: output samples for each input sample.
        bias: whether there is one.
        initialiser: of the kernel, given the axes `[tap, in, out]`; the bias starts at 0.
        dtype: to compute in; None follows parameters and inputs.
        formulation: how it is computed.
        rngs: draws the kernel.
    """

    def __init__(
        self,
        features: int,
        filters: int,
        taps: int,
        stride: int,
        *,
        bias: bool = True,
        initialiser: Initializer = xavier_uniform,
        dtype: DTypeLike | None = None,
        formulation: Formulation = "auto",
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(initialiser(rngs.params(), (taps, features, filters), jnp.float32).swapaxes(1, 2))
        self.bias = nnx.Param(starts_at(0, filters)) if bias else None
        self.stride, self.dtype = stride, dtype
        self.formulation: Formulation = formulation

    def __call__(self, inputs: Float[Array, "batch position channel"]) -> Float[Array, "batch time out"]:
        """Convolve; see `convolve_transposed`."""
        inputs, kernel = _promote(inputs, self.kernel[...], dtype=self.dtype)
        out = convolve_transposed(inputs, kernel, self.stride, self.formulation)
        return out if self.bias is None else out + self.bias[...].astype(out.dtype)[None, None]
