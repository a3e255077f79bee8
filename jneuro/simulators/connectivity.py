"""Synaptic connectivity: rules, three storage formats of one weight matrix, and the propagation of spikes.

A `Rule` draws the connections neuron by neuron; `Bernoulli` and `FixedInDegree` are ours. All formats give the same
numbers: `Dense` by a matrix product, differentiably; `BitRows` and `RowLists` by visiting the neurons that spike, at a
cost that grows with the number of spikes. Under `jax.vmap` these two run as one network, which consists of all networks
of the batch.
"""

import abc
import math
import sys
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.random import key_words, threefry
from jneuro.core.types import Array, Bool, Float, Int, Key, UInt
from jneuro.simulators.base import Strict, _to_static
from jneuro.simulators.kernels.events import pack, propagate_bits, propagate_lists, select, unpack, word_count
from jneuro.simulators.kernels.noise import normal_deviates

__all__ = [
    "Bernoulli",
    "BitRows",
    "Connections",
    "Dense",
    "FixedInDegree",
    "RowLists",
    "Rule",
    "most_targets",
    "relative_weights",
]

Weigh = Callable[[Int[Array, "*pre"], Int[Array, "*post"]], Float[Array, "*synapse"]]
"""From the neurons on both sides of synapses to their relative weights."""


def _weights(value: Any) -> Float[Array, "*any"]:
    """Relative weights as floats: booleans and integers would be added as such, and overflow."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return value
    sparse: Any = sys.modules.get("scipy.sparse")  # who has a sparse matrix has imported it
    if sparse is not None and sparse.issparse(value):
        value = value.toarray()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        found = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise ValueError("relative weights must be an array, got a list of lists of unequal lengths") from None
    floating = jnp.issubdtype(found.dtype, jnp.floating)
    if not floating and found.dtype.kind not in "biu":
        of = f" of {found.dtype}" if isinstance(value, np.ndarray | jax.Array) else ""
        raise ValueError(f"relative weights must be an array of numbers, got {type(value).__name__}{of}")
    return jnp.asarray(found, jax.dtypes.canonicalize_dtype(found.dtype) if floating else jnp.result_type(float))


def _sizes(populations: Any) -> tuple[int, ...]:
    """The sizes of populations as a tuple of integers."""
    found = np.asarray(populations)
    if found.ndim != 1 or found.dtype.kind not in "iu" or (found < 0).any():
        raise ValueError(
            f"populations = {populations!r} must be the sizes of the presynaptic populations, such as (80, 20)"
        )
    return tuple(found.tolist())


def _whole(neurons: Any) -> int:
    """A number of neurons as Python's own."""
    if isinstance(neurons, bool) or not isinstance(neurons, int | np.integer) or neurons < 0:
        raise ValueError(f"the number of postsynaptic neurons must be a whole number, got {neurons!r}")
    return int(neurons)


def _packed(rows: Any) -> UInt[Array, "pre word"]:
    """Rows of bits, if they are some."""
    found = rows if isinstance(rows, jax.Array) else np.asarray(rows)
    if found.dtype != np.uint32 or found.ndim < 2:
        raise ValueError(
            f"BitRows: rows must be packed bits, uint32[pre, word], got {found.dtype}{list(found.shape)}; "
            "BitRows.from_adjacency(matrix, populations) packs a matrix"
        )
    return jnp.asarray(found)


def _targets(targets: Any) -> Int[Array, "pre synapse"]:
    """Lists of targets, if they are some."""
    found = targets if isinstance(targets, jax.Array) else np.asarray(targets)
    if found.dtype.kind not in "iu" or found.ndim < 2:
        raise ValueError(
            f"RowLists: targets must be indices of neurons, int[pre, synapse], got {found.dtype}{list(found.shape)}; "
            "RowLists.from_synapses(pre, post, weight, populations, neurons) takes a list of synapses"
        )
    return jnp.asarray(found)


