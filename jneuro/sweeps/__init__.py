"""Sweeps: one simulation at many points of parameters, stimuli and seeds."""

from jneuro.sweeps.config import SweepConfig, SweepFigure, SweptSimulation
from jneuro.sweeps.design import AxisConfig, DesignConfig
from jneuro.sweeps.measures import MEASURES, Measure
from jneuro.sweeps.program import SweepMemoryError
from jneuro.sweeps.runner import SweepProgress, sweep
from jneuro.sweeps.store import open_sweep

__all__ = [
    "MEASURES",
    "AxisConfig",
    "DesignConfig",
    "Measure",
    "SweepConfig",
    "SweepFigure",
    "SweepMemoryError",
    "SweepProgress",
    "SweptSimulation",
    "open_sweep",
    "sweep",
]
