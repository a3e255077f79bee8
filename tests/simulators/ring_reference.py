"""The ring in plain NumPy, written from the equations: neighbours by their distance, clocks by the last spike."""

import numpy as np

from jneuro.simulators import parameters


def neighbours(positions, sparsity):
    """Who hears whom, `[pre, post]`, excitatory neurons first; pair by pair from the rule."""
    heard = np.zeros((2 * positions, 2 * positions), bool)
    for pre in range(2 * positions):
        for post in range(2 * positions):
            apart = (pre - post) % positions
            apart = min(apart, positions - apart)
            heard[pre, post] = pre != post and apart <= (positions // sparsity) / 2
    return heard


def simulate_ring(p, heard, v, external, drive=0.0):
    """Integrate, test the threshold, reset; what spikes and events add arrives a step later.

    Args:
        p: constants by name, `synapse` among them; `refractory` in steps.
        heard: from each neuron to each neuron.
        v: initial potentials.
        external: events, `[step, neuron]`.
        drive: the mean drive, `[step, neuron]`, or one number.

    Returns:
        Potentials, spikes, excitatory and inhibitory input, `[step, neuron]`.
    """
    steps, neurons = external.shape
    drive = np.broadcast_to(drive, external.shape)
    excitatory = np.arange(neurons) < neurons // 2
    v, last_spike = v.copy(), np.full(neurons, -(10**9))
    currents = {"external": np.zeros(neurons), "e": np.zeros(neurons), "i": np.zeros(neurons)}
    spikers, seen = [], []
    for k in range(steps):
        added = {"external": p["kick"] * external[k], "e": np.zeros(neurons), "i": np.zeros(neurons)}
        for source in spikers:
            kind = "e" if excitatory[source] else "i"
            weight = np.where(excitatory, p["j_e" + kind], p["j_i" + kind])
            added[kind] = added[kind] + weight * heard[source]
        change = p["dt"] * (drive[k] - v) / p["tau_m"]
        if p["synapse"] == "delta":
            change = change + added["external"] + added["e"] - added["i"]
            shown = {name: jump / p["dt"] for name, jump in added.items()}
        else:
            if p["synapse"] == "current":
                change = change + p["dt"] * (currents["external"] + currents["e"] - currents["i"])
            else:
                change = change - p["dt"] * (currents["external"] + currents["e"]) * (v - p["v_e"])
                change = change - p["dt"] * currents["i"] * (v - p["v_i"])
            for name, jump in added.items():
                tau = p["tau_" + name]
                currents[name] = (currents[name] + jump / tau) * np.exp(-p["dt"] / tau)
            shown = currents
        awake = k - last_spike >= p["refractory"]
        v[awake] += change[awake]
        fired = awake & (v >= p["v_threshold"])
        v[fired] = p["v_reset"]
        last_spike[fired] = k
        spikers = np.flatnonzero(fired)
        seen.append((v.copy(), fired, shown["external"] + shown["e"], shown["i"]))
    return tuple(np.array(x) for x in zip(*seen, strict=True))


def constants(simulator):
    """The constants of a simulator, as `simulate_ring` takes them."""
    found = {n: float(p.default) for n, p in parameters(simulator).items() if not p.static}
    found["dt"] = simulator.dt
    return found | {"synapse": simulator.synapse, "refractory": round(simulator.refractory / simulator.dt)}


def passage_statistics(p, rate, bins=4000, steps=12_000):
    """Rate [Hz] and CV of one uncoupled neuron, from the density of its potential instead of from paths.

    From reset on, the density moves by the step's map and loses what crosses the threshold; what is left after k steps
    is the chance that the interval is longer.

    Args:
        p: constants by name.
        rate: of the external events [Hz].
        bins: of the potential, between 0 and the threshold.
        steps: in which all but a negligible part crosses.

    Returns:
        Both.
    """
    mean = rate * p["dt"] * 1e-3
    grid = np.linspace(0, p["v_threshold"], bins + 1)
    counts = np.arange(8)
    chance = np.exp(-mean) * np.cumprod(np.concatenate([[1.0], mean / counts[1:]]))
    moves = []
    for n, weight in zip(counts, chance, strict=True):
        to = ((1 - p["dt"] / p["tau_m"]) * grid + n * p["kick"]) / grid[1]
        low = np.floor(to).astype(int)
        stays = to < bins - 1e-9
        moves.append((low[stays], (to - low)[stays], stays, weight))
    density, survival = np.zeros(bins + 1), []
    density[0] = 1.0
    for _ in range(steps):
        survival.append(density.sum())
        new = np.zeros(bins + 2)
        for low, part, stays, weight in moves:
            new += weight * np.bincount(low, (1 - part) * density[stays], bins + 2)
            new += weight * np.bincount(low + 1, part * density[stays], bins + 2)
        density = new[: bins + 1]
        density[bins] = 0.0
    assert survival[-1] < 1e-4
    k = np.arange(steps)
    first, second = np.sum(survival), np.sum((2 * k + 1) * survival)
    interval = first + max(p["refractory"] - 1, 0)
    return 1e3 / (interval * p["dt"]), np.sqrt(second - first**2) / interval
