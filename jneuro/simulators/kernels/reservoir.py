"""The plastic reservoir, spike by spike: rows of synapses that an event adds at once, plasticity after the fact.

The plasticity of a whole stretch is one pass over its spikes, which gives exactly what `pair_step` sums.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap

from jneuro.core.devices import scan
from jneuro.core.types import Array, Float, Int, UInt
from jneuro.simulators.kernels.events import each_spike, pack, unpack
from jneuro.simulators.synapses import DelayedSynapses, PairRule, by_sender, filled, histogram, raster_width

__all__ = ["advance_events", "each_event", "pair_changes", "resend", "send"]


def send(
    synapses: DelayedSynapses,
    weights: Float[Array, "neuron synapse"],
    words: UInt[Array, " word"],
    ring: Float[Array, " element"],
    row: Int[Array, ""],
) -> Float[Array, " element"]:
    """Add what the spikes of one step bring to the steps to come.

    Args:
        synapses: targets and lags of every neuron.
        weights: the weight of each synapse.
        words: packed spikes.
        ring: input under way, flat: one row of `raster_width` elements for a step; the last row's next is the first.
        row: the row of the step in which they spike.

    Returns:
        The ring.
    """
    width = 32 * words.shape[0]

    def add(neuron, ring):
        element = lax.dynamic_index_in_dim(synapses.outgoing, neuron, 0, False) + row * width
        element = jnp.where(element >= ring.size, element - ring.size, element)
        arriving = lax.dynamic_index_in_dim(weights, neuron, 0, False)
        return ring.at[element].add(arriving, mode="promise_in_bounds", wrap_negative_indices=False)

    # A step of a thousand neurons has ten spikes, of ten thousand a hundred.
    return each_spike(words, add, ring, chunk=32 if width < 4096 else 64)


def resend(
    synapses: DelayedSynapses, weights: Float[Array, "neuron synapse"], raster: UInt[Array, "step word"]
) -> Float[Array, " element"]:
    """Build the ring that a stretch as long as the longest lag leaves, with the row of the next step first.

    Args:
        synapses: targets and lags of every neuron.
        weights: the weight of each synapse.
        raster: packed spikes of the stretch.

    Returns:
        The ring, see `send`.
    """
    steps, width = raster.shape[0], 32 * raster.shape[1]

    def one(step, ring):
        ring = lax.dynamic_update_slice(ring, jnp.zeros(width, ring.dtype), ((step + 1) * width,))
        return send(synapses, weights, raster[step], ring, step + 1)

    return lax.fori_loop(0, steps, one, jnp.zeros((steps + 1) * width, weights.dtype))


Carry = TypeVar("Carry")


def each_event(
    raster: UInt[Array, "step word"],
    body: Callable[[Int[Array, ""], Int[Array, ""], Carry], Carry],
    carry: Carry,
    *,
    chunk: int = 256,
) -> Carry:
    """Run `body` for every spike of a raster, step by step.

    Args:
        raster: packed spikes.
        body: from a spike's step, its neuron and the carry to the next carry.
        carry: the first carry.
        chunk: spikes found at once; a matter of speed only.

    Returns:
        The last carry.
    """
    words, per_step = raster.size, raster.shape[1]

    def visit(index, carry):
        # The raster is one long row of words, in which bit b of word w is number b * words + w.
        bit, word = index // words, index % words
        return body(word // per_step, bit * per_step + word % per_step, carry)

    return each_spike(raster.reshape(-1), visit, carry, chunk=chunk)


def pair_changes(
    synapses: DelayedSynapses,
    rule: PairRule,
    raster: UInt[Array, "step word"],
    traces: Float[Array, "lag element"],
    stretch: tuple[Int[Array, ""], Int[Array, ""]],
    sums: tuple[Float[Array, "post source"], Float[Array, "pre synapse"]],
) -> tuple[Float[Array, "post source"], Float[Array, "pre synapse"], Float[Array, "lag element"]]:
    """Add what the pairs of a stretch of steps change; see `pair_step`.

    Nothing in the dynamics reads the changes before the weights are updated, so they need not act at once. Every
    synapse's changes are added in the order of time, so that a stretch may be cut anywhere.

    Args:
        synapses: targets and lags of every neuron.
        rule: amplitudes and decay.
        raster: packed spikes; what lies after the stretch is not looked at.
        traces: of each neuron's last spike, after each of the steps before the stretch, the oldest first; as many as
            the longest lag.
        stretch: its first row of the raster, at least the longest lag, and the row after its last.
        sums: the changes so far, by receiver and by sender.

    Returns:
        The changes, by receiver and by sender; and the traces as they are before the step after the stretch.
    """
    first, end = stretch
    (gained, lost), (longest, width) = sums, traces.shape
    (pre, slots), sources = synapses.place.shape, synapses.incoming.shape[1]

    def decayed(step, flat):
        trace = lax.dynamic_slice(flat, ((step - 1) * width,), (width,))
        trace = jnp.where(unpack(raster[step], width), jnp.ones((), trace.dtype), trace * rule.decay)
        return lax.dynamic_update_slice(flat, trace, (step * width,))

    # Of all steps of the raster, flat; what lies before the longest lag, or after the stretch, is not read.
    flat = jnp.zeros(raster.shape[0] * width, traces.dtype)
    flat = lax.dynamic_update_slice(flat, traces.reshape(-1), ((first - longest) * width,))
    flat = lax.fori_loop(first, end, decayed, flat)

    def potentiate(step, post, total):
        index = lax.dynamic_index_in_dim(synapses.incoming, post, 0, False) + step * width
        return _add_row(total, rule.potentiation * rule.decay * _at(flat, index), post * sources)

    def depress(step, source, total):
        arrival = lax.dynamic_index_in_dim(synapses.outgoing, source, 0, False) + step * width
        inside = (arrival >= first * width) & (arrival < end * width)
        before = _at(flat, jnp.where(inside, arrival - width, 0))
        return _add_row(total, jnp.where(inside, -rule.depression * before, 0), source * slots)

    row = jnp.arange(raster.shape[0], dtype=jnp.int32)[:, None]
    plastic = jnp.arange(width).reshape(32, -1) < pre
    mask = (plastic.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[:, None]).sum(0, dtype=jnp.uint32)
    spiking = jnp.where((row >= first) & (row < end), raster, 0)
    sending = raster & jnp.where((row >= first - longest) & (row < end), mask, 0)
    gained = each_event(spiking, potentiate, gained.reshape(-1)).reshape(gained.shape)
    lost = each_event(sending, depress, lost.reshape(-1)).reshape(lost.shape)
    last = lax.dynamic_slice(flat, ((end - longest) * width,), (traces.size,))
    return gained, lost, last.reshape(traces.shape)


def _add_row(total, row, start):
    """Add to a stretch of a flat array, in place."""
    old = lax.dynamic_slice(total, (start,), row.shape)
    return lax.dynamic_update_slice(total, old + row, (start,))


def _at(values, index):
    """Gather at indices that are known to be inside: no clamping."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


