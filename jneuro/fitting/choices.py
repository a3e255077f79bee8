"""What a fit takes from its recording where it is not told: samples, the part that is used, start, bounds, spikes."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.types import Float
from jneuro.fitting.config import FitConfig
from jneuro.fitting.kinds import OBJECTIVES
from jneuro.fitting.objectives import MOST_STRETCHES
from jneuro.fitting.problem import Trials
from jneuro.recordings.recording import Recording
from jneuro.simulators.paths import parameters, replace
from jneuro.spikes.protocols import main_step, stretches

__all__ = ["Choice", "Chosen", "choose", "cut"]

_SAMPLE_MS = 0.1
"""Samples are thinned to this, or to the cell's time step where that is longer."""
_MARGIN_MS = 100.0
"""What is kept before the first change of the current, and after the last."""
_LONGEST_MS = 20_000.0
"""More of a trial would take a fit too long."""
_BASELINE_MS = 50.0
"""The beginning of a trial that says where a cell starts, if the current does not change before."""
_PASSIVE_MV = 1.0
"""The least change of the potential under a step from which resistance and time constant are taken."""
_WAY = 1 - float(np.exp(-1))
"""How much of its way an exponential has gone after its time constant."""
_SIZES = 0.05, 20.0
"""How much smaller or larger than the configured cell a cell may be."""


class Choice(NamedTuple):
    """One thing that was chosen.

    Attributes:
        key: of the configuration.
        value: what was chosen.
        why: by what rule.
    """

    key: str
    value: str
    why: str


class Chosen(NamedTuple):
    """What a fit consists of once its recording is known.

    Attributes:
        config: with numbers where `auto` stood.
        simulator: the cell, starting where the recording does.
        recording: cut and thinned.
        choices: what was chosen, and why.
    """

    config: FitConfig
    simulator: Any
    recording: Recording
    choices: list[Choice]


def choose(config: FitConfig, simulator: Any, recording: Recording) -> Chosen:
    """Choose what a configuration leaves to the recording of a cell, and say so.

    Args:
        config: the fit, with `auto` for `sample_ms`, `cut_ms` or the threshold of spikes, and `adapt`.
        simulator: the cell.
        recording: as it was read.

    Returns:
        What is fitted, to what.

    Raises:
        ValueError: if the recording cannot be fitted, or does not have the samples that the configuration names.
    """
    choices: list[Choice] = []
    config = _samples(config, simulator, Trials.of(recording), choices)
    recording = cut(recording, config)
    trials = Trials.of(recording)
    v, current, dt = np.asarray(trials.v), np.asarray(trials.current), trials.dt
    held = stretches(current, dt)
    if config.adapt:
        first = int(min([*held.edges[1:-1], round(_BASELINE_MS / dt)]))
        config, simulator = _potentials(config, simulator, v[:, : max(first, 1)], choices)
        config, simulator = _size(config, simulator, v, current, dt, choices)
    if config.fit.spikes.threshold_mv == "auto":
        fixed = config.fit.spikes.fixed(v, dt)
        found = fixed(v, dt)
        doubted = sum(map(bool, found.doubts))
        why = f"from what looks like spikes: {sum(map(len, found.times))} in {len(v)} trial{'s' * (len(v) > 1)}"
        why += f", those of {doubted} in doubt" if doubted else ""
        value = f"threshold {found.threshold:.1f} mV, return {fixed.return_mv:.1f} mV".replace("-", "−")
        choices.append(Choice("fit.spikes", value, why))
        config = _with(config, spikes=fixed)
    if (count := len(held.steady)) > MOST_STRETCHES:
        config = _without_order(config, count, choices)
    return Chosen(config, simulator, recording, choices)


def cut(recording: Recording, config: FitConfig) -> Recording:
    """The part of a recording, and the samples of it, that a configuration names in numbers.

    Args:
        recording: of a cell or of a network.
        config: its `cut_ms` and `sample_ms`.

    Returns:
        The recording.

    Raises:
        ValueError: if it ends before, or has no such samples.
    """
    dt, part, sample = recording.dt, config.part, config.sample
    every = round((sample or dt) / dt)
    if sample is not None and (config.of_network or abs(every * dt - sample) > 1e-6 * dt):
        said = "is for cells" if config.of_network else f"must be a multiple of {dt:g} ms, as the recording has it"
        raise ValueError(f"sample_ms = {sample} {said}")
    first, last = (round(ms / dt) for ms in part or (0.0, recording.frames * dt))
    if last > recording.frames:
        raise ValueError(f"cut_ms: the recording ends at {recording.frames * dt:g} ms")
    values = {name: x[:, first:last:every] for name, x in recording.values.items()}
    return dataclasses.replace(
        recording, values=values, step=recording.step * every, frames=len(range(first, last, every))
    )


