"""Reference of the ring: Brian2, runtime target."""

import json

import numpy as np
from brian2 import StateMonitor, ms, prefs, seed
from brian2_ring import VARIANTS, network, ring_edges
from result import save
from spiking import statistics

__all__ = []

SEEDS, DURATION, DROPPED = 10, 2200.0, 200.0
UNCOUPLED = {"w_ee": 0.0, "w_ei": 0.0, "w_ie": 0.0, "w_ii": 0.0}
CASES = {
    "delta": ("delta", {}),
    "delta_uncoupled": ("delta", UNCOUPLED),
    "delta_shared": ("delta", {"share": 0.5}),
    "current": ("current", {}),
    "current_uncoupled": ("current", UNCOUPLED),
    "conductance": ("conductance", {}),
    "conductance_uncoupled": ("conductance", {"kick": 0.02} | UNCOUPLED),
    "conductance_weak": ("conductance", {"kick": 0.02, "w_ee": 0.002, "w_ei": 0.002, "w_ie": 0.002, "w_ii": 0.002}),
}
SMALL = {"n": 10, "scale": 2, "w_ee": 0.08, "w_ei": 0.065, "w_ie": 0.09, "w_ii": 0.05, "kick": 0.1}


def small(variant):
    """20 neurons whose connections, background and potentials are data: spikes can be compared one by one."""
    p = VARIANTS[variant] | SMALL
    if variant == "conductance":
        p |= {name: p[name] / 4 for name in ("w_ee", "w_ei", "w_ie", "w_ii", "kick")}
    rng = np.random.default_rng(11)
    counts, v0 = rng.poisson(p["rate"] * 0.1, (2000, 20)), rng.random(20)
    edges = ring_edges(p["n"], p["scale"])
    net, group, spikes = network(variant, p, 2000, edges=edges, counts=counts, v0=v0)
    voltage = StateMonitor(group, "v", record=True, when="end")
    net.add(voltage)
    net.run(200 * ms)
    found = {
        "spike_step": np.round(spikes.t / ms / 0.1).astype(np.int32), "spike_id": np.array(spikes.i),
        "v": np.array(voltage.v).T[9::10], "parameters": json.dumps(p),
    }  # fmt: skip
    shared = {"small_counts": counts.astype(np.uint8), "small_v0": v0, "small_pre": edges[0], "small_post": edges[1]}
    return shared | {f"small_{variant}_{name}": value for name, value in found.items()}


def main():
    """Everything into one file."""
    prefs.codegen.target = "cython"
    found = {}
    for variant in VARIANTS:
        found |= small(variant)
    for case, (variant, changes) in CASES.items():
        rows = []
        for run in range(SEEDS):
            seed(run)
            net, _, spikes = network(variant, VARIANTS[variant] | changes, round(DURATION / 0.1), seed=run)
            net.run(DURATION * ms)
            rows.append(statistics(spikes.t / ms, spikes.i, 300, 600, DROPPED, DURATION))
        print(case, {k: float(np.mean([r[k] for r in rows]).round(3)) for k in rows[0]}, flush=True)
        found |= {f"{case}_{name}": np.array([row[name] for row in rows]) for name in rows[0] if name != "peak"}
        found[f"{case}_parameters"] = json.dumps(VARIANTS[variant] | changes)
    settings = {
        "dt": 0.1, "method": "forward Euler", "seeds": SEEDS, "from_ms": DROPPED, "to_ms": DURATION,
        "order": "integrate, deliver the last step's spikes and the background, v >= 1, reset",
        "weights": "w_ab: to a, from b", "synchrony": "variance over mean of the population count in 5 ms bins",
        "small_v": "after steps 9, 19, …",
    }  # fmt: skip
    save(settings, ["brian2"], **found)


if __name__ == "__main__":
    main()
