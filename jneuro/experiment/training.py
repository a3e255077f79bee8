"""The stage that trains: every model, and the leaky twins; on a CPU, several at a time."""

import contextvars
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax

from jneuro.core.files import remove, write_text
from jneuro.core.process import usable_cores
from jneuro.core.random import stream
from jneuro.datasets import WindowConfig, Windows, window
from jneuro.experiment.folder import RunFolder
from jneuro.experiment.plan import Plan, Training
from jneuro.models.base import build_model, initialised, model_rngs
from jneuro.recordings import Recording
from jneuro.training import Callback, Checkpoints, MetricsFile, load_best, on_termination, train
from jneuro.training.checkpoints import CheckpointError, drop_damaged

__all__ = ["cut_windows", "load_model", "side_by_side", "train_stage"]

_AT_ONCE = 4
"""Most trainings at a time: each holds its activations."""


def cut_windows(plan: Plan, recording: Recording, windows: WindowConfig | None = None) -> Windows:
    """Cut windows; the same runs are in each split however they are cut.

    Args:
        plan: the experiment.
        recording: its recording.
        windows: how; None takes the experiment's.
    """
    config = plan.config
    return window(recording, windows or config.windows, key=stream(jax.random.key(config.seed), "windows"))


def _fresh(training: Training) -> Any:
    """A model before training; a leaky twin starts from the same weights."""
    return build_model(training.model, rngs=model_rngs(training.stream("model")))


def load_model(training: Training, folder: RunFolder) -> Any:
    """Load a trained model, with its best weights.

    Args:
        training: which.
        folder: of the run.

    Returns:
        The model.

    Raises:
        CheckpointError: if it has not been trained.
    """
    return load_best(_fresh(training), folder.path / "models" / training.folder / "checkpoints")


def train_stage(training: Training, folder: RunFolder, windows: Windows, callbacks: Sequence[Callback] = ()) -> None:
    """Train one model, or go on with its training.

    Args:
        training: which model.
        folder: of the run.
        windows: its windows.
        callbacks: told of the progress.

    Raises:
        TrainingDiverged: if the loss is no longer finite; the last good checkpoint stays.
        TrainingInterrupted: after SIGTERM, with the state saved.
    """
    if folder.done(training.stage) or folder.reuse(training.stage):
        return
    home = folder.path / "models" / training.folder
    with folder.stage(training.stage, mends=True):
        try:
            drop_damaged(home / "checkpoints")
        except CheckpointError:  # none can be read
            remove(home)
        result = train(
            initialised(_fresh(training), windows),
            windows,
            training.recipe,
            key=training.stream("train"),
            callbacks=(*callbacks, MetricsFile(home / "metrics.jsonl")),
            checkpoint=Checkpoints(home / "checkpoints", every_seconds=30.0),
            progress=False,
        )
        # A training that goes on after its last epoch tells nobody of those before.
        epochs = "".join(json.dumps(record._asdict()) + "\n" for record in result.history)
        if not (file := home / "metrics.jsonl").exists() or file.read_bytes() != epochs.encode():
            write_text(file, epochs)


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