class Connections(Strict):
    """Connections among neurons; abstract."""

    populations: eqx.AbstractVar[tuple[int, ...]]
    """Size of each presynaptic population, in the order of their neurons."""

    def __check_init__(self) -> None:
        """Refuse populations that do not add up."""
        if sum(self.populations) != (pre := self.shape[0]):
            raise ValueError(
                f"{type(self).__name__}: populations = {self.populations} add up to {sum(self.populations)}, "
                f"but there are {pre} presynaptic neurons"
            )

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

    matrix: Float[Array, "pre post"] = eqx.field(converter=_weights)
    populations: tuple[int, ...] = eqx.field(static=True, converter=_sizes)

    def __check_init__(self):
        """Refuse what is no matrix of relative weights."""
        if self.matrix.ndim < 2:
            raise ValueError(f"Dense: matrix must be [pre, post], got the shape {self.matrix.shape}")
        _check_weights("Dense: matrix", self.matrix)

    @classmethod
    def from_rows(
        cls, rows: UInt[Array, "pre word"], populations: tuple[int, ...], post: int, weigh: Weigh | None = None
    ) -> Self:
        """Connect by packed rows; see `Rule.rows`."""
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

    rows: UInt[Array, "pre word"] = eqx.field(converter=_packed)
    populations: tuple[int, ...] = eqx.field(static=True, converter=_sizes)
    post: int = eqx.field(static=True, converter=_whole)

    def __check_init__(self):
        """Refuse rows that do not fit."""
        if self.rows.shape[-1] != word_count(self.post):
            raise ValueError(f"BitRows: {self.rows.shape[-1]} words a row do not hold {self.post} bits")

    @classmethod
    def from_adjacency(cls, adjacency: Bool[Array, "pre post"], populations: tuple[int, ...]) -> Self:
        """Connect by an adjacency matrix.

        Raises:
            ValueError: if it holds anything but zeros and ones.
        """
        given = _weights(adjacency)
        if not isinstance(given, Tracer) and not bool(jnp.all((given == 0) | (given == 1))):
            raise ValueError(
                "BitRows: adjacency must hold zeros and ones only, because a bit holds no weight; use Dense or RowLists"
            )
        return cls(rows=pack(given > 0), populations=populations, post=given.shape[-1])

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

    targets: Int[Array, "pre synapse"] = eqx.field(converter=_targets)
    weights: Float[Array, "pre synapse"] | None = eqx.field(converter=lambda w: None if w is None else _weights(w))
    populations: tuple[int, ...] = eqx.field(static=True, converter=_sizes)
    post: int = eqx.field(static=True, converter=_whole)

    def __check_init__(self):
        """Refuse targets that there are not, and what are no relative weights."""
        if not isinstance(self.targets, Tracer) and self.targets.size:
            least, most = int(self.targets.min()), int(self.targets.max())
            if not 0 <= least <= most <= self.post:
                raise ValueError(
                    f"RowLists: targets run from {least} to {most}; they must lie in [0, {self.post}), and "
                    f"{self.post} fills up a list"
                )
        if self.weights is not None:
            if self.weights.shape != self.targets.shape:
                raise ValueError(
                    f"RowLists: weights {self.weights.shape} and targets {self.targets.shape} must be of one shape"
                )
            _check_weights("RowLists: weights", self.weights)

    @classmethod
    def from_rows(
        cls,
        rows: UInt[Array, "pre word"],
        populations: tuple[int, ...],
        post: int,
        most: int,
        weigh: Weigh | None = None,
    ) -> Self:
        """Connect by packed rows; see `Rule.rows`.

        Args:
            rows: the targets of each neuron, as bits.
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
            ValueError: if the lists differ in length, an index is out of range, or a weight is negative.
        """
        pre, post, populations, neurons = np.asarray(pre), np.asarray(post), _sizes(populations), _whole(neurons)
        given = None if weight is None else np.asarray(_weights(weight))
        for name, index in (("pre", pre), ("post", post)):
            if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
                said = f"got {index.dtype}{list(index.shape)}"
                raise ValueError(f"RowLists: {name} must be a list of whole numbers, the indices of neurons, {said}")
        lengths = {"pre": pre.size, "post": post.size} | ({} if given is None else {"weight": given.size})
        if given is not None and given.ndim != 1:
            raise ValueError(f"RowLists: weight must be a list, one for each synapse, got the shape {given.shape}")
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {size}" for name, size in lengths.items())
            raise ValueError(f"RowLists: a synapse is one entry in every list, but their lengths are {said}")
        for name, index, size in (("pre", pre, sum(populations)), ("post", post, neurons)):
            if index.size and not (index.min() >= 0 and index.max() < size):
                raise ValueError(
                    f"RowLists: {name} runs from {index.min()} to {index.max()}; it must lie in [0, {size})"
                )
        pre, post = pre.astype(np.int64), post.astype(np.int64)
        order = np.argsort(pre, kind="stable")
        degree = np.bincount(pre, minlength=sum(populations))
        slot = np.arange(pre.size) - np.repeat(np.cumsum(degree) - degree, degree)
        shape = (len(degree), max(1, int(degree.max(initial=0))))
        targets = np.full(shape, neurons, np.int32)
        targets[pre[order], slot] = post[order]
        weights = None
        if given is not None:
            weights = np.zeros(shape, given.dtype)
            weights[pre[order], slot] = given[order]
            weights = jnp.asarray(weights)
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


