"""What can be reached in an object: its parameters by their paths, the one setter, and numbers that are drawn.

A path is the way to a number in the built object, as one would write it in Python without brackets: `g_na`,
`channels.na.g_max`, `amplitude`. Sweeps, fits and draws name parameters by their paths, and set them with `replace`.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.names import unknown_name
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Float, Key
from jneuro.simulators.base import (
    NON_NEGATIVE,
    POSITIVE,
    REAL,
    Param,
    Parameter,
    Strict,
    _to_array,
    param,
    require_inside,
    require_within_bounds,
)

__all__ = [
    "Choice",
    "Distribution",
    "LogNormal",
    "Normal",
    "Uniform",
    "as_distribution",
    "draw",
    "draw_parameters",
    "parameters",
    "replace",
    "resolve",
]

Tree = TypeVar("Tree")


# Numbers that are drawn ----------------------------------------------------------------------------------------------


class Distribution(Strict):
    """A number that is drawn; abstract.

    It stands where a parameter of a simulator or an argument of a stimulus stands. `draw` keeps the standard deviate
    `z`; `resolve` puts in the value, a differentiable function of the distribution's own numbers for the `z` that was
    drawn.
    """

    z: eqx.AbstractVar[Any]
    """The standard deviate; None before it is drawn."""

    @abc.abstractmethod
    def deviate(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
        """Draw standard deviates."""

    @property
    @abc.abstractmethod
    def value(self) -> Float[Array, "*drawn"]:
        """The drawn number."""

    def __call__(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Draw one number."""
        return dataclasses.replace(self, z=self.deviate(key, ())).value

    def __check_init__(self) -> None:
        """Refuse numbers that describe no distribution."""
        require_within_bounds(self)


class Normal(Distribution):
    r"""Normally distributed: \(\mu + \sigma z\), \(z\) standard normal."""

    mean: Param = param(doc="mean")
    sd: Param = param(bounds=NON_NEGATIVE, doc="standard deviation")
    z: Any = None

    def deviate(self, key, shape):
        """Draw standard normal deviates."""
        return jax.random.normal(key, shape)

    @property
    def value(self):
        """The drawn number."""
        return self.mean + self.sd * self.z


class LogNormal(Distribution):
    r"""Log-normally distributed; \(m\) and \(s\) are mean and standard deviation of the number itself.

    \[ x = e^{\mu + \sigma z},\quad \sigma^2 = \ln(1 + s^2/m^2),\quad \mu = \ln m - \sigma^2/2 \]
    """

    mean: Param = param(bounds=POSITIVE, doc="mean")
    sd: Param = param(bounds=NON_NEGATIVE, doc="standard deviation")
    z: Any = None

    def deviate(self, key, shape):
        """Draw standard normal deviates."""
        return jax.random.normal(key, shape)

    @property
    def value(self):
        """The drawn number."""
        variance = jnp.log1p((self.sd / self.mean) ** 2)
        # At sd = 0 the square root has no slope.
        sigma = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
        return self.mean * jnp.exp(sigma * self.z - 0.5 * variance)


class Uniform(Distribution):
    r"""Uniformly distributed: \(a + (b - a)\,z\), \(z\) uniform between 0 and 1."""

    low: Param = param(doc="least value")
    high: Param = param(doc="greatest value")
    z: Any = None

    def __check_init__(self) -> None:
        """Refuse ends in the wrong order."""
        known = eqx.is_array(self.low) and eqx.is_array(self.high)
        if known and not isinstance(above := jnp.any(self.low > self.high), Tracer) and above:
            raise ValueError(f"Uniform: low = {self.low} must not be greater than high = {self.high}")

    def deviate(self, key, shape):
        """Draw numbers between 0 and 1."""
        return jax.random.uniform(key, shape)

    @property
    def value(self):
        """The drawn number."""
        return lax.max(self.low, self.z * (self.high - self.low) + self.low)


class Choice(Distribution):
    """One of several values, each as likely; `z` is its number."""

    values: Float[Array, " choice"] = param(doc="values, of which one is drawn")
    z: Any = None

    def __check_init__(self) -> None:
        """Refuse what is no list of values."""
        if np.ndim(self.values) < 1 or not np.size(self.values):
            raise ValueError("Choice: needs a list of one value or more")

    def deviate(self, key, shape):
        """Draw which."""
        return jax.random.randint(key, shape, 0, self.values.shape[0])

    @property
    def value(self):
        """The drawn number."""
        return self.values[self.z]


