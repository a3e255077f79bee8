"""The stage that trains: every model, and the leaky twins."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx

from jneuro.config import ExperimentConfig, ModelEntry, content_hash
from jneuro.datasets import Windows, window
from jneuro.experiment.folder import RunFolder
from jneuro.models import Model, build_model
from jneuro.prng import stream
from jneuro.recordings import Recording
from jneuro.training import Callback, Checkpoints, MetricsFile, load_best, train

__all__ = ["Training", "cut_windows", "load_model", "train_stage", "trainings"]


class Training(NamedTuple):
    """One model to be trained.

    Attributes:
        name: the model's name in the configuration.
        label: the name under which it is scored.
        folder: its folder below `models`.
        leaky: whether it is trained and scored under the report's leaky split.
    """

    name: str
    label: str
    folder: str
    leaky: bool


def trainings(config: ExperimentConfig) -> list[Training]:
    """All trainings of an experiment: the models, then the leaky twins."""
    leaky = config.windows.split == "report"
    own = [Training(n, n, n, leaky) for n in config.models]
    return own + [Training(n, f"{n} (leaky split)", f"{n}.leaky", True) for n in config.evaluate.leaky_twins]


def cut_windows(config: ExperimentConfig, recording: Recording, *, leaky_twin: bool = False) -> Windows:
    """Cut the experiment's windows, or those of the leaky twins.

    Args:
        config: the experiment.
        recording: its recording.
        leaky_twin: whether to split as the report does.
    """
    windows = config.windows.model_copy(update={"split": "report"}) if leaky_twin else config.windows
    return window(recording, windows, key=stream(jax.random.key(config.seed), "windows"))


def _fresh(config: ExperimentConfig, name: str) -> Model:
    """A model before training; a leaky twin starts from the same weights."""
    key = stream(stream(jax.random.key(config.seed), "model"), name)
    rngs = nnx.Rngs(params=stream(key, "params"), dropout=stream(key, "dropout"))
    return build_model(config.models[name].model, rngs=rngs)


def load_model(folder: RunFolder, training: Training) -> Model:
    """Load a trained model, with its best weights.

    Args:
        folder: the run.
        training: which.

    Returns:
        The model.

    Raises:
        CheckpointError: if it has not been trained.
    """
    return load_best(_fresh(folder.config, training.name), folder.model(training.folder) / "checkpoints")  # type: ignore


def train_stage(folder: RunFolder, training: Training, windows: Windows, callbacks: Sequence[Callback] = ()) -> None:
    """Train one model, or go on with its training.

    Args:
        folder: the run.
        training: which model.
        windows: its windows.
        callbacks: told of the progress.

    Raises:
        TrainingDiverged: if the loss is no longer finite; the last good checkpoint stays.
        TrainingInterrupted: after SIGTERM, with the state saved.
    """
    config = folder.config
    entry: ModelEntry = config.models[training.name]
    recipe = entry.train or config.train
    source = config.recording and str(config.recording.resolve())
    stage = f"train {training.label}"
    parts = (config.simulation, source, config.seed, config.windows, training.leaky, training.name, entry.model, recipe)
    content = content_hash(*parts)
    home = folder.model(training.folder)
    if folder.done(stage) or folder.reuse(stage, content, f"models/{training.folder}"):
        return
    with folder.stage(stage, content):
        key = stream(stream(jax.random.key(config.seed), "train"), training.name)
        train(
            _fresh(config, training.name),  # pyright: ignore
            windows,
            recipe,
            key=key,
            callbacks=(*callbacks, MetricsFile(home / "metrics.jsonl")),
            checkpoint=Checkpoints(home / "checkpoints", every_seconds=30.0),
        )
