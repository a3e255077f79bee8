"""Time the simulators beside the tools that they replace: `python benchmarks/simulators.py [CASE ...]`.

Ours and its peers (`make peers`) take turns on the same single core, compilation apart. A row states seconds in the
unit of its case, the accuracy beside it, and, for a peer, how many times longer it took (`ratio`). A peer that is not
installed, or fails, is reported as absent. On a GPU there are no peers: all of them compute on the CPU.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from harness import Call, Peer, arguments, compiled, reason, record, take_turns, timed
from machine import ROOT

from jneuro.core.random import trial_keys
from jneuro.simulators import (
    Brunel,
    CA1Pyramidal,
    HodgkinHuxley,
    IzhikevichReservoir,
    TimeParallel,
    simulate,
    stimuli,
)
from jneuro.simulators.connectivity import Bernoulli
from jneuro.simulators.solvers import RK4

__all__ = ["crossings", "errors"]

REFERENCE = ROOT / "tests" / "reference"


class Measured(NamedTuple):
    """What a case computes.

    Attributes:
        function: pure, of arrays.
        arguments: its arguments.
        scale: from the seconds of one call to the unit of the case.
        check: from its result to what it says of accuracy.
    """

    function: Callable
    arguments: tuple[Any, ...]
    scale: float
    check: Callable[[Any], dict[str, Any]]


def brunel_100(runs=50, duration=10_000.0):
    """Fifty networks × 10 s: voltages every 1 ms, and spikes."""
    networks = jax.jit(jax.vmap(Brunel.forecasting_report().connect))(trial_keys(jax.random.key(0), runs))

    def batch(networks, keys):
        def one(network, key):
            return simulate(network, duration=duration, key=key, record_every=1.0, throw=False).values

        return jax.vmap(one)(networks, keys)

    def check(values):
        return {"rate": float(values["spikes"].sum(dtype="uint32")) / (runs * networks.neurons * duration * 1e-3)}

    scale = 50 / runs * 10_000 / duration
    return Measured(batch, (networks, trial_keys(jax.random.key(1), runs)), scale, check)


def brunel_12500(variation=0.0, duration=500.0):
    """Panel C at full size; spikes of the population."""
    make = jax.jit(lambda key: Brunel.original(5.0, 2.0, rule=Bernoulli(0.1), weight_variation=variation).connect(key))
    key = jax.random.key(0)
    network = make(key)
    start = simulate(network, duration=150.0, key=key, record=["spikes"], record_every=1.0).final_state

    def run(network, start):
        how = {"key": key, "record": ["spikes"], "record_every": 1.0, "initial_state": start, "throw": False}
        return simulate(network, duration=duration, **how).values["spikes"].sum(1, dtype="uint32")

    def check(counts):
        return {"rate": float(counts.sum()) / network.neurons / duration * 1e3}

    return Measured(run, (network, start), 1e3 / duration, check)


def izhikevich(size, duration):
    """The reservoir with delays and plasticity, 100 synapses a neuron."""
    key = jax.random.key(0)
    reservoir = IzhikevichReservoir.polychronization(
        n_excitatory=size * 4 // 5,
        n_inhibitory=size // 5,
        probability_excitatory=100 / size,
        probability_inhibitory=125 / size,
        thalamic_count=size // 1000,
    ).connect(key)

    def run(reservoir):
        how = {"key": key, "record": ["spikes"], "record_every": 1000.0, "throw": False}
        recording = simulate(reservoir, duration=duration, **how)
        return recording.values["spikes"].sum(1, dtype="uint32"), recording.final_state

    def check(result):
        counts, final = result
        weights = np.asarray(reservoir.weights(final))[np.asarray(reservoir.synapses().plastic)]
        return {"rate": float(counts[1:].sum()) / size / (duration - 1e3) * 1e3, "w_mean": float(weights.mean())}

    return Measured(run, (reservoir,), 1e3 / duration, check)


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
    current = np.linspace(0, 3, cells)
    current[: len(known)] = known

    def run(cell, stimulus):
        how = {"key": jax.random.key(0), "record": ["v"], "record_every": 0.1, "throw": False}
        return simulate(cell, stimulus, duration=duration, **how).values["v"]

    def check(v):
        v = np.asarray(v[:1000, : len(known)], float)
        return errors([crossings(x, 0.1) for x in v.T], exact, 50.0)

    given = CA1Pyramidal(), stimuli.Constant(current.astype(precision))
    return Measured(run, given, 1000 / duration * 2000 / cells, check)


def hodgkin_huxley(cells=2000, duration=1000.0):
    """Staggered Crank-Nicolson at 0.025 ms, voltages every 0.1 ms; spike times are checked under steps of current."""
    file, key = np.load(REFERENCE / "hodgkin_huxley.npz"), jax.random.key(0)

    def run(cell, stimulus):
        how = {"key": key, "record": ["v"], "record_every": 0.1, "throw": False}
        return simulate(cell, stimulus, duration=duration, **how).values["v"]

    def check(_):
        step = stimuli.Step(file["amplitude"].astype(np.float32), onset=17.8)
        start = HodgkinHuxley.State(-70.0, 0.05, 0.54, 0.34)
        v = simulate(HodgkinHuxley(), step, duration=127.9, key=key, record=["v"], initial_state=start).values["v"]
        ends = np.cumsum(file["spike_count"])[:-1]
        exact = np.split(file["spike_time"], ends)[: len(file["amplitude"])]
        return {"against": "LSODA"} | errors([crossings(x, 0.025) for x in np.asarray(v, float).T], exact, 127.0)

    given = HodgkinHuxley(), stimuli.Constant(jnp.linspace(0, 20, cells))
    return Measured(run, given, 1000 / duration * 2000 / cells, check)


CONDUCTANCES = ("g_l", "g_na", "g_nap", "g_kdr", "g_a", "g_m", "g_ca", "g_c", "g_sahp")


def ca1_gradient(cells=64, duration=100.0):
    """A squared error by nine shared conductances: forward alone, then its gradient by every mode; ratios to the first.

    In single precision, a gradient through 100 ms of bursting is chaotic: this is its cost, not its value.
    """
    cell, current = CA1Pyramidal(), stimuli.Constant(jnp.linspace(0, 3, cells))
    theta = {name: getattr(cell, name) for name in CONDUCTANCES}

    def loss(theta, solver=None):
        how = {"key": jax.random.key(0), "record": ["v"], "record_every": 0.1, "throw": False, "solver": solver}
        recording = simulate(dataclasses.replace(cell, **theta), current, duration=duration, **how)
        return jnp.mean(jnp.square(recording.values["v"] + 60))

    modes = {
        "forward": loss,
        "gradient, TimeParallel": jax.grad(lambda theta: loss(theta, TimeParallel(RK4()))),
        "gradient, reverse": jax.grad(loss),
        "gradient, jacfwd": jax.jacfwd(loss),
    }
    return {f"jneuro, {mode}": lambda f=function: Call(*compiled(f, theta)) for mode, function in modes.items()}


class Case(NamedTuple):
    """What is measured, beside whom.

    Attributes:
        make: makes ours, to be called where `dtype` may be used.
        peers: environment and program of each peer.
        bars: how many times longer a peer ought to take, at least.
        dtype: of the numbers.
    """

    make: Callable[[], Measured]
    peers: Mapping[str, list[str]] = MappingProxyType({})
    bars: Mapping[str, float] = MappingProxyType({})
    dtype: str = "float32"


def brian2(case):
    """How Brian2 runs a case."""
    return {"brian2": ["brian2_timing.py", case]}


CASES = {
    "brunel_100": Case(brunel_100, brian2("brunel_100"), {"brian2": 5}),
    "brunel_12500": Case(
        brunel_12500, brian2("brunel_12500") | {"nest": ["nest_brunel.py"]}, {"brian2": 4, "nest": 20}
    ),
    "brunel_12500 any weights": Case(
        lambda: brunel_12500(variation=0.5),
        brian2("brunel_12500") | {"nest": ["nest_brunel.py"]},
        {"brian2": 2, "nest": 8},
    ),
    "izhikevich_1000": Case(lambda: izhikevich(1000, 20_000.0), brian2("izhikevich_1000"), {"brian2": 1}),
    "izhikevich_10000": Case(lambda: izhikevich(10_000, 5000.0), brian2("izhikevich_10000"), {"brian2": 2}),
    "ca1_float32": Case(
        lambda: ca1(np.float32), brian2("ca1_float32") | {"scipy": ["scipy_ca1.py", "odeint"]}, {"brian2": 8}
    ),
    "ca1_float64": Case(lambda: ca1(np.float64), brian2("ca1_float64"), {"brian2": 4}, "float64"),
    "hodgkin_huxley": Case(
        hodgkin_huxley,
        {"jaxley": ["jaxley_hodgkin_huxley.py"], "neuron": ["neuron_hodgkin_huxley.py"]},
        {"jaxley": 2.5, "neuron": 15},
    ),
}
GRADIENTS = {"ca1_gradient": (64, 100.0), "ca1_gradient 2000 cells": (2000, 20.0)}
"""Cells and duration [ms]."""


def run_case(name: str, cores: int, seconds: float, quick: bool) -> None:
    """Ours and the peers', in turns."""
    case = CASES[name]
    common = {"case": name, "what": "simulate", "dtype": case.dtype, "cores": cores}
    with jax.enable_x64(case.dtype == "float64"):
        measured = case.make()
        peers: dict[str, Peer] = {}

        def ours():
            run, about = compiled(measured.function, *measured.arguments)
            result = run()
            about = {k: v * measured.scale if k in ("flop", "byte") else v for k, v in about.items()}
            about["accuracy"] = measured.check(result)
            return Call(lambda: timed(run) * measured.scale, about)

        def theirs(peer, command):
            peers[peer] = Peer(peer, command)
            return Call(peers[peer])

        sides = {"jneuro": ours}
        if jax.default_backend() == "cpu" and not quick:
            sides |= {peer: lambda p=peer, c=command: theirs(p, c) for peer, command in case.peers.items()}
        rows = take_turns(sides, seconds=seconds, rounds=3)
    for peer, process in peers.items():
        try:
            rows[peer] |= process.finish()
        except (RuntimeError, OSError) as error:
            rows[peer].setdefault("absent", reason(error))
    bars = {peer: {"bar": bar} for peer, bar in case.bars.items()}
    record("simulators", [common | {"by": by} | row | bars.get(by, {}) for by, row in rows.items()])


def run_gradient(name: str, cores: int, seconds: float) -> None:
    """The forward pass, and every mode of differentiation; the bar is that of the best."""
    rows = take_turns(ca1_gradient(*GRADIENTS[name]), seconds=seconds)
    common = {"case": name, "what": "gradient", "dtype": "float32", "cores": cores}
    ratios = {by: row["ratio"] for by, row in rows.items() if "ratio" in row}
    best = {min(ratios, key=ratios.__getitem__): {"at_most": 6.0}} if ratios else {}
    record("simulators", [common | {"by": by} | row | best.get(by, {}) for by, row in rows.items()])


if __name__ == "__main__":
    given = arguments(__doc__, (*CASES, *GRADIENTS))
    for chosen in given.cases:
        if chosen in CASES:
            run_case(chosen, given.cores, given.seconds, given.quick)
        else:
            run_gradient(chosen, given.cores, given.seconds)
