"""What stimuli promise."""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.devices import double_precision
from jneuro.simulators.stimuli import Stimulus
from jneuro.testing.contract import Promise, apart, as_double, name_of, promise, reload_fault, same, slope_fault, verify

__all__ = ["check_stimulus"]

_STIMULUS: list[Promise] = []


class _StimulusCase:
    """A stimulus, and its values at many times."""

    def __init__(self, stimulus: Any, duration: float):
        self.stimulus, self.duration = stimulus, duration
        # Steps that no stimulus has, so that few of these times fall on an edge.
        self.times = np.linspace(-0.0973, 1.0411, 1001) * duration
        self.many = eqx.filter_jit(lambda stimulus, times: jax.vmap(stimulus)(times))

    @functools.cached_property
    def values(self) -> np.ndarray:
        return np.asarray(self.many(self.stimulus, jnp.asarray(self.times, jnp.float32)))

    @functools.cached_property
    def jumps(self) -> np.ndarray:
        return np.asarray(self.stimulus.jumps(), np.float64)


@promise(
    _STIMULUS,
    "kind",
    "a stimulus is a jneuro Stimulus, a frozen pytree",
    "derive the class from jneuro.Stimulus, and pass an instance",
    first=True,
)
def _(case):
    return None if isinstance(case.stimulus, Stimulus) else f"{type(case.stimulus).__mro__[-2].__qualname__}"


@promise(
    _STIMULUS,
    "value",
    "at a time [ms] it is a floating-point array, of one shape at all times",
    "return an array, such as self.amplitude * jnp.sin(t), of the shape of the neurons or ()",
    first=True,
)
def _(case):
    seen = [case.stimulus(jnp.float32(t)) for t in (0.0, case.times[500])]
    for value in seen:
        if not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)):
            return f"{type(value).__name__} {value!r}"
    return None if seen[0].shape == seen[1].shape else f"shapes {seen[0].shape} and {seen[1].shape}"


@promise(
    _STIMULUS,
    "pure",
    "it depends on nothing but its leaves and t: the same time gives the same value",
    "draw random numbers from a key that is a field, by the number of the time step, as stimuli.WhiteNoise does",
    first=True,
)
def _(case):
    t = jnp.float32(case.times[500])
    first, second = case.stimulus(t), case.stimulus(t)
    return None if same(first, second) else f"{np.asarray(first)} and then {np.asarray(second)}"


@promise(
    _STIMULUS,
    "traceable",
    "it can be traced by JAX: jitted, and vmapped over times, it gives what it gives time by time",
    "compute with jax.numpy, and choose with jnp.where rather than `if t > onset`",
    first=True,
)
def _(case):
    some = slice(100, 1000, 225)
    looped = [case.stimulus(jnp.float32(t)) for t in case.times[some]]
    if (found := apart(jnp.stack(looped), case.values[some])) is not None:
        return found
    copies = jax.tree.map(lambda x: jnp.stack([x, x]), eqx.filter(case.stimulus, eqx.is_array))
    batch = eqx.combine(copies, case.stimulus)
    both = eqx.filter_vmap(lambda s, t: s(t), in_axes=(eqx.if_array(0), None))(batch, jnp.float32(case.times[500]))
    return apart(both[1], case.values[500])


@promise(
    _STIMULUS,
    "finite",
    "it is finite at all times, before its onset and after its end too",
    "look for a division by zero, and choose the argument, not only the result, with jnp.where",
)
def _(case):
    bad = ~np.isfinite(case.values.reshape(len(case.times), -1)).all(1)
    return f"{case.values[bad][0]} at t = {case.times[bad][0]:.4g} ms" if bad.any() else None


@promise(
    _STIMULUS,
    "dtype",
    "it keeps the precision of its leaves and of t: float32 without x64, float64 with it",
    "make constants Python numbers, and arrays with jnp.asarray(x, jnp.result_type(float))",
)
def _(case):
    if case.values.dtype != np.float32:
        return f"{case.values.dtype} of float32"
    with double_precision():
        wide = jax.eval_shape(lambda s, t: s(t), as_double(case.stimulus), jnp.float64(1.0))
    return None if wide.dtype == jnp.float64 else f"{wide.dtype} of float64"


