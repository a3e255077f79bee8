"""Train in a process of its own, slowly and talkatively, so that another can kill it: `training_child.py DIRECTORY`."""

import sys
import time

import jax
from flax import nnx
from training_problems import Noisy, config, windows

from jneuro.training import Checkpoints, TrainingInterrupted, train


class Talk:
    """Prints where it is, and leaves time to be killed there."""

    def on_steps(self, progress):
        print("step", progress.step, flush=True)
        time.sleep(0.02)

    def on_epoch(self, record):
        print("epoch", record.epoch, flush=True)


if __name__ == "__main__":
    try:
        train(
            Noisy(rngs=nnx.Rngs(0)),
            windows(),
            config(epochs=6),
            key=jax.random.key(1),
            callbacks=[Talk()],
            checkpoint=Checkpoints(sys.argv[1]),
        )
    except TrainingInterrupted:
        sys.exit(75)
