"""Losses against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction
from jneuro.training import LOSSES

RNG = np.random.default_rng(0)
MEAN, TARGET = RNG.normal(size=(2, 5, 2, 3))
QUANTILES = RNG.normal(size=(5, 2, 3, 3))
BATCH = Batch(jnp.zeros((5, 4, 3)), jnp.asarray(TARGET))


@pytest.mark.parametrize(("name", "theirs"), [("mse", torch.nn.MSELoss()), ("mae", torch.nn.L1Loss())])
def test_mean_over_windows_is_torchs(name, theirs):
    ours = LOSSES[name](Prediction(jnp.asarray(MEAN)), BATCH)
    assert ours.shape == (5,)
    np.testing.assert_allclose(ours.mean(), theirs(torch.tensor(MEAN), torch.tensor(TARGET)).item(), rtol=1e-6)


def test_pinball():
    expected = np.zeros((5, 2, 3))
    for i, level in enumerate((0.1, 0.5, 0.9)):
        below = QUANTILES[..., i] < TARGET
        expected += np.abs(TARGET - QUANTILES[..., i]) * np.where(below, level, 1 - level)
    ours = LOSSES["pinball"](Prediction(jnp.asarray(MEAN), jnp.asarray(QUANTILES)), BATCH)
    np.testing.assert_allclose(ours, expected.mean((1, 2)), rtol=1e-6)
    with pytest.raises(ValueError, match="use 'mse'"):
        LOSSES["pinball"](Prediction(jnp.asarray(MEAN)), BATCH)
