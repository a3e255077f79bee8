"""Rollout: a forecaster's predictions fed back to it, to see farther than its horizon."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jneuro.core.devices import scan
from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, forward

__all__ = ["rollout"]


class _Columns(NamedTuple):
    """Columns of the recording, as `Windows` names them."""

    observed: tuple[int, ...] | None
    predicted: tuple[int, ...] | None
    known: tuple[int, ...]


def rollout(
    predictor: Callable[..., Prediction],
    inputs: Float[Array, "batch time feature"],
    driving: Float[Array, "batch step known"] | None,
    steps: int,
    *,
    horizons: Sequence[int],
    input_columns: Sequence[int] | None = None,
    target_columns: Sequence[int] | None = None,
    known_columns: Sequence[int] = (),
    batch_size: int | None = None,
) -> Float[Array, "batch step target"]:
    """Predict many steps by feeding predictions back, in one compiled program.

    A predictor of the next H steps is called ⌈steps / H⌉ times. Each time its predictions, beside the columns that are
    known ahead, become the newest H frames of its window, and the oldest leave; of the last call only as many
    predictions are kept as are asked for. Nothing but the window is carried from call to call. Pure and jittable.

    Horizons and columns are those of the `Windows` on which the predictor was trained. Every column that is observed
    must also be known ahead or predicted; what is known is used where it is both.

    Args:
        predictor: a model, or a fitted baseline.
        inputs: the observed past, one window each.
        driving: the known columns at each of the future steps, such as a stimulus; None if there are none.
        steps: how far to predict.

    Other Args:
        horizons: the steps that one call predicts: 1, 2, …, H.
        input_columns: the columns that are observed; None takes all.
        target_columns: the columns that are predicted; None takes all.
        known_columns: the columns of `driving`.
        batch_size: windows rolled out together, one such batch after the other; bounds the memory. None takes all.

    Returns:
        The predictions, in the scale of the inputs.

    Raises:
        ValueError: if the horizons have gaps or do not begin at 1, an observed column is neither predicted nor known,
            or an array does not fit.
    """
    horizons, known = tuple(horizons), tuple(known_columns)
    if not horizons or horizons != tuple(range(1, len(horizons) + 1)):
        raise ValueError(f"a rollout needs a predictor of horizons 1, 2, … without gaps, got {horizons}")
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}")
    shape = (inputs.shape[0], steps, len(known))
    if driving is None and not known:
        driving = jnp.zeros(shape, inputs.dtype)
    if driving is None or driving.shape != shape:
        got = None if driving is None else driving.shape
        raise ValueError(f"driving must be {shape}, the known columns {known} at every step, got {got}")
    if isinstance(predictor, nnx.Module):
        predictor = eqx.Partial(_call, *nnx.split(predictor))
    observed, predicted = (None if c is None else tuple(c) for c in (input_columns, target_columns))
    columns = _Columns(observed, predicted, known)
    return _rollout(predictor, inputs, driving, len(horizons), columns, batch_size or len(inputs))


def _call(graph: nnx.GraphDef, variables: nnx.State, batch: Batch, *, train: bool) -> Prediction:
    """A model's prediction, with the model's arrays as arguments."""
    return forward(nnx.merge(graph, variables, copy=True), batch, train=train)


@eqx.filter_jit
def _rollout(predictor, inputs: Array, driving: Array, horizon: int, columns: _Columns, batch_size: int) -> Array:
    count = len(inputs)
    if batch_size >= count:
        return _iterate(predictor, inputs, driving, horizon, columns)
    batches, edge = -(-count // batch_size), ((0, -count % batch_size), (0, 0), (0, 0))
    padded = (jnp.pad(x, edge, mode="edge") for x in (inputs, driving))
    parts = tuple(x.reshape(batches, batch_size, *x.shape[1:]) for x in padded)
    out = lax.map(lambda part: _iterate(predictor, part[0], part[1], horizon, columns), parts)
    return out.reshape(-1, *out.shape[2:])[:count]


def _iterate(predictor, inputs: Array, driving: Array, horizon: int, columns: _Columns) -> Array:
    count, steps, known = driving.shape
    calls = -(-steps // horizon)
    # Beyond the last step, where all predictions are cut off, what is known is held.
    blocks = jnp.pad(driving, ((0, 0), (0, calls * horizon - steps), (0, 0)), mode="edge")
    blocks = blocks.reshape(count, calls, horizon, known).swapaxes(0, 1)

    def call(window: Array, ahead: Array) -> tuple[Array, Array]:
        batch = Batch(window, jnp.zeros((count, horizon, 0), window.dtype), ahead if known else None)
        mean = forward(predictor, batch).mean
        if mean.shape[1] != horizon:
            raise ValueError(f"the predictor predicts {mean.shape[1]} horizons, but {horizon} are named")
        frames = jnp.concatenate([mean, ahead], axis=2)[..., _feedback(columns, window.shape[2], mean.shape[2])]
        return jnp.concatenate([window, frames.astype(window.dtype)], axis=1)[:, -window.shape[1] :], mean

    _, means = scan(call, inputs, blocks, unroll=1)
    return means.swapaxes(0, 1).reshape(count, -1, means.shape[-1])[:, :steps]


def _feedback(columns: _Columns, features: int, targets: int) -> Int[np.ndarray, " feature"]:
    """Where each observed column stands in the predictions followed by what is known."""
    observed = tuple(range(features)) if columns.observed is None else columns.observed
    predicted = tuple(range(targets)) if columns.predicted is None else columns.predicted
    for name, listed, size in (("input_columns", observed, features), ("target_columns", predicted, targets)):
        if len(listed) != size:
            raise ValueError(f"{name} {listed} are {len(listed)}, but the predictor has {size} of them")
    place = {c: i for i, c in enumerate(predicted)} | {c: targets + i for i, c in enumerate(columns.known)}
    missing = [c for c in observed if c not in place]
    if missing:
        raise ValueError(
            f"input column {missing[0]} is neither predicted nor known ahead, so it cannot be fed back; add it to"
            f" target_columns or, with its future in driving, to known_columns"
        )
    return np.asarray([place[c] for c in observed])
