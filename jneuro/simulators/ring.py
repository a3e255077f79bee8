"""A ring of excitatory and inhibitory integrate-and-fire neurons."""

from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.scipy.special import gammaln, xlogy

from jneuro.core.random import stream
from jneuro.core.types import Array, Bool, Float, Int, Key, Scalar
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, Bounds, Param, Recordable, param, state, step_count
from jneuro.simulators.kernels.noise import binomial_counts, step_words
from jneuro.simulators.spiking import reset, spike
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["RingNetwork", "Synapse"]

Synapse = Literal["delta", "current", "conductance"]

_PAPER = "Xiao and Lin, J. Comput. Neurosci. 50 (2022) 9"


def _paper(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_PAPER, doc=doc, **options)


class RingNetwork(SteppedSimulator):
    r"""Excitatory and inhibitory leaky integrate-and-fire neurons on a ring, driven by partly shared Poisson input.

    An excitatory and an inhibitory neuron sit at each of `positions` places. A neuron hears all neurons, of both kinds,
    that are at most \(\lfloor \mathtt{positions}/\mathtt{sparsity} \rfloor / 2\) places away, but not itself. Weights
    name the receiver first: `j_ei` is what an excitatory neuron receives from an inhibitory one. Potentials are pure
    numbers, from reset at 0 to threshold at 1. With the input \(s_i^x = \sum_k J^x \delta(t - t_k)\) of the external
    events, the excitatory and the inhibitory spikes, \(x = f, E, I\), the three kinds of `synapse` are

    \[ \tau \dot V_i = I(t) - V_i + \tau (s_i^f + s_i^E - s_i^I) \qquad \text{(delta)} \]
    \[ \tau \dot V_i = I(t) - V_i + \tau (g_i^f + g_i^E - g_i^I) \qquad \text{(current)} \]
    \[ \tau \dot V_i = I(t) - V_i - \tau \left[ (g_i^f + g_i^E)(V_i - V_E) + g_i^I (V_i - V_I) \right]
       \qquad \text{(conductance)} \]

    where \(\tau_x \dot g_i^x = s_i^x - g_i^x\), so that a weight is the area under one event, whatever its time
    constant. A neuron that spikes stays at `v_reset` for the refractory period; its currents and conductances go on,
    kicks are lost. A fraction `share` of the external events is common to all neurons, the rest is each neuron's own.

    One step, in this order: integrate by forward Euler, with what the last step's spikes and this step's events add;
    test the threshold; reset. Currents and conductances act from the next step on, and decay exactly.

    The stimulus of `simulate` is \(I(t)\), the mean drive [1].

    References:
        Xiao Z.-C., Lin K. K., Journal of Computational Neuroscience 50 (2022) 9, Section 2 and Figure 1.
    """

    tau_m: Param = _paper(20.0, "membrane time constant", "ms", bounds=POSITIVE)
    v_reset: Param = _paper(0.0, "potential after a spike")
    v_threshold: Param = _paper(1.0, "threshold")
    j_ee: Param = _paper(0.016, "weight from excitatory to excitatory neurons", bounds=NON_NEGATIVE)
    j_ei: Param = _paper(0.013, "weight from inhibitory to excitatory neurons", bounds=NON_NEGATIVE)
    j_ie: Param = _paper(0.018, "weight from excitatory to inhibitory neurons", bounds=NON_NEGATIVE)
    j_ii: Param = _paper(0.01, "weight from inhibitory to inhibitory neurons", bounds=NON_NEGATIVE)
    kick: Param = _paper(0.07, "weight of an external event", bounds=NON_NEGATIVE)
    rate_external: Param = _paper(550.0, "rate of the external events of one neuron", "Hz", bounds=NON_NEGATIVE)
    share: Param = _paper(0.0, "fraction of the external events common to all neurons", bounds=FRACTION)
    tau_external: Param = _paper(2.0, "decay of the external current or conductance", "ms", bounds=POSITIVE)
    tau_e: Param = _paper(2.0, "decay of the excitatory current or conductance", "ms", bounds=POSITIVE)
    tau_i: Param = _paper(5.0, "decay of the inhibitory current or conductance", "ms", bounds=POSITIVE)
    v_e: Param = _paper(14 / 3, "reversal potential of excitation")
    v_i: Param = _paper(-2 / 3, "reversal potential of inhibition")
    positions: int = _paper(300, "places on the ring, each with one neuron of each kind", bounds=Bounds(1), static=True)
    sparsity: int = _paper(10, "ring over neighbourhood, in places", bounds=Bounds(1), static=True)
    synapse: Synapse = _paper("delta", "delta, current or conductance", static=True)
    refractory: float = _paper(1.0, "refractory period", "ms", bounds=NON_NEGATIVE, static=True)
    external_cap: int = param(
        8,
        unit="1",
        source="numerical",
        bounds=Bounds(1),
        doc="most external events in a step, of either origin",
        static=True,
    )
    dt: float = _paper(0.1, "time step", "ms", bounds=POSITIVE, static=True)

    class State(NamedTuple):
        """The state between two steps."""

        v: Float[Array, " neuron"] = state(doc="membrane potential")
        refractory: Int[Array, " neuron"] = state(doc="steps for which the neuron stays frozen")
        synaptic: Float[Array, "synapse neuron"] = state(
            unit="1/ms", doc="external, excitatory, inhibitory currents or conductances; none with delta synapses"
        )
        sent: Bool[Array, " neuron"] | Float[Array, " neuron"] = state(
            doc="spikes of the last step, which arrive in the next"
        )

    presets: ClassVar = ("xiao_lin",)
    shared: ClassVar = (
        *("j_ee", "j_ei", "j_ie", "j_ii"),
        *("rate_external", "share", "tau_external", "tau_e", "tau_i"),
    )
    recordables: ClassVar = {
        "v": Recordable("1", "last", "membrane potential"),
        "spikes": Recordable("1", "sum", "spikes"),
        "external": Recordable("1", "sum", "external events"),
        "excitation": Recordable(
            "1/ms", "last", "excitatory input, external included: kicks per ms, current or conductance"
        ),
        "inhibition": Recordable("1/ms", "last", "inhibitory input: kicks per ms, current or conductance"),
    }

    def require_consistent(self) -> None:
        """Refuse combinations that cannot be simulated."""
        if self.synapse not in ("delta", "current", "conductance"):
            raise ValueError(f"RingNetwork: synapse = {self.synapse!r} must be 'delta', 'current' or 'conductance'")
        step_count(self.refractory, self.dt, "RingNetwork: refractory")
        rate = self.rate_external
        if isinstance(rate, jax.Array) and not isinstance(rate, Tracer):
            mean = float(np.asarray(rate).max()) * self.dt * 1e-3
            needed = mean + 7 * mean**0.5 + 5
            if self.external_cap < needed:
                raise ValueError(
                    f"RingNetwork: external_cap = {self.external_cap} cuts an input of mean {mean:.3g} events a step; "
                    f"set it to {round(needed + 1)}"
                )

    @classmethod
    def xiao_lin(cls, synapse: Synapse = "delta", **overrides) -> Self:
        """The network of Xiao and Lin, Figure 1, with any of its synapses.

        Args:
            synapse: `conductance` brings its own time constants and a refractory period of 5 ms.
            overrides: parameters by name.

        Returns:
            The network.
        """
        values: dict[str, Any] = {"synapse": synapse}
        if synapse == "conductance":
            values |= {"tau_external": 1.0, "tau_e": 3.0, "tau_i": 2.0, "refractory": 5.0}
        return cls(**(values | overrides))

    @property
    def populations(self) -> dict[str, int]:
        """Excitatory neurons first."""
        return {"excitatory": self.positions, "inhibitory": self.positions}

    @property
    def block(self) -> int:
        """Spikes arrive a step later, inside of a block; it is as long as pays for drawing the input at once."""
        return 20

    @property
    def reach(self) -> int:
        """How many places away a neuron is heard."""
        return self.positions // self.sparsity // 2

    @property
    def adjacency(self) -> Bool[Array, "pre post"]:
        """Adjacency matrix."""
        place = np.arange(self.positions)
        apart = np.abs(place[:, None] - place[None])
        near = np.minimum(apart, self.positions - apart) <= self.reach
        return jnp.asarray(np.tile(near, (2, 2)) & ~np.eye(self.neurons, dtype=bool))

    def init(self, key: Key[Array, ""]) -> State:
        """Draw potentials uniformly between reset and threshold; nobody is refractory, and nothing is under way."""
        dtype, n = self.v_threshold.dtype, self.neurons
        v = self.v_reset + (self.v_threshold - self.v_reset) * jax.random.uniform(key, (n,), dtype)
        return self.State(
            v=v,
            refractory=jnp.zeros(n, jnp.int32),
            synaptic=jnp.zeros((0 if self.synapse == "delta" else 3, n), dtype),
            sent=jnp.zeros(n, bool),
        )

    def draw(self, key, step):
        """Draw the external events of each neuron: its own, and those of the last word, which all share."""
        words = step_words(stream(key, "external"), step, self.neurons + 1)
        mean = self.rate_external * (self.dt * 1e-3)
        own, common = (
            _poisson_thresholds(lax.stop_gradient(mean * part), self.external_cap)
            for part in (1 - self.share, self.share)
        )
        counts = binomial_counts(words[:-1], own) + binomial_counts(words[-1:], common)
        # The counts are integers; their mean carries the gradient with respect to the rate.
        return counts.astype(mean.dtype) + (mean - lax.stop_gradient(mean))

    def step(self, y, drive, noise):
        """Integrate and deliver, test the threshold, reset."""
        v, synaptic = y.v, y.synaptic
        arrived = self._arriving(y.sent, noise)
        integrated = v + (self.dt / self.tau_m) * (drive - v)
        if self.synapse == "delta":
            f, e, i = arrived
            integrated = integrated + f + e - i
            shown = arrived / self.dt
        else:
            f, e, i = synaptic
            if self.synapse == "current":
                integrated = integrated + self.dt * (f + e - i)
            else:
                integrated = integrated - self.dt * ((f + e) * (v - self.v_e) + i * (v - self.v_i))
            tau = jnp.stack([self.tau_external, self.tau_e, self.tau_i]).reshape(3, *(1,) * v.ndim)
            # The authors' program lets one conductance decay with another's value, and in one of its versions does
            # not divide conductances by their time constants; this is what it does with currents.
            synaptic = shown = (synaptic + arrived / tau) * jnp.exp(-self.dt / tau)
        awake = y.refractory == 0
        spikes = jnp.where(awake, spike(integrated - self.v_threshold, inclusive=True), False)
        v = reset(spikes, jnp.where(awake, integrated, v), to=self.v_reset)
        held = max(step_count(self.refractory, self.dt) - 1, 0)
        refractory = jnp.where(spikes.astype(bool), held, jnp.maximum(y.refractory - 1, 0))
        seen = {"external": noise, "excitation": shown[0] + shown[1], "inhibition": shown[2]}
        return self.State(v, refractory, synaptic, spikes), {"spikes": spikes} | seen

    def advance(self, y, drive, noise, steps):
        """See `SteppedSimulator`; neurons are `[kind, place]` here, because compilers compute flat indices slowly."""
        neurons = self.neurons

        def on_ring(x):
            return x.reshape(*x.shape[:-1], 2, self.positions) if x.shape[-1:] == (neurons,) else x

        ring, y, drive, noise = jax.tree.map(on_ring, (self, y, drive, noise))
        found = SteppedSimulator.advance(ring, y, drive, noise, steps)
        return jax.tree.map(lambda x: x.reshape(*x.shape[:-2], neurons), found)

    def _arriving(self, sent, external):
        """What external events and the last step's spikes add, `[synapse, neuron]`."""
        sent = sent.astype(external.dtype).reshape(2, self.positions)
        # By kind of the sender, kind of the receiver, and place; nobody hears itself.
        heard = _ring_sums(sent, self.reach)[:, None] - jnp.eye(2, dtype=sent.dtype)[:, :, None] * sent[:, None]
        weights = jnp.stack([self.j_ee, self.j_ie, self.j_ei, self.j_ii]).reshape(2, 2, 1)
        return jnp.concatenate([self.kick * external[None], (weights * heard).reshape(2, *external.shape)])


