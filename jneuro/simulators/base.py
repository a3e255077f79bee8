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

from jneuro.core.names import unknown_name
from jneuro.core.random import require_key
from jneuro.core.types import Array, Float, Key, PyTree

__all__ = [
    "FRACTION",
    "NON_NEGATIVE",
    "POSITIVE",
    "REAL",
    "Bounds",
    "Drive",
    "Param",
    "Parameter",
    "Recordable",
    "Simulator",
    "StateVariable",
    "Strict",
    "initial_state",
    "is_number",
    "param",
    "preset",
    "require_inside",
    "require_within_bounds",
    "state",
    "state_variables",
    "step_count",
]


class Bounds(NamedTuple):
    """The interval in which a parameter makes sense.

    Attributes:
        low: lower end.
        high: upper end.
        open: whether the ends themselves are excluded.
        finite: whether infinite values are refused.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False
    finite: bool = True

    def contain(self, value: np.ndarray | float) -> bool:
        """Whether every element lies inside, and is finite where it must be."""
        value = np.asarray(value)
        above = value > self.low if self.open else value >= self.low
        below = value < self.high if self.open else value <= self.high
        return bool(np.all(above & below & (np.isfinite(value) | (not self.finite))))

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


def _to_array(value: Any) -> Any:
    """A strongly typed floating-point array, of the precision in force unless the value brings its own.

    What is no number stays what it is, so that `require_within_bounds` can refuse it by name.
    """
    if isinstance(value, eqx.Module | bool | str | None):
        return value  # among it a number that is drawn; see `jneuro.simulators.paths`
    listed = isinstance(value, list | tuple) and not any(isinstance(x, Tracer) for x in jax.tree.leaves(value))
    try:
        dtype = np.asarray(value).dtype if listed else getattr(value, "dtype", jnp.dtype(int))
    except ValueError:  # of rows of unequal length
        return value
    whole = jnp.issubdtype(dtype, jnp.integer)
    if not (whole or jnp.issubdtype(dtype, jnp.floating)):
        return value
    own = not (whole or listed or isinstance(value, float))
    target = jax.dtypes.canonicalize_dtype(dtype) if own else jnp.result_type(float)
    try:
        with np.errstate(over="ignore"):
            return jnp.asarray(value, target)
    except (TypeError, ValueError):
        return value


def is_number(value: Any) -> bool:
    """Whether a value is an array of floating-point numbers, as `param` makes them of what is given.

    Args:
        value: anything.
    """
    return eqx.is_array(value) and jnp.issubdtype(value.dtype, jnp.inexact)


class _NotStatic(NamedTuple):
    """Stands in a static field for what cannot be there, until the check that knows the field's name."""

    why: str


def _to_static(value: Any) -> Any:
    """A number of Python's own, which programs can be looked up by, in place of an array's."""
    if isinstance(value, Tracer):
        return _NotStatic("must be known when it is compiled; it cannot be traced, differentiated or batched")
    if isinstance(value, eqx.Module) and any(map(eqx.is_array, jax.tree.leaves(value))):
        return _NotStatic(f"cannot be a {type(value).__name__}; give a plain value")
    return value.tolist() if isinstance(value, np.generic | np.ndarray | jax.Array) else value


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a value; None of lists of unequal lengths."""
    try:
        return np.shape(value)
    except ValueError:
        return None


Param = Float[Array, "..."]
"""A parameter's annotation: one value, or one for each neuron."""


