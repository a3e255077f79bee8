"""Spike-timing-dependent plasticity: single pairs in closed form, any raster against a plain account of its pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators.kernels.events import pack
from jneuro.simulators.kernels.reservoir import each_event, pair_changes, resend, send
from jneuro.simulators.synapses import (
    DelayedSynapses,
    PairRule,
    by_sender,
    draw_delayed,
    histogram,
    pair_step,
    raster_width,
)

POTENTIATION, DEPRESSION, TAU = 0.1, 0.12, 20.0


@jax.jit
def changes(synapses, raster, traces, rule):
    """What the steps after the longest lag change, and the last traces; `traces` are those of the longest lag."""
    nothing = jnp.zeros(synapses.incoming.shape, traces.dtype), jnp.zeros(synapses.place.shape, traces.dtype)
    stretch = jnp.int32(len(traces)), jnp.int32(len(raster))
    gained, lost, traces = pair_changes(synapses, rule, raster, traces, stretch, nothing)
    return lost + by_sender(synapses, gained), traces


def rule(dtype=None):
    return PairRule(*(jnp.asarray(x, dtype) for x in (POTENTIATION, DEPRESSION, np.exp(-1 / TAU))))


def packed(spikes):
    width = raster_width(spikes.shape[1])
    return pack(jnp.asarray(np.pad(spikes, ((0, 0), (0, width - spikes.shape[1])))))


def listed(synapses, excitatory):
    """pre, slot, post and lag of the plastic synapses."""
    pre, slot = np.nonzero(np.asarray(synapses.exists)[:excitatory])
    lag, post = np.divmod(np.asarray(synapses.outgoing)[pre, slot], raster_width(synapses.outgoing.shape[0]))
    return pre, slot, post, lag


def one_synapse(lag):
    """Neuron 0 onto neuron 1."""
    width = raster_width(2)
    return DelayedSynapses(
        outgoing=jnp.asarray([[lag * width + 1], [width + 2]], jnp.int32),
        incoming=jnp.asarray([[2 - width], [-lag * width]], jnp.int32),
        place=jnp.asarray([[1]], jnp.int32),
    )


# Spikes lie at the ends of steps; with a delay of 3 the lag is 4, and step 10's spike arrives at the end of step 13.
PAIRS = {
    "the target long before": ([10], [2], -DEPRESSION * np.exp(-11 / TAU)),
    "the target one step before the arrival": ([10], [12], -DEPRESSION * np.exp(-1 / TAU)),
    "at one time, the spike comes first": ([10], [13], -DEPRESSION),
    "one step after the arrival": ([10], [14], POTENTIATION * np.exp(-1 / TAU)),
    "long after": ([10], [40], POTENTIATION * np.exp(-27 / TAU)),
    "only the target's last spike counts": ([10], [2, 12], -DEPRESSION * np.exp(-1 / TAU)),
    "every later spike counts once": ([10], [14, 16], POTENTIATION * (np.exp(-1 / TAU) + np.exp(-3 / TAU))),
    "only the last arrival counts": ([4, 10], [20], POTENTIATION * np.exp(-7 / TAU)),
    "arrives after the interval": ([48], [40], 0.0),
    "arrives at the interval's end, and is the next one's": ([46], [48], 0.0),
    "silence before": ([10], [], 0.0),
    "silence after": ([], [10], 0.0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_single_pairs_in_closed_form(name):
    sources, targets, expected = PAIRS[name]
    lag, interval = 4, 50
    spikes = np.zeros((lag + interval, 2), bool)
    spikes[lag + np.array(sources, int), 0] = True
    spikes[lag + np.array(targets, int), 1] = True
    change, _ = changes(one_synapse(lag), packed(spikes), jnp.zeros((lag, 32)), rule())
    assert float(change[0, 0]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def plain_changes(spikes, pre, post, lag, start, rows):
    """Follow every synapse's traces in float64, from a silent past; sum the changes of `rows` steps from `start` on."""
    leak = np.exp(-1 / TAU)
    arrivals, last, total = np.zeros(pre.size), np.zeros(spikes.shape[1]), np.zeros(pre.size)
    for t in range(start + rows):
        arrived = (t >= lag) & spikes[np.maximum(t - lag, 0), pre]
        if t >= start:
            total -= np.where(arrived, DEPRESSION * last[post], 0)
        arrivals = leak * np.where(arrived, 1, arrivals)
        if t >= start:
            total += np.where(spikes[t, post], POTENTIATION * arrivals, 0)
        last = np.where(spikes[t], 1, leak * last)
    return total


