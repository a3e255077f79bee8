"""The Hodgkin-Huxley neuron in Jaxley (JAX), timed: its own `HH` channel, implicit Euler, `vmap` over cells."""

import os
import time

# One thread, before JAX starts.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import jaxley as jx
import numpy as np
from jaxley.channels import HH
from result import report, rounds
from scipy_hodgkin_huxley import rates, solve
from spiking import compare, crossings

__all__ = []

DT = 0.025


def exact(current, times):
    """Spike times of LSODA from rest, sampled as Jaxley is, with its constants (E_L −54.3)."""
    initial = np.array([-65.0, *(a / (a + b) for a, b in rates(-65.0))])
    return crossings(times, solve(lambda t, piece: current, times, (), initial, -54.3)[0][0])


def main(cells=2000, duration=50.0):
    """Voltages of every step; scaled to 2000 cells × 1 s."""
    cell = jx.Compartment()
    cell.insert(HH())
    # 1000 µm²: 1 µA/cm² is 0.01 nA.
    for name, value in {"radius": 10.0, "length": 50 / np.pi, "v": -65.0, "capacitance": 1.0}.items():
        cell.set(name, value)
    cell.init_states()
    cell.record("v", verbose=False)
    steps = round(duration / DT)

    def one(density):
        stimulus = cell.data_stimulate(jnp.full(steps, density * 0.01))
        return jx.integrate(cell, data_stimuli=stimulus, delta_t=DT)[0]

    amplitudes = jnp.linspace(0, 20, cells)
    began = time.perf_counter()
    compiled = jax.jit(jax.vmap(one)).lower(amplitudes).compile()
    compile_s = time.perf_counter() - began
    cpu, v = [], None

    def once():
        nonlocal v
        began, used = time.perf_counter(), time.process_time()
        v = jax.block_until_ready(compiled(amplitudes))
        cpu.append(time.process_time() - used)
        return time.perf_counter() - began

    scale = 2000 / cells * 1000 / duration
    seconds = rounds(once, scale)
    chosen = np.arange(cells // 10, cells, cells // 10)
    times = np.arange(v.shape[1]) * DT
    found = [crossings(times, np.asarray(v[k], float)) for k in chosen]
    report(
        "jaxley",
        "hodgkin_huxley",
        ["jaxley", "jax"],
        seconds_per_2000_cells_and_second=min(seconds) * scale,
        cpu_seconds=min(cpu) * scale,
        compile_s=compile_s,
        measured={"cells": cells, "duration_ms": duration, "dt_ms": DT, "seconds": seconds},
        accuracy={"against": "LSODA"} | compare(found, [exact(float(amplitudes[k]), times) for k in chosen], duration),
    )


if __name__ == "__main__":
    main()
