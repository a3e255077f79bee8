"""Differentiable neural simulators, the sequence models trained on them, and an honest score.

θ → simulator → recording → windows → model → score, with the noise ceiling beside every score.
"""

from jneuro import datasets, evaluation, fitting, models, recordings, simulators, sweeps, training
from jneuro.datasets import WindowConfig, window
from jneuro.evaluation import evaluate
from jneuro.experiment import run
from jneuro.fitting import FitOptions, fit
from jneuro.recordings import Recording
from jneuro.simulators import simulate, stimuli
from jneuro.sweeps import SweepConfig, open_sweep, sweep
from jneuro.training import TrainConfig, train

__all__ = [
    "FitOptions",
    "Recording",
    "SweepConfig",
    "TrainConfig",
    "WindowConfig",
    "datasets",
    "evaluate",
    "evaluation",
    "fit",
    "fitting",
    "models",
    "open_sweep",
    "recordings",
    "run",
    "simulate",
    "simulators",
    "stimuli",
    "sweep",
    "sweeps",
    "train",
    "training",
    "window",
]