def param(
    default: Any = ...,
    *,
    unit: str = "1",
    bounds: Bounds = REAL,
    doc: str = "",
    source: str = "",
    static: bool = False,
    converter: Callable[[Any], Any] = _to_static,
) -> Any:
    """Declare a simulator's parameter, once for documentation, checks, fits and recordings.

    Args:
        default: the source's value; `...` where it must be given.
        unit: its unit; "1" for a pure number.
        bounds: the interval in which it makes sense; values outside are refused at construction.
        doc: its meaning, in one phrase.
        source: where the value stands: a paper, with section, equation or table.
        static: structural (a count, a time step, a choice): part of the compiled program, not differentiable.
        converter: makes a static parameter of what is given, such as a rule of its name.

    Returns:
        An `equinox` field. A parameter that is not static is converted to a strongly typed array.
    """
    metadata = {"jneuro": {"unit": unit, "source": source, "bounds": bounds, "doc": doc, "static": static}}
    given: Any = {} if default is ... else {"default": default}
    return eqx.field(static=static, converter=converter if static else _to_array, metadata=metadata, **given)


def preset(doc: str, **values: Any) -> Any:
    """Declare a classmethod that builds a simulator with the constants of a source; its name is listed in `presets`.

    Args:
        doc: its docstring.
        values: the constants by name, where they are not the defaults; those that the caller gives win.

    Returns:
        The classmethod.
    """

    def build(cls: Any, **overrides: Any) -> Any:
        return cls(**(values | overrides))

    build.__doc__ = doc
    return classmethod(build)


class Drive(NamedTuple):
    r"""What drives a cell: the current \(I - g v\), whose second part follows the potential within a step.

    Attributes:
        current: I, in the simulator's `input_unit`.
        conductance: g, in `input_unit` per mV; None where there is none.
    """

    current: Float[Array, "*neuron"] | float
    conductance: Float[Array, "*neuron"] | float | None = None


class StateVariable(NamedTuple):
    """What `state` declared of one variable.

    Attributes:
        initial: its initial value; None where `init` of the simulator makes it.
        unit: its unit.
        doc: its meaning, in one phrase.
        bounds: the interval in which it makes sense; an initial state outside is refused.
    """

    initial: float | None = None
    unit: str = "1"
    doc: str = ""
    bounds: Bounds = REAL


def state(initial: float | None = None, *, unit: str = "1", doc: str = "", bounds: Bounds = REAL) -> Any:
    """Declare a state variable: the default of a field of the NamedTuple `State`.

    Args:
        initial: its initial value; None where the simulator's `init` makes it.
        unit: its unit; "1" for a pure number.
        doc: its meaning, in one phrase.
        bounds: the interval in which it makes sense; an initial state outside is refused.

    Returns:
        The declaration.

    Example:
        ```python
        class State(NamedTuple):
            v: jn.Array = jn.state(-65.0, unit="mV", doc="membrane potential")
            w: jn.Array = jn.state(0.0)
        ```
    """
    return StateVariable(None if initial is None else float(initial), unit, doc, bounds)


def state_variables(kind: Any) -> dict[str, StateVariable]:
    """The variables that a `State` declares, in order; a plain field has the unit "1" and no initial value.

    Args:
        kind: a NamedTuple class.

    Returns:
        Name to declaration.
    """
    given = kind._field_defaults
    return {
        n: given[n] if isinstance(given.get(n), StateVariable) else StateVariable(given.get(n)) for n in kind._fields
    }


def require_within_bounds(module: eqx.Module) -> None:
    """Refuse declared parameters outside their bounds, by name, value, unit and meaning; traced values pass unseen.

    Args:
        module: a simulator, a stimulus, or a part of one.

    Raises:
        ValueError: for the first such parameter.
    """
    kind = type(module).__name__
    for field in dataclasses.fields(module):
        about, value = field.metadata.get("jneuro"), getattr(module, field.name)
        if about is None or isinstance(value, Tracer | eqx.Module):
            continue
        p = Parameter(name=field.name, default=field.default, **about)
        doc = f" ({p.doc})" if p.doc else ""
        if isinstance(value, _NotStatic):
            raise ValueError(f"{kind}: {p.name} is part of the compiled program and {value.why}{doc}")
        if (shape := _shape(value)) is None:
            raise ValueError(f"{kind}: {p.name} is a list of lists of unequal lengths; it must be an array{doc}")
        said = f"{kind}: {p.name} " + (f"has the shape {shape}; it" if shape else f"= {value!r}")
        one = " one " if p.static and shape else " a "
        all_ = ", the same for all neurons" if p.static and shape else ""
        number = isinstance(value, int | float) and not isinstance(value, bool) if p.static else is_number(value)
        if p.static and not number and field.type not in (int, float):
            continue  # a choice, or an object of its own
        if p.static and int in (field.type, type(p.default)) and not (number and isinstance(value, int)):
            raise ValueError(f"{said} must be{one}whole number{all_}{doc}")
        if not number:
            raise ValueError(f"{said} must be{one}number{all_}{doc}")
        require_inside(kind, p, value)


