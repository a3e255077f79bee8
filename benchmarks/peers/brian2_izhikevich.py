"""Izhikevich's neurons, and the reservoir with delays and plasticity, in Brian2.

One step of 1 ms: what arrives now, and the background, make the current of this step; v takes two half steps, u one
full step; v >= 30 spikes; reset. An arrival and the post spike of the same step count as arrival first.

Plasticity is pair-based with the nearest neighbour: an arrival subtracts 0.12 exp(-(t - last post spike) / 20) from dw,
a post spike adds 0.1 exp(-(t - last arrival) / 20). Once a second, at its first step and before anything else,
w = clip(w + 0.01 + dw, 0, 10) and dw = 0.9 dw.

Sources count time in two ways. Early: a spike of step t with delay D is part of the current of step t + D, and times
are differences of steps. Late: a spike lies at the end of its step, an arrival at the beginning of one, so it arrives
in step t + D + 1; the time from arrival to spike is one step longer, that from spike to arrival one step shorter.
"""

import numpy as np
from brian2 import Network, NeuronGroup, SpikeGeneratorGroup, SpikeMonitor, Synapses, defaultclock, second
from brian2 import ms as MS

__all__ = ["PATTERNS", "edges", "network"]

# a, b, c, d: Izhikevich, IEEE Trans. Neural Networks 14 (2003) 1569, Fig. 2.
PATTERNS = {
    "regular spiking": (0.02, 0.2, -65, 8), "intrinsically bursting": (0.02, 0.2, -55, 4),
    "chattering": (0.02, 0.2, -50, 2), "fast spiking": (0.1, 0.2, -65, 2),
    "thalamo-cortical": (0.02, 0.25, -65, 0.05), "resonator": (0.1, 0.26, -65, 2),
    "low-threshold spiking": (0.02, 0.25, -65, 2),
}  # fmt: skip
HALF = "v += 0.5 * (0.04 * v * v + 5 * v + 140 - u + current)"
STEP = f"{HALF}\n{HALF}\nu += a * (b * v - u)"
SCHEDULE = ["start", "synapses", "groups", "thresholds", "resets", "end"]


def neurons(values, v0=-65.0):
    """A group with parameters [neuron, (a, b, c, d)] and u = b v."""
    defaultclock.dt = 1 * MS
    model = "v : 1\nu : 1\ncurrent : 1\na : 1\nb : 1\nc : 1\nd : 1\nlast : second"
    group = NeuronGroup(len(values), model, threshold="v >= 30", reset="v = c\nu += d\nlast = t")
    group.a, group.b, group.c, group.d = np.transpose(values)
    group.v, group.last = v0, -1000 * second
    group.u = group.b * v0
    return group, group.run_regularly(STEP, when="groups")


def edges(rng, n_e=800, n_i=200, p_e=0.1, p_i=0.125):
    """Excitatory pairs with delays of 1 to 20 ms; inhibitory pairs to excitatory neurons."""
    excitatory = np.nonzero(rng.random((n_e, n_e + n_i)) < p_e)
    inhibitory = np.nonzero(rng.random((n_i, n_e)) < p_i)
    return excitatory, rng.integers(1, 21, len(excitatory[0])), inhibitory


def network(drawn, thalamic, plastic=True, late=False, n_e=800, n_i=200):
    """The reservoir.

    Args:
        drawn: what `edges` returns.
        thalamic: the neurons that receive 20 in each step [step, neuron].
        plastic: whether weights learn.
        late: how time is counted.
        n_e: excitatory neurons.
        n_i: inhibitory neurons.

    Returns:
        The network, its spikes, the excitatory synapses.
    """
    (pre, post), delay, (pre_i, post_i) = drawn
    group, step = neurons([(0.02, 0.2, -65, 8)] * n_e + [(0.1, 0.2, -65, 2)] * n_i)
    clear = group.run_regularly("current = 0", when="start")
    # A generator refuses one neuron twice in a step; `thalamic` must not ask for it.
    when = np.repeat(np.arange(len(thalamic)), thalamic.shape[1]) * MS
    thalamus = SpikeGeneratorGroup(n_e + n_i, thalamic.ravel(), when, when="start")
    hits = Synapses(thalamus, group, on_pre="current_post += 20")
    hits.connect(j="i")
    rule = {}
    if plastic:
        rule = {
            "on_pre": "current_post += w\nlast_arrival = t\ndw -= 0.12 * exp((last_post + shift - t) / tau)",
            "on_post": "dw += 0.1 * exp((last_arrival - shift - t) / tau)",
        }
    model = "w : 1\ndw : 1\nlast_arrival : second" if plastic else "w : 1"
    names = {"tau": 20 * MS, "shift": int(late) * MS}
    learning = Synapses(group[:n_e], group, model, **(rule or {"on_pre": "current_post += w"}), namespace=names)
    learning.connect(i=pre, j=post)
    learning.w = 6.0
    # What is found in step t is read from step t + 1 on, so a delay of 1 ms is none here.
    learning.pre.delay = (delay - 1 + late) * MS
    objects = [group, step, clear, thalamus, hits, learning]
    if plastic:
        learning.last_arrival = -1000 * second
        learning.post.when = "after_thresholds"
        objects.append(
            learning.run_regularly(
                "w = clip(w + int(t > 0 * ms) * (0.01 + dw), 0, 10)\ndw *= 0.9", dt=1 * second, when="before_start"
            )
        )
    inhibition = Synapses(group[n_e:], group, on_pre="current_post -= 5", delay=int(late) * MS)
    inhibition.connect(i=pre_i, j=post_i)
    spikes = SpikeMonitor(group)
    net = Network(*objects, inhibition, spikes)
    net.schedule = SCHEDULE
    return net, spikes, learning
