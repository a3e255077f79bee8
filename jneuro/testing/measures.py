"""What measures promise."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import PyTree
from jneuro.recordings.recording import Recording
from jneuro.sweeps.measures import as_measure
from jneuro.testing.contract import Contract, Promise, apart, name_of, prerequisite, same, tracing_fault

__all__ = ["check_measure"]

_TIMES = ("ms", "s", "Hz", "1/ms", "1/s", "kHz")


class _MeasureContract(Contract):
    """A measure, and recordings by seed: of an active cell or network, of another, and, of seed 0, of a silent one."""

    noun = "measure"

    def __init__(self, given: Any, own: Recording | None, neurons: int | None):
        self.given, self.own, self.neurons = given, own, neurons

    @functools.cached_property
    def measure(self) -> Any:
        return as_measure(self.given)

    def recording(self, seed: int) -> Recording:
        if self.own is not None:
            shift = lambda x: x if not jnp.issubdtype(x.dtype, jnp.floating) else x * (1 + 0.01 * seed)  # noqa: E731
            return eqx.tree_at(lambda r: r.values, self.own, jax.tree.map(shift, self.own.values))
        shape = (400,) if self.neurons is None else (400, self.neurons)
        rng = np.random.default_rng(seed)
        fired = rng.random(shape) < 0.04 * (seed > 0)
        values: dict[str, Any] = {
            name: jnp.asarray(rng.normal(size=shape), jnp.float32)
            for name in self.measure.needs or ("v", "current", "spikes")
        }
        known = {"spikes": fired, "v": np.float32(-65 + 2 * rng.normal(size=shape) + 90 * fired)}
        values |= {name: jnp.asarray(x) for name, x in known.items() if name in values}
        units = tuple((name, "mV" if name == "v" else "1") for name in values)
        return Recording(
            values=values,
            ok=jnp.asarray(True),
            first_step=jnp.int32(0),
            final_state=None,
            step=0.5,
            record_every=1,
            frames=400,
            unit_pairs=units,
        )

    def __call__(self, recording: Recording) -> PyTree:
        return self.measure(recording, (1,) if self.neurons is None else (self.neurons,))

    @functools.cached_property
    def compiled(self) -> Any:
        return jax.jit(self.__call__)

    @prerequisite
    def kind(self):
        """A measure is a function of a recording, with a unit.

        Remedy: write `@jn.measure(unit='mV', needs=('v',))` over a function of one recording.
        """
        return None if self.measure.unit else "no unit"

    @prerequisite
    def needs(self):
        """It reads what it says that it needs, and nothing else.

        Remedy: name every array that it reads in needs=(...).
        """
        recording = self.recording(1)
        try:
            jax.eval_shape(self.__call__, recording)
        except KeyError as error:
            return f"KeyError {error}, in a recording of {', '.join(recording.values)}"
        except Exception:  # asked below
            return None
        return None

    @prerequisite
    def value(self):
        """It returns a number or an array, or several by name.

        Remedy: return what jax.numpy computes, or a dict of that; no strings, lists or None.
        """
        seen = []
        with contextlib.suppress(Exception):  # asked below
            jax.eval_shape(lambda r: seen.append(self(r)), self.recording(1))
        parts = (seen[0] if isinstance(seen[0], dict) else {"": seen[0]}) if seen else {"": 0.0}
        for name, x in parts.items():
            if not isinstance(x, jax.Array | np.ndarray | np.generic | int | float):
                return f"{name} {x!r}, a {type(x).__name__}".strip()
        return None if parts else "an empty dict"

    @prerequisite
    def traceable(self):
        """It can be traced by JAX, with results of the same names and shapes whatever the recording holds.

        Remedy: compute with jax.numpy; replace `if`, float() and x[mask] by jnp.where and sums over a mask.
        """
        jax.eval_shape(self.__call__, self.recording(1))

    @Promise
    def pure(self):
        """It depends on the recording alone: asked twice, it gives the same.

        Remedy: keep no counters, and draw no random numbers.
        """
        return tracing_fault(self, self.recording(1))

    @Promise
    def vmapped(self):
        """Of several recordings under jax.vmap it gives what it gives one by one.

        Remedy: compute along axis 0, time, or the last axis, neurons; never over a batch.
        """
        many = [self.recording(seed) for seed in (1, 2, 0)]
        values = jax.tree.map(lambda *x: jnp.stack(x), *(r.values for r in many))
        together = jax.jit(jax.vmap(lambda v: self(eqx.tree_at(lambda r: r.values, many[0], v))))(values)
        return apart(together, jax.tree.map(lambda *x: jnp.stack(x), *map(self.compiled, many)))

    @Promise
    def time(self):
        """It counts time in ms by the recording's dt, not in frames.

        Remedy: use recording.dt, recording.frames and recording.time.
        """
        if self.measure.unit not in _TIMES:
            return None
        slow = self.compiled(self.recording(1))
        fast = self.compiled(dataclasses.replace(self.recording(1), step=0.25))
        known = [np.asarray(x) for x in jax.tree.leaves(slow) if np.isfinite(np.asarray(x)).any()]
        if not known or not same(slow, fast):
            return None
        return f"{known[0]} {self.measure.unit} for steps of 0.5 ms and of 0.25 ms"


def check_measure(
    measure: Any, *, recording: Recording | None = None, neurons: int | None = 3, skip: Sequence[str] = ()
) -> None:
    """Check that a measure keeps the promises of its kind.

    They are: kind, needs, value, traceable, pure, vmapped, time.

    Args:
        measure: a function of a recording, with `@jn.measure(...)` or without.
        recording: one to ask it of; by default made of random numbers, of what the measure needs.
        neurons: of the made recordings, whose arrays are then `[time, neuron]`; None for a cell's, `[time]`.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise, or it is no measure.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_measure("rate")
    """
    about = measure if isinstance(measure, str) else getattr(measure, "name", "") or name_of(measure)
    _MeasureContract(measure, recording, neurons).verify(about, skip)
