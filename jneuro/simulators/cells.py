"""Single cells: membranes with ion channels, and Izhikevich's two-variable neuron."""

import math
from typing import Any, ClassVar, NamedTuple, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jneuro.core.types import Array, Float
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, Bounds, Param, param, preset, state
from jneuro.simulators.kernels import cells as kernels
from jneuro.simulators.kernels.cells import linoid
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.paths import parameters
from jneuro.simulators.solvers import SequentialEuler, StaggeredCrankNicolson

__all__ = ["CA1Pyramidal", "HodgkinHuxley", "Izhikevich", "Pospischil"]

Variable = Float[Array, "*neuron"]
"""A variable of a state: one value, or one for each neuron."""

_SQUID = "Hodgkin & Huxley, J. Physiol. 117 (1952) 500, Table 3"
_CORTEX = "Pospischil et al., Biol. Cybern. 99 (2008) 427, regular spiking, Figure 2"
_GOLOMB = "Golomb, Yue & Yaari, J. Neurophysiol. 96 (2006) 1912"
_SIMPLE = "Izhikevich, IEEE Trans. Neural Netw. 14 (2003) 1569"
_AREA = math.pi * 61.4**2 * 1e-8
"""A cylinder of equal length and diameter [cm²]."""
_HALF = 406.25**0.5
"""Half the distance of the roots of 0.04 v² + 5 v + 140, which lie about −62.5."""


def _crossing():
    return param(0.0, unit="mV", source="convention", doc="potential whose upward crossing is a spike")


def _squid(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_SQUID, doc=doc, **options)


def _cortex(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_CORTEX, doc=doc, **options)


def _golomb(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_GOLOMB, doc=doc, **options)


def _conductance(default, doc):
    return _golomb(default, f"{doc} conductance", "mS/cm²", bounds=NON_NEGATIVE)


def _time(default, doc):
    return _golomb(default, f"time constant of {doc}", "ms", bounds=POSITIVE)


def _half(default, doc):
    return _golomb(default, f"potential of half {doc}", "mV")


def _simple(default, doc, unit="1", **options):
    return param(default, unit=unit, source=_SIMPLE, doc=doc, **options)


class _Membrane(ODESimulator):
    """A membrane with ion channels, which spikes where its potential rises through `v_spike`; abstract."""

    v_spike: eqx.AbstractVar[Param]

    def threshold(self, y):
        """See `ODESimulator`."""
        return y.v - self.v_spike


class _AtRest(_Membrane):
    """A membrane that starts at `v_initial`, with the gates at their steady state there; abstract."""

    v_initial: eqx.AbstractVar[Param]
    # Second order in one evaluation a step.
    default_solver: ClassVar = StaggeredCrankNicolson()

    def init(self, key):
        """The potential `v_initial`, and the gates' steady state there."""
        v, cell = self.v_initial, cast(Any, self)
        start = cell.State(v, *(jnp.zeros_like(v) for _ in cell.State._fields[1:]))
        return cell.relaxation(start, 0.0)[0]._replace(v=v)


