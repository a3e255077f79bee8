"""The stage that trains: every model, and the leaky twins; on a CPU, several at a time."""

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax

from jneuro.core.config import content_hash
from jneuro.core.process import usable_cores
from jneuro.core.random import stream
from jneuro.core.types import Array, Key
from jneuro.datasets import WindowConfig, Windows, window
from jneuro.experiment.config import ExperimentConfig, ModelEntry
from jneuro.experiment.folder import RunFolder
from jneuro.models.build import build_model, initialised, model_rngs
from jneuro.recordings import Recording
from jneuro.training import Callback, Checkpoints, MetricsFile, load_best, on_termination, train

__all__ = ["Training", "cut_windows", "load_model", "side_by_side", "train_stage", "trainings", "windows_for"]

_AT_ONCE = 4
"""Most trainings at a time: each holds its activations."""


class Training(NamedTuple):
    """One model to be trained.

    Attributes:
        name: the model's name in the configuration.
        label: the name under which it is scored.
        folder: its folder below `models`.
        leaky: whether it is trained and scored under the report's leaky split.
        seed: which of its random starts.
    """

    name: str
    label: str
    folder: str
    leaky: bool
    seed: int = 0

    def again(self, seed: int) -> "Training":
        """The same from another random start."""
        if not seed:
            return self
        return self._replace(label=f"{self.label} (seed {seed})", folder=f"{self.folder}.{seed}", seed=seed)


def trainings(config: ExperimentConfig) -> list[Training]:
    """All trainings of an experiment: the models, then the leaky twins, each with all its seeds."""
    leaky = config.windows.split == "report"
    first = [Training(n, n, n, leaky) for n in config.models]
    first += [Training(n, f"{n} (leaky split)", f"{n}.leaky", True) for n in config.evaluate.leaky_twins]
    return [t.again(seed) for t in first for seed in range(config.models[t.name].seeds)]


def windows_for(config: ExperimentConfig, training: Training) -> WindowConfig:
    """The windows that a model is trained on.

    Args:
        config: the experiment.
        training: which model.
    """
    windows = config.windows_of(training.name)
    return windows.model_copy(update={"split": "report"}) if training.leaky else windows


def cut_windows(config: ExperimentConfig, recording: Recording, windows: WindowConfig | None = None) -> Windows:
    """Cut windows; the same runs are in each split however they are cut.

    Args:
        config: the experiment.
        recording: its recording.
        windows: how; None takes the experiment's.
    """
    return window(recording, windows or config.windows, key=stream(jax.random.key(config.seed), "windows"))


def _start(config: ExperimentConfig, purpose: str, training: Training) -> Key[Array, ""]:
    """The random stream of a training; the first seed's is that of the name alone."""
    key = stream(stream(jax.random.key(config.seed), purpose), training.name)
    return jax.random.fold_in(key, training.seed) if training.seed else key


def _fresh(config: ExperimentConfig, training: Training) -> Any:
    """A model before training; a leaky twin starts from the same weights."""
    key, name = _start(config, "model", training), training.name
    return build_model(config.models[name].model, rngs=model_rngs(key))


def load_model(folder: RunFolder, training: Training) -> Any:
    """Load a trained model, with its best weights.

    Args:
        folder: the run.
        training: which.

    Returns:
        The model.

    Raises:
        CheckpointError: if it has not been trained.
    """
    return load_best(_fresh(folder.config, training), folder.model(training.folder) / "checkpoints")


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
    parts = (
        config.simulation,
        source,
        config.seed,
        windows_for(config, training),
        training.leaky,
        training.name,
        training.seed,
        entry.model,
        recipe,
    )
    content = content_hash(*parts)
    home = folder.model(training.folder)
    if folder.done(stage) or folder.reuse(stage, content, f"models/{training.folder}"):
        return
    with folder.stage(stage, content):
        train(
            initialised(_fresh(config, training), windows),
            windows,
            recipe,
            key=_start(config, "train", training),
            callbacks=(*callbacks, MetricsFile(home / "metrics.jsonl")),
            checkpoint=Checkpoints(home / "checkpoints", every_seconds=30.0),
        )


def side_by_side(work: Sequence[Callable[[], None]]) -> None:
    """Do independent pieces of work, of which each alone would leave cores idle.

    On a CPU as many at a time as there are cores, but four at most, in threads; on other devices, and where there are
    several, one after the other. A fault in one, or SIGTERM, lets trainings among the others save and stop.

    Args:
        work: what to do; it must not rely on the order.

    Raises:
        Exception: the first that any of it raises.
    """
    at_once = min(usable_cores(), len(work), _AT_ONCE)
    if at_once < 2 or jax.default_backend() != "cpu" or jax.device_count() > 1:
        for piece in work:
            piece()
        return
    x64, device = jax.config.jax_enable_x64, jax.config.jax_default_device  # pyright: ignore

    def apart(piece: Callable[[], None]) -> None:
        # A thread has settings of its own.
        with jax.enable_x64(x64), jax.default_device(device):
            piece()

    with on_termination(True) as stop, ThreadPoolExecutor(at_once) as pool:
        begun = [pool.submit(contextvars.copy_context().run, apart, piece) for piece in work]
        try:
            for piece in as_completed(begun):
                piece.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
