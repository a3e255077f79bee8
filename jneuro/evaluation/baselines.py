"""What any forecast must beat: persistence, linear prediction from the own past and from everybody's, and a lookup.

A baseline has a method `fit(windows)` that sees the training windows only, and returns what is called like a model.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import BeforeValidator, Field

from jneuro.core.config import Config
from jneuro.core.registry import Block
from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Batch, Windows
from jneuro.evaluation.kinds import BASELINES
from jneuro.models.base import Prediction

__all__ = [
    "DEFAULTS",
    "ARConfig",
    "BaselineConfig",
    "Baselines",
    "Linear",
    "Lookup",
    "LookupConfig",
    "Mean",
    "MeanConfig",
    "Persistence",
    "PersistenceConfig",
    "VARConfig",
    "allowed_baselines",
    "check_baselines",
    "fit_baselines",
    "label_of",
]

_BATCH = 256
"""Windows gathered at once."""


class BaselineConfig(Config):
    """One of our baselines: what it needs, and how it is fitted."""

    own_past: ClassVar[bool] = False
    """Whether it needs the past of what it predicts."""

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> Callable:
        """Fit it on the training windows."""
        raise NotImplementedError

    def sized(self, length: int) -> Self:
        """The same for windows of so many frames: an order that was not asked for shrinks, another is refused."""
        order = getattr(self, "order", 0)
        if order <= length:
            return self
        if "order" in self.model_fields_set:
            raise ValueError(f"{label_of(self)}: order = {order} is more than the {length} frames of a window")
        return self.shrunk(length)

    def shrunk(self, length: int) -> Self:
        """The same with an order that windows of so many frames have."""
        order = getattr(self, "order", None)
        return self if order is None or order <= length else self.model_copy(update={"order": length})


class MeanConfig(BaselineConfig):
    """The mean of the training targets, whatever was observed."""

    name: Literal["mean"] = "mean"

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> "Mean":
        """The mean by target and horizon."""
        total = _accumulate(windows, lambda batch, used: jnp.einsum("b,bhf->hf", used, batch.targets), batch_size)
        return Mean(jnp.asarray(total / windows.count("train"), windows.values.dtype))


class PersistenceConfig(BaselineConfig):
    """The last value stays."""

    own_past: ClassVar[bool] = True
    name: Literal["persistence"] = "persistence"

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> "Persistence":
        """Remember where the targets stand among the inputs."""
        return Persistence(len(windows.horizons), windows.own_inputs or ())


class ARConfig(BaselineConfig):
    """For each horizon a least-squares combination of the neuron's own last samples.

    Attributes:
        order: how many; at most the frames of a window.
    """

    own_past: ClassVar[bool] = True
    name: Literal["ar"] = "ar"
    order: int = Field(default=20, ge=1)

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> "Linear":
        """Least squares, each target from its own past."""
        return _fit_linear(windows, self.order, windows.own_inputs or (), batch_size)


class VARConfig(BaselineConfig):
    """For each horizon a least-squares combination of the last samples of everything that is observed.

    Attributes:
        order: how many samples; at most the frames of a window.
    """

    name: Literal["var"] = "var"
    order: int = Field(default=3, ge=1)

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> "Linear":
        """Least squares, each target from all inputs."""
        return _fit_linear(windows, self.order, None, batch_size)


class LookupConfig(BaselineConfig):
    """The mean future of all training samples whose present lies in the same bin.

    Attributes:
        bins: how many bins.
    """

    own_past: ClassVar[bool] = True
    name: Literal["lookup"] = "lookup"
    bins: int = Field(default=100, ge=2, le=1_000_000)

    def fit(self, windows: Windows, batch_size: int = _BATCH) -> "Lookup":
        """One table for all neurons."""
        return _fit_lookup(windows, self.bins, windows.own_inputs or (), batch_size)


DEFAULTS = (PersistenceConfig(), ARConfig(), VARConfig(), LookupConfig())
"""The baselines beside which models are scored, unless others are asked for."""


def _listed(value: Any) -> Any:
    """Say how baselines are written, where it is not as a list."""
    if isinstance(value, Mapping | str) or not isinstance(value, Sequence):
        raise ValueError(
            f"must be a list of {', '.join(BASELINES)}, with arguments where needed, or module:name of your own, as in "
            "[persistence, {name: ar, order: 20}]"
        )
    return value


Baselines = Annotated[tuple[Annotated[Any, BASELINES.field()], ...], BeforeValidator(_listed)]
"""The type of a configuration's key that lists baselines."""


