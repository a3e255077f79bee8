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

from jneuro._types import Array, Config, Float, Int
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction

__all__ = ["BaselineConfig", "Linear", "Lookup", "Persistence", "fit_baselines"]

BaselineName = Literal["persistence", "ar", "var", "lookup"]


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

    def check(self, length: int) -> None:
        """Refuse an order that is longer than a window of `length` frames."""
        for name, order in (("ar", self.ar_order), ("var", self.var_order)):
            if name in self.names and order > length:
                raise ValueError(f"{name}_order = {order} is more than the {length} frames of a window")


class Persistence(eqx.Module):
    """The last value stays."""

    horizons: int = eqx.field(static=True)

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        return Prediction(jnp.repeat(batch.inputs[:, -1:], self.horizons, axis=1))


class Linear(eqx.Module):
    """Direct linear prediction of every horizon: AR where each neuron sees its own past, VAR where it sees all.

    Attributes:
        coefficients: for each target neuron and horizon, the weights of its regressors and, last, the intercept.
        order: past samples.
        shared: whether all neurons' pasts are regressors (VAR) or only the own (AR).
    """

    coefficients: Float[Array, "feature regressor horizon"]
    order: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        x = _regressors(batch.inputs, self.order, self.shared)
        return Prediction(jnp.einsum("bfr,frh->bhf" if not self.shared else "bgr,frh->bhf", x, self.coefficients))


class Lookup(eqx.Module):
    """The mean future of all training samples whose present lies in the same bin, one table for all neurons.

    Attributes:
        low: lower edge of the first bin, in z-scores.
        width: width of a bin.
        table: mean future by bin.
    """

    low: Float[Array, ""]
    width: Float[Array, ""]
    table: Float[Array, "bin horizon"]

    def __call__(self, batch: Batch, *, train: bool = False) -> Prediction:
        """Forecast."""
        return Prediction(self.table[self.bin(batch.inputs[:, -1])].swapaxes(1, 2))

    def bin(self, values: Float[Array, "*any"]) -> Int[Array, "*any"]:
        """The bin of a value; the outer bins take what lies beyond."""
        index = jnp.floor((values - self.low) / self.width).astype(jnp.int32)
        return jnp.clip(index, 0, self.table.shape[0] - 1)


def _regressors(inputs: Float[Array, "batch time feature"], order: int, shared: bool) -> Float[Array, "batch f r"]:
    """The last `order` samples and a one: of each neuron, or, `shared`, of all neurons in one row."""
    past = inputs[:, -order:]
    past = past.reshape(past.shape[0], 1, -1) if shared else past.swapaxes(1, 2)
    return jnp.concatenate([past, jnp.ones((*past.shape[:2], 1), past.dtype)], axis=2)


def fit_baselines(
    windows: Windows, config: BaselineConfig, batch_size: int = 256
) -> dict[str, Persistence | Linear | Lookup]:
    """Fit the baselines on the training windows.

    Args:
        windows: the data.
        config: which, and how large.
        batch_size: windows gathered at once.

    Returns:
        The baselines by name.
    """
    config.check(windows.length)
    makers = {
        "persistence": lambda: Persistence(len(windows.horizons)),
        "ar": lambda: _fit_linear(windows, config.ar_order, False, batch_size),
        "var": lambda: _fit_linear(windows, config.var_order, True, batch_size),
        "lookup": lambda: _fit_lookup(windows, config.bins, batch_size),
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


def _fit_linear(windows: Windows, order: int, shared: bool, batch_size: int) -> Linear:
    """Least squares by the normal equations, solved in double precision."""

    def statistic(batch, used):
        x = _regressors(batch.inputs, order, shared) * used[:, None, None]
        if shared:
            return jnp.einsum("bgr,bgs->grs", x, x), jnp.einsum("bgr,bhf->frh", x, batch.targets)
        return jnp.einsum("bfr,bfs->frs", x, x), jnp.einsum("bfr,bhf->frh", x, batch.targets)

    gram, moment = (m.astype(np.float64) for m in _accumulate(windows, statistic, batch_size))
    # A trace of ridge keeps a constant channel, or fewer windows than regressors, solvable.
    gram += 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / gram.shape[1] * np.eye(gram.shape[1])
    return Linear(jnp.asarray(np.linalg.solve(gram, moment), windows.values.dtype), order, shared)


def _fit_lookup(windows: Windows, bins: int, batch_size: int) -> Lookup:
    """Bins of equal width between the 0.1 % and 99.9 % quantiles of the present; an empty bin takes its own centre."""
    last = windows.starts["train"] + windows.length - 1
    low, high = jnp.quantile(windows.values[last], jnp.asarray([1e-3, 1 - 1e-3]))
    width = jnp.maximum(high - low, 1e-6) / bins
    centres = jnp.repeat((low + width * (jnp.arange(bins) + 0.5))[:, None], len(windows.horizons), axis=1)
    empty = Lookup(low, width, centres)

    def statistic(batch, used):
        index = empty.bin(batch.inputs[:, -1]).reshape(-1)
        weight = jnp.broadcast_to(used[:, None], (used.shape[0], batch.inputs.shape[2])).reshape(-1)
        future = batch.targets.swapaxes(1, 2).reshape(index.shape[0], -1)
        sums = jnp.zeros(centres.shape).at[index].add(future * weight[:, None])
        return sums, jnp.zeros(bins).at[index].add(weight)

    sums, counts = _accumulate(windows, statistic, batch_size)
    table = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return Lookup(low, width, jnp.asarray(table, centres.dtype))
