"""What an analysis is given, and what it finds.

Scores say how good a model is; an analysis says why, or what it is good for. Each is a configuration with a `name` and
a method `analyse`, listed in `jneuro.evaluation.analyses`; its findings go to metrics.json and analyses.zarr, and its
section of the report is listed in `jneuro.report.sections`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jneuro.core.config import Config
from jneuro.core.types import Array, Float, Key
from jneuro.datasets import WindowConfig, Windows
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
        metrics: the scores so far, as in metrics.json.
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
        numbers: JSON values, for metrics.json and the report's sentences.
        arrays: for figures, by name: dimensions and values, as xarray takes them.
    """

    numbers: dict[str, Any]
    arrays: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = {}


class Analysis(Config):
    """An analysis as configuration; abstract: subclasses say what `analyse` finds.

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

    def analyse(self, study: Study) -> Findings:
        """Analyse.

        Args:
            study: the trained experiment.

        Returns:
            What was found.
        """
        raise NotImplementedError
