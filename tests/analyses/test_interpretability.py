"""Gates against the recurrence written out, and convolutions that are silent."""

import jax
import jax.numpy as jnp
import numpy as np
from evaluation_problems import cut
from flax import nnx

from jneuro.analyses.interpretability import convolution_share, gate_statistics
from jneuro.models import CNNLSTM, CNNLSTMConfig

WINDOWS = cut(np.random.default_rng(0).normal(size=(6, 60, 4)), length=8)
STARTS = np.asarray(WINDOWS.starts["test"])[:20]


def build():
    config = CNNLSTMConfig(features=4, length=8, hidden=5, layers=2)
    return CNNLSTM(config, rngs=nnx.Rngs(params=0, dropout=1))


def test_gates_carry_the_recurrence():
    lstm, x = build().lstm, jax.random.normal(jax.random.key(0), (3, 8, 4))
    _, states = lstm(x, train=False)
    for layer, (i, f, o), (h, c) in zip(lstm.layers, lstm.gates(x), states, strict=True):
        outputs, _ = layer(x)
        weight_ih, weight_hh, bias_ih, bias_hh = layer.weights
        before = jnp.concatenate([jnp.zeros_like(outputs[:, :1]), outputs[:, :-1]], 1)
        new = jnp.tanh((x @ weight_ih + before @ weight_hh + (bias_ih + bias_hh)[None, None])[..., 10:15])
        cell = np.zeros((3, 5))
        for t in range(8):
            cell = f[:, t] * cell + i[:, t] * new[:, t]
        np.testing.assert_allclose(cell, c, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(o[:, -1] * jnp.tanh(cell), h, rtol=1e-4, atol=1e-6)
        x = outputs


def test_a_forget_gate_that_is_held_open_remembers():
    model = build()
    first = model.lstm.layers[0]
    for weight in (first.weight_ih, first.weight_hh):
        weight[...] = jnp.zeros_like(weight[...])
    first.bias_ih[...] = jnp.asarray(np.repeat([-3.0, 3.0, 0.0, 0.0], 5), jnp.float32)
    layers, memories = gate_statistics(model, WINDOWS, STARTS)
    expected = 1 / np.log(1 + np.exp(-3.0))  # −1 / ln σ(3) ms
    np.testing.assert_allclose(memories[0], np.full(5, expected), rtol=1e-4)
    np.testing.assert_allclose(layers[0]["memory_ms"], [expected] * 3, rtol=1e-4)
    assert (layers[0]["closed"]["input"], layers[0]["open"]["forget"], layers[0]["open"]["output"]) == (1, 1, 0)
    assert layers[0]["mean"]["output"] == 0.5


def test_silent_convolutions_have_no_share():
    model = build()
    loud = convolution_share(model, WINDOWS, STARTS)
    assert min(loud["input_share"], loud["output_share"]) > 0
    assert loud["r2"] != loud["r2_without"]
    assert [len(taps) for taps in loud["taps"]] == [3, 5]
    model.norms[-1].scale[...] = jnp.zeros(8)
    silent = convolution_share(model, WINDOWS, STARTS)
    assert (silent["input_share"], silent["output_share"]) == (0, 0)
    assert silent["r2"] == silent["r2_without"] == loud["r2_without"]
    model.convolutions[0].kernel[...] = model.convolutions[0].kernel[...].at[jnp.array([0, 2])].set(0)
    np.testing.assert_allclose(convolution_share(model, WINDOWS, STARTS)["taps"][0], [0, 1, 0])
