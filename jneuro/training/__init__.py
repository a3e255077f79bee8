"""Training: a recipe, compiled steps, checkpoints that survive a kill, and what is told meanwhile."""

from jneuro.training.callbacks import Callback, EpochRecord, MetricsFile, RichProgress, StepProgress
from jneuro.training.checkpoints import CheckpointError, Checkpoints, load_best, on_termination
from jneuro.training.ensemble import train_ensemble
from jneuro.training.kinds import CALLBACKS, LOSSES, OPTIMIZERS, SCHEDULES
from jneuro.training.loop import TrainingDiverged, TrainingInterrupted, TrainResult
from jneuro.training.losses import Loss, mae, mse, pinball, poisson
from jneuro.training.optimizers import Adam, AdamW, OptimizerConfig
from jneuro.training.recipe import Plateau, TrainConfig
from jneuro.training.steps import predict
from jneuro.training.trainer import train

__all__ = [
    "CALLBACKS",
    "LOSSES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Adam",
    "AdamW",
    "Callback",
    "CheckpointError",
    "Checkpoints",
    "EpochRecord",
    "Loss",
    "MetricsFile",
    "OptimizerConfig",
    "Plateau",
    "RichProgress",
    "StepProgress",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "TrainingInterrupted",
    "load_best",
    "mae",
    "mse",
    "on_termination",
    "pinball",
    "poisson",
    "predict",
    "train",
    "train_ensemble",
]
