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
from jneuro.testing.contract import Promise, apart, name_of, promise, same, tracing_fault, verify

__all__ = ["check_measure"]

_MEASURE: list[Promise] = []


class _MeasureCase:
    """A measure, and three recordings: of an active cell or network, of another, and of a silent one."""

    def __init__(self, given: Any, recording: Recording | None, neurons: int | None):
        self.given, self.own, self.neurons = given, recording, neurons

    @functools.cached_property
    def measure(self) -> Any:
        return as_measure(self.given)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return self.measure.needs or ("v", "current", "spikes")

    def recording(self, seed: int) -> Recording:
        """A recording; of seed 0 a silent one."""
        shape = (400,) if self.neurons is None else (400, self.neurons)
        if self.own is not None:
            shift = lambda x: x if not jnp.issubdtype(x.dtype, jnp.floating) else x * (1 + 0.01 * seed)  # noqa: E731
            return eqx.tree_at(lambda r: r.values, self.own, jax.tree.map(shift, self.own.values))
        rng = np.random.default_rng(seed)
        fired = rng.random(shape) < 0.04 * (seed > 0)
        values: dict[str, Any] = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name in self.names}
        known = {"spikes": fired, "v": np.float32(-65 + 2 * rng.normal(size=shape) + 90 * fired)}
        values |= {name: jnp.asarray(x) for name, x in known.items() if name in values}
        units = {"v": "mV"}
        return Recording(
            values=values,
            ok=jnp.asarray(True),
            first_step=jnp.int32(0),
            final_state=None,
            step=0.5,
            record_every=1,
            frames=shape[0],
            unit_pairs=tuple((n, units.get(n, "1")) for n in values),
        )

    def __call__(self, recording: Recording) -> PyTree:
        return self.measure(recording, (1,) if self.neurons is None else (self.neurons,))

    def traced(self) -> Any:
        """Shapes of the result, without computing it."""
        return jax.eval_shape(self.__call__, self.recording(1))

    @functools.cached_property
    def compiled(self) -> Any:
        return jax.jit(self.__call__)


@promise(
    _MEASURE,
    "kind",
    "a measure is a function of a recording, with a unit",
    "write `@jn.measure(unit='mV', needs=('v',))` over a function of one recording",
    first=True,
)
def _(case):
    return None if case.measure.unit else "no unit"


@promise(
    _MEASURE,
    "needs",
    "it reads what it says that it needs, and nothing else",
    "name every array that it reads in needs=(...)",
    first=True,
)
def _(case):
    try:
        case.traced()
    except KeyError as error:
        return f"KeyError {error}, in a recording of {', '.join(case.names)}"
    except Exception:  # asked below
        return None
    return None


@promise(
    _MEASURE,
    "value",
    "it returns a number or an array, or several by name",
    "return what jax.numpy computes, or a dict of that; no strings, lists or None",
    first=True,
)
def _(case):
    seen = []
    with contextlib.suppress(Exception):  # asked below
        jax.eval_shape(lambda r: seen.append(case(r)), case.recording(1))
    parts = (seen[0] if isinstance(seen[0], dict) else {"": seen[0]}) if seen else {"": 0.0}
    for name, x in parts.items():
        if not isinstance(x, jax.Array | np.ndarray | np.generic | int | float):
            return f"{name} {x!r}, a {type(x).__name__}".strip()
    return None if parts else "an empty dict"


@promise(
    _MEASURE,
    "traceable",
    "it can be traced by JAX, with results of the same names and shapes whatever the recording holds",
    "compute with jax.numpy; replace `if`, float() and x[mask] by jnp.where and sums over a mask",
    first=True,
)
def _(case):
    case.traced()


@promise(
    _MEASURE,
    "pure",
    "it depends on the recording alone: asked twice, it gives the same",
    "keep no counters, and draw no random numbers",
)
def _(case):
    return tracing_fault(case, case.recording(1))


@promise(
    _MEASURE,
    "vmapped",
    "of several recordings under jax.vmap it gives what it gives one by one",
    "compute along axis 0, time, or the last axis, neurons; never over a batch",
)
def _(case):
    many, template = [case.recording(s) for s in (1, 2, 0)], case.recording(1)
    values = jax.tree.map(lambda *x: jnp.stack(x), *(r.values for r in many))
    together = jax.jit(jax.vmap(lambda v: case(eqx.tree_at(lambda r: r.values, template, v))))(values)
    return apart(together, jax.tree.map(lambda *x: jnp.stack(x), *map(case.compiled, many)))


@promise(
    _MEASURE,
    "time",
    "it counts time in ms by the recording's dt, not in frames",
    "use recording.dt, recording.frames and recording.time",
)
def _(case):
    if case.measure.unit not in ("ms", "s", "Hz", "1/ms", "1/s", "kHz"):
        return None
    slow = case.compiled(case.recording(1))
    fast = case.compiled(dataclasses.replace(case.recording(1), step=0.25))
    known = [np.asarray(x) for x in jax.tree.leaves(slow) if np.isfinite(np.asarray(x)).any()]
    if not known or not same(slow, fast):
        return None
    return f"{known[0]} {case.measure.unit} for steps of 0.5 ms and of 0.25 ms"


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
    case = _MeasureCase(measure, recording, neurons)
    about = measure if isinstance(measure, str) else getattr(measure, "name", "") or name_of(measure)
    verify(about, "measure", _MEASURE, case, skip)
