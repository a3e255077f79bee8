"""What a training tells while it runs: a progress bar, a metrics file, or anything with one of the same methods."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from jneuro.core.config import Config
from jneuro.core.files import flush, write_text
from jneuro.core.progress import Progress

__all__ = ["Callback", "EpochRecord", "MetricsFile", "StepProgress", "TrainingProgress"]


class StepProgress(NamedTuple):
    """Where a training is after a compiled call.

    Attributes:
        epoch: the running epoch, from 0.
        epochs: most epochs there will be.
        step: steps taken so far.
        steps_per_epoch: steps in an epoch.
        loss: mean training loss of the epoch so far.
        steps_per_second: speed of the last call.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    loss: float
    steps_per_second: float


class EpochRecord(NamedTuple):
    """What is kept of an epoch.

    Attributes:
        epoch: its index, from 0.
        step: steps taken at its end.
        train_loss: mean loss of its steps, each before its update.
        validation_loss: loss over all validation windows at its end.
        validation_r2: R² of the means over them, at the nearest horizon, as the two that follow.
        validation_rmse: root of the mean squared error, scaled as the windows are.
        validation_mae: mean absolute error, scaled likewise.
        learning_rate: learning rate of its last step; None where an optax transformation keeps it to itself
            (`optax.inject_hyperparams` tells it).
        seconds: wall-clock time of the epoch, validation included, since it began or was resumed.
        metrics: the recipe's metrics over the validation windows, by name.
    """

    epoch: int
    step: int
    train_loss: float
    validation_loss: float
    validation_r2: float
    validation_rmse: float
    validation_mae: float
    learning_rate: float | None
    seconds: float
    metrics: Mapping[str, float] = {}


class Callback(Protocol):
    """What `train` tells its listeners; one has any of these methods, of the rest there is nothing to write.

    One that raises ends the training, once what was trained until then is saved.

    Examples:
        >>> class Print:
        ...     def on_epoch(self, record):
        ...         print(record.epoch, record.validation_loss)
    """

    def on_start(self, config: Config, history: Sequence[EpochRecord]) -> None:
        """Hear that a training begins, with its recipe, or goes on after the epochs of its history."""

    def on_steps(self, progress: StepProgress) -> None:
        """Hear of a finished call of some steps."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Hear of a finished epoch; its checkpoint is written afterwards."""

    def on_end(self, history: Sequence[EpochRecord]) -> None:
        """Hear that the training is over, with or without an error."""


class TrainingProgress:
    """Shows a training as a task: epoch, losses, speed and time left."""

    def __init__(self, progress: Progress, text: str) -> None:
        """Begin the task.

        Args:
            progress: shows it.
            text: what is trained.
        """
        self._task, self._validation = progress.begin(text, unit="steps"), float("nan")

    def on_start(self, config: Config, history: Sequence[EpochRecord]) -> None:
        """Take the validation loss of a training that goes on.

        Args:
            config: the recipe.
            history: the epochs that are done.
        """
        del config
        self._validation = history[-1].validation_loss if history else self._validation

    def on_steps(self, progress: StepProgress) -> None:
        """Move the bar.

        Args:
            progress: where the training is.
        """
        said = {"epoch": f"{progress.epoch + 1}/{progress.epochs}", "loss": progress.loss}
        total = progress.epochs * progress.steps_per_epoch
        self._task.update(progress.step, total, None, **said, validation=self._validation)

    def on_epoch(self, record: EpochRecord) -> None:
        """Note the validation loss.

        Args:
            record: the finished epoch.
        """
        self._validation = record.validation_loss
        self._task.update(validation=record.validation_loss)

    def on_end(self, history: Sequence[EpochRecord]) -> None:
        """Leave the bar where it is: a training may end before its last epoch.

        Args:
            history: the epochs.
        """
        del history
        self._task.end(finished=False)


class MetricsFile:
    """Appends every epoch's record to a file, one JSON object on each line.

    A killed training may have written records of epochs that its last checkpoint does not know; the first record
    replaces those of its own and later epochs, and a line that was cut short.
    """

    def __init__(self, path: str | Path):
        """Name the file.

        Args:
            path: the file; made at the first record.
        """
        self._path, self._clean = Path(path), False

    def on_epoch(self, record: EpochRecord) -> None:
        """Append the record.

        Args:
            record: the finished epoch.
        """
        if not self._clean:
            self._drop_from(record.epoch)
            self._clean = True
        with self._path.open("a") as file:
            file.write(json.dumps(record._asdict()) + "\n")
        flush(self._path)

    def _drop_from(self, epoch: int) -> None:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = []
        for line in lines:
            try:
                known = json.loads(line)["epoch"] < epoch
            except (json.JSONDecodeError, KeyError, TypeError):
                break
            if known:
                kept.append(line + "\n")
        write_text(self._path, "".join(kept))
