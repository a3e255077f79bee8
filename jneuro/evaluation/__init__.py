"""Honest scores: of models, beside baselines and the noise ceiling."""

from jneuro.evaluation.analyses import AnyAnalysis
from jneuro.evaluation.analysis import Analysis, Findings, Source, Study
from jneuro.evaluation.baselines import BaselineConfig, fit_baselines
from jneuro.evaluation.ceiling import CeilingConfig, ceiling_scores, simulate_futures
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.kinds import BASELINES
from jneuro.evaluation.metrics import forecast_scores, interval, ratio_error
from jneuro.evaluation.rollouts import rollout
from jneuro.evaluation.scores import Evaluation, evaluate
from jneuro.evaluation.spike_trains import isi_cv

__all__ = [
    "BASELINES",
    "Analysis",
    "AnyAnalysis",
    "BaselineConfig",
    "CeilingConfig",
    "Evaluation",
    "Findings",
    "Source",
    "Study",
    "ceiling_scores",
    "evaluate",
    "fit_baselines",
    "forecast",
    "forecast_scores",
    "interval",
    "isi_cv",
    "ratio_error",
    "rollout",
    "simulate_futures",
    "targets",
]
