"""What drives a simulator: pytrees evaluated at time t.

Amplitudes are in the simulator's own unit, times in ms, frequencies in Hz. An amplitude may have the shape of the
neurons, and then each gets its own; every array is a leaf, so a stimulus can be batched and differentiated.

A stimulus is asked in two ways: for its value at a time, by networks, adaptive solvers and recordings; and by
fixed-step solvers for its value within a step, in which what jumps counts by its share of the step (`Stimulus.over`).
So charge is kept wherever a jump lies, and derivatives with respect to its time are right.
"""

import abc
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.devices import route, scan
from jneuro.core.random import require_key
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.simulators.base import (
    NON_NEGATIVE,
    POSITIVE,
    REAL,
    Bounds,
    Param,
    Strict,
    _to_array,
    is_number,
    param,
    require_within_bounds,
)

__all__ = [
    "Chirp",
    "Constant",
    "OrnsteinUhlenbeck",
    "PulseTrain",
    "Ramp",
    "Sampled",
    "Scaled",
    "Sine",
    "Step",
    "Stimulus",
    "Sum",
    "WhiteNoise",
    "before_end",
    "draw_outside_loops",
    "moved_jumps",
]


def _argument(doc, unit="1", bounds=REAL, default: Any = ..., static=False):
    """An argument; of the simulator's unit where none is said."""
    return param(default, unit=unit, bounds=bounds, doc=doc, static=static)


_FEW_JUMPS = 16
"""Most jumps of a stimulus of one's own of which every step asks whether they lie in it."""


