"""Losses: what a prediction costs, one number for each window.

Per-window values, not their mean, so that the padding of the last validation batch can be left out exactly. Every
window holds equally many values, so the mean over a batch is the mean over all its values, as in PyTorch.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from jneuro._types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction

__all__ = ["LOSSES", "QUANTILES", "Loss", "LossName", "mae", "mse", "pinball"]

Loss = Callable[[Prediction, Batch], Float[Array, " batch"]]
"""Takes a prediction and its batch, returns one value for each window."""

LossName = Literal["mse", "mae", "pinball"]

QUANTILES = (0.1, 0.5, 0.9)
"""The quantile levels of `pinball` (Lim et al. 2021, section 4.6)."""


def mse(prediction: Prediction, batch: Batch) -> Float[Array, " batch"]:
    """Mean squared error, `(ŷ − y)²` over horizons and features.

    Args:
        prediction: what the model said.
        batch: what happened.

    Returns:
        One value for each window.
    """
    return jnp.mean((prediction.mean - batch.targets) ** 2, (1, 2))


def mae(prediction: Prediction, batch: Batch) -> Float[Array, " batch"]:
    """Mean absolute error, `|ŷ − y|` over horizons and features.

    Args:
        prediction: what the model said.
        batch: what happened.

    Returns:
        One value for each window.
    """
    return jnp.mean(jnp.abs(prediction.mean - batch.targets), (1, 2))


def pinball(prediction: Prediction, batch: Batch) -> Float[Array, " batch"]:
    """Quantile loss `max(q·(y − ŷ), (q − 1)·(y − ŷ))`, summed over the levels `QUANTILES`.

    Args:
        prediction: what the model said; its quantiles must be those of `QUANTILES`.
        batch: what happened.

    Returns:
        One value for each window, a mean over horizons and features.

    Raises:
        ValueError: if the model predicts no quantiles, or another number of them.

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 24 and 25.
    """
    if prediction.quantiles is None or prediction.quantiles.shape[-1] != len(QUANTILES):
        found = None if prediction.quantiles is None else prediction.quantiles.shape[-1]
        raise ValueError(f"the loss 'pinball' needs a model with the quantiles {QUANTILES}, got {found}; use 'mse'")
    error = batch.targets[..., None] - prediction.quantiles
    level = jnp.asarray(QUANTILES, error.dtype).reshape(1, 1, 1, -1)
    return jnp.mean(jnp.maximum(level * error, (level - 1) * error).sum(-1), (1, 2))


LOSSES: dict[LossName, Loss] = {"mse": mse, "mae": mae, "pinball": pinball}
"""Losses by the name that a configuration gives."""
