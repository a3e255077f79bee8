"""The Temporal Fusion Transformer: what its outputs may depend on, and what it says of itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.models import TemporalFusionTransformer, TemporalFusionTransformerConfig
from jneuro.models.tft import interpolation
from jneuro.training import LOSSES

BATCH, LENGTH, HORIZONS, TARGETS = 3, 5, 4, 2
SIZES = {"features": 6, "length": LENGTH, "horizons": HORIZONS, "outputs": TARGETS, "hidden": 8, "heads": 2}
# Columns 0 and 3 are known, 4 and 2 static; 2 and 3 are categorical.
MIXED = SIZES | {"known": (3, 0), "static": (4, 2), "categories": ((2, 3), (3, 4)), "dropout": 0.2}
# The same data, all of it real, nothing static.
PLAIN = SIZES | {"known": (3, 0), "hidden": 4}
COMPAT = {"compat": "pytorch_forecasting", "hidden_continuous": 5}


def build(**fields):
    return TemporalFusionTransformer(TemporalFusionTransformerConfig(**fields), rngs=nnx.Rngs(0))


def mixed(**changes):
    return away(**MIXED | changes)


@functools.cache
def away(**fields):
    """Graph and state of a model, its parameters away from where they start."""
    model, rng = build(kernel_init="zeros", **fields), np.random.default_rng(0)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params = jax.tree.map(np.asarray, params)
    return graph, jax.tree.map(lambda p: jnp.asarray(p + 0.3 * rng.normal(size=p.shape), jnp.float32), params), rest


def draw(seed=0):
    rng = np.random.default_rng(seed)
    inputs, future = rng.normal(size=(BATCH, LENGTH, 6)), rng.normal(size=(BATCH, HORIZONS, 2))
    inputs[..., 2], inputs[..., 3] = rng.integers(3, size=(BATCH, LENGTH)), rng.integers(4, size=(BATCH, LENGTH))
    future[..., 0] = rng.integers(4, size=(BATCH, HORIZONS))
    targets = rng.normal(size=(BATCH, HORIZONS, TARGETS))
    return Batch(*(jnp.asarray(a, jnp.float32) for a in (inputs, targets, future)))


@functools.partial(jax.jit, static_argnames=("graph", "train"))
def predict(graph, params, rest, batch, *, train=False):
    return nnx.merge(graph, params, rest, copy=True)(batch, train=train)


@pytest.mark.parametrize("compat", [False, True])
def test_attention_and_selection_are_weights(compat):
    prediction = predict(*mixed(**COMPAT if compat else {}), draw())
    assert prediction.quantiles.shape == (BATCH, HORIZONS, TARGETS, 3)
    np.testing.assert_array_equal(prediction.mean, prediction.quantiles[..., 1])
    np.testing.assert_allclose(prediction.levels, (0.1, 0.5, 0.9), rtol=1e-6)
    shapes = {
        "attention": (BATCH, HORIZONS, LENGTH + HORIZONS),
        "attention_heads": (BATCH, 2, HORIZONS, LENGTH + HORIZONS),
        "static_weights": (BATCH, 2),
        "past_weights": (BATCH, LENGTH, 4),
        "future_weights": (BATCH, HORIZONS, 2),
    }
    assert {name: value.shape for name, value in prediction.diagnostics.items()} == shapes
    for name, value in prediction.diagnostics.items():
        assert np.all(value >= 0)
        np.testing.assert_allclose(value.sum(-1), 1, rtol=1e-5, err_msg=name)
    reaches = np.tri(HORIZONS, LENGTH + HORIZONS, LENGTH - compat, dtype=bool)
    np.testing.assert_array_equal(
        prediction.diagnostics["attention_heads"] > 0, np.broadcast_to(reaches, shapes["attention_heads"])
    )


@pytest.mark.parametrize("compat", [{}, COMPAT])
def test_attention_that_is_not_causal_reaches_every_horizon(compat):
    """pytorch-forecasting's `causal_attention=False`, which its weights do not say."""
    attention = predict(*mixed(causal_attention=False, **compat), draw()).diagnostics["attention_heads"]
    assert np.all(attention > 0)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_a_horizon_hears_of_known_inputs_up_to_itself():
    graph, params, rest = mixed()
    batch = draw()

    def forecast(future):
        return nnx.merge(graph, params, rest, copy=True)(batch._replace(future=future), train=False).mean[0, :, 0]

    influence = np.asarray(jax.jit(jax.jacrev(forecast))(batch.future))[:, 0, :, 1]
    np.testing.assert_array_equal(influence != 0, np.tri(HORIZONS, dtype=bool))


def test_static_columns_are_read_once_and_classes_must_exist():
    model, batch = mixed(), draw()
    expected = np.asarray(predict(*model, batch).quantiles)

    def changed(index, value):
        inputs = np.array(batch.inputs)
        inputs[index] = value
        return np.asarray(predict(*model, batch._replace(inputs=inputs)).quantiles)

    for column, value in ((4, 0.3), (2, 5.0)):
        np.testing.assert_array_equal(changed((slice(None), slice(1, None), column), value), expected)
    assert not np.any(np.isclose(changed((0, 0, 4), 9.0)[0], expected[0], rtol=1e-6, atol=0).all())
    for wrong in (4.0, -1.0, 1.5):
        found = changed((1, 2, 3), wrong)
        assert np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[::2], expected[::2])


