"""A bursting pyramidal neuron of the hippocampal area CA1."""

from typing import ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import NON_NEGATIVE, POSITIVE, Recordable, param
from jneuro.simulators.kinetics import exponentials
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import RK4

__all__ = ["CA1Pyramidal", "CA1State"]

_GOLOMB = "Golomb, Yue & Yaari, J. Neurophysiol. 96 (2006) 1912"


class CA1State(NamedTuple):
    """The state of a cell.

    Attributes:
        v: membrane potential [mV].
        h: availability of transient sodium.
        n: activation of the delayed rectifier.
        b: availability of the A-type potassium current.
        z: activation of the M-type potassium current.
        r: activation of calcium.
        ca: calcium, in units of the source.
        c: activation of the fast calcium-activated potassium current.
        q: activation of the slow afterhyperpolarisation.
    """

    v: Float[Array, "*neuron"]
    h: Float[Array, "*neuron"]
    n: Float[Array, "*neuron"]
    b: Float[Array, "*neuron"]
    z: Float[Array, "*neuron"]
    r: Float[Array, "*neuron"]
    ca: Float[Array, "*neuron"]
    c: Float[Array, "*neuron"]
    q: Float[Array, "*neuron"]


def _conductance(value: float, doc: str):
    return param(value, unit="mS/cm²", source=_GOLOMB, bounds=NON_NEGATIVE, doc=f"{doc} conductance")


def _time(value: float, doc: str):
    return param(value, unit="ms", source=_GOLOMB, bounds=POSITIVE, doc=f"time constant of {doc}")


def _half(value: float, doc: str):
    return param(value, unit="mV", source=_GOLOMB, doc=f"potential of half {doc}")


