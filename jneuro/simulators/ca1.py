"""A bursting pyramidal neuron of the hippocampal area CA1."""

from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, param, state
from jneuro.simulators.kernels import cells
from jneuro.simulators.ode import ODESimulator

__all__ = ["CA1Pyramidal"]

_GOLOMB = "Golomb, Yue & Yaari, J. Neurophysiol. 96 (2006) 1912"


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

    class State(NamedTuple):
        """The state of a cell; it starts at rest without a current."""

        v: Float[Array, "*neuron"] = state(-71.81327, unit="mV", doc="membrane potential")
        h: Float[Array, "*neuron"] = state(0.98786, bounds=FRACTION, doc="availability of transient sodium")
        n: Float[Array, "*neuron"] = state(0.02457, bounds=FRACTION, doc="activation of the delayed rectifier")
        b: Float[Array, "*neuron"] = state(
            0.203517, bounds=FRACTION, doc="availability of the A-type potassium current"
        )
        z: Float[Array, "*neuron"] = state(0.00141, bounds=FRACTION, doc="activation of the M-type potassium current")
        r: Float[Array, "*neuron"] = state(0.005507, bounds=FRACTION, doc="activation of calcium")
        ca: Float[Array, "*neuron"] = state(0.000787, bounds=NON_NEGATIVE, doc="calcium, in units of the source")
        c: Float[Array, "*neuron"] = state(
            0.002486, bounds=FRACTION, doc="activation of the fast calcium-activated potassium current"
        )
        q: Float[Array, "*neuron"] = state(0.0, bounds=FRACTION, doc="activation of the slow afterhyperpolarisation")

    presets: ClassVar = ("golomb",)
    input_unit: ClassVar = "µA/cm²"
    # RK4 at this step: spike times are good to .01 ms over the first 50 ms.
    default_dt: ClassVar = 0.02
    observable_units: ClassVar = dict.fromkeys(
        ("i_l", "i_na", "i_nap", "i_kdr", "i_a", "i_m", "i_ca", "i_c", "i_sahp"), "µA/cm²"
    )

    @classmethod
    def golomb(cls, **overrides) -> Self:
        """The constants of Golomb, Yue and Yaari (2006), which Plaster and Kumar (2019) use."""
        return cls(**overrides)

    def observables(self, y, drive):
        """The ionic currents, outward positive [µA/cm²]."""
        v, h, n, b, z, r, ca, c, q = y
        m_inf, p_inf = _inf(v, self.theta_m, 9.5), _inf(v, self.theta_p, 3)
        a_inf, d_inf = _inf(v, self.theta_a, 20), ca / (ca + self.a_c)
        return {
            "i_l": self.g_l * (v - self.e_l),
            "i_na": self.g_na * m_inf**3 * h * (v - self.e_na),
            "i_nap": self.g_nap * p_inf * (v - self.e_na),
            "i_kdr": self.g_kdr * n**4 * (v - self.e_k),
            "i_a": self.g_a * a_inf**3 * b * (v - self.e_k),
            "i_m": self.g_m * z * (v - self.e_k),
            "i_ca": self.g_ca * r**2 * (v - self.e_ca),
            "i_c": self.g_c * d_inf * c * (v - self.e_k),
            "i_sahp": self.g_sahp * q * (v - self.e_k),
        }

    def equations(self, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
        """The time derivatives [unit/ms] as they are published; `vector_field` computes the same, faster."""
        v, h, n, b, z, r, ca, c, q = y
        current = self.observables(y, drive)
        tau_h = 1 + 7.5 * _inf(v, self.theta_ht, -6)
        tau_n = 1 + 5 * _inf(v, self.theta_nt, -15)
        q_inf = ca**4 / (ca**4 + self.a_q**4)
        return self.State(
            v=(drive - sum(current.values())) / self.c_m,
            h=self.phi * (_inf(v, self.theta_h, -7) - h) / tau_h,
            n=self.phi * (_inf(v, self.theta_n, 10) - n) / tau_n,
            b=(_inf(v, self.theta_b, -6) - b) / self.tau_b,
            z=(_inf(v, self.theta_z, 5) - z) / self.tau_z,
            r=(_inf(v, self.theta_r, 10) - r) / self.tau_r,
            ca=-self.nu * current["i_ca"] - ca / self.tau_ca,
            c=(_inf(v, self.theta_c, 7) - c) / self.tau_c,
            q=(q_inf - q) / self.tau_q,
        )

    def relaxation(self, y, drive):
        """See `ODESimulator`; that of `equations`."""
        return cells.ca1_relaxation(self, y, drive)

    def vector_field(self, y, drive):
        """See `ODESimulator`; that of `equations`."""
        return cells.ca1_field(self, y, drive)

    def threshold(self, y):
        """See `ODESimulator`."""
        return y.v - self.v_spike


def _inf(v, theta, sigma: float):
    """The steady value of a gate."""
    return 1 / (1 + jnp.exp(-(v - theta) / sigma))
