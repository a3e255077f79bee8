"""Convolutions as matrix products against XLA's own, in value and gradients, and the loop over microbatches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jneuro.models.kernels import convolution
from jneuro.models.kernels.convolution import convolve, convolve_transposed, in_microbatches, microbatch
from jneuro.models.layers import Convolution

BATCH = 3

# Taps, stride, length of the longer sequence, its channels, channels of the shorter one.
CASES = [
    (16, 2, 344, 64, 32),
    (16, 2, 160, 1, 6),
    (16, 2, 8, 5, 4),
    (5, 2, 37, 2, 3),
    (7, 3, 40, 3, 2),
    (3, 1, 9, 4, 2),
    (2, 5, 23, 3, 2),
]


def draw(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_close(actual, expected, rtol=1e-9):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol, rtol), actual, expected)


def value_and_gradients(function, inputs, kernel, cotangent):
    value, pullback = jax.vjp(function, inputs, kernel)
    return value, pullback(cotangent)


def sequences(case):
    """Kernel, and a long and a short sequence; then a long one of whole strides."""
    taps, stride, length, wide, narrow = case
    positions = -(-length // stride)
    shapes = (taps, wide, narrow), (BATCH, length, wide), (BATCH, positions, narrow), (BATCH, positions * stride, wide)
    return tuple(draw(shape, seed) for seed, shape in enumerate(shapes))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_xla_in_value_and_gradients(x64, case):
    stride = case[1]

    def xla(inputs, kernel):
        return lax.conv_general_dilated(inputs, kernel, (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    @jax.jit
    def compute(kernel, long, short, whole):
        expected = value_and_gradients(xla, long, kernel, short)
        # Keras and TensorFlow define the transposed convolution as the input gradient.
        transposed = jax.linear_transpose(lambda long: xla(long, kernel), whole)(short)[0]
        expected_transposed = transposed, (xla(whole, kernel), jax.vjp(xla, whole, kernel)[1](short)[1])
        actual = []
        for formulation in ("gemm", "lax", "stuffed"):
            forms = [
                functools.partial(f, stride=stride, formulation=formulation) for f in (convolve, convolve_transposed)
            ]
            actual.append(value_and_gradients(forms[0], long, kernel, short))
            actual.append(value_and_gradients(forms[1], short, kernel, whole))
        return actual, [expected, expected_transposed] * 3

    assert_close(*compute(*sequences(case)))


def test_transposed_equals_xla_s_own(x64):
    kernel, _, short, _ = sequences((16, 2, 20, 3, 4))
    axes = ("NWC", "WIO", "NWC")
    expected = lax.conv_transpose(short, kernel, (2,), "SAME", dimension_numbers=axes, transpose_kernel=True)
    assert_close(convolve_transposed(short, kernel, 2), expected)


def test_vmap_over_an_ensemble(x64):
    taps, wide, narrow = 16, 3, 4
    kernels, long, short = (
        draw((2, taps, wide, narrow), 0),
        draw((2, BATCH, 20, wide), 1),
        draw((2, BATCH, 10, narrow), 2),
    )
    member = functools.partial(value_and_gradients, functools.partial(convolve, stride=2))
    expected = jax.tree.map(lambda *m: np.stack(m), *(member(long[k], kernels[k], short[k]) for k in range(2)))
    assert_close(jax.jit(jax.vmap(member))(long, kernels, short), expected)


def test_gradients_keep_each_argument_s_dtype(x64):
    kernel, long, _, _ = sequences((5, 2, 12, 2, 3))
    grads = jax.grad(lambda *a: convolve(*a, 2).sum(), (0, 1))(long.astype(jnp.float32), kernel)
    assert [g.dtype for g in grads] == [jnp.float32, jnp.float64]


@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (4, 1), (5, 1), (3, 2)])
def test_the_batch_may_come_last(x64, taps, stride):
    layer = Convolution(3, 4, taps, stride, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4, dtype=jnp.float32)
    graph, state = nnx.split(layer)
    x = draw((BATCH, 10, 3), 0)
    cotangent = draw((BATCH, 10 // stride, 4), 1)

    def first(state, x):
        return nnx.merge(graph, state)(x)

    def last(state, x):
        return nnx.merge(graph, state).batch_last(x.T).T

    actual, expected = (value_and_gradients(function, state, x, cotangent) for function in (last, first))
    assert_close(actual, expected)


@pytest.mark.parametrize("function", [convolve, convolve_transposed])
@pytest.mark.parametrize("shapes", [((1, 8, 3), (4, 2, 5)), ((8, 3), (4, 3, 3)), ((1, 8, 3), (3, 3))], ids=str)
def test_shapes_that_do_not_fit(function, shapes):
    with pytest.raises(ValueError, match="as many channels"):
        function(*map(jnp.zeros, shapes), 2)


@pytest.mark.parametrize("transposed", [False, True])
def test_layers_start_glorot_uniform_and_compute_in_the_precision_asked_for(transposed):
    features, filters, taps = 30, 20, 8
    made = Convolution(features, filters, taps, 2, transposed=transposed, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    kernel = np.asarray(made.kernel[...])
    bound = np.sqrt(6 / (taps * (features + filters)))
    assert kernel.shape == ((taps, filters, features) if transposed else (taps, features, filters))
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_array_equal(made.bias[...], np.zeros(filters))
    assert made(jnp.ones((1, 6, features))).dtype == jnp.bfloat16


def test_a_bias_is_added_everywhere():
    layer = Convolution(3, 4, 1, 3, transposed=True, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(4.0)
    out = layer(jnp.zeros((2, 5, 3)))
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(4.0), (2, 15, 4)))
    assert Convolution(3, 4, 1, 3, bias=False, rngs=nnx.Rngs(0)).bias is None


def test_microbatches_change_neither_values_nor_gradients(x64):
    layer = Convolution(3, 4, 5, 2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x, other, cotangent = draw((6, 8, 3), 0), draw((6, 8, 3), 1), draw((6, 4, 4), 2)

    def compute(size, state, *inputs):
        return in_microbatches(lambda layer, x, y: layer(jnp.tanh(x) * y), nnx.merge(graph, state), *inputs, size=size)

    def run(size):
        value, pullback = jax.vjp(functools.partial(compute, size), state, x, other)
        return value, pullback(cotangent)

    whole, *looped = jax.jit(lambda: [run(size) for size in (6, 3, 1)])()
    for one in looped:
        assert_close(jax.tree.leaves(one), jax.tree.leaves(whole), 1e-6)


@pytest.mark.parametrize(
    ("devices", "cores", "batch", "rows", "size"),
    [
        (1, 1, 32, 1280, 1),
        (1, 1, 32, 160, 4),
        (1, 1, 32, 5, 32),
        (1, 1, 31, 80, 31),
        (1, 2, 32, 1280, 8),
        (1, 8, 32, 1280, 32),
        (2, 2, 32, 640, 32),
    ],
)
def test_how_many_samples_at_a_time(monkeypatch, devices, cores, batch, rows, size):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(convolution, "usable_cores", lambda: cores)
    assert microbatch(batch, rows) == size
