"""Forecasts of a trajectory without a model: its last period again, or what followed the most similar state."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.signal import correlate

from jneuro.core.types import Array, Float, Int

__all__ = ["nearest", "period", "repeat_period"]


def period(trace: Float[np.ndarray, " frame"]) -> float:
    r"""The lag at which a trace is most like itself.

    The lag \(L\) minimises the mean of \((x_t - x_{t-L})^2\), up to half of the trace and beyond the first peak, where
    the trace has ceased to be like itself only because it is smooth. Since a period may drift, it is then sought
    again within a tenth of that lag, with the last \(L\) frames only, and between frames by a parabola. Of a periodic
    trace, the lag may be several periods: to repeat them is the same.

    Args:
        trace: the past.

    Returns:
        The lag in frames; 1 for a trace that never changes.
    """
    x = np.asarray(trace, np.float64)
    x = x - x.mean()
    count, most = len(x), len(x) // 2
    squares = np.concatenate([[0.0], np.cumsum(np.square(x))])
    lags = np.arange(most + 1)
    overlap = correlate(x, x, method="fft")[count - 1 : count + most]
    difference = (squares[count] - squares[lags] + squares[count - lags] - 2 * overlap) / (count - lags)
    unlike = np.flatnonzero(difference > 2 * x.var())
    if not len(unlike) or unlike[0] >= most:
        return 1.0
    coarse = int(unlike[0] + np.argmin(difference[unlike[0] :]))
    lags = np.arange(coarse - coarse // 10, min(coarse + coarse // 10, count - coarse) + 1)
    recent = np.arange(count - coarse, count)
    difference = np.square(x[recent] - x[recent - lags[:, None]]).mean(1)
    best = int(np.argmin(difference))
    if best in (0, len(lags) - 1):
        return float(lags[best])
    left, middle, right = difference[best - 1 : best + 2]
    return lags[best] + 0.5 * (left - right) / max(left - 2 * middle + right, 1e-300)


def repeat_period(past: Float[np.ndarray, "frame state"], lag: float, steps: int) -> Float[np.ndarray, "step state"]:
    """Repeat the last period of a trajectory.

    Args:
        past: the trajectory so far.
        lag: its period in frames, not necessarily whole.
        steps: how far to predict.

    Returns:
        The prediction.
    """
    ahead = np.arange(1, steps + 1)
    place = len(past) - 1 + ahead - lag * np.ceil(ahead / lag - 1e-9)
    first = np.clip(np.floor(place).astype(int), 0, len(past) - 2)
    share = (place - first)[:, None]
    return (1 - share) * past[first] + share * past[first + 1]


@eqx.filter_jit
def nearest(
    candidates: Float[Array, "candidate feature"], queries: Float[Array, "query feature"]
) -> Int[Array, " query"]:
    """The candidate nearest to each query.

    Args:
        candidates: where to look.
        queries: for what to look.

    Returns:
        Indices of the candidates.
    """
    norms = jnp.square(candidates).sum(1)

    def one(query: Array) -> Array:
        return jnp.argmin(norms - 2 * jnp.dot(candidates, query, precision=lax.Precision.HIGHEST))

    return lax.map(one, queries)
