"""Groups of points through the program, batch by batch: with less memory than thought, and past points that raise."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jneuro.core.devices import is_out_of_memory
from jneuro.core.types import Array
from jneuro.sweeps.program import REASON, Group, GroupProgram, SweepMemoryError

__all__ = ["NOT_FINITE", "run_groups"]

NOT_FINITE = "not finite"
"""Why a point failed that raised nothing."""

_LONGEST = 200

Results = dict[str, np.ndarray]


def run_groups(program: GroupProgram, groups: Sequence[Group]) -> Iterator[tuple[Group, Results]]:
    """Compute groups in order; the next batch is computed while the last one is used.

    A function that a point calls on the host, such as `eqx.error_if` or a callback of one's own, may raise. That ends
    the call of the whole batch, which is then divided until the point is found.

    Args:
        program: the program to begin with; where memory does not suffice after all, the batch is halved.
        groups: what to compute.

    Yields:
        Every group, and the results of its points, with `reason`, which is empty where a point did not fail.

    Raises:
        SweepMemoryError: if memory does not suffice for one group a device.
    """
    with _contained(program.devices):
        yield from _batches(program, groups)


def _batches(program: GroupProgram, groups: Sequence[Group]) -> Iterator[tuple[Group, Results]]:
    """Compute groups, two batches at once."""
    first = ahead = 0
    waiting: list[tuple[Sequence[Group], dict[str, Array] | None]] = []
    while first < len(groups):
        try:
            while ahead < len(groups) and len(waiting) < 2:
                batch = groups[ahead : ahead + program.size]
                waiting.append((batch, _begun(program, batch)))
                ahead += len(batch)
            batch, results = waiting.pop(0)
            found = _finished(program, batch, results)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            waiting.clear()
            ahead = first
            if program.groups == 1:
                raise SweepMemoryError(
                    f"{program.lanes} points side by side do not fit; lower sweep.lanes, or record less"
                ) from error
            program = GroupProgram(program.point, program.lanes, program.groups // 2, program.devices)
            continue
        first += len(batch)
        for group, values in zip(batch, found, strict=True):
            yield group, {name: x[: group.count] for name, x in values.items()}


def _begun(program: GroupProgram, batch: Sequence[Group]) -> dict[str, Array] | None:
    """Begin to compute a batch; None if a point has raised already."""
    try:
        return program(batch)
    except jax.errors.JaxRuntimeError as error:
        if _raised(error) is None:
            raise
        return None


def _finished(program: GroupProgram, batch: Sequence[Group], results: dict[str, Array] | None) -> list[Results]:
    """The results of every group of a batch."""
    try:
        if results is not None:
            return _by_group(batch, jax.device_get(results))
    except jax.errors.JaxRuntimeError as error:
        if _raised(error) is None:
            raise
    return _divided(program, batch)


def _by_group(batch: Sequence[Group], host: Results) -> list[Results]:
    """Divide the results of a call among its groups."""
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in host.items()}
    reason = np.where(flat["ok"], "", NOT_FINITE).astype(np.dtypes.StringDType())
    return [{name: x[k] for name, x in (flat | {REASON: reason}).items()} for k in range(len(batch))]


def _divided(program: GroupProgram, batch: Sequence[Group]) -> list[Results]:
    """The results of groups of which some may raise: of each half by itself."""
    try:
        return _by_group(batch, jax.device_get(program(batch)))
    except jax.errors.JaxRuntimeError as error:
        if _raised(error) is None:
            raise
    if len(batch) == 1:
        return [_lanes(program, batch[0], np.arange(program.lanes))]
    half = len(batch) // 2
    return _divided(program, batch[:half]) + _divided(program, batch[half:])


def _lanes(program: GroupProgram, group: Group, wanted: np.ndarray) -> Results:
    """The results of some lanes of a group, whose neighbours, to change no bit of them, are the first of them again."""
    take = np.full(program.lanes, wanted[0])
    take[wanted] = wanted
    alone = group._replace(index=group.index[take], seed=group.seed[take], values=group.values[take])
    try:
        (found,) = _by_group([alone], jax.device_get(program([alone])))
        return {name: x[wanted] for name, x in found.items()}
    except jax.errors.JaxRuntimeError as error:
        if (reason := _raised(error)) is None:
            raise
    if len(wanted) == 1:
        return _nothing(program, reason)
    parts = [_lanes(program, group, half) for half in np.array_split(wanted, 2)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _nothing(program: GroupProgram, reason: str) -> Results:
    """The results of one point that has none."""
    found = {}
    for name, like in program.point.like.items():
        nothing = np.nan if np.issubdtype(like.dtype, np.floating) else 0
        found[name] = np.full((1, *like.shape), nothing, like.dtype)
    return found | {REASON: np.array([reason], np.dtypes.StringDType())}


def _raised(error: Exception) -> str | None:
    """What a function on the host has raised, without its traceback; None if the error comes from elsewhere."""
    lines = str(error).splitlines()
    if not lines or "callback" not in lines[0].lower():
        return None
    last = max((k for k, line in enumerate(lines) if line.startswith("  File ")), default=0)
    said = next((line for line in lines[last + 1 :] if line and not line.startswith(" ")), lines[0])
    return said.removeprefix("_")[:_LONGEST]


@contextmanager
def _contained(devices: Sequence[Any]) -> Iterator[None]:
    """Let JAX write the traceback of the first point that raises, not those of all, and not again at the end."""
    logger, seen = logging.getLogger("jax._src.callback"), []

    def first(record: logging.LogRecord) -> bool:
        seen.append(record)
        return len(seen) == 1

    logger.addFilter(first)
    try:
        yield
    finally:
        logger.removeFilter(first)
        for device in devices if seen else ():
            # JAX waits for each device's last callback when Python ends, and would raise what that one raised.
            with jax.default_device(device):
                jax.jit(lambda: jax.debug.callback(lambda: None))()
