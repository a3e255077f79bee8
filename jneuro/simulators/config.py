"""A simulation as configuration: simulators, stimuli and solvers by their names."""

import inspect
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from jneuro.core.code import digest, line_of
from jneuro.core.config import Config, numbers_in
from jneuro.core.names import shown, unknown_name
from jneuro.core.random import stream
from jneuro.core.registry import Block, Registry, accepted, names_found
from jneuro.core.types import Array, Key
from jneuro.simulators.base import Parameter, step_count
from jneuro.simulators.integration import require_integrable
from jneuro.simulators.kinds import SIMULATORS, SOLVERS, STIMULI, as_solver, made, product
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.paths import Distribution, as_distribution, draw, parameters, replace, resolve
from jneuro.simulators.simulation import _scheme, first_state
from jneuro.simulators.stimuli import Stimulus

__all__ = [
    "RunSettings",
    "SimulationConfig",
    "SimulatorConfig",
    "StimulusConfig",
    "populations_of",
    "require_possible",
    "scheme_of",
]


class _Physical(Block):
    """A simulator or a stimulus by name, with numbers as its arguments."""

    _named: dict[tuple[str, str], Any] = PrivateAttr(default_factory=dict)

    @cached_property
    def source_objects(self) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What stands behind the name, and behind those that its arguments name, such as the rule of a network."""
        within = [v for v in (self.model_extra or {}).values() if isinstance(v, eqx.Module)]
        return (self._target, *self._named.values(), *within)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """See Pydantic; what was made of the original stays with it."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("_built", "source_objects"):
            vars(copy).pop(name, None)
        return copy

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """Take a name alone; its arguments are checked against what it means."""
        if not isinstance(data, str | Mapping | cls):
            thing = data.__name__ if inspect.isclass(data) else type(data).__name__
            given = f"= {shown(data)}: " if isinstance(data, int | float | list | tuple | None) else f"got {thing}; it "
            raise ValueError(
                f"{given}must be a name, or a dictionary of a name and its arguments; objects are passed to simulate, "
                "sweep and fit, or named module:name"
            )
        return {"name": data} if isinstance(data, str) else data

    def _construct(self, registry: Registry, make: Any, values: Mapping[str, Any], **given: Any) -> Any:
        """Make the object, or set what is given of one that is there."""
        target, is_class = self._target, inspect.isclass(self._target)
        owner = target if is_class else make
        words, known, fixed = _arguments(make, owner)
        for name, value in values.items():
            if known is not None and (name not in known or name in given):
                names = [n for n in known if n not in given]
                raise ValueError(f"{self.name}: {unknown_name(name, names, 'parameter')}")
            if name not in words and (said := _not_numeric(value)):
                raise ValueError(f"{self.name}: {name} = {shown(value)} {said}")
            if name in fixed and isinstance(value, Distribution):
                raise ValueError(f"{self.name}: {name} is part of the compiled program and cannot be drawn")
        if not made(make):
            return replace(make, values)
        passed = {k: v for k, v in given.items() if k in accepted(make)}
        try:
            found = make(**values, **passed)
        except TypeError as error:
            raise ValueError(f"{self.name}: {re.sub(r'^[^ ]+[(][)] ', '', str(error))}") from error
        except Exception as error:  # whatever a function of one's own raises
            if isinstance(error, ValueError) or digest(target) == "":
                raise
            raise ValueError(f"{self.name}{line_of(make, error)} raised {type(error).__name__}: {error}") from error
        return found if is_class and isinstance(found, target) else product(registry, self.name, found)

    def _read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, with numbers that are drawn read."""
        read = dict(values)
        for name, value in values.items():
            # A mapping with a name is a thing of its own, such as a rule; its parameter reads it.
            if isinstance(value, Mapping) and "name" not in value:
                try:
                    read[name] = as_distribution(value)
                except ValueError as error:
                    raise ValueError(f"{self.name}: {name}: {error}") from error
        return read


def _not_numeric(value: Any) -> str:
    """Why what stands for a number, or for one for each neuron, is none; empty if it is."""
    if any(isinstance(item, int) and abs(item) >= 2**63 for item in numbers_in(value)):
        return "is more than can be counted"
    if not isinstance(value, list | tuple):
        return "must be a number" if value is None or isinstance(value, str | bool) else ""
    if not value or any(item is None or isinstance(item, str | bool) for item in numbers_in(value)):
        return "must be a number, or a list of numbers"
    try:
        np.shape(value)
    except ValueError:
        return "has rows of different lengths"
    return ""


def _arguments(make: Any, owner: Any) -> tuple[set[str], list[str] | None, set[str]]:
    """What may be given to a class, a function or an object: words, all (None: anything), static ones."""
    declared = parameters(owner) if inspect.isclass(owner) or not made(owner) else {}
    fixed = {name for name, p in declared.items() if p.static}
    if not made(make):
        return set(), [name for name in declared if name not in fixed], fixed
    signature = [p for p in inspect.signature(make).parameters.values() if p.name in accepted(make)]
    words = {p.name for p in signature if isinstance(p.default, str | bool) or p.annotation in _WORDS}
    words |= {name for name, p in declared.items() if isinstance(p.default, str | bool) or _is_thing(p)}
    # A field without a declaration whose default is None, such as connections, is no number.
    known = dict.fromkeys([*declared, *(p.name for p in signature if p.default is not None or p.name in words)])
    anything = not declared and len(signature) < len(inspect.signature(make).parameters)
    return words, None if anything else [*known], fixed


def _is_thing(parameter: Parameter) -> bool:
    """Whether a parameter is an object of its own, which may be given by name, such as the rule of a network."""
    return parameter.static and isinstance(parameter.default, eqx.Module)


_WORDS = (str, bool, "str", "bool", bool | None, "bool | None", str | None, "str | None")
"""Annotations of arguments that are no numbers."""


class SimulatorConfig(_Physical):
    """A simulator by name, one of its presets if wanted, and any of its parameters.

    A parameter is a number, a list with one value for each cell, or a number that is drawn when the simulator is
    connected, such as `tau_m: {normal: [20, 1]}`.

    Attributes:
        name: one of ours, a plugin's, or `module:name` of a class, an object, or a function that returns one.
        preset: a classmethod of it, which builds it with the constants of a source.
    """

    preset: str | None = None

    @cached_property
    def _built(self) -> dict[Any, Any]:
        """The object in each precision; no part of what makes two configurations equal."""
        return {}

    def build(self) -> Any:
        """Construct the simulator, not yet connected; once in each precision.

        Raises:
            ValueError: for an unknown name, preset or parameter, or an impossible value.
        """
        precision = jnp.result_type(float)
        if precision not in self._built:
            with jax.ensure_compile_time_eval():
                self._built[precision] = self._build()
        return self._built[precision]

    def _build(self) -> Any:
        target = make = self._target
        if self.preset is not None:
            presets = getattr(target, "presets", ()) if inspect.isclass(target) else ()
            if self.preset not in presets:
                raise ValueError(unknown_name(self.preset, presets, f"preset of {self.name}"))
            make = getattr(target, self.preset)
        return self._construct(SIMULATORS, make, self._read(self.model_extra or {}))

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        self._target = SIMULATORS.find(self.name)
        with names_found() as self._named:
            self.build()
        return self


class StimulusConfig(_Physical):
    """A stimulus by name, and its arguments; each is a number, or drawn, such as `amplitude: {uniform: [0, 3]}`.

    Attributes:
        name: one of ours, a plugin's, or `module:name` of a class, an object, or a function that returns one.
    """

    def build(self, key: Key[Array, ""], values: Mapping[str, Any] | None = None) -> Stimulus:
        """Construct the stimulus.

        Args:
            key: for what is random.
            values: arguments that take the place of those of the configuration.

        Raises:
            ValueError: for an unknown name or argument, or an impossible value.
        """
        read = self._read(self.arguments | dict(values or {}))
        drawn = {n: v(stream(key, n)) if isinstance(v, Distribution) else v for n, v in read.items()}
        return self._construct(STIMULI, self.target, drawn, key=key)

    @property
    def random(self) -> bool:
        """Whether every run has its own."""
        takes_key = made(self.target) and "key" in accepted(self.target)
        return takes_key or any(isinstance(v, Mapping) for v in self.arguments.values())

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        self._target = STIMULI.find(self.name)
        with names_found() as self._named:
            self.build(jax.random.key(0))
        return self


def scheme_of(simulator: Any, solver: Any, dt: float | None) -> dict[str, Any]:
    """The arguments `dt` and `solver` of `simulate`, where they are left open.

    Args:
        simulator: what is simulated.
        solver: how; None: its own way.
        dt: time step [ms]; None: its own.
    """
    chosen, step = _scheme(simulator, solver, dt)
    return {"dt": step, "solver": chosen}


def require_possible(simulator: Any, stimulus: Stimulus | None, *, dt: float, solver: Any) -> None:
    """Refuse what cannot be simulated, before anything is compiled.

    Args:
        simulator: what is simulated.
        stimulus: what drives it.
        dt: time step [ms].
        solver: how.

    Raises:
        ValueError: with the remedy.
    """
    if isinstance(simulator, ODESimulator):
        require_integrable(resolve(draw(simulator, jax.random.key(0))), stimulus, solver, dt, None)


def populations_of(simulator: Any, stimulus: Stimulus | None) -> dict[str, int]:
    """Name and size of each population of neurons; of a cell, as many as its parameters and its stimulus have.

    Args:
        simulator: what is simulated.
        stimulus: what drives it.
    """
    if not isinstance(simulator, ODESimulator):
        return dict(simulator.populations)
    simulator = resolve(draw(simulator, jax.random.key(0)))
    start = jax.eval_shape(lambda key: first_state(simulator, key, stimulus=stimulus), jax.random.key(0))
    return {"cells": start.y[0].size}


class RunSettings(Config):
    """What one run of a simulator is.

    Attributes:
        simulator: which.
        stimulus: what drives it; what is random in it is drawn for every run.
        duration_ms: recorded time [ms].
        record_every_ms: time between recorded frames [ms]; by default every step.
        dt_ms: time step of an ODE simulator [ms]; by default its own.
        solver: solver of an ODE simulator, such as `rk4`, `{name: tsit5, rtol: 1e-6}`, `diffrax:Ralston` or
            `my_solvers:Mine`; by default its own.
        warmup_ms: simulated first, and not recorded [ms].
    """

    simulator: SimulatorConfig
    stimulus: StimulusConfig | None = None
    duration_ms: float = Field(default=1000.0, gt=0)
    record_every_ms: float | None = Field(default=None, gt=0)
    dt_ms: float | None = Field(default=None, gt=0)
    solver: Annotated[Any, SOLVERS.field()] | None = None
    warmup_ms: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.deterministic and (self.dt_ms is not None or self.solver is not None):
            raise ValueError(f"{self.simulator.name} brings its own scheme; leave out dt_ms and solver")
        require_possible(self.simulator.build(), self._stimulus(), **self.scheme)
        if self.steps_of_a_frame < 1:
            raise ValueError(f"record_every_ms = {self.record_every_ms:g} is less than a time step")
        step_count(self.warmup_ms, self.step, "warmup_ms")
        self._require_multiple("duration_ms", "record_every_ms", self.frame)
        return self

    def _require_multiple(self, long: str, short: str, length: float) -> None:
        """Refuse a time that is no multiple of another."""
        ratio = getattr(self, long) / length
        if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(f"{long} = {getattr(self, long):g} must be a multiple of {short} = {length:g}")

    def _stimulus(self) -> Stimulus | None:
        return self.stimulus.build(jax.random.key(0)) if self.stimulus else None

    @cached_property
    def scheme(self) -> dict[str, Any]:
        """The arguments `dt` and `solver` of `simulate`."""
        simulator = self.simulator.build()
        if not isinstance(simulator, ODESimulator):
            return {"dt": simulator.dt, "solver": None}
        return scheme_of(simulator, as_solver(self.solver), self.dt_ms)

    @property
    def step(self) -> float:
        """The time step [ms]."""
        return self.scheme["dt"]

    @property
    def frame(self) -> float:
        """Time between recorded frames [ms]."""
        return self.record_every_ms or self.step

    @property
    def steps_of_a_frame(self) -> int:
        """Time steps in one recorded frame."""
        return step_count(self.frame, self.step, "record_every_ms")

    @cached_property
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons."""
        return populations_of(self.simulator.build(), self._stimulus())

    @cached_property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(self.populations.values())

    @property
    def deterministic(self) -> bool:
        """Whether all that is random is in the stimulus, which is known."""
        return isinstance(self.simulator.build(), ODESimulator)