def assert_plain_account(probability, interval, tolerance):
    """Three intervals or more of a random raster."""
    sizes, longest = (40, 10), 21
    synapses = draw_delayed(jax.random.key(2), sizes, (0.3, 0.3), (2, longest), 2)
    pre, slot, post, lag = listed(synapses, sizes[0])
    intervals = max(3, 60 // interval)
    spikes = np.random.default_rng(interval).random((intervals * interval, 50)) < probability
    traces, before = jnp.zeros((longest, raster_width(50))), np.zeros((longest, 50), bool)
    for k in range(intervals):
        raster = np.concatenate([before, spikes[k * interval : (k + 1) * interval]])
        change, traces = changes(synapses, packed(raster), traces, rule())
        before = raster[-longest:]
        expected = plain_changes(spikes, pre, post, lag, k * interval, interval)
        np.testing.assert_allclose(np.asarray(change)[pre, slot], expected, rtol=0, atol=tolerance)
        assert not np.asarray(change)[~np.asarray(synapses.exists)[: sizes[0]]].any()
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("interval", [7, 300])
@pytest.mark.parametrize("probability", [0.02, 0.6, 1.0])
def test_any_raster_equals_the_plain_account(probability, interval, x64):
    assert_plain_account(probability, interval, 1e-11)


def test_single_precision_at_the_rates_of_the_network():
    assert_plain_account(0.01, 1000, 4e-7)


def test_at_once_and_afterwards_are_the_same(x64):
    sizes, longest, interval = (40, 10), 8, 120
    synapses = draw_delayed(jax.random.key(4), sizes, (0.3, 0.3), (2, longest), 2)
    pre, slot, _, lag = listed(synapses, sizes[0])
    spikes = np.random.default_rng(0).random((interval, 50)) < 0.05
    raster = np.concatenate([np.zeros((longest, 50), bool), spikes])
    afterwards, last = changes(synapses, packed(raster), jnp.zeros((longest, raster_width(50))), rule())
    gained, lost, traces = 0.0, 0.0, jnp.zeros((longest, 50))
    for t in range(interval):
        arrived = np.zeros(synapses.place.shape)
        arrived[pre, slot] = raster[longest + t - lag, pre]
        more, less, trace = pair_step(synapses, rule(), traces, jnp.asarray(arrived), jnp.asarray(spikes[t] * 1.0))
        gained, lost, traces = gained + more, lost + less, jnp.concatenate([trace[None], traces[:-1]])
    np.testing.assert_allclose(afterwards, lost + by_sender(synapses, gained), rtol=0, atol=1e-14)
    np.testing.assert_allclose(last[::-1, :50], traces, rtol=0, atol=1e-14)


@pytest.mark.parametrize("neurons", [31, 32, 100])
@pytest.mark.parametrize("probability", [0.0, 0.01, 1.0])
def test_every_event_is_visited_once_in_order(neurons, probability):
    spikes = np.random.default_rng(1).random((40, neurons)) < probability

    def visit(step, neuron, seen):
        count, log = seen
        return count + 1, log.at[count].set(jnp.stack([step, neuron]).astype(jnp.int32))

    count, log = each_event(packed(spikes), visit, (0, jnp.zeros((spikes.size + 1, 2), jnp.int32)), chunk=16)
    assert int(count) == spikes.sum()
    log = np.asarray(log)[: int(count)]
    assert np.all(np.diff(log[:, 0]) >= 0)
    assert {tuple(e) for e in log} == {tuple(e) for e in np.argwhere(spikes)}


# Synapses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(60, 20), (31, 0), (1, 3)], ids=str)
def test_drawn_synapses(sizes):
    excitatory, neurons = sizes[0], sum(sizes)
    synapses = draw_delayed(jax.random.key(0), sizes, (0.4, 0.7), (3, 9), 2)
    width = raster_width(neurons)
    pre, slot = np.nonzero(np.asarray(synapses.exists))
    lag, post = np.divmod(np.asarray(synapses.outgoing)[pre, slot], width)
    assert not np.any(pre == post)
    assert len({*zip(pre, post, strict=True)}) == pre.size
    inhibits = pre >= excitatory
    assert np.all(post[inhibits] < excitatory)
    assert np.all(lag[inhibits] == 2)
    assert np.all((lag[~inhibits] >= 3) & (lag[~inhibits] <= 9))
    incoming, place = np.asarray(synapses.incoming), np.asarray(synapses.place)
    for i, k, j, d in zip(pre[~inhibits], slot[~inhibits], post[~inhibits], lag[~inhibits], strict=True):
        row = place[i, k] // incoming.shape[1]
        assert row == j
        assert incoming.reshape(-1)[place[i, k]] == i - d * width
    assert len(set(place[np.asarray(synapses.exists)[:excitatory]])) == (~inhibits).sum()


def test_frequencies_of_connections_and_lags():
    sizes, probabilities = (400, 100), (0.1, 0.125)
    synapses = draw_delayed(jax.random.key(1), sizes, probabilities, (2, 21), 2)
    pre, slot = np.nonzero(np.asarray(synapses.exists))
    lag, post = np.divmod(np.asarray(synapses.outgoing)[pre, slot], raster_width(500))
    excites = pre < 400
    for count, pairs, p in ((excites.sum(), 400 * 499, 0.1), ((~excites).sum(), 100 * 400, 0.125)):
        assert abs(count - pairs * p) < 4.5 * np.sqrt(pairs * p * (1 - p))
    expected = excites.sum() / 20
    chi2 = ((np.bincount(lag[excites], minlength=22)[2:] - expected) ** 2 / expected).sum()
    assert chi2 < 50.0  # 19 degrees of freedom: one draw in 8000 lies above
    onto = np.bincount(post[excites], minlength=500) / 400
    assert onto.std() == pytest.approx(np.sqrt(0.09 / 400), rel=0.2)


def test_tracing_draws_the_same_network():
    arguments = ((60, 20), (0.2, 0.3), (2, 9), 2)
    eager = draw_delayed(jax.random.key(3), *arguments)
    traced = jax.jit(lambda key: draw_delayed(key, *arguments))(jax.random.key(3))
    columns = eager.outgoing.shape[1]
    assert traced.outgoing.shape[1] > columns
    np.testing.assert_array_equal(traced.outgoing[:, :columns], eager.outgoing)
    assert not np.asarray(traced.exists)[:, columns:].any()
    spikes = packed(np.random.default_rng(0).random((50, 80)) < 0.1)
    one, other = (changes(s, spikes, jnp.zeros((9, raster_width(80))), rule())[0] for s in (eager, traced))
    np.testing.assert_array_equal(other[:, :columns], one)


def test_input_under_way():
    synapses = draw_delayed(jax.random.key(5), (40, 10), (0.3, 0.4), (2, 6), 3)
    pre, slot = np.nonzero(np.asarray(synapses.exists))
    lag, post = np.divmod(np.asarray(synapses.outgoing)[pre, slot], raster_width(50))
    spikes = np.random.default_rng(0).random((6, 50)) < 0.3
    weights = np.random.default_rng(1).normal(size=synapses.outgoing.shape).astype(np.float32)
    weights[~np.asarray(synapses.exists)] = 0
    expected = np.zeros((7, 50))
    for step, neuron in np.argwhere(spikes):
        for k in np.flatnonzero(pre == neuron):
            if (later := step + lag[k] - 6) >= 0:
                expected[later, post[k]] += weights[neuron, slot[k]]
    ring = resend(synapses, jnp.asarray(weights), packed(spikes)).reshape(7, -1)[:, :50]
    np.testing.assert_allclose(ring, expected, atol=1e-5)
    # Sent one step at a time, from another row, the ring holds the same, turned.
    turned = jnp.zeros(7 * raster_width(50))
    for step in range(6):
        row = (step + 4) % 7
        turned = turned.reshape(7, -1).at[row].set(0).reshape(-1)
        turned = send(synapses, jnp.asarray(weights), packed(spikes)[step], turned, jnp.int32(row))
    np.testing.assert_allclose(np.roll(turned.reshape(7, -1)[:, :50], -3, 0), expected, atol=1e-5)


def test_histogram():
    values = jnp.asarray([[0.0, 0.04, 0.049, 0.05], [0.5, 0.96, 1.0, 7.0]])
    counted = jnp.asarray([[True, True, True, True], [True, True, True, False]])
    shares = np.asarray(histogram(values, counted, 20))
    assert dict(zip(np.flatnonzero(shares), np.rint(7 * shares[shares > 0]), strict=True)) == {0: 3, 1: 1, 10: 1, 19: 2}
