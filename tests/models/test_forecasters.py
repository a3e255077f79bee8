"""The LSTM ladder, the CNN-LSTM, and what every model must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pydantic import ValidationError

from jneuro.datasets.windows import Batch
from jneuro.models import (
    MODELS,
    CNNLSTMConfig,
    CompactForecasterConfig,
    LSTMForecasterConfig,
    ModelConfig,
    build_model,
)

SIZES = {"features": 6, "length": 12, "horizons": 3}
SMALL = [
    LSTMForecasterConfig(**SIZES, hidden=8),
    LSTMForecasterConfig(**SIZES, hidden=8, layers=1, residual=False, layer_norm=False),
    CNNLSTMConfig(**SIZES, hidden=8),
    CompactForecasterConfig(**SIZES, lags=5, hidden=8),
    CompactForecasterConfig(**SIZES, lags=3, hidden=8, mixing=False),
]


def draw_batch(config, count=4, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (count, config.length, config.features), (count, config.horizons, config.features)
    return Batch(*(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes))


@functools.cache
def split_model(config):
    return nnx.split(build_model(config, rngs=nnx.Rngs(0)), nnx.Param, ...)


def count_parameters(config):
    model = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CNNLSTMConfig(), 2_188_168),
        (CNNLSTMConfig(horizons=5), 2_188_168 + 4 * 100 * 385),
        # 4H(in + H + 2) for each layer, 2H for the normalisation, (features + 1)H in, (H + 1) features out
        (LSTMForecasterConfig.forecasting_report(1), 1024 * (358 + 514) + 257 * 100),
        (LSTMForecasterConfig.forecasting_report(2), 2048 * (614 + 2 * 1026) + 1024 + 101 * 512 + 513 * 100),
        (LSTMForecasterConfig.forecasting_report(3), 1536 * (486 + 770) + 768 + 101 * 384 + 385 * 100),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_parameter_count(config, parameters):
    assert count_parameters(config) == parameters


def test_the_report_has_three_lstms():
    with pytest.raises(ValueError, match="rungs 1, 2 and 3"):
        LSTMForecasterConfig.forecasting_report(4)


@pytest.mark.parametrize("config", SMALL, ids=lambda c: c.name)
def test_predicts_every_horizon_of_every_feature(config):
    graph, *state = split_model(config)

    @jax.jit
    def forecasts(state, batch):
        model = nnx.merge(graph, *state, copy=True)
        return [model(batch, train=train).mean for train in (False, True, False)]

    first, trained, second = forecasts(state, draw_batch(config))
    for mean in (first, trained):
        assert mean.shape == (4, 3, 6)
        assert mean.dtype == jnp.float32
        assert len(np.unique(mean)) == mean.size
    # In training the CNN-LSTM learns batch statistics, which evaluation then uses.
    assert np.array_equal(first, second) == (config.name != "cnn_lstm")
    assert np.array_equal(first, trained) == (config.name == "compact")


@pytest.mark.parametrize("config", SMALL, ids=lambda c: c.name)
@pytest.mark.parametrize("shape", [(4, 6, 12), (4, 11, 6), (12, 6)])
def test_inputs_of_another_shape(config, shape):
    batch = Batch(jnp.zeros(shape), jnp.zeros((4, 3, 6)))
    with pytest.raises(ValueError, match=r"length=12, features=6\], got shape"):
        nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0))(batch, train=False).mean)


@pytest.mark.parametrize("config", SMALL, ids=lambda c: c.name)
def test_trains_when_split_outside_and_merged_inside_jit(config):
    batch = draw_batch(config)
    graph, params, rest = split_model(config)

    @jax.jit
    def step(params, rest, key):
        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)
            nnx.reseed(model, dropout=key)
            error = jnp.mean((model(batch, train=True).mean - batch.targets) ** 2)
            return error, nnx.state(model, nnx.BatchStat)

        (error, statistics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        rest = nnx.merge_state(rest, statistics)
        return error, jax.tree.map(lambda p, g: p - 0.02 * g, params, grads), rest, grads

    first, _, changed, grads = step(params, rest, jax.random.key(0))
    again, *_ = step(params, rest, jax.random.key(0))
    other, *_ = step(params, rest, jax.random.key(1))
    assert first == again
    assert (first == other) == (config.name == "compact")
    assert all(np.any(g) for g in jax.tree.leaves(grads)) or config.name == "compact"
    moved = [not np.array_equal(a, b) for a, b in zip(*map(statistics_of, (rest, changed)), strict=True)]
    assert moved == [True] * (4 if config.name == "cnn_lstm" else 0)
    for k in range(20):
        last, params, rest, _ = step(params, rest, jax.random.key(k))
    assert last < first
    assert step._cache_size() == 1


def statistics_of(rest):
    return jax.tree.leaves(nnx.split_state(rest, nnx.BatchStat, ...)[0])


EXPORTED = {
    "lstm": SIZES | {"hidden": 8},
    "cnn_lstm": SIZES | {"hidden": 8},
    "compact": SIZES | {"lags": 5, "echo": True},
    "seq2seq_lstm": {"features": 4, "outputs": 3, "length": 6, "horizons": 6, "hidden": 8},
    "lstm_autoencoder": {"features": 4, "length": 6, "horizons": 6, "hidden": 8, "code": 3},
    "spike_count_lstm": {"features": 4, "outputs": 2, "length": 6, "hidden": 8, "own_hidden": 3},
    "tft": {"features": 4, "length": 6, "hidden": 8, "static": (1,)},
    "neuron_tft": {"features": 4, "outputs": 3, "length": 6, "hidden": 8},
    "encoder_decoder": {"length": 64, "horizons": 64, "layers": 2, "crop": (0, 0)},
}


@pytest.mark.parametrize("name", MODELS)
def test_exports_with_an_open_batch(name):
    config = MODELS[name](**EXPORTED[name])
    graph, *state = split_model(config)

    def predict(inputs):
        return nnx.merge(graph, *state, copy=True)(Batch(inputs, inputs), train=False).mean

    shape = jax.export.symbolic_shape(f"batch, {config.length}, {config.features}")
    exported = jax.export.export(jax.jit(predict))(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert str(exported.out_avals[0].shape[0]) == "batch"
    if name in ("lstm", "encoder_decoder"):
        inputs = jnp.asarray(np.random.default_rng(0).normal(size=(3, config.length, config.features)), jnp.float32)
        np.testing.assert_allclose(exported.call(inputs), jax.jit(predict)(inputs), rtol=1e-4, atol=1e-4)


def test_built_from_a_name():
    for name in MODELS:
        parsed = MODELS.block({"name": name})
        assert type(parsed) is MODELS[name]
        assert parsed.name == name
        model = nnx.eval_shape(lambda parsed=parsed: build_model(parsed, rngs=nnx.Rngs(0)))
        assert f"{type(model).__name__}Config" == type(parsed).__name__
        assert MODELS.about(name)
    with pytest.raises(ValueError, match="unknown model 'lst'; did you mean 'lstm', or module:name of your own"):
        MODELS.block({"name": "lst"})
    with pytest.raises(ValueError, match=r"is no model: its configuration has no method build\(\*, rngs\)"):
        build_model(ModelConfig(), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (LSTMForecasterConfig, {"hidden": 0}),
        (LSTMForecasterConfig, {"dropout": 1.0}),
        (CNNLSTMConfig, {"kernels": (0,)}),
        (CNNLSTMConfig, {"bidirectional": True}),
        (CompactForecasterConfig, {"length": 20}),
        (CompactForecasterConfig, {"channels": 0}),
    ],
)
def test_configurations_out_of_range(config, bad):
    with pytest.raises(ValidationError):
        config(**bad)


def test_the_convolutions_see_index_neighbours_only():
    """Before the LSTM only a kernel's reach of neurons mixes: 1 + 2 on either side."""
    config = CNNLSTMConfig(features=9, length=4, hidden=4)

    @jax.jit
    def read_by_lstm(x):
        seen = []
        model = build_model(config, rngs=nnx.Rngs(0))
        model.lstm = lambda x, *, train: (seen.append(x), ((jnp.zeros((1, 4)),) * 2,))
        model(Batch(x, x), train=False)
        return seen[0]

    base = np.zeros((1, 4, 9), np.float32)
    changed = np.zeros(9, bool)
    for time in range(4):  # ReLU may hide one pulse, but not all of them
        for sign in (1, -1):
            pulse = base.copy()
            pulse[0, time, 4] = sign
            changed |= np.any(np.asarray(read_by_lstm(base)) != np.asarray(read_by_lstm(pulse)), axis=(0, 1))
    np.testing.assert_array_equal(changed, np.abs(np.arange(9) - 4) <= 3)


