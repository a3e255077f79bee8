"""What an analysis is given, and what it finds.

Scores say how good a model is; an analysis says why, or what it is good for. Each is one file: a configuration with a
`name`, a method `compute` that returns `Findings`, and a method `section` that tells them in the report. Findings go to
metrics.json and analyses.zarr. Those of jneuro are in `jneuro.analyses`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from flax import nnx

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Key
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.results import dump, typed
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["Analysis", "Findings", "Source", "Study"]


class Source(NamedTuple):
    """The simulator behind a recording.

    Attributes:
        simulator: the first run's, connected.
        of_run: the connected simulator of any run.
        per_run: whether every run has its own; else all have the first's.
        dt: time step of an ODE simulator [ms]; None for one that has its own.
        solver: its solver; None for one that has its own.
        record_every: time between frames of the windows [ms].
    """

    simulator: SteppedSimulator | ODESimulator
    of_run: Callable[[int], SteppedSimulator | ODESimulator]
    per_run: bool
    dt: float | None
    solver: Any
    record_every: float


@dataclass(frozen=True)
class Study:
    """A trained and scored experiment, as analyses see it.

    Attributes:
        windows: the experiment's.
        windows_of: those of each model, which are the experiment's unless the model has its own.
        config: how the experiment's were cut.
        models: the trained models by name, one for each seed.
        baselines: the fitted baselines by name.
        predictions: forecasts `[window, horizon, target]`, scaled, by each model's first seed of its own test windows,
            and by the baselines of the experiment's.
        metrics: the scores so far, as in metrics.json (`jneuro.evaluation.Metrics`).
        recording: the store.
        source: the simulator behind it; None for a recording from elsewhere.
        key: for what an analysis draws.
        tell: told what is being done.
    """

    windows: Windows
    windows_of: Mapping[str, Windows]
    config: WindowConfig
    models: Mapping[str, Sequence[nnx.Module]]
    baselines: Mapping[str, Callable]
    predictions: Mapping[str, Float[np.ndarray, "window horizon target"]]
    metrics: Mapping[str, Any]
    recording: Path
    source: Source | None
    key: Key[Array, ""]
    tell: Callable[[str], None]


class Findings(NamedTuple):
    """What an analysis found.

    Attributes:
        numbers: by name: JSON values, `Quantity`, `Comparison`, and nests of them; for metrics.json and the section.
        arrays: for figures, by name: dimensions and values, as xarray takes them. An array that is called like a
            dimension holds its coordinates.
    """

    numbers: Mapping[str, Any]
    arrays: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = {}

    def dump(self) -> dict[str, Any]:
        """The numbers as JSON values: a `Quantity` or a `Comparison` becomes a mapping of its fields."""
        return dump(self.numbers)

    @classmethod
    def load(cls, numbers: Mapping[str, Any], arrays: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> Self:
        """The findings from what was stored.

        Args:
            numbers: what `dump` returned, with null for what is not finite.
            arrays: as they were.
        """
        return cls(typed(numbers), arrays)


class Analysis(Config):
    """An analysis as configuration; abstract: subclasses say what `compute` finds, and may say how `section` tells it.

    Attributes:
        name: which.
    """

    name: str

    @property
    def key(self) -> str:
        """The name under which its numbers and arrays are stored."""
        return self.name.replace(":", ".")

    def check(self, windows: WindowConfig, models: Sequence[str]) -> None:
        """Refuse, before anything is computed, an experiment that this analysis cannot treat.

        Args:
            windows: the experiment's.
            models: the names of its models.

        Raises:
            ValueError: with the key and the remedy.
        """

    def compute(self, study: Study) -> Findings:
        """Compute what the analysis is about.

        Args:
            study: the trained and scored experiment.

        Returns:
            What was found.
        """
        raise NotImplementedError

    def section(self, findings: Findings) -> Any:
        """Tell the findings in a report.

        Args:
            findings: what `compute` returned, read back from the run folder.

        Returns:
            A `jneuro.report.Section`; None for a table of every number.
        """
        return None
