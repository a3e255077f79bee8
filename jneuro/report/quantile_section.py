"""The section on quantile forecasts of rates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.style import INK, panels

__all__ = ["draw_calibration", "say_quantiles", "tabulate_quantiles"]

_COLOURS = {"model": "#0072B2", "linear": "#7d7d7d", "usual": "#b0b0b0"}


def _pair(scores: Mapping[str, Any], key: str) -> str:
    error = number(scores.get(f"{key}_se"))
    return f"{number(scores[key]):.3f}" + (f" ± {error:.3f}" if np.isfinite(error) else "")


def say_quantiles(numbers: Mapping[str, Any]) -> list[str]:
    """One verdict for each model: skill against both baselines and the ceiling."""
    said = []
    for name, found in numbers["models"].items():
        scores, ceiling = found["predictors"], found["ceiling"]
        linear = number(scores["linear"]["skill"]) > 0
        over, best = (found["over_linear"], "linear forecast") if linear else (scores["model"], "usual quantiles")
        verdict = "beats" if number(over["skill"]) > 2 * number(over["skill_se"]) else "does not beat"
        sentence = (
            f"{name} forecasts {found['targets']:,} rate{'s' * (found['targets'] > 1)} {found['horizon_ms']:g} ms "
            f"ahead with a skill of {_pair(scores['model'], 'skill')} over the usual quantiles; the linear forecast "
            f"has {_pair(scores['linear'], 'skill')}. It {verdict} the better baseline, the {best}, by more than two "
            "standard errors."
        )
        if ceiling:
            sentence += (
                f" The simulator itself, from its full state and {numbers['settings']['futures']} futures of each of "
                f"{ceiling['states']} states, has {_pair(ceiling, 'skill')} (R² {number(ceiling['r2']):.3f})"
            )
            both = ceiling.get("model") is not None
            mine = f"; the model, on those {ceiling['model_states']} of them that it was tested on, "
            sentence += f"{mine}{number(ceiling['model']):.3f}." if both else "."
        said.append(sentence)
    return said


def tabulate_quantiles(numbers: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Skill and calibration of each predictor.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of each table.
    """
    tables = []
    for name, found in numbers["models"].items():
        rows = []
        for kind, scores in found["predictors"].items():
            shares = [f"{a:.3f}–{b:.3f}" for a, b in zip(scores["below"], scores["not_above"], strict=True)]
            over = f"{scores['seeds_mean']:.3f} ± {number(scores['seeds_ci95']):.3f}" if "seeds" in scores else "—"
            label = name if kind == "model" else kind
            rows.append((label, f"{scores['loss']:.4f}", _pair(scores, "skill"), over, *shares))
        heads = ("predictor", "pinball loss", "skill", "over seeds", *(f"below {q:g}" for q in found["levels"]))
        caption = (
            f"{name}, {found['horizon_ms']:g} ms ahead. Loss in standard deviations; skill is the share of the usual "
            "quantiles' loss that is gone, ± one standard error, clustered by run; over seeds: mean ± "
            "95 %. Calibrated: the level lies between the share of what came strictly below its quantile and that not "
            "above it."
        )
        tables.append((caption, heads, rows))
    return tables


def draw_calibration(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Share of what came below each quantile, against its level, one panel for each model.

    Args:
        data: the report's.
        arrays: none.
    """
    models = data.analyses["quantile_scores"][0]["models"]
    figure, axes = panels(2.9, columns=len(models), sharey=True)
    for ax, (name, found) in zip(axes, models.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        for shift, kind in zip((-0.015, 0, 0.015), ("model", "linear", "usual"), strict=True):
            scores, at = found["predictors"][kind], np.asarray(found["levels"]) + shift
            low, high = np.asarray(scores["below"]), np.asarray(scores["not_above"])
            middle = (low + high) / 2
            label = name if kind == "model" else kind
            ax.errorbar(at, middle, (middle - low, high - middle), linestyle="", color=_COLOURS[kind], elinewidth=3)
            ax.plot(at, middle, linestyle="", marker="o", markersize=4, color=_COLOURS[kind], label=label)
        ax.set_xlabel("level of the quantile")
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("share below it")
    return figure
