"""Spike-timing-dependent plasticity."""

from typing import NamedTuple

import jax.numpy as jnp

from jneuro.core.types import Array, Bool, Float, Scalar
from jneuro.simulators.delays import DelayedSynapses, raster_width

__all__ = ["PairRule", "by_sender", "histogram", "pair_step"]


class PairRule(NamedTuple):
    r"""Pair-based plasticity between nearest neighbours.

    When a target spikes, every synapse onto it is potentiated by \(A_+ e^{-\Delta/\tau}\), where \(\Delta > 0\) is the
    time since that synapse's last arrival. When a spike arrives, its synapse is depressed by \(A_- e^{-\Delta/\tau}\),
    where \(\Delta \ge 0\) is the time since the target's last spike: at one time, the spike comes first. Only the last
    event counts. Spikes lie at the ends of steps, arrivals a delay later, where they act on the step that begins.

    Attributes:
        potentiation: A₊ [pA].
        depression: A₋ [pA].
        decay: e^(−dt/τ), what a step leaves of either trace.
    """

    potentiation: Scalar
    depression: Scalar
    decay: Scalar


def pair_step(
    synapses: DelayedSynapses,
    rule: PairRule,
    traces: Float[Array, "lag neuron"],
    arrived: Float[Array, "pre synapse"],
    spikes: Float[Array, " neuron"],
) -> tuple[Float[Array, "post source"], Float[Array, "pre synapse"], Float[Array, " neuron"]]:
    r"""Follow the pairs of one step; differentiable in both modes.

    With \(x_i(t) = e^{-(t - t_i)/\tau}\), the trace of neuron i's last spike, a spike of j at t adds
    \(A_+ e^{-dt/\tau} x_i(t - d_{ij} - dt)\) to all its incoming synapses, and a spike of i at t takes
    \(A_- x_j(t + d_{ij})\) from each of its outgoing ones, when it arrives.

    Args:
        synapses: who hears whom, and when.
        rule: amplitudes and decay.
        traces: \(x\) after the steps before, the last one's first.
        arrived: ones where a spike arrives, to act in this step.
        spikes: ones where a neuron spikes.

    Returns:
        What potentiation adds, by receiver, as in `DelayedSynapses.incoming`; what depression adds, by sender; and
        \(x\) after this step.
    """
    width = raster_width(spikes.shape[0])
    lag, pre = -(synapses.incoming // width), synapses.incoming % width
    heard = traces.at[lag - 1, pre].get(mode="fill", fill_value=0)
    gained = rule.potentiation * rule.decay * heard * spikes[:, None]
    lost = -rule.depression * arrived * traces[0][synapses.outgoing[: arrived.shape[0]] % width]
    return gained, lost, traces[0] * rule.decay * (1 - spikes) + spikes


def by_sender(synapses: DelayedSynapses, gained: Float[Array, "post source"]) -> Float[Array, "pre synapse"]:
    """Order a quantity of the synapses by sender.

    Args:
        synapses: the synapses.
        gained: the quantity, listed by receiver as in `DelayedSynapses.incoming`.

    Returns:
        The quantity, 0 where there is no synapse.
    """
    exists = synapses.place < gained.size
    # Known to be inside: no clamping.
    place = jnp.where(exists, synapses.place, 0)
    found = gained.reshape(-1).at[place].get(mode="promise_in_bounds", wrap_negative_indices=False)
    return jnp.where(exists, found, 0)


def histogram(
    values: Float[Array, "pre synapse"], counted: Bool[Array, "pre synapse"], bins: int
) -> Float[Array, " bin"]:
    """Share of the values in each of some equal bins between 0 and 1, both included.

    Args:
        values: between 0 and 1; others count as the nearer end.
        counted: which values count.
        bins: how many bins.

    Returns:
        The shares.
    """
    slot = jnp.clip(values * bins, 0, bins - 1).astype(jnp.int32)
    return jnp.zeros(bins, jnp.int32).at[slot].add(counted.astype(jnp.int32)) / jnp.maximum(counted.sum(), 1)
