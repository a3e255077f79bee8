"""The compact forecaster: shared weights, a few lags, and a mixing matrix that starts at zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.models import CompactForecaster, CompactForecasterConfig

NEURONS, LENGTH = 7, 30


def build(**sizes):
    config = CompactForecasterConfig(features=NEURONS, length=LENGTH, hidden=16, **sizes)
    return CompactForecaster(config, rngs=nnx.Rngs(0))


def draw(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(5, LENGTH, NEURONS)), jnp.float32)


def predict(model, inputs):
    graph, state = nnx.split(model)
    return predict_split(graph, state, inputs)


@functools.partial(jax.jit, static_argnums=0)
def predict_split(graph, state, inputs):
    return nnx.merge(graph, state)(Batch(inputs, inputs[:, :1]), train=False).mean


@pytest.mark.parametrize("mixing", ["off", "zero", "learned"])
def test_neurons_may_be_permuted_unless_mixing_is_learned(mixing):
    model, x = build(mixing=mixing != "off", horizons=2), draw()
    if mixing == "learned":
        model.mixing[...] = jax.random.normal(jax.random.key(0), model.mixing.shape)
    order = jnp.asarray([3, 1, 0, 6, 2, 5, 4])
    same = np.allclose(predict(model, x[..., order]), predict(model, x)[..., order], atol=1e-5)
    assert same == (mixing != "learned")


def test_starts_near_persistence():
    x = draw()
    error = predict(build(horizons=3), x) - x[:, -1:].repeat(3, axis=1)
    assert 0 < jnp.sqrt(jnp.mean(error**2)) < 0.15


@pytest.mark.parametrize(("lags", "mixing_lags"), [(4, 2), (2, 4)])
def test_a_neuron_is_heard_only_where_the_mixing_matrix_says(lags, mixing_lags):
    model, x = build(lags=lags, mixing_lags=mixing_lags), draw()[:1]
    model.mixing[...] = model.mixing[...].at[1, 2, 5].set(1.0)
    influence = np.asarray(jax.jacobian(lambda x: predict(model, x)[0, 0])(x))[:, 0]  # post, time, pre
    expected = np.zeros((NEURONS, LENGTH, NEURONS), bool)
    for neuron in range(NEURONS):
        expected[neuron, -lags:, neuron] = True
    expected[5, -mixing_lags:, 2] = True
    np.testing.assert_array_equal(influence != 0, expected)


def test_an_echo_comes_from_those_who_hear():
    model, x = build(echo=True), draw()[:1]
    model.mixing[...] = model.mixing[...].at[0, 2, 5].set(1.0).at[1, 2, 4].set(1.0)
    influence = np.abs(np.asarray(jax.jacobian(lambda x: predict(model, x)[0, 0])(x))[:, 0]).sum(1) > 0  # post, pre
    expected = np.eye(NEURONS, dtype=bool)
    # 4 and 5 hear 2, whose message depends on how both have reacted; 2 hears nobody.
    expected[4, [2, 5]] = expected[5, [2, 4]] = True
    np.testing.assert_array_equal(influence, expected)


@pytest.mark.parametrize("echo", [False, True])
def test_gradients_reach_everything_but_what_only_a_silent_matrix_carries(echo):
    model, x = build(echo=echo), draw()
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return jnp.mean((predict(nnx.merge(graph, params, rest, copy=True), x) - draw(1)[:, :1]) ** 2)

    silent = {"message", "hearing", "reaction", "answer"}
    for path, grad in nnx.to_flat_state(jax.grad(loss)(params)):
        assert np.any(grad[...]) == (path[0] not in silent), path
    params["mixing"][...] = jnp.ones_like(params["mixing"][...])
    for path, grad in nnx.to_flat_state(jax.grad(loss)(params)):
        assert np.any(grad[...]), path


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="mixing_lags must be at most length = 30, got 31"):
        build(mixing_lags=31)
    with pytest.raises(ValueError, match="echo = true needs mixing"):
        build(mixing=False, echo=True)
