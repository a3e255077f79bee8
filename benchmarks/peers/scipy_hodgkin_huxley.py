"""The Hodgkin-Huxley neuron in SciPy."""

from itertools import pairwise
from math import exp, expm1

import numpy as np
from scipy.integrate import solve_ivp

__all__ = ["INITIAL", "field", "rates", "solve"]

INITIAL = np.array([-70.0, 0.05, 0.54, 0.34])
LEAK = -54.4


def ratio(x):
    """x / (eˣ − 1), 1 at 0."""
    return x / expm1(x) if abs(x) > 1e-12 else 1.0 - x / 2


def rates(v):
    """Opening and closing rates [1/ms] of m, h, n; rest is −65 mV."""
    u = v + 65
    return (
        (ratio(2.5 - 0.1 * u), 4 * exp(-u / 18)),
        (0.07 * exp(-u / 20), 1 / (exp(3 - 0.1 * u) + 1)),
        (0.1 * ratio(1 - 0.1 * u), 0.125 * exp(-u / 80)),
    )


def field(t, y, current, leak=LEAK):
    """Right-hand side [1/ms]; the current [µA/cm²] is a function of time."""
    v, *gates = y
    m, h, n = gates
    slope = current(t) - 120 * m**3 * h * (v - 50) - 36 * n**4 * (v + 77) - 0.3 * (v - leak)
    return (slope, *(a * (1 - x) - b * x for x, (a, b) in zip(gates, rates(v), strict=True)))


def solve(current, times, breaks=(), initial=INITIAL, leak=LEAK, rtol=1e-9, atol=1e-11):
    """States at `times` and upward crossings of 0 mV; `breaks` are where the current jumps, `current(t, piece)`."""

    def crossing(t, y, *rest):
        return y[0]

    crossing.direction = 1
    edges = [times[0], *breaks, times[-1]]
    states, spikes, y = np.empty((4, len(times))), [], initial
    for piece, (begin, end) in enumerate(pairwise(edges)):
        inside = (times >= begin) & (times <= end)
        arguments = (lambda t, piece=piece: current(t, piece), leak)
        at = np.union1d(times[inside], end)
        done = solve_ivp(
            field, (begin, end), y, "LSODA", at, events=crossing, args=arguments, rtol=rtol, atol=atol, first_step=1e-6
        )
        states[:, inside], y = done.y[:, : inside.sum()], done.y[:, -1]
        spikes.append(done.t_events[0])
    return states, np.concatenate(spikes)
