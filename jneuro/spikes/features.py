"""Summary features of a potential under a step of current, jittable and smooth; names and definitions are eFEL's.

Three things differ from eFEL, because features here have derivatives: a spike is where the potential crosses the
threshold, between samples, and not where it peaks; counts are smooth, but in `extract`; and what belongs to spikes is
their mean. `rate`, `mean_interval` and `membrane_tau` are not eFEL's.

A spike that does not happen is put at the end of the step, where its time no longer changes; so times are continuous in
the parameters while spikes come and go. What a trace does not have (the width of spikes that are not there) is NaN,
with a derivative of zero. Spikes outside of the step do not count, but in `Spikecount`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.names import unknown_name
from jneuro.core.types import Array, Bool, Float, Int
from jneuro.spikes.detection import STEEP, soft_spikes, upward
from jneuro.spikes.intervals import adaptation_index
from jneuro.spikes.protocols import Step, main_step

__all__ = ["FEATURES", "Extracted", "Feature", "extract", "feature_function"]

_BEFORE = 5.0
"""How long before its crossing a spike may begin [ms]."""


class _Trace(NamedTuple):
    """A trace, its step, and its spikes in as many slots as it can have; `real` ones exist, those of the step count."""

    v: Float[Array, " time"]
    dt: float
    begin: Int[Array, ""]
    end: Int[Array, ""]
    change: Float[Array, ""]
    threshold: float
    spiked: Bool[Array, " step"]
    at: Int[Array, " spike"]
    time: Float[Array, " spike"]
    real: Bool[Array, " spike"]
    exists: Bool[Array, " spike"]
    smooth: bool

    @classmethod
    def of(cls, v: Array, step: Step, dt: float, threshold: float, fall: float, smooth: bool) -> "_Trace":
        """Find the spikes of the step: `at` is the last sample below threshold, `time` [ms] that of the crossing."""
        begin, end, change = (jnp.asarray(x) for x in step)
        spiked = upward(v, threshold, fall)
        # Two crossings lie two samples apart, so none is left out.
        at = jnp.flatnonzero(spiked, size=len(v) // 2 + 1, fill_value=len(v))
        real, exists = at < len(v), (at + 1 >= begin) & (at + 1 < end)
        at = jnp.minimum(at, len(v) - 2)
        rise = jnp.where(exists, v[at + 1] - v[at], 1.0)
        time = jnp.where(exists, dt * (at + (threshold - v[at]) / rise), dt * end)
        return cls(v, dt, begin, end, change, threshold, spiked, at, time, real, exists, smooth)

    @property
    def intervals(self) -> Array:
        """Between successive spikes [ms]; NaN for those that do not exist."""
        return jnp.where(self.exists[:-1] & self.exists[1:], jnp.diff(self.time), jnp.nan)

    def mean(self, begin: Array, end: Array) -> Array:
        """Mean potential from one sample to before another [mV]."""
        sample = jnp.arange(len(self.v))
        return _mean(self.v, (sample >= begin) & (sample < end))

    @property
    def base(self) -> Array:
        """Median potential of the last tenth before the step [mV]; the first sample where there is no before."""
        sample, count = jnp.arange(len(self.v)), jnp.maximum(self.begin // 10, 1)
        inside = (sample >= self.begin - count) & (sample < self.begin)
        ordered = jnp.sort(jnp.where(inside, self.v, jnp.inf))
        middle = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
        return jnp.where(self.begin > 0, middle, self.v[0])

    @property
    def settled(self) -> Array:
        """Mean potential of the step's last tenth [mV]."""
        return self.mean(self.end - jnp.maximum((self.end - self.begin) // 10, 1), self.end)

    def extreme(self, part: Array, where: Array, of: Callable) -> Array:
        """The sample at which the potential is least or greatest in each part of the trace, numbered from 1."""
        slots, sample = len(self.at) + 1, jnp.arange(len(self.v))
        worst = -jnp.inf if of is jax.ops.segment_max else jnp.inf
        v = lax.stop_gradient(jnp.where(where, self.v, worst))
        found = of(v, part, num_segments=slots)
        first = jax.ops.segment_min(jnp.where(where & (v == found[part]), sample, len(v)), part, num_segments=slots)
        return jnp.minimum(first[1:], len(v) - 1)

    @property
    def starts(self) -> Array:
        """The sample at which each spike begins: the first after which the slope stays above 10 mV/ms."""
        step = jnp.arange(len(self.v) - 1)
        gentle = lax.cummax(jnp.where(jnp.diff(self.v) < STEEP * self.dt, step, -1))
        return jnp.maximum(jnp.maximum(gentle[self.at], self.at - round(_BEFORE / self.dt)) + 1, 0)

    @property
    def parts(self) -> Array:
        """The spike to which every sample belongs, from its beginning on, numbered from 1."""
        return jnp.cumsum(jnp.zeros(len(self.v), int).at[self.starts].add(self.real.astype(int)))

    @property
    def tops(self) -> Array:
        """The sample at which each spike peaks."""
        return self.extreme(self.parts, jnp.ones(len(self.v), bool), jax.ops.segment_max)


def _mean(x: Array, where: Array) -> Array:
    """The mean of some entries; NaN if there are none."""
    count = where.sum()
    return jnp.where(count > 0, jnp.where(where, x, 0).sum() / jnp.maximum(count, 1), jnp.nan)


def _count(t: _Trace) -> Array:
    return soft_spikes(t.v, t.threshold).sum() if t.smooth else t.real.sum().astype(t.v.dtype)


def _count_in_step(t: _Trace) -> Array:
    if not t.smooth:
        return t.exists.sum().astype(t.v.dtype)
    sample = jnp.arange(len(t.v))
    return jnp.where((sample >= t.begin) & (sample < t.end), soft_spikes(t.v, t.threshold), 0).sum()


def _isi_cv(t: _Trace) -> Array:
    interval = t.intervals
    known = jnp.isfinite(interval) & (jnp.cumsum(jnp.isfinite(interval)) > 1)  # eFEL leaves the first out
    interval, count = jnp.where(known, interval, 0), known.sum()
    mean = interval.sum() / jnp.maximum(count, 1)
    squares = jnp.where(known, jnp.square(interval - mean), 0).sum() / jnp.maximum(count - 1, 1)
    # A root has no slope at 0, where all intervals are equal.
    return jnp.where(count > 1, jnp.sqrt(jnp.maximum(squares, 1e-12)) / jnp.where(count > 1, mean, 1), jnp.nan)


def _half_width(t: _Trace) -> Array:
    part, top = t.parts, t.tops
    half = 0.5 * (t.v[t.starts] + t.v[top])
    slots, step = len(t.at) + 1, jnp.arange(len(t.v) - 1)
    level = jnp.concatenate([jnp.full(1, jnp.inf), half])[part[:-1]]
    peak = jnp.concatenate([jnp.zeros(1, top.dtype), top])[part[:-1]]
    low, high = t.v[:-1] < level, t.v[1:] >= level

    def crossed(where):
        where = where & (part[:-1] == part[1:])
        i = jax.ops.segment_min(jnp.where(where, step, len(step)), part[:-1], num_segments=slots)[1:]
        exists, i = i < len(step), jnp.minimum(i, len(step) - 1)
        return t.dt * (i + (half - t.v[i]) / jnp.where(exists, t.v[i + 1] - t.v[i], 1)), exists

    (up, rises), (down, falls) = crossed(low & high & (step < peak)), crossed(~low & ~high & (step >= peak))
    exists = t.exists & rises & falls
    return _mean(jnp.where(exists, down - up, 0), exists)


def _ahp_depth(t: _Trace) -> Array:
    after = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(t.spiked)])
    low = t.extreme(after, jnp.arange(len(t.v)) < t.end, jax.ops.segment_min)
    exists = t.exists & (low < t.end - 1)  # what still falls when the step ends is no minimum
    return _mean(jnp.where(exists, t.v[low] - t.base, 0), exists)


