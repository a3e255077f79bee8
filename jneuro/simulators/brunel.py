"""Sparse networks of excitatory and inhibitory integrate-and-fire neurons."""

from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from jneuro.core.devices import require_memory, route
from jneuro.core.random import require_key, stream
from jneuro.core.types import Array, Float, Int, Key
from jneuro.simulators.base import NON_NEGATIVE, POSITIVE, Bounds, Param, Recordable, param, preset, state, step_count
from jneuro.simulators.connectivity import (
    Bernoulli,
    BitRows,
    Connections,
    Dense,
    FixedInDegree,
    RowLists,
    Rule,
    relative_weights,
)
from jneuro.simulators.kernels.brunel import advance_block
from jneuro.simulators.kernels.events import word_count
from jneuro.simulators.kernels.noise import binomial_counts, binomial_thresholds, normal_deviates, step_words
from jneuro.simulators.kinds import as_rule
from jneuro.simulators.paths import draw_parameters
from jneuro.simulators.spiking import reset, spike, surrogate_in_force
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["Brunel"]

Propagation = Literal["auto", "dense", "bits", "rows"]

_TINY = 32
"""Neurons in a network whose matrix costs less than a loop over spikes, in any batch."""

_SMALL = 4096
"""Neurons in a network whose matrix costs less than loops over spikes on a device where loops are slow."""


_REPORT = "CNN-LSTM Voltage Forecasting on Simulated Neural Networks (2025), code"


