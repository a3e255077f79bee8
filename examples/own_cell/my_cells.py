"""Cells of one's own: variables with initial values and their derivatives; threshold and reset where they spike."""

from typing import NamedTuple

import jax.numpy as jnp

import jneuro as jn


class FitzHughNagumo(jn.ODESimulator):
    """The two-variable reduction of an excitable membrane (FitzHugh, Biophysical Journal 1 (1961) 445)."""

    a: jn.Param = jn.param(0.7)
    b: jn.Param = jn.param(0.8)
    tau: jn.Param = jn.param(12.5, unit="ms", bounds=jn.POSITIVE, doc="time constant of the recovery")

    class State(NamedTuple):
        """Potential and recovery."""

        v: jn.Array = jn.state(-1.2, doc="potential")
        w: jn.Array = jn.state(-0.6, doc="recovery")

    def vector_field(self, y, drive):
        """FitzHugh's equations."""
        return self.State(y.v - y.v**3 / 3 - y.w + drive, (y.v + self.a - self.b * y.w) / self.tau)

    def threshold(self, y):
        """A spike: the potential rises through 1."""
        return y.v - 1.0


class MorrisLecar(jn.ODESimulator):
    """Calcium and potassium in the barnacle's muscle (Morris & Lecar, Biophysical Journal 35 (1981) 193)."""

    g_ca: jn.Param = jn.param(4.0, unit="mS/cm²", bounds=jn.POSITIVE, doc="calcium conductance")
    g_k: jn.Param = jn.param(8.0, unit="mS/cm²", bounds=jn.POSITIVE, doc="potassium conductance")
    phi: jn.Param = jn.param(0.067, unit="1/ms", bounds=jn.POSITIVE, doc="rate of the potassium gate")

    class State(NamedTuple):
        """Potential and potassium gate."""

        v: jn.Array = jn.state(-40.0, unit="mV", doc="membrane potential")
        n: jn.Array = jn.state(0.0, doc="potassium gate")

    input_unit = "µA/cm²"

    def vector_field(self, y, drive):
        """With the constants of Rinzel & Ermentrout's saddle-node case."""
        m = 0.5 * (1 + jnp.tanh((y.v + 1.2) / 18))
        n, rate = 0.5 * (1 + jnp.tanh((y.v - 12) / 17.4)), self.phi * jnp.cosh((y.v - 12) / 34.8)
        ionic = self.g_ca * m * (y.v - 120) + self.g_k * y.n * (y.v + 84) + 2.0 * (y.v + 60)
        return self.State((drive - ionic) / 20.0, rate * (n - y.n))

    def threshold(self, y):
        """A spike: the potential rises through 0 mV."""
        return y.v


class LeakyIntegrateAndFire(jn.ODESimulator):
    """A leak, a threshold, a reset, and a refractory period."""

    tau: jn.Param = jn.param(20.0, unit="ms", bounds=jn.POSITIVE, doc="membrane time constant")
    v_rest: jn.Param = jn.param(-65.0, unit="mV", doc="resting potential")
    v_threshold: jn.Param = jn.param(-50.0, unit="mV", doc="potential of a spike")
    v_reset: jn.Param = jn.param(-65.0, unit="mV", doc="potential after a spike")

    refractory = 2.0  # ms

    class State(NamedTuple):
        """The potential."""

        v: jn.Array = jn.state(-65.0, unit="mV", doc="membrane potential")

    input_unit = "mV"

    def vector_field(self, y, drive):
        """The drive is the current times the membrane resistance."""
        return self.State((self.v_rest - y.v + drive) / self.tau)

    def threshold(self, y):
        """A spike: the potential reaches the threshold."""
        return y.v - self.v_threshold

    def reset(self, y):
        """After a spike."""
        return self.State(self.v_reset)