def _poisson_thresholds(mean: Scalar, count: int) -> Int[Array, " threshold"]:
    """Where the cumulative Poisson distribution cuts the range of a signed 32-bit word; see `binomial_thresholds`."""
    k = jnp.arange(count + 32, dtype=mean.dtype)
    mass = jnp.exp(xlogy(k, mean) - mean - gammaln(k + 1))
    # Each tail is measured from its own end: float32 does not resolve the distance of a probability from 1.
    below, above = jnp.cumsum(mass)[:count], jnp.cumsum(mass[::-1])[::-1][1 : count + 1]
    from_bottom = (jnp.minimum(below, 0.5) - 0.5) * 2.0**32
    # 2147483520, the largest float32 below 2³¹, keeps the conversion in range.
    from_top = jnp.minimum(above * 2.0**32, 2147483520.0)
    return jnp.where(below < 0.5, from_bottom.astype(jnp.int32), 2147483647 - from_top.astype(jnp.int32))


def _ring_sums(x: Float[Array, "kind place"], reach: int) -> Float[Array, "kind place"]:
    """Sum over each place and its `reach` neighbours on either side."""
    width = 2 * reach + 1
    if width >= x.shape[-1]:
        return jnp.broadcast_to(x.sum(-1, keepdims=True), x.shape)
    around = jnp.pad(x, ((0, 0), (reach, reach)), mode="wrap")
    return lax.reduce_window(around, x.dtype.type(0), lax.add, (1, width), (1, 1), "valid")
