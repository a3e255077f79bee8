"""The giant axon of the squid."""

from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, param, state
from jneuro.simulators.kernels import cells
from jneuro.simulators.kinetics import linoid
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import StaggeredCrankNicolson

__all__ = ["HodgkinHuxley"]

_SOURCE = "Hodgkin & Huxley, J. Physiol. 117 (1952) 500, Table 3"


class HodgkinHuxley(ODESimulator):
    r"""The Hodgkin–Huxley membrane, resting near −65 mV.

    \[ C \dot v = -g_{Na} m^3 h (v - E_{Na}) - g_K n^4 (v - E_K) - g_L (v - E_L) + I(t) \]

    \[ \dot x = \varphi\,(\alpha_x(v)(1 - x) - \beta_x(v)\,x), \quad x = m, h, n \]

    \(\alpha_m\) and \(\alpha_n\) are 0/0 at −40 and −55 mV; values and gradients are finite there.

    The stimulus of `simulate` is the current density \(I(t)\) [µA/cm²].

    References:
        Hodgkin A. L., Huxley A. F., Journal of Physiology 117 (1952) 500, Equations 26 and 7–21.
    """

    c_m: Float[Array, "*neuron"] = param(1.0, unit="µF/cm²", source=_SOURCE, bounds=POSITIVE, doc="capacitance")
    g_na: Float[Array, "*neuron"] = param(
        120.0, unit="mS/cm²", source=_SOURCE, bounds=NON_NEGATIVE, doc="sodium conductance"
    )
    g_k: Float[Array, "*neuron"] = param(
        36.0, unit="mS/cm²", source=_SOURCE, bounds=NON_NEGATIVE, doc="potassium conductance"
    )
    g_l: Float[Array, "*neuron"] = param(
        0.3, unit="mS/cm²", source=_SOURCE, bounds=NON_NEGATIVE, doc="leak conductance"
    )
    e_na: Float[Array, "*neuron"] = param(50.0, unit="mV", source=_SOURCE, doc="sodium reversal potential")
    e_k: Float[Array, "*neuron"] = param(-77.0, unit="mV", source=_SOURCE, doc="potassium reversal potential")
    e_l: Float[Array, "*neuron"] = param(-54.4, unit="mV", source=_SOURCE, doc="leak reversal potential")
    phi: Float[Array, "*neuron"] = param(
        1.0, unit="1", source=_SOURCE, bounds=POSITIVE, doc="rate factor of the gates; 1 at 6.3 °C"
    )
    v_initial: Float[Array, "*neuron"] = param(
        -65.0, unit="mV", source=_SOURCE, doc="initial potential; the gates start at its steady state"
    )
    v_spike: Float[Array, ""] = param(
        0.0, unit="mV", source="convention", doc="potential whose upward crossing is a spike"
    )

    class State(NamedTuple):
        """The state of a membrane."""

        v: Float[Array, "*neuron"] = state(unit="mV", doc="membrane potential")
        m: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="activation of sodium")
        h: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="availability of sodium")
        n: Float[Array, "*neuron"] = state(bounds=FRACTION, doc="activation of potassium")

    presets: ClassVar = ("squid_axon", "neuron")
    input_unit: ClassVar = "µA/cm²"
    # Second order in one evaluation a step.
    default_solver: ClassVar = StaggeredCrankNicolson()
    observable_units: ClassVar = dict.fromkeys(("i_na", "i_k", "i_l"), "µA/cm²")

    @classmethod
    def squid_axon(cls, **overrides) -> Self:
        """The constants of Hodgkin and Huxley (1952), shifted to a rest of −65 mV."""
        return cls(**overrides)

    @classmethod
    def neuron(cls, **overrides) -> Self:
        """The constants of the mechanism `hh` of the simulator NEURON, whose leak reverses at −54.3 mV."""
        values: dict[str, Any] = {"e_l": -54.3}
        return cls(**(values | overrides))

    def init(self, key):
        """The gates' steady state at `v_initial`."""
        v = self.v_initial
        start = self.State(v, jnp.zeros_like(v), jnp.zeros_like(v), jnp.zeros_like(v))
        return self.relaxation(start, 0.0)[0]._replace(v=v)

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
        return cells.hodgkin_huxley(self, y, drive)

    def threshold(self, y):
        """See `ODESimulator`."""
        return y.v - self.v_spike
