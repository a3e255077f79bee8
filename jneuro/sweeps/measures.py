"""What is computed of every point's recording, on the device, so that its traces need not be stored."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jneuro.core.config import unknown_name
from jneuro.core.types import Array, Float
from jneuro.recordings import Recording
from jneuro.simulators.regimes import REGIMES, firing_pattern
from jneuro.simulators.spike_statistics import isi_cvs

__all__ = ["MEASURES", "STATES", "Measure", "load_measure", "result_names"]

STATES = ("quiet", "synchronous regular", "asynchronous regular", "synchronous irregular", "asynchronous irregular")
"""States of a network, by their number in the measure `network_state`."""

_BIN = 3.0
"""Length of the bins of `synchrony` [ms]."""


class Measure(NamedTuple):
    """A reduction of a recording.

    Attributes:
        function: from one point's recording, and the sizes of its populations, to an array, or to several by name.
        needs: what must be recorded; nothing: all that can be.
        unit: its unit.
        doc: its meaning.
        meanings: names of its values, where it is a number that stands for a name.
        source: stands for the code, where it is not this package's.
    """

    function: Callable[[Recording, tuple[int, ...]], Any]
    needs: tuple[str, ...]
    unit: str = "1"
    doc: str = ""
    meanings: tuple[str, ...] = ()
    source: str = ""


def _by_neuron(recording: Recording, name: str) -> Float[Array, "time neuron"]:
    """A recorded array; that of a single cell gets the axis that it lacks."""
    values = recording.values[name]
    return values.reshape(values.shape[0], -1)


def _seconds(recording: Recording) -> float:
    return 1e-3 * recording.frames * recording.dt


def _spike_count(recording, populations):
    return _by_neuron(recording, "spikes").sum(dtype=jnp.int32)


def _rate(recording, populations):
    spikes = _by_neuron(recording, "spikes")
    return spikes.sum(dtype=jnp.int32) / (spikes.shape[1] * _seconds(recording))


def _population_rates(recording, populations):
    spikes = _by_neuron(recording, "spikes").sum(0, dtype=jnp.int32)
    parts = jnp.split(spikes, np.cumsum(populations)[:-1])
    return jnp.stack([p.sum() / (max(p.size, 1) * _seconds(recording)) for p in parts])


def _isi_cv(recording, populations):
    cv, known = isi_cvs(_by_neuron(recording, "spikes"))
    return jnp.where(known.any(), cv.sum() / jnp.maximum(known.sum(), 1), jnp.nan)


def _synchrony(recording, populations):
    counts = _by_neuron(recording, "spikes").sum(1, dtype=jnp.int32)
    size = max(1, round(_BIN / recording.dt))
    binned = counts[: len(counts) // size * size].reshape(-1, size).sum(1).astype(jnp.result_type(float))
    mean = binned.mean()
    return jnp.where(mean > 0, binned.var() / jnp.where(mean > 0, mean, 1), jnp.nan)


def _network_state(recording, populations):
    rate, cv, synchrony = (f(recording, populations) for f in (_rate, _isi_cv, _synchrony))
    irregular, asynchronous = cv > 0.5, synchrony <= _SYNCHRONOUS
    return jnp.where((rate < 1) | jnp.isnan(cv), 0, 1 + asynchronous + 2 * irregular).astype(jnp.int32)


_SYNCHRONOUS = 2.0
"""Synchrony above which a network counts as synchronous: twice that of independent neurons."""


def _first_spike(recording, populations):
    fired = (_by_neuron(recording, "spikes") > 0).any(1)
    return jnp.where(fired.any(), (jnp.argmax(fired) + 1) * recording.dt, jnp.nan)


def _regime(recording, populations):
    fired = (_by_neuron(recording, "spikes") > 0).any(1)
    return firing_pattern(fired, 0, recording.dt)["regime"].astype(jnp.int32)


def _of_potential(reduce: Callable[[Array], Array]):
    return lambda recording, populations: reduce(_by_neuron(recording, "v"))


MEASURES = {
    "spike_count": Measure(_spike_count, ("spikes",), "1", "spikes, of all neurons"),
    "rate": Measure(_rate, ("spikes",), "Hz", "mean rate of all neurons"),
    "population_rates": Measure(_population_rates, ("spikes",), "Hz", "mean rate of each population"),
    "isi_cv": Measure(
        _isi_cv,
        ("spikes",),
        doc="coefficient of variation of the interspike intervals, averaged over the neurons that have two or more",
    ),
    "synchrony": Measure(
        _synchrony,
        ("spikes",),
        doc=f"variance of the number of spikes in bins of {_BIN:g} ms over its mean; 1 for independent neurons",
    ),
    "network_state": Measure(
        _network_state,
        ("spikes",),
        doc=f"quiet below 1 Hz; irregular above an ISI CV of 0.5; synchronous above a synchrony of {_SYNCHRONOUS:g}",
        meanings=STATES,
    ),
    "first_spike": Measure(_first_spike, ("spikes",), "ms", "time of the first spike of any neuron"),
    "regime": Measure(
        _regime,
        ("spikes",),
        doc="pattern of a single cell's spikes; see jneuro.simulators.regimes",
        meanings=REGIMES,
    ),
    "v_mean": Measure(_of_potential(jnp.mean), ("v",), "mV", "mean potential"),
    "v_sd": Measure(_of_potential(jnp.std), ("v",), "mV", "standard deviation of the potential"),
    "v_min": Measure(_of_potential(jnp.min), ("v",), "mV", "lowest potential"),
    "v_max": Measure(_of_potential(jnp.max), ("v",), "mV", "highest potential"),
}
"""Measures by the name that a configuration uses."""


def load_measure(name: str) -> Measure:
    """Find a measure.

    Args:
        name: one of `MEASURES`; or `module:function` of one's own, the module found as Python finds it, or in the
            working folder. The function takes one point's recording, of everything the simulator records, and returns
            an array, or a dictionary of arrays; it is traced by JAX.

    Returns:
        The measure.

    Raises:
        ValueError: if there is none.
    """
    if ":" not in name:
        if name not in MEASURES:
            raise ValueError(f"measures: {unknown_name(name, MEASURES, 'measure')}, or module:function of your own")
        return MEASURES[name]
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
        source = inspect.getsource(found)
    except (ImportError, AttributeError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"measures: {name!r} cannot be loaded ({error}); write module:function") from error
    finally:
        sys.path.remove(here)
    if not function.isidentifier() or not callable(found):
        raise ValueError(f"measures: {name!r} is no function")
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    doc = (found.__doc__ or "").strip().partition("\n")[0]
    return Measure(lambda recording, _: found(recording), (), doc=doc, source=digest)


def result_names(name: str, result: Any) -> dict[str, Any]:
    """The arrays of a measure's result, by the names under which they are stored.

    Args:
        name: the measure's.
        result: what its function returned.

    Returns:
        Name to array.
    """
    plain = name.rpartition(":")[2]
    if isinstance(result, dict):
        return {str(key): jnp.asarray(value) for key, value in result.items()}
    return {plain: jnp.asarray(result)}
