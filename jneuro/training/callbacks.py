"""What a training tells while it runs: a progress bar, a metrics file, or anything with one of the same methods."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jneuro.core.config import Config
from jneuro.core.files import flush, write_text

__all__ = ["Callback", "EpochRecord", "MetricsFile", "RichProgress", "StepProgress"]


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


class RichProgress:
    """A bar with the stage's name, losses, speed and time left; a context manager.

    Off a terminal, where nothing can be redrawn, each epoch prints one line instead.
    """

    def __init__(self, stage: str, progress: Progress | None = None):
        """Prepare the bar.

        Args:
            stage: what is being done, such as a model's name.
            progress: a display to join, which the caller starts and stops; None makes one.
        """
        self._stage, self._owned = stage, progress is None
        self._progress = progress or Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        )
        self._task: TaskID | None = None
        self._validation = ""

    def __enter__(self) -> "RichProgress":
        if self._owned and self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._progress.stop()

    def on_steps(self, progress: StepProgress) -> None:
        """Move the bar.

        Args:
            progress: where the training is.
        """
        if self._task is None:
            # The bar begins where a resumed training does, or its speed would count steps that were not taken.
            start = progress.step - progress.step % progress.steps_per_epoch
            total = progress.epochs * progress.steps_per_epoch
            self._task = self._progress.add_task(self._stage, total=total, completed=start)
        text = (
            f"{self._stage} epoch {progress.epoch + 1}/{progress.epochs} loss {progress.loss:.4g}"
            f"{self._validation} {progress.steps_per_second:.3g} steps/s"
        )
        self._progress.update(self._task, completed=progress.step, description=text)

    def on_epoch(self, record: EpochRecord) -> None:
        """Note the validation loss.

        Args:
            record: the finished epoch.
        """
        self._validation = f" validation {record.validation_loss:.4g}"
        if not self._progress.console.is_terminal:
            rate = "" if record.learning_rate is None else f" learning rate {record.learning_rate:.3g}"
            self._progress.console.print(
                f"{self._stage} epoch {record.epoch + 1} loss {record.train_loss:.4g}{self._validation}{rate}"
                f" in {record.seconds:.1f} s",
                soft_wrap=True,
            )


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
