"""A plain float64 simulation of the reservoir: every synapse carries its traces, every spike its own delay."""

import numpy as np

from jneuro.simulators.paths import parameters


def constants(sim):
    """The declared parameters as numbers."""
    return {name: p.default if isinstance(p.default, int) else float(p.default) for name, p in parameters(sim).items()}


def simulate_reference(p, synapses, chosen, drive=None, plastic=True):
    """Run step by step.

    Args:
        p: the parameters, by name.
        synapses: pre, post, delay [ms] and plastic of each.
        chosen: neurons that receive the thalamic input, for each step.
        drive: a current for each step and neuron, or None.
        plastic: whether the weights change.

    Returns:
        v, u, spikes `[step, neuron]`, and weights and changes `[update, synapse]` after every update.
    """
    pre, post, delay, learns = (np.asarray(x) for x in synapses)
    n_exc, n = p["n_excitatory"], p["n_excitatory"] + p["n_inhibitory"]
    lag = np.rint(delay / p["dt"]).astype(int)
    a, b, c, d = (
        np.where(np.arange(n) < n_exc, p[f"{x}_excitatory"], p[f"{x}_inhibitory"]).astype(np.float64) for x in "abcd"
    )
    leak = np.exp(-p["dt"] / p["tau_stdp"])
    interval = round(p["update_interval"] / p["dt"])

    v, u = np.full(n, p["v_initial"]), np.full(n, p["u_initial"])
    w = np.where(learns, p["weight_initial"], p["weight_inhibitory"]).astype(np.float64)
    change, since_arrival, since_spike = np.zeros(pre.size), np.zeros(pre.size), np.zeros(n)
    out, onto = ([np.flatnonzero(x == i) for i in range(n)] for x in (pre, post))
    due = {}
    seen = [], [], []
    updates = [], []
    for t in range(len(chosen)):
        current = np.zeros(n) if drive is None else np.array(drive[t], np.float64)
        for s in due.pop(t, ()):
            current[post[s]] += w[s]
            since_arrival[s] = 1.0
            change[s] -= p["depression"] * since_spike[post[s]]
        np.add.at(current, chosen[t], p["thalamic_amplitude"])
        for _ in range(2):
            v = v + 0.5 * p["dt"] * (0.04 * v * v + 5 * v + 140 - u + current)
        u = u + p["dt"] * a * (b * v - u)
        since_arrival *= leak
        since_spike *= leak
        spikes = v >= p["v_peak"]
        for i in np.flatnonzero(spikes):
            change[onto[i]] += p["potentiation"] * since_arrival[onto[i]]
            for s in out[i]:
                due.setdefault(t + 1 + lag[s], []).append(s)
            v[i], u[i] = c[i], u[i] + d[i]
        since_spike[spikes] = 1.0
        for record, value in zip(seen, (v, u, spikes), strict=True):
            record.append(value.copy())
        if plastic and (t + 1) % interval == 0:
            w[learns] = np.clip(w + p["weight_drift"] + change, 0, p["weight_max"])[learns]
            change *= p["change_decay"]
            updates[0].append(w.copy())
            updates[1].append(change.copy())
    return *(np.array(x) for x in seen), *(np.array(x) for x in updates)
