"""Forecasts of many windows, by models and baselines alike."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Windows
from jneuro.models.base import Prediction
from jneuro.training import predict

__all__ = ["forecast", "observe", "targets"]


def forecast(
    predictor: Callable, windows: Windows, starts: Int[Array | np.ndarray, " window"], batch_size: int = 256
) -> Float[np.ndarray, "window horizon feature"]:
    """Forecast windows in one compiled loop.

    Args:
        predictor: a model, or a fitted baseline.
        windows: the data.
        starts: first frame of each window.
        batch_size: windows gathered at once.

    Returns:
        The expected values, in z-scores.
    """
    if isinstance(predictor, nnx.Module):
        return predict(predictor, windows, starts, batch_size=batch_size)
    starts = jnp.asarray(starts)
    return np.asarray(_loop(predictor, windows, starts, batch_size))[: starts.shape[0]]


def targets(
    windows: Windows, starts: Int[Array | np.ndarray, " window"]
) -> Float[np.ndarray, "window horizon feature"]:
    """What came.

    Args:
        windows: the data.
        starts: first frame of each window.

    Returns:
        The targets, in z-scores.
    """
    ahead = np.asarray(windows.horizons) + windows.length - 1
    values = np.asarray(windows.values)[np.asarray(starts)[:, None] + ahead]
    return values if windows.target_columns is None else values[..., np.asarray(windows.target_columns)]


@eqx.filter_jit
def _loop(predictor, windows: Windows, starts: Array, batch_size: int) -> Array:
    batches = jnp.pad(starts, (0, -starts.shape[0] % batch_size), mode="edge").reshape(-1, batch_size)
    out = lax.map(lambda batch: predictor(windows.gather(batch), train=False).mean, batches)
    return out.reshape(-1, *out.shape[2:])


def observe(
    model: nnx.Module,
    windows: Windows,
    starts: Int[Array | np.ndarray, " window"],
    pick: Callable[[Prediction], Array],
    batch_size: int = 64,
) -> Float[np.ndarray, "window *any"]:
    """Collect one of the arrays that a model predicts, such as its quantiles or its attention.

    Args:
        model: a model.
        windows: the data.
        starts: first frame of each window.
        pick: from a prediction to the array, whose first axis is the batch.
        batch_size: windows gathered at once.

    Returns:
        The array over all windows.
    """
    graph, variables = nnx.split(model)
    one = jax.jit(lambda variables, data, batch: pick(nnx.merge(graph, variables)(data.gather(batch), train=False)))
    padded = np.pad(np.asarray(starts), (0, -len(starts) % batch_size), mode="edge").reshape(-1, batch_size)
    return np.concatenate([np.asarray(one(variables, windows, jnp.asarray(b))) for b in padded])[: len(starts)]
