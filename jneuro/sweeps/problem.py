"""A sweep as objects: what is simulated, what is varied and how, what is kept of every point; checked once."""

import dataclasses
import functools
import hashlib
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.code import digest
from jneuro.core.names import unknown_name
from jneuro.core.random import stream
from jneuro.core.types import Array, Key
from jneuro.simulators.base import Simulator, step_count
from jneuro.simulators.config import populations_of, require_possible, scheme_of
from jneuro.simulators.paths import draw, parameters, replace, resolve
from jneuro.simulators.stimuli import Stimulus
from jneuro.sweeps.design import DesignConfig
from jneuro.sweeps.measures import Measure

__all__ = ["Drawn", "Fixed", "Recipe", "SweepProblem", "described", "source_of", "targets_of"]


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A stimulus that is there; what in it is a distribution is drawn for every point.

    Attributes:
        stimulus: the stimulus.
        name: its name in messages.
    """

    stimulus: Stimulus
    name: str

    def build(self, key: Key[Array, ""], values: Mapping[str, Any]) -> Stimulus:
        """The stimulus of a point: with these values at these paths."""
        return resolve(draw(replace(self.stimulus, values), key))

    def refuse(self, path: str) -> str | None:
        """Say why a path cannot be varied; None if it can."""
        return _refused(self.stimulus, path, self.name, "argument")

    @property
    def names(self) -> tuple[str, ...]:
        """All that it has."""
        return tuple(parameters(self.stimulus))

    @property
    def source(self) -> str | None:
        """Stands for its code; see `jneuro.core.code.digest`."""
        return source_of(self.stimulus)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A stimulus that is built anew for every point: by a function of a key, or from a configuration.

    Attributes:
        make: from a key, and arguments by name, to a stimulus.
        arguments: the names of its arguments.
        name: its name in messages.
        source: stands for its code.
    """

    make: Callable[[Key[Array, ""], Mapping[str, Any]], Stimulus]
    arguments: tuple[str, ...]
    name: str
    source: str | None

    def build(self, key: Key[Array, ""], values: Mapping[str, Any]) -> Stimulus:
        """The stimulus of a point: made with these arguments; other paths are set afterwards."""
        given = {n: v for n, v in values.items() if n in self.arguments}
        built = replace(self.make(key, given), {n: v for n, v in values.items() if n not in given})
        return resolve(draw(built, key))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All that it has."""
        return tuple(dict.fromkeys([*self.arguments, *parameters(self.make(jax.random.key(0), {}))]))

    def refuse(self, path: str) -> str | None:
        """Say why an argument or a path cannot be varied; None if it can."""
        example = self.make(jax.random.key(0), {})
        if path not in self.arguments:
            return _refused(example, path, self.name, "argument", self.names)
        fixed = type(example).__dataclass_fields__.get(path)
        said = f"{path} of {self.name} is part of the compiled program and cannot be varied in it"
        if fixed is not None and fixed.metadata.get("static"):
            return said
        try:
            jax.eval_shape(lambda x: self.make(jax.random.key(0), {path: x}), jnp.zeros(()))
        except (TypeError, ValueError):
            return said
        return None


Drawn = Fixed | Recipe
"""How the stimulus of a point comes about."""


def _refused(obj: Any, path: str, name: str, kind: str, known: Sequence[str] | None = None) -> str | None:
    """Say why a path in an object cannot be varied; None if it can."""
    declared = parameters(obj)
    if path not in declared:
        return f"{name}: {unknown_name(path, declared if known is None else known, kind)}"
    if declared[path].static:
        remedy = f"; make one sweep for each value (simulation.simulator.{path}=...)" if kind == "parameter" else ""
        return f"{path} of {name} is part of the compiled program and cannot be varied in it{remedy}"
    return None


def source_of(thing: Any) -> str | None:
    """Stand for the code behind an object and its parts, a class or a function; see `jneuro.core.code.digest`."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    digests = [digest(part) for part in (thing, *_modules_in(thing))]
    return None if None in digests else " ".join(dict.fromkeys(d for d in digests if d))