_DISTRIBUTIONS = {"uniform": Uniform, "normal": Normal, "log_normal": LogNormal, "choice": Choice}


def as_distribution(value: Any) -> Any:
    """Read a number that is drawn, as a configuration writes it.

    Args:
        value: `{uniform: [low, high]}`, `{normal: [mean, sd]}`, `{log_normal: [mean, sd]}` or `{choice: [...]}`;
            anything but a mapping is returned as it is.

    Returns:
        The distribution.

    Raises:
        ValueError: for another mapping, or impossible numbers.
    """
    if not isinstance(value, Mapping):
        return value
    for key in value:
        if key not in _DISTRIBUTIONS:
            raise ValueError(unknown_name(str(key), _DISTRIBUTIONS, "key"))
    if len(value) != 1:
        raise ValueError(
            "a draw is either uniform: [low, high], normal: [mean, sd], log_normal: [mean, sd] or choice: [...]"
        )
    ((kind, numbers),) = value.items()
    plain = isinstance(numbers, list | tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in numbers
    )
    if not plain or (kind != "choice" and len(numbers) != 2):
        wanted = "a list of numbers" if kind == "choice" else "two numbers"
        raise ValueError(f"{kind} = {numbers!r} must be {wanted}")
    return Choice(numbers) if kind == "choice" else _DISTRIBUTIONS[kind](*numbers)  # pyright: ignore


def _is_distribution(node: Any) -> bool:
    return isinstance(node, Distribution)


def draw(obj: Tree, key: Key[Array, ""], shape: tuple[int, ...] = ()) -> Tree:
    """Draw the standard deviates of all distributions in an object that have none yet.

    Args:
        obj: a simulator, a stimulus, or any nest of them.
        key: random key; every distribution has a stream of its own, named by its path.
        shape: how many to draw of each, such as `(neurons,)`.

    Returns:
        The object, with deviates kept; `resolve` makes numbers of them.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(obj, is_leaf=_is_distribution)
    leaves = [
        dataclasses.replace(leaf, z=leaf.deviate(stream(key, _dotted(path)), shape))
        if _is_distribution(leaf) and leaf.z is None
        else leaf
        for path, leaf in paths
    ]
    return jax.tree_util.tree_unflatten(tree, leaves)


def draw_parameters(simulator: Tree, key: Key[Array, ""], shape: Callable[[Tree], tuple[int, ...]]) -> Tree:
    """Draw the parameters of a simulator that are distributions, as its `connect` does.

    Args:
        simulator: the simulator.
        key: the key of its connections.
        shape: how many to draw of each, told by the simulator with numbers in their place.

    Returns:
        The simulator with deviates; itself, if nothing is left to draw.

    Raises:
        ValueError: if `key` is no key, or is several.
    """
    require_key(key)
    if all(x.z is not None for x in jax.tree.leaves(simulator, is_leaf=_is_distribution) if _is_distribution(x)):
        return simulator
    key = stream(key, "parameters")
    return draw(simulator, key, shape(resolve(draw(simulator, key))))


def resolve(obj: Tree) -> Tree:
    """Put the drawn number in the place of every distribution.

    Args:
        obj: a simulator, a stimulus, or any nest of them, drawn by `draw`.

    Returns:
        The object, with numbers; differentiable in those that describe the distributions.

    Raises:
        ValueError: if one of them was not drawn.
    """

    def value(path, leaf):
        if not _is_distribution(leaf):
            return leaf
        if leaf.z is None:
            raise ValueError(
                f"{_dotted(path)} is a {type(leaf).__name__} that was not drawn; connect(key) of a simulator "
                "draws it, draw(..., key) anything"
            )
        return leaf.value

    return jax.tree_util.tree_map_with_path(value, obj, is_leaf=_is_distribution)


def _dotted(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


# Paths ---------------------------------------------------------------------------------------------------------------


def _parts(node: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a node that may hold parameters."""
    if isinstance(node, Mapping):
        yield from ((str(k), v) for k, v in node.items())
    elif isinstance(node, list | tuple):
        names = getattr(node, "_fields", range(len(node)))
        yield from ((str(k), v) for k, v in zip(names, node, strict=True))
    elif isinstance(node, eqx.Module):
        yield from ((f.name, getattr(node, f.name, None)) for f in dataclasses.fields(node))


