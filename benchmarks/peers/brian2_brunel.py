"""Networks of Brunel's kind in Brian2.

One step, in Brian2's own order: integrate by forward Euler, test v > threshold, deliver spikes and background, reset.
`unless refractory` freezes v and discards what arrives; a neuron that spiked in step k integrates again in step
k + refractory / dt. Delays are counted from the step of the spike.
"""

import numpy as np
from brian2 import (
    Hz,
    Network,
    NeuronGroup,
    PoissonInput,
    SpikeMonitor,
    StateMonitor,
    Synapses,
    TimedArray,
    defaultclock,
)
from brian2 import ms as MS

__all__ = ["ORIGINAL", "REPORT", "network"]

REPORT = {
    "n_e": 80, "n_i": 20, "p": 0.1, "tau": 10.0, "rest": -70.0, "reset": -70.0, "threshold": -50.0, "refractory": 2.0,
    "delay": 1.5, "j": 0.5, "g": 5.5, "sources": 8, "rate": 500.0, "j_external": 0.5, "noise": 0.05, "v0": -70.0,
    "sd0": 2.0,
}  # fmt: skip
ORIGINAL = REPORT | {
    "n_e": 10_000, "n_i": 2_500, "tau": 20.0, "rest": 0.0, "reset": 10.0, "threshold": 20.0, "j": 0.1, "g": 5.0,
    "sources": 1000, "rate": 20.0, "j_external": 0.1, "noise": 0.0, "v0": 10.0, "sd0": 3.0,
}  # fmt: skip


def network(p, copies=1, seed=0, record_v=None, edges=None, counts=None, v0=None):
    """`copies` independent networks in one group; all excitatory neurons come first.

    Without `edges` (pre, post), pairs within a copy connect with probability p["p"]; without `counts` [step, neuron],
    the background is binomial.
    """
    defaultclock.dt = 0.1 * MS
    rng = np.random.default_rng(seed)
    n_e, n_i = p["n_e"] * copies, p["n_i"] * copies
    names = {k: p[k] for k in ("rest", "reset", "threshold", "noise", "j_external")} | {"tau": p["tau"] * MS}
    group = NeuronGroup(
        n_e + n_i, "dv/dt = (rest - v) / tau : 1 (unless refractory)", method="euler", namespace=names,
        threshold="v > threshold", reset="v = reset", refractory=p["refractory"] * MS,
    )  # fmt: skip
    group.v = p["v0"] + p["sd0"] * rng.standard_normal(len(group)) if v0 is None else v0
    objects = [group]
    if counts is not None:
        group.namespace["delivered"] = TimedArray(counts, dt=0.1 * MS)
        objects.append(group.run_regularly("v += j_external * delivered(t, i)", when="synapses"))
    else:
        objects.append(PoissonInput(group, "v", p["sources"], p["rate"] * Hz, p["j_external"]))
    if p["noise"]:
        objects.append(group.run_regularly("v += noise * randn()", when="synapses"))
    for first, size, weight in ((0, p["n_e"], p["j"]), (n_e, p["n_i"], -p["g"] * p["j"])):
        source = group[first : first + size * copies]
        synapses = Synapses(source, group, on_pre=f"v_post += {weight!r}", delay=p["delay"] * MS)
        if edges is not None:
            chosen = (edges[0] >= first) & (edges[0] < first + size)
            synapses.connect(i=edges[0][chosen] - first, j=edges[1][chosen])
        elif copies == 1:
            synapses.connect(p=p["p"])
        else:
            pre, post = blocks(rng, p, copies, size)
            synapses.connect(i=pre, j=post)
        objects.append(synapses)
    spikes = SpikeMonitor(group)
    voltage = StateMonitor(group, "v", record=True, dt=record_v * MS) if record_v else None
    return Network(*objects, spikes, *([voltage] if record_v else [])), spikes, voltage


def blocks(rng, p, copies, size):
    """Pairs (source, target) within each copy; `size` neurons of a copy are sources."""
    i, j = [], []
    for copy in range(copies):
        pre, post = np.nonzero(rng.random((size, p["n_e"] + p["n_i"])) < p["p"])
        inhibitory = post >= p["n_e"]
        i.append(pre + copy * size)
        j.append(np.where(inhibitory, copies * p["n_e"] + copy * p["n_i"] + post - p["n_e"], copy * p["n_e"] + post))
    return np.concatenate(i), np.concatenate(j)
