"""A sweep as objects: what is simulated, what is varied and how, what is kept of every point; checked once."""

import dataclasses
import functools
import hashlib
import inspect
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.code import digest
from jneuro.core.names import unknown_name
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key, PyTree
from jneuro.recordings.recording import Recording
from jneuro.simulators.base import Parameter, Simulator, step_count
from jneuro.simulators.config import populations_of, require_possible, scheme_of
from jneuro.simulators.paths import draw, parameters, replace, resolve
from jneuro.simulators.simulation import simulate
from jneuro.simulators.stimuli import Stimulus
from jneuro.sweeps.design import TAKEN, DesignConfig
from jneuro.sweeps.measures import Measure, result_like, result_names, unwrapped

__all__ = ["REASON", "StimulusRecipe", "SweepProblem", "described", "source_of"]

_LARGEST = 2**31
"""What compresses a store cannot take more at once [byte]."""

REASON = "reason"
"""The quantity that says why a point failed."""


@dataclasses.dataclass(frozen=True)
class StimulusRecipe:
    """How the stimulus of a point is built: by a function of a key, from a configuration, or from one that is there.

    Attributes:
        make: from a key, and arguments by name, to a stimulus.
        arguments: the names of its arguments.
        name: its name in messages.
        source: stands for its code; see `jneuro.core.code.digest`.
    """

    make: Callable[[Key[Array, ""], Mapping[str, Any]], Stimulus]
    arguments: tuple[str, ...]
    name: str
    source: str | None

    def build(self, key: Key[Array, ""], values: Mapping[str, Any]) -> Stimulus:
        """The stimulus of a point: made with these arguments; other paths are set afterwards, and draws drawn."""
        given = {n: v for n, v in values.items() if n in self.arguments}
        built = replace(self.make(key, given), {n: v for n, v in values.items() if n not in given})
        return resolve(draw(built, key))

    @cached_property
    def example(self) -> Stimulus:
        """The stimulus with nothing varied."""
        return self.make(jax.random.key(0), {})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its arguments, and the paths of its parameters."""
        return tuple(dict.fromkeys([*self.arguments, *parameters(self.example)]))

    def refuse(self, path: str) -> str | None:
        """Say why an argument or a path cannot be varied; None if it can."""
        if path not in self.arguments:
            return _refused(parameters(self.example), path, self.name, unknown_name(path, self.names, "argument"))
        field = type(self.example).__dataclass_fields__.get(path)
        try:
            if field is None or not field.metadata.get("static"):
                jax.eval_shape(lambda x: self.make(jax.random.key(0), {path: x}), jnp.zeros(()))
                return None
        except (TypeError, ValueError):
            pass
        return f"{path} of {self.name} {_COMPILED}"


_COMPILED = "is part of the compiled program and cannot be varied in it"


def _refused(declared: Mapping[str, Parameter], path: str, name: str, unknown: str, remedy: str = "") -> str | None:
    """Say why a path in an object cannot be varied; None if it can."""
    if path not in declared:
        return f"{name}: {unknown}"
    return f"{path} of {name} {_COMPILED}{remedy}" if declared[path].static else None


@dataclasses.dataclass(frozen=True, eq=False)
class SweepProblem:
    """What every point of a sweep simulates, and what is kept of it.

    Attributes:
        simulator: what is simulated, not yet connected.
        stimulus: what drives it.
        design: which points.
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

    Raises:
        ValueError: if something of it cannot be simulated, measured or varied, before anything is computed.
    """

    simulator: Simulator
    stimulus: StimulusRecipe | None
    design: DesignConfig
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
        self._check_kept()
        steps = {n: step_count(getattr(self, n), self.scheme["dt"], n) for n in ("duration", "warmup")}
        for name, least, must in (("duration", 1, "be positive"), ("warmup", 0, "not be negative")):
            if steps[name] < least:
                raise ValueError(f"{name} = {getattr(self, name)} ms must {must}")
        if (total := sum(steps.values())) >= 2**31:
            raise ValueError(f"duration = {self.duration:g} ms is {total:,} steps, more than can be counted")
        self._check_targets()
        self._check_ends()

    def _check_kept(self) -> None:
        """Refuse a sweep that keeps nothing, the same twice, or what the simulator does not record."""
        if not self.measures and not self.keep:
            raise ValueError("measures and keep are both empty: nothing would be kept")
        for key, names in (("measures", [m.name for m in self.measures]), ("keep", self.keep)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: names one of them twice")
        known = self.simulator.recordables
        for name in self.keep:
            if name not in known:
                raise ValueError(f"keep: {unknown_name(name, known, 'variable')}")
        for name, lacking in ((m.name, n) for m in self.measures for n in m.needs if n not in known):
            why = "it has no threshold" if lacking == "spikes" else f"it records {', '.join(known)}"
            raise ValueError(f"measures: {name} needs {lacking!r}, which {self.name} does not record; {why}")

    @cached_property
    def targets(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """What every axis sets, `simulator` or `stimulus` and the path in it: what it says, or what bears its name.

        Raises:
            ValueError: for a path that both have.
        """
        declared, driven = parameters(self.simulator), () if self.stimulus is None else self.stimulus.names
        found = {}
        for name, axis in self.design.varied.items():
            found[name] = ()
            for path in axis.paths or (name,):
                where, _, within = path.partition(".")
                if where not in ("simulator", "stimulus") or not within:
                    if path in declared and path in driven:
                        raise ValueError(
                            f"sweep.axes.{name}: of = {path!r} must be simulator.PARAMETER or stimulus.ARGUMENT: "
                            "both have it"
                        )
                    where, within = "stimulus" if path in driven else "simulator", path
                found[name] += ((where, within),)
        return found

    def _check_targets(self) -> None:
        """Refuse axes that vary nothing, or what cannot be varied."""
        taken: dict[tuple[str, str], str] = {}
        declared = parameters(self.simulator)
        for name, (where, path) in ((name, target) for name, targets in self.targets.items() for target in targets):
            if where == "simulator":
                remedy = f"; make one sweep for each value (simulation.simulator.{path}=...)"
                refused = _refused(declared, path, self.name, unknown_name(path, declared, "parameter"), remedy)
            elif self.stimulus is None:
                refused = f"{where}.{path} cannot be varied: the simulation has no stimulus"
            else:
                refused = self.stimulus.refuse(path)
            if refused is None and (where, path) in taken:
                refused = f"{where}.{path} is varied by {taken[where, path]} already"
            if refused is not None:
                raise ValueError(f"sweep.axes.{name}: {refused}")
            taken[where, path] = name

    def _check_ends(self) -> None:
        """Build the simulation at the ends of every axis, and at the ends of all: its own checks know the bounds."""
        ends = {name: axis.ends for name, axis in self.design.varied.items()}
        cases = [{name: value} for name, pair in ends.items() for value in pair]
        cases += [{name: pair[k] for name, pair in ends.items()} for k in (0, 1)]
        for case in {tuple(case.items()): case for case in cases}.values():
            try:
                require_possible(*self.at(case, jax.random.key(0)), **self.scheme)
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
            for where, path in self.targets[name]:
                changed[where][path] = value * times if times != 1 else value
        simulator = replace(self.simulator, changed["simulator"])
        if self.stimulus is None:
            return simulator, None
        return simulator, self.stimulus.build(stream(key, "stimulus"), changed["stimulus"])

    @cached_property
    def scheme(self) -> dict[str, Any]:
        """The time step and the solver."""
        return scheme_of(self.simulator, self.solver, self.dt)

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

    # One point --------------------------------------------------------------------------------------------------------

    def point(self, index: Int[Array, ""], seed: Int[Array, ""], values: Float[Array, " axis"]) -> dict[str, PyTree]:
        """Simulate one point, and measure; pure, and batched by `jax.vmap`.

        What is not varied stays without the axis of the batch, so that the compiled program computes it once.

        Args:
            index: of the parameter set.
            seed: its repetition, or its seed in a table.
            values: of the axes.

        Returns:
            `ok` and every stored quantity.
        """
        key = jax.random.fold_in(stream(self.key, "point"), seed)
        if self.design.draws == "per_point":
            key = jax.random.fold_in(key, index)
        recording = self._simulated(key, values)
        found = {"ok": recording.ok}
        for measure in self.measures:
            for label, array in result_names(measure.name, measure(recording, [*self.populations.values()])).items():
                floating = jnp.issubdtype(array.dtype, jnp.floating)
                found[label] = jnp.where(recording.ok, array, jnp.nan) if floating else array
        return found | {f"{name}_trace": recording.values[name] for name in self.keep}

    def _simulated(self, key: Key[Array, ""], values: Float[Array, " axis"]) -> Recording:
        """Build the simulator and the stimulus of a point, and run them."""
        simulator, stimulus = self.at({name: values[k] for k, name in enumerate(self.design.varied)}, key)
        # A measure that does not say what it needs sees all that there is.
        needed = [n for m in self.measures for n in m.needs or self.simulator.recordables]
        return simulate(
            simulator.connect(stream(key, "connect")),
            stimulus,
            duration=self.duration,
            warmup=self.warmup,
            key=stream(key, "run"),
            record=tuple(dict.fromkeys([*self.keep, *needed])),
            record_every=self.scheme["dt"] if self.record_every is None else self.record_every,
            throw=False,
            **self.scheme,
        )

    @cached_property
    def like(self) -> dict[str, Any]:
        """Shape and type of every quantity of one point.

        Raises:
            ValueError: if a function of one's own cannot be computed, two give the same name, or a trace is too long
                to be stored.
        """
        traces = {f"{name}_trace": self.recording.values[name] for name in self.keep}
        for name, trace in traces.items():
            # The times of the frames are stored in one piece, too.
            if (need := max(_bytes(trace), 8 * self.recording.frames)) >= _LARGEST:
                raise ValueError(
                    f"keep: {name.removesuffix('_trace')} of one point has {self.recording.frames:,} frames, or "
                    f"{need / 2**30:,.1f} GiB in one piece; a store takes less than 2: record less often, or less time"
                )
        found: dict[str, Any] = {"ok": self.recording.ok}
        others = (REASON, *traces, *self.design.varied, *TAKEN)
        for measure in self.measures:
            for label, array in result_like(measure, self.recording, [*self.populations.values()]).items():
                if label in found or label in others:
                    said = f"measures: {measure.name} gives {label!r}, which is there already; choose another name"
                    raise ValueError(said)
                found[label] = array
        return found | traces

    @cached_property
    def recording(self) -> Recording:
        """Shape and type of one point's recording."""
        values = jax.ShapeDtypeStruct((len(self.design.varied),), jnp.result_type(float))
        return jax.eval_shape(self._simulated, self.key, values)

    @property
    def recorded_bytes(self) -> int:
        """Size of the recording of one point."""
        return _bytes(self.recording.values)

    @property
    def kept_bytes(self) -> int:
        """Size of the results of one point."""
        return _bytes(self.like)


