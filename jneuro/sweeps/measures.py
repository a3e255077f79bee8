"""What is computed of every point's recording, on the device, so that its traces need not be stored."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.code import line_of
from jneuro.core.registry import accepted
from jneuro.core.types import Array, Float
from jneuro.recordings.recording import Recording
from jneuro.simulators.regimes import REGIMES, firing_pattern
from jneuro.spikes.intervals import isi_cvs
from jneuro.sweeps.kinds import MEASURES

__all__ = ["STATES", "Measure", "as_measure", "measure", "result_like", "result_names", "unwrapped"]

STATES = ("quiet", "synchronous regular", "asynchronous regular", "synchronous irregular", "asynchronous irregular")
"""States of a network, by their number in the measure `network_state`."""

_BIN = 3.0
"""Length of the bins of `synchrony` [ms]."""

_SILENT = 0.1
"""Rate [Hz] that is added, so that a silent network has a logarithm."""

_SYNCHRONOUS = 2.0
"""Synchrony above which a network counts as synchronous: twice that of independent neurons."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """A reduction of a recording: a function with a unit.

    Attributes:
        function: from one run's recording to a number or an array, or to several by name. A second argument
            `populations`, where it takes one, is the sizes of the populations of neurons.
        needs: what must be recorded; nothing: all that can be.
        unit: its unit.
        doc: its meaning, in one phrase.
        meanings: names of its values, where it is a number that stands for a name.
        name: under which its results are stored.
    """

    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
    unit: str = "1"
    doc: str = ""
    meanings: tuple[str, ...] = ()
    name: str = ""

    def __call__(self, recording: Recording, populations: Sequence[int] = ()) -> Any:
        """Compute it.

        Args:
            recording: one run's.
            populations: the sizes of the populations of neurons.

        Returns:
            A number or an array, or a dictionary of them.
        """
        if "populations" in accepted(self.function):
            return self.function(recording, populations=tuple(populations))
        return self.function(recording)


def measure(
    *, unit: str = "1", needs: Sequence[str] = (), doc: str = "", meanings: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Measure]:
    """Say what a function of a recording measures; without it, a function is a measure of unit 1 that sees everything.

    Args:
        unit: its unit.
        needs: names of what must be recorded; by default all that can be.
        doc: its meaning, in one phrase; by default the first line of the function's docstring.
        meanings: names of its values, where it is a number that stands for a name.

    Returns:
        A decorator.

    Example:
        ```python
        @jn.measure(unit="mV", needs=("v",))
        def swing(recording):
            return recording["v"].max() - recording["v"].min()
        ```
    """

    def decorate(function: Callable[..., Any]) -> Measure:
        about = {"needs": tuple(needs), "unit": unit, "meanings": tuple(meanings)}
        said = doc or (function.__doc__ or "").strip().partition("\n")[0]
        return Measure(function, doc=said, name=_name_of(function), **about)

    return decorate


def unwrapped(function: Any) -> Any:
    """The function behind `functools.partial`s of it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name_of(function: Any) -> str:
    function = unwrapped(function)
    name = getattr(function, "__name__", type(function).__name__)
    return name if name.isidentifier() else "measure"