class _Run(NamedTuple):
    """What the steps of a block hand on; rows of neurons are padded.

    Attributes:
        ring: what is under way, flat, with the next step's row at `row`.
        rows: the weights of all synapses.
        change: of the weights, kept from earlier updates; `gained` and `lost` since the last one.
        raster: packed spikes of the block and, before it, of the longest lag.
        traces: of neurons' last spikes, in as many steps as the longest lag before `since`, the oldest first.
        since: the row of the raster behind the last update, or the block's first.
    """

    v: Array
    u: Array
    arriving: Array
    ring: Array
    row: Array
    rows: Array
    change: Array
    gained: Array
    lost: Array
    raster: Array
    traces: Array
    since: Array


def advance_events(simulator, y, drive, noise, steps):
    """See `SteppedSimulator.advance`; a block is at most the update interval, so it has at most one update.

    Args:
        simulator: an `IzhikevichReservoir`, connected.
        y: its state.
        drive: the stimulus, or None.
        noise: the neurons that the thalamus drives, in each step.
        steps: at most the update interval.

    Returns:
        The state, and what can be recorded at every step.
    """
    del steps
    # The networks of a batch run one after the other: each visits spikes of its own.
    arrays, rest = eqx.partition(simulator, eqx.is_array)
    events = sequential_vmap(lambda arrays, *inputs: _events(eqx.combine(arrays, rest), *inputs))
    return events(arrays, y, drive, noise)


def _events(simulator, y, drive, chosen):
    """Take the steps of a block."""
    steps, neurons, lag = len(chosen), simulator.neurons, simulator.lag(simulator.delay_max)
    width = raster_width(neurons)

    def padded(x):
        return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, width - neurons),))

    past, rows = pack(padded(y.spikes[::-1])), simulator.rows(y.weights)
    ring = resend(simulator.synapses_drawn(), rows, past)
    kept = steps if simulator.plastic else 0
    run = _Run(
        v=padded(y.v),
        u=padded(y.u),
        arriving=ring[:width],
        ring=ring,
        row=jnp.int32(0),
        rows=rows,
        change=y.change,
        gained=y.gained,
        lost=y.lost,
        raster=jnp.concatenate([past, jnp.zeros((kept, past.shape[1]), past.dtype)]),
        traces=padded(y.traces[::-1]),
        since=jnp.int32(lag),
    )
    index = jnp.arange(steps, dtype=jnp.int32)
    run, (v, u, words) = scan(lambda r, x: _step(simulator, r, x, y.since, steps), run, (chosen, drive, index))
    if simulator.plastic:
        # What the pairs since the update add; a loop of one turn or none, as in `_step`.
        rest = (run.since < lag + steps).astype(jnp.int32)
        run = lax.fori_loop(0, rest, lambda _, r: _paired(simulator, r, lag + steps), run)
    last_words = jnp.concatenate([past, words])[steps:]
    spiked = run.v[:neurons] >= simulator.v_peak
    after = y._replace(
        v=jnp.where(spiked, simulator.by_population("c", neurons), run.v[:neurons]),
        u=jnp.where(spiked, run.u[:neurons] + simulator.by_population("d", neurons), run.u[:neurons]),
        spikes=unpack(last_words, neurons)[::-1],
        weights=run.rows[: simulator.n_excitatory],
        change=run.change,
        gained=run.gained,
        lost=run.lost,
        traces=run.traces[::-1, :neurons],
        since=(y.since + steps) % simulator.interval,
    )
    seen = {"v": v, "u": u, "spikes": unpack(words, neurons)}
    return after, seen | _weight_records(simulator, y, after, index)


