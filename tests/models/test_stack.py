"""What the models made of plain LSTM stacks have in common: sizes, dropout, precision, initialisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pydantic import ValidationError

from jneuro.datasets.windows import Batch
from jneuro.models import LSTMAutoencoderConfig, Seq2SeqLSTMConfig, SpikeCountLSTMConfig, build_model

SIZES = {"features": 4, "outputs": 3, "length": 6, "horizons": 6, "hidden": 8, "layers": 2}
SMALL = [
    Seq2SeqLSTMConfig(**SIZES),
    LSTMAutoencoderConfig(**SIZES, code=5),
    SpikeCountLSTMConfig(**SIZES),
    SpikeCountLSTMConfig(**SIZES | {"horizons": 2}, head="mse"),
]
by_model = pytest.mark.parametrize("config", SMALL, ids=lambda c: f"{c.name}-{getattr(c, 'head', '')}".strip("-"))


def draw_inputs(config, count=5):
    return np.random.default_rng(0).normal(size=(count, config.length, config.features)).astype(np.float32)


def build(config, **changes):
    return build_model(config.model_copy(update=changes), rngs=nnx.Rngs(0))


@functools.partial(jax.jit, static_argnums=(0, 3))
def predict(graph, state, inputs, modes=(False,)):
    model = nnx.merge(graph, state, copy=True)
    return [model(Batch(inputs, inputs), train=train).mean for train in modes]


def test_parameter_counts():
    def layer(features, hidden):
        return 4 * hidden * (features + hidden + 2)

    # Reading and emitting 9 states, and reading a current, with three layers of 324.
    expected = {
        Seq2SeqLSTMConfig(): layer(10, 324) + 2 * layer(324, 324) + 325 * 9,
        LSTMAutoencoderConfig(): layer(1000, 100) + layer(100, 100) + 101 * 1000,
        LSTMAutoencoderConfig(layers=2, code=30): layer(1000, 30)
        + layer(30, 30)
        + layer(30, 100)
        + layer(100, 100)
        + 101 * 1000,
        SpikeCountLSTMConfig(): layer(1200, 256) + 257 * 600,
        SpikeCountLSTMConfig(horizons=3, layers=2): layer(1200, 256) + layer(256, 256) + 257 * 1800,
    }
    for config, parameters in expected.items():
        model = nnx.eval_shape(functools.partial(build, config))
        assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters, config


@by_model
def test_shape_and_dropout_in_training_only(config):
    state, inputs = nnx.split(build(config, dropout=0.5)), draw_inputs(config)
    mean, trained = predict(*state, inputs, (False, True))
    assert mean.shape == (5, config.horizons, 3)
    assert mean.dtype == jnp.float32
    assert len(np.unique(mean)) == mean.size
    assert np.all(mean != trained)
    np.testing.assert_array_equal(mean, predict(*state, inputs)[0])


@by_model
def test_precision(config, x64):
    config = config.model_copy(update={"layers": 1})
    inputs, model = draw_inputs(config), build(config)
    single = predict(*nnx.split(model), inputs)[0]
    half = predict(*nnx.split(build(config, precision="bfloat16")), inputs)[0]
    assert half.dtype == jnp.float32
    assert 1e-5 < np.abs(half - single).max() / np.ptp(single) < 0.03  # a number in bfloat16 has 8 bits
    nnx.update(model, jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), nnx.state(model, nnx.Param)))
    double = predict(*nnx.split(model), inputs.astype(np.float64))[0]
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, single, 1e-4, 1e-6)


@by_model
def test_initialisers(config):
    zeros = build(config, input_init="zeros", recurrent_init="xavier_normal", kernel_init="zeros")
    assert not np.any(zeros.output_layer.kernel)
    for stack in (getattr(zeros, name, None) for name in ("lstm", "encoder", "decoder")):
        for layer in () if stack is None else stack.layers:
            assert not np.any(layer.weight_ih)
            gram = np.asarray(layer.weight_hh @ layer.weight_hh.T)
            assert np.abs(gram - np.eye(len(gram))).max() > 0.01, "not orthogonal"


@by_model
@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 7, 4), (6, 4)])
def test_inputs_of_another_shape(config, shape):
    with pytest.raises(ValueError, match=r"length=6, features=4\], got shape"):
        nnx.eval_shape(lambda: build(config)(Batch(jnp.zeros(shape), jnp.zeros(shape)), train=False).mean)


@pytest.mark.parametrize(
    ("config", "bad", "match"),
    [
        (Seq2SeqLSTMConfig, {"length": 20}, "length and horizons must be equal, got 20 and 50"),
        (Seq2SeqLSTMConfig, {"residual": True, "features": 5}, "outputs = 9 and features = 5"),
        (Seq2SeqLSTMConfig, {"order": "random"}, "'reverse' or 'forward'"),
        (
            LSTMAutoencoderConfig,
            {"horizons": 1},
            "horizons -19 to 0, so length and horizons must be equal, got 20 and 1",
        ),
        (LSTMAutoencoderConfig, {"code": 0}, "greater than or equal to 1"),
        (SpikeCountLSTMConfig, {"head": "binomial"}, "'poisson' or 'mse'"),
        (SpikeCountLSTMConfig, {"kernel_init": "random"}, "'xavier_uniform'"),
    ],
)
def test_configurations_out_of_range(config, bad, match):
    with pytest.raises(ValidationError, match=match):
        config(**bad)
