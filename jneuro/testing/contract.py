"""What all suites share: promises, the error that lists those that are broken, and ways to compare."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jneuro.core.types import Array, Float, PyTree

__all__ = [
    "Contract",
    "ContractError",
    "Promise",
    "apart",
    "as_double",
    "is_finite",
    "name_of",
    "plain_keys",
    "prerequisite",
    "reload_fault",
    "same",
    "slope_fault",
    "tracing_fault",
]


class Promise(NamedTuple):
    """One promise of a kind, made of a method of its `Contract`; used as a decorator.

    The method's docstring is the promise, in a sentence, and behind `Remedy:` what to do where it is broken.

    Attributes:
        check: returns what was found, or None where the promise is kept; what it raises is what was found, too.
        first: whether the rest is not asked where this one is broken; see `prerequisite`.
    """

    check: Callable[[Any], str | None]
    first: bool = False

    @property
    def name(self) -> str:
        """The method's name, in words."""
        return self.check.__name__.replace("_", " ")

    def said(self, found: str) -> str:
        """The promise, what was found in its place, and the remedy; three lines."""
        promise, _, remedy = " ".join((self.check.__doc__ or "").split()).partition(" Remedy: ")
        return f"  {self.name}: {promise[:1].lower()}{promise[1:]}\n    Found: {found}.\n    Remedy: {remedy}"


prerequisite = functools.partial(Promise, first=True)
"""Decorates the check of a promise without which the further ones make no sense."""


class ContractError(AssertionError):
    """An object breaks promises of its kind.

    Attributes:
        promises: the names of those that it breaks.
    """

    def __init__(self, about: str, kind: str, broken: Sequence[tuple[Promise, str]]):
        self.promises = tuple(promise.name for promise, _ in broken)
        lines = [f"{about} breaks {len(broken)} promise{'s' * (len(broken) > 1)} of a {kind}:"]
        super().__init__("\n".join([*lines, *(promise.said(found) for promise, found in broken)]))


class Contract:
    """What a kind promises: the checks of one object, in the order in which they are asked.

    Attributes:
        noun: the kind, in the singular.
    """

    noun: ClassVar[str]

    def verify(self, about: str, skip: Sequence[str] = ()) -> None:
        """Ask all promises.

        Args:
            about: what is asked, by name.
            skip: names of promises that are not asked.

        Raises:
            ContractError: listing those that are broken.
            ValueError: if `skip` names an unknown promise.
        """
        promises = {p.name: p for p in vars(type(self)).values() if isinstance(p, Promise)}
        if unknown := [s for s in skip if s not in promises]:
            raise ValueError(f"skip: a {self.noun} has no promise {unknown[0]!r}; it has {', '.join(promises)}")
        broken: list[tuple[Promise, str]] = []
        for promise in (p for name, p in promises.items() if name not in skip):
            try:
                found = promise.check(self)
            except Exception as error:  # whatever code of one's own raises is what was found
                found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if found is not None:
                broken.append((promise, found))
                if promise.first:
                    break
        if broken:
            raise ContractError(about, self.noun, broken)


def name_of(thing: Any) -> str:
    """The name of a class or a function, or of the class of an object."""
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