def label_of(baseline: Any) -> str:
    """The name under which a baseline is scored: without its module."""
    return baseline.name.rpartition(":")[2]


def _blocks(baselines: Sequence[Any]) -> list[Any]:
    """Baselines as configurations or blocks, each label once."""
    blocks = [BASELINES.block(b) for b in _listed(baselines)]
    labels = [label_of(b) for b in blocks]
    if twice := [n for n in labels if labels.count(n) > 1]:
        raise ValueError(f"baseline {twice[0]!r} stands there twice; leave one out")
    return blocks


def check_baselines(baselines: Sequence[Any], length: int, *, observed: bool = True) -> None:
    """Refuse baselines that windows do not allow.

    Args:
        baselines: which; see `fit_baselines`.
        length: frames of a window.
        observed: whether what is predicted is among what is observed.

    Raises:
        ValueError: naming the baseline and the remedy.
    """
    for baseline in _blocks(baselines):
        if isinstance(baseline, BaselineConfig):
            baseline.sized(length)
            if baseline.own_past and not observed:
                raise ValueError(f"{label_of(baseline)} needs the targets among the inputs; use mean and var")


def allowed_baselines(baselines: Sequence[Any], windows: Windows) -> list[Any]:
    """The baselines that a model's own windows allow, no longer than those are.

    Args:
        baselines: which; see `fit_baselines`.
        windows: the model's own.

    Returns:
        Those among them that need nothing that is not observed; what reads the answer is no baseline.
    """
    observed = windows.own_inputs is not None
    given = observed and windows.horizons[0] <= 0
    kept = []
    for baseline in _blocks(baselines):
        if not isinstance(baseline, BaselineConfig):
            kept += [] if given else [baseline]
        elif isinstance(baseline, MeanConfig) or (not given and (observed or not baseline.own_past)):
            kept.append(baseline.shrunk(windows.length))
    return kept


class Mean(eqx.Module):
    """The mean of the training targets, whatever was observed."""

    mean: Float[Array, "horizon target"]

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        return Prediction(jnp.broadcast_to(self.mean[None], (batch.inputs.shape[0], *self.mean.shape)))


class Persistence(eqx.Module):
    """The last value stays."""

    horizons: int = eqx.field(static=True)
    own: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        return Prediction(jnp.repeat(batch.inputs[:, -1:, np.asarray(self.own)], self.horizons, axis=1))


class Linear(eqx.Module):
    """Direct linear prediction of every horizon: AR where each neuron sees its own past, VAR where it sees all inputs.

    Attributes:
        coefficients: for each target neuron and horizon, the weights of its regressors and, last, the intercept.
        order: past samples.
        own: the place of each target among the inputs (AR); None where all inputs are regressors (VAR).
    """

    coefficients: Float[Array, "target regressor horizon"]
    order: int = eqx.field(static=True)
    own: tuple[int, ...] | None = eqx.field(static=True)

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        x = _regressors(batch.inputs, self.order, self.own)
        return Prediction(jnp.einsum("bgr,frh->bhf" if self.own is None else "bfr,frh->bhf", x, self.coefficients))


class Lookup(eqx.Module):
    """The mean future of all training samples whose present lies in the same bin, one table for all neurons.

    Attributes:
        low: lower edge of the first bin, in z-scores.
        width: width of a bin.
        table: mean future by bin.
        own: the place of each target among the inputs.
    """

    low: Float[Array, ""]
    width: Float[Array, ""]
    table: Float[Array, "bin horizon"]
    own: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        return Prediction(self.table[self.present(batch)].swapaxes(1, 2))

    def present(self, batch: Batch) -> Int[Array, "batch target"]:
        """The bin of every target's last value."""
        return self.bin(batch.inputs[:, -1, np.asarray(self.own)])

    def bin(self, values: Float[Array, "*any"]) -> Int[Array, "*any"]:
        """The bin of a value; the outer bins take what lies beyond."""
        index = jnp.floor((values - self.low) / self.width).astype(jnp.int32)
        return jnp.clip(index, 0, self.table.shape[0] - 1)


def _regressors(
    inputs: Float[Array, "batch time feature"], order: int, own: tuple[int, ...] | None
) -> Float[Array, "batch target regressor"]:
    """The last `order` samples and a one: of each target, or of all inputs in one row."""
    past = inputs[:, -order:]
    past = past.reshape(past.shape[0], 1, -1) if own is None else past[..., np.asarray(own)].swapaxes(1, 2)
    return jnp.concatenate([past, jnp.ones((*past.shape[:2], 1), past.dtype)], axis=2)


