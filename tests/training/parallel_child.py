"""Train on all devices of this process, or of several: `parallel_child.py FOLDER WAYS [PROCESS PROCESSES PORT]`.

Writes `FOLDER/PROCESS.json`: the curves of every way to train, separated by commas, and what was said meanwhile.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import pytest
from flax import nnx
from training_problems import Layered, config, curves, windows

from jneuro.training import Checkpoints, MetricsFile, TrainingInterrupted, train, train_ensemble

SETTINGS = {"epochs": 2, "batch_size": 16}  # 7 steps in an epoch


class Terminate:
    """Sends SIGTERM to this process, and to none beside it, within the second epoch."""

    def on_steps(self, progress):
        if progress.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch(self, record):
        pass


def run(mode, **more):
    return train(Layered(rngs=nnx.Rngs(0)), windows(), config(parallel=mode, **SETTINGS), key=jax.random.key(0), **more)


def interrupted(folder, process):
    """Stop in one mode, and go on in the other."""
    how = {"callbacks": [MetricsFile(folder / f"metrics-{process}.jsonl")], "checkpoint": Checkpoints(folder / "saved")}
    with pytest.raises(TrainingInterrupted, match="saved step 12"):
        run("pmap", **how | {"callbacks": [*how["callbacks"], Terminate()]})
    return run("jit", **how)


def ensemble():
    """As many members as devices; the first is the one that also trains alone."""
    seeds = range(jax.device_count())
    models = [Layered(rngs=nnx.Rngs(seed)) for seed in seeds]
    return train_ensemble(models, windows(), config(**SETTINGS), keys=[jax.random.key(seed) for seed in seeds])[0]


def main(folder, ways, process=0, processes=1, port=0):
    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, process)
    found = {}
    for way in ways:
        match way:
            case "interrupted":
                result = interrupted(folder, process)
            case "ensemble":
                result = ensemble()
            case _:
                result = run(way)
        found[way] = curves(result).tolist()
    (folder / f"{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), *map(int, sys.argv[3:]))
