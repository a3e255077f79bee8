"""Spikes as packed bits: every one is visited once, in order, however many there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators.kernels.events import each_chunk, each_spike, pack, select, unpack, word_count

SIZES = (1, 5, 31, 32, 33, 100, 1000, 12_500)
RASTERS = {
    "none": lambda n: np.zeros(n, bool),
    "all": lambda n: np.ones(n, bool),
    "the first": lambda n: np.arange(n) == 0,
    "the last": lambda n: np.arange(n) == n - 1,
    "some": lambda n: np.random.default_rng(n).random(n) < 0.2,
}


def visiting_order(spikes):
    """Neurons word by word, from the documented place of a neuron's bit."""
    words = word_count(len(spikes))
    return sorted(np.flatnonzero(spikes), key=lambda n: (n % words, n // words))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("raster", RASTERS)
def test_every_spike_is_visited_once(size, raster):
    spikes = RASTERS[raster](size)

    @jax.jit
    def visited(spikes):
        def note(index, carry):
            seen, count = carry
            return seen.at[count].set(index, mode="drop"), count + 1

        return each_spike(pack(spikes), note, (jnp.full(size, -1), 0))

    seen, count = visited(spikes)
    assert count == spikes.sum()
    np.testing.assert_array_equal(seen[:count], visiting_order(spikes))
    assert np.all(seen[count:] == -1)


@pytest.mark.parametrize("chunk", [1, 7, 64, 300])
def test_the_chunk_is_a_matter_of_speed(chunk):
    spikes = RASTERS["some"](1000)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=1000))
    found = each_spike(pack(spikes), lambda i, sum_: 0.5 * sum_ + weight[i], jnp.zeros(()), chunk=chunk)
    expected = 0.0
    for i in visiting_order(spikes):
        expected = 0.5 * expected + weight[i]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)

    def check(indices, valid, sizes):
        assert indices.shape == (chunk,)
        return sizes.at[0].add(valid).at[1].add(1)

    total, rounds = each_chunk(pack(spikes), check, jnp.zeros(2, int), chunk=chunk)
    assert (total, rounds) == (spikes.sum(), -(-spikes.sum() // chunk))


@pytest.mark.parametrize("size", SIZES)
def test_bits_stand_where_they_are_said_to(size):
    spikes = RASTERS["some"](size)
    words, count = np.asarray(pack(spikes)), word_count(size)
    assert words.shape == (count,)
    assert words.dtype == np.uint32
    expected = np.zeros(count, np.uint32)
    for n in np.flatnonzero(spikes):
        expected[n % count] |= np.uint32(1) << np.uint32(n // count)
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(unpack(words, size), spikes)


def test_leading_axes_are_packed_apart():
    spikes = np.random.default_rng(0).random((3, 2, 70)) < 0.4
    words = pack(spikes)
    assert words.shape == (3, 2, 3)
    np.testing.assert_array_equal(words[2, 1], pack(spikes[2, 1]))
    np.testing.assert_array_equal(unpack(words, 70), spikes)


def test_select_finds_the_spike_of_a_rank():
    spikes = RASTERS["some"](500)
    words = pack(spikes)
    upto = np.cumsum([bin(w).count("1") for w in np.asarray(words)]).astype(np.int32)
    order = visiting_order(spikes)
    ranks = np.array([len(order) - 1, 0, 3, 3, 40], np.int32)
    np.testing.assert_array_equal(select(words, jnp.asarray(upto), jnp.asarray(ranks)), np.array(order)[ranks])


def test_batched_equals_looped():
    spikes = np.random.default_rng(2).random((5, 90)) < np.array([0.0, 0.01, 0.3, 0.9, 1.0])[:, None]

    def total(spikes):
        return each_spike(pack(spikes), lambda i, sum_: sum_ + i * i, jnp.int32(0))

    np.testing.assert_array_equal(jax.vmap(total)(spikes), (spikes * np.arange(90) ** 2).sum(1))
