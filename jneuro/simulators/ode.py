"""The contract of cells and uncoupled populations that obey an ordinary differential equation."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.simulators.base import Simulator, parameters

__all__ = ["ODESimulator"]


class ODESimulator(Simulator):
    r"""Neurons whose state obeys \(\dot y = f(t, y)\): one cell, or a population of uncoupled cells.

    The number of cells is not declared: parameters, stimulus and initial state broadcast, and whichever of them has one
    value a cell makes a population. The state is a NamedTuple, its first field `v` the membrane potential. Given the
    potential, every variable relaxes towards a steady value, which is what exponential and implicit schemes rest on:

    \[ \dot y_k = r_k(y)\,(\bar y_k(y) - y_k) \]
    """

    v_spike: eqx.AbstractVar[Array]
    """Potential [mV] whose upward crossing counts as a spike."""

    default_dt: ClassVar[float]
    """The time step [ms] of the default solver."""

    separable: ClassVar[bool]
    r"""Whether \(\dot v\) is linear in `v` given the other variables, and theirs depend on `v` only."""

    busiest: ClassVar[tuple[tuple[float, ...], ...]]
    """States at which relaxation is fastest in ordinary use, such as the peak of a spike; see `fastest_rate`."""

    @property
    @abc.abstractmethod
    def default_solver(self) -> Any:
        """The fixed-step solver that `simulate` takes where none is given."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree:
        """Make the initial state: a NamedTuple of scalars, or of one value a cell."""

    @abc.abstractmethod
    def relaxation(self, y: PyTree, drive: Float[Array, "*neuron"] | float) -> tuple[PyTree, PyTree]:
        """Return the steady values, and the rates [1/ms] at which the state relaxes towards them.

        Args:
            y: the state.
            drive: the stimulus, in the simulator's unit.
        """

    def vector_field(self, y: PyTree, drive: Float[Array, "*neuron"] | float) -> PyTree:
        """Return the time derivative of every variable [unit/ms]; arguments as in `relaxation`."""
        steady, rate = self.relaxation(y, drive)
        return type(y)(*(r * (s - x) for x, s, r in zip(y, steady, rate, strict=True)))

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape of a variable: `()` for one cell, `(neuron,)` where a parameter has a value for each."""
        return np.broadcast_shapes(*(np.shape(p.default) for p in parameters(self).values() if not p.static))

    def fastest_rate(self) -> float:
        """The fastest relaxation [1/ms] at the `busiest` states; an explicit scheme's step must resolve it."""
        with jax.ensure_compile_time_eval():
            state = type(self.init(jax.random.key(0)))
            rates = [self.relaxation(state(*map(jnp.asarray, values)), 0.0)[1] for values in self.busiest]
            return max(float(np.max(rate)) for rate in jax.tree.leaves(rates))
