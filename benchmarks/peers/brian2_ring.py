"""The ring of 600 integrate-and-fire neurons in Brian2.

One step: integrate by forward Euler with the currents or conductances that the last step left; deliver that step's
spikes and the background; test v >= 1; reset to 0. A neuron that spiked in step k neither integrates nor is kicked
before step k + refractory / dt; its currents and conductances go on. A current or conductance
takes kick / tau and decays by exp(-dt / tau) at once, so that a weight is the area under one event.
"""

import numpy as np
from brian2 import Network, NeuronGroup, SpikeMonitor, Synapses, TimedArray, defaultclock
from brian2 import ms as MS

__all__ = ["DELTA", "VARIANTS", "network", "ring_edges"]

DELTA = {
    "n": 300, "scale": 10, "tau": 20.0, "refractory": 1.0, "rate": 0.55, "kick": 0.07, "share": 0.0,
    "w_ee": 0.016, "w_ei": 0.013, "w_ie": 0.018, "w_ii": 0.010,
}  # fmt: skip
VARIANTS = {
    "delta": DELTA,
    "current": DELTA | {"tau_e": 2.0, "tau_i": 5.0},
    "conductance": DELTA | {"tau_f": 1.0, "tau_e": 3.0, "tau_i": 2.0, "v_e": 14 / 3, "v_i": -2 / 3, "refractory": 5.0},
}
EQUATIONS = {
    "delta": "dv/dt = -v / tau : 1 (unless refractory)",
    "current": "dv/dt = -v / tau + (ge - gi) / ms : 1 (unless refractory)\n ge : 1\n gi : 1",
    "conductance": """dv/dt = -v / tau - ((gf + ge) * (v - v_e) + gi * (v - v_i)) / ms : 1 (unless refractory)
        gf : 1
        ge : 1
        gi : 1""",
}
# What an excitatory spike, an inhibitory one and a kick do.
DELIVERY = {
    "delta": ("v_post += w", "v_post -= w", "v += kick * {}"),
    "current": ("ge_post += w * ms / tau_e", "gi_post += w * ms / tau_i", "ge += kick * ms / tau_e * {}"),
    "conductance": ("ge_post += w * ms / tau_e", "gi_post += w * ms / tau_i", "gf += kick * ms / tau_f * {}"),
}


def ring_edges(n, scale):
    """Pairs (source, target) of 2n neurons: neighbours up to n_conn / 2 away, in both populations, none with itself."""
    at = np.arange(2 * n)
    apart = np.abs(at[:, None] - at) % n
    near = np.minimum(apart, n - apart) <= (n // scale) / 2
    np.fill_diagonal(near, False)
    return np.nonzero(near)


def network(variant, p, steps, seed=0, edges=None, counts=None, v0=None):
    """The network and its monitor; without `counts` [step, neuron] the background is Poisson, partly common to all."""
    defaultclock.dt = 0.1 * MS
    rng, n = np.random.default_rng(seed), p["n"]
    times = ("tau", "tau_f", "tau_e", "tau_i")
    names = {k: v * MS if k in times else v for k, v in p.items() if k in (*times, "kick", "v_e", "v_i")}
    group = NeuronGroup(
        2 * n, EQUATIONS[variant], method="euler", threshold="v >= 1", reset="v = 0", namespace=names,
        refractory=p["refractory"] * MS,
    )  # fmt: skip
    group.v = rng.random(2 * n) if v0 is None else v0
    excite, inhibit, kick = DELIVERY[variant]
    mean = p["rate"] * 0.1
    if counts is None:
        counts = rng.poisson(mean * p["share"], steps)
        drawn = f"(delivered(t) + poisson({mean * (1 - p['share'])!r}))"
    else:
        drawn = "delivered(t, i)"
    group.namespace["delivered"] = TimedArray(counts, dt=0.1 * MS)
    objects = [group, group.run_regularly(kick.format(drawn), when="synapses")]
    if variant != "delta":
        decay = "ge *= exp(-dt / tau_e)\ngi *= exp(-dt / tau_i)" + "\ngf *= exp(-dt / tau_f)" * ("tau_f" in p)
        objects.append(group.run_regularly(decay, when="synapses", order=1))
    pre, post = edges if edges is not None else ring_edges(n, p["scale"])
    for first, code, to_e, to_i in ((0, excite, p["w_ee"], p["w_ie"]), (n, inhibit, p["w_ei"], p["w_ii"])):
        synapses = Synapses(group[first : first + n], group, "w : 1", on_pre=code, namespace=names)
        chosen = (pre >= first) & (pre < first + n)
        synapses.connect(i=pre[chosen] - first, j=post[chosen])
        synapses.w = np.where(post[chosen] < n, to_e, to_i)
        objects.append(synapses)
    spikes = SpikeMonitor(group)
    net = Network(*objects, spikes)
    # Delivery before the test; spikes are read one step after they were found.
    net.schedule = ["start", "groups", "synapses", "thresholds", "resets", "end"]
    return net, group, spikes