class Rule(Strict):
    """Connection rule, of at most one synapse from neuron to neuron; abstract.

    A rule of one's own defines `row` or `column`.

    What it says of a neuron depends on the key and on that neuron alone. Its fields are plain numbers and words.

    Example:
        ```python
        class Ring(jn.Rule):
            k: int = 4
            def row(self, key, pre, n_post):
                apart = jnp.abs(jnp.arange(n_post) - pre)
                return jnp.minimum(apart, n_post - apart) <= self.k

        network = jn.simulators.Brunel(rule=Ring(k=8)).connect(key)
        ```
        In YAML: `rule: {name: "my_rules:Ring", k: 8}`.
    """

    def __check_init__(self) -> None:
        """Refuse a rule that says nothing."""
        if not self._says("row") and not self._says("column"):
            raise ValueError(f"{type(self).__name__} needs row(key, pre, n_post) or column(key, post, pre)")
        if any(isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves(self)):
            raise ValueError(f"{type(self).__name__}: the fields of a rule must be plain numbers, not arrays")

    def _says(self, how: str) -> bool:
        return getattr(type(self), how) is not getattr(Rule, how)

    def row(self, key: Key[Array, ""], pre: Int[Array, ""], n_post: int) -> Bool[Array, " post"]:
        """Say who hears a neuron.

        Args:
            key: random key of all connections.
            pre: the neuron.
            n_post: number of neurons that may hear it.

        Returns:
            Who does.
        """
        raise NotImplementedError

    def column(self, key: Key[Array, ""], post: Int[Array, ""], pre: Int[Array, " pre"]) -> Bool[Array, " pre"]:
        """Say whom a neuron hears, among those of one population.

        Args:
            key: random key of all connections.
            post: the neuron.
            pre: the neurons of a presynaptic population.

        Returns:
            Whom it hears.
        """
        raise NotImplementedError

    def rows(self, key: Key[Array, ""], populations: tuple[int, ...], post: int) -> UInt[Array, "pre word"]:
        """Draw all connections.

        Args:
            key: random key.
            populations: size of each presynaptic population, in the order of their neurons.
            post: number of receiving neurons.

        Returns:
            The targets of each neuron, packed as in `pack`.

        Raises:
            ValueError: if `row` or `column` returns anything but one boolean a neuron.
        """
        everybody = jnp.arange(sum(populations), dtype=jnp.int32)
        if self._says("row"):
            return lax.map(lambda pre: pack(self._checked("row", self.row(key, pre, post), post)), everybody)
        parts = jnp.split(everybody, np.cumsum(populations)[:-1])

        def heard(post):
            return jnp.concatenate([self._checked("column", self.column(key, post, part), part.size) for part in parts])

        return pack(lax.map(heard, jnp.arange(post, dtype=jnp.int32)).T)

    def _checked(self, how: str, found: Any, size: int) -> Bool[Array, " neuron"]:
        """What `row` or `column` returned, if it can be used."""
        if not isinstance(found, jax.Array) or found.shape != (size,) or found.dtype != jnp.bool_:
            said = f"{found.dtype}{list(found.shape)}" if isinstance(found, jax.Array) else repr(found)
            raise ValueError(f"{type(self).__name__}.{how} returned {said}; it must return bool[{size}], one a neuron")
        return found

    def most(self, populations: tuple[int, ...], post: int) -> int:
        """Room for the targets of a neuron, where they are listed."""
        del populations
        return max(1, post)


class Bernoulli(Rule):
    """Every pair of neurons is connected with the same probability; a neuron may hear itself.

    Attributes:
        p: the probability.
    """

    p: float = eqx.field(static=True, converter=_to_static)

    def __check_init__(self) -> None:
        """Refuse what is no probability."""
        _check_probability(self, self.p)

    def row(self, key, pre, n_post):
        """See `Rule`."""
        receivers = jnp.arange(n_post, dtype=jnp.uint32)
        return _below(_words(key, jnp.asarray(pre).astype(jnp.uint32), receivers), self.p)

    def rows(self, key, populations, post):
        """See `Rule`."""
        return _planes(key, sum(populations), post, lambda drawn: _below(drawn, self.p))

    def most(self, populations, post):
        """See `Rule`."""
        return most_targets(post, self.p, sum(populations))


