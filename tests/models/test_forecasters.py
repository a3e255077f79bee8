"""The forecasters made of LSTM stacks, and what every model must do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.core.config import ConfigError
from jneuro.datasets.windows import Batch, Scaling, Windows
from jneuro.models import (
    MODELS,
    CNNLSTMConfig,
    CompactForecasterConfig,
    LSTMAutoencoder,
    LSTMAutoencoderConfig,
    LSTMForecasterConfig,
    ModelConfig,
    Seq2SeqLSTM,
    Seq2SeqLSTMConfig,
    SpikeCountLSTM,
    SpikeCountLSTMConfig,
    build_model,
)
from jneuro.models.base import Prediction, initialised
from jneuro.models.forecasters import LOWEST_RATE
from jneuro.training import LOSSES

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
    with pytest.raises(ConfigError):
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


# What the models made of plain LSTM stacks have in common: sizes, dropout, precision, initialisers.
STACK = {"features": 4, "outputs": 3, "length": 6, "horizons": 6, "hidden": 8, "layers": 2}
STACKS = [
    Seq2SeqLSTMConfig(**STACK),
    LSTMAutoencoderConfig(**STACK, code=5),
    SpikeCountLSTMConfig(**STACK),
    SpikeCountLSTMConfig(**STACK | {"horizons": 2}, head="mse"),
]
by_stack = pytest.mark.parametrize("config", STACKS, ids=lambda c: f"{c.name}-{getattr(c, 'head', '')}".strip("-"))


def draw_inputs(config, count=5):
    return np.random.default_rng(0).normal(size=(count, config.length, config.features)).astype(np.float32)


def build_stack(config, **changes):
    return build_model(config.model_copy(update=changes), rngs=nnx.Rngs(0))


@functools.partial(jax.jit, static_argnums=(0, 3))
def predict_stack(graph, state, inputs, modes=(False,)):
    model = nnx.merge(graph, state, copy=True)
    return [model(Batch(inputs, inputs), train=train).mean for train in modes]


def test_stacks_parameter_counts():
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
        model = nnx.eval_shape(functools.partial(build_stack, config))
        assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters, config


@by_stack
def test_stacks_shape_and_dropout_in_training_only(config):
    state, inputs = nnx.split(build_stack(config, dropout=0.5)), draw_inputs(config)
    mean, trained = predict_stack(*state, inputs, (False, True))
    assert mean.shape == (5, config.horizons, 3)
    assert mean.dtype == jnp.float32
    assert len(np.unique(mean)) == mean.size
    assert np.all(mean != trained)
    np.testing.assert_array_equal(mean, predict_stack(*state, inputs)[0])


@by_stack
def test_stacks_precision(config, x64):
    config = config.model_copy(update={"layers": 1})
    inputs, model = draw_inputs(config), build_stack(config)
    single = predict_stack(*nnx.split(model), inputs)[0]
    half = predict_stack(*nnx.split(build_stack(config, precision="bfloat16")), inputs)[0]
    assert half.dtype == jnp.float32
    assert 1e-5 < np.abs(half - single).max() / np.ptp(single) < 0.03  # a number in bfloat16 has 8 bits
    nnx.update(model, jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), nnx.state(model, nnx.Param)))
    double = predict_stack(*nnx.split(model), inputs.astype(np.float64))[0]
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, single, 1e-4, 1e-6)


@by_stack
def test_stacks_initialisers(config):
    zeros = build_stack(config, input_init="zeros", recurrent_init="xavier_normal", kernel_init="zeros")
    assert not np.any(zeros.output_layer.kernel)
    for stack in (getattr(zeros, name, None) for name in ("lstm", "encoder", "decoder")):
        for layer in () if stack is None else stack.layers:
            assert not np.any(layer.weight_ih)
            gram = np.asarray(layer.weight_hh @ layer.weight_hh.T)
            assert np.abs(gram - np.eye(len(gram))).max() > 0.01, "not orthogonal"


@by_stack
@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 7, 4), (6, 4)])
def test_stacks_inputs_of_another_shape(config, shape):
    with pytest.raises(ValueError, match=r"length=6, features=4\], got shape"):
        nnx.eval_shape(lambda: build_stack(config)(Batch(jnp.zeros(shape), jnp.zeros(shape)), train=False).mean)


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
def test_stacks_out_of_range(config, bad, match):
    with pytest.raises(ConfigError, match=match):
        config(**bad)


# The sequence-to-sequence LSTM: which inputs reach which predictions.
STEPS, READ, EMITTED = 5, 4, 3


def build_seq2seq(length=STEPS, **fields):
    sizes = {"features": READ, "outputs": EMITTED, "length": length, "horizons": length, "hidden": 6, "layers": 2}
    return Seq2SeqLSTM(Seq2SeqLSTMConfig(**sizes, **fields), rngs=nnx.Rngs(0))


def draw_window(length=STEPS):
    return jnp.asarray(np.random.default_rng(0).normal(size=(1, length, READ)), jnp.float32)


def emit(model, inputs):
    return model(Batch(inputs, inputs), train=False).mean


@pytest.mark.parametrize("order", ["reverse", "forward"])
def test_each_step_ahead_sees_one_more_input(order):
    """Prediction k, counted from 0, has read the newest k + 1 inputs; read forward, the oldest k + 1."""
    model = build_seq2seq(order=order)
    influence = jax.jit(jax.jacobian(lambda x: emit(model, x)[0]))(draw_window())[
        :, :, 0
    ]  # step, target, time, feature
    ahead, time = np.indices((STEPS, STEPS))
    expected = time >= STEPS - 1 - ahead if order == "reverse" else time <= ahead
    expected = np.broadcast_to(expected[:, None, :, None], influence.shape)
    np.testing.assert_array_equal(influence != 0, expected)


def test_the_orders_are_mirror_images():
    forward, reverse = build_seq2seq(order="forward"), build_seq2seq(order="reverse")
    np.testing.assert_array_equal(emit(forward, draw_window()), emit(reverse, draw_window()[:, ::-1]))


def test_a_window_of_one_step():
    assert emit(build_seq2seq(length=1), draw_window(1)).shape == (1, 1, EMITTED)


@pytest.mark.parametrize("order", ["reverse", "forward"])
def test_residual_adds_the_last_observed_values(order):
    change, mean = (emit(build_seq2seq(order=order, residual=residual), draw_window()) for residual in (False, True))
    np.testing.assert_allclose(mean - change, np.repeat(draw_window()[:, -1:, :EMITTED], STEPS, axis=1), 1e-5, 1e-6)


# The autoencoder: everything passes through the code.
AUTOENCODER = LSTMAutoencoderConfig(features=4, length=6, horizons=6, code=3, hidden=5, layers=2)


@pytest.fixture(scope="module")
def autoencoder():
    return LSTMAutoencoder(AUTOENCODER, rngs=nnx.Rngs(0))


def reconstruct(autoencoder, inputs):
    prediction = autoencoder(Batch(inputs, inputs), train=False)
    return prediction.mean, prediction.diagnostics["code"]


def draw_windows(count):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, 6, 4)), jnp.float32)


def test_the_code_is_the_encoders_last_state_and_all_that_the_decoder_reads(autoencoder):
    @jax.jit
    def by_hand(inputs):
        code = autoencoder.encoder(inputs, train=False)[0][:, -1]
        decoded, _ = autoencoder.decoder(jnp.repeat(code[:, None], 6, axis=1), train=False)
        return reconstruct(autoencoder, inputs), (autoencoder.output_layer(decoded), code)

    ours, expected = by_hand(draw_windows(2))
    assert ours[1].shape == (2, 3)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_no_more_passes_than_the_code_holds(autoencoder):
    """The reconstruction, 24 numbers, depends on the window, 24 numbers, by a map of rank 3."""
    jacobian = jax.jit(jax.jacobian(lambda x: reconstruct(autoencoder, x)[0]))(draw_windows(1)).reshape(24, 24)
    singular = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    assert singular[2] > 1e-4 * singular[0]
    assert singular[3] < 1e-6 * singular[0]
    assert np.all(np.any(jacobian != 0, axis=0)), "every input reaches the code"


# The spike-count LSTM: rates that stay positive and finite, and a likelihood that finds the mean.
NEURONS = 3


def build_counts(head, **sizes):
    config = SpikeCountLSTMConfig(features=2 * NEURONS, outputs=NEURONS, length=4, hidden=6, head=head, **sizes)
    return SpikeCountLSTM(config, rngs=nnx.Rngs(0))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(graph, params, rest, inputs, count):
    def loss(params):
        mean = nnx.merge(graph, params, rest, copy=True)(Batch(inputs, inputs), train=False).mean
        return LOSSES["poisson"](Prediction(mean), Batch(inputs, jnp.full_like(mean, count))).mean(), mean

    return jax.value_and_grad(loss, has_aux=True)(params)


def test_rates_and_likelihood_stay_finite():
    model, inputs = build_counts("poisson"), jnp.ones((2, 4, 2 * NEURONS))
    model.output_layer.kernel[...] *= 0
    for bias in (-1e4, -100.0, -3.0, 0.0, 100.0, 1e4):
        model.output_layer.bias[...] = jnp.full(NEURONS, bias)
        for count in (0.0, 1.0, 30.0):
            (value, mean), grads = value_and_gradients(*nnx.split(model, nnx.Param, ...), inputs, count)
            np.testing.assert_allclose(mean, np.logaddexp(bias, 0) + LOWEST_RATE, 1e-5)
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_the_heads_differ_by_a_softplus():
    inputs = jnp.ones((2, 4, 2 * NEURONS))
    rate, mean = (
        jax.jit(lambda x, h=h: build_counts(h)(Batch(x, x), train=False).mean)(inputs) for h in ("poisson", "mse")
    )
    np.testing.assert_allclose(rate, np.logaddexp(mean, 0) + LOWEST_RATE, 1e-5)
    assert np.any(mean < 0)


def test_learns_which_neuron_fires():
    """Each neuron's mean count in the next bin is its external input in the last: 0.1, or 2."""
    rng = np.random.default_rng(0)
    external = rng.choice([0.1, 2.0], (256, 4, NEURONS))
    inputs = jnp.asarray(np.concatenate([rng.poisson(1.0, external.shape), external], axis=2), jnp.float32)
    batch = Batch(inputs, jnp.asarray(rng.poisson(external[:, -1:]), jnp.float32))
    graph, params, rest = nnx.split(build_counts("poisson"), nnx.Param, ...)

    def loss(params):
        prediction = nnx.merge(graph, params, rest, copy=True)(batch, train=True)
        return LOSSES["poisson"](prediction, batch).mean(), prediction.mean

    @jax.jit
    def descend(params):
        def step(_, state):
            params, velocity, _ = state
            (_, mean), grads = jax.value_and_grad(loss, has_aux=True)(params)
            velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
            return jax.tree.map(jnp.add, params, velocity), velocity, mean

        start = params, jax.tree.map(jnp.zeros_like, params), jnp.zeros_like(batch.targets)
        return jax.lax.fori_loop(0, 150, step, start)[2]

    error = np.asarray(descend(params)) - external[:, -1:]
    assert np.mean(error**2) < 0.25 * np.var(external)


