"""Sparse networks of excitatory and inhibitory integrate-and-fire neurons."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from jneuro._types import Array, Float, Int, Key
from jneuro.prng import stream
from jneuro.simulators.background import binomial_counts, binomial_thresholds, normal_deviates, step_words
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, Bounds, Recordable, SteppedSimulator, param
from jneuro.simulators.connectivity import Dense, Rule, draw_adjacency
from jneuro.simulators.spiking import Surrogate, spike

__all__ = ["Brunel", "BrunelState"]

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
    surrogate: Surrogate | None = None
    """Derivative of the spike; None: spikes are boolean and carry no gradient."""
    detach_reset: bool = eqx.field(static=True, default=True)
    """Whether the reset passes no gradient back to the spike."""
    connections: Dense | None = None
    """Who hears whom, once drawn by `connect`."""

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
        """Draw who hears whom."""
        sizes = (self.n_excitatory, self.n_inhibitory)
        drawn = draw_adjacency(key, self.rule, sizes, self.neurons, self.connection_probability)
        return dataclasses.replace(self, connections=Dense(drawn))

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

    def advance(self, state, drive, key, steps):
        """See `SteppedSimulator`; a block is the transmission delay."""
        if self.connections is None:
            raise ValueError("Brunel is not connected; call simulator.connect(key) first")
        arriving = state.pending[:steps] + self._background(stream(key, "background"), state.step, steps)
        arriving = (arriving, None if drive is None else jnp.broadcast_to(drive, arriving.shape))
        (v, refractory), (vs, spikes) = lax.scan(lambda c, x: self._step(c, x), (state.v, state.refractory), arriving)
        population = jnp.where(jnp.arange(self.neurons) < self.n_excitatory, self.j, -self.g * self.j)
        sent = self.connections.propagate(spikes.astype(v.dtype) * population[None])
        pending = jnp.concatenate([state.pending[steps:], sent])
        return BrunelState(v, refractory, pending, state.step + steps), {"v": vs, "spikes": spikes}

    def _background(self, key, first_step, steps):
        """Background spikes and normal noise of a block [mV]."""
        words = step_words(key, first_step, steps, self.neurons)
        probability = self.rate_external * (self.dt * 1e-3)
        count = min(self.n_external, self.external_cap)
        counts = binomial_counts(words, binomial_thresholds(self.n_external, lax.stop_gradient(probability), count))
        # The counts are integers; their mean carries the gradient with respect to the rate.
        mean = self.n_external * probability
        counts = counts.astype(mean.dtype) + (mean - lax.stop_gradient(mean))
        return self.j_external * counts + self.noise * normal_deviates(words).astype(mean.dtype)

    def _step(self, carry, arriving):
        """Integrate, test, deliver, reset."""
        v, refractory = carry
        arrived, drive = arriving
        towards = self.v_rest if drive is None else self.v_rest + drive
        integrated = v + (self.dt / self.tau_m) * (towards - v)
        active = refractory == 0
        if self.surrogate is None:
            spikes = fired = active & (integrated > self.v_threshold)
            after = jnp.where(fired, self.v_reset, jnp.where(active, integrated + arrived, v))
        else:
            spikes = jnp.where(active, spike(integrated - self.v_threshold, self.surrogate), 0)
            fired = spikes > 0
            gate = lax.stop_gradient(spikes) if self.detach_reset else spikes
            after = jnp.where(active, integrated + arrived, v)
            after = (1 - gate) * after + gate * self.v_reset
        held = max(self.step_count(self.refractory) - 1, 0)
        refractory = jnp.where(fired, held, jnp.maximum(refractory - 1, 0))
        return (after, refractory), (after, spikes)