def _modules_in(thing: Any) -> Iterator[eqx.Module]:
    """The modules that a module holds, in static fields too, such as the rule of a network."""
    for field in dataclasses.fields(thing) if isinstance(thing, eqx.Module) else ():
        value = getattr(thing, field.name, None)
        for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]:
            if isinstance(part, eqx.Module):
                yield part
                yield from _modules_in(part)


@dataclasses.dataclass(frozen=True, eq=False)
class SweepProblem:
    """What every point of a sweep simulates, and what is kept of it.

    Attributes:
        simulator: what is simulated, not yet connected.
        stimulus: what drives it.
        design: which points.
        targets: the paths that every axis sets, `simulator.PATH` or `stimulus.PATH`.
        duration: recorded time [ms].
        warmup: time simulated first and not recorded [ms].
        record_every: time between recorded frames [ms]; by default every step.
        dt: time step of an ODE simulator [ms]; by default its own.
        solver: solver of an ODE simulator; by default its own.
        measures: what is computed of every recording.
        keep: recorded quantities whose raw traces are stored.
        key: of all that is random.
        name: the simulator's, in messages.
        said: what stands for all of this in the store, beside the digests of code of one's own; JSON.
        sources: what stands for code that the objects no longer show, such as a function that has made one.
    """

    simulator: Simulator
    stimulus: Drawn | None
    design: DesignConfig
    targets: Mapping[str, tuple[str, ...]]
    duration: float
    warmup: float
    record_every: float | None
    dt: float | None
    solver: Any
    measures: tuple[Measure, ...]
    keep: tuple[str, ...]
    key: Key[Array, ""]
    name: str
    said: Mapping[str, Any]
    sources: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated, before anything is."""
        if not self.measures and not self.keep:
            raise ValueError("measures and keep are both empty: nothing would be kept")
        for key, names in (("measures", [m.name for m in self.measures]), ("keep", list(self.keep))):
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: names one of them twice")
        self._check_records()
        steps = {n: step_count(getattr(self, n), self.scheme["dt"], n) for n in ("duration", "warmup")}
        if steps["duration"] < 1 or steps["warmup"] < 0:
            name = "duration" if steps["duration"] < 1 else "warmup"
            must = "be positive" if name == "duration" else "not be negative"
            raise ValueError(f"{name} = {getattr(self, name)} ms must {must}")
        if sum(steps.values()) >= 2**31:
            raise ValueError(
                f"duration = {self.duration:g} ms is {sum(steps.values()):,} steps, more than can be counted"
            )
        self._check_targets()
        self._check_ends()

    def _check_records(self) -> None:
        """Refuse measures of what the simulator does not record."""
        known = self.simulator.recordables
        for name in self.keep:
            if name not in known:
                raise ValueError(f"keep: {unknown_name(name, known, 'variable')}")
        for measure in self.measures:
            lacking = [n for n in measure.needs if n not in known]
            if lacking:
                why = "; it has no threshold" if lacking[0] == "spikes" else f"; it records {', '.join(known)}"
                raise ValueError(
                    f"measures: {measure.name} needs {lacking[0]!r}, which {self.name} does not record{why}"
                )

    def _check_targets(self) -> None:
        """Refuse axes that vary nothing, or what cannot be varied."""
        taken: dict[str, str] = {}
        for name, paths in self.targets.items():
            for target in paths:
                where, _, path = target.partition(".")
                if where == "simulator":
                    refused = _refused(self.simulator, path, self.name, "parameter")
                elif self.stimulus is None:
                    refused = f"{target} cannot be varied: the simulation has no stimulus"
                else:
                    refused = self.stimulus.refuse(path)
                if refused is not None:
                    raise ValueError(f"sweep.axes.{name}: {refused}")
                if target in taken:
                    raise ValueError(f"sweep.axes.{name}: {target} is varied by {taken[target]} already")
                taken[target] = name

    def _check_ends(self) -> None:
        """Build the simulation at the ends of every axis, and at the ends of all: its own checks know the bounds."""
        ends = {name: self.design.ends(name) for name in self.design.varied}
        cases = [{name: value} for name, pair in ends.items() for value in pair]
        cases += [{name: pair[k] for name, pair in ends.items()} for k in (0, 1)]
        for case in {tuple(case.items()): case for case in cases}.values():
            try:
                simulator, stimulus = self.at(case, jax.random.key(0))
                require_possible(simulator, stimulus, **self.scheme)
            except ValueError as error:
                at = ", ".join(f"{name} = {value:g}" for name, value in case.items())
                raise ValueError(f"sweep.axes: at {at}: {error}") from error

    def at(self, case: Mapping[str, Any], key: Key[Array, ""]) -> tuple[Any, Stimulus | None]:
        """The simulator, not yet connected, and the stimulus of a point.

        Args:
            case: values of axes.
            key: the point's key.
        """
        changed: dict[str, dict[str, Any]] = {"simulator": {}, "stimulus": {}}
        for name, value in case.items():
            times = self.design.varied[name].times
            for target in self.targets[name]:
                where, _, path = target.partition(".")
                changed[where][path] = value * times if times != 1 else value
        simulator = replace(self.simulator, changed["simulator"])
        if self.stimulus is None:
            return simulator, None
        return simulator, self.stimulus.build(stream(key, "stimulus"), changed["stimulus"])

    @cached_property
    def scheme(self) -> dict[str, Any]:
        """The time step and the solver."""
        return scheme_of(self.simulator, self.solver, self.dt)

    @property
    def frame(self) -> float:
        """Time between recorded frames [ms]."""
        return self.record_every or self.scheme["dt"]

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """What has to be recorded for measures and raw traces; a measure that does not say sees all that is."""
        needed = dict.fromkeys(self.keep)
        for measure in self.measures:
            needed |= dict.fromkeys(measure.needs or self.simulator.recordables)
        return tuple(needed)

    @cached_property
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons."""
        return populations_of(*self.at({}, jax.random.key(0)))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """All that results depend on; code of one's own by its digest, and, where it has no source, by a number."""
        parts = {f"simulator {self.name}": self.simulator, "solver": self.solver}
        parts |= {f"measure {m.name}": m.function for m in self.measures}
        code = {name: source_of(thing) for name, thing in parts.items() if thing is not None} | dict(self.sources)
        if self.stimulus is not None:
            code[f"stimulus {self.stimulus.name}"] = self.stimulus.source
        own = {name: uuid.uuid4().hex if source is None else source for name, source in code.items() if source != ""}
        return {**self.said, "code": own, "precision": str(jax.dtypes.canonicalize_dtype(float))}


