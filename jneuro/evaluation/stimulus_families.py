"""Families of current waveforms, to ask a surrogate what it was not trained on."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jneuro.core.types import Float

__all__ = ["Point", "families", "pulses", "ramp", "sine", "step"]

Current = Float[np.ndarray, " frame"]


class Point(NamedTuple):
    """One place on the validity map.

    Attributes:
        family: kind of waveform.
        x: what is varied along the family's axis.
        series: what is varied beside it, as a legend has it; empty if nothing is.
        currents: a few draws of it [µA/cm²].
    """

    family: str
    x: float
    series: str
    currents: Float[np.ndarray, "draw frame"]


def step(time: Current, amplitude: float, onset: float, end: float = np.inf) -> Current:
    """A current from `onset` until `end`, else none.

    Args:
        time: of each sample [ms].
        amplitude: of the current [µA/cm²].
        onset: its beginning [ms].
        end: its end [ms].
    """
    return amplitude * ((time >= onset) & (time < end))


def sine(time: Current, amplitude: float, frequency: float, phase: float = 0.0) -> Current:
    """A sine wave.

    Args:
        time: of each sample [ms].
        amplitude: of the current [µA/cm²].
        frequency: of the wave [Hz].
        phase: at time zero [rad].
    """
    return amplitude * np.sin(2e-3 * np.pi * frequency * time + phase)


def ramp(time: Current, amplitude: float, onset: float, end: float) -> Current:
    """A slope from none at `onset` to `amplitude` at `end`, and that from then on.

    Args:
        time: of each sample [ms].
        amplitude: of the current [µA/cm²].
        onset: where the slope begins [ms].
        end: where it ends [ms].
    """
    return amplitude * np.clip((time - onset) / (end - onset), 0, 1)


def pulses(time: Current, amplitude: float, frequency: float, onset: float, width: float = 2.0) -> Current:
    """Pulses, evenly spaced, from `onset` on.

    Args:
        time: of each sample [ms].
        amplitude: of the current [µA/cm²].
        frequency: of the pulses [Hz].
        onset: of the first [ms].
        width: of each [ms].
    """
    return amplitude * ((time >= onset) & ((time - onset) % (1e3 / frequency) < width))


def families(frames: int, dt: float, draws: int, rng: np.random.Generator) -> list[Point]:
    """The waveforms of the validity map.

    Args:
        frames: samples of a waveform.
        dt: time between them [ms].
        draws: waveforms at each point; they differ in onset, phase or noise.
        rng: draws them.

    Returns:
        The points: steps, sines, noise, ramps, and pulse trains.
    """
    time = dt * np.arange(1, frames + 1)
    total = frames * dt

    def point(family: str, x: float, series: str, draw: Callable[[], Current]) -> Point:
        return Point(family, x, series, np.stack([draw() for _ in range(draws)]))

    def early() -> float:
        return rng.uniform(0.02, 0.3) * total

    points = [
        point("step", a, "", lambda a=a: step(time, a, early(), rng.uniform(0.6, 1.0) * total))
        for a in (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0)
    ]
    for amplitude in (20.0, 40.0, 80.0):
        points += [
            point(
                "sine",
                f,
                f"{amplitude:g} µA/cm²",
                lambda a=amplitude, f=f: sine(time, a, f, rng.uniform(0, 2 * np.pi)),
            )
            for f in (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
        ]
    points += [
        point("noise", sd, "", lambda sd=sd: sd * rng.standard_normal(frames)) for sd in (5.0, 10.0, 20.0, 40.0, 80.0)
    ]
    points += [
        point("ramp", a, "", lambda a=a: ramp(time, a, early(), rng.uniform(0.6, 1.0) * total))
        for a in (10.0, 20.0, 40.0, 60.0, 80.0)
    ]
    points += [
        point("pulses", f, "", lambda f=f: pulses(time, 40.0, f, early())) for f in (10.0, 20.0, 40.0, 60.0, 100.0)
    ]
    return points
