"""Honest scores: of models, beside baselines and the noise ceiling."""

from jneuro.evaluation.baselines import BaselineConfig, fit_baselines
from jneuro.evaluation.ceiling import CeilingConfig, ceiling_scores, simulate_futures
from jneuro.evaluation.evaluate import Evaluation, evaluate
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import forecast_scores, ratio_error
from jneuro.evaluation.spike_trains import isi_cv

__all__ = [
    "BaselineConfig",
    "CeilingConfig",
    "Evaluation",
    "ceiling_scores",
    "evaluate",
    "fit_baselines",
    "forecast",
    "forecast_scores",
    "isi_cv",
    "ratio_error",
    "simulate_futures",
    "targets",
]
