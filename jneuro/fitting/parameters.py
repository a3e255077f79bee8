"""What of a simulator is fitted: its trainable parameters, and the unconstrained numbers that stand for them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.names import unknown_name
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.simulators.base import Bounds, Simulator
from jneuro.simulators.paths import parameters, replace

__all__ = ["Trainable", "double", "random_starts"]

_Simulator = TypeVar("_Simulator", bound=Simulator)

_FLOOR = 1e-4
"""How near its bound a parameter may start, in shares of its scale: at the bound itself it has no gradient."""


def double(tree: PyTree) -> PyTree:
    """A tree whose floating-point arrays are in double precision; to be called under `double_precision`."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if eqx.is_inexact_array_like(x) else x, tree)


class Trainable(eqx.Module):
    r"""Names and bounds of the numbers that are fitted: parameters, or the elements of those that are arrays.

    A parameter \(\theta\) between its bounds is a smooth, growing function of an unconstrained number \(q\):

    - with a lower bound alone, \(l + e^q\), a logarithmic scale above 0;
    - with an upper bound alone, \(u - e^{-q}\);
    - with both and \(0 < l\), \(l\,(u/l)^{\sigma(q)}\), a logarithmic scale;
    - with both otherwise, \(l + (u - l)\,\sigma(q)\).

    Attributes:
        names: of the numbers, in their order: paths of parameters, such as `g_na` or `channels.na.g_max`; an array has
            a number for each element, `weight[0]`, `weight[1]`.
        bounds: lower and upper bound of each, in the parameter's unit; at most one of them is infinite.
        scale: the size of each, by which one may count how near it is to a bound.
        shapes: path and shape of every parameter, in order; by default each name is the path of one number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jneuro.fitting import Trainable
        >>> from jneuro.simulators import HodgkinHuxley
        >>> trainable = Trainable.of(HodgkinHuxley(), {"g_na": None, "e_l": (-70, -40)})
        >>> trainable.constrain(jnp.zeros(2))  # 0 + e⁰, and the middle of the bounds
        Array([  1., -55.], dtype=float32)
    """

    names: tuple[str, ...] = eqx.field(static=True)
    bounds: tuple[tuple[float, float], ...] = eqx.field(static=True)
    scale: tuple[float, ...] = eqx.field(static=True)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True, default=())

    @classmethod
    def of(cls, simulator: Simulator, names: Sequence[str] | Mapping[str, tuple[float, float] | None]) -> "Trainable":
        """Declare which parameters of a simulator are fitted.

        Args:
            simulator: whose; its own values give the scale.
            names: their paths, or paths and bounds, which all elements of an array share; where bounds are left out,
                the simulator's declared ones hold.

        Returns:
            The trainable parameters.

        Raises:
            ValueError: for an unknown name, a structural parameter, one that has no bounds, bounds in the wrong order,
                or a value outside of them.
        """
        if isinstance(names, str):
            raise ValueError(f"trainable = {names!r} must be a list, as in [{names!r}]")
        known = {n: p for n, p in parameters(simulator).items() if not p.static}
        listed = isinstance(names, Iterable) and all(isinstance(name, str) for name in names)
        if not listed:
            raise ValueError(f"trainable = {names!r} must be a list of parameters, or map them to bounds")
        given = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
        if not given:
            raise ValueError("trainable: name at least one parameter")
        found, shapes = [], []
        for path, wanted in given.items():
            if path not in known:
                raise ValueError(f"trainable: {unknown_name(path, known, 'parameter')}")
            value = np.asarray(known[path].default, float)
            low, high = _bounds(path, wanted, known[path].bounds)
            shapes.append((path, value.shape))
            for index, x in np.ndenumerate(value):
                name = path + (f"[{','.join(map(str, index))}]" if index else "")
                if not low <= x <= high:
                    raise ValueError(f"trainable: {name} = {x:g} lies outside its bounds [{low:g}, {high:g}]")
                found.append((name, (low, high), abs(float(x)) or 1.0))
        return cls(*zip(*found, strict=True), shapes=tuple(shapes))

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds."""
        return np.asarray([low for low, _ in self.bounds])

    @property
    def upper(self) -> np.ndarray:
        """The upper bounds."""
        return np.asarray([high for _, high in self.bounds])

    @property
    def _places(self) -> list[tuple[str, tuple[int, ...], slice]]:
        """Path, shape and elements of every parameter."""
        shapes = self.shapes or tuple((name, ()) for name in self.names)
        ends = np.cumsum([0, *(math.prod(shape) for _, shape in shapes)])
        return [(path, shape, slice(*ends[i : i + 2])) for i, (path, shape) in enumerate(shapes)]

    def values(self, simulator: Simulator) -> Float[Array, " parameter"]:
        """The values that a simulator has."""
        found = parameters(simulator)
        each = [jnp.asarray(found[path].default, jnp.result_type(float)) for path, *_ in self._places]
        return jnp.concatenate([jnp.ravel(x) for x in each]) if each else jnp.zeros(0)

    def insert(self, simulator: _Simulator, values: Float[Array, " parameter"]) -> _Simulator:
        """The simulator with these values; what it draws at random stays."""
        values = jnp.asarray(values)
        return replace(simulator, {path: values[at].reshape(shape) for path, shape, at in self._places}, check=False)

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
        # One expression for all elements of an array, which have the same bounds.
        parts = [function(x[..., at], *self.bounds[at.start]) for *_, at in self._places if at.stop > at.start]
        return jnp.concatenate(parts, -1)


def random_starts(
    trainable: Trainable, values: Float[Array, " parameter"], count: int, *, spread: float, key: Key[Array, ""]
) -> Float[Array, "start parameter"]:
    """Draw unconstrained starts around given values.

    Args:
        trainable: the parameters.
        values: the middle. A positive parameter is drawn log-uniformly within a factor of it; one that may change its
            sign, uniformly between its bounds or, where one is infinite, within `spread - 1` of its size.
        count: how many.
        spread: the factor, 2 for half to double.
        key: random key.

    Returns:
        The starts, in unconstrained numbers.
    """
    uniform = jax.random.uniform(key, (count, len(trainable.names)), minval=-1.0)
    values, lower, upper = jnp.asarray(values)[None], trainable.lower[None], trainable.upper[None]
    finite = np.isfinite(lower) & np.isfinite(upper)
    middle, half = np.where(finite, (lower + upper) / 2, 0.0), np.where(finite, (upper - lower) / 2, 0.0)
    signed = jnp.where(finite, middle + half * uniform, values + jnp.abs(values) * (spread - 1) * uniform)
    return trainable.unconstrain(jnp.where(lower >= 0, values * spread**uniform, signed))


def _bounds(name: str, wanted: Sequence[float] | None, declared: Bounds) -> tuple[float, float]:
    """The bounds that hold, which must lie within the declared ones."""
    ends = np.asarray((declared.low, declared.high) if wanted is None else wanted, object)
    if ends.shape != (2,) or not all(isinstance(x, int | float | np.number) and x is not True for x in ends):
        raise ValueError(f"trainable: the bounds of {name} must be two numbers, [lower, upper], got {wanted!r}")
    low, high = map(float, ends)
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
