"""The minimal spiking cell of the cortex: sodium, potassium, slow potassium and leak."""

import math
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, param, state
from jneuro.simulators.kernels import cells
from jneuro.simulators.kinetics import linoid
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import StaggeredCrankNicolson

__all__ = ["Pospischil"]

_SOURCE = "Pospischil et al., Biol. Cybern. 99 (2008) 427, regular spiking, Figure 2"
_AREA = math.pi * 61.4**2 * 1e-8
"""A cylinder of equal length and diameter [cm²]."""


class Pospischil(ODESimulator):
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

    capacitance: Float[Array, "*neuron"] = param(
        1e6 * _AREA, unit="pF", source=_SOURCE, bounds=POSITIVE, doc="capacitance"
    )
    g_na: Float[Array, "*neuron"] = param(
        56e6 * _AREA, unit="nS", source=_SOURCE, bounds=NON_NEGATIVE, doc="sodium conductance"
    )
    g_k: Float[Array, "*neuron"] = param(
        6e6 * _AREA, unit="nS", source=_SOURCE, bounds=NON_NEGATIVE, doc="potassium conductance"
    )
    g_m: Float[Array, "*neuron"] = param(
        0.075e6 * _AREA, unit="nS", source=_SOURCE, bounds=NON_NEGATIVE, doc="conductance of the M current"
    )
    g_l: Float[Array, "*neuron"] = param(
        0.0205e6 * _AREA, unit="nS", source=_SOURCE, bounds=NON_NEGATIVE, doc="leak conductance"
    )
    e_na: Float[Array, "*neuron"] = param(50.0, unit="mV", source=_SOURCE, doc="sodium reversal potential")
    e_k: Float[Array, "*neuron"] = param(-90.0, unit="mV", source=_SOURCE, doc="potassium reversal potential")
    e_l: Float[Array, "*neuron"] = param(-70.3, unit="mV", source=_SOURCE, doc="leak reversal potential")
    v_t: Float[Array, "*neuron"] = param(-56.2, unit="mV", source=_SOURCE, doc="shift of the gates of the spike")
    v_m: Float[Array, "*neuron"] = param(-35.0, unit="mV", source=_SOURCE, doc="half activation of the M current")
    tau_max: Float[Array, "*neuron"] = param(
        608.0, unit="ms", source=_SOURCE, bounds=POSITIVE, doc="scale of the M current's time constant"
    )
    v_initial: Float[Array, "*neuron"] = param(
        -70.3, unit="mV", source=_SOURCE, doc="initial potential; the gates start at its steady state"
    )
    v_spike: Float[Array, ""] = param(
        0.0, unit="mV", source="convention", doc="potential whose upward crossing is a spike"
    )

    class State(NamedTuple):
        """The state of a cell."""

        v: Float[Array, "*neuron"] = state(unit="mV", doc="membrane potential")
        m: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="activation of sodium")
        h: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="availability of sodium")
        n: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="activation of potassium")
        p: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="activation of the M current")

    presets: ClassVar = ("regular_spiking",)
    input_unit: ClassVar = "pA"
    # Second order in one evaluation a step.
    default_solver: ClassVar = StaggeredCrankNicolson()
    observable_units: ClassVar = dict.fromkeys(("i_na", "i_k", "i_m", "i_l"), "pA")

    @classmethod
    def regular_spiking(cls, **overrides) -> Self:
        """The regular-spiking pyramidal cell of Figure 2."""
        return cls(**overrides)

    def init(self, key):
        """The gates' steady state at `v_initial`."""
        v = self.v_initial
        start = self.State(v, *(jnp.zeros_like(v) for _ in range(4)))
        return self.relaxation(start, 0.0)[0]._replace(v=v)

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
        return cells.pospischil(self, y, drive)

    def threshold(self, y):
        """See `ODESimulator`."""
        return y.v - self.v_spike
