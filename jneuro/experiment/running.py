"""The verb `run`: an experiment's stages in order, leaving out those that are done."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jneuro.core.config import ConfigError, first_error
from jneuro.core.progress import Progress, showing
from jneuro.datasets.variables import needed
from jneuro.experiment.config import ExperimentConfig
from jneuro.experiment.folder import RunFolder, wanted
from jneuro.experiment.plan import Plan, Training, load_plan, resolve
from jneuro.experiment.reporting import report_stage
from jneuro.experiment.scoring import evaluate_stage
from jneuro.experiment.simulation import read_stage, require_recording, simulate_stage
from jneuro.experiment.training import cut_windows, side_by_side, train_stage
from jneuro.recordings.store import read_recording
from jneuro.training.callbacks import TrainingProgress

__all__ = ["STAGES", "require_trained", "run", "run_stages"]

STAGES = ("simulate", "train", "evaluate", "report")
"""The stages, in order."""


def run(
    config: ExperimentConfig | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | bool | None = None,
) -> dict[str, Any]:
    """Run an experiment from its configuration to its report.

    Args:
        config: the YAML file; or the configuration itself, as an object or as a dictionary, which may hold simulators,
            model classes, losses and optimizers themselves where a file names them.
        overrides: `a.b=value`, for a file.

    Other Args:
        out: the run folder; `runs/<name>-<hash>` by default.
        resume: continue an unfinished run; on a CPU the result is bit-identical to an uninterrupted one. Stages whose
            code has changed since are done again.
        progress: shows how far the run is: None runs that last longer than 2 s, on a terminal and in a notebook; True
            at once, elsewhere as lines on standard error; False never.

    Returns:
        The metrics, as in metrics.json.

    Raises:
        ConfigError: for a bad configuration or run folder, before anything is computed.
        SimulationError: if the simulation leaves the finite numbers.
        TrainingDiverged: if a training does.
    """
    plan = load_plan(config, overrides) if isinstance(config, str | Path) else _resolved(config)
    folder = RunFolder.prepare(plan, None if out is None else Path(out), resume=resume)
    with showing(progress) as shown:
        run_stages(plan, folder, shown)
    return folder.load("metrics.json")


def _resolved(config: ExperimentConfig | Mapping[str, Any]) -> Plan:
    """The plan of a configuration that stands in no file."""
    try:
        return resolve(config if isinstance(config, ExperimentConfig) else ExperimentConfig.model_validate(config))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(first_error(error)) from error


def run_stages(plan: Plan, folder: RunFolder, progress: Progress, last: str = "report") -> None:
    """Run the stages up to one, leaving out those that are done.

    Args:
        plan: the experiment.
        folder: of the run.
        progress: hears how it goes on.
        last: the last stage.
    """
    asked, path = STAGES[: STAGES.index(last) + 1], folder.path / "recording.zarr"
    with folder.lock():
        folder.note_makers(plan.stages.values(), progress)
        stage: Any = plan.stages.get("simulate")
        simulation, source = plan.simulation, plan.config.recording
        if simulation and wanted(stage, folder, progress, "simulated") and not folder.reuse(stage):
            with folder.stage(stage, mends=True), progress.begin("simulate", unit="s") as task:
                simulate_stage(simulation, plan.seed, path, lambda *ms: task.update(*(1e-3 * t for t in ms)))
        stage = plan.stages.get("read")
        if source and wanted(stage, folder, progress, "read"):
            with folder.stage(stage), progress.begin("read"):
                progress.note(read_stage(source, path))
        if "train" in asked:
            _train_all(plan, folder, progress)
        if "evaluate" in asked and wanted(plan.stages["evaluate"], folder, progress, "evaluated"):
            with progress.begin("evaluate") as task:
                evaluate_stage(plan, folder, lambda text: task.update(text=text))
        if "report" in asked and wanted(plan.stages["report"], folder, progress, "written"):
            with progress.begin("report"):
                report_stage(plan, folder)


def require_trained(plan: Plan, folder: RunFolder) -> None:
    """Refuse a run whose recording is damaged, or whose models are not all trained.

    Args:
        plan: the experiment.
        folder: of the run.

    Raises:
        ConfigError: with the remedy.
    """
    for training in plan.trainings:
        folder.require(training.stage, f"{training.label} is not trained")
    require_recording(plan, folder)


def _train_all(plan: Plan, folder: RunFolder, progress: Progress) -> None:
    """Train what is not trained; models that see the same windows share them."""
    left = [t for t in plan.trainings if wanted(t.stage, folder, progress, "trained")]
    cutting, cut = threading.Lock(), {}
    waiting = Counter(t.windows for t in left)

    def one(training: Training) -> None:
        how = training.windows
        with cutting:
            if how not in cut:
                with progress.begin("windows"):
                    cut[how] = cut_windows(plan, read_recording(plan.recording(folder), needed(how.variables)), how)
        train_stage(training, folder, cut[how], (TrainingProgress(progress, f"train {training.label}"),))
        with cutting:
            waiting[how] -= 1
            if not waiting[how]:
                del cut[how]

    side_by_side([partial(one, training) for training in left])
