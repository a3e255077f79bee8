"""Dropout streams and masks, batch statistics, on one device and on two; initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn import initializers

from jneuro.models.layers import (
    INITIALISERS,
    BatchNorm,
    Dropout,
    batch_axis,
    layer_norm,
    lecun_normal,
)


def test_channel_dropout_drops_whole_channels():
    x = jnp.ones((50, 6, 40))
    y = np.asarray(Dropout(0.25, whole_channels=True, rngs=nnx.Rngs(0))(x, deterministic=False))
    assert np.all((y == 0).all(1) | np.isclose(y, 4 / 3).all(1))
    assert abs((y[:, 0] == 0).mean() - 0.25) < 0.03


def test_dropout_drops_single_values():
    x = jnp.ones((50, 6, 40))
    y = np.asarray(Dropout(0.25, rngs=nnx.Rngs(0))(x, deterministic=False))
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert not np.all((y == 0).all(1) | (y != 0).all(1))
    np.testing.assert_allclose(y[y != 0], 4 / 3, rtol=1e-6)


@pytest.mark.parametrize("rngs", [{"default": 0}, {"params": 0, "dropout": 1}], ids=str)
def test_reseed_reaches_every_dropout_and_gives_each_another_mask(rngs):
    rngs = nnx.Rngs(**rngs)
    pair = nnx.List([Dropout(0.5, rngs=rngs), Dropout(0.5, rngs=rngs)])

    @jax.jit
    def masks(state, key):
        layers = nnx.merge(graph, state, copy=True)
        nnx.reseed(layers, dropout=key)
        return [layer(jnp.ones(64), deterministic=False) for layer in layers]

    graph, state = nnx.split(pair)
    first, second = masks(state, jax.random.key(0))
    again, _ = masks(state, jax.random.key(0))
    other, _ = masks(state, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("axis", [0, 2])
def test_batch_norm_statistics(axis):
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 6)).astype(np.float32)
    layer = BatchNorm(6, axis=axis)
    y = np.asarray(layer(jnp.asarray(np.moveaxis(x, 2, axis)), train=True))
    y = np.moveaxis(y, axis, 2)
    np.testing.assert_allclose(y.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1)), 1, rtol=1e-4)
    np.testing.assert_allclose(layer.mean[...], 0.1 * x.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * x.var((0, 1), ddof=1), rtol=1e-5)
    mean, var = np.asarray(layer.mean[...]), np.asarray(layer.var[...])
    again = layer(jnp.asarray(np.moveaxis(x, 2, axis)), train=False)
    np.testing.assert_allclose(np.moveaxis(again, axis, 2), (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4)
    np.testing.assert_array_equal(layer.mean[...], mean)


def test_batch_norm_needs_two_values():
    with pytest.raises(ValueError, match="at least 2"):
        BatchNorm(3)(jnp.ones((1, 1, 3)), train=True)


def shared(function, x):
    """Apply a function of a batch to its two halves, one on each device, and put the results together."""

    def half(x):
        with batch_axis("devices"):
            return function(x)

    return jax.tree.map(np.asarray, jax.pmap(half, "devices")(x.reshape(2, -1, *x.shape[1:])))


@pytest.mark.parametrize("whole_channels", [False, True])
def test_devices_share_a_dropout_mask(whole_channels):
    layer = Dropout(0.4, whole_channels=whole_channels, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)

    def drop(x):
        return nnx.merge(graph, state, copy=True)(x, deterministic=False)

    x = jnp.arange(1.0, 121).reshape(8, 5, 3)
    halves = shared(drop, x)
    np.testing.assert_array_equal(halves.reshape(x.shape), drop(x))
    assert not np.array_equal(halves[0] == 0, halves[1] == 0)


def test_devices_share_batch_statistics():
    graph, state = nnx.split(BatchNorm(3))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3)), jnp.float32)

    def normalise(x):
        def loss(x):
            norm = nnx.merge(graph, state, copy=True)
            y = norm(x, train=True)
            return (y**3).sum(), (y, norm.mean[...], norm.var[...])

        gradient, (y, mean, var) = jax.grad(loss, has_aux=True)(x)
        return y, gradient, mean, var

    y, gradient, *running = shared(normalise, x)  # one example on each device
    y_whole, gradient_whole, *running_whole = normalise(x)
    np.testing.assert_allclose(y.reshape(x.shape), y_whole, rtol=1e-5)
    np.testing.assert_allclose(gradient.reshape(x.shape), gradient_whole, rtol=1e-3, atol=1e-4)
    for ours, whole in zip(running, running_whole, strict=True):
        np.testing.assert_array_equal(ours[0], ours[1])
        np.testing.assert_allclose(ours[0], whole, rtol=1e-6)
    one = jnp.ones((2, 1, 3))  # a single value on each device is enough for both together
    assert np.isfinite(shared(normalise, one)[0]).all()


def test_layer_norm_has_the_larger_epsilon():
    x = 1e-3 * np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    centred = x - x.mean(1, keepdims=True)
    expected = centred / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer_norm(8, rngs=nnx.Rngs(0))(jnp.asarray(x)), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 300), (5, 8, 300)])
def test_torch_uniform_is_bounded_by_the_root_of_the_inputs(shape):
    w = np.asarray(INITIALISERS["torch_uniform"](jax.random.key(0), shape))
    assert 0.99 / np.sqrt(40) < np.abs(w).max() <= 1 / np.sqrt(40)


def test_weights_start_where_jax_s_initialisers_put_them_to_the_last_bit():
    theirs = {
        "torch_uniform": initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        "xavier_uniform": initializers.glorot_uniform(),
        "xavier_normal": initializers.glorot_normal(),
        "kaiming_uniform": initializers.he_uniform(),
        "kaiming_normal": initializers.he_normal(),
        "orthogonal": initializers.orthogonal(),
        "zeros": initializers.zeros,
        "lecun_normal": initializers.lecun_normal(),
    }
    ours = INITIALISERS | {"lecun_normal": lecun_normal}
    assert ours.keys() == theirs.keys()
    for name, initialiser in theirs.items():
        expected, found = (f(jax.random.key(3), (5, 8), jnp.float32) for f in (initialiser, ours[name]))
        np.testing.assert_array_equal(found, expected, err_msg=name)
