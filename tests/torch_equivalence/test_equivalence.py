"""Every model and every kind of training against PyTorch; what is compared, and how, says `equivalence`."""

import jax
import numpy as np
import pytest
from cases import CASES, RECIPES
from equivalence import BOUNDS, compare
from flax import nnx
from twins.encoder_decoder import EncoderDecoderTwin
from twins.forecaster import CNNLSTMTwin

from jneuro.models import MODELS, CNNLSTMConfig, EncoderDecoderConfig, build_model


@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", CASES)
def test_model(x64, name, dtype):
    errors, _ = compare(CASES[name], dtype)
    assert max(errors.values()) < BOUNDS[dtype], errors


def test_every_model_has_a_case():
    assert {case.config.name for case in CASES.values()} == set(MODELS)


@pytest.mark.parametrize("name", RECIPES)
def test_training(x64, name):
    errors, training = compare(RECIPES[name], np.float64)
    assert max(errors.values()) < BOUNDS[np.float64], errors
    assert len(set(training.rates)) > 1, "the schedule must have acted"
    if limit := RECIPES[name].recipe.optimizer.clip_norm:
        assert min(training.norms) < limit < max(training.norms), "clipping must have acted, and not always"


@pytest.mark.parametrize(
    ("config", "twin", "count"),
    [(CNNLSTMConfig(), CNNLSTMTwin, 2_188_168), (EncoderDecoderConfig(), EncoderDecoderTwin, 1_511_489)],
    ids=["cnn_lstm", "encoder_decoder"],
)
def test_parameters_in_all(config, twin, count):
    model = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
    assert sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == count
    assert sum(p.numel() for p in twin(config).parameters()) == count