class Stimulus(Strict):
    """A function of time; abstract. Stimuli and numbers are added and subtracted, and scaled by numbers.

    One of one's own needs `__call__` alone, and `jumps` where it jumps:

    ```python
    class Decay(jn.Stimulus):
        amplitude: jn.Param = jn.param(10.0)
        tau: jn.Param = jn.param(20.0, unit="ms", bounds=jn.POSITIVE)

        def __call__(self, t):
            return self.amplitude * jnp.exp(-t / self.tau)
    ```
    """

    @abc.abstractmethod
    def __call__(self, t: Float[Array, ""]) -> Float[Array, "*neuron"]:
        """Value at time `t` [ms]."""

    def jumps(self) -> Float[Array, " jump"]:
        """Times [ms] at which the value or its slope jumps, so that adaptive solvers stop there; by default none.

        A solver that is not told of a jump finds it by rejecting steps, which takes longer; and derivatives with
        respect to the time of a jump that is not told are zero.
        """
        return jnp.zeros(0)

    def over(
        self, t: Float[Array, ""], start: Float[Array, ""], dt: Float[Array, ""] | float
    ) -> Float[Array, "*neuron"]:
        """Value at time `t` of a step, with what jumps within the step counted by its share of it.

        By default the jumps are those of `jumps`, where they are few; of more, the value at `t` is taken.

        Args:
            t: time [ms], in the step.
            start: beginning of the step [ms].
            dt: length of the step [ms].

        Returns:
            The value; its mean over the step is right where it is constant between jumps.
        """
        value, jumps = self(before_end(self, t, start + dt)), _jumps(self)
        if not 0 < jumps.size <= _FEW_JUMPS:
            return value
        place = _place(jumps.reshape(-1), start, dt)
        moved = place - lax.stop_gradient(place)
        near = 4 * jnp.finfo(jumps.dtype).eps * (1 + jnp.abs(lax.stop_gradient(jumps.reshape(-1))))
        at = lax.stop_gradient(jumps.reshape(-1))
        step = jax.vmap(self)(at + near) - jax.vmap(self)(at - near)
        inside, here = (place > 0) & (place < 1), (place >= 0) & (place < 1)
        weight = jnp.where(inside, 1 - lax.stop_gradient(place), 0) - jnp.where(here, moved, 0)
        change = jnp.tensordot(weight.astype(step.dtype), jnp.where(jnp.isfinite(step), step, 0), 1)
        return jnp.where(inside.any(), self(start), value) + change

    def __check_init__(self) -> None:
        """Refuse arguments outside their bounds, then combinations of them; traced values pass unseen."""
        require_within_bounds(self)
        self.require_consistent()

    def require_consistent(self) -> None:
        """Refuse combinations of arguments, each of which lies within its bounds."""

    # NumPy's arrays leave it to `__radd__` and its like what to do with a stimulus.
    __array_ufunc__ = None

    def __add__(self, other: "Stimulus | Float[Array, '*neuron'] | float") -> "Sum":
        """Their sum; a number is constant."""
        return Sum((self, _as_stimulus(other)))

    def __radd__(self, other: "Float[Array, '*neuron'] | float") -> "Stimulus":
        """Their sum; that with the 0 from which Python's `sum` starts is the stimulus itself."""
        return self if isinstance(other, int) and other == 0 else Sum((_as_stimulus(other), self))

    def __sub__(self, other: "Stimulus | Float[Array, '*neuron'] | float") -> "Sum":
        """Their difference."""
        return Sum((self, -_as_stimulus(other)))

    def __rsub__(self, other: "Float[Array, '*neuron'] | float") -> "Sum":
        """Their difference."""
        return Sum((_as_stimulus(other), -self))

    def __neg__(self) -> "Scaled":
        """The same of the other sign."""
        return self * -1.0

    def __mul__(self, factor: "Float[Array, '*neuron'] | float") -> "Scaled":
        """So many times as large."""
        return Scaled(self, cast(Any, factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: "Float[Array, '*neuron'] | float") -> "Scaled":
        """A part of it."""
        return self * (1.0 / _to_array(divisor))


def _as_stimulus(value: Any) -> Stimulus:
    """What is added: a stimulus, or a number as one."""
    return value if isinstance(value, Stimulus) else Constant(value)


def _require_end_after_onset(stimulus: Any, *, equal: bool = False) -> None:
    """Refuse an end that does not come after the onset."""
    if any(isinstance(x, Tracer | eqx.Module) for x in (stimulus.onset, stimulus.end)):
        return
    early, late = np.asarray(stimulus.onset), np.asarray(stimulus.end)
    if np.any(early > late) or (not equal and np.any(early == late)):
        raise ValueError(f"{type(stimulus).__name__}: end = {late} ms must come after onset = {early} ms")


def _jumps(stimulus):
    """Its jumps as floats; those of a stimulus of one's own may be whole numbers."""
    jumps = jnp.asarray(stimulus.jumps())
    return jumps.astype(jnp.result_type(jumps, 1.0))


def _edge(when):
    """The instant from which `when` counts as reached: a multiple of the step may lie before it by its last bits."""
    when = jnp.asarray(when, jnp.result_type(when, 1.0))
    size = lax.stop_gradient(jnp.where(jnp.isfinite(when), jnp.abs(when), 0))
    return when - 2 * jnp.finfo(when.dtype).eps * size


def _edges(*times):
    """Instants at which something jumps, in one row."""
    return _edge(jnp.concatenate([jnp.ravel(x) for x in times]))


def _reached(t, when):
    return t >= _edge(when)


def _between(t, onset, end):
    return _reached(t, onset) & ~_reached(t, end)


def _rounding(*times) -> float:
    """The coarsest relative rounding of these times."""
    return max(float(jnp.finfo(jnp.result_type(x, 0.0)).eps) for x in times)


def before_end(stimulus: Any, t: Float[Array, ""], end: Float[Array, ""]) -> Float[Array, ""]:
    """A time of a step, which at the step's end is the last before it: what begins there belongs to the next step.

    Args:
        stimulus: what drives the step; its coarsest type decides what counts as the end.
        t: time [ms].
        end: of the step [ms].
    """
    types = [x for x in jax.tree.leaves((stimulus, end)) if eqx.is_inexact_array(x)]
    return jnp.minimum(t, end * (1 - 5 * _rounding(*types)))


def _snapped(x, start, dt):
    """A number of steps, which is whole where it is so but for rounding; its derivative stays."""
    nearest, tolerance = jnp.round(x), jnp.minimum(3 * _rounding(x, start) * (1 + jnp.abs(start) / dt), 0.5)
    return x + lax.stop_gradient(jnp.where(jnp.abs(x - nearest) <= tolerance, nearest - x, 0))


def _place(when, start, dt):
    """How many steps after the beginning of a step an instant lies."""
    return _snapped((when - start) / dt, start, dt)


def _share_before(place):
    """Which share of a step lies before an instant at `place`; an instant at its beginning belongs to the step."""
    return jnp.where((place >= 0) & (place < 1), place, jnp.where(place < 0, 0.0, 1.0).astype(place.dtype))


def _share(start, dt, onset, end, like):
    """Which share of a step lies between onset and end, of the type of `like`."""
    late = 1.0 if end is None else _share_before(_place(end, start, dt))
    return jnp.asarray(late - _share_before(_place(onset, start, dt)), jnp.result_type(like))


def _sample(t, onset, period):
    """The position of `t` on a grid, and the number of the grid point before it, as whole float."""
    position = (t - onset) / period
    nearest = jnp.round(position)
    # Less than what a solver stays away from a jump at the end of its step; see `MembraneTerm.drive`.
    coarsest = max(float(jnp.finfo(jnp.result_type(x, 0.0)).eps) for x in (t, onset, period))
    tolerance = jnp.minimum(3 * coarsest * jnp.abs(lax.stop_gradient(t)) / period, 0.5)
    on_grid = jnp.abs(position - nearest) <= tolerance
    return position, lax.stop_gradient(jnp.where(on_grid, nearest, jnp.floor(position)))


class Constant(Stimulus):
    """The same value always."""

    amplitude: Param = _argument("amplitude")

    def __call__(self, t):
        """Value at time `t`."""
        return self.amplitude


class Step(Stimulus):
    """A value from `onset` until `end`, else zero."""

    amplitude: Param = _argument("amplitude")
    onset: Param = _argument("beginning", "ms", default=0.0)
    end: Param = _argument("end", "ms", Bounds(finite=False), default=float("inf"))

    def require_consistent(self) -> None:
        """Refuse an end before the onset."""
        _require_end_after_onset(self, equal=True)

    def __call__(self, t):
        """Value at time `t`."""
        return jnp.where(_between(t, self.onset, self.end), self.amplitude, 0.0)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        return self.amplitude * _share(start, dt, self.onset, self.end, self.amplitude)

    def jumps(self):
        """Onset and end."""
        return _edges(self.onset, self.end)


class PulseTrain(Stimulus):
    """Pulses of a given width, the first at `onset`, `count` of them, one every `1000/frequency` ms."""

    amplitude: Param = _argument("amplitude")
    frequency: Param = _argument("pulses a second", "Hz", POSITIVE)
    width: Param = _argument("length of a pulse", "ms", POSITIVE)
    count: int = _argument("number of pulses", bounds=Bounds(0), static=True)
    onset: Param = _argument("beginning of the first pulse", "ms", default=0.0)

    def require_consistent(self) -> None:
        """Refuse pulses that overlap."""
        if any(isinstance(x, Tracer | eqx.Module) for x in (self.frequency, self.width)):
            return
        width, period = np.asarray(self.width, np.float64), 1e3 / np.asarray(self.frequency, np.float64)
        if self.count > 1 and np.any(width > period * (1 + 1e-6)):
            raise ValueError(
                f"PulseTrain: pulses of width = {np.max(width):g} ms overlap, as one begins every {np.min(period):g} ms"
            )

    def __call__(self, t):
        """Value at time `t`."""
        period = 1e3 / self.frequency
        _, index = _sample(t, self.onset, period)
        ended = _reached(t, self.onset + index * period + self.width)
        return jnp.where((index >= 0) & (index < self.count) & ~ended, self.amplitude, 0.0)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        period = 1e3 / self.frequency
        first = jnp.clip(_sample(start, self.onset, period)[1], 0, self.count)
        place, width, period = _place(self.onset + first * period, start, dt), self.width / dt, period / dt

        def on(step):
            """Steps of the pulses since the beginning of the first of them."""
            since = step - place
            ended = lax.stop_gradient(jnp.clip(jnp.floor(since / period), 0, self.count - first))
            into = since - ended * period
            into = jnp.where((into > 0) & (into <= width), into, jnp.where(into <= 0, 0.0, width))
            return ended * width + jnp.where(first + ended < self.count, into, 0.0)

        return self.amplitude * _snapped(on(1.0) - on(0.0), start, dt).astype(self.amplitude.dtype)

    def jumps(self):
        """Beginnings and ends of all pulses."""
        begin = self.onset + jnp.multiply.outer(jnp.arange(self.count), 1e3 / self.frequency)
        return _edges(begin, begin + self.width)


class Ramp(Stimulus):
    """A slope from zero at `onset` to `amplitude` at `end`, and `amplitude` from then on."""

    amplitude: Param = _argument("value from the end on")
    end: Param = _argument("end of the slope", "ms")
    onset: Param = _argument("beginning of the slope", "ms", default=0.0)

    def require_consistent(self) -> None:
        """Refuse an end before the onset."""
        _require_end_after_onset(self)

    def __call__(self, t):
        """Value at time `t`."""
        return self.amplitude * self._share(t)

    def _share(self, t):
        """How far the slope has come at `t`; at its ends with the derivatives of what follows."""
        share = (t - self.onset) / (self.end - self.onset)
        return jnp.where(_reached(t, self.end), 1.0, jnp.where(_reached(t, self.onset), share, 0.0))

    def over(self, t, start, dt):
        """See `Stimulus`; in a step in which the slope begins or ends, its mean over the step."""
        first, last = _place(self.onset, start, dt), _place(self.end, start, dt)
        begins, ends = (first > 0) & (first < 1), (last > 0) & (last < 1)
        twice = 2 * (last - first)
        mean = jnp.where(ends, 1 - jnp.square(last) / twice, jnp.square(1 - first) / twice)
        mean = jnp.where(begins & ends, 1 - 0.5 * (first + last), mean)
        return self.amplitude * jnp.where(begins | ends, mean, self._share(t)).astype(self.amplitude.dtype)

    def jumps(self):
        """Where the slope begins and ends."""
        return _edges(self.onset, self.end)


class Sine(Stimulus):
    """A sine wave from `onset` on; `phase` in radians."""

    amplitude: Param = _argument("amplitude")
    frequency: Param = _argument("frequency", "Hz", NON_NEGATIVE)
    phase: Param = _argument("phase at the onset [rad]", default=0.0)
    onset: Param = _argument("beginning", "ms", default=0.0)

    def __call__(self, t):
        """Value at time `t`."""
        return jnp.where(_reached(t, self.onset), self._wave(t), 0.0)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        wave = self._wave(t)
        return wave * _share(start, dt, self.onset, None, wave)

    def _wave(self, t):
        return self.amplitude * jnp.sin(2e-3 * jnp.pi * self.frequency * (t - self.onset) + self.phase)

    def jumps(self):
        """The onset."""
        return _edges(self.onset)


class Chirp(Stimulus):
    """A sine wave whose frequency rises linearly from `start` at `onset` to `stop` at `end`; zero outside."""

    amplitude: Param = _argument("amplitude")
    start: Param = _argument("frequency at the onset", "Hz", NON_NEGATIVE)
    stop: Param = _argument("frequency at the end", "Hz", NON_NEGATIVE)
    end: Param = _argument("end", "ms")
    onset: Param = _argument("beginning", "ms", default=0.0)

    def require_consistent(self) -> None:
        """Refuse an end before the onset."""
        _require_end_after_onset(self)

    def __call__(self, t):
        """Value at time `t`."""
        return jnp.where(_between(t, self.onset, self.end), self._wave(t), 0.0)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        wave = self._wave(t)
        return wave * _share(start, dt, self.onset, self.end, wave)

    def _wave(self, t):
        elapsed = t - self.onset
        slope = (self.stop - self.start) / (self.end - self.onset)
        return self.amplitude * jnp.sin(2e-3 * jnp.pi * elapsed * (self.start + 0.5 * slope * elapsed))

    def jumps(self):
        """Onset and end."""
        return _edges(self.onset, self.end)


_FEW, _WIDE = 20, 50
"""Of fewer samples than that, with more neurons a sample than that, axes are taken to be exchanged."""


class Sampled(Stimulus):
    """A recorded or computed waveform, one sample every `dt`, the first at `onset`; zero outside.

    Between samples the value is held (`hold=True`) or interpolated linearly (`hold=False`). Where it is left open, the
    last sample is held, and ODE simulators refuse samples that are coarser than their time step.
    """

    values: Float[Array, "time *neuron"] = _argument("samples; time comes first")
    dt: Param = _argument("time between samples", "ms", POSITIVE)
    onset: Param = _argument("time of the first sample", "ms", default=0.0)
    hold: bool | None = eqx.field(static=True, default=None)

    def require_consistent(self) -> None:
        """Refuse what are no samples in time, and those whose axes are most likely exchanged."""
        if not isinstance(self.hold, bool | None):
            raise ValueError(f"Sampled: hold = {self.hold!r} must be True, False or None")
        if isinstance(self.values, eqx.Module):
            return
        if self.values.ndim == 0 or not self.values.shape[0]:
            raise ValueError(f"Sampled: values has the shape {self.values.shape}; it must be [time] or [time, neuron]")
        time, neuron = (*self.values.shape, 1)[:2]
        if self.hold is None and self.values.ndim == 2 and time < _FEW and neuron > _WIDE * time:
            raise ValueError(
                f"Sampled: values has the shape {self.values.shape}, which is {time} samples of {neuron} neurons: the "
                "first axis is time; take values.T, or say hold=True or hold=False if it is meant so"
            )

    @property
    def end(self) -> Float[Array, ""]:
        """Until when there is a value [ms]."""
        return self.onset + self.values.shape[0] * self.dt

    def __call__(self, t):
        """Value at time `t`."""
        index, here = self._found(t)
        return jnp.where((index >= 0) & (index < self.values.shape[0]), here, 0.0)

    def over(self, t, start, dt):
        """See `Stimulus`; of held samples, the step may see two."""
        if self.hold is False:
            here = self._found(t)[1]
            return here * _share(start, dt, self.onset, self.end, here)
        before = _sample(start, self.onset, self.dt)[1]
        share = _share_before(_place(self.onset + (before + 1) * self.dt, start, dt)).astype(self.values.dtype)
        index = before.astype(jnp.int32)
        here, after = (jnp.where((i >= 0) & (i < self.values.shape[0]), self._at(i), 0.0) for i in (index, index + 1))
        return here * share + after * (1 - share)

    def _at(self, index):
        """A sample; the first or the last where there is none."""
        return lax.dynamic_index_in_dim(self.values, jnp.clip(index, 0, self.values.shape[0] - 1), keepdims=False)

    def _found(self, t):
        """Number of the sample before `t`, and the value."""
        position, before = _sample(t, self.onset, self.dt)
        index = before.astype(jnp.int32)
        here = self._at(index)
        return index, here if self.hold is not False else here + (position - before) * (self._at(index + 1) - here)

    def jumps(self):
        """Every sample, held or not, is a corner."""
        return self.onset + jnp.arange(self.values.shape[0] + 1) * self.dt


class WhiteNoise(Stimulus):
    """Normally distributed noise, drawn anew every `hold` ms and held between.

    The same key gives the same path however time is stepped; halving `hold` halves the spectral density.
    """

    key: Key[Array, ""]
    sd: Param = _argument("standard deviation", bounds=NON_NEGATIVE)
    hold: float = _argument("time between draws", "ms", POSITIVE, static=True)
    duration: float = _argument("time up to which it is drawn at once", "ms", POSITIVE, static=True)
    mean: Param = _argument("mean", default=0.0)

    def __call__(self, t):
        """Value at time `t`."""
        index = _sample(t, 0.0, self.hold)[1].astype(jnp.int32)
        draw = jax.random.normal(jax.random.fold_in(self.key, index), self.sd.shape, self.sd.dtype)
        return self.mean + self.sd * draw

    def over(self, t, start, dt):
        """See `Stimulus`; the value at `t`, since nothing moves the times at which it is drawn."""
        return self(before_end(self, t, start + dt))

    def require_consistent(self) -> None:
        """Refuse what is no key."""
        require_key(self.key)

    def drawn(self) -> Sampled:
        """The same path up to `duration`, drawn at once: for devices that draw no random numbers within loops."""
        samples = jnp.arange(-(-self.duration // self.hold) + 1) * self.hold
        return Sampled(jax.vmap(self)(samples), _to_array(self.hold), hold=True)

    def jumps(self):
        """Every time at which a value is drawn, up to `duration`."""
        return jnp.asarray(np.arange(0.0, self.duration + self.hold, self.hold))


class OrnsteinUhlenbeck(Stimulus):
    r"""Stationary noise with an exponential autocorrelation.

    \[ \tau\,dx = (\mu - x)\,dt + \sigma\sqrt{2\tau}\,dW \]

    The path is drawn by the exact update over `dt` at construction, and held between samples.

    References:
        Gillespie D. T., Physical Review E 54 (1996) 2084, Equation 3.1.
    """

    path: Sampled

    def __init__(self, *, mean, sd, tau, duration: float, dt: float, key: Key[Array, ""]):
        """Draw the path.

        Args:
            mean: mean value.
            sd: standard deviation; its shape is that of one sample.
            tau: correlation time [ms].
            duration: length of the path [ms].
            dt: time between samples [ms].
            key: random key.
        """
        require_key(key)
        for name, value, bounds in (
            ("mean", mean, REAL),
            ("sd", sd, NON_NEGATIVE),
            ("tau", tau, POSITIVE),
            ("duration", duration, POSITIVE),
            ("dt", dt, POSITIVE),
        ):
            if not is_number(_to_array(value)):
                raise ValueError(f"OrnsteinUhlenbeck: {name} = {value!r} must be a number")
            if not isinstance(value, Tracer) and not bounds.contain(np.asarray(value)):
                raise ValueError(f"OrnsteinUhlenbeck: {name} = {np.asarray(value)} lies outside {bounds}")
        if round(duration / dt) < 1:
            raise ValueError(f"OrnsteinUhlenbeck: duration = {duration} ms must be at least dt = {dt} ms")
        mean, sd, tau = _to_array(mean), _to_array(sd), _to_array(tau)
        decay = jnp.exp(-dt / tau)
        draws = jax.random.normal(key, (round(duration / dt), *sd.shape), sd.dtype)

        def step(x, draw):
            return decay * x + jnp.sqrt(1 - decay**2) * draw, x

        # The first draw is the stationary start.
        _, path = scan(step, draws[0], jnp.roll(draws, -1, axis=0))
        self.path = Sampled(jax.vmap(lambda x: mean + sd * x)(path), _to_array(dt), hold=True)

    def __call__(self, t):
        """Value at time `t`."""
        return self.path(t)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        return self.path.over(t, start, dt)

    def jumps(self):
        """Every sample."""
        return self.path.jumps()


def draw_outside_loops(stimulus: PyTree) -> PyTree:
    """Draw a stimulus's noise at once where the device does not draw within loops (see `jneuro.core.devices`)."""
    if route() == "ordinary":
        return stimulus

    def noisy(s):
        return isinstance(s, WhiteNoise)

    return jax.tree.map(lambda s: s.drawn() if noisy(s) else s, stimulus, is_leaf=noisy)


def moved_jumps(stimulus: Stimulus, at: Float[Array, ""]) -> Float[Array, "*neuron"]:
    """What the jump at a time adds to the state of a cell when it moves: zero, whose derivative is not.

    Args:
        stimulus: what jumps.
        at: when [ms], up to rounding.

    Returns:
        Zero, with the derivative of the charge [unit of the stimulus times ms] with respect to the jump's time.
    """
    if isinstance(stimulus, Sum):
        return _total([moved_jumps(part, at) for part in stimulus.parts])
    jumps = _jumps(stimulus)
    if not jumps.size:
        return jnp.zeros((), jumps.dtype)
    here = lax.stop_gradient(jnp.argmin(jnp.abs(jumps - at)))
    when = lax.stop_gradient(jumps[here])
    near = 8 * _rounding(*(x for x in jax.tree.leaves((stimulus, at)) if eqx.is_inexact_array(x)))
    near = near * (1 + jnp.abs(when))
    change = lax.stop_gradient(stimulus(when - near) - stimulus(when + near))
    return jnp.where(jnp.abs(when - at) <= near, (jumps[here] - when) * change, 0)


class Sum(Stimulus):
    """The sum of several stimuli."""

    parts: tuple[Stimulus, ...] = eqx.field(converter=tuple)

    def require_consistent(self) -> None:
        """Refuse what are no stimuli."""
        if not self.parts or not all(isinstance(part, Stimulus) for part in self.parts):
            raise ValueError(f"Sum: parts = {self.parts} must be stimuli, at least one")

    def __call__(self, t):
        """Value at time `t`."""
        return _total([part(t) for part in self.parts])

    def over(self, t, start, dt):
        """See `Stimulus`."""
        return _total([part.over(t, start, dt) for part in self.parts])

    def jumps(self):
        """Those of all parts."""
        return jnp.concatenate([part.jumps() for part in self.parts])


def _total(values) -> Any:
    return sum(values[1:], values[0])


class Scaled(Stimulus):
    """A stimulus so many times as large; also one for each neuron, `stimulus * factors`."""

    part: Stimulus
    factor: Param = _argument("by how much it is multiplied")

    def require_consistent(self) -> None:
        """Refuse what is no stimulus times a number."""
        if not isinstance(self.part, Stimulus) or isinstance(self.factor, Stimulus):
            raise ValueError(f"Scaled: {self.part!r} times {self.factor!r} must be a stimulus times a number")

    def __call__(self, t):
        """Value at time `t`."""
        return self.factor * self.part(t)

    def over(self, t, start, dt):
        """See `Stimulus`."""
        return self.factor * self.part.over(t, start, dt)

    def jumps(self):
        """Those of its part."""
        return self.part.jumps()
