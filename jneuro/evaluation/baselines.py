"""What any forecast must beat: persistence, linear prediction from the own past and from everybody's, and a lookup.

Each is fitted on training windows only, and called like a model.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction

__all__ = ["BaselineConfig", "Linear", "Lookup", "Mean", "Persistence", "fit_baselines"]

BaselineName = Literal["mean", "persistence", "ar", "var", "lookup"]

_OWN_PAST: tuple[BaselineName, ...] = ("persistence", "ar", "lookup")
"""Baselines that need the past of what they predict."""


class BaselineConfig(Config):
    """Which baselines, and how large.

    Attributes:
        names: which.
        ar_order: past samples of the own voltage in the autoregression.
        var_order: past samples of all neurons in the vector autoregression.
        bins: bins of the lookup.
    """

    names: tuple[BaselineName, ...] = ("persistence", "ar", "var", "lookup")
    ar_order: int = Field(default=20, ge=1)
    var_order: int = Field(default=3, ge=1)
    bins: int = Field(default=100, ge=2)

    def check(self, length: int, *, observed: bool = True) -> None:
        """Refuse what windows do not allow.

        Args:
            length: frames of a window.
            observed: whether what is predicted is among what is observed.
        """
        for name, order in (("ar", self.ar_order), ("var", self.var_order)):
            if name in self.names and order > length:
                raise ValueError(f"{name}_order = {order} is more than the {length} frames of a window")
        for name in _OWN_PAST:
            if name in self.names and not observed:
                raise ValueError(f"{name} needs the targets among the inputs; use mean and var")


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


def fit_baselines(
    windows: Windows, config: BaselineConfig, batch_size: int = 256
) -> dict[str, Mean | Persistence | Linear | Lookup]:
    """Fit the baselines on the training windows.

    Args:
        windows: the data.
        config: which, and how large.
        batch_size: windows gathered at once.

    Returns:
        The baselines by name.
    """
    config.check(windows.length, observed=windows.own_inputs is not None)
    own = windows.own_inputs or ()
    makers = {
        "mean": lambda: _fit_mean(windows, batch_size),
        "persistence": lambda: Persistence(len(windows.horizons), own),
        "ar": lambda: _fit_linear(windows, config.ar_order, own, batch_size),
        "var": lambda: _fit_linear(windows, config.var_order, None, batch_size),
        "lookup": lambda: _fit_lookup(windows, config.bins, own, batch_size),
    }
    return {name: makers[name]() for name in config.names}


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


def _fit_mean(windows: Windows, batch_size: int) -> Mean:
    """The mean by target and horizon."""
    total = _accumulate(windows, lambda batch, used: jnp.einsum("b,bhf->hf", used, batch.targets), batch_size)
    return Mean(jnp.asarray(total / windows.count("train"), windows.values.dtype))


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
