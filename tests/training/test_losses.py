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
LEVELS = 0.1, 0.5, 0.9
QUANTILES = RNG.normal(size=(5, 2, 3, len(LEVELS)))
COUNTS = RNG.poisson(1.0, (5, 2, 3)).astype(float)
BATCH = Batch(jnp.zeros((5, 4, 3)), jnp.asarray(TARGET))


@pytest.mark.parametrize(
    ("name", "theirs", "mean", "target"),
    [
        ("mse", torch.nn.MSELoss(), MEAN, TARGET),
        ("mae", torch.nn.L1Loss(), MEAN, TARGET),
        ("poisson", torch.nn.PoissonNLLLoss(log_input=False, full=False), MEAN**2, COUNTS),
        ("poisson", torch.nn.PoissonNLLLoss(log_input=False, full=False), 0 * MEAN, COUNTS),
    ],
    ids=["mse", "mae", "poisson", "poisson of no rate"],
)
def test_mean_over_windows_is_torchs(name, theirs, mean, target):
    ours = LOSSES[name](Prediction(jnp.asarray(mean)), BATCH._replace(targets=jnp.asarray(target)))
    assert ours.shape == (5,)
    np.testing.assert_allclose(ours.mean(), theirs(torch.tensor(mean), torch.tensor(target)).item(), rtol=1e-6)


def test_poisson_is_least_at_the_mean_count():
    rates = jnp.linspace(0.1, 4, 40)[:, None, None]
    counts = BATCH._replace(targets=jnp.asarray(COUNTS).reshape(1, 1, -1))
    losses = LOSSES["poisson"](Prediction(jnp.broadcast_to(rates, (40, 1, COUNTS.size))), counts)
    assert abs(rates[jnp.argmin(losses), 0, 0] - COUNTS.mean()) <= 0.05


def test_pinball():
    expected = np.zeros((5, 2, 3))
    for i, level in enumerate(LEVELS):
        below = QUANTILES[..., i] < TARGET
        expected += np.abs(TARGET - QUANTILES[..., i]) * np.where(below, level, 1 - level)
    ours = LOSSES["pinball"](Prediction(jnp.asarray(MEAN), jnp.asarray(QUANTILES), levels=jnp.asarray(LEVELS)), BATCH)
    np.testing.assert_allclose(ours, expected.mean((1, 2)), rtol=1e-6)
    with pytest.raises(ValueError, match="use 'mse'"):
        LOSSES["pinball"](Prediction(jnp.asarray(MEAN)), BATCH)
