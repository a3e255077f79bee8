"""Izhikevich's network with axonal delays and spike-timing-dependent plasticity."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jneuro.core.devices import require_memory
from jneuro.core.random import stream
from jneuro.core.types import Array, Bool, Float, Int, Key
from jneuro.simulators.base import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE,
    Bounds,
    Param,
    Recordable,
    param,
    preset,
    state,
    step_count,
)
from jneuro.simulators.kernels.reservoir import advance_events
from jneuro.simulators.spiking import reset, spike, surrogate_in_force
from jneuro.simulators.stepped import SteppedSimulator, SteppedState
from jneuro.simulators.synapses import (
    DelayedSynapses,
    PairRule,
    Synapses,
    by_sender,
    draw_delayed,
    filled,
    histogram,
    pair_step,
    raster_width,
)

__all__ = ["IzhikevichReservoir"]

_CELL = "Izhikevich, Neural Comput. 18 (2006) 245"
_NET = "Kulkarni et al., NICE (2023); STACS, network polynet"


def _cell(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_CELL, doc=doc, **options)


def _net(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_NET, doc=doc, **options)


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

    Spikes are events, and plasticity is one pass over the spikes of an interval; `jax.vmap` runs network after network.
    Where a gradient of spikes is asked for, all is followed from step to step, as `step` says it: the same run, some 50
    times slower. Reverse mode stores the changes of every step: give `simulate` a `checkpoint`.

    The stimulus of `simulate` is added to I [pA]. Through time, `weight_histogram` with `record_every` of one interval
    shows the weights; `weights(final_state)` are the last ones, in the order of `synapses()`.

    References:
        Izhikevich E. M., Neural Computation 18 (2006) 245, Section 2. There every neuron has exactly 100 synapses, and
        a thalamic input is 20 pA to one neuron in a millisecond.
        Kulkarni et al., Neuro-Inspired Computational Elements Conference (2023), for this network and its plasticity.
    """

    a_excitatory: Param = _cell(0.02, "recovery's rate", "1/ms", bounds=NON_NEGATIVE)
    b_excitatory: Param = _cell(0.2, "sensitivity of recovery to v", "nS")
    c_excitatory: Param = _cell(-65.0, "potential after a spike", "mV")
    d_excitatory: Param = _cell(8.0, "jump of recovery at a spike", "pA")
    a_inhibitory: Param = _cell(0.1, "recovery's rate", "1/ms", bounds=NON_NEGATIVE)
    b_inhibitory: Param = _cell(0.2, "sensitivity of recovery to v", "nS")
    c_inhibitory: Param = _cell(-65.0, "potential after a spike", "mV")
    d_inhibitory: Param = _cell(2.0, "jump of recovery at a spike", "pA")
    v_peak: Param = _cell(30.0, "potential at which a spike is cut", "mV")
    v_initial: Param = _cell(-65.0, "initial potential", "mV")
    u_initial: Param = _cell(-13.0, "initial recovery current", "pA")
    weight_initial: Param = _net(6.0, "initial weight of plastic synapses", "pA")
    weight_inhibitory: Param = _net(-5.0, "weight of inhibitory synapses", "pA")
    weight_max: Param = _net(10.0, "greatest plastic weight", "pA", bounds=POSITIVE)
    weight_drift: Param = _net(0.01, "growth of a weight in an interval", "pA")
    potentiation: Param = _net(0.1, "of a pair, at once", "pA", bounds=NON_NEGATIVE)
    depression: Param = _net(0.12, "of a pair, at once", "pA", bounds=NON_NEGATIVE)
    tau_stdp: Param = _net(20.0, "time constant of traces", "ms", bounds=POSITIVE)
    change_decay: Param = _net(0.9, "share of Δw that stays", bounds=FRACTION)
    thalamic_amplitude: Param = _cell(20.0, "input to a drawn neuron", "pA")
    thalamic_count: int = _cell(1, "neurons drawn in a step", bounds=Bounds(0), static=True)
    n_excitatory: int = _cell(800, "first neurons", bounds=Bounds(1), static=True)
    n_inhibitory: int = _cell(200, "inhibitory neurons", bounds=Bounds(0), static=True)
    probability_excitatory: float = _net(0.1, "share of all neurons that one reaches", bounds=FRACTION, static=True)
    probability_inhibitory: float = _net(
        0.125, "share of the excitatory that one reaches", bounds=FRACTION, static=True
    )
    delay_min: float = _cell(1.0, "least delay", "ms", bounds=POSITIVE, static=True)
    delay_max: float = _cell(20.0, "greatest delay", "ms", bounds=POSITIVE, static=True)
    delay_inhibitory: float = _cell(1.0, "fixed delay", "ms", bounds=POSITIVE, static=True)
    update_interval: float = _net(1000.0, "between updates", "ms", bounds=POSITIVE, static=True)
    weight_bins: int = param(20, unit="1", source="numerical", bounds=Bounds(1), doc="of the histogram", static=True)
    dt: float = _cell(1.0, "time step", "ms", bounds=POSITIVE, static=True)
    plastic: bool = eqx.field(static=True, default=True)
    """Whether the weights change."""
    connections: DelayedSynapses | None = None
    """Synapses and their delays, where they are given; `connect` keeps them."""
    structure: DelayedSynapses | None = None
    """Synapses and their delays, where `connect` has drawn them."""

    class State(NamedTuple):
        """The state between two steps."""

        v: Float[Array, " neuron"] = state(unit="mV", doc="membrane potential")
        u: Float[Array, " neuron"] = state(unit="pA", doc="recovery current")
        spikes: Bool[Array, "lag neuron"] | Float[Array, "lag neuron"] = state(
            doc="of the longest lag, the last step's first"
        )
        weights: Float[Array, "pre synapse"] = state(
            unit="pA", doc="plastic ones, row by row; 0 where a row has no more"
        )
        change: Float[Array, "pre synapse"] = state(
            unit="pA", doc="what earlier updates left of the changes of the weights"
        )
        gained: Float[Array, "post source"] = state(
            unit="pA", doc="potentiation since the last update, by receiver; empty if fixed"
        )
        lost: Float[Array, "pre synapse"] = state(
            unit="pA", doc="depression since the last update, by sender; empty if fixed"
        )
        traces: Float[Array, "lag neuron"] = state(doc="e^(−t/τ) of the time since each neuron's last spike, as spikes")
        since: Int[Array, ""] = state(doc="steps since the last update")

    presets: ClassVar = ("polychronization",)
    shared: ClassVar = (
        *("weight_initial", "weight_inhibitory", "weight_max", "weight_drift", "thalamic_amplitude"),
        *("potentiation", "depression", "tau_stdp", "change_decay"),
    )
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "u": Recordable("pA", "last", "recovery current"),
        "spikes": Recordable("1", "sum", "spikes"),
        "weight_mean": Recordable("pA", "last", "mean plastic weight"),
        "weight_histogram": Recordable("1", "last", "share of plastic weights in equal bins between 0 and the maximum"),
    }

    def require_consistent(self) -> None:
        """Refuse combinations that cannot be simulated."""
        for name, given in (("connections", self.connections), ("structure", self.structure)):
            if given is None:
                continue
            if not isinstance(given, DelayedSynapses):
                raise ValueError(
                    f"IzhikevichReservoir: {name} must be DelayedSynapses, got {type(given).__name__}; "
                    "`structure` of a connected network holds some"
                )
            sizes, own = (given.place.shape[-2], given.outgoing.shape[-2]), (self.n_excitatory, self.neurons)
            if sizes != own:
                raise ValueError(
                    f"IzhikevichReservoir: {name} are those of {sizes[0]} excitatory among {sizes[1]} neurons; "
                    f"this network has {own[0]} among {own[1]}"
                )
        for name in ("delay_min", "delay_max", "delay_inhibitory", "update_interval"):
            if step_count(getattr(self, name), self.dt, f"IzhikevichReservoir: {name}") < 1:
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

    polychronization = preset(
        "The network in which polychronous groups were found: 800 + 200 neurons, delays of 1 to 20 ms, STDP."
    )

    @property
    def populations(self) -> dict[str, int]:
        """Excitatory neurons first."""
        return {"excitatory": self.n_excitatory, "inhibitory": self.n_inhibitory}

    @property
    def block(self) -> int:
        """The update interval, in steps: a block has at most one update."""
        return self.interval

    @property
    def interval(self) -> int:
        """Steps between two updates of the weights."""
        return step_count(self.update_interval, self.dt)

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw the synaptic connectivity and its delays.

        Args:
            key: random key.

        Returns:
            The network with its `structure`; itself, if its `connections` are given.
        """
        self = super().connect(key)
        if self.connections is not None:
            return self
        share = max(self.probability_excitatory, self.probability_inhibitory)
        about = f"IzhikevichReservoir: the connections of {self.neurons:,} neurons"
        require_memory(about, 12 * self.neurons * round(self.neurons * share), "take fewer neurons")
        low, high, inhibitory = (self.lag(d) for d in (self.delay_min, self.delay_max, self.delay_inhibitory))
        sizes = (self.n_excitatory, self.n_inhibitory)
        probabilities = (self.probability_excitatory, self.probability_inhibitory)
        return dataclasses.replace(self, structure=draw_delayed(key, sizes, probabilities, (low, high), inhibitory))

    def init(self, key: Key[Array, ""]) -> State:
        """All neurons and weights start alike; nothing is under way. The key is not used."""
        synapses, dtype = self.synapses_drawn(), self.v_initial.dtype
        neurons, lag = self.neurons, self.lag(self.delay_max)
        weights = jnp.where(synapses.exists[: self.n_excitatory], self.weight_initial, 0)
        nothing = jnp.zeros((self.n_excitatory if self.plastic else 0, weights.shape[1]), dtype)
        return self.State(
            v=jnp.full(neurons, self.v_initial),
            u=jnp.full(neurons, self.u_initial),
            spikes=jnp.zeros((lag, neurons), bool),
            weights=weights,
            change=nothing,
            gained=jnp.zeros((neurons if self.plastic else 0, synapses.incoming.shape[1]), dtype),
            lost=nothing,
            traces=jnp.zeros((lag if self.plastic else 0, neurons), dtype),
            since=jnp.int32(0),
        )

    def synapses(self) -> Synapses:
        """List the synapses, the plastic ones first; not inside `jit`, because their number depends on the draw."""
        synapses = self.synapses_drawn()
        lag, post = jnp.divmod(synapses.outgoing, raster_width(self.neurons))
        pre, slot = jnp.nonzero(synapses.exists)
        return Synapses(pre, post[pre, slot], (lag[pre, slot] - 1) * self.dt, pre < self.n_excitatory)

    def weights(self, state: SteppedState | State) -> Float[Array, " synapse"]:
        """The weight of every synapse [pA] in a state, in the order of `synapses`."""
        y = state.y if isinstance(state, SteppedState) else state
        return self.rows(y.weights)[jnp.nonzero(self.synapses_drawn().exists)]

    def draw(self, key, step):
        """Draw who receives thalamic input."""
        key = jax.random.fold_in(stream(key, "thalamus"), step)
        return jax.random.randint(key, (self.thalamic_count,), 0, self.neurons)

    def step(self, y, drive, noise):
        """Arrive, integrate, test for spikes, learn, reset."""
        synapses, neurons, excitatory = self.synapses_drawn(), self.neurons, self.n_excitatory
        lag, post = jnp.divmod(synapses.outgoing, raster_width(neurons))
        arrived = jnp.where(synapses.exists, y.spikes[lag - 1, jnp.arange(neurons)[:, None]], 0).astype(y.v.dtype)
        received = jnp.zeros(neurons + 1, y.v.dtype).at[post].add(self.rows(y.weights) * arrived)[:neurons]
        current = received.at[noise].add(self.thalamic_amplitude) + drive
        v, u = self.integrated(y.v, y.u, current)
        spikes = spike(v - self.v_peak, inclusive=True)
        v = reset(spikes, v, to=self.by_population("c", neurons))
        u = reset(spikes, u, to=u + self.by_population("d", neurons))
        y = y._replace(v=v, u=u, spikes=jnp.concatenate([spikes[None], y.spikes[:-1]]))
        if self.plastic:
            events = spikes.astype(v.dtype)
            gained, lost, trace = pair_step(synapses, self.pair_rule(), y.traces, arrived[:excitatory], events)
            y = self._learned(y, y.gained + gained, y.lost + lost)
            y = y._replace(traces=jnp.concatenate([trace[None], y.traces[:-1]]))
        y = y._replace(since=(y.since + 1) % self.interval)
        exists = synapses.exists[:excitatory]
        seen = {
            "weight_mean": y.weights.sum() / jnp.maximum(exists.sum(), 1),
            "weight_histogram": histogram(y.weights / self.weight_max, exists, self.weight_bins),
        }
        return y, {"spikes": spikes} | seen

    def advance(self, y, drive, noise, steps):
        """See `SteppedSimulator`; `jneuro.simulators.kernels.reservoir` says what is fast."""
        if surrogate_in_force() is not None:
            return super().advance(y, drive, noise, steps)
        return advance_events(self, y, drive, noise, steps)

    def _learned(self, y: State, gained, lost) -> State:
        """Keep the changes since the last update; where it is due, let them act."""
        weights, change = self.updated(y.weights, y.change + (lost + by_sender(self.synapses_drawn(), gained)))
        due = y.since + 1 == self.interval
        return y._replace(
            weights=jnp.where(due, weights, y.weights),
            change=jnp.where(due, change, y.change),
            gained=jnp.where(due, 0, gained),
            lost=jnp.where(due, 0, lost),
        )

    def synapses_drawn(self) -> DelayedSynapses:
        """The connections, which must have been given or drawn."""
        found = self.structure if self.connections is None else self.connections
        if found is None:
            raise ValueError("IzhikevichReservoir is not connected; call simulator.connect(key) first")
        return found

    def lag(self, delay: float) -> int:
        """Steps from the one at whose end a spike lies to the one that it acts on, for a delay [ms]."""
        return step_count(delay, self.dt) + 1

    def rows(self, weights: Float[Array, "pre synapse"]) -> Float[Array, "neuron synapse"]:
        """The weights of all synapses, row by row, of the plastic ones' [pA]."""
        fixed = jnp.where(self.synapses_drawn().exists[self.n_excitatory :], self.weight_inhibitory, 0)
        return jnp.concatenate([weights, fixed])

    def by_population(self, name: str, size: int) -> Float[Array, " neuron"]:
        """A parameter for each of so many neurons: a, b, c or d."""
        excitatory, inhibitory = (
            filled(getattr(self, f"{name}_{kind}"), size) for kind in ("excitatory", "inhibitory")
        )
        return jnp.where(jnp.arange(size) < self.n_excitatory, excitatory, inhibitory)

    def pair_rule(self) -> PairRule:
        """The plasticity of one step."""
        return PairRule(self.potentiation, self.depression, jnp.exp(-self.dt / self.tau_stdp))

    def updated(self, weights: Array, change: Array) -> tuple[Array, Array]:
        """The weights after an update, and what is left of their changes [pA]."""
        new = jnp.clip(weights + self.weight_drift + change, 0, self.weight_max)
        return jnp.where(self.synapses_drawn().exists[: self.n_excitatory], new, 0), self.change_decay * change

    def integrated(self, v: Array, u: Array, current: Array) -> tuple[Array, Array]:
        """One step of the membrane in two halves, then of recovery."""
        half = 0.5 * self.dt
        for _ in range(2):
            v = v + half * ((0.04 * v + 5.0) * v + 140.0 - u + current)
        a, b = self.by_population("a", v.shape[0]), self.by_population("b", v.shape[0])
        return v, u + self.dt * (a * (b * v - u))
