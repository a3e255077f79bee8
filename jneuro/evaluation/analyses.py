"""All analyses, told apart by their names."""

from jneuro.evaluation.error_analysis import ErrorAnalysis

__all__ = ["AnyAnalysis"]

AnyAnalysis = ErrorAnalysis
"""The configuration of any analysis."""