class HodgkinHuxley(_AtRest):
    r"""The Hodgkin–Huxley membrane, resting near −65 mV.

    \[ C \dot v = -g_{Na} m^3 h (v - E_{Na}) - g_K n^4 (v - E_K) - g_L (v - E_L) + I(t) \]

    \[ \dot x = \varphi\,(\alpha_x(v)(1 - x) - \beta_x(v)\,x), \quad x = m, h, n \]

    \(\alpha_m\) and \(\alpha_n\) are 0/0 at −40 and −55 mV; values and gradients are finite there.

    The stimulus of `simulate` is the current density \(I(t)\) [µA/cm²].

    References:
        Hodgkin A. L., Huxley A. F., Journal of Physiology 117 (1952) 500, Equations 26 and 7–21.
    """

    c_m: Param = _squid(1.0, "capacitance", "µF/cm²", bounds=POSITIVE)
    g_na: Param = _squid(120.0, "sodium conductance", "mS/cm²", bounds=NON_NEGATIVE)
    g_k: Param = _squid(36.0, "potassium conductance", "mS/cm²", bounds=NON_NEGATIVE)
    g_l: Param = _squid(0.3, "leak conductance", "mS/cm²", bounds=NON_NEGATIVE)
    e_na: Param = _squid(50.0, "sodium reversal potential", "mV")
    e_k: Param = _squid(-77.0, "potassium reversal potential", "mV")
    e_l: Param = _squid(-54.4, "leak reversal potential", "mV")
    phi: Param = _squid(1.0, "rate factor of the gates; 1 at 6.3 °C", bounds=POSITIVE)
    v_initial: Param = _squid(-65.0, "initial potential; the gates start at its steady state", "mV")
    v_spike: Param = _crossing()

    class State(NamedTuple):
        """The state of a membrane."""

        v: Variable = state(unit="mV", doc="membrane potential")
        m: Variable = state(bounds=FRACTION, doc="activation of sodium")
        h: Variable = state(bounds=FRACTION, doc="availability of sodium")
        n: Variable = state(bounds=FRACTION, doc="activation of potassium")

    presets: ClassVar = ("squid_axon", "neuron")
    input_unit: ClassVar = "µA/cm²"
    observable_units: ClassVar = dict.fromkeys(("i_na", "i_k", "i_l"), "µA/cm²")

    squid_axon = preset("The constants of Hodgkin and Huxley (1952), shifted to a rest of −65 mV.")
    neuron = preset("The constants of NEURON's mechanism `hh`, whose leak reverses at −54.3 mV.", e_l=-54.3)

    def observables(self, y, drive):
        """The ionic currents, outward positive: `i_na`, `i_k` and `i_l` [µA/cm²]."""
        return {
            "i_na": self.g_na * y.m**3 * y.h * (y.v - self.e_na),
            "i_k": self.g_k * y.n**4 * (y.v - self.e_k),
            "i_l": self.g_l * (y.v - self.e_l),
        }

    def equations(self, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
        """The time derivatives [unit/ms] as they are published; `vector_field` computes the same, faster."""
        v, m, h, n = y
        alpha_m, beta_m = linoid((v + 40) / 10), 4 * jnp.exp(-(v + 65) / 18)
        alpha_h, beta_h = 0.07 * jnp.exp(-(v + 65) / 20), 1 / (1 + jnp.exp(-(v + 35) / 10))
        alpha_n, beta_n = 0.1 * linoid((v + 55) / 10), 0.125 * jnp.exp(-(v + 65) / 80)
        ionic = sum(self.observables(y, drive).values())
        return self.State(
            v=(drive - ionic) / self.c_m,
            m=self.phi * (alpha_m * (1 - m) - beta_m * m),
            h=self.phi * (alpha_h * (1 - h) - beta_h * h),
            n=self.phi * (alpha_n * (1 - n) - beta_n * n),
        )

    def relaxation(self, y, drive):
        """See `ODESimulator`; that of `equations`."""
        return kernels.hodgkin_huxley(self, y, drive)


class Pospischil(_AtRest):
    r"""A Hodgkin–Huxley cell that adapts: sodium, delayed-rectifier potassium, M-type potassium and leak currents.

    \[ C \dot v = -g_{Na} m^3 h (v - E_{Na}) - (g_K n^4 + g_M p) (v - E_K) - g_L (v - E_L) + I(t) \]

    \[ \dot x = \alpha_x(v)(1 - x) - \beta_x(v)\,x, \quad x = m, h, n, \qquad
       \dot p = \frac{p_\infty(v) - p}{\tau_p(v)} \]

    \(v_t\) shifts the gates of the spike along the potential, \(\tau_{max}\) scales the time of the M current. With
    \(w = e^{-(v - v_m)/20}\), \(p_\infty = 1 / (1 + w^2)\) and \(\tau_p = \tau_{max} / (3.3 / w + w)\). It is a whole
    cell, in the units of a patch-clamp recording: pF, nS, pA. The published densities are those of a cylinder whose
    length and diameter are 61.4 µm.

    The stimulus of `simulate` is the current \(I(t)\) [pA].

    References:
        Pospischil M. et al., Biological Cybernetics 99 (2008) 427, Equations 2–4 and Figure 2.
        Traub R. D., Miles R., Neuronal Networks of the Hippocampus (1991), for the gates of the spike.
        Yamada W. M., Koch C., Adams P. R., Methods in Neuronal Modeling (1989) 97, for the M current.
    """

    capacitance: Param = _cortex(1e6 * _AREA, "capacitance", "pF", bounds=POSITIVE)
    g_na: Param = _cortex(56e6 * _AREA, "sodium conductance", "nS", bounds=NON_NEGATIVE)
    g_k: Param = _cortex(6e6 * _AREA, "potassium conductance", "nS", bounds=NON_NEGATIVE)
    g_m: Param = _cortex(0.075e6 * _AREA, "conductance of the M current", "nS", bounds=NON_NEGATIVE)
    g_l: Param = _cortex(0.0205e6 * _AREA, "leak conductance", "nS", bounds=NON_NEGATIVE)
    e_na: Param = _cortex(50.0, "sodium reversal potential", "mV")
    e_k: Param = _cortex(-90.0, "potassium reversal potential", "mV")
    e_l: Param = _cortex(-70.3, "leak reversal potential", "mV")
    v_t: Param = _cortex(-56.2, "shift of the gates of the spike", "mV")
    v_m: Param = _cortex(-35.0, "half activation of the M current", "mV")
    tau_max: Param = _cortex(608.0, "scale of the M current's time constant", "ms", bounds=POSITIVE)
    v_initial: Param = _cortex(-70.3, "initial potential; the gates start at its steady state", "mV")
    v_spike: Param = _crossing()

    class State(NamedTuple):
        """The state of a cell."""

        v: Variable = state(unit="mV", doc="membrane potential")
        m: Variable = state(bounds=FRACTION, doc="activation of sodium")
        h: Variable = state(bounds=FRACTION, doc="availability of sodium")
        n: Variable = state(bounds=FRACTION, doc="activation of potassium")
        p: Variable = state(bounds=FRACTION, doc="activation of the M current")

    presets: ClassVar = ("regular_spiking",)
    input_unit: ClassVar = "pA"
    observable_units: ClassVar = dict.fromkeys(("i_na", "i_k", "i_m", "i_l"), "pA")

    regular_spiking = preset("The regular-spiking pyramidal cell of Figure 2.")

    def observables(self, y, drive):
        """The ionic currents, outward positive: `i_na`, `i_k`, `i_m` and `i_l` [pA]."""
        return {
            "i_na": self.g_na * y.m**3 * y.h * (y.v - self.e_na),
            "i_k": self.g_k * y.n**4 * (y.v - self.e_k),
            "i_m": self.g_m * y.p * (y.v - self.e_k),
            "i_l": self.g_l * (y.v - self.e_l),
        }

    def equations(self, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
        """The time derivatives [unit/ms] as they are published; `vector_field` computes the same, faster."""
        v, m, h, n, p = y
        x = v - self.v_t
        alpha_m, beta_m = 0.32 * 4 * linoid((x - 13) / 4), 0.28 * 5 * linoid((40 - x) / 5)
        alpha_h, beta_h = 0.128 * jnp.exp(-(x - 17) / 18), 4 / (1 + jnp.exp(-(x - 40) / 5))
        alpha_n, beta_n = 0.032 * 5 * linoid((x - 15) / 5), 0.5 * jnp.exp(-(x - 10) / 40)
        p_inf = 1 / (1 + jnp.exp(-(v - self.v_m) / 10))
        tau_p = self.tau_max / (3.3 * jnp.exp((v - self.v_m) / 20) + jnp.exp(-(v - self.v_m) / 20))
        return self.State(
            v=(drive - sum(self.observables(y, drive).values())) / self.capacitance,
            m=alpha_m * (1 - m) - beta_m * m,
            h=alpha_h * (1 - h) - beta_h * h,
            n=alpha_n * (1 - n) - beta_n * n,
            p=(p_inf - p) / tau_p,
        )

    def relaxation(self, y, drive):
        """See `ODESimulator`; that of `equations`."""
        return kernels.pospischil(self, y, drive)


class CA1Pyramidal(_Membrane):
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

    c_m: Param = _golomb(1.0, "capacitance", "µF/cm²", bounds=POSITIVE)
    g_l: Param = _conductance(0.05, "leak")
    g_na: Param = _conductance(35.0, "transient sodium")
    g_nap: Param = _conductance(0.4, "persistent sodium")
    g_kdr: Param = _conductance(6.0, "delayed-rectifier potassium")
    g_a: Param = _conductance(1.4, "A-type potassium")
    g_m: Param = _conductance(0.5, "M-type potassium")
    g_ca: Param = _conductance(0.08, "calcium")
    g_c: Param = _conductance(10.0, "fast calcium-activated potassium")
    g_sahp: Param = _conductance(5.0, "slow calcium-activated potassium")
    e_l: Param = _golomb(-70.0, "leak reversal potential", "mV")
    e_na: Param = _golomb(55.0, "sodium reversal potential", "mV")
    e_k: Param = _golomb(-90.0, "potassium reversal potential", "mV")
    e_ca: Param = _golomb(120.0, "calcium reversal potential", "mV")
    theta_m: Param = _half(-30.0, "activation of transient sodium")
    theta_h: Param = _half(-45.0, "availability of transient sodium")
    theta_ht: Param = _half(-40.5, "slowing of h")
    theta_p: Param = _half(-47.0, "activation of persistent sodium")
    theta_n: Param = _half(-35.0, "activation of the delayed rectifier")
    theta_nt: Param = _half(-27.0, "slowing of n")
    theta_a: Param = _half(-50.0, "activation of the A-type current")
    theta_b: Param = _half(-80.0, "availability of the A-type current")
    theta_z: Param = _half(-39.0, "activation of the M-type current")
    theta_r: Param = _half(-20.0, "activation of calcium")
    theta_c: Param = _half(-30.0, "activation of the fast calcium-activated current")
    phi: Param = _golomb(10.0, "rate factor of h and n", bounds=POSITIVE)
    tau_b: Param = _time(15.0, "b")
    tau_z: Param = _time(75.0, "z")
    tau_r: Param = _time(1.0, "r")
    tau_c: Param = _time(2.0, "c")
    tau_q: Param = _time(450.0, "q")
    tau_ca: Param = _time(13.0, "calcium")
    nu: Param = _golomb(0.13, "calcium for each unit of calcium current", "cm²/(µA·ms)", bounds=NON_NEGATIVE)
    a_c: Param = _golomb(6.0, "calcium that half activates the fast potassium current", bounds=POSITIVE)
    a_q: Param = _golomb(2.0, "calcium that half activates the slow potassium current", bounds=POSITIVE)
    v_spike: Param = _crossing()

    class State(NamedTuple):
        """The state of a cell; it starts at rest without a current."""

        v: Variable = state(-71.81327, unit="mV", doc="membrane potential")
        h: Variable = state(0.98786, bounds=FRACTION, doc="availability of transient sodium")
        n: Variable = state(0.02457, bounds=FRACTION, doc="activation of the delayed rectifier")
        b: Variable = state(0.203517, bounds=FRACTION, doc="availability of the A-type potassium current")
        z: Variable = state(0.00141, bounds=FRACTION, doc="activation of the M-type potassium current")
        r: Variable = state(0.005507, bounds=FRACTION, doc="activation of calcium")
        ca: Variable = state(0.000787, bounds=NON_NEGATIVE, doc="calcium, in units of the source")
        c: Variable = state(0.002486, bounds=FRACTION, doc="activation of the fast calcium-activated potassium current")
        q: Variable = state(0.0, bounds=FRACTION, doc="activation of the slow afterhyperpolarisation")

    presets: ClassVar = ("golomb",)
    input_unit: ClassVar = "µA/cm²"
    # RK4 at this step: spike times are good to .01 ms over the first 50 ms.
    default_dt: ClassVar = 0.02
    observable_units: ClassVar = dict.fromkeys(
        ("i_l", "i_na", "i_nap", "i_kdr", "i_a", "i_m", "i_ca", "i_c", "i_sahp"), "µA/cm²"
    )

    golomb = preset("The constants of Golomb, Yue and Yaari (2006), which Plaster and Kumar (2019) use.")

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
        return kernels.ca1_relaxation(self, y, drive)

    def vector_field(self, y, drive):
        """See `ODESimulator`; that of `equations`."""
        return kernels.ca1_field(self, y, drive)


def _inf(v, theta, sigma: float):
    """The steady value of a gate."""
    return 1 / (1 + jnp.exp(-(v - theta) / sigma))


def _preset_2007(doc, *constants):
    """A preset of C, k, v_r, v_t, a, b, c, d and v_peak; recovery rests, and the run starts, at v_r."""
    names = ("capacitance", "k", "v_r", "v_t", "a", "b", "c", "d", "v_peak")

    def build(cls, **overrides):
        given = dict(zip(names, constants, strict=True)) | overrides
        return cls(**({"v_u": given["v_r"], "v_initial": given["v_r"]} | given))

    build.__doc__ = doc
    return classmethod(build)


class Izhikevich(ODESimulator):
    r"""Cells with a quadratic membrane and a linear recovery current, not coupled to each other.

    \[ C \dot v = k (v - v_r)(v - v_t) - u + I(t), \qquad \dot u = a (b (v - v_u) - u) \]

    and, where \(v \ge v_{peak}\): a spike, \(v \leftarrow c\), \(u \leftarrow u + d\). This is the form of 2007, in
    which recovery rests at the resting potential, \(v_u = v_r\). The form of 2003,

    \[ \dot v = 0.04 v^2 + 5 v + 140 - u + I(t), \qquad \dot u = a (b v - u), \]

    is the same with \(C = 1\), \(k = 0.04\), \(v_u = 0\) and with the roots of its polynomial,
    \(-62.5 \pm \sqrt{406.25}\), for \(v_r\) and \(v_t\). So `v` and `u` are the published ones in both. Its currents
    have no unit of their own; with 1 pF they are in pA. Every parameter that is not static may have one value for each
    neuron, so that one simulator holds a mixed population.

    By default a step is that of the program of 2003, `SequentialEuler`: v by forward Euler, then u with the new v, then
    the test for a spike. Potentials are recorded after the reset. That program takes steps of 1 ms in two parts:
    `simulate(cell, ..., dt=1.0, solver=SequentialEuler(substeps=2))`. Spikes lie on the grid, and each loses part of a
    step, so the error is of first order: with a current of 10, regular spiking has 12 spikes in 480 ms where the
    equations have 12, fast spiking 61 of 66, at the default step; at 1 ms these are 10 and 31. `RK4()` with
    `spike_gradient=Exact()` locates spikes within steps.

    The stimulus of `simulate` is \(I(t)\) [pA].

    References:
        Izhikevich E. M., IEEE Transactions on Neural Networks 14 (2003) 1569, Equations 1 to 3 and Figure 2.
        Izhikevich E. M., Dynamical Systems in Neuroscience (2007), Equations 8.5 and 8.6.
    """

    capacitance: Param = _simple(1.0, "capacitance C", "pF", bounds=POSITIVE)
    k: Param = _simple(0.04, "curvature of the membrane current", "nS/mV", bounds=POSITIVE)
    v_r: Param = _simple(-62.5 - _HALF, "lower root of the membrane current, the rest where b = 0", "mV")
    v_t: Param = _simple(-62.5 + _HALF, "upper root of the membrane current, the threshold where b = 0", "mV")
    v_u: Param = _simple(0.0, "potential at which recovery comes to rest at 0", "mV")
    a: Param = _simple(0.02, "rate of recovery", "1/ms", bounds=NON_NEGATIVE)
    b: Param = _simple(0.2, "sensitivity of recovery to the potential", "nS")
    c: Param = _simple(-65.0, "potential after a spike", "mV")
    d: Param = _simple(8.0, "jump of recovery at a spike", "pA")
    v_peak: Param = _simple(30.0, "potential at which a spike is cut", "mV")
    v_initial: Param = _simple(-65.0, "initial potential; recovery starts at its rest there", "mV")
    n: int = _simple(1, "number of neurons", bounds=Bounds(1), static=True)

    class State(NamedTuple):
        """The state between two steps."""

        v: Variable = state(unit="mV", doc="membrane potential")
        u: Variable = state(unit="pA", doc="recovery current")

    presets: ClassVar = (
        "regular_spiking",
        "intrinsically_bursting",
        "chattering",
        "fast_spiking",
        "low_threshold_spiking",
        "thalamo_cortical",
        "resonator",
        "regular_spiking_2007",
        "intrinsically_bursting_2007",
        "chattering_2007",
        "medium_spiny_2007",
    )
    input_unit: ClassVar = "pA"
    default_dt: ClassVar = 0.1
    default_solver: ClassVar = SequentialEuler()

    def require_consistent(self) -> None:
        """Refuse cells that could not stop spiking."""
        if isinstance(self.c, Tracer) or isinstance(self.v_peak, Tracer):
            return
        if np.any(np.asarray(self.c) >= np.asarray(self.v_peak)):
            raise ValueError(f"Izhikevich: c = {self.c} mV must lie below v_peak = {self.v_peak} mV")

    regular_spiking = preset("RS of 2003: pyramidal cells that adapt.")
    intrinsically_bursting = preset("IB of 2003: a burst, then single spikes.", c=-55.0, d=4.0)
    chattering = preset("CH of 2003: bursts again and again.", c=-50.0, d=2.0)
    fast_spiking = preset("FS of 2003: interneurons that hardly adapt.", a=0.1, d=2.0)
    low_threshold_spiking = preset("LTS of 2003: interneurons that adapt and rebound.", b=0.25, d=2.0)
    thalamo_cortical = preset("TC of 2003: tonic from rest, a rebound burst from hyperpolarisation.", b=0.25, d=0.05)
    resonator = preset("RZ of 2003: subthreshold oscillations.", a=0.1, b=0.26, d=2.0)
    regular_spiking_2007 = _preset_2007(
        "Regular spiking pyramidal cell of 2007, Figure 8.12.", 100.0, 0.7, -60.0, -40.0, 0.03, -2.0, -50.0, 100.0, 35.0
    )
    intrinsically_bursting_2007 = _preset_2007(
        "Intrinsically bursting pyramidal cell of 2007, Figure 8.19.",
        *(150.0, 1.2, -75.0, -45.0, 0.01, 5.0, -56.0, 130.0, 50.0),
    )
    chattering_2007 = _preset_2007(
        "Chattering pyramidal cell of 2007, Figure 8.23.", 50.0, 1.5, -60.0, -40.0, 0.03, 1.0, -40.0, 150.0, 25.0
    )
    medium_spiny_2007 = _preset_2007(
        "Spiny projection neuron of the striatum of 2007, Section 8.4.",
        *(50.0, 1.0, -80.0, -25.0, 0.01, -20.0, -55.0, 150.0, 40.0),
    )

    @property
    def cells(self) -> tuple[int, ...]:
        """One population of `n` neurons."""
        return (self.n,)

    def init(self, key):
        """Start at `v_initial`, with recovery at rest there."""
        for p in parameters(self).values():
            if not p.static and np.shape(p.default) not in ((), (1,), (self.n,)):
                raise ValueError(
                    f"Izhikevich: {p.name} has the shape {np.shape(p.default)}; give one value, or one for each of the "
                    f"n = {self.n} neurons"
                )
        return self.State(self.v_initial, self.b * (self.v_initial - self.v_u))

    def vector_field(self, y, drive):
        """See `ODESimulator`."""
        v, u = y
        return self.State(
            v=(self.k * (v - self.v_r) * (v - self.v_t) + (drive - u)) / self.capacitance,
            u=self.a * (self.b * (v - self.v_u) - u),
        )

    def threshold(self, y):
        """See `ODESimulator`."""
        return y.v - self.v_peak

    def reset(self, y):
        """See `ODESimulator`."""
        return self.State(self.c, y.u + self.d)