def _with(config: FitConfig, **changed: Any) -> FitConfig:
    """The configuration with other values in its section `fit`."""
    return config.model_copy(update={"fit": config.fit.model_copy(update=changed)})


def _samples(config: FitConfig, simulator: Any, trials: Trials, choices: list[Choice]) -> FitConfig:
    """Choose the time between samples, and the part around the changes of the current."""
    dt, changed = trials.dt, {}
    step, name = config.fit.dt_ms or simulator.default_dt, type(simulator).__name__
    if config.sample_ms == "auto":
        every = max(int(max(step, _SAMPLE_MS) / dt + 1e-6), 1)
        changed["sample_ms"] = float(f"{every * dt:.9g}")
        why = f"{f'one of {every} samples' if every > 1 else 'every sample'} of {dt:.4g} ms"
        why += f"; the time step of {name} is {step:g} ms"
        choices.append(Choice("sample_ms", f"{changed['sample_ms']:.4g} ms", why))
    if config.cut_ms == "auto":
        changed["cut_ms"], why = _around(trials)
        choices.append(Choice("cut_ms", "{:g} to {:g} ms".format(*changed["cut_ms"]), why))
    return config.model_copy(update=changed)


def _around(trials: Trials) -> tuple[tuple[float, float], str]:
    """The part of the trials around the changes of the current [ms], and why; no step is cut at the edge of a trial."""
    dt, found = trials.dt, stretches(np.asarray(trials.current), trials.dt)
    edges, level = dt * found.edges[1:-1], found.level
    begin, end, why = 0.0, trials.duration, "all, since the current does not go in steps"
    if len(edges):
        apart = np.ptp(level, axis=0) > found.tolerance
        told = apart.any() or np.all(np.abs(level[:, -1] - level[:, 0]) <= found.tolerance)
        first, last = (bool(told and not apart[k]) for k in (0, -1))
        begin = max(edges[0] - _MARGIN_MS, begin) if first else begin
        end = min(edges[-1] + _MARGIN_MS, end) if last else end
        why = f"from {_MARGIN_MS:g} ms before the first change of the current" if first else "from the beginning"
        why += " to " + (f"{_MARGIN_MS:g} ms after the last change" if last else "the end")
    if end > begin + _LONGEST_MS:
        end, why = begin + _LONGEST_MS, f"{why}, but no more than {1e-3 * _LONGEST_MS:g} s"
    begin, end = (float(f"{dt * round(x / dt):.9g}") for x in (begin, end))
    return (begin, end), why


def _potentials(
    config: FitConfig, simulator: Any, v: Float[np.ndarray, "trial time"], choices: list[Choice]
) -> tuple[FitConfig, Any]:
    """Let the cell start where the recording does, and let bounds of potentials reach as far from there."""
    known = parameters(simulator)
    if "v_initial" not in known:
        return config, simulator
    rest = round(float(np.median(v)), 1)
    off = rest - float(np.mean(known["v_initial"].default))
    why = f"the median potential before the current changes; the configured start is {rest - off:g} mV"
    choices.append(Choice("v_initial", f"{rest:g} mV".replace("-", "−"), why.replace("-", "−")))
    names = [name for name in config.fit.trainable if known[name].unit == "mV"]
    simulator = replace(simulator, {"v_initial": rest, **{n: known[n].default + off for n in names}})
    return _widened(
        config, names, lambda x: x + off, f"moved by {off:+.1f} mV, as the start".replace("-", "−"), choices
    ), simulator


