"""What a single cell does with a current: how fast it fires, in which pattern, and where the pattern changes."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Bool, Float, Int
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.simulation import simulate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import Constant

__all__ = ["REGIMES", "Excitability", "excitability", "firing_pattern"]

REGIMES = ("rest", "bursting", "irregular", "spiking")
"""Patterns of firing, by their number in `Excitability.regime`."""

_LONGEST_PERIOD = 16
_FRAME = 0.1


class Excitability(NamedTuple):
    """What cells do with constant currents, one entry a cell; after the transient where nothing else is said.

    Attributes:
        current: the current, in the simulator's unit.
        spikes: number of spikes, the transient's included.
        rate: mean rate [Hz].
        first_spike: time of the first spike, in the transient or after it [ms]; NaN without one.
        isi_cv: coefficient of variation of the interspike intervals; NaN with fewer than two.
        period: intervals after which the sequence of intervals repeats; 0 if there is no such number up to 16.
        v_min: lowest potential [mV].
        v_max: highest potential [mV].
        regime: index into `REGIMES`: fewer than two spikes; a period of several intervals; none; a period of one.
    """

    current: Float[Array, "*neuron"]
    spikes: Int[Array, "*neuron"]
    rate: Float[Array, "*neuron"]
    first_spike: Float[Array, "*neuron"]
    isi_cv: Float[Array, "*neuron"]
    period: Int[Array, "*neuron"]
    v_min: Float[Array, "*neuron"]
    v_max: Float[Array, "*neuron"]
    regime: Int[Array, "*neuron"]

    @property
    def names(self) -> np.ndarray:
        """The regimes by name."""
        return np.asarray(REGIMES)[np.asarray(self.regime)]


@eqx.filter_jit
def excitability(
    cell: ODESimulator | SteppedSimulator,
    current: Float[Array, "*neuron"] | float,
    *,
    duration: float = 2000.0,
    warmup: float = 2000.0,
    dt: float | None = None,
    solver: Any = None,
) -> Excitability:
    """Drive cells with constant currents, in one program, and say what they do.

    An f-I curve has many currents and one cell; a bifurcation diagram also has many values of a parameter:
    `excitability(CA1Pyramidal(g_m=values), 1.0)`. Batch over a second axis with `jax.vmap`.

    Args:
        cell: single cells; a stepped one must have as many as there are currents.
        current: one for all, or one a cell.
        duration: time over which cells are described [ms].
        warmup: the transient before it, with the same current [ms].
        dt: time step [ms], as for `simulate`.
        solver: solver, as for `simulate`.

    Returns:
        Rates, patterns and extremes. Spike times are good to 0.1 ms.

    Raises:
        ValueError: for a time that cannot be.
    """
    if not (warmup >= 0 and duration > 0):
        raise ValueError(f"duration = {duration} ms must be positive, and warmup = {warmup} ms not negative")
    step = (cell.default_dt if dt is None else dt) if isinstance(cell, ODESimulator) else cell.dt
    every = max(round(_FRAME / step), 1)
    recording = simulate(
        cell,
        Constant(jnp.asarray(current)),
        duration=warmup + duration,
        dt=dt,
        solver=solver,
        record=("v", "spikes"),
        record_every=every * step,
        key=jax.random.key(0),
        throw=False,
    )
    first = round(warmup / (every * step))
    v, fired = recording.values["v"], recording.values["spikes"] > 0
    shape = v.shape[1:]
    describe = jax.vmap(lambda f: firing_pattern(f, first, every * step), in_axes=1)
    found = {name: x.reshape(shape) for name, x in describe(fired.reshape(len(fired), -1)).items()}
    seconds = 1e-3 * duration
    return Excitability(
        current=jnp.broadcast_to(jnp.asarray(current, v.dtype), shape),
        spikes=fired.sum(0),
        rate=fired[first:].sum(0) / seconds,
        v_min=v[first:].min(0),
        v_max=v[first:].max(0),
        **found,
    )


def firing_pattern(fired: Bool[Array, " time"], first: int, frame: float) -> dict[str, Array]:
    """Describe the pattern of one cell's spikes.

    Args:
        fired: frames with a spike.
        first: frames of the transient.
        frame: length of a frame [ms].

    Returns:
        `first_spike`, `isi_cv`, `period` and `regime` of `Excitability`.
    """
    # Room for a spike a millisecond; no cell spikes more often.
    room = max(min(len(fired), round(len(fired) * frame)), len(fired) // 10)
    late = jnp.flatnonzero(fired[first:], size=room, fill_value=-1)
    exists = late[1:] >= 0
    interval = jnp.where(exists, jnp.diff(late), 0) * frame
    count = exists.sum()
    mean = interval.sum() / count
    variance = jnp.where(exists, jnp.square(interval - mean), 0).sum() / count
    period = _period(interval, exists, count, frame)
    regime = jnp.where(count < 1, 0, jnp.where(period == 1, 3, jnp.where(period > 1, 1, 2)))
    return {
        "first_spike": jnp.where(fired.any(), (jnp.argmax(fired) + 1) * frame, jnp.nan),
        "isi_cv": jnp.where(count > 1, jnp.sqrt(variance) / mean, jnp.nan),
        "period": period,
        "regime": regime,
    }


def _period(interval: Float[Array, " isi"], exists: Bool[Array, " isi"], count: Int[Array, ""], frame: float) -> Array:
    """The shortest lag at which intervals equal each other, to 5 % and two frames, over at least two periods."""

    def repeats(lag):
        a, b = interval[lag:], interval[:-lag]
        equal = jnp.abs(a - b) <= 0.05 * jnp.maximum(a, b) + 2 * frame
        return (count >= 2 * lag) & jnp.all(equal | ~exists[lag:])

    lags = jnp.arange(1, _LONGEST_PERIOD + 1)
    found = jnp.stack([repeats(lag) for lag in range(1, _LONGEST_PERIOD + 1)])
    return jnp.where(found.any(), lags[jnp.argmax(found)], 0)
