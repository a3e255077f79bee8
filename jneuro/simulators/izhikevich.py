"""Izhikevich's two-variable neuron, in the form of 2003 and with a capacitance."""

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from jax.core import Tracer

from jneuro.core.types import Array, Float
from jneuro.simulators.base import NON_NEGATIVE, POSITIVE, Bounds, param, require_within_bounds, state
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.paths import parameters
from jneuro.simulators.solvers import SequentialEuler

__all__ = ["Izhikevich"]

_SIMPLE = "Izhikevich, IEEE Trans. Neural Netw. 14 (2003) 1569"
_HALF = 406.25**0.5
"""Half the distance of the roots of 0.04 v² + 5 v + 140, which lie about −62.5."""


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

    capacitance: Float[Array, "*neuron"] = param(1.0, unit="pF", source=_SIMPLE, bounds=POSITIVE, doc="capacitance C")
    k: Float[Array, "*neuron"] = param(
        0.04, unit="nS/mV", source=_SIMPLE, bounds=POSITIVE, doc="curvature of the membrane current"
    )
    v_r: Float[Array, "*neuron"] = param(
        -62.5 - _HALF, unit="mV", source=_SIMPLE, doc="lower root of the membrane current, the rest where b = 0"
    )
    v_t: Float[Array, "*neuron"] = param(
        -62.5 + _HALF, unit="mV", source=_SIMPLE, doc="upper root of the membrane current, the threshold where b = 0"
    )
    v_u: Float[Array, "*neuron"] = param(
        0.0, unit="mV", source=_SIMPLE, doc="potential at which recovery comes to rest at 0"
    )
    a: Float[Array, "*neuron"] = param(0.02, unit="1/ms", source=_SIMPLE, bounds=NON_NEGATIVE, doc="rate of recovery")
    b: Float[Array, "*neuron"] = param(0.2, unit="nS", source=_SIMPLE, doc="sensitivity of recovery to the potential")
    c: Float[Array, "*neuron"] = param(-65.0, unit="mV", source=_SIMPLE, doc="potential after a spike")
    d: Float[Array, "*neuron"] = param(8.0, unit="pA", source=_SIMPLE, doc="jump of recovery at a spike")
    v_peak: Float[Array, "*neuron"] = param(30.0, unit="mV", source=_SIMPLE, doc="potential at which a spike is cut")
    v_initial: Float[Array, "*neuron"] = param(
        -65.0, unit="mV", source=_SIMPLE, doc="initial potential; recovery starts at its rest there"
    )
    n: int = param(1, unit="1", source=_SIMPLE, bounds=Bounds(1), doc="number of neurons", static=True)

    class State(NamedTuple):
        """The state between two steps."""

        v: Float[Array, " neuron"] = state(unit="mV", doc="membrane potential")
        u: Float[Array, " neuron"] = state(unit="pA", doc="recovery current")

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

    def __check_init__(self) -> None:
        """Refuse cells that could not stop spiking."""
        require_within_bounds(self)
        if isinstance(self.c, Tracer) or isinstance(self.v_peak, Tracer):
            return
        if np.any(np.asarray(self.c) >= np.asarray(self.v_peak)):
            raise ValueError(f"Izhikevich: c = {self.c} mV must lie below v_peak = {self.v_peak} mV")

    @classmethod
    def regular_spiking(cls, **overrides) -> Self:
        """RS of 2003: pyramidal cells that adapt."""
        return cls(**overrides)

    @classmethod
    def intrinsically_bursting(cls, **overrides) -> Self:
        """IB of 2003: a burst, then single spikes."""
        return cls._with(overrides, c=-55.0, d=4.0)

    @classmethod
    def chattering(cls, **overrides) -> Self:
        """CH of 2003: bursts again and again."""
        return cls._with(overrides, c=-50.0, d=2.0)

    @classmethod
    def fast_spiking(cls, **overrides) -> Self:
        """FS of 2003: interneurons that hardly adapt."""
        return cls._with(overrides, a=0.1, d=2.0)

    @classmethod
    def low_threshold_spiking(cls, **overrides) -> Self:
        """LTS of 2003: interneurons that adapt and rebound."""
        return cls._with(overrides, b=0.25, d=2.0)

    @classmethod
    def thalamo_cortical(cls, **overrides) -> Self:
        """TC of 2003: tonic from rest, a rebound burst from hyperpolarisation."""
        return cls._with(overrides, b=0.25, d=0.05)

    @classmethod
    def resonator(cls, **overrides) -> Self:
        """RZ of 2003: subthreshold oscillations."""
        return cls._with(overrides, a=0.1, b=0.26, d=2.0)

    @classmethod
    def regular_spiking_2007(cls, **overrides) -> Self:
        """Regular spiking pyramidal cell of 2007, Figure 8.12."""
        return cls._with_capacitance(100.0, 0.7, -60.0, -40.0, 0.03, -2.0, -50.0, 100.0, 35.0, overrides)

    @classmethod
    def intrinsically_bursting_2007(cls, **overrides) -> Self:
        """Intrinsically bursting pyramidal cell of 2007, Figure 8.19."""
        return cls._with_capacitance(150.0, 1.2, -75.0, -45.0, 0.01, 5.0, -56.0, 130.0, 50.0, overrides)

    @classmethod
    def chattering_2007(cls, **overrides) -> Self:
        """Chattering pyramidal cell of 2007, Figure 8.23."""
        return cls._with_capacitance(50.0, 1.5, -60.0, -40.0, 0.03, 1.0, -40.0, 150.0, 25.0, overrides)

    @classmethod
    def medium_spiny_2007(cls, **overrides) -> Self:
        """Spiny projection neuron of the striatum of 2007, Section 8.4."""
        return cls._with_capacitance(50.0, 1.0, -80.0, -25.0, 0.01, -20.0, -55.0, 150.0, 40.0, overrides)

    @classmethod
    def _with(cls, overrides: dict[str, Any], **values: Any) -> Self:
        """Build from a source's values, but for what the caller wants otherwise."""
        return cls(**(values | overrides))

    @classmethod
    def _with_capacitance(cls, *values_and_overrides: Any) -> Self:
        """Build from 2007's C, k, v_r, v_t, a, b, c, d and v_peak; recovery and the run start at v_r."""
        *values, overrides = values_and_overrides
        names = ("capacitance", "k", "v_r", "v_t", "a", "b", "c", "d", "v_peak")
        given = dict(zip(names, values, strict=True)) | overrides
        return cls._with(given, v_u=given["v_r"], v_initial=given["v_r"])

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
