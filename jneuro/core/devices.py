"""Device capabilities: program variants for devices with restrictions, and the memory that is free.

Apple's GPUs, through the plugin `jax-mps`, compute in single precision only; every turn of a loop costs them a
dispatch, and one that stacks its results the more, the longer the stack; random numbers drawn within loops have failed
there; and they do not know the convolution of dilated inputs. The route "metal" goes around all that: loops in short
unrolled pieces, noise drawn before the loop, dense propagation in place of loops over spikes, zeros put between the
samples, and double precision on the CPU. It is taken where JAX computes on `mps`, and everywhere if the environment
says `JNEURO_ROUTE=metal`; `JNEURO_ROUTE=ordinary` switches it off. Results are those of the ordinary route.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import PyTree

__all__ = [
    "Route",
    "available_memory",
    "double_precision",
    "is_out_of_memory",
    "on_route",
    "require_memory",
    "route",
    "scan",
]

Route = Literal["ordinary", "metal"]
"""How programs are written."""

_CHUNK = 64
"""Turns of a loop whose results are stacked together."""

_chosen: Any = jax.make_user_context(None)  # a part of what compiled programs are looked up by


def route() -> Route:
    """The route to take: what `on_route` says, or else the environment, or else what the default device needs.

    Returns:
        The route.

    Raises:
        ValueError: if the environment names another.
    """
    named: Any = _chosen.value or os.environ.get("JNEURO_ROUTE")
    if not named:
        return "metal" if jax.default_backend() == "mps" else "ordinary"
    if named not in get_args(Route):
        raise ValueError(f"JNEURO_ROUTE = {named!r} must be one of {', '.join(map(repr, get_args(Route)))}")
    return named


@contextlib.contextmanager
def on_route(name: Route) -> Iterator[None]:
    """Take a route for the duration of a `with` block, whatever the device.

    Args:
        name: which.
    """
    with _chosen(name):
        yield


def scan(
    body: Callable,
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    *,
    reverse: bool = False,
    unroll: int = 4,
) -> tuple[PyTree, PyTree]:
    """`lax.scan`, on the route "metal" in unrolled chunks.

    Args:
        body: from carry and input to the next carry and an output.
        init: the first carry.
        xs: inputs, stacked along the first axis.
        length: how often, where there are no inputs.
        reverse: from the last input to the first.
        unroll: turns written out one after the other on the route "metal"; 1 where the body is itself a loop.

    Returns:
        The last carry, and the stacked outputs.
    """
    if route() == "ordinary":
        return lax.scan(body, init, xs, length, reverse=reverse)
    total = len(jax.tree.leaves(xs)[0]) if jax.tree.leaves(xs) else int(length or 0)
    short = functools.partial(lax.scan, body, reverse=reverse, unroll=unroll)
    whole, rest = divmod(total, _CHUNK)
    if not whole or total == _CHUNK:
        return short(init, xs, length=total)
    cut = whole * _CHUNK
    head = jax.tree.map(lambda x: x[:cut].reshape(whole, _CHUNK, *x.shape[1:]), xs)

    def many(carry):
        carry, out = lax.scan(lambda c, x: short(c, x, length=_CHUNK), carry, head, whole, reverse=reverse)
        return carry, jax.tree.map(lambda y: y.reshape(cut, *y.shape[2:]), out)

    def few(carry):
        return short(carry, jax.tree.map(lambda x: x[cut:], xs), length=rest)

    if not rest:
        return many(init)
    if reverse:
        carry, last = few(init)
        carry, first = many(carry)
    else:
        carry, first = many(init)
        carry, last = few(carry)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, last)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Compute in double precision for the duration of a `with` block; on the route "metal", on the CPU."""
    where = jax.default_device(jax.local_devices(backend="cpu")[0]) if route() == "metal" else contextlib.nullcontext()
    with jax.enable_x64(True), where:
        yield


_SHARE = 0.5


def available_memory(device: Any, devices: int) -> int:
    """What a program may take on a device [byte]: half of what is free, shared among the devices of a host's memory.

    Args:
        device: the device.
        devices: number of devices of this process.

    Returns:
        The budget.
    """
    if (stats := device.memory_stats()) and (limit := stats.get("bytes_limit")):
        return int(_SHARE * (limit - stats.get("bytes_in_use", 0)))
    return int(_SHARE * min(_free_host_memory()) / devices)


def require_memory(what: str, size: int, remedy: str) -> None:
    """Refuse what does not fit into the memory that may be used.

    Args:
        what: what needs it, in the plural, such as "the connections of 100 neurons".
        size: how much it needs [byte]; what is below 64 MiB always has room.
        remedy: what to change.

    Raises:
        ValueError: with both numbers and the remedy.
    """
    if size > _ALWAYS_FREE and size > (free := available_memory(jax.local_devices()[0], 1)):
        raise ValueError(
            f"{what} take {size / 2**30:,.3g} GiB, and {free / 2**30:,.3g} GiB are free for them; {remedy}"
        )


_ALWAYS_FREE = 64 << 20


def _free_host_memory() -> list[int]:
    """What the host, and the group of processes that this one belongs to, have left [byte]."""
    import psutil

    found = [psutil.virtual_memory().available]
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        found.append(max(int(text) - int(used.read_text()), 0))
    return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and ("resource_exhausted" in text or "out of memory" in text)