class CA1Pyramidal(ODESimulator):
    r"""The single-compartment CA1 pyramidal cell of Golomb, Yue and Yaari: it rests, bursts or spikes with the current.

    \[ C \dot v = -g_L(v - V_L) - I_{Na} - I_{NaP} - I_{Kdr} - I_A - I_M - I_{Ca} - I_C - I_{sAHP} + I(t) \]

    \[ I_{Na} = g_{Na} m_\infty^3 h (v - V_{Na}), \; I_{NaP} = g_{NaP}\,p_\infty (v - V_{Na}), \;
    I_{Kdr} = g_{Kdr} n^4 (v - V_K), \; I_A = g_A a_\infty^3 b (v - V_K), \; I_M = g_M z (v - V_K) \]

    \[ I_{Ca} = g_{Ca} r^2 (v - V_{Ca}), \; I_C = g_C d_\infty c (v - V_K), \; I_{sAHP} = g_{sAHP}\,q (v - V_K) \]

    \[ \dot x = (x_\infty - x) / \tau_x, \qquad \dot{Ca} = -\nu I_{Ca} - Ca / \tau_{Ca} \]

    with \(x_\infty = 1/(1 + e^{-(v - \theta_x)/\sigma_x})\), \(d_\infty = 1/(1 + a_c/Ca)\) and
    \(q_\infty = 1/(1 + a_q^4/Ca^4)\). The slopes \(\sigma\) are fixed: thanks to their ratios, three exponentials serve
    all eleven functions of the potential.

    The stimulus of `simulate` is the current density \(I(t)\) [µA/cm²]; Plaster and Kumar write it in nA.

    References:
        Golomb D., Yue C., Yaari Y., Journal of Neurophysiology 96 (2006) 1912, Appendix; ModelDB 66268.
        Plaster B., Kumar G., Algorithms 12 (2019) 203, Appendix A (several constants are missing there).
    """

    c_m: Float[Array, "*neuron"] = param(1.0, unit="µF/cm²", source=_GOLOMB, bounds=POSITIVE, doc="capacitance")
    g_l: Float[Array, "*neuron"] = _conductance(0.05, "leak")
    g_na: Float[Array, "*neuron"] = _conductance(35.0, "transient sodium")
    g_nap: Float[Array, "*neuron"] = _conductance(0.4, "persistent sodium")
    g_kdr: Float[Array, "*neuron"] = _conductance(6.0, "delayed-rectifier potassium")
    g_a: Float[Array, "*neuron"] = _conductance(1.4, "A-type potassium")
    g_m: Float[Array, "*neuron"] = _conductance(0.5, "M-type potassium")
    g_ca: Float[Array, "*neuron"] = _conductance(0.08, "calcium")
    g_c: Float[Array, "*neuron"] = _conductance(10.0, "fast calcium-activated potassium")
    g_sahp: Float[Array, "*neuron"] = _conductance(5.0, "slow calcium-activated potassium")
    e_l: Float[Array, "*neuron"] = param(-70.0, unit="mV", source=_GOLOMB, doc="leak reversal potential")
    e_na: Float[Array, "*neuron"] = param(55.0, unit="mV", source=_GOLOMB, doc="sodium reversal potential")
    e_k: Float[Array, "*neuron"] = param(-90.0, unit="mV", source=_GOLOMB, doc="potassium reversal potential")
    e_ca: Float[Array, "*neuron"] = param(120.0, unit="mV", source=_GOLOMB, doc="calcium reversal potential")
    theta_m: Float[Array, "*neuron"] = _half(-30.0, "activation of transient sodium")
    theta_h: Float[Array, "*neuron"] = _half(-45.0, "availability of transient sodium")
    theta_ht: Float[Array, "*neuron"] = _half(-40.5, "slowing of h")
    theta_p: Float[Array, "*neuron"] = _half(-47.0, "activation of persistent sodium")
    theta_n: Float[Array, "*neuron"] = _half(-35.0, "activation of the delayed rectifier")
    theta_nt: Float[Array, "*neuron"] = _half(-27.0, "slowing of n")
    theta_a: Float[Array, "*neuron"] = _half(-50.0, "activation of the A-type current")
    theta_b: Float[Array, "*neuron"] = _half(-80.0, "availability of the A-type current")
    theta_z: Float[Array, "*neuron"] = _half(-39.0, "activation of the M-type current")
    theta_r: Float[Array, "*neuron"] = _half(-20.0, "activation of calcium")
    theta_c: Float[Array, "*neuron"] = _half(-30.0, "activation of the fast calcium-activated current")
    phi: Float[Array, "*neuron"] = param(10.0, unit="1", source=_GOLOMB, bounds=POSITIVE, doc="rate factor of h and n")
    tau_b: Float[Array, "*neuron"] = _time(15.0, "b")
    tau_z: Float[Array, "*neuron"] = _time(75.0, "z")
    tau_r: Float[Array, "*neuron"] = _time(1.0, "r")
    tau_c: Float[Array, "*neuron"] = _time(2.0, "c")
    tau_q: Float[Array, "*neuron"] = _time(450.0, "q")
    tau_ca: Float[Array, "*neuron"] = _time(13.0, "calcium")
    nu: Float[Array, "*neuron"] = param(
        0.13, unit="cm²/(µA·ms)", source=_GOLOMB, bounds=NON_NEGATIVE, doc="calcium for each unit of calcium current"
    )
    a_c: Float[Array, "*neuron"] = param(
        6.0, unit="1", source=_GOLOMB, bounds=POSITIVE, doc="calcium that half activates the fast potassium current"
    )
    a_q: Float[Array, "*neuron"] = param(
        2.0, unit="1", source=_GOLOMB, bounds=POSITIVE, doc="calcium that half activates the slow potassium current"
    )
    v_spike: Float[Array, ""] = param(
        0.0, unit="mV", source="convention", doc="potential whose upward crossing is a spike"
    )

    presets: ClassVar = ("golomb",)
    default_dt: ClassVar = 0.02
    separable: ClassVar = False
    # The fall from a spike's peak, and the rise.
    busiest: ClassVar = (
        (24.0, 0.3, 0.6, 0.05, 0.02, 0.9, 1.0, 0.7, 0.0),
        (0.0, 0.9, 0.1, 0.1, 0.02, 0.1, 0.1, 0.1, 0.0),
    )
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "h": Recordable("1", "last", "availability of transient sodium"),
        "n": Recordable("1", "last", "activation of the delayed rectifier"),
        "b": Recordable("1", "last", "availability of the A-type current"),
        "z": Recordable("1", "last", "activation of the M-type current"),
        "r": Recordable("1", "last", "activation of calcium"),
        "ca": Recordable("1", "last", "calcium"),
        "c": Recordable("1", "last", "activation of the fast calcium-activated potassium current"),
        "q": Recordable("1", "last", "activation of the slow afterhyperpolarisation"),
        "current": Recordable("µA/cm²", "last", "stimulus"),
        "spikes": Recordable("1", "sum", "upward crossings of v_spike"),
    }

    @classmethod
    def golomb(cls, **overrides) -> Self:
        """The constants of Golomb, Yue and Yaari (2006), which Plaster and Kumar (2019) use."""
        return cls(**overrides)

    @property
    def default_solver(self) -> RK4:
        """Fourth order; spike times good to .01 ms over the first 50 ms at the default step."""
        return RK4()

    def connect(self, key) -> Self:
        """Return itself: nothing is connected."""
        return self

    def init(self, key) -> CA1State:
        """The resting state without a current."""
        values = (-71.81327, 0.98786, 0.02457, 0.203517, 0.00141, 0.005507, 0.000787, 0.002486, 0.0)
        return CA1State(*(jnp.asarray(x, self.g_l.dtype) for x in values))

    def relaxation(self, y, drive):
        """See `ODESimulator`."""
        total, inward, steady, rate = self._parts(y, drive)
        return CA1State(inward / total, *steady), CA1State(total / self.c_m, *rate)

    def vector_field(self, y, drive):
        """See `ODESimulator`; without the division that `relaxation` needs for the steady potential."""
        total, inward, steady, rate = self._parts(y, drive)
        return CA1State(
            (inward - total * y.v) * (1 / self.c_m), *(r * (s - x) for x, s, r in zip(y[1:], steady, rate, strict=True))
        )

    def _parts(self, y, drive):
        """Conductance and current at 0 mV of the membrane; steady values and rates of the other variables."""
        v, h, n, b, z, r, ca, c, q = y
        # Functions of the potential are quotients of powers of these three; quotients are taken in pairs,
        # since 1/a = b·(1/ab), 1/b = a·(1/ab) costs one division.
        x, x7, x95 = exponentials(v, -1 / 60, -1 / 7, -1 / 9.5)
        x2 = x * x
        x3, x4 = x2 * x, x2 * x2
        x6 = x4 * x2
        x10, x12 = x6 * x4, x6 * x6
        x20 = x10 * x10
        m, p = _reciprocals(1 + x95 * jnp.exp(self.theta_m / 9.5), 1 + x20 * jnp.exp(self.theta_p / 3))
        a, d = _reciprocals(1 + x3 * jnp.exp(self.theta_a / 20), ca + self.a_c)
        fourth = jnp.square(ca * ca)
        h_half, h_slow = jnp.exp(-self.theta_h / 7), jnp.exp(-self.theta_ht / 6)
        n_slow = jnp.exp(-self.theta_nt / 15)
        h_steady, h_rate = _reciprocals(x7 + h_half, 8.5 * x10 + h_slow)
        n_steady, n_rate = _reciprocals(1 + x6 * jnp.exp(self.theta_n / 10), 6 * x4 + n_slow)
        b_steady, z_steady = _reciprocals(x10 + jnp.exp(-self.theta_b / 6), 1 + x12 * jnp.exp(self.theta_z / 5))
        r_steady, c_steady = _reciprocals(1 + x6 * jnp.exp(self.theta_r / 10), 1 + x7 * jnp.exp(self.theta_c / 7))
        g_na = self.g_na * m * m * m * h + self.g_nap * p
        n2 = n * n
        g_k = self.g_kdr * n2 * n2 + self.g_a * a * a * a * b + self.g_m * z + self.g_c * ca * d * c + self.g_sahp * q
        g_ca = self.g_ca * r * r
        steady = (
            x7 * h_steady,
            n_steady,
            x10 * b_steady,
            z_steady,
            r_steady,
            -self.nu * self.tau_ca * g_ca * (v - self.e_ca),
            c_steady,
            fourth / (fourth + jnp.square(self.a_q * self.a_q)),
        )
        rate = (
            self.phi * (x10 + h_slow) * h_rate,
            self.phi * (x4 + n_slow) * n_rate,
            *(1 / tau for tau in (self.tau_b, self.tau_z, self.tau_r, self.tau_ca, self.tau_c, self.tau_q)),
        )
        inward = self.g_l * self.e_l + g_na * self.e_na + g_k * self.e_k + g_ca * self.e_ca + drive
        return self.g_l + g_na + g_k + g_ca, inward, steady, rate


def _reciprocals(a, b):
    """Both reciprocals for one division."""
    both = 1 / (a * b)
    return b * both, a * both
