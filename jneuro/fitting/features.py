"""Summary features of a potential under a current: functions `(v, current, dt) -> [feature]`, jittable and smooth.

Times of spikes lie between samples, so they and all that is made of them have the derivatives of the crossing itself. A
spike that does not happen is put at the end of the trace, where its time no longer changes; so times are continuous in
the parameters while spikes come and go. What a trace does not have (the width of spikes that are not there) is NaN,
with a derivative of zero.

The stimulus is taken for a step: the current's first change is its onset, the next one its end.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jneuro.core.names import unknown_name
from jneuro.core.types import Array, Bool, Float, Int

__all__ = ["FEATURES", "Spikes", "feature_function", "soft_count", "spike_times", "spikes_of"]

THRESHOLD = 0.0
"""Potential whose upward crossing is a spike [mV]."""
SLOTS = 64
"""The most spikes of a trace that are looked at."""
_STEEP = 10.0
"""Slope at which a spike begins [mV/ms]."""
_BEFORE, _PEAK = 5.0, 4.0
"""How long before its crossing a spike may begin, and how long after it its peak may be [ms]."""

Feature = Callable[[Float[Array, " time"], Float[Array, " time"], float], Float[Array, ""]]


class Spikes(NamedTuple):
    """The spikes of a trace, in as many slots as were asked for.

    Attributes:
        time: of the crossing, after the first sample [ms]; the length of the trace where there is no spike.
        sample: the last one below threshold.
        exists: whether the slot holds a spike.
    """

    time: Float[Array, " spike"]
    sample: Int[Array, " spike"]
    exists: Bool[Array, " spike"]


def spikes_of(v: Float[Array, " time"], dt: float, *, threshold: float = THRESHOLD, slots: int = SLOTS) -> Spikes:
    """Find the upward crossings of a threshold.

    Args:
        v: potential [mV].
        dt: time between samples [ms].

    Other Args:
        threshold: what is crossed [mV].
        slots: how many spikes are looked for; later ones are left out.

    Returns:
        The spikes; their times are differentiable in `v`.
    """
    crossed = (v[:-1] < threshold) & (v[1:] >= threshold)
    at = jnp.flatnonzero(crossed, size=slots, fill_value=len(v))
    exists = at < len(v)
    at = jnp.minimum(at, len(v) - 2)
    rise = jnp.where(exists, v[at + 1] - v[at], 1.0)
    time = dt * (at + (threshold - v[at]) / rise)
    return Spikes(jnp.where(exists, time, dt * (len(v) - 1)), at, exists)


def spike_times(
    v: Float[Array, " time"], dt: float, *, threshold: float = THRESHOLD, slots: int = SLOTS
) -> Float[Array, " spike"]:
    """Times of the first `slots` spikes after the first sample [ms]; arguments as for `spikes_of`.

    Args:
        v: potential [mV].
        dt: time between samples [ms].

    Other Args:
        threshold: what is crossed [mV].
        slots: how many spikes are looked for.

    Returns:
        The times; the length of the trace for spikes that do not happen.
    """
    return spikes_of(v, dt, threshold=threshold, slots=slots).time


def soft_count(v: Float[Array, " time"], *, threshold: float = THRESHOLD, width: float = 4.0) -> Float[Array, ""]:
    r"""Count spikes smoothly: all that \(\sigma((v - \theta)/w)\) rises, summed.

    A full spike counts 1, one that fails a part, so there is a gradient that makes it.

    Args:
        v: potential [mV].

    Other Args:
        threshold: θ [mV].
        width: w [mV].

    Returns:
        The count.
    """
    return jnp.maximum(jnp.diff(jax.nn.sigmoid((v - threshold) / width)), 0).sum()


def _edges(current):
    """The samples at which the step begins and ends."""
    changed = jnp.concatenate([jnp.zeros(1, bool), jnp.diff(current) != 0])
    begin, end = jnp.flatnonzero(changed, size=2, fill_value=len(current))
    return jnp.where(begin < len(current), begin, 0), end


def _mean(x, where):
    """The mean of some entries; NaN if there are none."""
    count = where.sum()
    return jnp.where(count > 0, jnp.where(where, x, 0).sum() / jnp.maximum(count, 1), jnp.nan)


def _between(v, begin, end):
    samples = jnp.arange(len(v))
    return (samples >= begin) & (samples < end)


def _intervals(v, dt):
    found = spikes_of(v, dt)
    return jnp.diff(found.time), found.exists[1:]


def _count(v, current, dt):
    """Spikes, counted smoothly."""
    return soft_count(v)


def _rate(v, current, dt):
    """Spikes, counted smoothly, over the length of the step [Hz]."""
    begin, end = _edges(current)
    return 1e3 * soft_count(v) / (dt * (end - begin))


def _latency(v, current, dt):
    """Time from the onset to the first spike [ms]; to the end of the trace without one."""
    begin, _ = _edges(current)
    found = spikes_of(v, dt)
    after = found.time >= dt * begin
    return jnp.min(jnp.where(after, found.time, dt * (len(v) - 1))) - dt * begin


def _mean_interval(v, current, dt):
    """Mean interspike interval [ms]."""
    return _mean(*_intervals(v, dt))


def _interval_cv(v, current, dt):
    """Coefficient of variation of the interspike intervals; from two on."""
    interval, exists = _intervals(v, dt)
    mean = _mean(interval, exists)
    variance = _mean(jnp.square(interval - jnp.nan_to_num(mean)), exists)
    # A root has no slope at 0, where all intervals are equal.
    spread = jnp.sqrt(jnp.maximum(jnp.nan_to_num(variance), 1e-12))
    return jnp.where(exists.sum() > 1, spread / jnp.nan_to_num(mean, nan=1.0), jnp.nan)


def _adaptation(v, current, dt):
    """Mean of the change of successive intervals by their sum; 0 without adaptation, below 1 with."""
    interval, exists = _intervals(v, dt)
    both = exists[1:]
    return _mean(jnp.where(both, jnp.diff(interval) / jnp.where(both, interval[1:] + interval[:-1], 1), 0), both)


class _Shapes(NamedTuple):
    """Of every spike: where it begins and peaks, and how wide it is."""

    threshold: Float[Array, " spike"]
    peak: Float[Array, " spike"]
    width: Float[Array, " spike"]
    exists: Bool[Array, " spike"]


def _shapes(v, dt):
    """The shapes of the first spikes, each within its own window."""
    found = spikes_of(v, dt, slots=SLOTS // 4)
    before, after = round(_BEFORE / dt), round(_PEAK / dt)
    padded = jnp.pad(v, (before, after + 1), mode="edge")

    def shape(sample):
        window = jax.lax.dynamic_slice(padded, (sample,), (before + after + 1,))  # the crossing is at `before`
        slope = jnp.diff(window) / dt
        place = jnp.arange(len(slope))
        # The last sample before the crossing at which the slope had not yet been steep.
        gentle = (place <= before) & (slope < _STEEP)
        begin = jnp.max(jnp.where(gentle, place, 0)) + 1
        peak = jnp.max(jnp.where(jnp.arange(len(window)) >= before, window, -jnp.inf))
        at = jnp.argmax(jnp.where(jnp.arange(len(window)) >= before, window, -jnp.inf))
        half = 0.5 * (window[begin] + peak)
        up = (window[:-1] < half) & (window[1:] >= half) & (place < at)
        down = (window[:-1] >= half) & (window[1:] < half) & (place >= at)
        return window[begin], peak, _crossing(window, down, half, dt) - _crossing(window, up, half, dt), down.any()

    threshold, peak, width, whole = jax.vmap(shape)(found.sample)
    return _Shapes(threshold, peak, jnp.where(whole, width, 0), found.exists & whole)


def _crossing(window, crossed, level, dt):
    """The time of the first crossing in a window [ms]; 0 without one."""
    i = jnp.argmax(crossed)
    step = jnp.where(crossed.any(), window[i + 1] - window[i], 1.0)
    return jnp.where(crossed.any(), dt * (i + (level - window[i]) / step), 0.0)


def _ap_threshold(v, current, dt):
    """Mean potential at which the slope of a spike passes 10 mV/ms [mV]."""
    shapes = _shapes(v, dt)
    return _mean(shapes.threshold, shapes.exists)


def _ap_height(v, current, dt):
    """Mean height of spikes, from where they begin [mV]."""
    shapes = _shapes(v, dt)
    return _mean(shapes.peak - shapes.threshold, shapes.exists)


def _ap_width(v, current, dt):
    """Mean width of spikes at half of their height [ms]."""
    shapes = _shapes(v, dt)
    return _mean(shapes.width, shapes.exists)


def _ahp_depth(v, current, dt):
    """How far the potential falls below the beginning of a spike before the next one; mean over intervals [mV]."""
    shapes, found = _shapes(v, dt), spikes_of(v, dt, slots=SLOTS // 4)
    crossed = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum((v[:-1] < THRESHOLD) & (v[1:] >= THRESHOLD))])
    lowest = jax.ops.segment_min(v, crossed, num_segments=SLOTS // 4 + 1)[1:]
    interval = found.exists & jnp.roll(found.exists, -1).at[-1].set(False) & shapes.exists
    return _mean(jnp.where(interval, shapes.threshold - lowest, 0), interval)


def _rest(v, current, dt):
    """Mean potential before the onset [mV]; the first sample where there is no before."""
    begin, _ = _edges(current)
    return jnp.where(begin > 0, _mean(v, _between(v, 0, jnp.maximum(begin, 1))), v[0])


def _settled(v, begin, end):
    """Mean potential of the last fifth of the step."""
    return _mean(v, _between(v, end - jnp.maximum((end - begin) // 5, 1), end))


def _input_resistance(v, current, dt):
    """Change of the potential by the step's last fifth, by that of the current [mV per unit of current]."""
    begin, end = _edges(current)
    change = current[jnp.minimum(begin, len(v) - 1)] - current[0]
    ratio = (_settled(v, begin, end) - _rest(v, current, dt)) / jnp.where(change != 0, change, 1)
    return jnp.where(change != 0, ratio, jnp.nan)


