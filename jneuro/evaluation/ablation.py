"""What each part of a model is worth: the model beside the same without the part, seed by seed."""

from typing import Literal

import numpy as np

from jneuro.core.names import unknown_name
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.metrics import interval

__all__ = ["Ablation"]


class Ablation(Analysis):
    """Differences in R² between a model and others that lack a part of it.

    Attributes:
        whole: the model.
        without: what a model lacks, by the model's name, such as `{no_cnn: the convolutions}`.
    """

    name: Literal["ablation"] = "ablation"
    whole: str
    without: dict[str, str]

    def check(self, windows, models) -> None:
        """Needs its models."""
        for name in (self.whole, *self.without):
            if name not in models:
                raise ValueError(f"ablation: {unknown_name(name, models, 'model')}")

    def analyse(self, study: Study) -> Findings:
        """The gain of each part over as many seeds as both models have, with Student's interval."""
        scores = {name: study.metrics["test"][name] for name in (self.whole, *self.without)}
        scores = {name: s["seeds"]["r2"] if "seeds" in s else [s["r2"]] for name, s in scores.items()}
        parts = {}
        for name, part in self.without.items():
            count = min(len(scores[self.whole]), len(scores[name]))
            gains = np.subtract(scores[self.whole][:count], scores[name][:count]).tolist()
            parts[name] = {"part": part, "gains": gains, "mean": float(np.mean(gains)), "ci95": interval(gains)}
        told = {
            name: {
                "seeds": r2,
                "mean": float(np.mean(r2)),
                "ci95": interval(r2),
                "parameters": study.metrics["test"][name]["parameters"],
            }
            for name, r2 in scores.items()
        }
        best = max((s["r2"] for s in study.metrics["baselines"].values()), default=None)
        return Findings({"whole": self.whole, "scores": told, "parts": parts, "best_baseline": best})
