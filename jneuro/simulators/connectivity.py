"""Who hears whom: three representations of the same connections, and the propagation of spikes through them.

All answer the same question with the same numbers: `Dense` by a matrix product, differentiably; `BitRows` and
`RowLists` by visiting the neurons that spike, at a cost that grows with the number of spikes. Under `jax.vmap` these
two run as one network that consists of all networks of the batch.
"""

import abc
import math
from collections.abc import Callable
from typing import Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.random import key_words, threefry
from jneuro.core.types import Array, Bool, Float, Int, Key, UInt
from jneuro.simulators.background import normal_deviates
from jneuro.simulators.events import pack, select, unpack, word_count
from jneuro.simulators.propagation import propagate_bits, propagate_lists

__all__ = ["BitRows", "Connections", "Dense", "RowLists", "Rule", "draw_rows", "most_targets", "relative_weights"]

Rule = Literal["bernoulli", "fixed_in_degree"]

Weigh = Callable[[Int[Array, "*pre"], Int[Array, "*post"]], Float[Array, "*synapse"]]
"""From the neurons on both sides of synapses to their relative weights."""


class Connections(eqx.Module):
    """Connections among neurons; abstract."""

    populations: eqx.AbstractVar[tuple[int, ...]]
    """Size of each presynaptic population, in the order of their neurons."""

    @property
    @abc.abstractmethod
    def adjacency(self) -> Float[Array, "pre post"]:
        """The sum of the relative weights of the synapses from each neuron to each neuron."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Number of presynaptic and of postsynaptic neurons."""

    @abc.abstractmethod
    def propagate(
        self, spikes: Bool[Array, "step pre"] | Float[Array, "step pre"]
    ) -> Float[Array, "step population post"]:
        """Sum the relative weights that every neuron receives from each presynaptic population, in each step.

        Args:
            spikes: who spikes; floats, such as surrogates give, count as that many spikes.

        Returns:
            What arrives, before any delay.

        Raises:
            TypeError: for floats, if the connections are event-driven.
        """


