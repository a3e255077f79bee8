"""The network in plain NumPy, written from the equations: one neuron's clock at a time, no blocks, no rings."""

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx


def simulate_reference(p, adjacency, v, background, drive=0.0):
    """Brian2's order within a step: integrate, test, deliver, reset.

    Args:
        p: constants by name; times in steps, except `dt` and `tau_m`.
        adjacency: from each neuron to each neuron.
        v: initial potentials.
        background: what arrives from outside, `[step, neuron]`.
        drive: the mean drive, `[step, neuron]`, or one number.

    Returns:
        Potentials and spikes, `[step, neuron]`.
    """
    steps, neurons = background.shape
    drive = np.broadcast_to(drive, background.shape)
    last_spike = np.full(neurons, -(10**9))
    due = np.zeros((steps + p["delay"] + 1, neurons))
    v, vs, rasters = v.copy(), [], []
    for k in range(steps):
        awake = k - last_spike >= p["refractory"]
        v[awake] += p["dt"] / p["tau_m"] * (p["v_rest"] - v[awake] + drive[k, awake])
        fired = awake & (v > p["v_threshold"])
        last_spike[fired] = k
        v[awake] += (due[k] + background[k])[awake]
        for source in np.flatnonzero(fired):
            weight = p["j"] if source < p["n_excitatory"] else -p["g"] * p["j"]
            due[k + p["delay"]] += weight * adjacency[source]
        v[fired] = p["v_reset"]
        vs.append(v.copy())
        rasters.append(fired)
    return np.array(vs), np.array(rasters)


def constants(simulator):
    """The constants of a simulator, as `simulate_reference` takes them."""
    names = ("tau_m", "v_rest", "v_reset", "v_threshold", "j", "g", "n_excitatory", "dt")
    found = {n: float(getattr(simulator, n)) for n in names}
    return found | {n: round(getattr(simulator, n) / simulator.dt) for n in ("delay", "refractory")}


def mean_field_rate(p, inputs, external_rate):
    """The rate [Hz] at which a homogeneous network of white-noise-driven neurons is self-consistent.

    Args:
        p: `tau_m`, `v_threshold`, `v_reset`, `refractory` [ms, mV], `j`, `g`, `j_external`.
        inputs: excitatory and inhibitory synapses of a neuron.
        external_rate: summed rate of a neuron's background sources [Hz].

    References:
        Brunel N., J. Comput. Neurosci. 8 (2000) 183, Equations 21 and 22.
    """
    tau, (excitatory, inhibitory) = p["tau_m"] * 1e-3, inputs

    def surplus(rate):
        j, gj, je = p["j"], p["g"] * p["j"], p["j_external"]
        mean = tau * (rate * (j * excitatory - gj * inhibitory) + external_rate * je)
        sd = np.sqrt(tau * (rate * (j**2 * excitatory + gj**2 * inhibitory) + external_rate * je**2))
        low, high = (p["v_reset"] - mean) / sd, (p["v_threshold"] - mean) / sd
        passage = np.sqrt(np.pi) * tau * quad(lambda u: erfcx(-u), low, high)[0]
        return 1 / (p["refractory"] * 1e-3 + passage) - rate

    return brentq(surplus, 0.1, 450.0)


def spiking_statistics(raster, dt):
    """Mean rate [Hz] and mean CV of the interspike intervals, of a raster `[trial, step, cell]`."""
    cvs = []
    for trial in raster:
        for train in trial.T:
            intervals = np.diff(np.flatnonzero(train))
            if len(intervals) >= 5:
                cvs.append(intervals.std() / intervals.mean())
    return raster.mean() / dt * 1e3, np.mean(cvs)
