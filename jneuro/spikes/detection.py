"""Where a potential spikes: crossings of a threshold that it returns from, and doubts about them."""

from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Bool, Float, Int

__all__ = [
    "STEEP",
    "Detected",
    "Detector",
    "away_from_spikes",
    "crossings",
    "peaks",
    "raster_times",
    "soft_spikes",
    "spike_like",
    "upward",
]

_UPSTROKE = 5.0
"""How long a spike may rise to its peak, and fall from it [ms]."""
_SPIKE_MV, STEEP = 8.0, 10.0
"""What a peak rises and falls by, at least, if it looks like a spike [mV], and how fast it rises [mV/ms]."""
_DOUBTED = 0.1
"""Share of a trace's spike-like peaks that may stay below the threshold."""


def upward(v: Float[Any, "*trial time"], threshold: float = 0.0, fall: float = 0.0) -> Bool[Any, "*trial step"]:
    r"""The steps between samples in which a potential spikes: upward crossings of a threshold, with hysteresis.

    \(v_i < \theta \le v_{i+1}\), and since the crossing before, \(v\) was below \(\theta - f\). NumPy and JAX alike.

    Args:
        v: potential [mV].
        threshold: \(\theta\) [mV].
        fall: \(f\), how far below the threshold it must have been again; 0 takes every crossing [mV].

    Returns:
        True where the next sample is the first of a spike; one entry fewer than samples.

    Example:
        >>> upward(np.array([-60.0, 20.0, -1.0, 1.0, -60.0, 20.0]), fall=10.0).tolist()
        [True, False, False, False, True]
    """
    crossed = (v[..., :-1] < threshold) & (v[..., 1:] >= threshold)
    if fall == 0:
        return crossed
    xp = v.__array_namespace__()
    step = xp.arange(crossed.shape[-1])
    low = _latest(xp, xp.where(v[..., :-1] < threshold - fall, step, -1))
    latest = _latest(xp, xp.where(crossed, step, -1))
    before = xp.concatenate([xp.full_like(latest[..., :1], -1), latest[..., :-1]], axis=-1)
    return crossed & (low > before)


def _latest(xp: Any, step: Any) -> Any:
    """The largest entry so far, which the array API has no name for."""
    if xp is np:
        return np.maximum.accumulate(step, axis=-1)
    from jax import lax

    return lax.cummax(step, axis=step.ndim - 1)


def crossings(
    v: Float[np.ndarray, " time"], dt: float, threshold: float = 0.0, fall: float = 0.0
) -> Float[np.ndarray, " spike"]:
    """Times of spikes, between samples by a straight line.

    Args:
        v: potential [mV].
        dt: time between samples [ms].
        threshold: what is crossed upwards [mV].
        fall: how far below it the potential must return before the next spike; 0 takes every crossing [mV].

    Returns:
        The times after the first sample [ms].

    Example:
        >>> crossings(np.array([-60.0, 20.0, -60.0, -20.0, 20.0]), dt=0.1)
        array([0.075, 0.35 ])
    """
    v = np.asarray(v, np.float64)
    at = np.flatnonzero(upward(v, threshold, fall))
    return dt * (at + (threshold - v[at]) / (v[at + 1] - v[at]))


def peaks(v: Float[np.ndarray, " time"], threshold: float = 0.0) -> Float[np.ndarray, " spike"]:
    """The highest potential of every stretch above threshold that begins with an upward crossing.

    Args:
        v: potential [mV].
        threshold: what is crossed [mV].

    Returns:
        The heights [mV].
    """
    above = np.concatenate([[False], v >= threshold, [False]])
    begin, end = np.flatnonzero(~above[:-1] & above[1:]), np.flatnonzero(above[:-1] & ~above[1:])
    return np.array([v[b:e].max() for b, e in zip(begin, end, strict=True) if b > 0])


def soft_spikes(
    v: Float[Array, "*trial time"], threshold: float = 0.0, width: float = 4.0
) -> Float[Array, "*trial time"]:
    r"""Spikes as smooth crossings of a threshold: the rise of \(\sigma((v - \theta)/w)\) in every sample.

    A full spike sums to 1 over the samples of its rise, one that fails to a part, so there is a gradient that makes it.

    Args:
        v: potential [mV].
        threshold: \(\theta\) [mV].
        width: \(w\) [mV].

    Returns:
        The spikes.
    """
    import jax
    import jax.numpy as jnp

    above = jax.nn.sigmoid((v - threshold) / width)
    return jnp.maximum(jnp.diff(above, axis=-1, prepend=above[..., :1]), 0.0)