@promise(
    _STIMULUS,
    "jumps",
    "jumps() lists the times at which its value jumps, for solvers that choose their own steps",
    "return these times from jumps(), as an array of one axis",
)
def _(case):
    if case.jumps.ndim != 1 or np.isnan(case.jumps).any():
        return f"jumps() of shape {case.jumps.shape}, {case.jumps}"
    signal = np.nan_to_num(case.values.reshape(len(case.times), -1).astype(np.float64))
    spread = np.ptp(signal, 0).max()
    changes = np.where(case.times[:-1] < 0, 0, np.abs(np.diff(signal, axis=0)).max(1))
    at = np.argsort(changes)[-16:]
    low, high = case.times[at].astype(np.float32), case.times[at + 1].astype(np.float32)
    sizes = changes[at]
    # Halved until the ends are neighbours among floating-point numbers: only a jump is left then.
    for _ in range(26):
        middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
        pad = np.concatenate([low, middle, high, np.full(len(case.times) - 3 * len(low), high[0], np.float32)])
        seen = np.asarray(case.many(case.stimulus, jnp.asarray(pad)), np.float64).reshape(len(pad), -1)
        left, inner, right = (seen[i * len(low) : (i + 1) * len(low)] for i in range(3))
        first = np.abs(inner - left).max(1) >= np.abs(right - inner).max(1)
        low, high = np.where(first, low, middle), np.where(first, middle, high)
        sizes = np.maximum(np.abs(inner - left).max(1), np.abs(right - inner).max(1))
    for size, when in zip(sizes, high, strict=True):
        listed = np.abs(case.jumps - when).min(initial=np.inf)
        if size > 1e-2 * spread > 0 and listed > 1e-5 * (abs(when) + case.duration):
            return f"a jump by {size:.4g} at t = {when:.6g} ms that jumps() does not list"
    return None


@promise(
    _STIMULUS,
    "gradient",
    "its derivatives with respect to its leaves (amplitudes, times) are those of its values",
    "check custom_jvp and custom_vjp rules and stop_gradient; make numbers leaves, not static fields",
)
def _(case):
    near = np.abs(case.times[:, None] - case.jumps).min(1, initial=np.inf) if case.jumps.size < 1e5 else np.inf
    times = case.times[np.broadcast_to(near > 1e-4 * case.duration, case.times.shape)][::7]
    if not times.size:
        return None
    with double_precision():
        arrays, rest = eqx.partition(as_double(case.stimulus), eqx.is_inexact_array)
        if not jax.tree.leaves(arrays):
            return None
        weights = jnp.asarray(np.random.default_rng(3).normal(size=len(times)))
        whole = jnp.asarray(times)
        total = lambda a: jnp.sum(weights @ jax.vmap(eqx.combine(a, rest))(whole).reshape(len(times), -1))  # noqa: E731
        return slope_fault(total, arrays)


@promise(
    _STIMULUS,
    "serialisation",
    "all its numbers are array leaves, written and read back by equinox's tree_serialise_leaves",
    "convert numbers with eqx.field(converter=jnp.asarray); what is structure is static",
)
def _(case):
    return reload_fault(case.stimulus)


def check_stimulus(stimulus: Stimulus, *, duration: float = 100.0, skip: Sequence[str] = ()) -> None:
    """Check that a stimulus keeps the promises of its kind.

    They are: kind, value, pure, traceable, finite, dtype, jumps, gradient, serialisation.

    Args:
        stimulus: an instance.
        duration: of the stretch that is looked at [ms], from a little before 0; it should see every part.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_stimulus(jn.stimuli.Step(2.0, onset=10.0))
    """
    verify(name_of(stimulus), "stimulus", _STIMULUS, _StimulusCase(stimulus, duration), skip)