class FixedInDegree(Rule):
    """Every neuron hears the same number of neurons of each population, drawn at random; it may hear itself.

    Attributes:
        p: that number as a share of the population; or
        n: that number itself.
    """

    p: float | None = eqx.field(static=True, default=None, converter=_to_static)
    n: int | None = eqx.field(static=True, default=None, converter=_to_static)

    def __check_init__(self) -> None:
        """Refuse both, neither, and what cannot be."""
        if (self.p is None) == (self.n is None):
            raise ValueError(f"FixedInDegree takes either p or n, got p = {self.p}, n = {self.n}")
        if self.p is not None:
            _check_probability(self, self.p)
        elif isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 0:
            raise ValueError(f"FixedInDegree: n = {self.n!r} must be a whole number, and not negative")

    def _count(self, size: int) -> int:
        """How many of so many a neuron hears."""
        if self.p is not None:
            return round(self.p * size)
        if size and self.n > size:  # pyright: ignore[reportOptionalOperand]
            raise ValueError(f"FixedInDegree: n = {self.n} inputs from a population of {size} neurons")
        return min(self.n, size)  # pyright: ignore[reportArgumentType]

    def column(self, key, post, pre):
        """See `Rule`."""
        words = _words(key, pre.astype(jnp.uint32), jnp.asarray(post).astype(jnp.uint32))
        return _smallest(words[:, None], self._count(pre.size))[:, 0]

    def rows(self, key, populations, post):
        """See `Rule`."""

        def heard(drawn):
            parts = jnp.split(drawn, np.cumsum(populations)[:-1])
            return jnp.concatenate([_smallest(part, self._count(part.shape[0])) for part in parts])

        return _planes(key, sum(populations), post, heard)

    def most(self, populations, post):
        """See `Rule`."""
        share = max(self._count(size) / size for size in populations if size)
        return most_targets(post, share if self.p is None else self.p, sum(populations))


def _check_probability(rule: Rule, p: float) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ValueError(f"{type(rule).__name__}: p = {p!r} must be a number in [0, 1]")


def _words(key: Key[Array, ""], pre: UInt[Array, "*any"], post: UInt[Array, "*any"]) -> Int[Array, "*any"]:
    """The random word of every pair of neurons."""
    drawn, _ = threefry(key_words(key), *jnp.broadcast_arrays(pre, post))
    return lax.bitcast_convert_type(drawn, jnp.int32)


def _planes(key: Key[Array, ""], pre: int, post: int, heard: Callable) -> UInt[Array, "pre word"]:
    """Draw packed rows, 32 receivers at a time: of the word of a pair, all that is kept is one bit.

    Args:
        key: random key.
        pre: number of presynaptic neurons.
        post: number of receiving neurons.
        heard: from the words `[pre, 32]` to who is heard.

    Returns:
        The targets of each neuron, packed as in `pack`.
    """
    width = word_count(post)

    def plane(word):
        receivers = jnp.arange(32, dtype=jnp.uint32)[None] * jnp.uint32(width) + word
        drawn = _words(key, jnp.arange(pre, dtype=jnp.uint32)[:, None], receivers)
        bits = jnp.where(receivers < post, heard(drawn), False).astype(jnp.uint32)
        return (bits << jnp.arange(32, dtype=jnp.uint32)[None]).sum(1, dtype=jnp.uint32)

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


def _check_weights(name: str, weights: Array) -> None:
    """Refuse weights that are negative or not finite; traced ones pass unseen."""
    if isinstance(weights, Tracer) or bool(((weights >= 0) & jnp.isfinite(weights)).all()):
        return
    found = np.asarray(weights)
    at = tuple(np.argwhere(~((found >= 0) & np.isfinite(found)))[0].tolist())
    raise ValueError(
        f"{name} must hold relative weights, finite and not negative, got {found[at]:g} at {list(at)}; they are "
        "factors of the simulator's own weight (j of Brunel), and inhibition is the simulator's (g of Brunel): give "
        "magnitudes"
    )


def _refuse_floats(connections: Connections, spikes) -> None:
    """Refuse what only a matrix product can propagate."""
    if spikes.dtype != jnp.bool_:
        raise TypeError(
            f"{type(connections).__name__} propagates boolean spikes and passes no gradient; got {spikes.dtype}: "
            f"use Dense connections with a spike_gradient"
        )
