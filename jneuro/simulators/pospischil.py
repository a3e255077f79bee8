"""The minimal spiking cell of the cortex: sodium, potassium, slow potassium and leak."""

import math
from typing import ClassVar, NamedTuple, Self

import jax.numpy as jnp

from jneuro.core.types import Array, Float
from jneuro.simulators.base import NON_NEGATIVE, POSITIVE, Recordable, param
from jneuro.simulators.kinetics import exponentials, linoid
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import StaggeredCrankNicolson

__all__ = ["Pospischil", "PospischilState"]

_SOURCE = "Pospischil et al., Biol. Cybern. 99 (2008) 427, regular spiking, Figure 2"
_AREA = math.pi * 61.4**2 * 1e-8
"""A cylinder of equal length and diameter [cm²]."""


class PospischilState(NamedTuple):
    """The state of a cell.

    Attributes:
        v: membrane potential [mV].
        m: activation of sodium.
        h: availability of sodium.
        n: activation of potassium.
        p: activation of the slow potassium current.
    """

    v: Float[Array, "*neuron"]
    m: Float[Array, "*neuron"]
    h: Float[Array, "*neuron"]
    n: Float[Array, "*neuron"]
    p: Float[Array, "*neuron"]


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

    presets: ClassVar = ("regular_spiking",)
    default_dt: ClassVar = 0.025
    separable: ClassVar = True
    # The steepest fall from a spike's peak, and a potential far below rest.
    busiest: ClassVar = ((40.0, 0.99, 0.3, 0.45, 0.1), (-90.0, 0.0, 1.0, 0.0, 0.0))
    recordables: ClassVar = {
        "v": Recordable("mV", "last", "membrane potential"),
        "m": Recordable("1", "last", "activation of sodium"),
        "h": Recordable("1", "last", "availability of sodium"),
        "n": Recordable("1", "last", "activation of potassium"),
        "p": Recordable("1", "last", "activation of the M current"),
        "current": Recordable("pA", "last", "stimulus"),
        "spikes": Recordable("1", "sum", "upward crossings of v_spike"),
    }

    @classmethod
    def regular_spiking(cls, **overrides) -> Self:
        """The regular-spiking pyramidal cell of Figure 2."""
        return cls(**overrides)

    @property
    def default_solver(self) -> StaggeredCrankNicolson:
        """Second order in one evaluation a step."""
        return StaggeredCrankNicolson()

    def connect(self, key) -> Self:
        """Return itself: nothing is connected."""
        return self

    def init(self, key) -> PospischilState:
        """The gates' steady state at `v_initial`."""
        v = self.v_initial
        start = PospischilState(v, *(jnp.zeros_like(v) for _ in range(4)))
        return self.relaxation(start, 0.0)[0]._replace(v=v)

    def relaxation(self, y, drive):
        """See `ODESimulator`."""
        v, m, h, n, p = y
        x = v - self.v_t
        # Two exponentials serve all seven rates.
        a, b = exponentials(x, -1 / 40, -1 / 18)
        a2 = a * a
        a8 = jnp.square(a2 * a2)
        alpha_m = 1.28 * linoid((x - 13) / 4, a8 * a2 * math.exp(13 / 4))
        beta_m = 1.4 * linoid((40 - x) / 5, math.exp(-8.0) / a8)
        alpha_h = 0.128 * math.exp(17 / 18) * b
        beta_h = 4 / (1 + math.exp(8.0) * a8)
        alpha_n = 0.16 * linoid((x - 15) / 5, a8 * math.exp(3.0))
        beta_n = 0.5 * math.exp(0.25) * a
        w = a2 * jnp.exp((self.v_m - self.v_t) / 20)
        g_na, g_k = self.g_na * m * m * m * h, self.g_k * jnp.square(n * n) + self.g_m * p
        total = g_na + g_k + self.g_l
        steady = (g_na * self.e_na + g_k * self.e_k + self.g_l * self.e_l + drive) / total
        sums = alpha_m + beta_m, alpha_h + beta_h, alpha_n + beta_n
        return (
            PospischilState(steady, alpha_m / sums[0], alpha_h / sums[1], alpha_n / sums[2], 1 / (1 + w * w)),
            PospischilState(total / self.capacitance, *sums, (3.3 / w + w) / self.tau_max),
        )
