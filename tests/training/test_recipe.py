"""Learning rates and stopping, as functions of the validation losses."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jneuro.core.config import ConfigError
from jneuro.training import Adam, Plateau, TrainConfig
from jneuro.training.recipe import learning_rate, rate_factor, stop_reason


def test_defaults_are_the_published_recipe():
    recipe = TrainConfig()
    assert [learning_rate(recipe, [1.0] * e) for e in (0, 1, 5)] == [5e-6, pytest.approx(5e-6 + 2.995e-3 / 5), 3e-3]
    assert recipe.optimizer == Adam(learning_rate=3e-3, weight_decay=1e-4, clip_norm=1.0)
    assert (recipe.batch_size, recipe.epochs, recipe.early_stopping, recipe.loss.name) == (32, 200, 20, "mse")


@pytest.mark.parametrize("seed", range(4))
def test_plateau_is_torchs(seed):
    losses = list(np.random.default_rng(seed).uniform(0.9, 1, 300) * 0.9997 ** np.arange(300))
    recipe = TrainConfig(warmup_epochs=3, plateau=Plateau(patience=2))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=3e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=2, min_lr=1e-5)
    expected = []
    for loss in losses[3:]:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    assert [learning_rate(recipe, losses[:e]) for e in range(3, 300)] == expected
    assert expected[-1] == 1e-5


@pytest.mark.parametrize("offset", [5.0, 0.0, -5.0])
def test_a_negative_loss_has_plateaus_too(offset):
    # PyTorch's bar, best·(1 − threshold), lies above a negative best, so that a rise would count as a fall.
    recipe = TrainConfig(warmup_epochs=0, plateau=Plateau(patience=1))
    for losses in (np.full(12, offset), offset + 4e-4 * np.arange(12)):
        assert learning_rate(recipe, losses) == pytest.approx(3e-3 * 0.7**5)
    assert learning_rate(recipe, offset - 0.01 * np.arange(12)) == 3e-3


def test_plateau_acts_after_patience_and_one_more():
    recipe = TrainConfig(warmup_epochs=0)
    assert [learning_rate(recipe, [1.0] * e) for e in (4, 5)] == [3e-3, 3e-3 * 0.7]
    assert learning_rate(TrainConfig(warmup_epochs=0, plateau=None), [1.0] * 50) == 3e-3


def test_cosine_begins_after_the_warmup():
    recipe = TrainConfig(schedule="cosine", plateau=None, epochs=10, warmup_epochs=2)
    factors = [float(rate_factor(recipe, 7)(jnp.int32(step))) for step in (0, 14, 42, 70)]
    np.testing.assert_allclose(factors, [1, 1, 0.5, 0], atol=1e-6)
    with pytest.raises(ConfigError, match="set plateau to null"):
        TrainConfig(schedule="cosine")


@pytest.mark.parametrize(
    ("losses", "reason"),
    [([], None), ([3, 2, 2.5], None), ([3, 2, 2.5, 2], "early_stopping"), ([6, 5, 4, 3, 2], "epochs")],
)
def test_stop_reason(losses, reason):
    assert stop_reason(TrainConfig(epochs=5, early_stopping=2), losses) == reason


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"optimizer": {"name": "sgd"}}, {"loss": "l4"}, {"typo": 1}])
def test_refuses(changes):
    with pytest.raises(ConfigError):
        TrainConfig(**changes)


def test_optimizer_is_chosen_by_name():
    assert TrainConfig.model_validate({"optimizer": {"name": "adamw", "clip_norm": None}}).optimizer.name == "adamw"
