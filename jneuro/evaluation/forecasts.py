"""Forecasts of many windows, by models and baselines alike."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jneuro.core.registry import Block
from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Windows
from jneuro.models.base import Prediction, check_prediction, forward
from jneuro.training.losses import cost
from jneuro.training.steps import predict

__all__ = ["forecast", "observe", "targets", "window_scores"]


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

    def one(starts: Array) -> Array:
        batch = windows.gather(starts)
        return check_prediction(forward(predictor, batch), batch, predictor).mean

    out = lax.map(one, batches)
    return out.reshape(-1, *out.shape[2:])


def window_scores(
    predictor: Callable,
    windows: Windows,
    starts: Int[Array | np.ndarray, " window"],
    metrics: Sequence[Block],
    batch_size: int = 256,
) -> Float[np.ndarray, "window metric"]:
    """Score each window's prediction.

    Args:
        predictor: a model, or a fitted baseline.
        windows: the data.
        starts: first frame of each window.
        metrics: what `LOSSES.block` returns.
        batch_size: windows gathered at once.

    Returns:
        The scores, one column for each metric.
    """
    module, static, arrays = isinstance(predictor, nnx.Module), None, predictor
    if module:
        static, arrays = nnx.split(predictor)
    costs = [cost(metric) for metric in metrics]

    @eqx.filter_jit
    def every(arrays, windows, batches):
        model = nnx.merge(static, arrays, copy=True) if static is not None else arrays

        def one(starts: Array) -> Array:
            batch = windows.gather(starts)
            prediction = check_prediction(forward(model, batch), batch, model)
            return jnp.stack([each(prediction, batch).astype(float) for each in costs], axis=1)

        return lax.map(one, batches)

    starts = jnp.asarray(starts)
    batches = jnp.pad(starts, (0, -starts.shape[0] % batch_size), mode="edge").reshape(-1, batch_size)
    return np.asarray(every(arrays, windows, batches)).reshape(-1, len(costs))[: starts.shape[0]]


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
    one = jax.jit(lambda variables, data, batch: pick(forward(nnx.merge(graph, variables), data.gather(batch))))
    padded = np.pad(np.asarray(starts), (0, -len(starts) % batch_size), mode="edge").reshape(-1, batch_size)
    return np.concatenate([np.asarray(one(variables, windows, jnp.asarray(b))) for b in padded])[: len(starts)]