class SimulationConfig(RunSettings):
    """Runs of one simulator.

    Attributes:
        simulator: which.
        stimulus: what drives it; what is random in it is drawn for every run.
        runs: independent runs, simulated in one program.
        duration_ms: length of each [ms].
        record_every_ms: time between recorded frames [ms].
        connectivity: `per_run`, every run draws its network; or `fixed`, all runs share one.
        snapshot_every_ms: how often the full state is stored [ms]; the ceiling starts from these states.
        dt_ms: time step of an ODE simulator [ms]; by default its own.
        solver: solver of an ODE simulator; by default its own.
        record: what to record; everything by default.
        warmup_ms: simulated once before all runs, and not recorded; they begin in the state it ends in and then part
            ways, each with noise of its own; their time starts at zero there [ms]. So runs share what plasticity has
            learned.
    """

    runs: int = Field(default=50, ge=1)
    duration_ms: float = Field(default=10_000.0, gt=0)
    record_every_ms: float = Field(default=1.0, gt=0)  # pyright: ignore[reportIncompatibleVariableOverride]
    connectivity: Literal["per_run", "fixed"] = "per_run"
    snapshot_every_ms: float = Field(default=100.0, gt=0)
    record: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _settles(self) -> Self:
        simulator = self.simulator.build()
        if not self.warmup_ms:
            return self
        if isinstance(simulator, ODESimulator) or self.connectivity != "fixed" or self.stimulus is not None:
            raise ValueError("warmup_ms needs a network that all runs share, connectivity: fixed, and no stimulus")
        block = simulator.block * simulator.dt
        if round(self.warmup_ms / block) < 1 or abs(self.warmup_ms / block - round(self.warmup_ms / block)) > 1e-6:
            raise ValueError(
                f"warmup_ms = {self.warmup_ms:g} must be a multiple of {self.simulator.name}'s {block:g} ms"
            )
        return self

    @model_validator(mode="after")
    def _recordable(self) -> Self:
        known = self.simulator.build().recordables
        for name in self.recorded:
            if name not in known:
                raise ValueError(f"record: {unknown_name(name, known, 'variable')}")
        self._require_multiple("snapshot_every_ms", "record_every_ms", self.frame)
        self._require_multiple("duration_ms", "snapshot_every_ms", self.snapshot_every_ms)
        return self

    @cached_property
    def recorded(self) -> tuple[str, ...]:
        """What is recorded."""
        return tuple(self.simulator.build().recordables) if self.record is None else self.record