def as_measure(thing: Any) -> Measure:
    """Make a measure of what a configuration or a caller gives.

    Args:
        thing: a name, of ours, of a plugin or `module:function`; a mapping with `name` and further arguments of the
            function; a block; a function; or a measure.

    Returns:
        The measure.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(thing, Measure):
        return thing
    if callable(thing) and not isinstance(thing, type):
        return measure()(thing)
    block = MEASURES.block(thing)
    found = as_measure(block.target)
    if not block.arguments:
        return found
    return dataclasses.replace(found, function=functools.partial(found.function, **block.arguments))


# Ours ----------------------------------------------------------------------------------------------------------------


def _by_neuron(recording: Recording, name: str) -> Float[Array, "time neuron"]:
    """A recorded array; that of a single cell gets the axis that it lacks."""
    values = recording.values[name]
    return values.reshape(values.shape[0], -1)


def _seconds(recording: Recording) -> float:
    return 1e-3 * recording.frames * recording.dt


@measure(needs=("spikes",), doc="spikes, of all neurons")
def spike_count(recording: Recording) -> Array:
    """Count the spikes of all neurons."""
    return _by_neuron(recording, "spikes").sum(dtype=jnp.int32)


@measure(unit="Hz", needs=("spikes",), doc="mean rate of all neurons")
def rate(recording: Recording) -> Array:
    """Mean rate of all neurons."""
    spikes = _by_neuron(recording, "spikes")
    return spikes.sum(dtype=jnp.int32) / (spikes.shape[1] * _seconds(recording))


@measure(unit="Hz", needs=("spikes",), doc="mean rate of each population")
def population_rates(recording: Recording, populations: tuple[int, ...]) -> Array:
    """Mean rate of each population."""
    spikes = _by_neuron(recording, "spikes").sum(0, dtype=jnp.int32)
    parts = jnp.split(spikes, np.cumsum(populations)[:-1])
    return jnp.stack([p.sum() / (max(p.size, 1) * _seconds(recording)) for p in parts])


@measure(
    needs=("spikes",),
    doc="coefficient of variation of the interspike intervals, averaged over the neurons that have two or more",
)
def isi_cv(recording: Recording) -> Array:
    """Coefficient of variation of the interspike intervals, averaged over neurons."""
    cv, known = isi_cvs(_by_neuron(recording, "spikes"))
    return jnp.where(known.any(), cv.sum() / jnp.maximum(known.sum(), 1), jnp.nan)


@measure(
    needs=("spikes",),
    doc=f"variance of the number of spikes in bins of {_BIN:g} ms over its mean; 1 for independent neurons",
)
def synchrony(recording: Recording) -> Array:
    """Variance of the number of spikes in bins over its mean."""
    counts = _by_neuron(recording, "spikes").sum(1, dtype=jnp.int32)
    size = max(1, round(_BIN / recording.dt))
    binned = counts[: len(counts) // size * size].reshape(-1, size).sum(1).astype(jnp.result_type(float))
    mean = binned.mean()
    return jnp.where(mean > 0, binned.var() / jnp.where(mean > 0, mean, 1), jnp.nan)


@measure(
    needs=("spikes",),
    doc=f"quiet below 1 Hz; irregular above an ISI CV of 0.5; synchronous above a synchrony of {_SYNCHRONOUS:g}",
    meanings=STATES,
)
def network_state(recording: Recording) -> Array:
    """Number of the network's state; see `STATES`."""
    hz, cv, together = (f(recording) for f in (rate, isi_cv, synchrony))
    irregular, asynchronous = cv > 0.5, together <= _SYNCHRONOUS
    return jnp.where((hz < 1) | jnp.isnan(cv), 0, 1 + asynchronous + 2 * irregular).astype(jnp.int32)


@measure(needs=("spikes",), doc="log rate, ISI CV, CV of rates and SD of the ISI CVs of a population")
def network_statistics(recording: Recording) -> dict[str, Array]:
    """Describe one run of a network by four numbers.

    Args:
        recording: has `spikes`, `[time, neuron]`.

    Returns:
        `log_rate`, the logarithm of the mean rate [Hz]; `isi_cv`, the mean CV of the interspike intervals, 1 where no
        neuron has two (that of rare and independent spikes); `rate_cv`, the CV of the neurons' rates; and `isi_cv_sd`,
        the standard deviation of their ISI CVs.
    """
    spikes = _by_neuron(recording, "spikes")
    rates = spikes.sum(0, dtype=jnp.int32) / (1e-3 * recording.dt * spikes.shape[0])
    mean = rates.mean()
    cv, known = isi_cvs(spikes)
    count = jnp.maximum(known.sum(), 1)
    isi_cv = jnp.where(known.any(), cv.sum() / count, 1.0)
    spread = jnp.sqrt(jnp.sum(jnp.where(known, jnp.square(cv - isi_cv), 0)) / count + 1e-6)
    rate_cv = rates.std() / (mean + _SILENT)
    return {"log_rate": jnp.log(mean + _SILENT), "isi_cv": isi_cv, "rate_cv": rate_cv, "isi_cv_sd": spread}