def test_starts_at_the_means_of_its_training_targets():
    values = np.random.default_rng(0).poisson(0.3, (60, NEURONS + 2)).astype(np.float32)
    starts = {"train": jnp.arange(0, 40, 3), "validation": jnp.arange(45, 50)}
    scaling = Scaling(np.zeros(NEURONS + 2, np.float32), np.ones(NEURONS + 2, np.float32))
    columns = tuple(range(1, NEURONS + 1))
    data = Windows(jnp.asarray(values), starts, scaling, 4, (1,), 1.0, 60, False, target_columns=columns)
    model = initialised(build_counts("mse"), data)
    means = values[np.asarray(starts["train"]) + 4][:, 1 : NEURONS + 1].mean(0)
    np.testing.assert_array_equal(model.output_layer.bias[...], means)
    assert initialised(data, data) is data, "what has no such method stays as it is"


def test_starts_at_the_data_and_hears_its_own_past():
    mean = jnp.asarray([[0.09, 2.0, 0.0]])
    for head, tolerance in (("poisson", 2e-6), ("mse", 0)):
        model = build_counts(head, own_hidden=5, kernel_init="zeros")
        model.start_at(mean)
        out = model(Batch(jnp.ones((2, 4, 2 * NEURONS)), mean), train=False).mean
        floor = 1e-3 if head == "poisson" else 0
        np.testing.assert_allclose(out, np.broadcast_to(np.maximum(mean, floor), out.shape), 1e-5, tolerance)
    # Without the LSTM, a neuron's mean depends on its own two columns and on no others.
    last = model.own[1]
    last.kernel[...] = jnp.ones_like(last.kernel[...])
    with jax.numpy_rank_promotion("allow"):
        slope = jax.jacobian(lambda x: model(Batch(x[None], mean), train=False).mean[0, 0])(jnp.ones((4, 2 * NEURONS)))
    heard = np.any(np.asarray(slope) != 0, axis=1)
    np.testing.assert_array_equal(heard, np.tile(np.eye(NEURONS, dtype=bool), 2))
