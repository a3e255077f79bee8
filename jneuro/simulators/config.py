"""A simulation as configuration: simulators, stimuli and solvers by their names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from pydantic import ConfigDict, Field, model_validator

from jneuro.core.config import Config, unknown_name
from jneuro.core.random import stream
from jneuro.core.registry import accepted
from jneuro.core.types import Array, Float, Key
from jneuro.simulators.base import parameters, step_count
from jneuro.simulators.integration import require_integrable
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.registry import SIMULATORS, SOLVERS, STIMULI
from jneuro.simulators.simulation import first_state
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import Stimulus

__all__ = ["Draw", "SimulationConfig", "SimulatorConfig", "StimulusConfig"]


class _Built(Config):
    """Something built by its own constructor, whose arguments stand beside its name."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What is passed to the constructor."""
        return dict(self.model_extra or {})


class SimulatorConfig(_Built):
    """A simulator by name, one of its presets if wanted, and any of its parameters."""

    preset: str | None = None

    def build(self) -> SteppedSimulator | ODESimulator:
        """Construct the simulator, not yet connected.

        Raises:
            ValueError: for an unknown name, preset or parameter, or an impossible value.
        """
        if self.name not in SIMULATORS:
            raise ValueError(unknown_name(self.name, SIMULATORS, "simulator"))
        cls = SIMULATORS[self.name]
        if self.preset is not None and self.preset not in cls.presets:
            raise ValueError(unknown_name(self.preset, cls.presets, f"preset of {self.name}"))
        make = cls if self.preset is None else getattr(cls, self.preset)
        words = [n for n, p in parameters(cls).items() if isinstance(p.default, str)]
        known = list(dict.fromkeys([*parameters(cls), *(accepted(make) if self.preset else ())]))
        return _construct(make, self.arguments, known, self.name, words)

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        self.build()
        return self