def as_double(tree: PyTree) -> PyTree:
    """A tree with its floating-point arrays in double precision; inside `double_precision`."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, tree)


def same(a: PyTree, b: PyTree) -> bool:
    """Whether two trees are the same to the last bit, NaN included.

    Args:
        a: the one.
        b: the other.
    """

    def bits(x):
        x = plain_keys(x)
        return (np.asarray(x).tobytes(), np.shape(x), str(x.dtype)) if isinstance(x, jax.Array | np.ndarray) else x

    return bool(eqx.tree_equal(*(jax.tree.map(bits, tree) for tree in (a, b))))


def apart(a: PyTree, b: PyTree) -> str | None:
    """How far two trees of arrays are apart, where that is more than single precision explains.

    Args:
        a: the one.
        b: the other.
    """
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape:
            return f"shapes {x.shape} and {y.shape}"
        x, y = x.astype(np.float64), y.astype(np.float64)
        if (np.isfinite(x) != np.isfinite(y)).any():
            return "values that are finite in one and not in the other"
        known = np.isfinite(x)
        off = np.abs(x - y)[known]
        if off.size and off.max() > 2e-5 * max(1e-3, float(np.abs(x[known]).max())):
            return f"values that differ by {off.max():.3g}, of {np.abs(x[known]).max():.3g}"
    return None


def reload_fault(tree: PyTree) -> str | None:
    """What `eqx.tree_serialise_leaves` and its reading back change."""
    arrays, rest = eqx.partition(plain_keys(tree), eqx.is_array)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, arrays)
    file.seek(0)
    if not same(arrays, eqx.tree_deserialise_leaves(file, jax.tree.map(jnp.zeros_like, arrays))):
        return "arrays that are not those that were written"
    numbers = [x for x in jax.tree.leaves(rest) if isinstance(x, float | complex | np.generic)]
    return f"leaves that are no arrays, and are not written: {numbers[0]!r}" if numbers else None


def plain_keys(tree: PyTree) -> PyTree:
    """Random keys as the words that stand for them, which can be written."""
    typed = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if typed(x) else x, tree)


def slope_fault(f: Callable[[PyTree], Float[Array, ""]], at: PyTree, *, forward: bool = True) -> str | None:
    """How a gradient differs from central differences, along one random direction, in double precision.

    Args:
        f: from the floating-point arrays of something to a number.
        at: those arrays, in double precision; each moves in proportion to its size.
        forward: whether forward mode is asked too.

    Returns:
        What is wrong, or None.
    """
    flat, back = ravel_pytree(at)
    finite = np.isfinite(np.asarray(flat))
    draws = np.random.default_rng(7).uniform(0.5, 1.5, flat.shape)
    way = jnp.where(finite, draws * jnp.abs(jnp.where(finite, flat, 0)), 0)

    @jax.jit
    def slopes(flat, way, h):
        g = lambda e: f(back(jnp.where(way == 0, flat, flat + e * way)))  # noqa: E731
        value, pull = jax.vjp(lambda x: f(back(x)), flat)
        reverse = jnp.vdot(jnp.where(way == 0, 0, pull(jnp.ones_like(value))[0]), way)
        ahead = jax.jvp(g, (jnp.zeros(()),), (jnp.ones(()),))[1] if forward else reverse
        below, above = jax.lax.map(g, jnp.stack([-h, h]))
        return value, reverse, ahead, (above - below) / (2 * h)

    value, reverse, ahead, wanted = (float(x) for x in slopes(flat, way, jnp.asarray(1e-6)))
    margin = 1e-5 * abs(wanted) + 1e-7 * (1 + abs(value))
    for mode, slope in (("reverse", reverse), ("forward", ahead)):
        if not abs(slope - wanted) <= margin:
            return f"{mode} mode says {slope:.8g}, central differences say {wanted:.8g}"
    return None


def tracing_fault(trace: Callable[..., Any], *arguments: Any) -> str | None:
    """How a second tracing differs from the first: by something that neither the arguments nor the leaves hold.

    Args:
        trace: what is traced.
        arguments: with what.
    """
    first, second = (jax.make_jaxpr(lambda *a: jax.tree.leaves(trace(*a)))(*arguments) for _ in range(2))
    if str(first.jaxpr) != str(second.jaxpr) or not same(first.consts, second.consts):
        return "another computation, or other constants, when it is traced again"
    return None


def is_finite(tree: PyTree) -> bool:
    """Whether all floating-point numbers of a tree are finite."""
    numbers = (x for x in jax.tree.leaves(tree) if not eqx.is_array(x) or jnp.issubdtype(x.dtype, jnp.inexact))
    return all(bool(np.isfinite(np.asarray(x)).all()) for x in numbers)
