"""cuDNN's LSTM, JAX's reference implementation in the library's place: weights, gradients, choice, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import rnn

from jneuro.models import LSTM

BATCH, TIME, FEATURES, HIDDEN, LAYERS = 3, 4, 5, 6, 2


def reference(inputs, h, c, packed, lengths, *sizes):
    weights = rnn.unpack_lstm_weights(packed, *sizes, False)
    return rnn.lstm_ref(inputs, h, c, *weights, lengths, *sizes, 0.0, False)


@pytest.fixture
def calls(monkeypatch):
    """As on one CUDA device; lists the number of layers of every call of cuDNN that is traced."""
    layers = []

    def forward(*arguments):
        layers.append(arguments[7])
        return reference(*arguments[:8]), arguments[:5]

    def reverse(*arguments):
        *sizes, _, _, _, (*arrays, lengths), cotangents = arguments
        return *jax.vjp(lambda *a: reference(*a, lengths, *sizes), *arrays)[1](cotangents), None

    monkeypatch.setattr(rnn, "lstm_fwd", forward)
    monkeypatch.setattr(rnn, "lstm_bwd", reverse)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    return layers


def build(backend, dtype=None, dropout=0.0):
    return LSTM(FEATURES, HIDDEN, LAYERS, dropout=dropout, dtype=dtype, backend=backend, rngs=nnx.Rngs(0))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def run(backend, *, members=None, train=False, initial=True):
    """Outputs, final states and all gradients, of one LSTM or of several in one program."""
    lead = () if members is None else (members,)
    graph, params, rest = nnx.split(build(backend, dropout=0.5), nnx.Param, ...)
    params = jax.tree.map(lambda p: jnp.broadcast_to(p, (*lead, *p.shape)) + 0.1 * draw(*lead, *p.shape), params)
    states = [tuple(draw(*lead, BATCH, HIDDEN, seed=10 * k + j) for j in (1, 2)) for k in range(LAYERS)]
    arguments = params, draw(*lead, BATCH, TIME, FEATURES), states if initial else None

    def values_and_gradients(*arguments):
        def apply(params, inputs, initial):
            return nnx.merge(graph, params, rest, copy=True)(inputs, initial, train=train)

        values, pullback = jax.vjp(apply, *arguments)
        return values, pullback(jax.tree.map(jnp.cos, values))

    return jax.jit(values_and_gradients if members is None else jax.vmap(values_and_gradients))(*arguments)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, {2}), ({"initial": False}, {2}), ({"train": True}, {1}), ({"members": 2}, {2})],
    ids=["plain", "from zeros", "dropout", "ensemble"],
)
def test_equals_the_scan(calls, options, expected):
    actual = run("auto", **options)
    assert set(calls) == expected
    calls.clear()
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, 1e-4, 1e-5), actual, run("scan", **options))
    assert calls == []


@pytest.mark.parametrize("reason", ["precision", "two devices", "double", "platform"])
def test_falls_back_to_the_scan(calls, reason, monkeypatch):
    inputs = draw(BATCH, TIME, FEATURES)
    if reason == "two devices":
        monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    if reason == "platform":
        monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with jax.enable_x64(reason == "double"):
        inputs = jnp.asarray(inputs, jnp.float64 if reason == "double" else jnp.float32)
        build("auto", jnp.bfloat16 if reason == "precision" else None)(inputs, train=False)
    assert calls == []


def test_refuses_what_it_cannot_run(calls, monkeypatch):
    inputs = draw(BATCH, TIME, FEATURES)
    with pytest.raises(ValueError, match="'cudnn' computes in float32 alone, and was given bfloat16, float32"):
        build("cudnn", jnp.bfloat16)(inputs, train=False)
    with pytest.raises(ValueError, match=r"shape \(3, 6\), got \(2, 6\)"):
        build("cudnn")(inputs, [(jnp.zeros((2, HIDDEN)),) * 2] * LAYERS, train=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(ValueError, match=r"needs CUDA, and JAX computes on 'cpu'; choose 'auto', or 'scan'"):
        build("cudnn")(inputs, train=False)
