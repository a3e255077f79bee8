"""The sequence-to-sequence LSTM: which inputs reach which predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.models import Seq2SeqLSTM, Seq2SeqLSTMConfig

LENGTH, FEATURES, TARGETS = 5, 4, 3


def build(length=LENGTH, **fields):
    sizes = {"features": FEATURES, "outputs": TARGETS, "length": length, "horizons": length, "hidden": 6, "layers": 2}
    return Seq2SeqLSTM(Seq2SeqLSTMConfig(**sizes, **fields), rngs=nnx.Rngs(0))


def draw(length=LENGTH):
    return jnp.asarray(np.random.default_rng(0).normal(size=(1, length, FEATURES)), jnp.float32)


def predict(model, inputs):
    return model(Batch(inputs, inputs), train=False).mean


@pytest.mark.parametrize("order", ["reverse", "forward"])
def test_each_step_ahead_sees_one_more_input(order):
    """Prediction k, counted from 0, has read the newest k + 1 inputs; read forward, the oldest k + 1."""
    model = build(order=order)
    influence = jax.jit(jax.jacobian(lambda x: predict(model, x)[0]))(draw())[:, :, 0]  # step, target, time, feature
    ahead, time = np.indices((LENGTH, LENGTH))
    expected = time >= LENGTH - 1 - ahead if order == "reverse" else time <= ahead
    expected = np.broadcast_to(expected[:, None, :, None], influence.shape)
    np.testing.assert_array_equal(influence != 0, expected)


def test_the_orders_are_mirror_images():
    forward, reverse = build(order="forward"), build(order="reverse")
    np.testing.assert_array_equal(predict(forward, draw()), predict(reverse, draw()[:, ::-1]))


def test_one_step():
    assert predict(build(length=1), draw(1)).shape == (1, 1, TARGETS)


@pytest.mark.parametrize("order", ["reverse", "forward"])
def test_residual_adds_the_last_observed_values(order):
    change, mean = (predict(build(order=order, residual=residual), draw()) for residual in (False, True))
    np.testing.assert_allclose(mean - change, np.repeat(draw()[:, -1:, :TARGETS], LENGTH, axis=1), 1e-5, 1e-6)
