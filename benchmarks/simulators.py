"""Time the simulators beside the tools that they replace: `python benchmarks/simulators.py [CASE ...]`.

Every case runs ours, then its peers (`make peers`), on the same single core and one after the other, compilation apart.
A row states seconds in the unit of its case, the accuracy beside it, and, for a peer, how many times longer it took. A
peer that is not installed is reported as absent.
"""

import os
import subprocess
import sys
from pathlib import Path

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from harness import measure, record

from jneuro.prng import trial_keys
from jneuro.simulators import (
    Brunel,
    CA1Pyramidal,
    HodgkinHuxley,
    HodgkinHuxleyState,
    IzhikevichReservoir,
    TimeParallel,
    simulate,
    stimuli,
)
from jneuro.simulators.solvers import RK4

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "reference"
KEY = jax.random.key(0)


def brunel_100(runs=50, duration=10_000.0):
    """Fifty networks × 10 s: voltages every 1 ms, and spikes."""
    networks = jax.jit(jax.vmap(Brunel.forecasting_report().connect))(trial_keys(KEY, runs))

    def batch(networks, keys):
        def one(network, key):
            return simulate(network, duration=duration, key=key, record_every=10, throw=False).values

        return jax.vmap(one)(networks, keys)

    values, times = measure(batch, networks, trial_keys(jax.random.key(1), runs), repeats=3)
    rate = float(values["spikes"].sum(dtype="uint32")) / (runs * networks.neurons * duration * 1e-3)
    return times, 1.0, {"rate": rate}


def brunel_12500(variation=0.0, duration=500.0):
    """Panel C at full size; spikes of the population."""
    make = jax.jit(lambda key: Brunel.original(5.0, 2.0, rule="bernoulli", weight_variation=variation).connect(key))
    network = make(KEY)
    start = simulate(network, duration=150.0, key=KEY, record=["spikes"], record_every=10).final_state

    def run(network, start):
        how = {"key": KEY, "record": ["spikes"], "record_every": 10, "initial_state": start, "throw": False}
        return simulate(network, duration=duration, **how).values["spikes"].sum(1, dtype="uint32")

    counts, times = measure(run, network, start, repeats=3)
    return times, 1e3 / duration, {"rate": float(counts.sum()) / network.neurons / duration * 1e3}


def izhikevich(size, duration):
    """The reservoir with delays and plasticity, 100 synapses a neuron."""
    reservoir = IzhikevichReservoir.polychronization(
        n_excitatory=size * 4 // 5,
        n_inhibitory=size // 5,
        probability_excitatory=100 / size,
        probability_inhibitory=125 / size,
        thalamic_count=size // 1000,
    ).connect(KEY)

    def run(reservoir):
        how = {"key": KEY, "record": ["spikes"], "record_every": 1000, "throw": False}
        recording = simulate(reservoir, duration=duration, **how)
        return recording.values["spikes"].sum(1, dtype="uint32"), recording.final_state

    (counts, final), times = measure(run, reservoir, repeats=3)
    weights = np.asarray(reservoir.weights(final))[np.asarray(reservoir.synapses().plastic)]
    found = {"rate": float(counts[1:].sum()) / size / (duration - 1e3) * 1e3, "w_mean": float(weights.mean())}
    return times, 1e3 / duration, found


def crossings(v, dt):
    """Upward crossings of 0 mV, between samples by interpolation; the first sample stands at `dt`."""
    k = np.flatnonzero((v[:-1] < 0) & (v[1:] >= 0))
    return dt * (k + 1 - v[k] / (v[k + 1] - v[k]))


def errors(found, exact, until):
    """Errors of the spike times [ms] before `until`, and whether every spike has its partner."""
    pairs = [(a[a < until], b[b < until]) for a, b in zip(found, exact, strict=True)]
    shared = np.concatenate([np.abs(a[: len(b)] - b[: len(a)]) for a, b in pairs])
    return {
        "spikes": len(shared),
        "same_counts": all(len(a) == len(b) for a, b in pairs),
        "median_ms": float(np.median(shared)),
        "max_ms": float(shared.max()),
    }


def ca1(precision, cells=2000, duration=1000.0):
    """RK4 at 0.02 ms, voltages every 0.1 ms; the first currents are those of the reference."""
    file = np.load(REFERENCE / "ca1.npz")
    known = file["trace_current"]
    exact = [crossings(v[1:].astype(float), 0.1) for v in file["trace"][:, :, 0]]
    with jax.enable_x64(precision == np.float64):
        current = np.linspace(0, 3, cells)
        current[: len(known)] = known

        def run(cell, stimulus):
            how = {"key": KEY, "record": ["v"], "record_every": 5, "throw": False}
            return simulate(cell, stimulus, duration=duration, **how).values["v"]

        v, times = measure(run, CA1Pyramidal(), stimuli.Constant(current.astype(precision)), repeats=3)
        v = np.asarray(v[:1000, : len(known)], float)
    return times, 1000 / duration * 2000 / cells, errors([crossings(x, 0.1) for x in v.T], exact, 50.0)


