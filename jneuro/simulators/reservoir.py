"""Izhikevich's network with axonal delays and spike-timing-dependent plasticity."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.custom_batching import sequential_vmap

from jneuro.core.devices import scan
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key, UInt
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, Bounds, Recordable, param
from jneuro.simulators.delays import DelayedSynapses, Synapses, draw_delayed, raster_width, resend, send
from jneuro.simulators.events import pack, unpack
from jneuro.simulators.plasticity import PairRule, histogram, pair_changes, pair_step
from jneuro.simulators.spiking import Surrogate, spike
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["IzhikevichReservoir", "OnlineState", "ReservoirState"]

_CELL = "Izhikevich, Neural Comput. 18 (2006) 245"
_NET = "Kulkarni et al., NICE (2023); STACS, network polynet"


class ReservoirState(NamedTuple):
    """The state between two steps, with spikes as events.

    Attributes:
        v: membrane potential [mV].
        u: recovery current [pA].
        pending: input that is under way [pA], the next step's first.
        weights: plastic weights [pA], row by row; 0 where a row has no more synapses.
        change: what earlier intervals left of the changes of the weights [pA]; the present one adds its own at its end.
        raster: packed spikes of the present interval and, before it, of the longest lag; empty in a fixed network.
        trace: e^(−t/τ) of the time since each neuron's last spike before the raster.
        step: steps taken.
    """

    v: Float[Array, " neuron"]
    u: Float[Array, " neuron"]
    pending: Float[Array, "delay neuron"]
    weights: Float[Array, "pre synapse"]
    change: Float[Array, "pre synapse"]
    raster: UInt[Array, "step word"]
    trace: Float[Array, " neuron"]
    step: Int[Array, ""]


class OnlineState(NamedTuple):
    """The state between two steps, with plasticity that acts at once and can be differentiated.

    Attributes:
        v: membrane potential [mV].
        u: recovery current [pA].
        weights: plastic weights [pA], row by row; 0 where a row has no more synapses.
        change: the changes of the weights so far [pA].
        arrivals: e^(−t/τ) of the time since each synapse's last arrival.
        trace: e^(−t/τ) of the time since each neuron's last spike.
        spikes: the spikes of the longest lag, the last step's first.
        step: steps taken.
    """

    v: Float[Array, " neuron"]
    u: Float[Array, " neuron"]
    weights: Float[Array, "pre synapse"]
    change: Float[Array, "pre synapse"]
    arrivals: Float[Array, "pre synapse"]
    trace: Float[Array, " neuron"]
    spikes: Float[Array, "delay neuron"]
    step: Int[Array, ""]


class _Run(NamedTuple):
    """What the steps of a block hand on; rows of neurons are padded, and `ring` is flat, with its next row at `row`."""

    v: Array
    u: Array
    arriving: Array
    ring: Array
    row: Array
    rows: Array
    change: Array
    raster: Array
    trace: Array
    step: Array


class IzhikevichReservoir(SteppedSimulator):
    r"""Excitatory and inhibitory Izhikevich neurons, with delays of many lengths and plastic excitatory synapses.

    \[ \dot v = 0.04 v^2 + 5 v + 140 - u + I, \qquad \dot u = a (b v - u) \]

    and, where \(v \ge v_{peak}\): a spike, \(v \leftarrow c\), \(u \leftarrow u + d\). A step advances v in two halves,
    then u, then tests for a spike; potentials are recorded after the reset. So a spike lies at the end of its step; it
    arrives after the synapse's delay, and is an input to the step that begins there, for this one step. Excitatory
    synapses reach all neurons, after delays between `delay_min` and `delay_max`; inhibitory ones reach the excitatory
    neurons, after `delay_inhibitory`, and are fixed; no neuron hears itself. In each step, `thalamic_count` neurons,
    drawn at random, with replacement, receive `thalamic_amplitude`.

    Plasticity is pair-based, between nearest neighbours, as `PairRule` says. Its changes add up in \(\Delta w\), which
    acts once in every `update_interval`:
    \(w \leftarrow \mathrm{clip}(w + w_{drift} + \Delta w, 0, w_{max})\), then \(\Delta w \leftarrow\) `change_decay`
    \(\Delta w\). A spike under way arrives with the new weight. The order within a step matters: if arrivals came
    a step sooner, and the spikes of that step potentiated them in full, the rates would settle at 5 and 40 Hz, not at
    3.5 and 26 Hz.

    Without a surrogate, spikes are events, and plasticity is one pass over the spikes of an interval; `jax.vmap` runs
    network after network. With one, every synapse carries its traces from step to step, which gradients pass through in
    both modes: the same run, some 50 times slower. Reverse mode stores those traces: give `simulate` a `checkpoint`.

    The stimulus of `simulate` is added to I [pA]. Through time, `weight_histogram` with `record_every` of one interval
    shows the weights; `weights(final_state)` are the last ones, in the order of `synapses()`.

    References:
        Izhikevich E. M., Neural Computation 18 (2006) 245, Section 2. There every neuron has exactly 100 synapses, and
        a thalamic input is 20 pA to one neuron in a millisecond.
        Kulkarni et al., Neuro-Inspired Computational Elements Conference (2023), for this network and its plasticity.
    """

    a_excitatory: Float[Array, ""] = param(0.02, unit="1/ms", source=_CELL, bounds=NON_NEGATIVE, doc="recovery's rate")
    b_excitatory: Float[Array, ""] = param(0.2, unit="nS", source=_CELL, doc="sensitivity of recovery to v")
    c_excitatory: Float[Array, ""] = param(-65.0, unit="mV", source=_CELL, doc="potential after a spike")
    d_excitatory: Float[Array, ""] = param(8.0, unit="pA", source=_CELL, doc="jump of recovery at a spike")
    a_inhibitory: Float[Array, ""] = param(0.1, unit="1/ms", source=_CELL, bounds=NON_NEGATIVE, doc="recovery's rate")
    b_inhibitory: Float[Array, ""] = param(0.2, unit="nS", source=_CELL, doc="sensitivity of recovery to v")
    c_inhibitory: Float[Array, ""] = param(-65.0, unit="mV", source=_CELL, doc="potential after a spike")
    d_inhibitory: Float[Array, ""] = param(2.0, unit="pA", source=_CELL, doc="jump of recovery at a spike")
    v_peak: Float[Array, ""] = param(30.0, unit="mV", source=_CELL, doc="potential at which a spike is cut")
    v_initial: Float[Array, ""] = param(-65.0, unit="mV", source=_CELL, doc="initial potential")
    u_initial: Float[Array, ""] = param(-13.0, unit="pA", source=_CELL, doc="initial recovery current")
    weight_initial: Float[Array, ""] = param(6.0, unit="pA", source=_NET, doc="initial weight of plastic synapses")
    weight_inhibitory: Float[Array, ""] = param(-5.0, unit="pA", source=_NET, doc="weight of inhibitory synapses")
    weight_max: Float[Array, ""] = param(10.0, unit="pA", source=_NET, bounds=POSITIVE, doc="greatest plastic weight")
    weight_drift: Float[Array, ""] = param(0.01, unit="pA", source=_NET, doc="growth of a weight in an interval")
    potentiation: Float[Array, ""] = param(0.1, unit="pA", source=_NET, bounds=NON_NEGATIVE, doc="of a pair, at once")
    depression: Float[Array, ""] = param(0.12, unit="pA", source=_NET, bounds=NON_NEGATIVE, doc="of a pair, at once")
    tau_stdp: Float[Array, ""] = param(20.0, unit="ms", source=_NET, bounds=POSITIVE, doc="time constant of traces")
    change_decay: Float[Array, ""] = param(0.9, unit="1", source=_NET, bounds=FRACTION, doc="share of Δw that stays")
    thalamic_amplitude: Float[Array, ""] = param(20.0, unit="pA", source=_CELL, doc="input to a drawn neuron")
    thalamic_count: int = param(1, unit="1", source=_CELL, bounds=Bounds(0), doc="neurons drawn in a step", static=True)
    n_excitatory: int = param(800, unit="1", source=_CELL, bounds=Bounds(1), doc="first neurons", static=True)
    n_inhibitory: int = param(200, unit="1", source=_CELL, bounds=Bounds(0), doc="inhibitory neurons", static=True)
    probability_excitatory: float = param(
        0.1, unit="1", source=_NET, bounds=FRACTION, doc="share of all neurons that one reaches", static=True
    )
    probability_inhibitory: float = param(
        0.125, unit="1", source=_NET, bounds=FRACTION, doc="share of the excitatory that one reaches", static=True
    )
    delay_min: float = param(1.0, unit="ms", source=_CELL, bounds=POSITIVE, doc="least delay", static=True)
    delay_max: float = param(20.0, unit="ms", source=_CELL, bounds=POSITIVE, doc="greatest delay", static=True)
    delay_inhibitory: float = param(1.0, unit="ms", source=_CELL, bounds=POSITIVE, doc="fixed delay", static=True)
    update_interval: float = param(1000.0, unit="ms", source=_NET, bounds=POSITIVE, doc="between updates", static=True)
    weight_bins: int = param(20, unit="1", source="numerical", bounds=Bounds(1), doc="of the histogram", static=True)
    dt: float = param(1.0, unit="ms", source=_CELL, bounds=POSITIVE, doc="time step", static=True)
    plastic: bool = eqx.field(static=True, default=True)
    """Whether the weights change."""
    surrogate: Surrogate | None = None
    """Derivative of the spike; None: spikes are boolean events and carry no gradient."""
    detach_reset: bool = eqx.field(static=True, default=True)
    """Whether the jumps of v and u at a spike pass no gradient back to the spike."""
    connections: DelayedSynapses | None = None
    """Who hears whom, once drawn by `connect`."""

    presets: ClassVar = ("polychronization",)
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "u": Recordable("pA", "last", "recovery current"),
        "spikes": Recordable("1", "sum", "spikes"),
        "weight_mean": Recordable("pA", "last", "mean plastic weight"),
        "weight_histogram": Recordable("1", "last", "share of plastic weights in equal bins between 0 and the maximum"),
    }

    def __check_init__(self) -> None:
        """Refuse combinations that cannot be simulated."""
        super().__check_init__()
        for name in ("delay_min", "delay_max", "delay_inhibitory", "update_interval"):
            if self.step_count(getattr(self, name), f"IzhikevichReservoir: {name}") < 1:
                raise ValueError(f"IzhikevichReservoir: {name} = {getattr(self, name)} ms is less than dt = {self.dt}")
        if self.delay_max < max(self.delay_min, self.delay_inhibitory):
            raise ValueError(
                f"IzhikevichReservoir: delay_max = {self.delay_max} ms must not be less than "
                f"delay_min = {self.delay_min} ms or delay_inhibitory = {self.delay_inhibitory} ms"
            )
        for name in ("c_excitatory", "c_inhibitory", "v_initial"):
            value, peak = getattr(self, name), self.v_peak
            known = not (isinstance(value, Tracer) or isinstance(peak, Tracer))
            if known and np.any(np.asarray(value) >= np.asarray(peak)):
                raise ValueError(f"IzhikevichReservoir: {name} = {value} mV must lie below v_peak = {peak} mV")

    @classmethod
    def polychronization(cls, **overrides) -> Self:
        """The network in which polychronous groups were found: 800 + 200 neurons, delays of 1 to 20 ms, STDP."""
        return cls(**overrides)

    @property
    def populations(self) -> dict[str, int]:
        """Excitatory neurons first."""
        return {"excitatory": self.n_excitatory, "inhibitory": self.n_inhibitory}

    @property
    def longest_block(self) -> int:
        """The update interval, in steps: a block has at most one update."""
        return self.step_count(self.update_interval)

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw who hears whom, and how late."""
        low, high, inhibitory = (self._lag(d) for d in (self.delay_min, self.delay_max, self.delay_inhibitory))
        sizes = (self.n_excitatory, self.n_inhibitory)
        probabilities = (self.probability_excitatory, self.probability_inhibitory)
        return dataclasses.replace(self, connections=draw_delayed(key, sizes, probabilities, (low, high), inhibitory))

    def init(self, key: Key[Array, ""]) -> ReservoirState | OnlineState:
        """All neurons and weights start alike; nothing is under way. The key is not used."""
        synapses, dtype = self._synapses(), self.v_initial.dtype
        neurons, lag = self.neurons, self._lag(self.delay_max)
        weights = jnp.where(synapses.exists[: self.n_excitatory], self.weight_initial, 0)
        common = {
            "v": jnp.full(neurons, self.v_initial),
            "u": jnp.full(neurons, self.u_initial),
            "weights": weights,
            "change": jnp.zeros((self.n_excitatory if self.plastic else 0, weights.shape[1]), dtype),
            "trace": jnp.zeros(neurons, dtype),
            "step": jnp.int32(0),
        }
        past = jnp.zeros((lag, neurons), dtype)
        if self.surrogate is not None:
            return OnlineState(**common, arrivals=jnp.zeros(synapses.place.shape, dtype), spikes=past)
        rows = lag + self.longest_block if self.plastic else 0
        raster = jnp.zeros((rows, raster_width(neurons) // 32), jnp.uint32)
        return ReservoirState(**common, pending=past, raster=raster)

    def synapses(self) -> Synapses:
        """List the synapses, the plastic ones first; not inside `jit`, because their number depends on the draw."""
        lag, post = jnp.divmod(self._synapses().outgoing, raster_width(self.neurons))
        pre, slot = jnp.nonzero(self._synapses().exists)
        return Synapses(pre, post[pre, slot], (lag[pre, slot] - 1) * self.dt, pre < self.n_excitatory)

    def weights(self, state: ReservoirState | OnlineState) -> Float[Array, " synapse"]:
        """The weight of every synapse [pA], in the order of `synapses`."""
        return self._rows(state.weights)[jnp.nonzero(self._synapses().exists)]

    def draw(self, key, first_step, steps):
        """Draw who receives thalamic input."""
        key = stream(key, "thalamus")
        return jax.vmap(
            lambda s: jax.random.randint(jax.random.fold_in(key, s), (self.thalamic_count,), 0, self.neurons)
        )(first_step + jnp.arange(steps, dtype=jnp.int32))

    def take(self, state, drive, noise, steps):
        """See `SteppedSimulator`; a block is the update interval."""
        step, chosen = state.step + jnp.arange(steps, dtype=jnp.int32), noise
        surrogate = self.surrogate
        if surrogate is None:
            # The networks of a batch run one after the other: each visits spikes of its own.
            arrays, rest = eqx.partition(self, eqx.is_array)
            events = sequential_vmap(lambda arrays, *inputs: eqx.combine(arrays, rest)._events(*inputs))
            return events(arrays, state, drive, chosen, step)
        new, seen = scan(lambda s, x: self._online_step(surrogate, s, x), state, (chosen, drive))
        return new, seen | self._weight_records(state, new, step)

    def _synapses(self) -> DelayedSynapses:
        """The connections, which must have been drawn."""
        if self.connections is None:
            raise ValueError("IzhikevichReservoir is not connected; call simulator.connect(key) first")
        return self.connections

    def _lag(self, delay: float) -> int:
        """Steps from the one at whose end a spike lies to the one that it acts on."""
        return self.step_count(delay) + 1

    def _rows(self, weights):
        """The weights of all synapses, row by row."""
        fixed = jnp.where(self._synapses().exists[self.n_excitatory :], self.weight_inhibitory, 0)
        return jnp.concatenate([weights, fixed])

    def _by_population(self, name: str, size: int):
        """A parameter for every neuron."""
        excitatory, inhibitory = getattr(self, f"{name}_excitatory"), getattr(self, f"{name}_inhibitory")
        return jnp.where(jnp.arange(size) < self.n_excitatory, excitatory, inhibitory)

    def _rule(self) -> PairRule:
        """The plasticity of one step."""
        return PairRule(self.potentiation, self.depression, jnp.exp(-self.dt / self.tau_stdp))

    def _updated(self, weights, change):
        """The weights after an update, and what is left of their changes."""
        new = jnp.clip(weights + self.weight_drift + change, 0, self.weight_max)
        return jnp.where(self._synapses().exists[: self.n_excitatory], new, 0), self.change_decay * change

    def _weight_records(self, state, new, step):
        """Mean and histogram of the weights: before the update of this block, if it has one, and from there on."""
        exists = self._synapses().exists[: self.n_excitatory]
        learned = (step + 1) // self.longest_block > state.step // self.longest_block
        count = jnp.maximum(exists.sum(), 1)
        mean = [s.weights.sum() / count for s in (new, state)]
        shares = [histogram(s.weights / self.weight_max, exists, self.weight_bins)[None] for s in (new, state)]
        return {"weight_mean": jnp.where(learned, *mean), "weight_histogram": jnp.where(learned[:, None], *shares)}

    def _integrated(self, v, u, current):
        """One step of the membrane in two halves, then of recovery."""
        half = 0.5 * self.dt
        for _ in range(2):
            v = v + half * ((0.04 * v + 5.0) * v + 140.0 - u + current)
        a, b = self._by_population("a", v.shape[0]), self._by_population("b", v.shape[0])
        return v, u + self.dt * (a * (b * v - u))

    def _events(self, state, drive, chosen, step):
        """Take the steps of a block, spike by spike."""
        width, neurons = raster_width(self.neurons), self.neurons
        v, u, trace = (jnp.pad(x, (0, width - neurons)) for x in (state.v, state.u, state.trace))
        pending = jnp.pad(state.pending, ((0, 1), (0, width - neurons)))
        ring, rows = pending.reshape(-1), self._rows(state.weights)
        run = _Run(v, u, pending[0], ring, jnp.int32(0), rows, state.change, state.raster, trace, state.step)
        run, (v, u, words) = scan(lambda r, x: self._event_step(r, x), run, (chosen, drive))
        ring = jnp.roll(run.ring.reshape(-1, width), -run.row, 0)
        spiked = run.v[:neurons] >= self.v_peak
        new = ReservoirState(
            v=jnp.where(spiked, self._by_population("c", neurons), run.v[:neurons]),
            u=jnp.where(spiked, run.u[:neurons] + self._by_population("d", neurons), run.u[:neurons]),
            pending=ring[:-1, :neurons],
            weights=run.rows[: self.n_excitatory],
            change=run.change,
            raster=run.raster,
            trace=run.trace[:neurons],
            step=run.step,
        )
        seen = {"v": v, "u": u, "spikes": unpack(words, neurons)}
        return new, seen | self._weight_records(state, new, step)

    def _event_step(self, run: _Run, inputs):
        """Reset, integrate, test, send; the potential is handed on before its reset."""
        chosen, drive = inputs
        width, neurons = raster_width(self.neurons), self.neurons
        real = jnp.arange(width) < neurons
        ring = lax.dynamic_update_slice(run.ring, jnp.zeros(width, run.v.dtype), (run.row * width,))
        current = run.arriving.at[chosen].add(self.thalamic_amplitude, mode="promise_in_bounds")
        if drive is not None:
            current = current + jnp.pad(jnp.broadcast_to(drive, neurons), (0, width - neurons))
        c, d = self._by_population("c", width), self._by_population("d", width)
        spiked = (run.v >= self.v_peak) & real
        v, u = jnp.where(spiked, c, run.v), jnp.where(spiked, run.u + d, run.u)
        v, u = self._integrated(v, u, current)
        spiked = (v >= self.v_peak) & real
        words = pack(spiked)
        ring = send(self._synapses(), run.rows, words, ring, run.row)
        step, row = run.step + 1, (run.row + 1) % (ring.size // width)
        run = run._replace(v=v, u=u, ring=ring, row=row, step=step)
        if self.plastic:
            at = self._lag(self.delay_max) + (step - 1) % self.longest_block
            run = run._replace(raster=lax.dynamic_update_slice_in_dim(run.raster, words[None], at, 0))
            due = (step % self.longest_block == 0).astype(jnp.int32)
            # A loop of one turn or none: its carry stays in place, where branches of a condition would copy it.
            run = lax.fori_loop(0, due, lambda _, r: self._learned(r), run)
        arriving = lax.dynamic_slice(run.ring, (run.row * width,), (width,))
        seen = jnp.where(spiked, c, v)[:neurons], jnp.where(spiked, u + d, u)[:neurons], words
        return run._replace(arriving=arriving), seen

    def _learned(self, run: _Run) -> _Run:
        """Update the weights at the end of an interval, and send again what is under way."""
        lag = self._lag(self.delay_max)
        change, trace = pair_changes(self._synapses(), run.raster, run.trace, self._rule(), lag)
        weights, change = self._updated(run.rows[: self.n_excitatory], run.change + change)
        rows, recent = self._rows(weights), run.raster[-lag:]
        return run._replace(
            ring=resend(self._synapses(), rows, recent),
            row=jnp.int32(0),
            rows=rows,
            change=change,
            raster=jnp.zeros_like(run.raster).at[:lag].set(recent),
            trace=trace,
        )

    def _online_step(self, surrogate: Surrogate, state: OnlineState, inputs):
        """Arrive, integrate, test, learn, reset."""
        chosen, drive = inputs
        neurons, excitatory = self.neurons, self.n_excitatory
        lag, post = jnp.divmod(self._synapses().outgoing, raster_width(neurons))
        arrived = jnp.where(self._synapses().exists, state.spikes[lag - 1, jnp.arange(neurons)[:, None]], 0)
        received = jnp.zeros(neurons + 1, state.v.dtype).at[post].add(self._rows(state.weights) * arrived)
        current = received[:neurons].at[chosen].add(self.thalamic_amplitude)
        v, u = self._integrated(state.v, state.u, current if drive is None else current + drive)
        # From the other side, because a potential at the peak is a spike.
        spikes = 1 - spike(self.v_peak - v, surrogate)
        gate = lax.stop_gradient(spikes) if self.detach_reset else spikes
        v = (1 - gate) * v + gate * self._by_population("c", neurons)
        u = u + gate * self._by_population("d", neurons)
        state = state._replace(v=v, u=u, spikes=jnp.concatenate([spikes[None], state.spikes[:-1]]), step=state.step + 1)
        if self.plastic:
            traces = state.arrivals, state.trace
            changed, traces = pair_step(self._rule(), traces, arrived[:excitatory], spikes, post[:excitatory])
            change = state.change + jnp.where(self._synapses().exists[:excitatory], changed, 0)
            weights, kept = self._updated(state.weights, change)
            due = state.step % self.longest_block == 0
            weights, change = jnp.where(due, weights, state.weights), jnp.where(due, kept, change)
            state = state._replace(weights=weights, change=change, arrivals=traces[0], trace=traces[1])
        return state, {"v": v, "u": u, "spikes": spikes}