def _resistance(t: _Trace) -> Array:
    ratio = (t.settled - t.base) / jnp.where(t.change != 0, t.change, 1)
    return jnp.where(t.change != 0, ratio, jnp.nan)


def _membrane_tau(t: _Trace) -> Array:
    last, sample = t.settled, jnp.arange(len(t.v))
    inside = (sample >= t.begin) & (sample < t.end - (t.end - t.begin) // 10)
    height = t.base - last
    # The trapezium rule gives the first sample half a weight.
    area = t.dt * (jnp.where(inside, t.v - last, 0).sum() - 0.5 * height)
    tau = area / jnp.where(height != 0, height, 1)
    return jnp.where((height != 0) & (tau > 0) & ~t.exists.any(), tau, jnp.nan)


class Feature(NamedTuple):
    """A feature.

    Attributes:
        function: of a trace.
        unit: its unit.
        meaning: in one phrase.
        missing: why a trace may not have it.
    """

    function: Callable[[_Trace], Array]
    unit: str
    meaning: str
    missing: str = ""


_FEW, _SHAPE = "fewer than {} spikes in the step", "no whole spike in the step"
FEATURES: dict[str, Feature] = {
    "Spikecount": Feature(_count, "1", "spikes of the whole trace"),
    "Spikecount_stimint": Feature(_count_in_step, "1", "spikes of the step; smooth: one that fails counts in part"),
    "rate": Feature(
        lambda t: 1e3 * _count_in_step(t) / (t.dt * (t.end - t.begin)), "Hz", "spikes of the step by its length"
    ),
    "time_to_first_spike": Feature(
        lambda t: jnp.min(t.time) - t.dt * t.begin, "ms", "from the onset to the first spike, or to the step's end"
    ),
    "mean_interval": Feature(
        lambda t: _mean(jnp.nan_to_num(t.intervals), jnp.isfinite(t.intervals)),
        *("ms", "mean interspike interval", _FEW.format(2)),
    ),
    "ISI_CV": Feature(
        _isi_cv, "1", "coefficient of variation of the interspike intervals but the first", _FEW.format(4)
    ),
    "adaptation_index": Feature(
        lambda t: adaptation_index(t.intervals),
        *("1", "mean of the change of successive intervals by their sum", _FEW.format(3)),
    ),
    "AP_begin_voltage": Feature(
        lambda t: _mean(t.v[t.starts], t.exists), "mV", "potential where the slope passes 10 mV/ms", _FEW.format(1)
    ),
    "AP_amplitude": Feature(
        lambda t: _mean(t.v[t.tops] - t.v[t.starts], t.exists), "mV", "peak above the beginning", _FEW.format(1)
    ),
    "AP_duration_half_width": Feature(_half_width, "ms", "width at half of the amplitude", _SHAPE),
    "AHP_depth": Feature(
        _ahp_depth, "mV", "lowest potential until the next spike, or the step's end, above voltage_base", _SHAPE
    ),
    "voltage_base": Feature(lambda t: t.base, "mV", "median potential of the last tenth before the onset"),
    "ohmic_input_resistance_vb_ssse": Feature(
        _resistance,
        "mV by current",
        "change of the potential to the step's last tenth, by that of the current",
        "no step",
    ),
    "membrane_tau": Feature(
        _membrane_tau,
        *("ms", "time constant of the way to the step's last tenth: the area above it by its height"),
        "spikes in the step, no change of the potential, or no approach from one side (a sag), which makes it negative",
    ),
}
"""Features by name."""


def feature_function(names: Sequence[str], *, smooth: bool = True) -> Callable[..., Float[Array, " feature"]]:
    """Put features together.

    Args:
        names: of `FEATURES`, in the order wanted.

    Other Args:
        smooth: whether counts have derivatives, a spike that fails being counted in part; else they are whole.

    Returns:
        A function `(v [time], current [time], dt, *, step=None, threshold=0.0, fall=10.0) -> [feature]`. Under `jit`,
        find the step outside of it, `step, = main_step(current[None], dt)`; `current` is then not looked at.

    Raises:
        ValueError: for an unknown name.
    """
    for name in names:
        if name not in FEATURES:
            raise ValueError(f"features: {unknown_name(name, list(FEATURES), 'feature')}")

    def features(v, current, dt, *, step=None, threshold=0.0, fall=10.0):
        if step is None:
            if isinstance(current, Tracer):
                raise ValueError(
                    "features: the current is traced, so its step cannot be found; give step=main_step(…)[0]"
                )
            (step,) = main_step(np.asarray(current)[None], dt)
        return _computed(jnp.asarray(v), step, threshold, names=tuple(names), dt=dt, fall=fall, smooth=smooth)

    return features


@partial(jax.jit, static_argnames=("names", "dt", "fall", "smooth"))
def _computed(
    v: Array, step: Step, threshold: float, *, names: tuple[str, ...], dt: float, fall: float, smooth: bool
) -> Array:
    """All at once, compiled once for a length of traces."""
    trace = _Trace.of(v, step, dt, threshold, fall, smooth)
    return jnp.stack([FEATURES[name].function(trace) for name in names])


class Extracted(NamedTuple):
    """Features of a trace.

    Attributes:
        values: by name.
        missing: why some are NaN.
    """

    values: dict[str, float]
    missing: dict[str, str]


def extract(
    v: Float[np.ndarray, " time"],
    current: Float[np.ndarray, " time"],
    dt: float,
    *,
    names: Sequence[str] = tuple(FEATURES),
    onset: float | None = None,
    end: float | None = None,
    threshold: float = 0.0,
    fall: float = 10.0,
) -> Extracted:
    """Describe a trace under a step of current; counts are whole.

    Args:
        v: potential [mV].
        current: in any unit; noisy or not.
        dt: time between samples [ms].

    Other Args:
        names: of `FEATURES`.
        onset: where the step begins, after the first sample [ms]; by default it is found.
        end: where it ends [ms].
        threshold: of spikes [mV].
        fall: how far below it the potential must return before the next spike [mV].

    Returns:
        The features, and why some are missing.

    Example:
        >>> current = np.where(np.arange(2000) >= 500, -10.0, 0.0)
        >>> v = -70 - 5 * (1 - np.exp(-np.maximum(np.arange(2000) - 500, 0) / 100))
        >>> found = extract(v, current, dt=0.1, names=["membrane_tau", "ISI_CV"])
        >>> round(found.values["membrane_tau"], 1), found.missing
        (10.0, {'ISI_CV': 'fewer than 4 spikes in the step'})
    """
    (step,) = main_step(np.asarray(current)[None], dt, onset=onset, end=end)
    found = feature_function(names, smooth=False)(v, current, dt, step=step, threshold=threshold, fall=fall)
    values: dict[str, Any] = dict(zip(names, np.asarray(found).tolist(), strict=True))
    return Extracted(values, {n: FEATURES[n].missing for n, x in values.items() if np.isnan(x)})