def test_values_are_dropped_in_training_only():
    graph, params, rest = mixed()
    batch = draw()
    model = nnx.merge(graph, params, rest, copy=True)
    nnx.reseed(model, dropout=jax.random.key(1))
    other = nnx.state(model, nnx.Not(nnx.Param))
    first, again = (predict(graph, params, rest, batch, train=True).mean for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, predict(graph, params, other, batch, train=True).mean)
    np.testing.assert_array_equal(predict(graph, params, rest, batch).mean, predict(graph, params, other, batch).mean)


def test_gradients_are_those_of_differences(x64):
    graph, params, rest = away(**PLAIN)
    rng = np.random.default_rng(1)
    params, batch = (jax.tree.map(lambda a: np.asarray(a, np.float64), tree) for tree in (params, draw()))
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    length = np.sqrt(sum(np.sum(d**2) for d in jax.tree.leaves(direction)))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(params, inputs):
        model = nnx.merge(graph, params, rest, copy=True)
        prediction = model(batch._replace(inputs=inputs), train=False)
        # Smooth, unlike the pinball loss.
        return jnp.mean((prediction.quantiles - batch.targets[..., None]) ** 2)

    def moved(step):
        return loss(jax.tree.map(lambda p, d: p + step / length * d, params, direction), batch.inputs)[0]

    grads, grad_inputs = loss(params, batch.inputs)[1]
    slope = sum(np.vdot(g, d) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)) / length
    np.testing.assert_allclose((moved(1e-5) - moved(-1e-5)) / 2e-5, slope, rtol=1e-5)
    shift = np.zeros_like(batch.inputs)
    shift[1, 2, 1] = 1e-5
    difference = (loss(params, batch.inputs + shift)[0] - loss(params, batch.inputs - shift)[0]) / 2e-5
    np.testing.assert_allclose(difference, grad_inputs[1, 2, 1], rtol=1e-5)
    silent = [path for path, g in nnx.to_flat_state(grads) if not np.any(g[...])]
    assert not silent


def test_half_precision_stays_close():
    expected, found = predict(*away(**PLAIN), draw()), predict(*away(**PLAIN, precision="bfloat16"), draw())
    assert found.mean.dtype == jnp.float32
    error = np.abs(found.quantiles - expected.quantiles)
    assert 0 < error.max() < 0.1 * np.abs(expected.quantiles).max()


def test_an_ensemble_in_one_program():
    graph, params, rest = away(**PLAIN)
    pair = jax.tree.map(lambda p: np.stack([p, 0.5 * np.asarray(p)]), params)
    batch = draw()
    both = jax.jit(jax.vmap(lambda params: predict(graph, params, rest, batch)))(pair)
    both = jax.tree.map(np.asarray, both)
    for k in range(2):
        one = predict(graph, jax.tree.map(lambda p, k=k: p[k], pair), rest, batch)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            jax.tree.map(lambda a, k=k: a[k], both),
            one,
        )


def test_without_static_and_known_columns_and_with_other_levels():
    model = nnx.split(build(**SIZES, kernel_init="zeros", quantiles=(0.2, 0.5)), nnx.Param, ...)
    batch = draw()
    prediction = predict(*model, batch._replace(future=None))
    assert prediction.diagnostics["static_weights"].shape == (BATCH, 0)
    assert prediction.diagnostics["future_weights"].shape == (BATCH, HORIZONS, 0)
    error = batch.targets[..., None] - prediction.quantiles
    expected = np.where(error > 0, error, 0) * [0.2, 0.5] - np.where(error < 0, error, 0) * [0.8, 0.5]
    np.testing.assert_allclose(LOSSES["pinball"](prediction, batch), expected.sum(-1).mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "hidden must be a multiple of heads, got hidden = 8, heads = 3"),
        ({"known": (6,)}, "known names column 6, but the 6 features are columns 0 to 5"),
        ({"static": (-1,)}, "greater than or equal to 0"),
        ({"known": (1, 1)}, "known names column 1 more than once"),
        ({"categories": ((1, 3), (1, 4))}, "categories names column 1 more than once"),
        ({"known": (1, 2), "static": (2,)}, "column 2 is both static and known"),
        ({"static": tuple(range(6))}, "all 6 features are static"),
        ({"quantiles": (0.1, 0.9)}, "quantiles must ascend and hold 0.5"),
        ({"quantiles": (0.9, 0.5, 0.1)}, "quantiles must ascend and hold 0.5"),
        ({"hidden_continuous": 4}, "needs compat = pytorch_forecasting"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        TemporalFusionTransformerConfig(**SIZES | changes)


def test_what_is_known_must_be_given():
    with pytest.raises(ValueError, match=r"future must be \[batch, horizons=4, known=2\], got None"):
        predict(*mixed(), draw()._replace(future=None))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 4), (5, 8), (9, 6), (7, 1), (3, 3)])
def test_interpolation_is_torchs(inputs, outputs):
    x = np.random.default_rng(0).normal(size=(2, inputs))
    theirs = torch.nn.functional.interpolate(torch.tensor(x)[:, None], outputs, mode="linear", align_corners=True)
    np.testing.assert_allclose(x @ interpolation(inputs, outputs), theirs[:, 0], rtol=1e-12, atol=1e-12)
