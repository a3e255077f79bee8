"""Honest scores: of models, beside baselines and the noise ceiling."""

from jneuro.evaluation.baselines import BaselineConfig, fit_baselines
from jneuro.evaluation.ceiling import CeilingConfig, ceiling_scores, simulate_futures
from jneuro.evaluation.metrics import forecast_scores, ratio_error

__all__ = [
    "BaselineConfig",
    "CeilingConfig",
    "ceiling_scores",
    "fit_baselines",
    "forecast_scores",
    "ratio_error",
    "simulate_futures",
]
