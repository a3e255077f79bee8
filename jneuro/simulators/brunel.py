"""Sparse networks of excitatory and inhibitory integrate-and-fire neurons."""

import dataclasses
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Self, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from jneuro.core.devices import route, scan
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key
from jneuro.simulators.background import (
    binomial_counts,
    binomial_thresholds,
    normal_deviates,
    step_words,
)
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, Bounds, Recordable, param
from jneuro.simulators.connectivity import (
    BitRows,
    Connections,
    Dense,
    RowLists,
    Rule,
    draw_rows,
    most_targets,
    relative_weights,
)
from jneuro.simulators.spiking import Surrogate, spike
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["Brunel", "BrunelState"]

Propagation = Literal["auto", "dense", "bits", "rows"]

_SPIKED = 1 << 21
"""Flag of a neuron that spiked in this block; below the bit that makes a NaN quiet in single precision."""

_TINY = 32
"""Neurons in a network whose matrix costs less than a loop over spikes, in any batch."""

_SMALL = 4096
"""Neurons in a network whose matrix costs less than loops over spikes on a device where loops are slow."""

_REPORT = "CNN-LSTM Voltage Forecasting on Simulated Neural Networks (2025), code"
_BRUNEL = "Brunel, J. Comput. Neurosci. 8 (2000) 183"


class BrunelState(NamedTuple):
    """The state between two steps.

    Attributes:
        v: membrane potential [mV].
        refractory: steps for which the neuron stays frozen.
        pending: recurrent input that is under way [mV], the next step's first.
        step: steps taken.
    """

    v: Float[Array, " neuron"]
    refractory: Int[Array, " neuron"]
    pending: Float[Array, "delay neuron"]
    step: Int[Array, ""]