def hodgkin_huxley(cells=2000, duration=1000.0):
    """Staggered Crank-Nicolson at 0.025 ms, voltages every 0.1 ms."""
    file = np.load(REFERENCE / "hodgkin_huxley.npz")

    def run(cell, stimulus):
        how = {"key": KEY, "record": ["v"], "record_every": 4, "throw": False}
        return simulate(cell, stimulus, duration=duration, **how).values["v"]

    _, times = measure(run, HodgkinHuxley(), stimuli.Constant(jnp.linspace(0, 20, cells)), repeats=3)
    step = stimuli.Step(file["amplitude"].astype(np.float32), onset=17.8)
    start = HodgkinHuxleyState(-70.0, 0.05, 0.54, 0.34)
    v = simulate(HodgkinHuxley(), step, duration=127.9, key=KEY, record=["v"], initial_state=start).values["v"]
    ends = np.cumsum(file["spike_count"])[:-1]
    exact = np.split(file["spike_time"], ends)[: len(file["amplitude"])]
    accuracy = errors([crossings(x, 0.025) for x in np.asarray(v, float).T], exact, 127.0)
    return times, 1000 / duration * 2000 / cells, {"against": "LSODA"} | accuracy


CONDUCTANCES = ("g_l", "g_na", "g_nap", "g_kdr", "g_a", "g_m", "g_ca", "g_c", "g_sahp")


def ca1_gradient(cells=64, duration=100.0):
    """A squared error by nine shared conductances: forward alone, then its gradient by every mode; ratios to the first.

    In single precision, a gradient through 100 ms of bursting is chaotic: this is its cost, not its value.
    """
    cell, current = CA1Pyramidal(), stimuli.Constant(jnp.linspace(0, 3, cells))
    theta = {name: getattr(cell, name) for name in CONDUCTANCES}

    def loss(theta, solver=None):
        how = {"key": KEY, "record": ["v"], "record_every": 5, "throw": False, "solver": solver}
        recording = simulate(dataclasses.replace(cell, **theta), current, duration=duration, **how)
        return jnp.mean(jnp.square(recording.values["v"] + 60))

    modes = {
        "forward": loss,
        "TimeParallel": jax.grad(lambda theta: loss(theta, TimeParallel(RK4()))),
        "reverse": jax.grad(loss),
        "jacfwd": jax.jacfwd(loss),
    }
    found = {name: measure(function, theta, repeats=5)[1] for name, function in modes.items()}
    ratios = {name: times["min_s"] / found["forward"]["min_s"] for name, times in found.items() if name != "forward"}
    compile_s = {name: round(times["compile_s"], 1) for name, times in found.items()}
    return found["TimeParallel"], 1.0, {"ratio_to_forward": ratios, "compile_s": compile_s}


CASES = {
    "brunel_100": (brunel_100, {"brian2": ["brian2_timing.py", "brunel_100"]}),
    "brunel_12500": (
        brunel_12500,
        {"brian2": ["brian2_timing.py", "brunel_12500"], "nest": ["nest_brunel.py"]},
    ),
    "brunel_12500 any weights": (
        lambda: brunel_12500(variation=0.5),
        {"brian2": ["brian2_timing.py", "brunel_12500"], "nest": ["nest_brunel.py"]},
    ),
    "izhikevich_1000": (lambda: izhikevich(1000, 20_000.0), {"brian2": ["brian2_timing.py", "izhikevich_1000"]}),
    "izhikevich_10000": (lambda: izhikevich(10_000, 5000.0), {"brian2": ["brian2_timing.py", "izhikevich_10000"]}),
    "ca1_float32": (
        lambda: ca1(np.float32),
        {"brian2": ["brian2_timing.py", "ca1_float32"], "scipy": ["scipy_ca1.py", "odeint"]},
    ),
    "ca1_float64": (lambda: ca1(np.float64), {"brian2": ["brian2_timing.py", "ca1_float64"]}),
    "hodgkin_huxley": (
        hodgkin_huxley,
        {"jaxley": ["jaxley_hodgkin_huxley.py"], "neuron": ["neuron_hodgkin_huxley.py"]},
    ),
    "ca1_gradient": (ca1_gradient, {}),
    "ca1_gradient 2000 cells": (lambda: ca1_gradient(2000, 20.0), {}),
}


def peer_row(case, peer, command, ours):
    """Run a peer in its own environment."""
    python = ROOT / ".peers" / peer / "bin" / "python"
    row = {"case": case, "by": peer}
    if not python.exists():
        return row | {"absent": "not installed; make peers"}
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONPATH")}
    program = [python, ROOT / "benchmarks" / "peers" / command[0], *command[1:]]
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    if done.returncode:
        return row | {"absent": done.stderr.strip().splitlines()[-1]}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = next(v for k, v in found.items() if k.startswith("seconds_per"))
    kept = {k: found[k] for k in ("cpu_seconds", "compile_s", "accuracy", "versions")}
    return row | {"seconds": seconds, "times_longer": seconds / ours} | kept


def run_case(case):
    """Ours and the peers'."""
    ours, peers = CASES[case]
    times, scale, accuracy = ours()
    seconds = times["median_s"] * scale
    times = {"seconds": seconds, "least_seconds": times["min_s"] * scale, "compile_s": times["compile_s"]}
    record("simulators", [{"case": case, "by": "jneuro", **times, "accuracy": accuracy}])
    record("simulators", [peer_row(case, peer, command, seconds) for peer, command in peers.items()])


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        run_case(name)
