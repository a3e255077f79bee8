"""A sweep as configuration: what is simulated, what is varied and how, what is kept of every point."""

from collections.abc import Mapping
from typing import Literal, Self

import jax
import jax.numpy as jnp
from pydantic import ValidationError, field_validator, model_validator

from jneuro.core.config import Config, RunConfig, first_message, unknown_name
from jneuro.core.registry import accepted
from jneuro.simulators.config import RunSettings, SimulationConfig
from jneuro.simulators.kinds import SIMULATORS, STIMULI
from jneuro.simulators.parameters import parameters
from jneuro.sweeps.design import AxisConfig, DesignConfig
from jneuro.sweeps.measures import load_measure

__all__ = ["SweepConfig", "SweepFigure", "SweptSimulation"]


class SweptSimulation(RunSettings):
    """What every point of a sweep simulates."""

    def plain(self, record: tuple[str, ...] | None = None) -> SimulationConfig:
        """The same as a simulation of one run, whose checks and schemes are those of every simulation."""
        return SimulationConfig(
            simulator=self.simulator,
            stimulus=self.stimulus,
            runs=1,
            duration_ms=self.duration_ms,
            record_every_ms=self.frame,
            snapshot_every_ms=self.duration_ms,
            dt_ms=self.dt_ms,
            solver=self.solver,
            record=record,
        )

    def refuse(self, name: str, target: str) -> str | None:
        """Say why a target cannot be varied; None if it can."""
        where, _, argument = target.partition(".")
        if where == "simulator":
            declared = parameters(SIMULATORS[self.simulator.name])
            if argument not in declared:
                return f"{self.simulator.name}: {unknown_name(argument, declared, 'parameter')}"
            if declared[argument].static:
                return (
                    f"{argument} of {self.simulator.name} is part of the compiled program and cannot be varied in it; "
                    f"make one sweep for each value (simulation.simulator.{argument}=...)"
                )
            return None
        if where != "stimulus" or not argument:
            return f"of = {target!r} must be simulator.PARAMETER or stimulus.ARGUMENT"
        if self.stimulus is None:
            return f"{target} cannot be varied: the simulation has no stimulus"
        known = [n for n in accepted(STIMULI[self.stimulus.name]) if n != "key"]
        if argument not in known:
            return f"{self.stimulus.name}: {unknown_name(argument, known, 'argument')}"
        try:
            fixed = STIMULI[self.stimulus.name].__dataclass_fields__.get(argument)
            if fixed is not None and fixed.metadata.get("static"):
                raise TypeError
            build = self.stimulus.model_copy
            jax.eval_shape(lambda x: build(update={argument: x}).build(jax.random.key(0)), jnp.zeros(()))
        except (TypeError, ValueError):
            return f"{argument} of {self.stimulus.name} is part of the compiled program and cannot be varied in it"
        return None


class SweepFigure(Config):
    """A figure of a sweep.

    Attributes:
        kind: `heat_map` of a measure over two axes; `curves` of a measure over one axis, such as f-I curves, one for
            each value of `family`; `phase_diagram` of a measure that names states, over two axes.
        of: the measure.
        x: the axis to the right.
        y: the axis upwards, for maps and diagrams.
        family: the axis whose values have a curve each.
    """

    kind: Literal["heat_map", "curves", "phase_diagram"]
    of: str
    x: str
    y: str | None = None
    family: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.y is None) == (self.kind != "curves"):
            raise ValueError(f"{self.kind} {'needs' if self.y is None else 'has no'} y")
        if self.family is not None and self.kind != "curves":
            raise ValueError(f"{self.kind} has no family")
        return self


class SweepConfig(RunConfig):
    """A simulation at many points, and what is kept of each.

    Attributes:
        simulation: what is simulated.
        sweep: which points.
        measures: what is computed of each point's recording, on the device: names, or `module:function` of one's own.
        keep: recorded quantities whose raw traces are stored.
        figures: what is drawn; by default what suits the design.
    """

    simulation: SweptSimulation
    sweep: DesignConfig
    measures: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    figures: tuple[SweepFigure, ...] = ()

    @field_validator("measures", "keep")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names one of them twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.measures and not self.keep:
            raise ValueError("measures and keep are both empty: nothing would be kept")
        self.simulation.plain(self.recorded)
        targets: dict[str, str] = {}
        for name, axis in self.sweep.varied.items():
            target = self.target(name, axis)
            if (refused := self.simulation.refuse(name, target)) is not None:
                raise ValueError(f"sweep.axes.{name}: {refused}")
            if target in targets:
                raise ValueError(f"sweep.axes.{name}: {target} is varied by {targets[target]} already")
            targets[target] = name
        self._check_ends()
        for number, figure in enumerate(self.figures):
            for key, known in (("of", self.measures), ("x", self.sweep.varied), ("y", self.sweep.varied)):
                value = getattr(figure, key)
                if value is not None and value not in known:
                    raise ValueError(f"figures.{number}: {key}: {unknown_name(value, known, 'name')}")
            if figure.family is not None and figure.family not in self.sweep.varied:
                raise ValueError(f"figures.{number}: family: {unknown_name(figure.family, self.sweep.varied, 'name')}")
        return self

    def target(self, name: str, axis: AxisConfig) -> str:
        """What an axis varies: what it says, or what bears its name."""
        if axis.of is not None:
            return axis.of
        stimulus = self.simulation.stimulus
        if stimulus is not None and name in accepted(STIMULI[stimulus.name]):
            if name in parameters(SIMULATORS[self.simulation.simulator.name]):
                return name  # refused, as neither
            return f"stimulus.{name}"
        return f"simulator.{name}"

    @property
    def targets(self) -> dict[str, str]:
        """What every axis varies."""
        return {name: self.target(name, axis) for name, axis in self.sweep.varied.items()}

    @property
    def recorded(self) -> tuple[str, ...]:
        """What has to be recorded for measures and raw traces; a function of one's own sees all that is."""
        needed = dict.fromkeys(self.keep)
        for name in self.measures:
            needed |= dict.fromkeys(load_measure(name).needs or SIMULATORS[self.simulation.simulator.name].recordables)
        return tuple(needed)

    def _check_ends(self) -> None:
        """Build the simulation at the ends of every axis, and at the ends of all: its own checks know the bounds."""
        ends = {name: self.sweep.ends(name) for name in self.sweep.varied}
        cases = [{name: value} for name, pair in ends.items() for value in pair]
        cases += [{name: pair[k] for name, pair in ends.items()} for k in (0, 1)]
        for case in cases:
            try:
                self._at(case)
            except ValueError as error:
                at = ", ".join(f"{name} = {value:g}" for name, value in case.items())
                raise ValueError(f"sweep.axes: at {at}: {_plain(error)}") from error

    def _at(self, case: Mapping[str, float]) -> None:
        """Build the simulation at one point."""
        changed: dict[str, dict[str, float]] = {}
        for name, value in case.items():
            where, _, argument = self.targets[name].partition(".")
            changed.setdefault(where, {})[argument] = value * self.sweep.varied[name].times
        simulation = self.simulation.model_dump()
        for where, arguments in changed.items():
            simulation[where] |= arguments
        SweptSimulation.model_validate(simulation)


def _plain(error: ValueError) -> str:
    """The first message of an error."""
    return first_message(error) if isinstance(error, ValidationError) else str(error)