def raster_times(spikes: Float[np.ndarray, " time"], dt: float) -> Float[np.ndarray, " spike"]:
    """Times of spikes that are given in every sample, whole or in parts: where their sum passes the halves.

    Args:
        spikes: in every sample.
        dt: time between samples [ms].

    Returns:
        The times after the first sample [ms].
    """
    total = np.cumsum(spikes)
    levels = np.arange(round(float(total[-1]))) + 0.5
    at = np.searchsorted(total, levels)
    return dt * (at + (levels - (total[at] - spikes[at])) / spikes[at] - 1)


def away_from_spikes(
    spikes: Float[Any, "trial time"], dt: float, before: float = 3.0, after: float = 12.0
) -> Bool[Any, "trial time"]:
    """Which samples are not near a spike; NumPy and JAX alike.

    Args:
        spikes: spikes in every sample, whole or in parts.
        dt: time between samples [ms].
        before: how long before a spike the potential is its own [ms].
        after: how long after it [ms].

    Returns:
        True where the potential is not that of a spike.
    """
    xp = spikes.__array_namespace__()
    left, right = round(before / dt), round(after / dt)
    total = xp.cumsum(spikes, axis=1)
    none = xp.zeros((len(total), right + 1), total.dtype)
    total = xp.concatenate([none, total, xp.repeat(total[:, -1:], left, axis=1)], axis=1)
    return total[:, left + right + 1 :] - total[:, : -left - right - 1] < 0.5