def _report(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_REPORT, doc=doc, **options)


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

    tau_m: Param = _report(10.0, "membrane time constant", "ms", bounds=POSITIVE)
    v_rest: Param = _report(-70.0, "resting potential", "mV")
    v_reset: Param = _report(-70.0, "potential after a spike", "mV")
    v_threshold: Param = _report(-50.0, "threshold", "mV")
    j: Param = _report(0.5, "excitatory weight", "mV", bounds=NON_NEGATIVE)
    g: Param = _report(5.5, "relative inhibition", bounds=NON_NEGATIVE)
    j_external: Param = _report(0.5, "weight of a background spike", "mV", bounds=NON_NEGATIVE)
    rate_external: Param = _report(500.0, "rate of one background source", "Hz", bounds=NON_NEGATIVE)
    noise: Param = _report(0.05, "SD of the normal noise added in each step", "mV", bounds=NON_NEGATIVE)
    v_initial: Param = _report(-70.0, "mean initial potential", "mV")
    v_initial_sd: Param = _report(2.0, "SD of the initial potential", "mV", bounds=NON_NEGATIVE)
    n_excitatory: int = _report(80, "excitatory neurons; they come first", bounds=Bounds(1), static=True)
    n_inhibitory: int = _report(20, "inhibitory neurons", bounds=Bounds(0), static=True)
    rule: Rule = _report(Bernoulli(0.1), "connection rule", static=True, converter=as_rule)
    refractory: float = _report(2.0, "refractory period", "ms", bounds=NON_NEGATIVE, static=True)
    delay: float = _report(1.5, "transmission delay, of all synapses", "ms", bounds=POSITIVE, static=True)
    n_external: int = _report(8, "background sources of a neuron", bounds=Bounds(1), static=True)
    external_cap: int = param(
        32, unit="1", source="numerical", bounds=Bounds(1), doc="most background spikes in a step", static=True
    )
    dt: float = _report(0.1, "time step", "ms", bounds=POSITIVE, static=True)
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
    connections: Connections | None = None
    """Synaptic connectivity that is given, from populations of n_excitatory and n_inhibitory; `connect` keeps it."""
    structure: Connections | None = None
    """Synaptic connectivity that `connect` has drawn."""

    class State(NamedTuple):
        """The state between two steps."""

        v: Float[Array, " neuron"] = state(unit="mV", doc="membrane potential")
        refractory: Int[Array, " neuron"] = state(doc="steps for which the neuron stays frozen")
        pending: Float[Array, "delay neuron"] = state(unit="mV", doc="recurrent input under way, the next step's first")

    presets: ClassVar = ("forecasting_report", "original")
    shared: ClassVar = ("rate_external",)
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "spikes": Recordable("1", "sum", "spikes"),
    }

    def require_consistent(self) -> None:
        """Refuse combinations that cannot be simulated."""
        self._check_connections()
        step_count(self.delay, self.dt, "Brunel: delay")
        step_count(self.refractory, self.dt, "Brunel: refractory")
        rate = self.rate_external
        if isinstance(rate, jax.Array) and not isinstance(rate, Tracer) and rate.ndim == 0:
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
        """Refuse a propagation that does not exist or cannot hold the weights, and connections of another network."""
        how = self.propagation
        if how not in get_args(Propagation):
            raise ValueError(
                f"Brunel: propagation = {how!r} must be one of {', '.join(map(repr, get_args(Propagation)))}"
            )
        if how == "bits" and self.weight_variation:
            raise ValueError(
                f"Brunel: propagation = 'bits' holds equal weights only, but weight_variation = "
                f"{self.weight_variation:g}; use 'rows' or 'dense'"
            )
        sizes = (self.n_excitatory, self.n_inhibitory)
        for name, given in (("connections", self.connections), ("structure", self.structure)):
            if given is None:
                continue
            if not isinstance(given, Connections):
                raise ValueError(
                    f"Brunel: {name} must be Dense, BitRows or RowLists, got {type(given).__name__}; "
                    f"of a matrix [pre, post], take Dense(matrix, {sizes})"
                )
            if given.populations != sizes or given.shape[1] != self.neurons:
                raise ValueError(
                    f"Brunel: {name} lead from populations of {given.populations} to {given.shape[1]} neurons; "
                    f"this network has {sizes}, {self.neurons} in all"
                )

    forecasting_report = preset("The network of the voltage-forecasting report: 80 + 20 neurons, rest −70 mV, 30 Hz.")

    @classmethod
    def original(cls, g: float = 5.0, eta: float = 2.0, **overrides) -> Self:
        """The network of Brunel (2000), model A: 10,000 + 2,500 neurons, 1,000 + 250 inputs each.

        Args:
            g: relative inhibition.
            eta: background rate in units of the rate that brings a neuron to threshold, here 10 Hz a source.
            overrides: parameters by name. A smaller network keeps its in-degree with `rule=FixedInDegree(p=...)`.

        Returns:
            The network, not yet connected.
        """
        mean = 2.0 * float(eta)
        values: dict[str, Any] = {"tau_m": 20.0, "v_rest": 0.0, "v_reset": 10.0, "v_threshold": 20.0, "v_initial": 10.0}
        values |= {"j": 0.1, "g": g, "j_external": 0.1, "rate_external": 10.0 * eta, "noise": 0.0, "v_initial_sd": 3.0}
        values |= {"n_excitatory": 10_000, "n_inhibitory": 2_500, "rule": FixedInDegree(p=0.1), "n_external": 1000}
        values |= {"external_cap": round(mean + 7 * mean**0.5 + 6)}
        return cls(**(values | overrides))

    @property
    def populations(self) -> dict[str, int]:
        """Excitatory neurons first."""
        return {"excitatory": self.n_excitatory, "inhibitory": self.n_inhibitory}

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.n_excitatory + self.n_inhibitory

    @property
    def block(self) -> int:
        """The transmission delay, in steps."""
        return step_count(self.delay, self.dt)

    @property
    def adjacency(self) -> Float[Array, "pre post"]:
        """The sum of the relative weights from each neuron to each neuron."""
        return self._wiring().adjacency

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw the synaptic connectivity and its weights; the same network whatever `propagation` says.

        Args:
            key: random key.

        Returns:
            The network with its `structure`; itself, if its `connections` are given.

        Raises:
            ValueError: if `key` is no key, or the connections do not fit into memory.
        """
        require_key(key)
        self = draw_parameters(self, key, lambda network: (network.neurons,))
        if self.connections is not None:
            return self
        sizes, n = (self.n_excitatory, self.n_inhibitory), self.neurons
        need = 4 * n * (n if self._representation() == "dense" else word_count(n))
        require_memory(f"Brunel: the connections of {n:,} neurons", need, "take fewer neurons")
        rows = self.rule.rows(key, sizes, n)
        weigh = relative_weights(stream(key, "weights"), self.weight_variation) if self.weight_variation else None
        kind = self._representation()
        if kind == "dense":
            drawn = Dense.from_rows(rows, sizes, n, weigh)
        elif kind == "bits":
            drawn = BitRows(rows=rows, populations=sizes, post=n)
        else:
            drawn = RowLists.from_rows(rows, sizes, n, self.rule.most(sizes, n), weigh)
        return eqx.tree_at(lambda network: network.structure, self, drawn, is_leaf=lambda x: x is None)

    def _representation(self) -> str:
        """What `propagation` means for this network; "auto" is what measures fastest."""
        if self.propagation != "auto":
            return self.propagation
        if self.neurons <= (_SMALL if route() == "metal" else _TINY):
            return "dense"
        return "rows" if self.weight_variation else "bits"

    def _wiring(self) -> Connections:
        """The connectivity as the run needs it: a matrix where spikes have a gradient, which only that passes."""
        found = self.structure if self.connections is None else self.connections
        if found is None:
            raise ValueError("Brunel is not connected; call simulator.connect(key) first")
        if surrogate_in_force() is None or isinstance(found, Dense):
            return found
        if self.propagation in ("bits", "rows"):
            raise ValueError(
                f"Brunel: propagation = {self.propagation!r} passes no gradient to spikes, which spike_gradient is "
                "for; use propagation = 'dense'"
            )
        return Dense(found.adjacency, found.populations)

    def init(self, key: Key[Array, ""]) -> State:
        """Draw normally distributed potentials; nobody is refractory, and nothing is under way."""
        dtype = self.v_rest.dtype
        v = self.v_initial + self.v_initial_sd * jax.random.normal(key, (self.neurons,), dtype)
        return self.State(
            v=v,
            refractory=jnp.zeros(self.neurons, jnp.int32),
            pending=jnp.zeros((self.block, self.neurons), dtype),
        )

    def draw(self, key, step):
        """Draw the words that background and noise are made of."""
        return step_words(stream(key, "background"), step, self.neurons)

    def step(self, y, drive, noise):
        """Integrate, test the threshold, deliver spikes and background, reset, send."""
        arrived = y.pending[0] + self.background(noise)
        v, refractory, spikes = self.membrane(y.v, y.refractory, arrived, drive)
        pending = jnp.concatenate([y.pending[1:], self.sent(spikes[None])])
        return self.State(v, refractory, pending), {"spikes": spikes}

    def advance(self, y, drive, noise, steps):
        """See `SteppedSimulator`; `jneuro.simulators.kernels.brunel` says what is fast."""
        return advance_block(self, y, drive, noise, steps)

    def background(self, words: Int[Array, "*any"]) -> Float[Array, "*any"]:
        """What uniform words mean: background spikes and normal noise [mV]."""
        probability = self.rate_external * (self.dt * 1e-3)
        count = min(self.n_external, self.external_cap)
        counts = binomial_counts(words, binomial_thresholds(self.n_external, lax.stop_gradient(probability), count))
        # The counts are integers; their mean carries the gradient with respect to the rate.
        mean = self.n_external * probability
        counts = counts.astype(mean.dtype) + (mean - lax.stop_gradient(mean))
        return self.j_external * counts + self.noise * normal_deviates(words).astype(mean.dtype)

    def integrated(self, v: Array, drive: Array | None) -> Array:
        """A potential after a step of forward Euler [mV]."""
        towards = self.v_rest if drive is None else self.v_rest + drive
        return v + (self.dt / self.tau_m) * (towards - v)

    def membrane(self, v: Array, refractory: Array, arrived: Array, drive: Array | None) -> tuple[Array, Array, Array]:
        """Integrate, test the threshold, deliver, reset.

        Args:
            v: potential [mV].
            refractory: steps for which the neuron stays frozen.
            arrived: what spikes and background bring in this step [mV].
            drive: the mean drive [mV].

        Returns:
            Potential, refractoriness and spikes.
        """
        integrated, awake = self.integrated(v, drive), refractory == 0
        spikes = jnp.where(awake, spike(integrated - self.v_threshold), False)
        v = reset(spikes, jnp.where(awake, integrated + arrived, v), to=self.v_reset)
        return v, jnp.where(spikes.astype(bool), self.held, jnp.maximum(refractory - 1, 0)), spikes

    def sent(self, spikes: Array) -> Float[Array, "step neuron"]:
        """What spikes `[step, neuron]` bring to every neuron, a transmission delay later [mV]."""
        heard = self._wiring().propagate(spikes).astype(self.v_rest.dtype)
        return self.j * (heard[:, 0] - self.g * heard[:, 1])

    @property
    def held(self) -> int:
        """Steps for which a neuron stays frozen after the one in which it spiked."""
        return max(step_count(self.refractory, self.dt) - 1, 0)
