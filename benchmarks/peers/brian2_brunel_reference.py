"""Reference of both Brunel networks: Brian2, runtime target."""

import json
import time

import numpy as np
from brian2 import ms, prefs, seed
from brian2_brunel import ORIGINAL, REPORT, network
from result import save
from spiking import statistics

__all__ = []

SEEDS, REPORT_MS = 20, 5_800.0
# Panels of Fig. 8: g, background in units of threshold, duration [ms], runs.
PANELS = {"A": (3, 2, 500, 1), "B": (6, 4, 1000, 2), "C": (5, 2, 1200, 2), "D": (4.5, 0.9, 1600, 2)}


def small():
    """20 neurons whose connections, background and potentials are data: spikes can be compared one by one."""
    p = REPORT | {"n_e": 16, "n_i": 4, "j": 1.0, "g": 4.0, "noise": 0.0}
    rng = np.random.default_rng(7)
    pre, post = np.nonzero(rng.random((20, 20)) < 0.3)
    counts = rng.binomial(p["sources"], p["rate"] * 1e-4, (2000, 20))
    v0 = p["v0"] + 5 * rng.standard_normal(20)
    net, spikes, voltage = network(p, edges=(pre, post), counts=counts, v0=v0, record_v=0.1)
    voltage.when = "end"
    net.run(200 * ms)
    return {
        "small_pre": pre, "small_post": post, "small_counts": counts.astype(np.uint8), "small_v0": v0,
        "small_spike_step": np.round(spikes.t / ms / 0.1).astype(np.int32), "small_spike_id": np.array(spikes.i),
        "small_v": np.array(voltage.v).T[9::10], "small_parameters": json.dumps(p),
    }  # fmt: skip


def report(duration=REPORT_MS):
    """Twenty networks of the forecasting report, in one group."""
    seed(1)
    net, spikes, voltage = network(REPORT, SEEDS, seed=1, record_v=1.0)
    net.run(duration * ms)
    times, ids, v = np.array(spikes.t / ms), np.array(spikes.i), np.array(voltage.v)
    copy = np.where(ids < 80 * SEEDS, ids // 80, (ids - 80 * SEEDS) // 20)
    local = np.where(ids < 80 * SEEDS, ids % 80, 80 + (ids - 80 * SEEDS) % 20)
    rows = []
    for k in range(SEEDS):
        own = np.concatenate([v[k * 80 : (k + 1) * 80], v[80 * SEEDS + k * 20 : 80 * SEEDS + (k + 1) * 20]])
        row = statistics(times[copy == k], local[copy == k], 80, 100, 800, duration)
        rows.append(row | {"v_mean": own[:, 800:].mean(), "v_sd": own[:, 800:].std()})
        rows[-1] |= {"v_min": own[:, 800:].min(), "v_max": own[:, 800:].max()}
    return {f"report_{name}": np.array([row[name] for row in rows]) for name in rows[0]}


def original():
    """The four panels at full size; the first 200 ms are dropped."""
    found = {}
    for panel, (g, eta, duration, runs) in PANELS.items():
        rows = []
        for run in range(runs):
            began = time.perf_counter()
            seed(100 + run)
            net, spikes, _ = network(ORIGINAL | {"g": g, "rate": 10.0 * eta}, seed=100 + run)
            net.run(duration * ms)
            rows.append(statistics(spikes.t / ms, spikes.i, 10_000, 12_500, 200, duration))
            print(panel, run, rows[-1], f"{time.perf_counter() - began:.0f} s", flush=True)
        found |= {f"original_{panel}_{name}": np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def main():
    """Everything into one file."""
    prefs.codegen.target = "cython"
    settings = {
        "dt": 0.1, "method": "forward Euler", "order": "integrate, v > threshold, deliver, reset", "report": REPORT,
        "original": ORIGINAL, "panels": PANELS, "report_ms": [800, REPORT_MS], "original_from_ms": 200, "seeds": SEEDS,
        "small_v": "after steps 9, 19, …",
    }  # fmt: skip
    save(settings, ["brian2"], **small(), **report(), **original())


if __name__ == "__main__":
    main()
