"""Fits: simulator parameters from recordings."""

from jneuro.fitting.data import Target
from jneuro.fitting.fitter import Fit, FitOptions, fit, predict, predict_spikes
from jneuro.fitting.methods import CMA, Gradient, LeastSquares, NelderMead
from jneuro.fitting.objectives import Features, Rates, Residuals, SpikeTimes, Voltage
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Problem, integrate
from jneuro.fitting.solution import Solution
from jneuro.fitting.spikes import Spikes
from jneuro.fitting.step_objectives import OrderedSpikes, Subthreshold

__all__ = [
    "CMA",
    "Features",
    "Fit",
    "FitOptions",
    "Gradient",
    "LeastSquares",
    "NelderMead",
    "OrderedSpikes",
    "Problem",
    "Rates",
    "Residuals",
    "Solution",
    "SpikeTimes",
    "Spikes",
    "Subthreshold",
    "Target",
    "Trainable",
    "Voltage",
    "fit",
    "integrate",
    "predict",
    "predict_spikes",
]