def spike_like(
    v: Float[np.ndarray, " time"], dt: float, height: float = _SPIKE_MV
) -> tuple[Int[np.ndarray, " peak"], Float[np.ndarray, " peak"]]:
    """Find peaks that look like spikes, wherever they lie: high, steep and short, without any threshold.

    Args:
        v: potential [mV].
        dt: time between samples [ms].
        height: how far the potential rises within 5 ms before a peak, at 10 mV/ms somewhere, and falls within 5 ms
            after it, at least [mV]; and nine times the noise.

    Returns:
        The samples of the peaks, and of each the higher of its two feet [mV].
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d  # `simulate` needs no SciPy

    half = max(round(0.5 * _UPSTROKE / dt), 1)
    lowest = minimum_filter1d(np.pad(v, 2 * half, mode="edge"), 2 * half + 1)
    foot = np.maximum(lowest[half : half + len(v)], lowest[3 * half : 3 * half + len(v)])
    highest = v >= maximum_filter1d(v, 2 * half + 1)
    highest[1:] &= v[1:] > v[:-1]
    # Over a fifth of a millisecond, and beyond what noise alone can rise.
    lag, noise = max(round(0.2 / dt), 1), _noise(v)
    steep = np.pad(v[lag:] - v[:-lag] >= STEEP * dt * lag + 6 * noise, (2 * half, half + lag - 1))
    fast = maximum_filter1d(steep.astype(np.int8), 2 * half)[half : half + len(v)]  # of the steps that lead to a sample
    at = np.flatnonzero(highest & (v - foot >= max(height, 9 * noise)) & (fast > 0))
    return at, foot[at]


def _noise(v: np.ndarray) -> float:
    """Standard deviation of white noise, from second differences [mV]."""
    return float(np.median(np.abs(np.diff(v, 2)))) / (0.6745 * np.sqrt(6)) if len(v) > 2 else 0.0


class Detected(NamedTuple):
    """Spikes of several traces, and whether to believe them.

    Attributes:
        times: of each trace's spikes, after its first sample [ms].
        threshold: that was crossed [mV].
        doubts: of each trace, why its spikes should not be scored; empty where there is no doubt.
    """

    times: list[Float[np.ndarray, " spike"]]
    threshold: float
    doubts: list[str]


class Detector(Config):
    """What counts as a spike: a crossing of a threshold after the potential has returned from it.

    Attributes:
        threshold_mv: a potential [mV]; or `auto`, a quarter of the way from the feet to the peaks of what looks like
            spikes, and a fifth of it to return by.
        slope: if it is given, a spike begins where the potential of what looks like a spike rises as fast
            [mV/ms]; the threshold then only serves where a spike must be smooth, in objectives.
        return_mv: how far the potential must fall below the threshold before it can spike again: what rests at the
            threshold, as in a depolarisation block, crosses it without spiking [mV].
        doubt_slow: whether a trace is in doubt where many crossings are no steep peaks, as slow waves; by default where
            the threshold is found from those that are.

    Example:
        >>> v = np.where(np.arange(150) % 50 == 25, -10.0, -70.0)
        >>> Detector(threshold_mv="auto")(v[None], dt=1.0).threshold
        -55.0
        >>> Detector()(v[None], dt=1.0).doubts[0].split(" (")[0]
        '3 peaks that look like spikes stay below the threshold of 0 mV'
    """

    threshold_mv: float | Literal["auto"] = 0.0
    slope: float | None = Field(default=None, gt=0)
    return_mv: float = Field(default=10.0, ge=0)
    doubt_slow: bool | None = None

    def fixed(self, v: Float[np.ndarray, "trial time"], dt: float) -> "Detector":
        """This, with the threshold that `auto` means for some traces; 0 mV where nothing looks like a spike."""
        if self.threshold_mv != "auto":
            return self
        found = [(row[at], foot) for row in v for at, foot in [spike_like(row, dt)]]
        top, foot = (np.concatenate(x) for x in zip(*found, strict=True))
        slow = self.doubt_slow is not False
        if not len(top):
            return self.model_copy(update={"threshold_mv": 0.0, "doubt_slow": slow})
        low, high = float(np.quantile(foot, 0.95)), float(np.quantile(top, 0.05))
        level, fall = low + 0.25 * (high - low), min(self.return_mv, 0.2 * (high - low))
        return self.model_copy(update={"threshold_mv": level, "return_mv": fall, "doubt_slow": slow})

    def __call__(self, v: Float[np.ndarray, "trial time"], dt: float) -> Detected:
        """Find the spikes of several traces, `dt` ms between samples, and say which traces are in doubt."""
        v = np.asarray(v, np.float64)
        fixed = self.fixed(v, dt)
        level, fall = float(fixed.threshold_mv), fixed.return_mv
        if self.slope is not None:
            return Detected([_steep(row, dt, self.slope) for row in v], level, [""] * len(v))
        times, slow = [crossings(row, dt, level, fall) for row in v], bool(fixed.doubt_slow)
        return Detected(times, level, [_doubt(*pair, dt, level, fall, slow) for pair in zip(v, times, strict=True)])


def _doubt(v: np.ndarray, times: np.ndarray, dt: float, level: float, fall: float, slow: bool) -> str:
    """Why the crossings of a trace are not its spikes, if they are not."""
    top, crossed = v[spike_like(v, dt)[0]], int(upward(v, level).sum())
    low, passing = top[top < level], int((top >= level).sum())
    other = "" if slow else ", or threshold_mv: auto"
    if len(low) > _DOUBTED * (len(low) + len(times)):
        return (
            f"{_peaks(len(low), 'stay')} below the threshold of {level:.4g} mV (the highest reaches "
            f"{low.max():.1f} mV); set a lower threshold{other}"
        )
    if passing - len(times) > _DOUBTED * passing:
        return (
            f"{_peaks(passing, 'pass')} the threshold of {level:.4g} mV, but before only {len(times)} of them the "
            f"potential has returned {fall:.4g} mV below it; lower return_mv, set a higher threshold{other}"
        )
    if slow and len(times) - passing > max(1, _DOUBTED * len(times)):
        return (
            f"of {len(times)} crossings of {level:.4g} mV, {passing} look like spikes, the others are slow, as in a "
            "depolarisation block; if they are spikes, set doubt_slow: false"
        )
    if crossed > 2 * len(times) + 2:
        return (
            f"the potential crosses {level:.4g} mV {crossed} times, but returns {fall:.4g} mV below it only for "
            f"{len(times)} of them: it rests there, as in a depolarisation block, and most are no spikes; if they "
            "are, lower return_mv"
        )
    if len(times) and 6 * _noise(v) > fall > 0:
        return (
            f"the noise, {_noise(v):.2g} mV, alone may cross the threshold and return by {fall:.4g} mV; filter the "
            "recording, or raise return_mv"
        )
    return ""


def _peaks(count: int, does: str) -> str:
    """So many peaks that look like spikes do something."""
    if count == 1:
        return f"1 peak that looks like a spike {does}{'es' if does.endswith('s') else 's'}"
    return f"{count} peaks that look like spikes {does}"


def _steep(v: np.ndarray, dt: float, slope: float) -> np.ndarray:
    """Where the upstroke of each spike-like peak becomes as steep as `slope` [ms]; peaks that never do are none."""
    rise = np.diff(v) / dt
    begins = []
    for peak in spike_like(v, dt)[0]:
        first = max(peak - round(_UPSTROKE / dt), 0)
        fast = np.flatnonzero(rise[first:peak] >= slope)
        if len(fast):
            gentle = np.flatnonzero(rise[first : first + fast[-1]] < slope)
            begins.append(first + (gentle[-1] + 1 if len(gentle) else 0))
    return dt * np.asarray(begins, float)
