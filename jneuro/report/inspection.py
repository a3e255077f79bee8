"""What is in a recording, before anything is done with it: its sweeps, steps and spikes, doubts, and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from jneuro.core.config import ConfigError, first_message
from jneuro.core.types import Float
from jneuro.fitting.problem import Trials
from jneuro.recordings.kinds import RecordingFile
from jneuro.recordings.readers import clipped
from jneuro.recordings.recording import Recording
from jneuro.report.components import Table, quantity
from jneuro.report.style import EXCITATORY, GREY, INHIBITORY, INK, panels
from jneuro.spikes.detection import Detected, Detector
from jneuro.spikes.protocols import Steps, describe, main_step, steps_of, stretches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Inspection", "inspect", "source_of"]

_PLAUSIBLE = -150.0, 100.0
"""Potentials of a membrane lie between [mV]."""
_FROM = {"current": "current from", "potential": "potential from"}
"""What `about` has, in words."""
_SHOWN = 8
"""Trials of the figure."""
_SAMPLES = 4000
"""Samples of a trace in the figure, each drawn by its lowest and highest potential."""


class Inspection(NamedTuple):
    """What is in a recording.

    Attributes:
        facts: in pairs of words.
        trials: each with its current, rest and spikes.
        doubts: what may be wrong, in sentences.
        figure: the potentials, the currents, and rates over currents.
    """

    facts: list[tuple[str, str]]
    trials: Table
    doubts: list[str]
    figure: "Figure"


def source_of(path: Path, said: Sequence[str] = ()) -> RecordingFile:
    """The recording that a command names.

    Args:
        path: the file.
        said: `key=value` as of a configuration's `recording`, such as `channel=1`.

    Returns:
        The recording's file.

    Raises:
        ConfigError: for an unknown key or a wrong value.
    """
    data: dict[str, Any] = {"path": path}
    for text in said:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"{text}: must be key=value, such as channel=1 or sweeps=[0,2]")
        try:
            data[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text}: the value is not valid YAML") from error
    try:
        return RecordingFile.model_validate(data)
    except ValueError as error:
        raise ConfigError(f"recording: {first_message(error)}") from error


def inspect(
    recording: Recording, *, sweeps: Sequence[int] | None = None, detector: Detector | None = None
) -> Inspection:
    """Look at a recording of a cell.

    Args:
        recording: with `v` and `current`; cells count as trials, as in a fit.

    Other Args:
        sweeps: what its trials are called; by default their numbers from 0.
        detector: what counts as a spike; by default a threshold that is found.

    Returns:
        What is in it.

    Raises:
        ValueError: if it has no potential or no current.
    """
    trials = Trials.of(recording, allow_clipped=True)
    v, current = np.asarray(trials.v), np.asarray(trials.current)
    dt, unit = recording.dt, recording.units["current"]
    detected, steps = (detector or Detector(threshold_mv="auto"))(v, dt), steps_of(current, dt)
    names = [*sweeps] if sweeps is not None and len(sweeps) == len(v) else [*range(len(v))]
    facts = [
        ("sweeps", f"{len(v)} of {recording.frames * dt:g} ms, every {dt:.6g} ms ({1 / dt:.6g} kHz)"),
        ("potential", f"{v.min():.1f} to {v.max():.1f} {recording.units['v']}"),
        ("current", f"{current.min():.4g} to {current.max():.4g} {unit}"),
        *((_FROM.get(k, k), x) for k, x in sorted(recording.about.items())),
        ("steps", _protocol(current, dt, steps)),
        ("spikes", f"{sum(map(len, detected.times))}, crossings of {detected.threshold:.1f} mV"),
    ]
    facts = [(k, x.replace("-", "−") if k in ("potential", "current", "spikes") else x) for k, x in facts]
    doubts = _doubts(v, detected, Detector()(v, dt), names)
    return Inspection(
        facts,
        _table(v, current, dt, steps, detected, names, unit),
        doubts,
        _figure(v, current, dt, steps, detected, names, (recording.units["v"], unit)),
    )


def _protocol(current: np.ndarray, dt: float, steps: Steps) -> str:
    """The steps in words."""
    if len(steps.begin):
        each = "; ".join(f"{b:.1f} to {e:.1f} ms" for b, e in zip(steps.begin, steps.end, strict=True))
        return f"{len(steps.begin)}: {each}"
    if not np.ptp(current, axis=1).any():
        return "none: the current never changes"
    changes = len(stretches(current, dt).steady) - 1
    why = f"{changes} changes of the current, none to a level that stays for 100 ms" if changes else "it has no levels"
    return f"none: {why}"


def _doubts(v: np.ndarray, detected: Detected, plain: Detected, names: list[int]) -> list[str]:
    """What may be wrong with the potentials and with what counts as their spikes."""
    found = [f"spikes of sweep {names[i]}: {said}" for i, said in enumerate(detected.doubts) if said]
    if missed := [names[i] for i, said in enumerate(plain.doubts) if said and not detected.doubts[i]]:
        found.append(
            f"with a threshold of 0 mV, spikes would be in doubt in {_sweeps(missed)}; "
            f"{quantity(detected.threshold, 1)} mV is found from what looks like spikes"
        )
    low, high = _PLAUSIBLE
    if outside := [names[i] for i, row in enumerate(v) if row.min() < low or row.max() > high]:
        found.append(
            f"potentials leave {low:g} to {high:g} mV in {_sweeps(outside)}: another unit, or the voltage drop of an "
            "electrode"
        )
    for i, row in enumerate(v):
        if (where := clipped(row)) is not None:
            found.append(f"the potential of sweep {names[i]} stays at {row[where[0]]:g} mV: it was clipped")
    return found


def _sweeps(names: list[int]) -> str:
    """Some sweeps in words."""
    return f"sweep {names[0]}" if len(names) == 1 else f"{len(names)} sweeps, the first being {names[0]}"


def _table(
    v: np.ndarray, current: np.ndarray, dt: float, steps: Steps, detected: Detected, names: list[int], unit: str
) -> Table:
    """A line for each sweep: its currents, its potential before them, and its spikes."""
    described = describe(detected.times, steps)
    before = [max(s.begin, 1) for s in main_step(current, dt)]
    rows = []
    for i, row in enumerate(v):
        levels = [quantity(x, 1) for x in steps.amplitude[i]] or [quantity(np.median(current[i]), 1)]
        spikes = [str(len(t)) for t in described.trains[i]]
        mark = "?" if detected.doubts[i] else ""
        rows.append(
            [
                str(names[i]),
                ", ".join(levels),
                quantity(np.median(row[: before[i]]), 1),
                f"{len(detected.times[i])}{mark}",
                ", ".join(spikes) or "–",
                ", ".join(quantity(x, 1) for x in described.rate[i]) or "–",
            ]
        )
    columns = ["sweep", f"current [{unit}]", "rest [mV]", "spikes", "in steps", "rate [Hz]"]
    return Table("Each sweep; a question mark: the spikes are in doubt.", columns, rows)


def _figure(
    v: np.ndarray,
    current: np.ndarray,
    dt: float,
    steps: Steps,
    detected: Detected,
    names: list[int],
    units: tuple[str, str],
) -> "Figure":
    """Potentials with their spikes, currents, and rates over currents where there are steps."""
    shown = np.unique(np.linspace(0, len(v) - 1, min(len(v), _SHOWN)).round().astype(int))
    rows = 3 if len(steps.begin) else 2
    ratios = [3, 1.2, 1.6][:rows]
    figure, axes = panels(1.3 * sum(ratios), rows, 1, height_ratios=ratios)
    for k, i in enumerate(shown):
        share = 0.25 + 0.75 * k / max(len(shown) - 1, 1)
        for ax, x in ((axes[0], v[i]), (axes[1], current[i])):
            ax.plot(*_envelope(x, dt), color=INHIBITORY, alpha=share, linewidth=0.7, rasterized=True)
        at = detected.times[i]
        doubtful = bool(detected.doubts[i])
        axes[0].plot(at, np.full(len(at), detected.threshold), "x" if doubtful else "|", color=EXCITATORY, markersize=4)
    axes[0].axhline(detected.threshold, color=GREY, linewidth=0.6, linestyle="--")
    axes[0].sharex(axes[1])
    which = ", ".join(str(names[i]) for i in shown)
    axes[0].set_title(f"sweep{'s' * (len(shown) > 1)} {which}", fontsize=9, color=INK, loc="left")
    axes[0].set_ylabel(f"potential [{units[0]}]", color=INK, fontsize=9)
    axes[1].set_ylabel(f"current [{units[1]}]", color=INK, fontsize=9)
    axes[1].set_xlabel("time [ms]", color=INK, fontsize=9)
    if rows == 3:
        rate = describe(detected.times, steps).rate
        for k in range(rate.shape[1]):
            order = np.argsort(steps.amplitude[:, k])
            (line,) = axes[2].plot(steps.amplitude[order, k], rate[order, k], "o-", markersize=3, label=f"step {k + 1}")
            doubted = [i for i, said in enumerate(detected.doubts) if said]
            hollow = {"markerfacecolor": "white", "color": line.get_color(), "markersize": 4, "zorder": 3}
            axes[2].plot(steps.amplitude[doubted, k], rate[doubted, k], "o", **hollow)
        axes[2].set_xlabel(f"current [{units[1]}]", color=INK, fontsize=9)
        axes[2].set_ylabel("rate [Hz]", color=INK, fontsize=9)
        if rate.shape[1] > 1:
            axes[2].legend(frameon=False, fontsize=8)
    return figure


def _envelope(x: Float[np.ndarray, " time"], dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and values that draw a trace as all of its samples would: the extremes of each stretch."""
    width = -(-2 * len(x) // _SAMPLES)
    if width <= 2:
        return dt * np.arange(len(x)), x
    blocks = x[: len(x) // width * width].reshape(-1, width)
    time = dt * width * np.repeat(np.arange(len(blocks)) + 0.5, 2)
    return time, np.stack([blocks.min(1), blocks.max(1)], 1).ravel()
