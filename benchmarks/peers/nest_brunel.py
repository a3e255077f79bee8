"""Brunel's original network in NEST, one thread. Run as a program, it is timed.

NEST's `iaf_psc_delta` integrates exactly rather than by Euler, tests V >= threshold after delivery, and discards what
arrives in the refractory period. The background is Poisson, drawn for each neuron.
"""

import sys
import time

import nest
import numpy as np
from result import report, rounds
from spiking import statistics

__all__ = ["simulate"]


def simulate(g, eta, duration, seed, rule="pairwise_bernoulli", warm_up=200.0, alone=1):
    """Simulate, in as many rounds as are asked for.

    Args:
        g: relative inhibition.
        eta: background in units of threshold.
        duration: warm-up and one round [ms].
        seed: of everything random.
        rule: of the connections.
        warm_up: before the first round [ms].
        alone: rounds, where nobody says when.

    Returns:
        Spike times and senders, seconds to build, and the least seconds (wall, CPU) per biological second of a round.
    """
    nest.ResetKernel()
    nest.set_verbosity("M_ERROR")
    nest.SetKernelStatus({"resolution": 0.1, "local_num_threads": 1, "rng_seed": seed})
    began = time.perf_counter()
    neuron = {"C_m": 1.0, "tau_m": 20.0, "t_ref": 2.0, "E_L": 0.0, "V_reset": 10.0, "V_th": 20.0}
    neurons = nest.Create("iaf_psc_delta", 12_500, params=neuron)
    neurons.V_m = 10 + 3 * np.random.default_rng(seed).standard_normal(12_500)
    background = nest.Create("poisson_generator", params={"rate": 1000 * 10.0 * eta})
    recorder = nest.Create("spike_recorder")
    nest.Connect(background, neurons, syn_spec={"weight": 0.1, "delay": 1.5})
    for first, last, weight, degree in ((0, 10_000, 0.1, 1000), (10_000, 12_500, -g * 0.1, 250)):
        how = {"rule": rule, "p": 0.1} if rule == "pairwise_bernoulli" else {"rule": rule, "indegree": degree}
        nest.Connect(neurons[first:last], neurons, how, {"weight": weight, "delay": 1.5})
    nest.Connect(neurons, recorder)
    nest.Simulate(warm_up)
    built = time.perf_counter() - began
    biological, cpu = (duration - warm_up) * 1e-3, []

    def once():
        began, used = time.perf_counter(), time.process_time()
        nest.Simulate(duration - warm_up)
        cpu.append((time.process_time() - used) / biological)
        return time.perf_counter() - began

    seconds = [min(rounds(once, 1 / biological, alone)) / biological, min(cpu)]
    return recorder.events["times"], recorder.events["senders"] - 1, built, seconds


def main(duration=600.0):
    """Panel C."""
    times, ids, built, seconds = simulate(5.0, 2.0, duration, 1, alone=3)
    report(
        "nest",
        "brunel_12500",
        ["nest-simulator"],
        seconds_per_biological_second=seconds[0],
        cpu_seconds=seconds[1],
        compile_s=0.0,
        measured={"duration_ms": duration, "from_ms": 200, "build_and_warm_up_s": built},
        accuracy=statistics(times, ids, 10_000, 12_500, 200, duration),
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
