"""Synapses with delays of many lengths, in rows, and their spike-timing-dependent plasticity."""

import math
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.random import stream
from jneuro.core.types import Array, Bool, Float, Int, Key, Scalar
from jneuro.simulators.kernels.events import word_count

__all__ = [
    "DelayedSynapses",
    "PairRule",
    "Synapses",
    "by_sender",
    "draw_delayed",
    "filled",
    "histogram",
    "pair_step",
    "raster_width",
]


class Synapses(NamedTuple):
    """A network as a list.

    Attributes:
        pre: presynaptic neuron; the list is sorted by it.
        post: postsynaptic neuron.
        delay: transmission delay [ms].
        plastic: whether the weight changes.
    """

    pre: Int[Array, " synapse"]
    post: Int[Array, " synapse"]
    delay: Float[Array, " synapse"]
    plastic: Bool[Array, " synapse"]


class DelayedSynapses(eqx.Module):
    """Synapses in rows: each neuron's targets and, the other way round, each neuron's plastic sources.

    Rows are padded to one length. Indices are flat, into arrays `[step, neuron]` whose rows have `raster_width`
    elements: one addition moves a whole row of synapses to the step in which a neuron spikes.

    Attributes:
        outgoing: `lag * width + post`, where the lag counts steps from the spike's to the one in which it acts. Where
            there is no synapse, `post` is the number of neurons, an element that nobody reads.
        incoming: `pre - lag * width`.
        place: index of a plastic synapse, by its presynaptic row, in the flattened `incoming`; its size where there is
            no synapse.
    """

    outgoing: Int[Array, "neuron synapse"]
    incoming: Int[Array, "post synapse"]
    place: Int[Array, "pre synapse"]

    @property
    def exists(self) -> Bool[Array, "neuron synapse"]:
        """Where in the rows of `outgoing` there is a synapse."""
        neurons = self.outgoing.shape[0]
        return self.outgoing % raster_width(neurons) < neurons


def raster_width(neurons: int) -> int:
    """The elements in one step of an unpacked raster: whole words, and at least one element that is no neuron."""
    return 32 * word_count(neurons + 1)


def draw_delayed(
    key: Key[Array, ""],
    sizes: tuple[int, int],
    probabilities: tuple[float, float],
    lags: tuple[int, int],
    lag_inhibitory: int,
) -> DelayedSynapses:
    """Draw random synapses: excitatory ones onto all neurons, inhibitory ones onto the excitatory; none onto itself.

    Args:
        key: random key.
        sizes: excitatory and inhibitory neurons.
        probabilities: that a pair is connected, by the type of the presynaptic neuron.
        lags: least and greatest lag of an excitatory synapse [steps]; uniform between, both included.
        lag_inhibitory: lag of the others [steps].

    Returns:
        The synapses. Rows are as long as the longest; inside `jit` and `vmap`, where that is unknown, as long as a row
        gets with a probability above about 1e-12.
    """
    excitatory, neurons = sizes[0], sum(sizes)
    width = raster_width(neurons)
    longest = max(_most(neurons, probabilities[0]), _most(excitatory, probabilities[1]))
    outgoing = _rows(key, sizes, probabilities, (*lags, lag_inhibitory), longest)
    outgoing = _trim(outgoing, outgoing % width < neurons)
    incoming, rank = _sources(outgoing, excitatory, _most(excitatory, probabilities[0]))
    incoming = _trim(incoming, incoming != neurons - width)
    post = outgoing[:excitatory] % width
    place = jnp.where(post < neurons, post * incoming.shape[1] + rank, incoming.size)
    return DelayedSynapses(outgoing, incoming, place)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _rows(key, sizes, probabilities, lags, longest):
    """Draw each neuron's targets and lags, in rows of one length."""
    excitatory, neurons = sizes[0], sum(sizes)
    index = jnp.arange(neurons, dtype=jnp.int32)
    targets, times = stream(key, "targets"), stream(key, "lags")

    def row(pre):
        inhibits = pre >= excitatory
        drawn = jax.random.uniform(jax.random.fold_in(targets, pre), (neurons,), jnp.float32)
        hit = (drawn < jnp.where(inhibits, jnp.float32(probabilities[1]), jnp.float32(probabilities[0]))) & (
            index != pre
        )
        hit &= ~inhibits | (index < excitatory)
        slot = jnp.where(hit, jnp.cumsum(hit, dtype=jnp.int32) - 1, longest)
        post = jnp.full(longest, neurons, jnp.int32).at[slot].set(index, mode="drop")
        lag = jax.random.randint(jax.random.fold_in(times, pre), (longest,), lags[0], lags[1] + 1, jnp.int32)
        return jnp.where(inhibits, lags[2], lag) * raster_width(neurons) + post

    return lax.map(row, index)


@partial(jax.jit, static_argnums=(1, 2))
def _sources(outgoing, excitatory, most):
    """List each neuron's plastic sources, at most so many, and the place of every synapse among them."""
    neurons = outgoing.shape[0]
    width = raster_width(neurons)
    plastic = outgoing[:excitatory].reshape(-1)
    lag, post = jnp.divmod(plastic, width)
    pre = jnp.arange(plastic.size, dtype=jnp.int32) // outgoing.shape[1]
    order = jnp.argsort(post, stable=True)
    ordered = post[order]
    rank = jnp.arange(plastic.size, dtype=jnp.int32) - jnp.searchsorted(ordered, ordered).astype(jnp.int32)
    rank = jnp.zeros_like(post).at[order].set(rank, unique_indices=True)
    # The padding is an index, of the step before, that may be read; what stands there is never used.
    incoming = jnp.full((neurons, most), neurons - width, jnp.int32).at[post, rank].set(pre - lag * width, mode="drop")
    return incoming, rank.reshape(excitatory, -1)


def _most(trials: int, probability: float) -> int:
    """More successes than this are improbable beyond about 1e-12."""
    sd = math.sqrt(trials * probability * (1 - probability))
    return max(min(trials, math.ceil(trials * probability + 7.5 * sd + 8)), 1)


def _trim(rows, used):
    """Drop columns that no row uses, down to a multiple of 8; what is being traced keeps them."""
    if isinstance(rows, Tracer):
        return rows
    longest = int(np.asarray(used).sum(1).max())
    return rows[:, : max(8 * -(-longest // 8), 8)]


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
        synapses: targets and lags of every neuron.
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


def filled(value: Float[Array, "*neuron"], size: int) -> Float[Array, "*neuron"]:
    """Fill up a parameter that each neuron has its own of.

    Args:
        value: the parameter; one that all share stays as it is.
        size: how many neurons there are with those that only fill up a word.

    Returns:
        The parameter; that of the last neuron stands for those that fill up.
    """
    return jnp.pad(value, (0, size - value.shape[0]), mode="edge") if value.ndim else value


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