def _membrane_tau(v, current, dt):
    """Time constant of the approach to the step's last fifth [ms]: the area above it by its height, exact for one
    exponential, and quiet, because noise is averaged."""
    begin, end = _edges(current)
    last, first = _settled(v, begin, end), _rest(v, current, dt)
    inside = _between(v, begin, end - (end - begin) // 5)
    # The trapezium rule gives the first sample half a weight.
    area = dt * (jnp.where(inside, v - last, 0).sum() - 0.5 * (first - last))
    height = first - last
    return jnp.where(height != 0, area / jnp.where(height != 0, height, 1), jnp.nan)


FEATURES: dict[str, Feature] = {
    "count": _count,
    "rate": _rate,
    "latency": _latency,
    "mean_interval": _mean_interval,
    "interval_cv": _interval_cv,
    "adaptation": _adaptation,
    "ap_threshold": _ap_threshold,
    "ap_height": _ap_height,
    "ap_width": _ap_width,
    "ahp_depth": _ahp_depth,
    "rest": _rest,
    "input_resistance": _input_resistance,
    "membrane_tau": _membrane_tau,
}
"""Features by name, each `(v [time], current [time], dt) -> scalar`."""


def feature_function(names: Sequence[str]) -> Callable[[Array, Array, float], Float[Array, " feature"]]:
    """Put features together.

    Args:
        names: of `FEATURES`, in the order wanted.

    Returns:
        A function `(v [time], current [time], dt) -> [feature]`.

    Raises:
        ValueError: for an unknown name.
    """
    for name in names:
        if name not in FEATURES:
            raise ValueError(f"features: {unknown_name(name, list(FEATURES), 'feature')}")

    def features(v, current, dt):
        v, current = jnp.asarray(v), jnp.asarray(current)
        return jnp.stack([FEATURES[name](v, current, dt) for name in names])

    return features
