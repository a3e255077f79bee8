"""The encoder–decoder: published sizes, wiring, receptive field, learned slopes, precision, and bad configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jneuro.datasets.windows import Batch
from jneuro.models import EncoderDecoder, EncoderDecoderConfig, encoder_decoder

SMALL = {
    "length": 16,
    "horizons": 11,
    "crop": (2, 3),
    "features": 2,
    "outputs": 3,
    "layers": 3,
    "filters": (3, 4, 5),
    "kernel": (4, 3, 5),
    "stride": (2, 4, 1),
    "input_scale": 0.5,
    "output_scale": 2.0,
}

TWO_LAYERS = {"layers": 2, "filters": (3, 4), "kernel": (4, 3), "stride": (2, 4)}

HAIR_CELL = {"filters": 128, "layers": 3}
COCHLEA = {
    "filters": 128,
    "layers": 4,
    "kernel": 64,
    "outputs": 201,
    "decoder_activation": "tanh",
    "bias": False,
}
NERVE = {
    "length": 16384,
    "horizons": 8192,
    "crop": (7936, 256),
    "layers": 14,
    "kernel": 8,
    "encoder_activation": "prelu",
    "decoder_activation": "prelu",
}


@pytest.mark.parametrize(
    ("fields", "parameters", "field"),
    [({}, 1_511_489, 7666), (HAIR_CELL, 1_317_505, 106), (COCHLEA, 11_689_984, 946), (NERVE, 1_250_177, 114_682)],
    ids=["hodgkin_huxley", "hair cell", "cochlea", "nerve"],
)
def test_published_sizes(fields, parameters, field):
    config = EncoderDecoderConfig(**fields)
    model = nnx.eval_shape(lambda: EncoderDecoder(config, rngs=nnx.Rngs(0)))
    inputs = jax.ShapeDtypeStruct((3, config.length, 1), jnp.float32)
    mean = nnx.eval_shape(lambda model, x: model(Batch(x, x), train=False).mean, model, inputs)
    assert mean.shape == (3, config.horizons, config.targets)
    assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == parameters
    assert config.receptive_field() == field


def build(seed=0, **fields):
    model = EncoderDecoder(EncoderDecoderConfig(**SMALL | fields), rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda p: jnp.asarray(p + 0.2 * rng.normal(size=p.shape)), nnx.state(model, nnx.Param))
    nnx.update(model, moved)
    return model


def draw(batch=4, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, SMALL["length"], SMALL["features"])))


def predict(model, inputs):
    graph, state = nnx.split(model)
    return jax.jit(lambda state: nnx.merge(graph, state)(Batch(inputs, inputs), train=False).mean)(state)


def written_out(model, inputs):
    """The network by XLA's convolutions, as its equations are written in the class."""
    config = model.config
    axes = ("NWC", "WIO", "NWC")

    def activate(part, k, x):
        slopes = {"encoder": "encoder_prelu", "decoder": "decoder_prelu"}[part]
        if getattr(config, f"{part}_activation") == "prelu":
            return jnp.where(x > 0, x, x * getattr(model, slopes)[k].weight[...][None, None])
        return {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[getattr(config, f"{part}_activation")](x)

    def bias(layer):
        return 0 if layer.bias is None else layer.bias[...][None, None]

    x, skips = inputs * config.input_scale, []
    for k, (layer, stride) in enumerate(zip(model.encoder, config.stride, strict=True)):
        z = lax.conv_general_dilated(x, layer.kernel[...], (stride,), "SAME", dimension_numbers=axes) + bias(layer)
        x = activate("encoder", k, z)
        skips.append(z if config.skip == "before_activation" else x)
    for k, (layer, stride) in enumerate(zip(model.decoder, config.stride[::-1], strict=True)):
        if k:
            x = jnp.concatenate([activate("decoder", k - 1, x), skips[-1 - k]], -1)
        x = lax.conv_transpose(x, layer.kernel[...], (stride,), "SAME", dimension_numbers=axes, transpose_kernel=True)
        x = x + bias(layer)
    return jnp.tanh(x)[:, 2:-3] / config.output_scale


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder_activation": "prelu", "decoder_activation": "prelu", "skip": "after_activation"},
        {"bias": False, "kernel": (4, 5, 5)},
    ],
    ids=["prelu", "published"],
)
def test_wiring_and_gradients(x64, fields, monkeypatch):
    model = build(**fields, output_activation="tanh")
    monkeypatch.setattr(encoder_decoder, "microbatch", lambda batch, rows: 2)
    graph, params = nnx.split(model)
    inputs = draw()

    def run(function):
        value, pullback = jax.vjp(lambda params: function(nnx.merge(graph, params), inputs), params)
        return value, pullback(jnp.cos(value))

    ours, expected = jax.jit(
        lambda: [run(f) for f in (lambda model, x: model(Batch(x, x), train=True).mean, written_out)]
    )()
    assert len(jax.tree.leaves(ours[1])) == (6 if "bias" in fields else 17)
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, 1e-9, 1e-10)


def test_gradients_equal_differences(x64):
    model = build(**TWO_LAYERS, encoder_activation="silu", output_activation="sigmoid")
    graph, params = nnx.split(model)
    inputs = draw()
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    @jax.jit
    def loss(params):
        return jnp.mean(nnx.merge(graph, params)(Batch(inputs, inputs), train=True).mean ** 2)

    grads, step = jax.grad(loss)(params), 1e-5
    ahead, behind = (loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction)) for s in (step, -step))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), grads, direction)))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-7)


def test_receptive_field_is_the_support_of_the_jacobian():
    model = build(length=48, horizons=43, kernel=(4, 3, 2))
    for layer in model.encoder:
        layer.kernel[...] = jnp.ones_like(layer.kernel[...])

    @jax.jit
    def influence(inputs):
        def middle(x):
            for layer in model.encoder:
                x = layer(x)
            return x[0, x.shape[1] // 2, 0]

        return jax.grad(middle)(inputs)[0, :, 0]

    assert np.count_nonzero(influence(jnp.ones((1, 48, 2)))) == model.config.receptive_field()


def test_bfloat16_is_close_and_returns_single_precision():
    single, half = (build(**TWO_LAYERS, precision=p, encoder_activation="relu") for p in ("float32", "bfloat16"))
    inputs = draw().astype(jnp.float32)
    exact, rough = predict(single, inputs), predict(half, inputs)
    assert rough.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(nnx.state(half, nnx.Param))} == {jnp.dtype("float32")}
    assert 0 < np.abs(rough - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 18, "horizons": 13}, "divisible by 8, the product of the strides, got 18; try 16"),
        ({"horizons": 12}, "horizons must be length - crop = 16 - 5 = 11"),
        ({"filters": (3, 4)}, "filters must be one number or one for each of 3 layers"),
        ({"crop": (-1, 3)}, "crop"),
        ({"kernel": 0}, "kernel"),
        ({"encoder_activation": "gelu"}, "encoder_activation"),
    ],
)
def test_bad_configurations(fields, message):
    with pytest.raises(ValueError, match=message):
        EncoderDecoderConfig(**SMALL | fields)


def test_inputs_of_another_length():
    with pytest.raises(ValueError, match="length=16"):
        build()(Batch(jnp.zeros((1, 8, 2)), jnp.zeros((1, 3, 2))), train=False)
