"""All analyses, told apart by their names."""

from typing import Annotated

from pydantic import Field

from jneuro.evaluation.count_scores import CountScores
from jneuro.evaluation.error_analysis import ErrorAnalysis
from jneuro.evaluation.rollout_analysis import RolloutAnalysis
from jneuro.evaluation.surrogate import SurrogateAnalysis

__all__ = ["AnyAnalysis"]

AnyAnalysis = Annotated[CountScores | ErrorAnalysis | RolloutAnalysis | SurrogateAnalysis, Field(discriminator="name")]
"""The configuration of any analysis."""
