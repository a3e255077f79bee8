"""Sweeps: one simulation at many points of parameters, stimuli and seeds."""

from jneuro.sweeps.config import SweepConfig, SweepFigure
from jneuro.sweeps.design import AxisConfig, DesignConfig, zipped
from jneuro.sweeps.kinds import MEASURES
from jneuro.sweeps.measures import Measure, measure
from jneuro.sweeps.program import SweepMemoryError
from jneuro.sweeps.runner import SweepProgress, run_sweep, sweep
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
    "measure",
    "open_sweep",
    "run_sweep",
    "sweep",
    "zipped",
]
