"""The LSTM autoencoder: everything passes through the code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.models import LSTMAutoencoder, LSTMAutoencoderConfig

CONFIG = LSTMAutoencoderConfig(features=4, length=6, horizons=6, code=3, hidden=5, layers=2)


@pytest.fixture(scope="module")
def model():
    return LSTMAutoencoder(CONFIG, rngs=nnx.Rngs(0))


def reconstruct(model, inputs):
    prediction = model(Batch(inputs, inputs), train=False)
    return prediction.mean, prediction.diagnostics["code"]


def draw(count):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, 6, 4)), jnp.float32)


def test_the_code_is_the_encoders_last_state_and_all_that_the_decoder_reads(model):
    @jax.jit
    def by_hand(inputs):
        code = model.encoder(inputs, train=False)[0][:, -1]
        decoded, _ = model.decoder(jnp.repeat(code[:, None], 6, axis=1), train=False)
        return reconstruct(model, inputs), (model.output_layer(decoded), code)

    ours, expected = by_hand(draw(2))
    assert ours[1].shape == (2, 3)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_no_more_passes_than_the_code_holds(model):
    """The reconstruction, 24 numbers, depends on the window, 24 numbers, by a map of rank 3."""
    jacobian = jax.jit(jax.jacobian(lambda x: reconstruct(model, x)[0]))(draw(1)).reshape(24, 24)
    singular = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    assert singular[2] > 1e-4 * singular[0]
    assert singular[3] < 1e-6 * singular[0]
    assert np.all(np.any(jacobian != 0, axis=0)), "every input reaches the code"
