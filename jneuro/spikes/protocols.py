"""Protocols of current steps, found in clean and in measured currents, and what a cell does in each step."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jneuro.core.types import Array, Bool, Float, Int
from jneuro.spikes.intervals import adaptation_index

__all__ = [
    "Described",
    "Step",
    "Steps",
    "Stretches",
    "between",
    "describe",
    "is_repetition",
    "main_step",
    "ordered_times",
    "steps_of",
    "stretches",
]

_SHORTEST = 100.0
"""A step lasts at least so long [ms]."""
_WINDOW = 2.5
"""Medians over so long are compared where a current is noisy [ms]."""
_CLEAN = 0.05
"""A current that changes in no more of its samples is taken as it is."""
_LEAST = 0.02
"""The smallest change in a noisy current, as a share of its whole range."""


class Stretches(NamedTuple):
    """What lies between the changes of a protocol, the same times in all trials.

    Attributes:
        edges: the samples at which stretches begin, and the end; one more than there are stretches.
        level: median current of each.
        steady: whether it stays there.
        tolerance: currents that differ by no more are equal.
    """

    edges: Int[np.ndarray, " edge"]
    level: Float[np.ndarray, "trial stretch"]
    steady: Bool[np.ndarray, " stretch"]
    tolerance: float


def stretches(current: Float[np.ndarray, "trial time"], dt: float) -> Stretches:
    """Cut a protocol where the current changes in any trial.

    A current without noise is cut where it changes. In a measured one, medians of 2.5 ms on both sides differ by more
    than the noise makes them (six times the spread of such differences, and 2 % of the current's range), and the change
    lies where it divides the samples best; what does not last, such as artefacts of spikes, is none.

    Args:
        current: of all trials.
        dt: time between samples [ms].

    Returns:
        The stretches.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(1, 900))
        >>> stretches(np.repeat([[0.0, 100.0, 0.0]], 300, axis=1) + noise, dt=0.5).edges.tolist()
        [0, 300, 600, 900]
    """
    x = np.asarray(current, np.float64)
    changed = (np.diff(x, axis=1) != 0).any(0)
    tolerance, edges = 0.0, [0, *(np.flatnonzero(changed) + 1), x.shape[1]]
    if changed.sum() > _CLEAN * changed.size:
        tolerance, edges = _noisy(x, min(max(round(_WINDOW / dt), 1), x.shape[1]))
    pieces = [x[:, a:b] for a, b in pairwise(edges)]
    level = np.stack([np.median(p, axis=1) for p in pieces], axis=1)
    halves = [(p[:, : -(-p.shape[1] // 2)], p[:, p.shape[1] // 2 :]) for p in pieces]
    drift = [np.abs(np.median(a, axis=1) - np.median(b, axis=1)).max() for a, b in halves]
    return Stretches(np.asarray(edges), level, np.asarray(drift) <= tolerance, tolerance)


def _noisy(x: np.ndarray, width: int) -> tuple[float, list[int]]:
    """The change that noise does not make, and the samples between which no trial changes by more."""
    count = x.shape[1] // width
    block = np.median(x[:, : count * width].reshape(len(x), count, width), axis=2)
    step = np.zeros_like(block)  # across a block, in which the change may lie
    step[:, 1:-1] = block[:, 2:] - block[:, :-2]
    spread = 1.4826 * np.median(np.abs(step - np.median(step, axis=1, keepdims=True)), axis=1)
    tolerance = np.maximum(6 * spread, _LEAST * np.ptp(block))
    high = np.pad((np.abs(step) > tolerance[:, None]).any(0), 1)
    edges = [0]
    for a, b in zip(np.flatnonzero(~high[:-1] & high[1:]), np.flatnonzero(high[:-1] & ~high[1:]), strict=True):
        before, after = block[:, a - 1], block[:, b]
        size = np.where(np.abs(after - before) > tolerance, 0.5 * (after - before), np.inf)
        begin, end = (a - 1) * width, (b + 1) * width
        beyond = np.clip((x[:, begin:end] - 0.5 * (before + after)[:, None]) / size[:, None], -1, 1).sum(0)
        edge = int(begin + np.argmin(np.concatenate([[0.0], np.cumsum(beyond)])))
        if beyond.any() and edge - edges[-1] >= 2 * width:  # else it is a ramp, or too short
            edges.append(edge)
    edges = [*edges, x.shape[1]]
    level = np.stack([np.median(x[:, a:b], axis=1) for a, b in pairwise(edges)], axis=1)
    kept = (np.abs(np.diff(level, axis=1)) > tolerance[:, None]).any(0)  # the others are artefacts
    return float(tolerance.max()), [0, *np.compress(kept, edges[1:-1]).tolist(), x.shape[1]]


class Steps(NamedTuple):
    """Stretches of constant current that differ from trial to trial.

    Attributes:
        begin: of each, after the first sample [ms].
        end: of each [ms].
        amplitude: the current of each trial.
    """

    begin: Float[np.ndarray, " step"]
    end: Float[np.ndarray, " step"]
    amplitude: Float[np.ndarray, "trial step"]


def steps_of(current: Float[np.ndarray, "trial time"], dt: float, *, shortest: float = _SHORTEST) -> Steps:
    """Find the steps of a protocol: constant in every trial, not the same in all, and not too short.

    A test pulse is the same in all trials, so it is no step. Of a single trial, and of trials that are all alike, what
    differs from their first current is.

    Args:
        current: of all trials.
        dt: time between samples [ms].

    Other Args:
        shortest: a step lasts at least so long [ms].

    Returns:
        The steps; none where the current never changes, or all the time.
    """
    found = stretches(current, dt)
    apart = np.ptp(found.level, axis=0)
    alike = apart.max(initial=0.0) <= found.tolerance
    differs = (np.abs(found.level - found.level[:, :1]).max(0) if alike else apart) > found.tolerance
    step = np.flatnonzero((np.diff(found.edges) * dt >= shortest) & found.steady & differs)
    return Steps(dt * found.edges[step], dt * found.edges[step + 1], found.level[:, step])


class Step(NamedTuple):
    """The step of a trace.

    Attributes:
        begin: its first sample.
        end: the sample after its last.
        change: by how much its current differs from the one before.
    """

    begin: int
    end: int
    change: float


def main_step(
    current: Float[np.ndarray, "trial time"], dt: float, *, onset: float | None = None, end: float | None = None
) -> list[Step]:
    """Find the step that describes each trial: the longest, and of equally long ones the one that changes most.

    Args:
        current: of all trials; several tell a test pulse, which they share, from the step.
        dt: time between samples [ms].

    Other Args:
        onset: where the step begins, after the first sample, if it need not be found [ms].
        end: where it ends [ms]; by default with the trace.

    Returns:
        The step of each trial; the whole trace where there is none.

    Raises:
        ValueError: for a step that does not lie in the trace.
    """
    x = np.asarray(current, np.float64)
    count = x.shape[1]
    if onset is not None or end is not None:
        begin, last = round((onset or 0.0) / dt), count if end is None else round(end / dt)
        if not 0 <= begin < last <= count:
            raise ValueError(f"onset = {onset}, end = {end} ms must be a part of the {dt * count:g} ms of the trace")
        where = [(begin, last)] * len(x)
    else:
        common = steps_of(x, dt) if len(x) > 1 else Steps(*np.zeros((3, 0)))
        where = [_longest(stretches(row[None], dt), common, dt) for row in x]
    inside = [np.median(row[a:b]) for row, (a, b) in zip(x, where, strict=True)]
    # A tenth of what is before the onset, as long as eFEL takes for the potential.
    before = [
        np.median(row[a - max(a // 10, 1) : a]) if a else c for row, (a, _), c in zip(x, where, inside, strict=True)
    ]
    return [Step(a, b, float(c - d)) for (a, b), c, d in zip(where, inside, before, strict=True)]


def _longest(found: Stretches, common: Steps, dt: float) -> tuple[int, int]:
    """First and last sample of the longest step, of those that trials do not share where there are any."""
    if len(common.begin):
        k = int(np.argmax(np.round(common.end - common.begin, 6)))
        return round(common.begin[k] / dt), round(common.end[k] / dt)
    level, edges = np.abs(found.level[0] - found.level[0, 0]), found.edges
    steps = [k for k in np.flatnonzero(found.steady) if level[k] > found.tolerance]
    if not steps:  # from the first to the last change, if there are any
        return int(edges[1]) if len(edges) > 2 else 0, int(edges[-2]) if len(edges) > 3 else int(edges[-1])
    size = np.round(level / max(found.tolerance, 1e-9))
    k = max(steps, key=lambda k: (round(dt * (edges[k + 1] - edges[k])), size[k], -k))
    return int(edges[k]), int(edges[k + 1])


def is_repetition(current: Float[np.ndarray, "trial time"], dt: float, steps: Steps) -> bool:
    """Whether the second of two steps repeats the first: equally long, with equal currents, after equal currents.

    What came before is compared over as long as a step lasts, or as there is before the first one.

    Args:
        current: of all trials.
        dt: time between samples [ms].
        steps: the protocol's.

    Returns:
        Whether a cell without memory beyond that would do the same in both.
    """
    length = steps.end - steps.begin
    if len(length) != 2 or not np.isclose(*length):
        return False
    found = stretches(current, dt)
    held = np.repeat(found.level, np.diff(found.edges), axis=1)
    first, second = np.round(steps.begin / dt).astype(int)
    past, ahead = min(first, round(length[0] / dt)), round(length[0] / dt)
    a, b = (held[:, begin - past : begin + ahead] for begin in (first, second))
    return past > 0 and a.shape == b.shape and bool(np.allclose(a, b, atol=max(found.tolerance, 1e-8)))


def ordered_times(
    spikes: Float[Array, " time"], edges: Int[Array, " edge"], dt: float, slots: int
) -> Float[Array, "stretch spike"]:
    """The time of each stretch's first, second, third … spike, after the stretch's beginning; by JAX.

    A spike that does not happen is put at the end of its stretch, so times are continuous while spikes come and go. A
    spike lies where the sum of `spikes` passes a half, so those that are spread over samples have derivatives.

    Args:
        spikes: spikes in every sample, whole or in parts.
        edges: of the stretches, as samples.
        dt: time between samples [ms].
        slots: spikes of a stretch.

    Returns:
        The times [ms].
    """
    import jax
    import jax.numpy as jnp

    total = jnp.cumsum(spikes)
    before = jnp.concatenate([jnp.zeros(1, total.dtype), total])

    def of_stretch(begin, end):
        levels = jnp.round(before[begin]) + jnp.arange(slots) + 0.5
        at = jnp.searchsorted(total, levels)
        exists = at < end
        inside = jnp.minimum(at, len(spikes) - 1)
        rise = jnp.where(exists, total[inside] - before[inside], 1.0)
        time = inside + (levels - before[inside]) / jnp.where(rise > 0, rise, 1.0)
        return dt * (jnp.where(exists, jnp.clip(time, begin, end), end) - begin)

    return jax.vmap(of_stretch)(edges[:-1], edges[1:])


class Described(NamedTuple):
    """What a cell did in each step of each trial.

    Attributes:
        rate: spikes by the step's length [Hz].
        latency: from the step's beginning to the first spike [ms]; NaN without one.
        adaptation: the adaptation index; NaN with fewer than three spikes.
        trains: times of the spikes after the step's beginning [ms], by trial and step.
    """

    rate: Float[np.ndarray, "trial step"]
    latency: Float[np.ndarray, "trial step"]
    adaptation: Float[np.ndarray, "trial step"]
    trains: list[list[Float[np.ndarray, " spike"]]]

    def part(self, trials: Sequence[int] | np.ndarray, steps: slice = slice(None)) -> "Described":
        """Some of the trials and steps."""
        trains = [self.trains[t][steps] for t in trials]
        return Described._make([*(x[np.asarray(trials)][:, steps] for x in self[:3]), trains])


def describe(times: Sequence[Float[np.ndarray, " spike"]], steps: Steps) -> Described:
    """Describe the spikes of every trial.

    Args:
        times: of the spikes of every trial, after the first sample [ms].
        steps: the protocol's steps.

    Returns:
        The description.
    """
    trains = [[t[(t >= b) & (t < e)] - b for b, e in zip(steps.begin, steps.end, strict=True)] for t in times]
    length = steps.end - steps.begin
    rate = [[1e3 * len(t) / x for t, x in zip(row, length, strict=True)] for row in trains]
    latency = [[t[0] if len(t) else np.nan for t in row] for row in trains]
    adaptation = [[float(adaptation_index(np.diff(t))) for t in row] for row in trains]
    shape = (len(trains), len(length))
    return Described._make([*(np.array(x, float).reshape(shape) for x in (rate, latency, adaptation)), trains])


def between(first: Described, second: Described) -> Described:
    """Halfway between two descriptions: the n-th spike lies between the n-th ones, as far as both have it.

    Args:
        first: of some trials.
        second: of as many.

    Returns:
        The description halfway.
    """
    trains = [
        [0.5 * (a[: len(b)] + b[: len(a)]) for a, b in zip(*rows, strict=True)]
        for rows in zip(first.trains, second.trains, strict=True)
    ]
    return Described._make([*(0.5 * (a + b) for a, b in zip(first[:3], second[:3], strict=True)), trains])
