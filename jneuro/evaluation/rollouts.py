"""Rollout: a forecaster's predictions fed back to it, to see farther than its horizon; and how good that is."""

from collections.abc import Callable, Mapping, Sequence
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
from jneuro.spikes.detection import crossings
from jneuro.spikes.distances import match_spikes, van_rossum, victor_purpura

__all__ = ["Predict", "RolloutScores", "Sample", "rollout", "score_rollouts", "valid_frames"]


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


Predict = Callable[[Int[np.ndarray, " example"]], Float[np.ndarray, "example step state"]]
"""From examples to what is predicted of them, in the recording's units."""


class Sample(NamedTuple):
    """Trajectories under constant currents, and the moments from which they are to be predicted.

    Attributes:
        values: the trajectories, in the recording's units; the states come first, then what drives them.
        regime: of each current, by its place.
        current: of each example, by its place.
        now: of each example, its last observed frame.
    """

    values: Float[np.ndarray, "current frame column"]
    regime: Int[np.ndarray, " current"]
    current: Int[np.ndarray, " example"]
    now: Int[np.ndarray, " example"]

    def cut(
        self, index: Int[np.ndarray, " example"], first: int, count: int
    ) -> Float[np.ndarray, "example frame column"]:
        """`count` frames of some examples, from `first` frames after the last observed one."""
        frames = self.now[index][:, None] + first + np.arange(count)
        return self.values[self.current[index][:, None], frames]


class RolloutScores(NamedTuple):
    """How good a predictor's rollouts are.

    Attributes:
        squared: mean squared error of the z-scored states, over a current's examples, in bins of 1 ms.
        by_current: means over a current's examples: `valid_ms`, `coincidence` (matched spikes over the mean number of
            predicted and true ones), `spike_error_ms` (mean distance of matched spikes), `van_rossum`,
            `victor_purpura`, `spikes` and `true_spikes` (how many).
    """

    squared: Float[np.ndarray, "current bin state"]
    by_current: Mapping[str, Float[np.ndarray, " current"]]


def score_rollouts(
    predict: Predict,
    sample: Sample,
    scale: Float[np.ndarray, " state"],
    dt: float,
    steps: int,
    *,
    batch_size: int,
    valid_error: float,
    tolerance: float,
    tau: float,
    cost: float,
) -> RolloutScores:
    """Predict all examples, batch by batch, and keep what is scored.

    Args:
        predict: the predictor.
        sample: the examples.
        scale: standard deviations of the states, which make errors comparable; the potential is the first state.
        dt: time between frames [ms].
        steps: frames that are predicted.

    Other Args:
        batch_size: examples predicted together.
        valid_error: see `valid_frames`.
        tolerance: spikes farther apart do not match [ms].
        tau: time constant of van Rossum's distance [ms].
        cost: of moving a spike, in Victor and Purpura's distance [1/ms].

    Returns:
        The scores.
    """
    count, states, frames_per_bin = len(sample.current), len(scale), max(1, round(1 / dt))
    bins = max(1, steps // frames_per_bin)
    squared = np.zeros((len(sample.values), bins, states))
    single: dict[str, list[float]] = {}
    for first in range(0, count, batch_size):
        # The last batch is filled up, so that all compile once.
        index = np.minimum(np.arange(first, first + min(batch_size, count)), count - 1)
        kept = min(batch_size, count - first)
        truth = sample.cut(index[:kept], 1, steps)[..., :states]
        error = ((predict(index)[:kept] - truth) / scale).astype(np.float64)
        binned = np.square(error[:, : bins * frames_per_bin]).reshape(kept, bins, -1, states).mean(2)
        np.add.at(squared, sample.current[index[:kept]], binned)
        single.setdefault("valid_ms", []).extend(valid_frames(error, valid_error) * dt)
        potential = truth[..., 0] + error[..., 0] * scale[0]
        for v, w in zip(truth[..., 0], potential, strict=True):
            for name, value in _spike_scores(crossings(v, dt), crossings(w, dt), tolerance, tau, cost).items():
                single.setdefault(name, []).append(value)
    number = np.bincount(sample.current, minlength=len(sample.values))
    squared /= number[:, None, None]
    by_current = {n: _by_current(np.asarray(v), sample.current, len(number)) for n, v in single.items()}
    return RolloutScores(squared, by_current)


def valid_frames(error: Float[np.ndarray, "example frame state"], limit: float) -> Int[np.ndarray, " example"]:
    """Frames until the error first exceeds a limit.

    Args:
        error: of the z-scored states.
        limit: of the root mean square over the states.

    Returns:
        The frames before it; all where it never does.
    """
    wrong = np.sqrt(np.square(error).mean(2)) > limit
    return np.where(wrong.any(1), wrong.argmax(1), error.shape[1])


def _spike_scores(
    truth: np.ndarray, predicted: np.ndarray, tolerance: float, tau: float, cost: float
) -> dict[str, float]:
    errors, total = match_spikes(truth, predicted, tolerance).errors, len(truth) + len(predicted)
    return {
        "coincidence": 2 * len(errors) / total if total else 1.0,
        "spike_error_ms": float(np.abs(errors).mean()) if len(errors) else np.nan,
        "van_rossum": float(van_rossum(truth, predicted, tau)),
        "victor_purpura": victor_purpura(truth, predicted, cost),
        "spikes": float(len(predicted)),
        "true_spikes": float(len(truth)),
    }


def _by_current(values: np.ndarray, current: np.ndarray, count: int) -> Float[np.ndarray, " current"]:
    """Mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    total = np.bincount(current[finite], values[finite], minlength=count)
    number = np.bincount(current[finite], minlength=count)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)