def fit_baselines(windows: Windows, baselines: Sequence[Any] = DEFAULTS) -> dict[str, Callable]:
    """Fit the baselines on the training windows.

    Args:
        windows: the data.
        baselines: names of `BASELINES`, `module:name` of one's own, mappings of a name with its arguments, or objects
            with a method `fit(windows)` that returns a model.

    Returns:
        The fitted baselines, called like models, by name.

    Raises:
        ValueError: if the windows do not allow one, or what is fitted cannot be called.
    """
    check_baselines(baselines, windows.length, observed=windows.own_inputs is not None)
    fitted = {}
    for baseline in _blocks(baselines):
        if isinstance(baseline, BaselineConfig):
            found = baseline.sized(windows.length).fit(windows)
        else:
            own = isinstance(baseline, Block)  # an object, or a class that makes it
            made = baseline.target if own and not inspect.isclass(baseline.target) else baseline
            found = (made.build() if isinstance(made, Block) else made).fit(windows)
        if not callable(found):
            raise ValueError(
                f"{label_of(baseline)}: fit(windows) returned {type(found).__name__}, which cannot be called"
            )
        fitted[label_of(baseline)] = found
    return fitted


def _accumulate(windows: Windows, statistic, batch_size: int):
    """Sum a statistic of batches over the training windows."""
    starts = windows.starts["train"]
    count = starts.shape[0]
    padded = jnp.pad(starts, (0, -count % batch_size)).reshape(-1, batch_size)
    used = (jnp.arange(padded.size) < count).reshape(padded.shape)

    @eqx.filter_jit
    def total(windows, padded, used):
        def body(carry, xs):
            return jax.tree.map(jnp.add, carry, statistic(windows.gather(xs[0]), xs[1])), None

        shape = jax.eval_shape(lambda w: statistic(w.gather(padded[0]), used[0]), windows)
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
        return lax.scan(body, zero, (padded, used))[0]

    return jax.tree.map(np.asarray, total(windows, padded, used))


def _fit_linear(windows: Windows, order: int, own: tuple[int, ...] | None, batch_size: int) -> Linear:
    """Least squares by the normal equations, solved in double precision."""

    def statistic(batch, used):
        x = _regressors(batch.inputs, order, own) * used[:, None, None]
        if own is None:
            return jnp.einsum("bgr,bgs->grs", x, x), jnp.einsum("bgr,bhf->frh", x, batch.targets)
        return jnp.einsum("bfr,bfs->frs", x, x), jnp.einsum("bfr,bhf->frh", x, batch.targets)

    gram, moment = (m.astype(np.float64) for m in _accumulate(windows, statistic, batch_size))
    # A trace of ridge keeps a constant channel, or fewer windows than regressors, solvable.
    gram += 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / gram.shape[1] * np.eye(gram.shape[1])
    return Linear(jnp.asarray(np.linalg.solve(gram, moment), windows.values.dtype), order, own)


def _fit_lookup(windows: Windows, bins: int, own: tuple[int, ...], batch_size: int) -> Lookup:
    """Bins of equal width between the 0.1 % and 99.9 % quantiles of the present; an empty bin takes its own centre."""
    last = windows.starts["train"] + windows.length - 1
    present = windows.values[last]
    if windows.target_columns is not None:
        present = present[:, np.asarray(windows.target_columns)]
    low, high = jnp.quantile(present, jnp.asarray([1e-3, 1 - 1e-3]))
    width = jnp.maximum(high - low, 1e-6) / bins
    centres = jnp.repeat((low + width * (jnp.arange(bins) + 0.5))[:, None], len(windows.horizons), axis=1)
    empty = Lookup(low, width, centres, own)

    def statistic(batch, used):
        index = empty.present(batch).reshape(-1)
        weight = jnp.broadcast_to(used[:, None], (used.shape[0], len(own))).reshape(-1)
        future = batch.targets.swapaxes(1, 2).reshape(index.shape[0], -1)
        sums = jnp.zeros(centres.shape).at[index].add(future * weight[:, None])
        return sums, jnp.zeros(bins).at[index].add(weight)

    sums, counts = _accumulate(windows, statistic, batch_size)
    table = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return Lookup(low, width, jnp.asarray(table, centres.dtype), own)
