"""Losses: what a prediction costs, one number for each window.

Per-window values, not their mean, so that the padding of the last validation batch can be left out exactly. Every
window holds equally many values, so the mean over a batch is the mean over all its values, as in PyTorch.
"""

from collections.abc import Callable

import jax.numpy as jnp

from jneuro.core.registry import Block
from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction
from jneuro.training.kinds import bound

__all__ = ["Loss", "cost", "mae", "mse", "pinball", "poisson"]

Loss = Callable[[Prediction, Batch], Float[Array, " batch"]]
"""Takes a prediction and its batch, returns one value for each window."""


def cost(loss: Block) -> Loss:
    """The function behind a loss or a metric; it checks, while tracing, that there is one value for each window.

    Args:
        loss: what `LOSSES.block` returns.

    Returns:
        The loss.

    Raises:
        ValueError: if it cannot be called with a prediction and a batch; when called, if its result has another shape.
    """
    function = bound(loss, ("prediction", "batch"))

    def checked(prediction: Prediction, batch: Batch) -> Float[Array, " batch"]:
        values = function(prediction, batch)
        if jnp.shape(values) != batch.targets.shape[:1]:
            raise ValueError(
                f"{loss.name} returned shape {list(jnp.shape(values))}, but must return one value for each of the "
                f"{len(batch.targets)} windows; take the mean over all axes but the first, as in .mean((1, 2))"
            )
        return values

    return checked


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
    """Quantile loss `max(q·(y − ŷ), (q − 1)·(y − ŷ))`, summed over the prediction's levels q.

    Args:
        prediction: what the model said, quantiles and their levels.
        batch: what happened.

    Returns:
        One value for each window, a mean over horizons and features.

    Raises:
        ValueError: if the model predicts no quantiles.

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 24 and 25.
    """
    if prediction.quantiles is None or prediction.levels is None:
        raise ValueError("the loss 'pinball' needs a model that predicts quantiles, such as 'tft'; use 'mse'")
    error = batch.targets[..., None] - prediction.quantiles
    level = prediction.levels.astype(error.dtype)[None, None, None]
    return jnp.mean(jnp.maximum(level * error, (level - 1) * error).sum(-1), (1, 2))


def poisson(prediction: Prediction, batch: Batch) -> Float[Array, " batch"]:
    """Negative log-likelihood of counts, `λ − y·log(λ + 1e-8)` over horizons and features, without its constant log y!.

    As `torch.nn.PoissonNLLLoss(log_input=False, full=False)`, whose ε this is. The targets are raw counts, and the
    means rates λ ≥ 0, as the Poisson head of `SpikeCountLSTM` predicts them; a negative one gives a loss that is no
    number.

    Args:
        prediction: what the model said.
        batch: what happened.

    Returns:
        One value for each window.
    """
    rate = prediction.mean
    return jnp.mean(rate - batch.targets * jnp.log(rate + 1e-8), (1, 2))
