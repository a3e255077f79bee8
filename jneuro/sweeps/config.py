"""A sweep as configuration: what is simulated, what is varied and how, what is kept of every point."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from jneuro.core.config import Config, RunConfig
from jneuro.core.names import unknown_name
from jneuro.core.registry import accepted
from jneuro.simulators.config import RunSettings
from jneuro.simulators.kinds import as_solver, made
from jneuro.simulators.paths import parameters
from jneuro.sweeps.design import DesignConfig
from jneuro.sweeps.kinds import MEASURES
from jneuro.sweeps.measures import as_measure
from jneuro.sweeps.problem import StimulusRecipe, SweepProblem

__all__ = ["SweepConfig", "SweepFigure"]


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

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that it shows."""
        return tuple(axis for axis in (self.x, self.y, self.family) if axis is not None)

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

    simulation: RunSettings
    sweep: DesignConfig
    measures: tuple[Annotated[Any, MEASURES.field()], ...] = ()
    keep: tuple[str, ...] = ()
    figures: tuple[SweepFigure, ...] = Field(default=())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.problem()
        axes = list(self.sweep.varied)
        for number, figure in enumerate(self.figures):
            for key, known in (("of", self.measured), ("x", axes), ("y", axes), ("family", axes)):
                value = getattr(figure, key)
                if value is not None and value not in known:
                    raise ValueError(f"figures.{number}: {key}: {unknown_name(value, known, 'name')}")
        return self

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the measures."""
        return tuple(block.name for block in self.measures)

    @property
    def targets(self) -> dict[str, str]:
        """What every axis varies."""
        return {name: ", ".join(map(".".join, paths)) for name, paths in self.problem().targets.items()}

    def problem(self) -> SweepProblem:
        """The sweep as objects, built once in each precision.

        Raises:
            ValueError: if something cannot be simulated or varied.
        """
        precision = jnp.result_type(float)
        if precision not in self._problems:
            self._problems[precision] = self._build()
        return self._problems[precision]

    @cached_property
    def _problems(self) -> dict[Any, SweepProblem]:
        """The problem in each precision; no part of what makes two configurations equal."""
        return {}

    def _build(self) -> SweepProblem:
        run, recipe = self.simulation, None
        if (stimulus := run.stimulus) is not None:
            known = accepted(stimulus.target) if made(stimulus.target) else parameters(stimulus.target)
            names = tuple(n for n in known if n != "key")
            recipe = StimulusRecipe(stimulus.build, names, stimulus.name, stimulus.source_digest)
        said = self.model_dump(mode="json", exclude={"name": True, "figures": True, "sweep": {"max_points"}})
        return SweepProblem(
            simulator=run.simulator.build(),
            stimulus=recipe,
            design=self.sweep,
            duration=run.duration_ms,
            warmup=run.warmup_ms,
            record_every=run.record_every_ms,
            dt=run.dt_ms,
            solver=as_solver(run.solver),
            measures=tuple(as_measure(block) for block in self.measures),
            keep=self.keep,
            key=jax.random.key(self.seed),
            name=run.simulator.name,
            said=said,
            sources={f"simulator {run.simulator.name}": run.simulator.source_digest},
        )
