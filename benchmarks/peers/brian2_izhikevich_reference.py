"""Reference of Izhikevich's neurons and of the reservoir: Brian2, runtime target."""

import numpy as np
from brian2 import Network, SpikeMonitor, ms, prefs
from brian2_izhikevich import PATTERNS, SCHEDULE, edges, network, neurons
from result import save
from spiking import statistics

__all__ = []

CURRENTS = (4.0, 10.0)
RESTING = {"duration": 20_000, "seeds": 5}
LEARNING = {"duration": 120_000, "seeds": 3}


def single():
    """Spike steps of seven patterns at two currents, on from step 100 to the end at 1000."""
    group, step = neurons(list(PATTERNS.values()) * len(CURRENTS))
    spikes = SpikeMonitor(group)
    net = Network(group, step, spikes)
    net.schedule = SCHEDULE
    net.run(100 * ms)
    group.current = np.repeat(CURRENTS, len(PATTERNS))
    net.run(900 * ms)
    return {
        "pattern_name": list(PATTERNS), "pattern_parameters": list(PATTERNS.values()), "pattern_current": CURRENTS,
        "pattern_spike_step": np.round(spikes.t / ms).astype(np.int32),
        "pattern_spike_run": np.array(spikes.i) // len(PATTERNS),
        "pattern_spike_id": np.array(spikes.i) % len(PATTERNS),
    }  # fmt: skip


def small(late):
    """20 neurons for 3000 ms, given connections, delays and background: spikes, w and dw can be compared."""
    rng = np.random.default_rng(3)
    drawn = (pre, post), delay, (pre_i, post_i) = edges(rng, 16, 4, 0.3, 0.3)
    thalamic = rng.integers(0, 20, (3000, 1))
    net, spikes, learning = network(drawn, thalamic, True, late, 16, 4)
    found = {"small_w": [], "small_dw": []}
    for _ in range(3):
        net.run(1000 * ms)
        found["small_w"].append(np.array(learning.w))
        found["small_dw"].append(np.array(learning.dw))
    return found | {
        "small_pre": pre, "small_post": post, "small_delay": delay, "small_pre_i": pre_i + 16, "small_post_i": post_i,
        "small_thalamic": thalamic[:, 0].astype(np.uint8), "small_spike_step": np.round(spikes.t / ms).astype(np.int32),
        "small_spike_id": np.array(spikes.i),
    }  # fmt: skip


def reservoir(plastic, late, duration, seeds):
    """Statistics of every seed, its rates through time, and the weights it ends with."""
    rows, rates, weights = [], [], []
    for run in range(seeds):
        rng = np.random.default_rng(50 + run)
        net, spikes, learning = network(edges(rng), rng.integers(0, 1000, (duration, 1)), plastic, late)
        net.run(duration * ms)
        times, ids = np.array(spikes.t / ms), np.array(spikes.i)
        rows.append(statistics(times, ids, 800, 1000, duration / 2 if plastic else 1000, duration))
        bins = np.arange(0, duration + 1, 5000 if plastic else 1000)
        counts = [np.histogram(times[(ids < 800) == kind], bins)[0] for kind in (True, False)]
        rates.append(counts / np.diff(bins) / [[0.8], [0.2]])
        final = np.array(learning.w)
        weights.append([final.mean(), final.std(), np.mean(final > 9.5), np.mean(final < 0.5)])
        print(plastic, late, run, rows[-1], weights[-1], flush=True)
    name = ("plastic" if plastic else "fixed") + "_late" * late
    found = {f"{name}_{key}": np.array([row[key] for row in rows]) for key in rows[0] if key != "peak"}
    return found | {f"{name}_rates": np.array(rates), f"{name}_weights": np.array(weights)}


def main():
    """Everything into one file."""
    prefs.codegen.target = "cython"
    settings = {
        "dt": 1.0, "scheme": "two half steps of v, then u", "fixed": RESTING, "plastic": LEARNING,
        "rates": "[seed, (E, I), bin] Hz; bins of 1 s (fixed) and 5 s (plastic)",
        "weights": "[seed, (mean, SD, share above 9.5, share below 0.5)] at the end",
        "statistics": "from 1 s (fixed), over the second half (plastic)", "v0": -65, "u0": "b v0",
        "late": "a spike of step t arrives in t + D + 1", "thalamic": "the neuron that receives 20",
        "small_w": "after 1, 2, 3 s, before the update",
    }  # fmt: skip
    found = single()
    for late in (False, True):
        found |= {name.replace("small", "small_late" if late else "small"): x for name, x in small(late).items()}
        found |= reservoir(False, late, **RESTING) | reservoir(True, late, **LEARNING)
    save(settings, ["brian2"], **found)


if __name__ == "__main__":
    main()
