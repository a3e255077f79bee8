"""Differentiable neural simulators, the sequence models trained on them, and an honest score.

θ → simulator → recording → windows → model → score, with the noise ceiling beside every score.
"""

from jneuro import datasets, evaluation, models, recordings, simulators, training
from jneuro.datasets import WindowConfig, window
from jneuro.evaluation import evaluate
from jneuro.experiment import run
from jneuro.recordings import Recording
from jneuro.simulators import simulate, stimuli
from jneuro.training import TrainConfig, train

__all__ = [
    "Recording",
    "TrainConfig",
    "WindowConfig",
    "datasets",
    "evaluate",
    "evaluation",
    "models",
    "recordings",
    "run",
    "simulate",
    "simulators",
    "stimuli",
    "train",
    "training",
    "window",
]