def require_inside(owner: str, parameter: Parameter, value: Any) -> None:
    """Refuse a value outside the bounds of a parameter, by name, place, unit and meaning.

    Args:
        owner: name of what has the parameter.
        parameter: its declaration.
        value: a number or an array.

    Raises:
        ValueError: for the first such element.
    """
    p, every = parameter, np.atleast_1d(value)
    if p.bounds.contain(every):
        return
    unit, doc = "" if p.unit == "1" else f" {p.unit}", f" ({p.doc})" if p.doc else ""
    at = next(i for i in np.ndindex(every.shape) if not p.bounds.contain(every[i]))
    place = f"[{', '.join(map(str, at))}]" if np.ndim(value) else ""
    raise ValueError(f"{owner}: {p.name}{place} = {every[at]}{unit} lies outside {p.bounds}{unit}{doc}")


def initial_state(simulator: "Simulator") -> Any:
    """The initial state that a simulator's `State` declares, of scalars.

    Args:
        simulator: what has the `State`.

    Raises:
        ValueError: if a variable has no initial value.
    """
    kind: Any = simulator.State  # pyright: ignore[reportAttributeAccessIssue]
    initial = {n: s.initial for n, s in state_variables(kind).items()}
    if missing := [n for n, x in initial.items() if x is None]:
        raise ValueError(
            f"{type(simulator).__name__}: {missing[0]} has no initial value; give it one, "
            f"{missing[0]}: jn.Array = jn.state(0.0), or define init(self, key)"
        )
    leaves = (jnp.asarray(x) for x in jax.tree.leaves(simulator))
    dtype = jnp.result_type(float, *(x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)))
    return kind(*(jnp.asarray(x, dtype) for x in initial.values()))


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


class Strict(eqx.Module):
    """A module that refuses an argument that it does not take, with the one that was probably meant; abstract."""

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """See the class."""
        del args
        if unknown := given.keys() - {f.name for f in dataclasses.fields(cls) if f.init}:
            known = [*inspect.signature(cls.__init__).parameters.values()][1:]
            names = [p.name for p in known if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            wrong = [name for name in given if name in unknown and name not in names]
            if wrong and not any(p.kind is p.VAR_KEYWORD for p in known):
                raise ValueError(f"{cls.__name__}: {unknown_name(wrong[0], names, 'argument')}")
        return super().__new__(cls)


class Simulator(Strict):
    """A neural simulator: abstract here, final in its subclasses."""

    recordables: ClassVar[Mapping[str, Recordable]]
    """What can be recorded."""

    presets: ClassVar[tuple[str, ...]] = ()
    """The classmethods that build it with the constants of a source."""

    def __check_init__(self) -> None:
        """Refuse parameters outside their bounds, then combinations of them; traced values pass unseen."""
        require_within_bounds(self)
        self.require_consistent()

    def require_consistent(self) -> None:
        """Refuse combinations of parameters, each of which lies within its bounds."""

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw the random connectivity, once, and return the simulator that has it; here: nothing, and itself."""
        require_key(key)
        return self

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree:
        """Make the initial state."""

    @property
    def default_record(self) -> tuple[str, ...]:
        """What `simulate` records where nothing is said: everything."""
        return tuple(self.recordables)


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
