"""The Hodgkin-Huxley neuron in NEURON: its own `hh` mechanism at 6.3 °C. Run as a program, it is timed."""

import sys
import time

import numpy as np
from neuron import h
from result import report, rounds
from spiking import compare

__all__ = ["CONSTANTS", "cell", "clamp", "run"]

h.load_file("stdrun.hoc")
h.CVode().cache_efficient(True)
CONSTANTS = {
    "C": 1.0, "g_Na": 120.0, "g_K": 36.0, "g_L": 0.3, "E_Na": 50.0, "E_K": -77.0, "E_L": -54.3, "celsius": 6.3,
    "v_init": -65.0, "gates": "steady state at v_init",
}  # fmt: skip


def cell():
    """One compartment of 1000 µm², so that 1 µA/cm² is 0.01 nA."""
    section = h.Section()
    section.L = section.diam = np.sqrt(1000 / np.pi)
    section.insert("hh")
    section.ena, section.ek, section.cm = CONSTANTS["E_Na"], CONSTANTS["E_K"], CONSTANTS["C"]
    return section


def clamp(section, density, onset, length=1e9):
    """A step of current [µA/cm²]."""
    stimulus = h.IClamp(section(0.5))
    stimulus.delay, stimulus.dur, stimulus.amp = onset, length, density * 0.01
    return stimulus


def run(duration, dt):
    """Run with steps of dt [ms]; None: CVODE at a tolerance of 1e-10."""
    h.celsius = CONSTANTS["celsius"]
    h.usetable_hh = 0 if dt is None else 1
    h.cvode_active(dt is None)
    if dt is None:
        h.cvode.atol(1e-10)
        h.cvode.rtol(1e-10)
    else:
        h.dt, h.steps_per_ms = dt, 1 / dt
    h.finitialize(CONSTANTS["v_init"])
    if dt is None:
        h.continuerun(duration)
    else:
        # The loop in C; `continuerun` interprets one command a step.
        h.ParallelContext().psolve(duration)


def main(cells=200, duration=1000.0, dt=0.025):
    """Time cells in one process, thread and time loop; voltages every 0.1 ms; scaled to 2000 cells × 1 s.

    Crank-Nicolson (`secondorder` 2) costs what NEURON's default, implicit Euler, costs, and errs less.
    """
    h.ParallelContext().set_maxstep(10)
    h.secondorder = 2
    sections = [cell() for _ in range(cells)]
    amplitudes = np.linspace(0, 20, cells)
    clamps = [clamp(s, a, 0.0) for s, a in zip(sections, amplitudes, strict=True)]
    voltages = [h.Vector().record(s(0.5)._ref_v, 0.1) for s in sections]
    trains = [(h.NetCon(s(0.5)._ref_v, None, sec=s), h.Vector()) for s in sections]
    for connection, train in trains:
        connection.threshold = 0.0
        connection.record(train)
    cpu = []

    def once():
        began, used = time.perf_counter(), time.process_time()
        run(duration, dt)
        cpu.append(time.process_time() - used)
        return time.perf_counter() - began

    scale = 2000 / cells * 1000 / duration
    seconds = rounds(once, scale, alone=2)
    coarse = [np.array(train) for _, train in trains]
    run(200.0, 0.001)
    report(
        "neuron",
        "hodgkin_huxley",
        ["neuron"],
        seconds_per_2000_cells_and_second=min(seconds) * scale,
        cpu_seconds=min(cpu) * scale,
        compile_s=0.0,
        measured={"cells": cells, "duration_ms": duration, "dt_ms": dt, "seconds": seconds, "voltages": len(voltages)},
        accuracy={"against": "NEURON, dt 0.001 ms"} | compare(coarse, [np.array(train) for _, train in trains], 200.0),
    )
    del clamps  # Kept to here: NEURON drops what Python no longer holds.


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