def _bytes(tree: PyTree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


# What stands for objects in the store --------------------------------------------------------------------------------


def source_of(thing: Any) -> str | None:
    """Stand for the code behind an object and its parts, a class or a function; see `jneuro.core.code.digest`."""
    digests = [digest(part) for part in (unwrapped(thing), *_modules_in(thing))]
    return None if None in digests else " ".join(dict.fromkeys(d for d in digests if d))


def _modules_in(thing: Any) -> Iterator[eqx.Module]:
    """The modules that a module holds, in static fields too, such as the rule of a network."""
    for field in dataclasses.fields(thing) if isinstance(thing, eqx.Module) else ():
        value = getattr(thing, field.name, None)
        for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]:
            if isinstance(part, eqx.Module):
                yield part
                yield from _modules_in(part)


def described(thing: Any) -> Any:
    """Stand for an object made in Python, as JSON: class, static fields, and a digest of its numbers."""
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, functools.partial):
        given = {k: described(v) for k, v in thing.keywords.items()}
        return {"name": "partial", "of": described(thing.func), "given": given}
    arrays, rest = eqx.partition(thing, eqx.is_array)
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        plain = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        found.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(plain).tobytes())
    about = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    return {"name": f"{about.__module__}:{about.__qualname__}", "is": str(rest), "numbers": found.hexdigest()[:16]}