def _step(simulator, run: _Run, inputs, since, steps: int):
    """Reset, integrate, test, send; the potential is handed on before its reset."""
    chosen, drive, index = inputs
    width, neurons, lag = run.v.size, simulator.neurons, simulator.lag(simulator.delay_max)
    real = jnp.arange(width) < neurons
    ring = lax.dynamic_update_slice(run.ring, jnp.zeros(width, run.v.dtype), (run.row * width,))
    current = run.arriving.at[chosen].add(simulator.thalamic_amplitude, mode="promise_in_bounds")
    if drive is not None:
        current = current + jnp.pad(jnp.broadcast_to(drive, neurons), (0, width - neurons))
    c, d = simulator.by_population("c", width), simulator.by_population("d", width)
    peak = filled(simulator.v_peak, width)
    spiked = (run.v >= peak) & real
    v, u = jnp.where(spiked, c, run.v), jnp.where(spiked, run.u + d, run.u)
    v, u = simulator.integrated(v, u, current)
    spiked = (v >= peak) & real
    words = pack(spiked)
    ring = send(simulator.synapses_drawn(), run.rows, words, ring, run.row)
    run = run._replace(v=v, u=u, ring=ring, row=(run.row + 1) % (ring.size // width))
    if simulator.plastic:
        run = run._replace(raster=lax.dynamic_update_slice_in_dim(run.raster, words[None], lag + index, 0))
        due = (since + index + 1 == simulator.interval).astype(jnp.int32)
        # A loop of one turn or none: its carry stays in place, where branches of a condition would copy it. The turn's
        # number, 0, ties the update to the loop: what no turn changes, compilers compute ahead of it, in every step.
        run = lax.fori_loop(0, due, lambda turn, r: _learned(simulator, r, index + turn, steps), run)
    arriving = lax.dynamic_slice(run.ring, (run.row * width,), (width,))
    seen = jnp.where(spiked, c, v)[:neurons], jnp.where(spiked, u + d, u)[:neurons], words
    return run._replace(arriving=arriving), seen


def _paired(simulator, run: _Run, end) -> _Run:
    """Add what the pairs since the last update change, up to a row of the raster."""
    gained, lost, traces = pair_changes(
        simulator.synapses_drawn(),
        simulator.pair_rule(),
        run.raster,
        run.traces,
        (run.since, end),
        (run.gained, run.lost),
    )
    return run._replace(gained=gained, lost=lost, traces=traces, since=jnp.asarray(end, jnp.int32))


def _learned(simulator, run: _Run, index, steps: int) -> _Run:
    """Update the weights at the end of an interval, and send again what is under way."""
    synapses, lag = simulator.synapses_drawn(), simulator.lag(simulator.delay_max)
    run = _paired(simulator, run, lag + index + 1)
    change = run.change + (run.lost + by_sender(synapses, run.gained))
    weights, change = simulator.updated(run.rows[: simulator.n_excitatory], change)
    rows = simulator.rows(weights)
    recent = lax.dynamic_slice_in_dim(run.raster, index + 1, lag, 0)
    # The next block sends again for itself.
    goes_on = (index + 1 < steps).astype(jnp.int32)
    return run._replace(
        ring=lax.fori_loop(0, goes_on, lambda _, ring: resend(synapses, rows, recent), run.ring),
        row=jnp.int32(0),
        rows=rows,
        change=change,
        gained=jnp.zeros_like(run.gained),
        lost=jnp.zeros_like(run.lost),
    )


def _weight_records(simulator, before, after, index):
    """Mean and histogram of the weights: before the update of this block, if it has one, and from there on."""
    exists = simulator.synapses_drawn().exists[: simulator.n_excitatory]
    learned = before.since + index + 1 >= simulator.interval
    count = jnp.maximum(exists.sum(), 1)
    mean = [y.weights.sum() / count for y in (after, before)]
    shares = [histogram(y.weights / simulator.weight_max, exists, simulator.weight_bins)[None] for y in (after, before)]
    return {"weight_mean": jnp.where(learned, *mean), "weight_histogram": jnp.where(learned[:, None], *shares)}
