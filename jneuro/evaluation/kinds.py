"""The baselines and analyses that a configuration may name; nothing heavy is imported to list them."""

import inspect
from typing import Any

from jneuro.core.registry import Registry

__all__ = ["ANALYSES", "BASELINES"]


def _lacks_as_baseline(thing: Any) -> str | None:
    """What something lacks to be a baseline."""
    return None if callable(getattr(thing, "fit", None)) else "it has no method fit(windows)"


BASELINES = Registry(
    "baseline",
    {
        "mean": "jneuro.evaluation.baselines:MeanConfig",
        "persistence": "jneuro.evaluation.baselines:PersistenceConfig",
        "ar": "jneuro.evaluation.baselines:ARConfig",
        "var": "jneuro.evaluation.baselines:VARConfig",
        "lookup": "jneuro.evaluation.baselines:LookupConfig",
    },
    _lacks_as_baseline,
)
"""Every baseline by the name that a configuration gives it; each has a method `fit(windows)` that returns a model."""


def _lacks_as_analysis(thing: Any) -> str | None:
    """What something lacks to be an analysis."""
    from jneuro.evaluation.analysis import Analysis

    cls = thing if inspect.isclass(thing) else type(thing)
    if not issubclass(cls, Analysis):
        return "derive its class from jneuro's Analysis"
    return "it has no method compute(study)" if cls.compute is Analysis.compute else None


ANALYSES = Registry(
    "analysis",
    {
        "ablation": "jneuro.analyses.ablation:Ablation",
        "connectivity_recovery": "jneuro.analyses.connectivity_recovery:ConnectivityRecovery",
        "count_scores": "jneuro.analyses.count_scores:CountScores",
        "error_analysis": "jneuro.analyses.error_analysis:ErrorAnalysis",
        "interpretability": "jneuro.analyses.interpretability:Interpretability",
        "quantile_scores": "jneuro.analyses.quantile_scores:QuantileScores",
        "reconstruction": "jneuro.analyses.reconstruction:Reconstruction",
        "rollout": "jneuro.analyses.rollout:RolloutAnalysis",
        "surrogate": "jneuro.analyses.surrogate:SurrogateAnalysis",
    },
    _lacks_as_analysis,
)
"""Every analysis by the name that a configuration gives it."""
