"""The derivative of a whole network, by hand: every quantity carries its tangents through the equations."""

import numpy as np


def super_spike(x):
    return 0.02 / (1 + 0.7 * np.abs(x)) ** 2


def arctan(x):
    return 0.05 * 0.4 / (1 + (np.pi * 0.8 * x / 2) ** 2)


def boxcar(x):
    return 0.03 / 6.0 * (np.abs(x) < 3.0)


PARAMETERS = ("g", "j", "tau_m", "v_threshold", "v_rest", "v_reset", "amplitude")


def network_tangents(p, adjacency, v, background, shape, slope, detach_reset):
    """Run the network, with the tangents with respect to `PARAMETERS`.

    Args:
        p: constants by name; `delay` and `refractory` in steps.
        adjacency: from each neuron to each neuron.
        v: initial potentials.
        background: what arrives from outside, `[step, neuron]`.
        shape: the drive at amplitude 1, `[step, neuron]`.
        slope: the surrogate's derivative.
        detach_reset: whether the reset's tangent ignores the spike's.

    Returns:
        Mean potential and mean of the spikes over steps and neurons, and the tangents of both.
    """
    steps, n = background.shape
    wrt = {name: np.eye(len(PARAMETERS))[i][:, None] for i, name in enumerate(PARAMETERS)}
    excitatory = (np.arange(n) < p["n_excitatory"])[:, None]
    weights = np.where(excitatory, p["j"], -p["g"] * p["j"]) * adjacency
    d_weights = {
        "j": np.where(excitatory, 1.0, -p["g"]) * adjacency,
        "g": np.where(excitatory, 0.0, -p["j"]) * adjacency,
    }
    d_weights = np.array([d_weights.get(name, 0 * adjacency) for name in PARAMETERS])
    dv, frozen = np.zeros((len(PARAMETERS), n)), np.zeros(n, int)
    due, d_due = np.zeros((steps + p["delay"], n)), np.zeros((steps + p["delay"], len(PARAMETERS), n))
    sums = [np.zeros(()), np.zeros(()), np.zeros(len(PARAMETERS)), np.zeros(len(PARAMETERS))]
    for k in range(steps):
        awake, rate = frozen == 0, p["dt"] / p["tau_m"]
        pull = p["v_rest"] + p["amplitude"] * shape[k] - v
        x = v + rate * pull
        d_pull = wrt["v_rest"] + wrt["amplitude"] * shape[k] - dv
        dx = dv + rate * d_pull - wrt["tau_m"] * rate / p["tau_m"] * pull
        fired = awake & (x > p["v_threshold"])
        d_spike = np.where(awake, slope(x - p["v_threshold"]) * (dx - wrt["v_threshold"]), 0.0)
        v = np.where(awake, x + due[k] + background[k], v)
        dv = np.where(awake, dx + d_due[k], dv)
        jump = p["v_reset"] - v
        dv = np.where(fired, wrt["v_reset"], dv) + (0.0 if detach_reset else d_spike * jump)
        v = np.where(fired, p["v_reset"], v)
        due[k + p["delay"]] += fired @ weights
        d_due[k + p["delay"]] += d_spike @ weights + np.einsum("i,pij->pj", fired.astype(float), d_weights)
        frozen = np.where(fired, p["refractory"] - 1, np.maximum(frozen - 1, 0))
        for total, new in zip(sums, (v.mean(), fired.mean(), dv.mean(1), d_spike.mean(1)), strict=True):
            total += new / steps
    return sums
