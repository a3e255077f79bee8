"""What every simulator is: a frozen pytree whose array leaves are its physical parameters."""

import abc
import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jneuro.core.types import Array, Float, Int, Key, PyTree

__all__ = [
    "FRACTION",
    "NON_NEGATIVE",
    "POSITIVE",
    "REAL",
    "Bounds",
    "ODESimulator",
    "Parameter",
    "Recordable",
    "Simulator",
    "SteppedSimulator",
    "accepted",
    "param",
    "parameters",
    "step_count",
]


class Bounds(NamedTuple):
    """The interval in which a parameter makes sense.

    Attributes:
        low: lower end.
        high: upper end.
        open: whether the ends themselves are excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def contain(self, value: np.ndarray | float) -> bool:
        """Whether every element lies inside and is finite."""
        value = np.asarray(value)
        above = value > self.low if self.open else value >= self.low
        below = value < self.high if self.open else value <= self.high
        return bool(np.all(above & below & np.isfinite(value)))

    def __str__(self) -> str:
        """In interval notation."""
        left, right = ("(" if self.open else "["), (")" if self.open else "]")
        left = "(" if self.low == -math.inf else left
        right = ")" if self.high == math.inf else right
        return f"{left}{self.low:g}, {self.high:g}{right}"


REAL = Bounds()
POSITIVE = Bounds(0.0, math.inf, open=True)
NON_NEGATIVE = Bounds(0.0, math.inf)
FRACTION = Bounds(0.0, 1.0)


class Parameter(NamedTuple):
    """What `param` declared: name, default, unit, bounds, source, meaning, and whether it is structural (static)."""

    name: str
    default: Any
    unit: str
    bounds: Bounds
    source: str
    doc: str
    static: bool


def _to_array(value: Any) -> Array:
    """A strongly typed floating-point array, of the precision in force unless the value brings its own."""
    if isinstance(value, jax.Array | np.ndarray) and jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))
    return jnp.asarray(value, jnp.result_type(float))


def param(default: Any, *, unit: str, source: str, bounds: Bounds = REAL, doc: str, static: bool = False) -> Any:
    """Declare a simulator's parameter, once for documentation, checks, fits and recordings.

    Args:
        default: the source's value.
        unit: its unit; "1" for a pure number.
        source: where the value stands: a paper, with section, equation or table.
        bounds: the interval in which it makes sense; values outside are refused at construction.
        doc: its meaning, in one phrase.
        static: structural (a count, a time step, a choice): part of the compiled program, not differentiable.

    Returns:
        An `equinox` field. A parameter that is not static is converted to a strongly typed array.
    """
    metadata = {"jneuro": {"unit": unit, "source": source, "bounds": bounds, "doc": doc, "static": static}}
    if static:
        return eqx.field(default=default, static=True, metadata=metadata)
    return eqx.field(default=default, converter=_to_array, metadata=metadata)


def parameters(simulator: "type[Simulator] | Simulator") -> dict[str, Parameter]:
    """The declared parameters of a simulator, in order.

    Args:
        simulator: a class, or an instance, whose own values then stand as the defaults.

    Returns:
        Name to declaration.
    """
    found = {}
    for field in dataclasses.fields(simulator):
        if about := field.metadata.get("jneuro"):
            default = field.default if isinstance(simulator, type) else getattr(simulator, field.name)
            found[field.name] = Parameter(name=field.name, default=default, **about)
    return found


def accepted(make: Callable) -> list[str]:
    """The names of the arguments that a simulator, a stimulus or a preset is built from."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, p in inspect.signature(make).parameters.items() if p.kind not in kinds]


class Recordable(NamedTuple):
    """A quantity that can be recorded.

    Attributes:
        unit: its unit.
        reduce: how the steps of one recorded frame become one value: the `last` or the `sum`.
        doc: its meaning.
    """

    unit: str
    reduce: Literal["last", "sum"]
    doc: str