@measure(unit="ms", needs=("spikes",), doc="time of the first spike of any neuron")
def first_spike(recording: Recording) -> Array:
    """Time of the first spike of any neuron."""
    fired = (_by_neuron(recording, "spikes") > 0).any(1)
    return jnp.where(fired.any(), (jnp.argmax(fired) + 1) * recording.dt, jnp.nan)


@measure(needs=("spikes",), doc="pattern of a single cell's spikes; see jneuro.simulators.regimes", meanings=REGIMES)
def regime(recording: Recording) -> Array:
    """Pattern of a single cell's spikes."""
    fired = (_by_neuron(recording, "spikes") > 0).any(1)
    return firing_pattern(fired, 0, recording.dt)["regime"].astype(jnp.int32)


@measure(unit="mV", needs=("v",), doc="mean potential")
def v_mean(recording: Recording) -> Array:
    """Mean potential."""
    return jnp.mean(_by_neuron(recording, "v"))


@measure(unit="mV", needs=("v",), doc="standard deviation of the potential")
def v_sd(recording: Recording) -> Array:
    """Standard deviation of the potential."""
    return jnp.std(_by_neuron(recording, "v"))


@measure(unit="mV", needs=("v",), doc="lowest potential")
def v_min(recording: Recording) -> Array:
    """Lowest potential."""
    return jnp.min(_by_neuron(recording, "v"))


@measure(unit="mV", needs=("v",), doc="highest potential")
def v_max(recording: Recording) -> Array:
    """Highest potential."""
    return jnp.max(_by_neuron(recording, "v"))


# What a measure returns ----------------------------------------------------------------------------------------------


def result_names(name: str, result: Any) -> dict[str, Array]:
    """The arrays of a measure's result, by the names under which they are stored.

    Args:
        name: the measure's.
        result: what its function returned.

    Returns:
        Name to array.

    Raises:
        ValueError: if it is no number, array, or dictionary of them.
    """
    found = {str(k): v for k, v in result.items()} if isinstance(result, Mapping) else {name: result}
    if not found:
        raise ValueError("returned an empty dictionary; it must return a number or an array, or several by name")
    arrays = {}
    for key, value in found.items():
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            arrays[key] = jnp.asarray(value)
        except (TypeError, ValueError):
            where = f"under {key!r} " if isinstance(result, Mapping) else ""
            raise ValueError(
                f"returned {where}{value!r}, of the type {type(value).__name__}; it must return a number or an array, "
                "or a dictionary of them"
            ) from None
    return arrays


_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def result_like(about: Measure, recording: Recording, populations: Sequence[int]) -> dict[str, Any]:
    """Shape and type of a measure's results, found without computing it.

    Args:
        about: the measure.
        recording: shape and type of a run's recording.
        populations: sizes of the populations of neurons.

    Returns:
        Name to shape and type.

    Raises:
        ValueError: in one line, if the function raises, cannot be traced by JAX, or returns no numbers.
    """
    try:
        return jax.eval_shape(lambda r: result_names(about.name, about(r, populations)), recording)
    except Exception as error:  # whatever a function of one's own raises
        said = " ".join(str(error).split())
        if isinstance(error, _UNTRACEABLE):
            said = (
                "cannot be traced by JAX: it decides, or sizes an array, by recorded values, or calls NumPy with them; "
                "use jax.numpy and jnp.where"
            )
        elif not (type(error) is ValueError and said.startswith("returned ")):
            said = f"raised {type(error).__name__}: {said}"
        raise ValueError(f"measures: {about.name}{line_of(unwrapped(about.function), error)} {said}") from error