def described(thing: Any) -> Any:
    """Stand for an object made in Python, as JSON: class, static fields, and a digest of its numbers."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    arrays, rest = eqx.partition(thing, eqx.is_array)
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        plain = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        found.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(plain).tobytes())
    about = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    if isinstance(thing, functools.partial):
        given = {k: described(v) for k, v in thing.keywords.items()}
        return {"name": "partial", "of": described(thing.func), "given": given}
    return {"name": f"{about.__module__}:{about.__qualname__}", "is": str(rest), "numbers": found.hexdigest()[:16]}


def targets_of(design: DesignConfig, simulator: Any, stimulus: Drawn | None) -> dict[str, tuple[str, ...]]:
    """What every axis of a design sets: what it says, or what bears its name.

    Args:
        design: the design.
        simulator: what is simulated.
        stimulus: what drives it.

    Returns:
        Axis to paths, `simulator.PATH` or `stimulus.PATH`.

    Raises:
        ValueError: for a path that both have.
    """
    declared, driven = parameters(simulator), () if stimulus is None else stimulus.names
    found: dict[str, tuple[str, ...]] = {}
    for name, axis in design.varied.items():
        full = []
        for path in axis.paths or (name,):
            if path.partition(".")[0] in ("simulator", "stimulus") and "." in path:
                full.append(path)
            elif path in declared and path in driven:
                raise ValueError(
                    f"sweep.axes.{name}: of = {path!r} must be simulator.PARAMETER or stimulus.ARGUMENT: both have it"
                )
            else:
                full.append(f"{'stimulus' if path in driven else 'simulator'}.{path}")
        found[name] = tuple(full)
    return found
