"""The baselines that a configuration may name; nothing heavy is imported to list them."""

from typing import Any

from jneuro.core.registry import Registry

__all__ = ["BASELINES"]


def _lacks(thing: Any) -> str | None:
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
    _lacks,
)
"""Every baseline by the name that a configuration gives it; each has a method `fit(windows)` that returns a model."""