FORECASTERS = [
    LSTMForecasterConfig(**SIZES, outputs=2, hidden=8),
    CNNLSTMConfig(**SIZES, outputs=2, hidden=8),
]


@pytest.mark.parametrize("config", FORECASTERS, ids=lambda c: c.name)
def test_half_precision_predicts_nearly_the_same(config):
    _, *state = split_model(config)
    batch = draw_batch(config)

    def forecast(precision):
        graph, *_ = split_model(config.model_copy(update={"precision": precision}))
        return jax.jit(lambda: nnx.merge(graph, *state, copy=True)(batch, train=False).mean)()

    half, single = map(forecast, ("bfloat16", "float32"))
    assert half.dtype == jnp.float32
    assert half.shape == (4, 3, 2)
    assert 0 < jnp.linalg.norm(half - single) < 4 * 2**-8 * jnp.linalg.norm(single)


@pytest.mark.parametrize("config", FORECASTERS, ids=lambda c: c.name)
def test_every_weight_starts_as_configured(config):
    names = ("input_init", "recurrent_init", "kernel_init", "projection_init")
    for zero in names:
        _, params, _ = split_model(config.model_copy(update={zero: "zeros"}))
        zeros = {path[-1] for path, p in nnx.to_flat_state(params) if p[...].ndim > 1 and not p[...].any()}
        assert zeros == {"input_init": {"weight_ih"}, "recurrent_init": {"weight_hh"}}.get(zero, {"kernel"})