class Brunel(SteppedSimulator):
    r"""A network of leaky integrate-and-fire neurons with delta synapses and random background input.

    \[ \tau_m \dot v_i = E_L - v_i + I(t) + \tau_m \sum_j J_{ij} \sum_k \delta(t - t_j^k - d) + \tau_m \xi_i(t) \]

    A neuron spikes where \(v > \theta\), is then held at `v_reset` for the refractory period, and loses what arrives
    meanwhile. One step, in this order: integrate by forward Euler, test the threshold, deliver spikes and background,
    reset. `g` is the strength of inhibition relative to excitation: inhibitory weights are \(-gJ\).

    The stimulus of `simulate` is \(I(t)\), the mean drive [mV].

    References:
        Brunel N., Journal of Computational Neuroscience 8 (2000) 183, Section 2.
    """

    tau_m: Float[Array, ""] = param(10.0, unit="ms", source=_REPORT, bounds=POSITIVE, doc="membrane time constant")
    v_rest: Float[Array, ""] = param(-70.0, unit="mV", source=_REPORT, doc="resting potential")
    v_reset: Float[Array, ""] = param(-70.0, unit="mV", source=_REPORT, doc="potential after a spike")
    v_threshold: Float[Array, ""] = param(-50.0, unit="mV", source=_REPORT, doc="threshold")
    j: Float[Array, ""] = param(0.5, unit="mV", source=_REPORT, bounds=NON_NEGATIVE, doc="excitatory weight")
    g: Float[Array, ""] = param(5.5, unit="1", source=_REPORT, bounds=NON_NEGATIVE, doc="relative inhibition")
    j_external: Float[Array, ""] = param(
        0.5, unit="mV", source=_REPORT, bounds=NON_NEGATIVE, doc="weight of a background spike"
    )
    rate_external: Float[Array, ""] = param(
        500.0, unit="Hz", source=_REPORT, bounds=NON_NEGATIVE, doc="rate of one background source"
    )
    noise: Float[Array, ""] = param(
        0.05, unit="mV", source=_REPORT, bounds=NON_NEGATIVE, doc="SD of the normal noise added in each step"
    )
    v_initial: Float[Array, ""] = param(-70.0, unit="mV", source=_REPORT, doc="mean initial potential")
    v_initial_sd: Float[Array, ""] = param(
        2.0, unit="mV", source=_REPORT, bounds=NON_NEGATIVE, doc="SD of the initial potential"
    )
    n_excitatory: int = param(
        80, unit="1", source=_REPORT, bounds=Bounds(1), doc="excitatory neurons; they come first", static=True
    )
    n_inhibitory: int = param(20, unit="1", source=_REPORT, bounds=Bounds(0), doc="inhibitory neurons", static=True)
    connection_probability: float = param(
        0.1, unit="1", source=_REPORT, bounds=FRACTION, doc="share of all pairs that are connected", static=True
    )
    rule: Rule = param("bernoulli", unit="1", source=_REPORT, doc="bernoulli or fixed_in_degree", static=True)
    refractory: float = param(2.0, unit="ms", source=_REPORT, bounds=NON_NEGATIVE, doc="refractory period", static=True)
    delay: float = param(1.5, unit="ms", source=_REPORT, bounds=POSITIVE, doc="transmission delay", static=True)
    n_external: int = param(
        8, unit="1", source=_REPORT, bounds=Bounds(1), doc="background sources of a neuron", static=True
    )
    external_cap: int = param(
        32, unit="1", source="numerical", bounds=Bounds(1), doc="most background spikes in a step", static=True
    )
    dt: float = param(0.1, unit="ms", source=_REPORT, bounds=POSITIVE, doc="time step", static=True)
    weight_variation: float = param(
        0.0,
        unit="1",
        source="equal weights in both sources",
        bounds=NON_NEGATIVE,
        doc="coefficient of variation of the log-normal weights in each population",
        static=True,
    )
    propagation: Propagation = param(
        "auto",
        unit="1",
        source="numerical",
        doc="representation of the connections: auto, dense, bits, rows",
        static=True,
    )
    surrogate: Surrogate | None = None
    """Derivative of the spike; None: spikes are boolean and carry no gradient."""
    detach_reset: bool = eqx.field(static=True, default=True)
    """Whether the reset passes no gradient back to the spike."""
    connections: Connections | None = None
    """Who hears whom: drawn by `connect`, or one's own, with the populations (n_excitatory, n_inhibitory)."""

    presets: ClassVar = ("forecasting_report", "original")
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "spikes": Recordable("1", "sum", "spikes"),
    }

    def __check_init__(self) -> None:
        """Refuse combinations that cannot be simulated."""
        super().__check_init__()
        if self.rule not in ("bernoulli", "fixed_in_degree"):
            raise ValueError(f"Brunel: rule = {self.rule!r} must be 'bernoulli' or 'fixed_in_degree'")
        self._check_connections()
        self.step_count(self.delay, "Brunel: delay")
        self.step_count(self.refractory, "Brunel: refractory")
        rate = self.rate_external
        if not isinstance(rate, Tracer) and rate.ndim == 0:
            p = float(rate) * self.dt * 1e-3
            if p >= 1:
                raise ValueError(
                    f"Brunel: rate_external = {float(rate)} Hz is more than one spike a step; lower dt = {self.dt} ms"
                )
            mean, sd = self.n_external * p, (self.n_external * p * (1 - p)) ** 0.5
            if self.external_cap < min(self.n_external, mean + 7 * sd + 5):
                raise ValueError(
                    f"Brunel: external_cap = {self.external_cap} cuts a background of mean {mean:.3g} spikes a step; "
                    f"set it to {min(self.n_external, round(mean + 7 * sd + 6))}"
                )

    def _check_connections(self) -> None:
        """Refuse a propagation that cannot do what is asked of it, and connections of another network."""
        how, given = self.propagation, self.connections
        if how not in get_args(Propagation):
            raise ValueError(
                f"Brunel: propagation = {how!r} must be one of {', '.join(map(repr, get_args(Propagation)))}"
            )
        if how == "bits" and self.weight_variation:
            raise ValueError(
                f"Brunel: propagation = 'bits' holds equal weights only, but weight_variation = "
                f"{self.weight_variation:g}; use 'rows' or 'dense'"
            )
        if self.surrogate is not None and (how in ("bits", "rows") or not isinstance(given, Dense | None)):
            found = type(given).__name__ if how in ("auto", "dense") else f"propagation = {how!r}"
            raise ValueError(
                f"Brunel: {found} passes no gradient to spikes, which the surrogate is for; use propagation = 'dense'"
            )
        if given is None:
            return
        if not isinstance(given, Connections):
            raise ValueError(f"Brunel: connections must be Dense, BitRows or RowLists, got {type(given).__name__}")
        sizes = tuple(self.populations.values())
        if given.populations != sizes or given.shape[1] != self.neurons:
            raise ValueError(
                f"Brunel: connections lead from populations of {given.populations} to {given.shape[1]} neurons; "
                f"this network has {sizes}, {self.neurons} in all"
            )

    @classmethod
    def forecasting_report(cls, **overrides) -> Self:
        """The network of the voltage-forecasting report: 80 + 20 neurons, rest −70 mV, about 30 Hz."""
        return cls(**overrides)

    @classmethod
    def original(cls, g: float = 5.0, eta: float = 2.0, **overrides) -> Self:
        """The network of Brunel (2000), model A: 10,000 + 2,500 neurons, 1,000 + 250 inputs each.

        Args:
            g: relative inhibition.
            eta: background rate in units of the rate that brings a neuron to threshold, here 10 Hz a source.
            overrides: parameters by name. A smaller network keeps its in-degree if `connection_probability` is raised.

        Returns:
            The network, not yet connected.
        """
        mean = 2.0 * float(eta)
        values = {
            "tau_m": 20.0,
            "v_rest": 0.0,
            "v_reset": 10.0,
            "v_threshold": 20.0,
            "j": 0.1,
            "g": g,
            "j_external": 0.1,
            "rate_external": 10.0 * eta,
            "noise": 0.0,
            "v_initial": 10.0,
            "v_initial_sd": 3.0,
            "n_excitatory": 10_000,
            "n_inhibitory": 2_500,
            "rule": "fixed_in_degree",
            "n_external": 1000,
            "external_cap": round(mean + 7 * mean**0.5 + 6),
        }
        return cls(**(values | overrides))

    @property
    def populations(self) -> dict[str, int]:
        """Excitatory neurons first."""
        return {"excitatory": self.n_excitatory, "inhibitory": self.n_inhibitory}

    @property
    def longest_block(self) -> int:
        """The transmission delay, in steps."""
        return self.step_count(self.delay)

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw who hears whom, and how strongly; the same network whatever `propagation` says."""
        sizes, n = (self.n_excitatory, self.n_inhibitory), self.neurons
        rows = draw_rows(key, self.rule, sizes, n, self.connection_probability)
        weigh = relative_weights(stream(key, "weights"), self.weight_variation) if self.weight_variation else None
        kind = self._representation()
        if kind == "dense":
            connections = Dense.from_rows(rows, sizes, n, weigh)
        elif kind == "bits":
            connections = BitRows(rows=rows, populations=sizes, post=n)
        else:
            connections = RowLists.from_rows(rows, sizes, n, most_targets(n, self.connection_probability, n), weigh)
        return dataclasses.replace(self, connections=connections)

    def _representation(self) -> str:
        """What `propagation` means for this network; "auto" is what measures fastest."""
        if self.propagation != "auto":
            return self.propagation
        if self.surrogate is not None or self.neurons <= (_SMALL if route() == "metal" else _TINY):
            return "dense"
        return "rows" if self.weight_variation else "bits"

    def init(self, key: Key[Array, ""]) -> BrunelState:
        """Draw normally distributed potentials; nobody is refractory, and nothing is under way."""
        dtype = self.v_rest.dtype
        v = self.v_initial + self.v_initial_sd * jax.random.normal(key, (self.neurons,), dtype)
        return BrunelState(
            v=v,
            refractory=jnp.zeros(self.neurons, jnp.int32),
            pending=jnp.zeros((self.longest_block, self.neurons), dtype),
            step=jnp.int32(0),
        )

    def draw(self, key, first_step, steps):
        """Draw the words that background and noise are made of."""
        return step_words(stream(key, "background"), first_step, steps, self.neurons)

    def take(self, state, drive, noise, steps):
        """See `SteppedSimulator`; a block is the transmission delay."""
        if self.connections is None:
            raise ValueError("Brunel is not connected; call simulator.connect(key) first")
        # A neuron that spikes at most once in a block leaves a state that tells when.
        once = self.surrogate is None and self.step_count(self.refractory) >= steps
        v, refractory, vs, spikes = (_one_array if once else _in_turn)(
            steps,
            dataclasses.replace(self, connections=None),
            state._replace(pending=state.pending[:steps]),
            None if drive is None else jnp.broadcast_to(drive, (steps, self.neurons)),
            noise,
        )
        heard = self.connections.propagate(spikes).astype(v.dtype)
        sent = self.j * (heard[:, 0] - self.g * heard[:, 1])
        pending = jnp.concatenate([state.pending[steps:], sent])
        return BrunelState(v, refractory, pending, state.step + steps), {"v": vs, "spikes": spikes}

    def _received(self, words):
        """What uniform words mean: background spikes and normal noise [mV]."""
        probability = self.rate_external * (self.dt * 1e-3)
        count = min(self.n_external, self.external_cap)
        counts = binomial_counts(words, binomial_thresholds(self.n_external, lax.stop_gradient(probability), count))
        # The counts are integers; their mean carries the gradient with respect to the rate.
        mean = self.n_external * probability
        counts = counts.astype(mean.dtype) + (mean - lax.stop_gradient(mean))
        return self.j_external * counts + self.noise * normal_deviates(words).astype(mean.dtype)

    def _integrate(self, v, arrived, drive):
        """Integrate and deliver: an awake neuron's potential after a step, and how far above threshold it was [mV]."""
        towards = self.v_rest if drive is None else self.v_rest + drive
        integrated = v + (self.dt / self.tau_m) * (towards - v)
        return integrated + arrived, integrated - self.v_threshold

    def _step(self, carry, arriving):
        """Integrate, test, deliver, reset."""
        v, refractory = carry
        moved, above = self._integrate(v, *arriving)
        active = refractory == 0
        after = jnp.where(active, moved, v)
        if self.surrogate is None:
            spikes = fired = active & (above > 0)
            after = jnp.where(fired, self.v_reset, after)
        else:
            spikes = jnp.where(active, spike(above, self.surrogate), 0)
            fired = spikes > 0
            gate = lax.stop_gradient(spikes) if self.detach_reset else spikes
            after = (1 - gate) * after + gate * self.v_reset
        refractory = jnp.where(fired, self._held, jnp.maximum(refractory - 1, 0))
        return (after, refractory), (after, spikes)

    @property
    def _held(self) -> int:
        """Steps for which a neuron stays frozen after the one in which it spiked."""
        return max(self.step_count(self.refractory) - 1, 0)