class Simulator(eqx.Module):
    """A neural simulator: abstract here, final in its subclasses."""

    recordables: ClassVar[Mapping[str, Recordable]]
    """What can be recorded."""

    presets: ClassVar[tuple[str, ...]]
    """The classmethods that build it with the constants of a source."""

    def __check_init__(self) -> None:
        """Refuse parameters outside their bounds; traced values pass unseen."""
        for p in parameters(self).values():
            value, declared = p.default, type(self).__dataclass_fields__[p.name].default
            if isinstance(value, Tracer) or not isinstance(value, jax.Array | int | float):
                continue
            if isinstance(declared, int) and not isinstance(value, int):
                raise ValueError(f"{type(self).__name__}: {p.name} = {value} must be a whole number ({p.doc})")
            if not p.bounds.contain(np.asarray(value)):
                unit = "" if p.unit == "1" else f" {p.unit}"
                raise ValueError(
                    f"{type(self).__name__}: {p.name} = {np.asarray(value)}{unit} "
                    f"lies outside {p.bounds}{unit} ({p.doc})"
                )

    @abc.abstractmethod
    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw the random connectivity, once, and return the simulator that has it; single cells return themselves."""


class SteppedSimulator(Simulator):
    """A simulator with a time step of its own, advanced in blocks of steps.

    Neurons that talk with a delay cannot hear each other within that delay. A block is such a stretch: all its steps
    are known from the state alone, so its recurrent input, random numbers and records are each one array operation.
    Results do not depend on how a run is cut into blocks.
    """

    dt: eqx.AbstractVar[float]
    """Time step [ms]."""

    @property
    @abc.abstractmethod
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons, in their order."""

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(self.populations.values())

    @property
    @abc.abstractmethod
    def longest_block(self) -> int:
        """The most steps that `advance` takes at once, at least 1."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw an initial state: a NamedTuple that has a field `step`, the number of steps taken so far."""

    @abc.abstractmethod
    def draw(self, key: Key[Array, ""], first_step: Int[Array, ""], steps: int) -> PyTree:
        """Draw the noise of `steps` steps, by absolute step, so that a run may be cut anywhere.

        Args:
            key: the run's key.
            first_step: the number of the first.
            steps: how many; not limited by `longest_block`.

        Returns:
            Arrays `[step, ...]`, or None where nothing is random.
        """

    @abc.abstractmethod
    def take(
        self, state: PyTree, drive: Float[Array, "step #neuron"] | None, noise: PyTree, steps: int
    ) -> tuple[PyTree, dict[str, Array]]:
        """Take `steps` steps, at most `longest_block`, under noise that was drawn for them.

        Args:
            state: where to start.
            drive: the stimulus at each step, in the simulator's unit; None where there is none.
            noise: what `draw` gave for these steps.
            steps: how many.

        Returns:
            The new state, and every recordable at every step, `[step, ...]`.
        """

    def advance(
        self, state: PyTree, drive: Float[Array, "step #neuron"] | None, key: Key[Array, ""], steps: int
    ) -> tuple[PyTree, dict[str, Array]]:
        """Draw the noise of `steps` steps and take them; see `take`, which this is where the noise is not at hand."""
        return self.take(state, drive, self.draw(key, state.step, steps), steps)

    def step_count(self, duration: float, name: str = "duration") -> int:
        """Convert a time [ms] to a whole number of this simulator's steps; see `step_count`."""
        return step_count(duration, self.dt, name)


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


def step_count(duration: float, dt: float, name: str = "duration") -> int:
    """Convert a time to a whole number of steps.

    Args:
        duration: the time [ms].
        dt: the time step [ms].
        name: what the time is, for the error message.

    Returns:
        The number of steps.

    Raises:
        ValueError: if the time is not finite, or not a multiple of the time step.
    """
    if not math.isfinite(duration):
        raise ValueError(f"{name} = {duration} ms must be finite")
    steps = round(duration / dt)
    # A share of a step, not of the time: half a step too much is an error in a run of any length.
    if abs(duration / dt - steps) > 1e-4:
        raise ValueError(f"{name} = {duration} ms is not a multiple of the time step, {dt} ms")
    return steps
