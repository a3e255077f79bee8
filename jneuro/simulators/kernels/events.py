"""Spikes as events: packed into bits, visited one by one at a cost that grows with their number, and propagated."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from jneuro.core.types import Array, Bool, Float, Int, PyTree, UInt

__all__ = ["each_chunk", "each_spike", "pack", "propagate_bits", "propagate_lists", "select", "unpack", "word_count"]

Carry = TypeVar("Carry")


def word_count(neurons: int) -> int:
    """The number of 32-bit words that hold one bit of every neuron."""
    return -(-neurons // 32)


def pack(spikes: Bool[Array, "*any neuron"]) -> UInt[Array, "*any word"]:
    """Pack booleans into 32-bit words.

    Bit b of word w stands for neuron `b * words + w`: the neurons, padded to a multiple of 32 by silent ones, are a
    matrix `[32, word]`, whose rows vectorise where runs of 32 neighbours would not.

    Args:
        spikes: who spikes.

    Returns:
        `word_count(neurons)` words.
    """
    neurons, words = spikes.shape[-1], word_count(spikes.shape[-1])
    padded = jnp.pad(spikes, [(0, 0)] * (spikes.ndim - 1) + [(0, 32 * words - neurons)])
    bits = padded.reshape(*spikes.shape[:-1], 32, words).astype(jnp.uint32)
    # A sum of distinct powers of two.
    return (bits << _bit_numbers(bits.ndim)).sum(-2, dtype=jnp.uint32)


def unpack(words: UInt[Array, "*any word"], neurons: int) -> Bool[Array, "*any neuron"]:
    """The booleans that `pack` packed.

    Args:
        words: packed spikes.
        neurons: how many there were.

    Returns:
        Who spikes.
    """
    bits = words[..., None, :] >> _bit_numbers(words.ndim + 1) & 1
    return bits.reshape(*words.shape[:-1], 32 * words.shape[-1])[..., :neurons].astype(bool)


def each_chunk(
    words: UInt[Array, " word"],
    body: Callable[[Int[Array, " chunk"], Int[Array, ""], Carry], Carry],
    carry: Carry,
    *,
    chunk: int = 64,
) -> Carry:
    """Run `body` for every `chunk` of spikes, in a loop that ends when none is left.

    No buffer overflows, however many neurons spike, and silence costs next to nothing.

    Args:
        words: packed spikes.
        body: from the indices of spiking neurons, the number of them that is valid (they come first; the others are
            arbitrary neurons) and the carry to the next carry. Neurons come word by word, and in one word by rising
            index.
        carry: the first carry.
        chunk: indices compacted at once.

    Returns:
        The last carry.
    """
    upto = jnp.cumsum(lax.population_count(words).astype(jnp.int32))
    ranks = jnp.arange(chunk, dtype=jnp.int32)

    def visit(state):
        first, carry = state
        indices = select(words, upto, first + ranks)
        return first + chunk, body(indices, jnp.minimum(upto[-1] - first, chunk), carry)

    return lax.while_loop(lambda state: state[0] < upto[-1], visit, (jnp.int32(0), carry))[1]


def each_spike(
    words: UInt[Array, " word"], body: Callable[[Int[Array, ""], Carry], Carry], carry: Carry, *, chunk: int = 64
) -> Carry:
    """Run `body` for every spike, one after the other; see `each_chunk`.

    Args:
        words: packed spikes.
        body: from a spiking neuron's index and the carry to the next carry.
        carry: the first carry.
        chunk: indices compacted at once; a matter of speed only.

    Returns:
        The last carry.
    """

    def visit(indices, valid, carry):
        return lax.fori_loop(0, valid, lambda k, c: body(indices[k], c), carry)

    return each_chunk(words, visit, carry, chunk=chunk)


def select(words: UInt[Array, " word"], upto: Int[Array, " word"], ranks: Int[Array, " rank"]) -> Int[Array, " rank"]:
    """Find the neurons that are the first, second … of all that spike, in the order of `each_chunk`.

    Args:
        words: packed spikes.
        upto: spikes up to and including each word.
        ranks: which, from 0; beyond the last, an arbitrary neuron is found.

    Returns:
        Their indices.
    """
    word = jnp.searchsorted(upto, ranks, side="right", method="scan_unrolled").astype(jnp.int32)
    word = jnp.minimum(word, words.shape[0] - 1)
    chosen = words[word]
    rank = ranks - (upto[word] - lax.population_count(chosen).astype(jnp.int32))
    bit = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        below = lax.population_count((chosen >> bit.astype(jnp.uint32)) & jnp.uint32((1 << width) - 1))
        beyond = rank >= below.astype(jnp.int32)
        rank = jnp.where(beyond, rank - below.astype(jnp.int32), rank)
        bit = jnp.where(beyond, bit + width, bit)
    return bit * words.shape[0] + word


def _bit_numbers(dimensions: int) -> UInt[Array, "*any"]:
    """The numbers of the bits of a word, along the last axis but one."""
    return jnp.arange(32, dtype=jnp.uint32).reshape((1,) * (dimensions - 2) + (32, 1))


_UNROLL = 4
_CHUNK = 128
"""Spikes between two emptyings of the byte counters: at most 255."""


def propagate_bits(
    rows: UInt[Array, "pre word"], spikes: Bool[Array, "step pre"], populations: tuple[int, ...], post: int
) -> Float[Array, "step population post"]:
    """Count the spikes that every neuron receives, from bit rows; see `BitRows`.

    Args:
        rows: targets of each neuron, as bits.
        spikes: who spikes.
        populations: size of each presynaptic population.
        post: number of receiving neurons.

    Returns:
        What arrives, before any delay.
    """
    return _as_one_network(partial(_bits, populations=populations, post=post), rows, spikes)


def propagate_lists(
    targets: Int[Array, "pre synapse"],
    weights: Float[Array, "pre synapse"] | None,
    spikes: Bool[Array, "step pre"],
    populations: tuple[int, ...],
    post: int,
) -> Float[Array, "step population post"]:
    """Sum the weights that every neuron receives, from lists of targets; see `RowLists`.

    Args:
        targets: of each neuron, filled up with `post`.
        weights: of these synapses; None: 1 each.
        spikes: who spikes.
        populations: size of each presynaptic population.
        post: number of receiving neurons.

    Returns:
        What arrives, before any delay.
    """
    tables = (targets, lax.stop_gradient(weights))
    return _as_one_network(partial(_lists, populations=populations, post=post), tables, spikes)


def _as_one_network(run: Callable, tables: PyTree, spikes: Bool[Array, "step pre"]):
    """Propagate; where `vmap` batches this, run one loop over the spikes of all networks.

    Batched as it stands, the loop would run as often as the busiest network needs, and touch all of them each time.

    Args:
        run: takes tables `[network, ...]`, the network of each run, and spikes `[run, step, pre]`.
        tables: one network's.
        spikes: one run's.

    Returns:
        What `run` returns, for that run.
    """

    @custom_vmap
    def many(tables, network, spikes):
        return run(tables, network, spikes)

    @many.def_vmap
    def _(size, batched, tables, network, spikes):
        own_tables = any(jax.tree.leaves(batched[0]))
        each, count = network.shape[-1], jax.tree.leaves(tables)[0].shape[1 if batched[0] and own_tables else 0]
        if own_tables:
            tables = jax.tree.map(
                lambda x, b: (x if b else jnp.broadcast_to(x, (size, *x.shape))).reshape(-1, *x.shape[2 if b else 1 :]),
                tables,
                batched[0],
            )
        if not batched[1]:
            network = jnp.broadcast_to(network, (size, each))
        if own_tables:
            network = network + count * jnp.arange(size, dtype=jnp.int32)[:, None]
        if not batched[2]:
            spikes = jnp.broadcast_to(spikes, (size, *spikes.shape))
        sent = many(tables, network.reshape(-1), spikes.reshape(-1, *spikes.shape[2:]))
        return sent.reshape(size, each, *sent.shape[1:]), True

    return many(jax.tree.map(lambda x: x[None], tables), jnp.zeros(1, jnp.int32), spikes[None])[0]


def _lists(tables, network, spikes, *, populations, post):
    """Add the lists of all spikes of the block, in one loop."""
    targets, weights = tables
    runs, steps, pre = spikes.shape
    synapses, sets = targets.shape[-1], runs * steps * len(populations)
    dtype = jnp.result_type(float) if weights is None else weights.dtype
    targets = targets.reshape(-1, synapses)
    # Lists are filled up with `post`: a slot that nobody reads.
    stride = post + 1

    def deliver(row, place, sums):
        slots = lax.dynamic_index_in_dim(targets, row, keepdims=False) + place * stride
        weight = 1
        if weights is not None:
            weight = lax.dynamic_index_in_dim(weights.reshape(-1, synapses), row, keepdims=False)
        return sums.at[slots].add(weight, mode="promise_in_bounds")

    sums = _each_located(spikes, network * pre, populations, deliver, jnp.zeros(sets * stride, dtype))
    return sums.reshape(runs, steps, len(populations), stride)[..., :post]


def _each_located(spikes, first_row, populations, deliver, sums):
    """Run `deliver` for every spike of a block, with its row of the tables and the place of its step and population."""
    words = pack(spikes)
    steps, width, total = spikes.shape[1], words.shape[-1], words.size

    def visit(indices, valid, sums):
        bit, word = indices // total, indices % total
        segment, neuron = word // width, bit * width + word % width
        population = sum((neuron >= int(b)).astype(jnp.int32) for b in np.cumsum(populations)[:-1])
        rows = first_row[segment // steps] + neuron
        places = segment * len(populations) + population
        return lax.fori_loop(0, valid, lambda k, sums: deliver(rows[k], places[k], sums), sums)

    return each_chunk(words.reshape(-1), visit, sums, chunk=_CHUNK)


def _bits(rows, network, spikes, *, populations, post):
    """Add the rows of all spikes of the block: in one loop where no counter can overflow, else step by step."""
    runs, steps, pre = spikes.shape
    width = rows.shape[-1]
    if max(populations) > 255:
        return _many_bits(rows, network, spikes, populations=populations, post=post)
    rows = rows.reshape(-1, 1, width)

    def deliver(row, place, counters):
        now = lax.dynamic_index_in_dim(counters, place, keepdims=False)
        bits = (lax.dynamic_index_in_dim(rows, row, keepdims=False) >> _shifts(32)) & 1
        return lax.dynamic_update_index_in_dim(counters, now + bits.astype(jnp.uint8), place, 0)

    counters = jnp.zeros((runs * steps * len(populations), 32, width), jnp.uint8)
    counters = _each_located(spikes, network * pre, populations, deliver, counters)
    return counters.reshape(runs, steps, len(populations), 32 * width)[..., :post].astype(jnp.result_type(float))


def _many_bits(rows, network, spikes, *, populations, post):
    """Add the rows of the spikes of each step and population, and empty the counters in between."""
    runs, steps, pre = spikes.shape
    width = rows.shape[-1]
    rows = rows.reshape(-1, 1, width)

    def counted(words, first_row):
        def visit(indices, valid, counts):
            def add(k, counters):
                for z in range(_UNROLL):
                    place = _UNROLL * k + z
                    row = lax.dynamic_index_in_dim(rows, first_row + indices[place], keepdims=False)
                    # One bit in each byte: byte q of word [j, w] is bit 8q + j of word w.
                    counters = counters + ((jnp.where(place < valid, row, 0) >> _shifts(8)) & jnp.uint32(0x01010101))
                return counters

            empty = jnp.zeros((8, width), jnp.uint32)
            return counts + _counts(lax.fori_loop(0, (valid + _UNROLL - 1) // _UNROLL, add, empty))

        return each_chunk(words, visit, jnp.zeros((32, width), jnp.result_type(float)), chunk=_CHUNK)

    sent, first = [], 0
    for size in populations:
        counts = jnp.zeros((runs * steps, 32, width), jnp.result_type(float))
        if size:
            words = pack(spikes[..., first : first + size]).reshape(runs * steps, -1)
            counts = lax.map(lambda x: counted(*x), (words, jnp.repeat(network * pre + first, steps)))
        sent.append(counts.reshape(runs, steps, 32 * width)[..., :post])
        first += size
    return jnp.stack(sent, 2)


def _counts(counters: UInt[Array, "8 word"]) -> Float[Array, "32 word"]:
    """The bytes of counters, in the order of the bits that they count."""
    bytes_ = (counters[None] >> (8 * _shifts(4))[:, None]) & jnp.uint32(255)
    return bytes_.reshape(32, counters.shape[1]).astype(jnp.int32).astype(jnp.result_type(float))


def _shifts(number: int) -> UInt[Array, "bit 1"]:
    """0, 1, 2 … as a column."""
    return jnp.arange(number, dtype=jnp.uint32)[:, None]
