"""The transformer that forecasts neuron by neuron."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.models import NeuronTFT, NeuronTFTConfig

CONFIG = NeuronTFTConfig(features=4, outputs=3, length=5, horizons=2, hidden=4, heads=2, dropout=0.0)


@pytest.fixture(scope="module")
def told():
    """The compiled model."""
    graph, variables = nnx.split(NeuronTFT(CONFIG, rngs=nnx.Rngs(0)))
    call = jax.jit(lambda x: nnx.merge(graph, variables)(Batch(x, jnp.zeros((len(x), 2, 3))), train=False))
    return lambda x: jax.tree.map(np.asarray, call(jnp.asarray(x, jnp.float32)))


INPUTS = np.random.default_rng(0).normal(size=(2, 5, 4))


def test_shapes(told):
    found = told(INPUTS)
    assert found.mean.shape == (2, 2, 3)
    assert found.quantiles.shape == (2, 2, 3, 3)
    assert found.diagnostics["attention"].shape == (2, 3, 2, 7)
    np.testing.assert_array_equal(found.mean, found.quantiles[..., 1])
    np.testing.assert_allclose(found.diagnostics["attention"].sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(("column", "heard"), [(1, [False, True, False]), (3, [True, True, True])])
def test_a_neuron_hears_itself_and_what_all_are_told(told, column, heard):
    changed = INPUTS.copy()
    changed[..., column] += 1
    moved = np.abs(told(changed).mean - told(INPUTS).mean).max((0, 1)) > 1e-6
    assert moved.tolist() == heard


def test_neurons_are_told_apart(told):
    alike = np.broadcast_to(INPUTS[..., :1], INPUTS.shape)
    mean = told(alike).mean
    assert (np.abs(np.diff(mean, axis=2)) > 1e-6).all()


def test_it_must_observe_what_it_predicts():
    with pytest.raises(ValueError, match="observe the targets"):
        NeuronTFTConfig(features=2, outputs=3)
