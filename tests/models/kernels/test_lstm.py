"""The hand-written reverse pass against autodiff of a plain LSTM, and what the layers add to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.models import LSTM, LSTMLayer, lstm

BATCH, TIME, FEATURES, HIDDEN = 3, 5, 6, 4


def naive_lstm(weight_ih, weight_hh, bias, inputs, initial):
    h, c = initial
    outputs = []
    for t in range(inputs.shape[1]):
        gates = jnp.einsum("bf,fg->bg", inputs[:, t], weight_ih) + jnp.einsum("bh,hg->bg", h, weight_hh) + bias[None]
        i, f, g, o = (gates[:, k * h.shape[1] : (k + 1) * h.shape[1]] for k in range(4))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        outputs.append(h)
    return jnp.stack(outputs, axis=1), (h, c)


def draw(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def arguments(*lead, batch=BATCH, time=TIME):
    shapes = [(FEATURES, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN,), (batch, time, FEATURES)]
    *weights, inputs = (draw((*lead, *shape), k) for k, shape in enumerate(shapes))
    return *weights, inputs, (draw((*lead, batch, HIDDEN), 4), draw((*lead, batch, HIDDEN), 5))


def member(ensemble, k):
    return jax.tree.map(lambda x: x[k], ensemble)


def assert_close(actual, expected, rtol=1e-10):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol, rtol * 1e-2), actual, expected)


@functools.partial(jax.jit, static_argnums=0)
def value_and_pullback(f, args, cotangents):
    value, pullback = jax.vjp(f, *args)
    return value, pullback(cotangents)


@pytest.mark.parametrize("used", ["outputs", "final", "both"])
def test_gradients_equal_autodiff(x64, used):
    args = arguments()
    outputs, final = draw((BATCH, TIME, HIDDEN), 8), (draw((BATCH, HIDDEN), 9), draw((BATCH, HIDDEN), 10))
    cotangents = 0 * outputs if used == "final" else outputs, (0 * final[0],) * 2 if used == "outputs" else final
    assert_close(value_and_pullback(lstm, args, cotangents), value_and_pullback(naive_lstm, args, cotangents))


@pytest.mark.parametrize(("batch", "time"), [(1, TIME), (BATCH, 1)], ids=["one sequence", "one step"])
def test_the_smallest_sizes(x64, batch, time):
    args = arguments(batch=batch, time=time)
    cotangents = draw((batch, time, HIDDEN), 8), args[-1]
    assert_close(value_and_pullback(lstm, args, cotangents), value_and_pullback(naive_lstm, args, cotangents))


def test_half_precision_products():
    """Operands of 8 bits, all else in single precision: errors of that size, in values and in every gradient."""
    args = arguments()
    cotangents = draw((BATCH, TIME, HIDDEN), 8), args[-1]
    half = value_and_pullback(functools.partial(lstm, dtype=jnp.bfloat16), args, cotangents)
    for actual, exact in zip(*map(jax.tree.leaves, (half, value_and_pullback(lstm, args, cotangents))), strict=True):
        assert actual.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(actual - exact) < 4 * 2**-8 * jnp.linalg.norm(exact)


def test_a_run_in_two_halves_is_one_run(x64):
    *weights, inputs, initial = arguments()
    outputs, final = lstm(*weights, inputs, initial)
    first, state = lstm(*weights, inputs[:, :3], initial)
    second, state = lstm(*weights, inputs[:, 3:], state)
    assert_close((jnp.concatenate([first, second], 1), state), (outputs, final))


def test_starts_from_zeros(x64):
    *weights, inputs, initial = arguments()
    assert_close(lstm(*weights, inputs), naive_lstm(*weights, inputs, jax.tree.map(jnp.zeros_like, initial)))


def test_vmap_over_an_ensemble(x64):
    args = arguments(2)

    cotangents = draw((2, BATCH, TIME, HIDDEN), 8), args[-1]
    actual = jax.jit(jax.vmap(functools.partial(value_and_pullback, lstm)))(args, cotangents)
    expected = [value_and_pullback(naive_lstm, *member((args, cotangents), k)) for k in range(2)]
    assert_close([member(actual, k) for k in range(2)], expected)


def test_mixed_precision_gradients_keep_each_argument_s_dtype(x64):
    weight_ih, *rest = arguments()
    grads = jax.grad(lambda *a: lstm(*a)[0].sum(), (0, 1))(weight_ih.astype(jnp.float32), *rest)
    assert [g.dtype for g in grads] == [jnp.float32, jnp.float64]


def test_forward_mode_is_refused():
    args = arguments()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lstm, args, args)


@pytest.mark.parametrize("broken", range(5))
def test_shapes_that_do_not_fit(broken):
    args = list(arguments())
    args[broken] = jax.tree.map(lambda x: x[..., :-1], args[broken])
    with pytest.raises(ValueError, match="shape"):
        lstm(*args)


def test_initial_weights():
    features, hidden = 100, 64
    layer = LSTMLayer(features, hidden, rngs=nnx.Rngs(0))
    bound = np.sqrt(6 / (features + 4 * hidden))
    weight_ih, weight_hh = np.asarray(layer.weight_ih[...]), np.asarray(layer.weight_hh[...])
    assert 0.99 * bound < np.abs(weight_ih).max() <= bound
    np.testing.assert_allclose(weight_ih.std(), bound / np.sqrt(3), rtol=0.02)
    np.testing.assert_allclose(weight_hh @ weight_hh.T, np.eye(hidden), atol=1e-5)
    np.testing.assert_array_equal(layer.bias_ih[...].reshape(4, hidden).mean(1), [0, 1, 0, 0])
    np.testing.assert_array_equal(layer.bias_hh[...], 0)


def test_initial_weights_by_name():
    stack = LSTM(FEATURES, HIDDEN, 2, input_init="orthogonal", recurrent_init="zeros", forget_bias=-2, rngs=nnx.Rngs(0))
    for layer in stack.layers:
        weight_ih, weight_hh, bias_ih, _ = layer.weights
        np.testing.assert_allclose(weight_ih @ weight_ih.T, np.eye(len(weight_ih)), atol=1e-6)
        np.testing.assert_array_equal(weight_hh, 0)
        np.testing.assert_array_equal(bias_ih.reshape(4, HIDDEN).mean(1), [0, -2, 0, 0])


def test_dropout_acts_only_between_layers_and_only_in_training():
    inputs = draw((BATCH, TIME, FEATURES), 0)
    for layers in (1, 2):
        stack = LSTM(FEATURES, HIDDEN, layers, dropout=0.5, rngs=nnx.Rngs(0))
        plain, states = stack(inputs, train=False)
        dropped, dropped_states = stack(inputs, train=True)
        assert len(states) == layers
        np.testing.assert_array_equal(plain[:, -1], states[-1][0])
        np.testing.assert_array_equal(states[0][0], dropped_states[0][0])
        assert np.array_equal(plain, dropped) == (layers == 1)


def test_every_layer_takes_its_own_initial_state():
    inputs = draw((BATCH, TIME, FEATURES), 0)
    stack = LSTM(FEATURES, HIDDEN, 2, rngs=nnx.Rngs(0))
    whole, _ = stack(inputs, train=False)
    _, states = stack(inputs[:, :3], train=False)
    np.testing.assert_allclose(stack(inputs[:, 3:], states, train=False)[0], whole[:, 3:], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="2 layers"):
        stack(inputs, states[:1], train=False)
