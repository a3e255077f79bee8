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
from jneuro.testing.contract import (
    Contract,
    Promise,
    apart,
    as_double,
    name_of,
    prerequisite,
    reload_fault,
    same,
    slope_fault,
)

__all__ = ["check_stimulus"]


class _StimulusContract(Contract):
    """A stimulus, and its values at many times."""

    noun = "stimulus"

    def __init__(self, stimulus: Any, duration: float):
        self.stimulus, self.duration = stimulus, duration
        # Steps that no stimulus has, so that few of these times fall on an edge.
        self.times = np.linspace(-0.0973, 1.0411, 1001) * duration
        self.many = eqx.filter_jit(lambda stimulus, times: jax.vmap(stimulus)(times))

    @functools.cached_property
    def values(self) -> np.ndarray:
        return np.asarray(self.many(self.stimulus, jnp.asarray(self.times, jnp.float32)))

    @functools.cached_property
    def listed(self) -> np.ndarray:
        return np.asarray(self.stimulus.jumps(), np.float64)

    @prerequisite
    def kind(self):
        """A stimulus is a jneuro Stimulus, a frozen pytree.

        Remedy: derive the class from jneuro.Stimulus, and pass an instance.
        """
        return None if isinstance(self.stimulus, Stimulus) else f"{type(self.stimulus).__mro__[-2].__qualname__}"

    @prerequisite
    def value(self):
        """At a time [ms] it is a floating-point array, of one shape at all times.

        Remedy: return an array, such as self.amplitude * jnp.sin(t), of the shape of the neurons or ().
        """
        seen = [self.stimulus(jnp.float32(t)) for t in (0.0, self.times[500])]
        for value in seen:
            if not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)):
                return f"{type(value).__name__} {value!r}"
        return None if seen[0].shape == seen[1].shape else f"shapes {seen[0].shape} and {seen[1].shape}"

    @prerequisite
    def pure(self):
        """It depends on nothing but its leaves and t: the same time gives the same value.

        Remedy: draw random numbers from a key that is a field, by the number of the time step, as stimuli.WhiteNoise
        does.
        """
        first, second = (self.stimulus(jnp.float32(self.times[500])) for _ in range(2))
        return None if same(first, second) else f"{np.asarray(first)} and then {np.asarray(second)}"

    @prerequisite
    def traceable(self):
        """It can be traced by JAX: jitted, and vmapped over times, it gives what it gives time by time.

        Remedy: compute with jax.numpy, and choose with jnp.where rather than `if t > onset`.
        """
        some = slice(100, 1000, 225)
        looped = [self.stimulus(jnp.float32(t)) for t in self.times[some]]
        if (found := apart(jnp.stack(looped), self.values[some])) is not None:
            return found
        copies = jax.tree.map(lambda x: jnp.stack([x, x]), eqx.filter(self.stimulus, eqx.is_array))
        batch = eqx.combine(copies, self.stimulus)
        both = eqx.filter_vmap(lambda s, t: s(t), in_axes=(eqx.if_array(0), None))(batch, jnp.float32(self.times[500]))
        return apart(both[1], self.values[500])

    @Promise
    def finite(self):
        """It is finite at all times, before its onset and after its end too.

        Remedy: look for a division by zero, and choose the argument, not only the result, with jnp.where.
        """
        bad = ~np.isfinite(self.values.reshape(len(self.times), -1)).all(1)
        return f"{self.values[bad][0]} at t = {self.times[bad][0]:.4g} ms" if bad.any() else None

    @Promise
    def dtype(self):
        """It keeps the precision of its leaves and of t: float32 without x64, float64 with it.

        Remedy: make constants Python numbers, and arrays with jnp.asarray(x, jnp.result_type(float)).
        """
        if self.values.dtype != np.float32:
            return f"{self.values.dtype} of float32"
        with double_precision():
            wide = jax.eval_shape(lambda s, t: s(t), as_double(self.stimulus), jnp.float64(1.0))
        return None if wide.dtype == jnp.float64 else f"{wide.dtype} of float64"

    @Promise
    def jumps(self):
        """jumps() lists the times at which its value jumps, for solvers that choose their own steps.

        Remedy: return these times from jumps(), as an array of one axis.
        """
        if self.listed.ndim != 1 or np.isnan(self.listed).any():
            return f"jumps() of shape {self.listed.shape}, {self.listed}"
        signal = np.nan_to_num(self.values.reshape(len(self.times), -1).astype(np.float64))
        spread = np.ptp(signal, 0).max()
        changes = np.where(self.times[:-1] < 0, 0, np.abs(np.diff(signal, axis=0)).max(1))
        at = np.argsort(changes)[-16:]
        low, high = self.times[at].astype(np.float32), self.times[at + 1].astype(np.float32)
        sizes = changes[at]
        # Halved until the ends are neighbours among floating-point numbers: only a jump is left then.
        for _ in range(26):
            middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
            pad = np.concatenate([low, middle, high, np.full(len(self.times) - 3 * len(low), high[0], np.float32)])
            seen = np.asarray(self.many(self.stimulus, jnp.asarray(pad)), np.float64).reshape(len(pad), -1)
            left, inner, right = (seen[i * len(low) : (i + 1) * len(low)] for i in range(3))
            below, above = np.abs(inner - left).max(1), np.abs(right - inner).max(1)
            low, high = np.where(below >= above, low, middle), np.where(below >= above, middle, high)
            sizes = np.maximum(below, above)
        for size, when in zip(sizes, high, strict=True):
            nearest = np.abs(self.listed - when).min(initial=np.inf)
            if size > 1e-2 * spread > 0 and nearest > 1e-5 * (abs(when) + self.duration):
                return f"a jump by {size:.4g} at t = {when:.6g} ms that jumps() does not list"
        return None

    @Promise
    def gradient(self):
        """Its derivatives with respect to its leaves (amplitudes, times) are those of its values.

        Remedy: check custom_jvp and custom_vjp rules and stop_gradient; make numbers leaves, not static fields.
        """
        listed = self.listed if self.listed.size < 1e5 else np.empty(0)
        near = np.abs(self.times[:, None] - listed).min(1, initial=np.inf)
        times = self.times[near > 1e-4 * self.duration][::7]
        if not times.size:
            return None
        with double_precision():
            arrays, rest = eqx.partition(as_double(self.stimulus), eqx.is_inexact_array)
            if not jax.tree.leaves(arrays):
                return None
            weights, times = jnp.asarray(np.random.default_rng(3).normal(size=len(times))), jnp.asarray(times)
            values = lambda a: jax.vmap(eqx.combine(a, rest))(times).reshape(len(times), -1)  # noqa: E731
            return slope_fault(lambda a: jnp.sum(weights @ values(a)), arrays)

    @Promise
    def serialisation(self):
        """All its numbers are array leaves, written and read back by equinox's tree_serialise_leaves.

        Remedy: convert numbers with eqx.field(converter=jnp.asarray); what is structure is static.
        """
        return reload_fault(self.stimulus)


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
    _StimulusContract(stimulus, duration).verify(name_of(stimulus), skip)