def _in_turn(steps, simulator, state, drive, words):
    """Take the steps of a block in a loop: potential, refractoriness, and potentials and spikes of every step."""
    arriving = state.pending + simulator._received(words)
    (v, refractory), (vs, spikes) = scan(
        lambda c, x: simulator._step(c, x), (state.v, state.refractory), (arriving, drive)
    )
    return v, refractory, vs, spikes


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _one_array(steps, simulator, state, drive, words):
    """The same as `_in_turn`, with one array to carry, for neurons that spike at most once in a block.

    A step with several results computes what they share once for each. This one has a single result, the bits of the
    potential; in its place, neurons that are refractory have a signalling NaN, which no arithmetic yields. Its payload
    is the number of steps that are left, and a flag if the spike was in this block.
    """
    held = simulator._held
    integer = jnp.int32 if state.v.dtype == jnp.float32 else jnp.int64
    start = lax.bitcast_convert_type(state.v, integer)
    infinity = lax.bitcast_convert_type(jnp.asarray(jnp.inf, state.v.dtype), integer)

    def marked(code):
        return (code > infinity) & (code < infinity + 2 * _SPIKED)

    def decoded(code):
        before = jnp.where(code > infinity + _SPIKED - 1, simulator.v_reset, state.v)
        return jnp.where(marked(code), before, lax.bitcast_convert_type(code, state.v.dtype))

    def step(code, arriving):
        pending, words, drive = arriving
        arrived = pending + simulator._received(words)
        v, above = simulator._integrate(lax.bitcast_convert_type(code, state.v.dtype), arrived, drive)
        awake = jnp.where(above > 0, infinity + (_SPIKED + held), lax.bitcast_convert_type(v, integer))
        frozen = jnp.where(code == infinity + 1, start, code - 1)
        code = jnp.where(marked(code), frozen, awake)
        return code, decoded(code)

    code = jnp.where(state.refractory > 0, infinity + state.refractory.astype(integer), start)
    code, vs = scan(step, code, (state.pending, words, drive))
    left = jnp.where(marked(code), code - infinity, 0).astype(jnp.int32)
    spikes = left[None] == _SPIKED + held - jnp.arange(steps - 1, -1, -1, dtype=jnp.int32)[:, None]
    v = decoded(code)
    return v, left & (_SPIKED - 1), jnp.concatenate([vs[:-1], v[None]]), spikes


@_one_array.defjvp
def _(steps, primals, tangents):
    return jax.jvp(partial(_in_turn, steps), primals, tangents)
