"""What of a simulator is fitted: its trainable parameters, and the unconstrained numbers that stand for them."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.names import unknown_name
from jneuro.core.types import Array, Float, PyTree
from jneuro.simulators.base import Bounds, Simulator
from jneuro.simulators.paths import parameters, replace

__all__ = ["Trainable", "double"]

_Simulator = TypeVar("_Simulator", bound=Simulator)

_FLOOR = 1e-4
"""How near its bound a parameter may start, in shares of its scale: at the bound itself it has no gradient."""


def double(tree: PyTree) -> PyTree:
    """A tree whose floating-point arrays are in double precision; to be called under `double_precision`."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array_like(x) else x, tree)


class Trainable(eqx.Module):
    r"""Names and bounds of the parameters that are fitted.

    A parameter \(\theta\) between its bounds is a smooth, growing function of an unconstrained number \(q\):

    - with a lower bound alone, \(l + e^q\), a logarithmic scale above 0;
    - with an upper bound alone, \(u - e^{-q}\);
    - with both and \(0 < l\), \(l\,(u/l)^{\sigma(q)}\), a logarithmic scale;
    - with both otherwise, \(l + (u - l)\,\sigma(q)\).

    Attributes:
        names: paths of the parameters, such as `g_na` or `channels.na.g_max`, in their order.
        bounds: lower and upper bound of each, in the parameter's unit; at most one of them is infinite.
        scale: the size of each, by which one may count how near it is to a bound.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    bounds: tuple[tuple[float, float], ...] = eqx.field(static=True)
    scale: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, simulator: Simulator, names: Sequence[str] | Mapping[str, tuple[float, float] | None]) -> "Trainable":
        """Declare which parameters of a simulator are fitted.

        Args:
            simulator: whose; its own values give the scale.
            names: their paths, or paths and bounds; where bounds are left out, the simulator's declared ones hold.

        Returns:
            The trainable parameters.

        Raises:
            ValueError: for an unknown name, a structural parameter, a parameter with one value a cell, one that has no
                bounds, bounds in the wrong order, or a value outside of them.
        """
        if isinstance(names, str):
            raise ValueError(f"trainable = {names!r} must be a list, as in [{names!r}]")
        known = {n: p for n, p in parameters(simulator).items() if not p.static}
        given = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
        if not given:
            raise ValueError("trainable: name at least one parameter")
        bounds, scale = [], []
        for name, wanted in given.items():
            if name not in known:
                raise ValueError(f"trainable: {unknown_name(name, known, 'parameter')}")
            value = np.asarray(known[name].default, float)
            if value.ndim:
                raise ValueError(f"trainable: {name} has the shape {value.shape}; a fit takes one value for all cells")
            low, high = _bounds(name, wanted, known[name].bounds)
            if not low <= value <= high:
                raise ValueError(f"trainable: {name} = {value:g} lies outside its bounds [{low:g}, {high:g}]")
            bounds.append((low, high))
            scale.append(abs(float(value)) or 1.0)
        return cls(tuple(given), tuple(bounds), tuple(scale))

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds."""
        return np.asarray([low for low, _ in self.bounds])

    @property
    def upper(self) -> np.ndarray:
        """The upper bounds."""
        return np.asarray([high for _, high in self.bounds])

    def values(self, simulator: Simulator) -> Float[Array, " parameter"]:
        """The values that a simulator has."""
        found = parameters(simulator)
        return jnp.stack([jnp.asarray(found[name].default, jnp.result_type(float)) for name in self.names])

    def insert(self, simulator: _Simulator, values: Float[Array, " parameter"]) -> _Simulator:
        """The simulator with these values; what it draws at random stays."""
        return replace(simulator, dict(zip(self.names, jnp.asarray(values), strict=True)), check=False)

    def inside(self, values: Float[Array, " *parameter"]) -> Float[Array, " *parameter"]:
        """The values moved a little way inside of their bounds, where a bound is reached or crossed."""
        room = _FLOOR * np.minimum(np.asarray(self.scale), self.upper - self.lower)
        low, high = (jnp.broadcast_to(end, jnp.shape(values)) for end in (self.lower + room, self.upper - room))
        return jnp.clip(values, low, high)

    def unconstrain(self, values: Float[Array, "*start parameter"]) -> Float[Array, "*start parameter"]:
        """The unconstrained numbers that stand for values; those at a bound are moved inside first."""
        return self._each(_unconstrain, self.inside(jnp.asarray(values)))

    def constrain(self, q: Float[Array, "*start parameter"]) -> Float[Array, "*start parameter"]:
        """The values for which unconstrained numbers stand."""
        return self._each(_constrain, jnp.asarray(q))

    def _each(self, function, x):
        if not self.bounds:
            return x
        return jnp.stack([function(x[..., i], *pair) for i, pair in enumerate(self.bounds)], -1)


def _bounds(name: str, wanted: Sequence[float] | None, declared: Bounds) -> tuple[float, float]:
    """The bounds that hold, which must lie within the declared ones."""
    low, high = (declared.low, declared.high) if wanted is None else (float(wanted[0]), float(wanted[1]))
    if low == -math.inf and high == math.inf:
        raise ValueError(f"trainable: {name} has no bounds of its own; give some, such as {{{name}: [lower, upper]}}")
    if not low < high:
        raise ValueError(f"trainable: the bounds of {name} are [{low:g}, {high:g}]; the lower one must come first")
    if low < declared.low or high > declared.high:
        raise ValueError(f"trainable: the bounds of {name}, [{low:g}, {high:g}], leave {declared}")
    return low, high


def _constrain(q, low, high):
    if high == math.inf:
        return low + jnp.exp(q)
    if low == -math.inf:
        return high - jnp.exp(-q)
    share = jax.nn.sigmoid(q)
    return low * (high / low) ** share if low > 0 else low + (high - low) * share


def _unconstrain(value, low, high):
    if high == math.inf:
        return jnp.log(value - low)
    if low == -math.inf:
        return -jnp.log(high - value)
    share = jnp.log(value / low) / math.log(high / low) if low > 0 else (value - low) / (high - low)
    return jnp.log(share) - jnp.log1p(-share)
