"""The contract of cells, and of uncoupled populations of them: a differential equation, perhaps with resets."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.simulators.base import Recordable, Simulator, initial_state, state_variables
from jneuro.simulators.paths import draw, draw_parameters, parameters, resolve
from jneuro.simulators.solvers import RK4

__all__ = ["ODESimulator", "is_separable", "require_one_equation"]


class _Recordables:
    """What can be recorded, of a class or of an instance: told by the class, there is no second list to keep."""

    def __get__(self, instance: "ODESimulator | None", owner: type["ODESimulator"]) -> Mapping[str, Recordable]:
        if instance is None and getattr(owner, "State", None) is None:
            return {}
        about: Any = owner if instance is None else instance
        found = {n: Recordable(s.unit, "last", s.doc or n) for n, s in state_variables(about.State).items()}
        found["current"] = Recordable(about.input_unit, "last", "stimulus")
        if owner.threshold is not ODESimulator.threshold:
            found["spikes"] = Recordable("1", "sum", "spikes")
        if owner.observables is not ODESimulator.observables:
            cell = owner() if instance is None else resolve(draw(instance, jax.random.key(0)))
            y = jax.eval_shape(cell.init, jax.random.key(0))
            names = jax.eval_shape(cell.observables, y, jax.ShapeDtypeStruct((), jnp.result_type(float)))
            found |= {n: Recordable(cell.observable_units.get(n, "1"), "last", n) for n in names}
        return found


class ODESimulator(Simulator):
    r"""Neurons whose state obeys \(\dot y = f(y, I(t))\), and may jump where they spike; abstract.

    A cell of one's own needs a `State` and one of `vector_field` and `relaxation`; all else has a default:

    ```python
    class FitzHughNagumo(jn.ODESimulator):
        a: jn.Param = jn.param(0.7)
        b: jn.Param = jn.param(0.8)
        tau: jn.Param = jn.param(12.5, unit="ms", bounds=jn.POSITIVE)

        class State(NamedTuple):
            v: jn.Array = jn.state(-1.2)
            w: jn.Array = jn.state(-0.6)

        def vector_field(self, y, drive):
            return self.State(y.v - y.v**3 / 3 - y.w + drive, (y.v + self.a - self.b * y.w) / self.tau)

        def threshold(self, y):
            return y.v - 1.0
    ```

    The number of cells is not declared: parameters, stimulus and initial state broadcast, and whichever of them has one
    value a cell makes a population. Every cell obeys its own equation; none sees another.

    A step integrates, tests `threshold`, and resets. A cell with a `reset` spikes where `threshold` is not negative at
    a step's end, one without where it has risen through zero.
    """

    State: ClassVar[Any]
    """A NamedTuple of the variables, each with a `state` as default; the potential, if there is one, is named `v`."""

    input_unit: ClassVar[str] = "1"
    """Unit of the stimulus."""

    observable_units: ClassVar[Mapping[str, str]] = {}
    """Units of `observables`; "1" where nothing is said."""

    default_dt: ClassVar[float] = 0.025
    """The time step [ms] that `simulate` takes where none is given."""

    default_solver: ClassVar[Any] = RK4()
    """The fixed-step solver that `simulate` takes where none is given."""

    refractory = 0.0
    """Time [ms] for which the variables in `held` stay where a spike has put them; a parameter, where redefined."""

    held = ("v",)
    """Variables that stay during the refractory period."""

    recordables: ClassVar[Any] = _Recordables()
    """The variables, `current`, `spikes` where there is a threshold, and `observables`."""

    def __check_init__(self) -> None:
        """Refuse a class that is no equation."""
        name, kind = type(self).__name__, getattr(self, "State", None)
        if not (isinstance(kind, type) and issubclass(kind, tuple)):
            raise ValueError(f"{name}: declare its variables, class State(NamedTuple), in the class's body")
        if not (self.has_relaxation or self.has_vector_field):
            raise ValueError(f"{name}: define vector_field(self, y, drive), or relaxation(self, y, drive)")
        if self.has_reset and not self.has_threshold:
            raise ValueError(f"{name}: has a reset, but no threshold(self, y) that says when")

    @property
    def has_vector_field(self) -> bool:
        """Whether the class has a `vector_field` of its own."""
        return type(self).vector_field is not ODESimulator.vector_field

    @property
    def has_relaxation(self) -> bool:
        """Whether the class has a `relaxation` of its own."""
        return type(self).relaxation is not ODESimulator.relaxation

    @property
    def has_threshold(self) -> bool:
        """Whether it spikes."""
        return type(self).threshold is not ODESimulator.threshold

    @property
    def has_reset(self) -> bool:
        """Whether its state jumps at a spike."""
        return type(self).reset is not ODESimulator.reset

    @property
    def default_record(self) -> tuple[str, ...]:
        """What `simulate` records where nothing is said: all but `observables`."""
        names = (*self.State._fields, "current", "spikes")
        return tuple(n for n in names if n in self.recordables)

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw parameters that are distributions: one value a cell, where other parameters have so many, or else one.

        Args:
            key: random key.

        Returns:
            The simulator, which keeps the standard deviates; numbers stay differentiable in mean and deviation.

        Example:
            ```python
            cell = jn.HodgkinHuxley(g_k=jn.Normal(36.0, 2.0)).connect(key)
            ```
        """
        return draw_parameters(self, key, lambda simulator: simulator.cells)

    def init(self, key: Key[Array, ""]) -> Any:
        """Make the initial state, of scalars or of one value a cell: here, the values that `State` declares.

        Args:
            key: for what is drawn.
        """
        del key
        return initial_state(self)

    def vector_field(self, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
        """Return the time derivative of every variable [unit/ms]; by default from `relaxation`.

        Args:
            y: the state.
            drive: the stimulus, in `input_unit`.
        """
        steady, rate = self.relaxation(y, drive)
        return type(y)(*(r * (s - x) for x, s, r in zip(y, steady, rate, strict=True)))

    def relaxation(self, y: Any, drive: Float[Array, "*neuron"] | float) -> tuple[Any, Any]:
        r"""Return the values towards which the variables relax, and the rates [1/ms] at which they do.

        \[ \dot y_k = r_k(y)\,(\bar y_k(y) - y_k), \qquad r_k = -\partial f_k / \partial y_k \]

        Exponential and implicit schemes rest on it. By default it is derived from `vector_field`; a rate of zero is
        then replaced by one that is too small to matter.

        Args:
            y: the state.
            drive: the stimulus, in `input_unit`.
        """
        field, y = self.vector_field(y, drive), type(y)(*map(jnp.asarray, y))
        steady, rates = [], []
        for k, x in enumerate(y):

            def of_itself(x, k=k):
                return self.vector_field(type(y)(*y[:k], x, *y[k + 1 :]), drive)[k]

            slope = -jax.jvp(of_itself, (x,), (jnp.ones_like(x),))[1]
            rates.append(jnp.where(jnp.abs(slope) < _SLOWEST, _SLOWEST, slope))
            steady.append(x + field[k] / rates[-1])
        return type(y)(*steady), type(y)(*rates)

    def threshold(self, y: Any) -> Float[Array, "*neuron"]:
        """Return what rises through zero where the cell spikes, such as `y.v - self.v_peak`; by default nothing does.

        Args:
            y: the state.
        """
        raise ValueError(f"{type(self).__name__} has no threshold(self, y), so it has no spikes")

    def reset(self, y: Any) -> Any:
        """Return the state just after a spike, from that just before; by default the same.

        Args:
            y: the state.
        """
        return y

    def observables(self, y: Any, drive: Float[Array, "*neuron"] | float) -> dict[str, Array]:
        """Return what else can be recorded, such as ionic currents, by name; by default nothing.

        Args:
            y: the state.
            drive: the stimulus, in `input_unit`.
        """
        del y, drive
        return {}

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape of a variable: `()` for one cell, `(neuron,)` where a parameter has a value for each."""
        own = [getattr(self, name) for name, p in parameters(type(self)).items() if not p.static]
        return np.broadcast_shapes(*map(np.shape, own))


_SLOWEST = 1e-6
"""Rate [1/ms] that stands for zero."""


def is_separable(simulator: ODESimulator) -> bool:
    r"""Whether \(\dot v\) is linear in `v` given the other variables, and each of theirs in itself, given `v` only.

    Read from the program of `vector_field`, once for each class: what does not occur in a derivative's program cannot
    matter.

    Args:
        simulator: the cell.

    Returns:
        Whether it is so, and so second-order schemes may take potential and gates in turn.
    """
    leaves, structure = jax.tree.flatten(simulator)
    return _is_separable(structure, tuple(jnp.result_type(x) for x in leaves))


@functools.lru_cache(maxsize=256)
def _is_separable(structure: Any, dtypes: tuple[Any, ...]) -> bool:
    cell = structure.unflatten([jax.ShapeDtypeStruct((), d) for d in dtypes])
    kind = cell.State
    if "v" not in kind._fields:
        return False
    dtype = jnp.result_type(float, *dtypes)
    scalars = [jax.ShapeDtypeStruct((), dtype)] * (len(kind._fields) + 1)

    def field(leaves, *z):
        return tuple(jnp.asarray(x) for x in structure.unflatten(leaves).vector_field(kind(*z[:-1]), z[-1]))

    def slopes(leaves, *z):
        ones = [(jnp.ones_like(x), k) for k, x in enumerate(z[:-1])]
        return tuple(
            jax.jvp(lambda x, k=k: field(leaves, *z[:k], x, *z[k + 1 :])[k], (z[k],), (one,))[1] for one, k in ones
        )

    leaves, v = list(jax.tree.leaves(cell)), kind._fields.index("v")
    heard, slope = (_dependence(f, leaves, scalars) for f in (field, slopes))
    for k in range(len(kind._fields)):
        if k in slope[k] or (k != v and not (heard[k] <= {k, v} and slope[k] <= {v})):
            return False
    return True


def _dependence(function: Any, leaves: Any, scalars: Any) -> list[set[int]]:
    """On which of its arguments beside `leaves` each output may depend."""
    closed = jax.make_jaxpr(function)(leaves, *scalars)
    found = []
    for k in range(len(closed.jaxpr.outvars)):
        used = partial_eval.dce_jaxpr(closed.jaxpr, [j == k for j in range(len(closed.jaxpr.outvars))])[1]
        found.append({i - len(leaves) for i, u in enumerate(used) if u and i >= len(leaves)})
    return found


def require_one_equation(simulator: ODESimulator, y: PyTree) -> None:
    """Refuse a class whose `vector_field` and `relaxation` are not the same equation.

    Args:
        simulator: the cell.
        y: a state of it.

    Raises:
        ValueError: naming the variable.
    """
    if not (simulator.has_vector_field and simulator.has_relaxation):
        return
    with jax.ensure_compile_time_eval():
        y = type(y)(*(jnp.asarray(x) * 1.03 + 0.01 for x in y))
        given = simulator.vector_field(y, 0.5)
        implied = ODESimulator.vector_field(simulator, y, 0.5)
        for name, a, b in zip(y._fields, given, implied, strict=True):
            if not np.allclose(a, b, rtol=1e-2, atol=1e-3 * (1 + np.abs(b).max())):
                raise ValueError(
                    f"{type(simulator).__name__}: vector_field and relaxation are not the same equation: d{name}/dt is "
                    f"{np.max(a):.3g}/ms by the one and {np.max(b):.3g}/ms by the other; leave one of them out"
                )