def _size(
    config: FitConfig,
    simulator: Any,
    v: Float[np.ndarray, "trial time"],
    current: Float[np.ndarray, "trial time"],
    dt: float,
    choices: list[Choice],
) -> tuple[FitConfig, Any]:
    """Scale capacitances, conductances and currents of a whole cell to the recorded one's capacitance."""
    known = parameters(simulator)
    capacitances = [p for p in known.values() if p.unit == "pF"]
    if len(capacitances) != 1:
        return config, simulator
    found = _membrane(v, current, dt, float(config.fit.spikes.fixed(v, dt).threshold_mv))
    if found is None:
        why = "no step without spikes moves the potential enough to tell the membrane's capacitance"
        choices.append(Choice("fit.trainable", "capacitances, conductances, currents: as configured", why))
        return config, simulator
    resistance, tau, steps = found
    size = tau / resistance / float(np.mean(capacitances[0].default))
    said = (
        f"{1e3 * resistance:.3g} MΩ and a time constant of {tau:.3g} ms in {steps} step{'s' * (steps > 1)} without "
        f"spikes mean {tau / resistance:.3g} pF"
    )
    if not _SIZES[0] < size < _SIZES[1]:
        why = f"{said}, which is not believed of this cell"
        choices.append(Choice("fit.trainable", "capacitances, conductances, currents: as configured", why))
        return config, simulator
    names = [n for n, p in known.items() if p.unit.split("/")[0] in ("pF", "nS", "pA") and not p.static]
    simulator = replace(simulator, {n: known[n].default * size for n in names})
    fitted = [n for n in names if n in config.fit.trainable]
    return _widened(config, fitted, lambda x: x * size, f"{said}: {size:.3g} times the configured", choices), simulator


def _membrane(
    v: Float[np.ndarray, "trial time"], current: Float[np.ndarray, "trial time"], dt: float, threshold: float
) -> tuple[float, float, int] | None:
    """Resistance [GΩ] and time constant [ms], medians over steps below threshold, of hyperpolarising ones if any.

    They are those of the largest deflection, before a sag, and of the way to 63 % of it.
    """
    width, found = max(round(1 / dt), 1), []
    for row, (begin, end, change) in zip(v, main_step(current, dt), strict=True):
        blocks = (end - begin) // width
        if not change or not begin or not blocks or row[begin:end].max() >= threshold:
            continue
        base = np.median(row[max(begin - round(_BASELINE_MS / dt), 0) : begin])
        moved = row[begin : begin + blocks * width].reshape(blocks, width).mean(1) - base
        moved = np.concatenate([[0.0], moved * np.sign(change)])
        at = int(np.argmax(moved >= _WAY * moved.max()))
        if at and moved.max() > _PASSIVE_MV:
            share = (_WAY * moved.max() - moved[at - 1]) / (moved[at] - moved[at - 1])
            found.append((change > 0, moved.max() / abs(change), max((at - 1.5 + share), 0.5 * share) * width * dt))
    below = [x for x in found if not x[0]] or found
    if not below:
        return None
    _, resistance, tau = np.median(np.asarray(below, float), axis=0)
    return float(resistance), float(tau), len(below)


def _widened(config: FitConfig, names: list[str], moved: Any, why: str, choices: list[Choice]) -> FitConfig:
    """Bounds that hold the configured ones and those that are moved with the cell."""
    given = {n: b for n in names if (b := config.fit.trainable[n]) is not None}
    wide = {n: (min(low, moved(low)), max(high, moved(high))) for n, (low, high) in given.items()}
    if wide:
        value = "; ".join(f"{n} {low:.3g} to {high:.3g}" for n, (low, high) in wide.items()).replace("-", "−")
        choices.append(Choice("fit.trainable", value, f"widened: {why}"))
    return _with(config, trainable={**config.fit.trainable, **wide})


def _without_order(config: FitConfig, count: int, choices: list[Choice]) -> FitConfig:
    """Times of spikes in place of their order in stretches, where there are too many of these."""
    parts = list(config.fit.objective or ())
    for i, part in enumerate(parts):
        if part.name == "ordered_spikes":
            parts[i] = OBJECTIVES.block({"name": "spike_times", "weight": getattr(part, "weight", 1.0)})
            why = f"the current has {count} stretches, more than the {MOST_STRETCHES} that ordered_spikes takes"
            choices.append(Choice(f"fit.objective.{i}", "spike_times for ordered_spikes", why))
    return _with(config, objective=tuple(parts) or None)
