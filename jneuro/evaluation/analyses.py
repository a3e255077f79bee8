"""All analyses, told apart by their names."""

from typing import Annotated

from pydantic import Field

from jneuro.evaluation.ablation import Ablation
from jneuro.evaluation.connectivity_recovery import ConnectivityRecovery
from jneuro.evaluation.count_scores import CountScores
from jneuro.evaluation.error_analysis import ErrorAnalysis
from jneuro.evaluation.interpretability import Interpretability
from jneuro.evaluation.quantile_scores import QuantileScores
from jneuro.evaluation.reconstruction import Reconstruction
from jneuro.evaluation.rollout_analysis import RolloutAnalysis
from jneuro.evaluation.surrogate import SurrogateAnalysis

__all__ = ["AnyAnalysis"]

AnyAnalysis = Annotated[
    Ablation
    | ConnectivityRecovery
    | CountScores
    | ErrorAnalysis
    | Interpretability
    | QuantileScores
    | Reconstruction
    | RolloutAnalysis
    | SurrogateAnalysis,
    Field(discriminator="name"),
]
"""The configuration of any analysis."""