def _found(node: Any, above: str = "") -> Iterator[tuple[str, Parameter]]:
    """The parameters below a node."""
    fields = {f.name: f for f in dataclasses.fields(node)} if isinstance(node, eqx.Module) else {}
    for name, value in _parts(node):
        here = f"{above}.{name}" if above else name
        metadata = fields[name].metadata if name in fields else {}
        about = {"unit": "1", "bounds": REAL, "source": "", "doc": "", "static": False} | metadata.get("jneuro", {})
        floating = isinstance(value, float) or eqx.is_inexact_array(value)
        number = "jneuro" in metadata or (floating and not metadata.get("static"))
        if number and not (isinstance(node, Distribution) and name == "z"):
            yield here, Parameter(name=here, default=value, **about)
        if not metadata.get("static") and isinstance(value, eqx.Module | Mapping | list | tuple):
            yield from _found(value, here)


def parameters(obj: Any) -> dict[str, Parameter]:
    """All that a sweep, a fit and a draw can reach in an object, by its path.

    Args:
        obj: a simulator, a stimulus, or any nest of modules, dictionaries and tuples, whose own values then stand as
            the defaults; or a class, of which the declared parameters are listed.

    Returns:
        Path to declaration. Static ones, which are part of the compiled program, are listed but cannot be set.

    Example:
        >>> from jneuro.simulators import HodgkinHuxley
        >>> parameters(HodgkinHuxley())["g_na"].unit
        'mS/cm²'
    """
    if not isinstance(obj, type):
        return dict(_found(obj))
    declared = {f.name: f for f in dataclasses.fields(obj) if "jneuro" in f.metadata}
    return {n: Parameter(name=n, default=f.default, **f.metadata["jneuro"]) for n, f in declared.items()}


def replace(obj: Tree, values: Mapping[str, Any], *, check: bool = True) -> Tree:
    """Set parameters by their paths.

    Args:
        obj: a simulator, a stimulus, or any nest of them.
        values: path to value; a number, an array, or a distribution. Traced values pass unchecked.
        check: whether values are held against the declared bounds, and objects check themselves as at construction;
            what a fit has found may be not finite, and is not checked.

    Returns:
        A new object; what is not named is shared with the old one.

    Raises:
        ValueError: for an unknown path, with the one that was probably meant; a static parameter; and values that are
            no numbers, lie outside the declared bounds, or have a shape that cannot stand there.

    Example:
        >>> from jneuro.simulators import HodgkinHuxley
        >>> float(replace(HodgkinHuxley(), {"g_na": 100.0}).g_na)
        100.0
    """
    if not values:
        return obj
    known, name = parameters(obj), type(obj).__name__
    new = [_checked(name, path, value, known, check) for path, value in values.items()]
    paths = [tuple(path.split(".")) for path in values]
    changed = eqx.tree_at(lambda tree: [_at(tree, path) for path in paths], obj, new, is_leaf=lambda x: x is None)
    for path in paths if check else ():
        for depth in range(len(path)):
            _check(_at(changed, path[:depth]))
    return changed


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    """The part at a path."""
    for name in path:
        if isinstance(tree, Mapping):
            tree = next(v for k, v in tree.items() if str(k) == name)
        elif isinstance(tree, list | tuple) and name.isdigit():
            tree = tree[int(name)]
        else:
            tree = getattr(tree, name)
    return tree


def _check(node: Any) -> None:
    """Run what a module checks when it is built."""
    for cls in type(node).__mro__ if isinstance(node, eqx.Module) else ():
        if "__check_init__" in vars(cls):
            vars(cls)["__check_init__"](node)


def _checked(name: str, path: str, value: Any, known: Mapping[str, Parameter], check: bool) -> Any:
    """A new value, as an array, if it may stand at a path."""
    if path not in known:
        raise ValueError(f"{name}: {unknown_name(path, known, 'parameter')}")
    declared = known[path]
    if declared.static:
        raise ValueError(
            f"{path} of {name} is part of the compiled program and cannot be varied in it; build it with another value"
        )
    if isinstance(value, Distribution):
        return value
    array, old = _to_array(value), np.shape(declared.default)
    if not eqx.is_array(array):
        raise ValueError(f"{name}: {path} = {value!r} must be a number")
    if old and array.shape not in ((), old):
        raise ValueError(f"{name}: {path} has the shape {array.shape}, where it must be () or {old}")
    if check and not isinstance(array, Tracer):
        require_inside(name, declared, array)
    return array
