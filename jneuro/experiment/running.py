"""The verb `run`: an experiment's stages in order, leaving out those that are done."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jneuro.core.config import ConfigError
from jneuro.datasets.variables import needed
from jneuro.experiment.config import ExperimentConfig, load_experiment
from jneuro.experiment.folder import RunFolder
from jneuro.experiment.reporting import report_stage
from jneuro.experiment.scoring import evaluate_stage
from jneuro.experiment.simulation import simulate_stage
from jneuro.experiment.training import Training, cut_windows, side_by_side, train_stage, trainings, windows_for
from jneuro.recordings.store import read_recording
from jneuro.training.callbacks import Callback

__all__ = ["STAGES", "Observer", "Silent", "require_trained", "run", "run_stages"]

STAGES = ("simulate", "train", "evaluate", "report")
"""The stages, in order."""


class Observer(Protocol):
    """Hears how a run goes on; of trainings side by side, from several threads."""

    def stage(self, text: str) -> None:
        """A stage, or a part of one, begins."""
        ...

    def advance(self, done: float, total: float) -> None:
        """The simulation has come to `done` of `total` ms, all runs together."""
        ...

    def training(self, label: str) -> Iterable[Callback]:
        """The callbacks for a model's training."""
        ...


class Silent:
    """An observer that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def advance(self, done: float, total: float) -> None:
        """Say nothing."""

    def training(self, label: str) -> Iterable[Callback]:
        """No callbacks."""
        return ()


def run(
    config: ExperimentConfig | str | Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Run an experiment from its configuration to its report.

    Args:
        config: the configuration, or its YAML file.
        overrides: `a.b=value`, for a file.

    Other Args:
        out: the run folder; `runs/<name>-<hash>` by default.
        resume: continue an unfinished run; on a CPU the result is bit-identical to an uninterrupted one.
        observer: hears how the run goes on.

    Returns:
        The metrics, as in metrics.json.

    Raises:
        ConfigError: for a bad configuration or run folder, before anything is computed.
        SimulationError: if the simulation leaves the finite numbers.
        TrainingDiverged: if a training does.
    """
    if not isinstance(config, ExperimentConfig):
        config = load_experiment(config, overrides)
    folder = RunFolder.prepare(config, None if out is None else Path(out), resume=resume)
    run_stages(folder, observer or Silent())
    return folder.read_json("metrics.json")


def run_stages(folder: RunFolder, observer: Observer, last: str = "report") -> None:
    """Run the stages up to one, leaving out those that are done.

    Args:
        folder: the run.
        observer: hears how it goes on.
        last: the last stage.
    """
    with folder.lock():
        wanted = STAGES[: STAGES.index(last) + 1]
        if folder.config.simulation is not None and not folder.done("simulate"):
            observer.stage("simulate")
            simulate_stage(folder, observer.advance)
        if "train" in wanted:
            _train_all(folder, observer)
        if "evaluate" in wanted and not folder.done("evaluate"):
            observer.stage("evaluate")
            evaluate_stage(folder, lambda text: observer.stage(f"evaluate: {text}"))
        if "report" in wanted and not folder.done("report"):
            observer.stage("report")
            report_stage(folder)


def require_trained(folder: RunFolder) -> None:
    """Refuse a run whose models are not all trained.

    Args:
        folder: the run.

    Raises:
        ConfigError: with the remedy.
    """
    missing = [t.label for t in trainings(folder.config) if not folder.done(f"train {t.label}")]
    if missing:
        raise ConfigError(
            f"{folder.path}: {missing[0]} is not trained; "
            f"go on with `jneuro run {folder.path / 'config.yaml'} --out {folder.path} --resume`"
        )


def _train_all(folder: RunFolder, observer: Observer) -> None:
    """Train what is not trained; models that see the same windows share them."""
    config = folder.config
    left = [t for t in trainings(config) if not folder.done(f"train {t.label}")]
    cutting, cut = threading.Lock(), {}
    waiting = Counter(windows_for(config, t) for t in left)

    def one(training: Training) -> None:
        how = windows_for(config, training)
        with cutting:
            if how not in cut:
                observer.stage("windows")
                cut[how] = cut_windows(config, read_recording(folder.recording, needed(how.variables)), how)
        observer.stage(f"train {training.label}")
        train_stage(folder, training, cut[how], tuple(observer.training(training.label)))
        with cutting:
            waiting[how] -= 1
            if not waiting[how]:
                del cut[how]

    side_by_side([partial(one, training) for training in left])