class Draw(Config):
    """A number that every run draws anew.

    Attributes:
        uniform: between these two; or
        normal: with this mean and standard deviation; or
        choice: one of these.
    """

    uniform: tuple[float, float] | None = None
    normal: tuple[float, float] | None = None
    choice: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError("a draw is either uniform: [low, high], normal: [mean, sd] or choice: [...]")
        return self

    def __call__(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """Draw it."""
        if self.uniform is not None:
            return jax.random.uniform(key, minval=self.uniform[0], maxval=self.uniform[1])
        if self.normal is not None:
            return self.normal[0] + self.normal[1] * jax.random.normal(key)
        return jax.random.choice(key, jnp.asarray(self.choice))


class StimulusConfig(_Built):
    """A stimulus by name, and its arguments; each is a number or a `Draw`, such as `amplitude: {uniform: [0, 3]}`."""

    def build(self, key: Key[Array, ""]) -> Stimulus:
        """Construct the stimulus.

        Args:
            key: for what is random.
        """
        if self.name not in STIMULI:
            raise ValueError(unknown_name(self.name, STIMULI, "stimulus"))
        cls = STIMULI[self.name]
        known = accepted(cls)
        arguments = {
            name: Draw.model_validate(value)(stream(key, name)) if isinstance(value, Mapping) else value
            for name, value in self.arguments.items()
        }
        if "key" in known:
            arguments["key"] = key
        return _construct(cls, arguments, known, self.name)

    @property
    def random(self) -> bool:
        """Whether every run has its own."""
        return "key" in accepted(STIMULI[self.name]) or any(isinstance(v, Mapping) for v in self.arguments.values())

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        self.build(jax.random.key(0))
        return self


def _construct(
    make: Any, arguments: Mapping[str, Any], known: Sequence[str], name: str, words: Sequence[str] = ()
) -> Any:
    """Call a constructor; of its arguments, only `words` may be strings."""
    for key, value in arguments.items():
        if key not in known:
            raise ValueError(f"{name}: {unknown_name(key, known, 'parameter')}")
        if key not in words and (isinstance(value, str | bool) or value is None):
            raise ValueError(f"{name}: {key} = {value!r} must be a number")
    try:
        return make(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {re.sub(r'^[^ ]+[(][)] ', '', str(error))}") from error


class SimulationConfig(Config):
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
        settle_ms: simulated once before all runs, which begin in the state it ends in and then part ways, each with
            noise of its own; their time starts at zero there [ms]. So runs share what plasticity has learned.
    """

    simulator: SimulatorConfig
    stimulus: StimulusConfig | None = None
    runs: int = Field(default=50, ge=1)
    duration_ms: float = Field(default=10_000.0, gt=0)
    record_every_ms: float = Field(default=1.0, gt=0)
    connectivity: Literal["per_run", "fixed"] = "per_run"
    snapshot_every_ms: float = Field(default=100.0, gt=0)
    dt_ms: float | None = Field(default=None, gt=0)
    solver: str | None = None
    record: tuple[str, ...] | None = None
    settle_ms: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _settles(self) -> Self:
        simulator = self.simulator.build()
        if not self.settle_ms:
            return self
        if isinstance(simulator, ODESimulator) or self.connectivity != "fixed" or self.stimulus is not None:
            raise ValueError("settle_ms needs a network that all runs share, connectivity: fixed, and no stimulus")
        block = simulator.block * simulator.dt
        if round(self.settle_ms / block) < 1 or abs(self.settle_ms / block - round(self.settle_ms / block)) > 1e-6:
            raise ValueError(
                f"settle_ms = {self.settle_ms:g} must be a multiple of {self.simulator.name}'s {block:g} ms"
            )
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        simulator = self.simulator.build()
        if isinstance(simulator, ODESimulator):
            if self.solver is not None and self.solver not in SOLVERS:
                raise ValueError(unknown_name(self.solver, SOLVERS, "solver"))
            scheme = self.scheme
            require_integrable(simulator, self._stimulus(), scheme["solver"], scheme["dt"], None)
        elif self.dt_ms is not None or self.solver is not None:
            raise ValueError(f"{self.simulator.name} brings its own scheme; leave out dt_ms and solver")
        for name in self.record or ():
            if name not in simulator.recordables:
                raise ValueError(f"record: {unknown_name(name, simulator.recordables, 'variable')}")
        if self.steps_of_a_frame < 1:
            raise ValueError(f"record_every_ms = {self.record_every_ms:g} is less than a time step")
        for long, short in (("snapshot_every_ms", "record_every_ms"), ("duration_ms", "snapshot_every_ms")):
            ratio = getattr(self, long) / getattr(self, short)
            if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6:
                raise ValueError(
                    f"{long} = {getattr(self, long):g} must be a multiple of {short} = {getattr(self, short):g}"
                )
        return self

    def _stimulus(self) -> Stimulus | None:
        return self.stimulus.build(jax.random.key(0)) if self.stimulus else None

    @property
    def scheme(self) -> dict[str, Any]:
        """The arguments `dt` and `solver` of `simulate`: both None for a simulator that has its own."""
        simulator = self.simulator.build()
        if not isinstance(simulator, ODESimulator):
            return {"dt": None, "solver": None}
        solver = simulator.default_solver if self.solver is None else SOLVERS[self.solver]
        return {"dt": simulator.default_dt if self.dt_ms is None else self.dt_ms, "solver": solver}

    @property
    def steps_of_a_frame(self) -> int:
        """Time steps in one recorded frame."""
        simulator = self.simulator.build()
        dt = self.scheme["dt"] if isinstance(simulator, ODESimulator) else simulator.dt
        return step_count(self.record_every_ms, dt, "record_every_ms")

    @property
    def recorded(self) -> tuple[str, ...]:
        """What is recorded."""
        return tuple(self.simulator.build().recordables) if self.record is None else self.record

    @property
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons."""
        simulator = self.simulator.build()
        if not isinstance(simulator, ODESimulator):
            return simulator.populations
        start = jax.eval_shape(lambda key: first_state(simulator, key, stimulus=self._stimulus()), jax.random.key(0))
        return {"cells": start.y.v.size}

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(self.populations.values())

    @property
    def deterministic(self) -> bool:
        """Whether all that is random is in the stimulus, which is known."""
        return isinstance(self.simulator.build(), ODESimulator)
