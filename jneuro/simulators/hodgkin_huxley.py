"""The giant axon of the squid."""

import math
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import NON_NEGATIVE, POSITIVE, Recordable, param
from jneuro.simulators.kinetics import exponentials, linoid
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import StaggeredCrankNicolson

__all__ = ["HodgkinHuxley", "HodgkinHuxleyState"]

_SOURCE = "Hodgkin & Huxley, J. Physiol. 117 (1952) 500, Table 3"


class HodgkinHuxleyState(NamedTuple):
    """The state of a membrane.

    Attributes:
        v: membrane potential [mV].
        m: activation of sodium.
        h: availability of sodium.
        n: activation of potassium.
    """

    v: Float[Array, "*neuron"]
    m: Float[Array, "*neuron"]
    h: Float[Array, "*neuron"]
    n: Float[Array, "*neuron"]


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

    presets: ClassVar = ("squid_axon", "neuron")
    default_dt: ClassVar = 0.025
    separable: ClassVar = True
    # The steepest fall from a spike's peak, and the undershoot.
    busiest: ClassVar = ((40.0, 0.99, 0.3, 0.45), (-77.0, 0.02, 0.1, 0.7))
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "m": Recordable("1", "last", "activation of sodium"),
        "h": Recordable("1", "last", "availability of sodium"),
        "n": Recordable("1", "last", "activation of potassium"),
        "current": Recordable("µA/cm²", "last", "stimulus"),
        "spikes": Recordable("1", "sum", "upward crossings of v_spike"),
    }

    @classmethod
    def squid_axon(cls, **overrides) -> Self:
        """The constants of Hodgkin and Huxley (1952), shifted to a rest of −65 mV."""
        return cls(**overrides)

    @classmethod
    def neuron(cls, **overrides) -> Self:
        """The constants of the mechanism `hh` of the simulator NEURON, whose leak reverses at −54.3 mV."""
        values: dict[str, Any] = {"e_l": -54.3}
        return cls(**(values | overrides))

    @property
    def default_solver(self) -> StaggeredCrankNicolson:
        """Second order in one evaluation a step."""
        return StaggeredCrankNicolson()

    def connect(self, key) -> Self:
        """Return itself: nothing is connected."""
        return self

    def init(self, key) -> HodgkinHuxleyState:
        """The gates' steady state at `v_initial`."""
        v = self.v_initial
        start = HodgkinHuxleyState(v, jnp.zeros_like(v), jnp.zeros_like(v), jnp.zeros_like(v))
        return self.relaxation(start, 0.0)[0]._replace(v=v)

    def relaxation(self, y, drive):
        """See `ODESimulator`."""
        v, m, h, n = y
        # Two exponentials serve all six rates.
        a, b = exponentials(v, -1 / 80, -1 / 18)
        a4 = jnp.square(jnp.square(a))
        a8 = a4 * a4
        alpha_m = linoid(0.1 * (v + 40), a8 * math.exp(-4.0))
        beta_m = 4 * math.exp(-65 / 18) * b
        alpha_h = 0.07 * math.exp(-65 / 20) * a4
        beta_h = 1 / (1 + math.exp(-3.5) * a8)
        alpha_n = 0.1 * linoid(0.1 * (v + 55), a8 * math.exp(-5.5))
        beta_n = 0.125 * math.exp(-65 / 80) * a
        g_na, g_k = self.g_na * m * m * m * h, self.g_k * jnp.square(n * n)
        total = g_na + g_k + self.g_l
        steady = (g_na * self.e_na + g_k * self.e_k + self.g_l * self.e_l + drive) / total
        sums = alpha_m + beta_m, alpha_h + beta_h, alpha_n + beta_n
        return (
            HodgkinHuxleyState(steady, alpha_m / sums[0], alpha_h / sums[1], alpha_n / sums[2]),
            HodgkinHuxleyState(total / self.c_m, *(self.phi * s for s in sums)),
        )
