"""The CA1 neuron of Golomb, Yue & Yaari (2006) in SciPy: the reference, and its time."""

import sys
import time
from math import exp

import numpy as np
from result import report, rounds
from scipy.integrate import odeint, solve_ivp
from spiking import compare, crossings

__all__ = ["INITIAL", "STATES", "field", "solve"]

STATES = ("V", "h", "n", "b", "z", "r", "c", "q", "Ca")
INITIAL = np.array([-71.81327, 0.98786, 0.02457, 0.203517, 0.00141, 0.005507, 0.002486, 0.0, 0.000787])


def field(t, y, current):
    """Right-hand side [1/ms], written out constant by constant."""
    v, h, n, b, z, r, c, q, ca = y

    def s(theta, sigma):
        return 1 / (1 + exp(-(v - theta) / sigma))

    d = 1 / (1 + 6 / ca) if ca > 0 else 0.0
    i_na = 35 * s(-30, 9.5) ** 3 * h * (v - 55) + 0.4 * s(-47, 3) * (v - 55)
    i_k = (6 * n**4 + 1.4 * s(-50, 20) ** 3 * b + 0.5 * z + 10 * d * c + 5 * q) * (v + 90)
    i_ca = 0.08 * r**2 * (v - 120)
    return (
        current - 0.05 * (v + 70) - i_na - i_k - i_ca,
        10 * (s(-45, -7) - h) / (1 + 7.5 * s(-40.5, -6)),
        10 * (s(-35, 10) - n) / (1 + 5 * s(-27, -15)),
        (s(-80, -6) - b) / 15,
        (s(-39, 5) - z) / 75,
        s(-20, 10) - r,
        (s(-30, 7) - c) / 2,
        (ca**4 / (ca**4 + 2.0**4) - q) / 450,
        -0.13 * i_ca - ca / 13,
    )


def solve(current, duration, times=None, method="LSODA", rtol=1e-9, atol=1e-11):
    """States at `times` and spike times, both by the solver's own interpolation."""

    def crossing(t, y, current):
        return y[0]

    crossing.direction = 1
    done = solve_ivp(
        field, (0, duration), INITIAL, method, times, events=crossing, args=(current,), rtol=rtol, atol=atol
    )
    return done.y, done.t_events[0]


def main(solver="LSODA", currents=(0.3, 0.79, 2.3, 3.0), duration=100.0):
    """Time one solver at rtol = atol = 1e-6, recorded every 0.1 ms; scaled to 2000 currents × 1 s."""
    times = np.arange(round(duration / 0.1) + 1) * 0.1
    exact = [crossings(times, solve(current, duration, times)[0][0]) for current in currents]
    cpu, runs = [], []

    def once():
        began, used = time.perf_counter(), time.process_time()
        if solver == "odeint":
            runs[:] = [odeint(field, INITIAL, times, (i,), tfirst=True, rtol=1e-6, atol=1e-6).T for i in currents]
        else:
            runs[:] = [solve(i, duration, times, solver, 1e-6, 1e-6)[0] for i in currents]
        cpu.append(time.process_time() - used)
        return time.perf_counter() - began

    scale = 2000 / len(currents) * 1000 / duration
    seconds = rounds(once, scale, alone=1)
    report(
        "scipy",
        f"ca1 {solver}",
        ["scipy"],
        seconds_per_2000_cells_and_second=min(seconds) * scale,
        cpu_seconds=min(cpu) * scale,
        compile_s=0.0,
        measured={"cells": len(currents), "duration_ms": duration, "seconds": seconds},
        accuracy=compare([crossings(times, run[0]) for run in runs], exact, 50.0),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
