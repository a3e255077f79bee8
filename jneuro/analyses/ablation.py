"""Ablation: what each part of a model is worth, as the model beside the same without the part, seed by seed."""

from typing import Literal

import numpy as np

from jneuro.core.names import unknown_name
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.comparison import compare, holm
from jneuro.evaluation.metrics import interval
from jneuro.report.components import Estimate, Plot, Section, Table, bounds, estimate, forest, quantity

__all__ = ["Ablation"]

_TEXT = """
{% for part in parts.values() %}
{% set worth = part.comparison %}
{{ part.part | capital }}:
{% if worth.n < 2 %}
a difference in R² of {{ worth.difference | fixed(4) }}, from one seed: no bounds.
{% elif worth.verdict == "not told apart" %}
no effect that could be told from the spread of seeds, {{ worth | bounds(4) }}.
{% else %}
{{ "raises" if worth.verdict == "better" else "lowers" }} R² by {{ worth | bounds(4) }} (95 %, {{ worth.n }} pairs of
seeds).
{% endif %}

{% endfor %}
{% if best_baseline is not none %}
{% set gap = scores[whole].mean - best_baseline %}
{{ whole }} as a whole has R² {{ scores[whole].mean | estimate(scores[whole].ci95, 4) }}, {{ gap | abs | fixed(4) }}
{{ "above" if gap > 0 else "below" }} the best baseline.
{% endif %}
"""


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

    def compute(self, study: Study) -> Findings:
        """The gain of each part, paired by seed over as many seeds as both models have."""
        test = {name: study.metrics["test"][name] for name in (self.whole, *self.without)}
        seeds = {name: s["seeds"]["r2"] if "seeds" in s else [s["r2"]] for name, s in test.items()}
        parts, worth = {}, {}
        for name, part in self.without.items():
            count = min(len(seeds[self.whole]), len(seeds[name]))
            whole, bare = seeds[self.whole][:count], seeds[name][:count]
            worth[name] = compare(whole, bare, paired_by="seed")
            parts[name] = {"part": part, "gains": np.subtract(whole, bare).tolist()}
        scores = {
            name: {
                "seeds": r2,
                "mean": float(np.mean(r2)),
                "ci95": interval(r2),
                "parameters": test[name]["parameters"],
            }
            for name, r2 in seeds.items()
        }
        best = max((s["r2"] for s in study.metrics["baselines"].values()), default=None)
        for name, comparison in holm(worth).items():
            parts[name]["comparison"] = comparison
        return Findings({"whole": self.whole, "scores": scores, "parts": parts, "best_baseline": best})

    def section(self, findings: Findings) -> Section:
        """A sentence and a line of the table and of the figure for each part."""
        parts, rows = findings.numbers["parts"], []
        for name, score in findings.numbers["scores"].items():
            part = parts.get(name)
            rows.append(
                (
                    name,
                    part["part"] if part else "nothing",
                    f"{score['parameters']:,}",
                    estimate(score["mean"], score["ci95"], 4),
                    ", ".join(quantity(r2, 4) for r2 in score["seeds"]),
                    bounds(part["comparison"], 4) if part else "–",
                )
            )
        drawn = [
            Estimate(p["part"], c.difference, c.ci95[0], c.ci95[1], p["gains"])
            for p in parts.values()
            for c in [p["comparison"]]
        ]
        caption = (
            "Test R² at the nearest horizon: mean over seeds with its 95 % interval (Student), and what the missing "
            "part adds, as the mean difference of pairs of seeds with its 95 % interval."
        )
        return Section(
            "What each part is worth",
            _TEXT,
            (
                Table(caption, ("model", "without", "parameters", "R²", "seeds", "worth of the part"), rows),
                Plot(
                    "ablation",
                    "Worth of each part",
                    "Difference in test R² between the whole model and the same without a part, one line a part, with "
                    "95 % bounds and one tick for each pair of seeds.",
                    "Right of zero, the part helps. Bounds that hold zero leave it open.",
                    forest({"": drawn}, "R² with the part less R² without it"),
                ),
            ),
        )