class Dense(Connections):
    """Connections as a full matrix: for small networks, and for gradients, which pass in both modes.

    Attributes:
        matrix: see `Connections.adjacency`.
        populations: see `Connections`.
    """

    matrix: Float[Array, "pre post"]
    populations: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        """Refuse populations that do not add up."""
        _check_populations(self)

    @classmethod
    def from_rows(
        cls, rows: UInt[Array, "pre word"], populations: tuple[int, ...], post: int, weigh: Weigh | None = None
    ) -> Self:
        """Connect by packed rows; see `draw_rows`."""
        adjacency = unpack(rows, post).astype(jnp.result_type(float))
        if weigh is not None:
            adjacency = adjacency * weigh(jnp.arange(rows.shape[0])[:, None], jnp.arange(post)[None])
        return cls(matrix=adjacency, populations=populations)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Connections`."""
        pre, post = self.matrix.shape[-2:]
        return pre, post

    @property
    def adjacency(self) -> Float[Array, "pre post"]:
        """See `Connections`."""
        return self.matrix

    def propagate(self, spikes):
        """See `Connections`; one matrix product for each population."""
        signal, sums, first = spikes.astype(self.matrix.dtype), [], 0
        for size in self.populations:
            part = slice(first, first + size)
            sums.append(jnp.matmul(signal[:, part], self.matrix[part], precision=lax.Precision.HIGHEST))
            first += size
        return jnp.stack(sums, 1)


class BitRows(Connections):
    """Connections of equal weight, at most one from neuron to neuron, as one bit each: for large networks.

    The rows of the neurons that spike are added in counters of one byte, which are emptied before they can overflow.

    Attributes:
        rows: bit b of word w of a row is the synapse to neuron `b * words + w`, as in `pack`.
        populations: see `Connections`.
        post: number of postsynaptic neurons.
    """

    rows: UInt[Array, "pre word"]
    populations: tuple[int, ...] = eqx.field(static=True)
    post: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse rows that do not fit."""
        if self.rows.shape[-1] != word_count(self.post):
            raise ValueError(f"BitRows: {self.rows.shape[-1]} words a row do not hold {self.post} bits")
        _check_populations(self)

    @classmethod
    def from_adjacency(cls, adjacency: Bool[Array, "pre post"], populations: tuple[int, ...]) -> Self:
        """Connect by a matrix that says who hears whom."""
        return cls(rows=pack(jnp.asarray(adjacency, bool)), populations=populations, post=adjacency.shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """See `Connections`."""
        return self.rows.shape[-2], self.post

    @property
    def adjacency(self) -> Float[Array, "pre post"]:
        """See `Connections`."""
        return unpack(self.rows, self.post).astype(jnp.result_type(float))

    def propagate(self, spikes):
        """See `Connections`."""
        _refuse_floats(self, spikes)
        return propagate_bits(self.rows, spikes, self.populations, self.post)


class RowLists(Connections):
    """Connections as a list of targets for every neuron: any weights, multiple synapses, large or sparse networks.

    Attributes:
        targets: the neurons that each neuron reaches; lists are filled up with `post`.
        weights: relative weights of these synapses; None: 1 each. They pass no gradient.
        populations: see `Connections`.
        post: number of postsynaptic neurons.
    """

    targets: Int[Array, "pre synapse"]
    weights: Float[Array, "pre synapse"] | None
    populations: tuple[int, ...] = eqx.field(static=True)
    post: int = eqx.field(static=True)

    def __check_init__(self):
        """Refuse populations that do not add up."""
        _check_populations(self)

    @classmethod
    def from_rows(
        cls,
        rows: UInt[Array, "pre word"],
        populations: tuple[int, ...],
        post: int,
        most: int,
        weigh: Weigh | None = None,
    ) -> Self:
        """Connect by packed rows; see `draw_rows`.

        Args:
            rows: who hears whom.
            populations: size of each presynaptic population.
            post: number of postsynaptic neurons.
            most: room for the targets of a neuron; a run-time error if it does not suffice.
            weigh: gives the relative weights; 1 each by default.

        Returns:
            The connections.
        """

        def listed(row):
            upto = jnp.cumsum(lax.population_count(row).astype(jnp.int32))
            ranks = jnp.arange(most, dtype=jnp.int32)
            return jnp.where(ranks < upto[-1], select(row, upto, ranks), post), upto[-1]

        targets, degrees = lax.map(listed, rows)
        targets = eqx.error_if(targets, degrees > most, f"RowLists: a neuron has more than {most} targets")
        weights = None
        if weigh is not None:
            found = weigh(jnp.arange(rows.shape[0])[:, None], targets)
            weights = jnp.where(targets < post, found, 0)
        return cls(targets=targets, weights=weights, populations=populations, post=post)

    @classmethod
    def from_synapses(
        cls,
        pre: Int[np.ndarray, " synapse"],
        post: Int[np.ndarray, " synapse"],
        weight: Float[np.ndarray, " synapse"] | None,
        populations: tuple[int, ...],
        neurons: int,
    ) -> Self:
        """Connect by a list of synapses, in any order; several may join the same two neurons.

        Args:
            pre: index of each synapse's presynaptic neuron.
            post: index of its postsynaptic neuron.
            weight: its relative weight; None: 1 each.
            populations: size of each presynaptic population.
            neurons: number of postsynaptic neurons.

        Returns:
            The connections.

        Raises:
            ValueError: if an index is out of range.
        """
        pre, post = np.asarray(pre), np.asarray(post)
        for name, index, size in (("pre", pre, sum(populations)), ("post", post, neurons)):
            if index.size and not (index.min() >= 0 and index.max() < size):
                raise ValueError(
                    f"RowLists: {name} runs from {index.min()} to {index.max()}; it must lie in [0, {size})"
                )
        order = np.argsort(pre, kind="stable")
        degree = np.bincount(pre, minlength=sum(populations))
        slot = np.arange(pre.size) - np.repeat(np.cumsum(degree) - degree, degree)
        shape = (len(degree), max(1, int(degree.max(initial=0))))
        targets = np.full(shape, neurons, np.int32)
        targets[pre[order], slot] = post[order]
        weights = None
        if weight is not None:
            weights = np.zeros(shape, np.asarray(weight).dtype)
            weights[pre[order], slot] = np.asarray(weight)[order]
            weights = jnp.asarray(weights, jax.dtypes.canonicalize_dtype(weights.dtype))
        return cls(targets=jnp.asarray(targets), weights=weights, populations=populations, post=neurons)

    @property
    def shape(self) -> tuple[int, int]:
        """See `Connections`."""
        return self.targets.shape[-2], self.post

    @property
    def adjacency(self) -> Float[Array, "pre post"]:
        """See `Connections`."""
        weights = jnp.ones(self.targets.shape, jnp.result_type(float)) if self.weights is None else self.weights
        pre = jnp.arange(self.targets.shape[0])[:, None]
        return jnp.zeros(self.shape, weights.dtype).at[pre, self.targets].add(weights, mode="drop")

    def propagate(self, spikes):
        """See `Connections`."""
        _refuse_floats(self, spikes)
        return propagate_lists(self.targets, self.weights, spikes, self.populations, self.post)


def draw_rows(
    key: Key[Array, ""], rule: Rule, populations: tuple[int, ...], post: int, probability: float
) -> UInt[Array, "pre word"]:
    """Draw at random who hears whom, at most once; a neuron may hear itself.

    Every pair of neurons has a random word of its own, and all that is kept of it is one bit.

    Args:
        key: random key.
        rule: `bernoulli`, every pair with the given probability; or `fixed_in_degree`, every neuron hears the same
            number of neurons, `round(probability * size)`, of each population.
        populations: size of each presynaptic population, in the order of their neurons.
        post: number of receiving neurons.
        probability: connection probability.

    Returns:
        The targets of each neuron, packed as in `pack`.
    """
    words, width, pre = key_words(key), word_count(post), sum(populations)

    def plane(word):
        """The 32 receivers of one word: who hears them, as bits."""
        receivers = jnp.arange(32, dtype=jnp.uint32)[None] * jnp.uint32(width) + word
        counters = jnp.broadcast_arrays(jnp.arange(pre, dtype=jnp.uint32)[:, None], receivers)
        drawn = lax.bitcast_convert_type(threefry(words, *counters)[0], jnp.int32)
        if rule == "bernoulli":
            heard = _below(drawn, probability)
        else:
            parts = jnp.split(drawn, np.cumsum(populations)[:-1])
            heard = jnp.concatenate([_smallest(part, round(probability * part.shape[0])) for part in parts])
        heard = jnp.where(receivers < post, heard, False).astype(jnp.uint32)
        return (heard << jnp.arange(32, dtype=jnp.uint32)[None]).sum(1, dtype=jnp.uint32)

    return lax.map(plane, jnp.arange(width, dtype=jnp.uint32)).T


def _below(words: Int[Array, "*any"], probability: float) -> Bool[Array, "*any"]:
    """True with the given probability, to the resolution of a signed word."""
    cut = round(probability * 2**32) - 2**31
    return jnp.full(words.shape, True) if cut >= 2**31 else words < cut


def _smallest(words: Int[Array, "pre post"], count: int) -> Bool[Array, "pre post"]:
    """Mark the `count` smallest of each column; of equal ones, the first.

    Bisection, bit by bit, for the `count`-th smallest: 32 passes, where sorting takes ten times as long.
    """
    if count == 0:
        return jnp.zeros(words.shape, bool)

    def narrow(k, cut):
        higher = cut ^ (jnp.uint32(1) << (jnp.uint32(31) - k.astype(jnp.uint32)))
        fewer = (words < _signed(higher)).sum(0, keepdims=True, dtype=jnp.int32) < count
        return jnp.where(fewer, higher, cut)

    cut = _signed(lax.fori_loop(0, 32, narrow, jnp.zeros((1, words.shape[1]), jnp.uint32)))
    less, equal = words < cut, words == cut
    missing = count - less.sum(0, keepdims=True, dtype=jnp.int32)
    return less | (equal & (jnp.cumsum(equal, 0, dtype=jnp.int32) <= missing))


def _signed(words: UInt[Array, "*any"]) -> Int[Array, "*any"]:
    """Map unsigned to signed words, in their order."""
    return lax.bitcast_convert_type(words ^ jnp.uint32(1 << 31), jnp.int32)


def relative_weights(key: Key[Array, ""], variation: float) -> Weigh:
    r"""Weigh synapses at random: log-normal, of mean 1.

    \[ w = e^{s z - s^2/2}, \qquad s^2 = \ln(1 + c^2) \]

    A weight depends on the key and on the two neurons alone, so every representation has the same.

    Args:
        key: random key.
        variation: coefficient of variation c.

    Returns:
        A function from the neurons on both sides to the weight.
    """
    words, s = key_words(key), math.sqrt(math.log1p(variation**2))

    def weigh(pre, post):
        pre, post = jnp.broadcast_arrays(pre, post)
        word, _ = threefry(words, pre.astype(jnp.uint32), post.astype(jnp.uint32))
        return jnp.exp(s * normal_deviates(lax.bitcast_convert_type(word, jnp.int32)) - s**2 / 2)

    return weigh


def most_targets(post: int, probability: float, pre: int) -> int:
    """Room for the targets of a neuron: one network in 10⁹ needs more.

    Args:
        post: number of postsynaptic neurons.
        probability: that one of them is a target.
        pre: number of presynaptic neurons, each with a binomial number of targets.

    Returns:
        The smallest number that suffices so surely, at least 1.
    """
    if not 0 < probability < 1:
        return max(1, post if probability else 1)
    k = np.arange(post + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log((post - k[1:] + 1) / k[1:]))])
    tail = np.cumsum(np.exp(choose + k * math.log(probability) + (post - k) * math.log1p(-probability))[::-1])[::-1]
    return max(1, int(np.searchsorted(-tail, -1e-9 / pre)) - 1)


def _check_populations(connections: Connections) -> None:
    """Refuse populations that do not add up."""
    name, pre = type(connections).__name__, connections.shape[0]
    if sum(connections.populations) != pre:
        raise ValueError(
            f"{name}: populations = {connections.populations} add up to {sum(connections.populations)}, "
            f"but there are {pre} presynaptic neurons"
        )


def _refuse_floats(connections: Connections, spikes) -> None:
    """Refuse what only a matrix product can propagate."""
    if spikes.dtype != jnp.bool_:
        raise TypeError(
            f"{type(connections).__name__} propagates boolean spikes and passes no gradient; got {spikes.dtype}: "
            f"use Dense connections with a surrogate"
        )
