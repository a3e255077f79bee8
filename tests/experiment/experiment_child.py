"""`jneuro` that gets a signal at a given moment: `experiment_child.py SIGNAL MOMENT ARGUMENTS...`.

A moment is `grow N`, the N-th array that the recording's writer extends; `step N` of a training; or `stage TEXT`.
"""

import os
import signal
import sys

import jneuro.experiment.simulation
from jneuro.cli import main
from jneuro.core import progress
from jneuro.experiment import running
from jneuro.recordings import RecordingWriter

SIGNAL, MOMENT = getattr(signal, sys.argv[1]), sys.argv[2]


def strike(now):
    if now == MOMENT:
        os.kill(os.getpid(), SIGNAL)


class Watch:
    def on_steps(self, progress):
        strike(f"step {progress.step}")

    def on_epoch(self, record):
        strike(f"epoch {record.epoch}")


def watched(function, moment):
    def call(*args, **words):
        strike(moment(*args, **words))
        return function(*args, **words)

    return call


if __name__ == "__main__":
    grown = iter(range(10_000))
    # Two snapshots of 5 runs of 20 neurons in a chunk.
    jneuro.experiment.simulation._CHUNK = 2 * 50 * 5 * 20
    RecordingWriter._grow = watched(RecordingWriter._grow, lambda *_, **__: f"grow {next(grown)}")
    begin, update = progress._Display.begin, progress._Shown.update
    progress._Display.begin = watched(begin, lambda _, text, *__, **___: f"stage {text}")
    progress._Shown.update = watched(update, lambda task, *_, text=None, **__: f"stage {task.title}: {text}")
    train_stage = running.train_stage
    running.train_stage = lambda *given: train_stage(*given[:3], (*given[3], Watch()))
    sys.argv[:] = ["jneuro", *sys.argv[3:]]
    main()
