"""Brian2's best, timed: C++ standalone, one thread, compilation apart.

`python brian2_timing.py CASE`; the loop's own time counts, without the building of synapses and the writing of results.
"""

import atexit
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from brian2 import device, ms, prefs, seed, set_device
from result import report, rounds
from spiking import compare, crossings, statistics

__all__ = []

REFERENCE = Path(__file__).parents[2] / "tests/reference/ca1.npz"


def timed(net, duration, scale):
    """Compile, and run in rounds; seconds of the median's loop, whole program and processor, and of the compiler."""
    net.run(duration * ms)
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    began = time.perf_counter()
    device.build(directory=directory, compile=True, run=False, with_output=False)
    compile_s = time.perf_counter() - began
    runs = []

    def once():
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        device.run(with_output=False)
        whole, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        runs.append({"loop": device._last_run_time, "program": whole, "program_cpu": cpu})
        return runs[-1]["loop"]

    rounds(once, scale)
    median = sorted(runs, key=lambda run: run["loop"])[len(runs) // 2]
    return median | {"loops": [run["loop"] for run in runs]}, compile_s


def brunel_100(duration=10_000.0, copies=50):
    """Fifty networks in one; voltages every 1 ms, and spikes."""
    from brian2_brunel import REPORT, network

    net, spikes, _ = network(REPORT, copies, seed=1, record_v=1.0)
    scale = 10_000 / duration * 50 / copies
    seconds, compile_s = timed(net, duration, scale)
    found = statistics(spikes.t / ms, spikes.i, 80 * copies, 100 * copies, 800, duration)
    rates = {name: float(found[name]) for name in ("rate", "rate_e", "rate_i", "cv")}
    return "seconds_per_50_networks_and_10_s", scale, seconds, compile_s, rates, duration


def brunel_12500(duration=1000.0):
    """Panel C at full size."""
    from brian2_brunel import ORIGINAL, network

    net, spikes, _ = network(ORIGINAL, seed=1)
    seconds, compile_s = timed(net, duration, 1000 / duration)
    found = statistics(spikes.t / ms, spikes.i, 10_000, 12_500, 200, duration)
    return "seconds_per_biological_second", 1000 / duration, seconds, compile_s, found, duration


def izhikevich(size, duration):
    """The reservoir with delays and plasticity; 100 synapses a neuron."""
    from brian2_izhikevich import edges, network

    rng, n_e = np.random.default_rng(1), size * 4 // 5
    drawn = edges(rng, n_e, size - n_e, 100 / size, 100 / n_e)
    # One neuron of a thousand a step; drawing one from each thousand keeps them apart.
    thalamic = rng.integers(0, 1000, (duration, size // 1000)) + 1000 * np.arange(size // 1000)
    net, spikes, learning = network(drawn, thalamic, True, True, n_e, size - n_e)
    seconds, compile_s = timed(net, duration, 1000 / duration)
    found = statistics(spikes.t / ms, spikes.i, n_e, size, 1000, duration) | {"w_mean": float(np.mean(learning.w))}
    return "seconds_per_biological_second", 1000 / duration, seconds, compile_s, found, duration


def ca1(dtype, duration=100.0, cells=2000):
    """RK4 at 0.02 ms; the first currents are those of the reference."""
    from brian2_ca1 import network

    prefs.core.default_float_dtype = dtype
    reference = np.load(REFERENCE)
    known = reference["trace_current"]
    currents = np.linspace(0, 3, cells)
    currents[: len(known)] = known
    net, voltage = network(currents)
    scale = 1000 / duration * 2000 / cells
    seconds, compile_s = timed(net, duration, scale)
    times, v = np.array(voltage.t / ms, float), np.array(voltage.V[: len(known)], float)
    exact = [crossings(0.1 * np.arange(len(row)), row) for row in reference["trace"][:, :, 0].astype(float)]
    found = compare([crossings(times, row) for row in v], exact, 50.0)
    return "seconds_per_2000_cells_and_second", scale, seconds, compile_s, found, duration


CASES = {
    "brunel_100": brunel_100,
    "brunel_12500": brunel_12500,
    "izhikevich_1000": lambda: izhikevich(1000, 20_000),
    "izhikevich_10000": lambda: izhikevich(10_000, 5_000),
    "ca1_float32": lambda: ca1(np.float32),
    "ca1_float64": lambda: ca1(np.float64),
}


def main(case):
    """Build, run, report."""
    set_device("cpp_standalone", build_on_run=False)
    prefs.devices.cpp_standalone.openmp_threads = 0
    seed(1)
    name, scale, seconds, compile_s, accuracy, duration = CASES[case]()
    values = {name: seconds["loop"] * scale, "cpu_seconds": seconds["program_cpu"] * scale, "compile_s": compile_s}
    report("brian2", case, ["brian2"], **values, measured=seconds | {"duration_ms": duration}, accuracy=accuracy)


if __name__ == "__main__":
    main(sys.argv[1])
