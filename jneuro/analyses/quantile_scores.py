"""Quantile forecasts of rates: are they calibrated, and do they say more than what is usual or what the past says."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from jneuro.core.types import Array, Float, Int
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.baselines import ARConfig
from jneuro.evaluation.comparison import Comparison, compare_ratios, holm
from jneuro.evaluation.count_ceiling import rate_futures
from jneuro.evaluation.forecasts import forecast, observe, targets
from jneuro.evaluation.metrics import interval, ratio_error, sums_by_run
from jneuro.models.base import Prediction
from jneuro.report.components import Plot, Section, Table, estimate, quantity
from jneuro.report.style import GREY, INK, panels

__all__ = ["QuantileScores", "calibration", "pinball_skill", "residual_quantiles"]

_TEXT = """
{% for name, found in models.items() %}
{% set scores = found.predictors %}
{% set baseline = "linear" if (scores.linear.skill or 0) > 0 else "usual" %}
{{ name }} forecasts {{ found.targets }} rate{{ "s" if found.targets > 1 }} {{ found.horizon_ms | general }} ms ahead
with a skill of {{ scores.model.skill | estimate(scores.model.skill_se, 3) }} over the usual quantiles; the linear
forecast has
{{ scores.linear.skill | estimate(scores.linear.skill_se, 3) }}. Against the better baseline, the
{{ "linear forecast" if baseline == "linear" else "usual quantiles" }}, it is {{ found.comparisons[baseline].verdict }}:
it saves a share of {{ found.comparisons[baseline] | bounds(3) }} of that loss (95 %, by run).
{% if found.ceiling %}
The simulator itself, from its full state and {{ settings.futures }} futures of each of {{ found.ceiling.states }}
states, has {{ found.ceiling.skill | estimate(found.ceiling.skill_se, 3) }} (R² {{ found.ceiling.r2 | fixed(3) }})
{%- if found.ceiling.model is defined and found.ceiling.model is not none %}
; the model, on those {{ found.ceiling.model_states }} of them that it was tested on,
{{ found.ceiling.model | fixed(3) }}
{%- endif %}
.
{% endif %}

{% endfor %}
"""


class QuantileScores(Analysis):
    """Pinball loss and calibration at the nearest horizon, beside two baselines and the ceiling.

    The baseline `usual` has the quantiles of each target in training runs. `linear` predicts each target from its own
    past and adds the quantiles of its residuals there. Skill is the share of the loss of `usual` that is gone.

    Attributes:
        models: which; all predict quantiles.
        order: past frames of `linear`; at most a window's.
        futures: of each state, whose quantiles are the ceiling: a little low, for they are finite; 0 for none.
        max_states: at most so many states of each test run.
    """

    name: Literal["quantile_scores"] = "quantile_scores"
    models: tuple[str, ...] = Field(min_length=1)
    order: int = Field(default=20, ge=1)
    futures: int = Field(default=128, ge=0)
    max_states: int = Field(default=40, ge=2)

    def check(self, windows, models) -> None:
        """Needs its models."""
        for name in self.models:
            if name not in models:
                raise ValueError(f"quantile_scores: {name!r} is none of the models {', '.join(models)}")

    def compute(self, study: Study) -> Findings:
        """Score each model on its own test windows."""
        found = {}
        for name in self.models:
            study.tell(f"quantiles of {name}")
            found[name] = self._score(study, name)
        return Findings({"settings": {"futures": self.futures}, "models": found})

    def section(self, findings: Findings) -> Section:
        """A verdict, a table and a calibration curve for each model."""
        models = findings.numbers["models"]
        plot = Plot(
            "calibration",
            "Calibration",
            "Share of what came below each forecast quantile against its level, for every model beside the linear "
            "forecast and the usual quantiles.",
            "Calibrated quantiles lie on the diagonal. A bar spans what came strictly below and what came not above: "
            "rates are counts, and several may be equal to the quantile.",
            _draw_calibration(models),
        )
        return Section("Quantiles of rates", _TEXT, (*(_table(n, f) for n, f in models.items()), plot))

    def _score(self, study: Study, name: str) -> dict[str, Any]:
        """One model of all seeds, the baselines, and the ceiling."""
        windows = study.windows_of[name]
        test, train = (np.asarray(windows.starts[split]) for split in ("test", "train"))
        truth, past = targets(windows, test)[:, 0], targets(windows, train)[:, 0]
        runs = test // windows.frames_per_trial
        levels = tuple(study.models[name][0].config.quantiles)  # pyright: ignore
        usual = np.moveaxis(np.quantile(past, levels, axis=0), 0, -1)
        order = min(self.order, windows.length)
        linear = ARConfig(order=order).fit(windows)
        residual = residual_quantiles(forecast(linear, windows, train)[:, 0], past, levels)
        expected = forecast(linear, windows, test)[:, 0]
        seeds = [observe(m, windows, test, _nearest, batch_size=8) for m in study.models[name]]
        named = {"usual": np.broadcast_to(usual, (*truth.shape, len(levels))), "linear": expected[..., None] + residual}
        scored = {
            kind: pinball_skill(q, usual, truth, levels, runs) | calibration(q, truth, levels, runs)
            for kind, q in {"model": seeds[0], **named}.items()
        }
        skills = [pinball_skill(q, usual, truth, levels, runs)["skill"] for q in seeds]
        scored["model"] |= {"seeds": skills, "seeds_mean": float(np.mean(skills)), "seeds_ci95": interval(skills)}
        return {
            "levels": levels,
            "horizon_ms": windows.horizons[0] * windows.dt,
            "targets": windows.outputs,
            "predictors": scored,
            "comparisons": holm({kind: _saved(seeds[0], q, truth, levels, runs) for kind, q in named.items()}),
            "ceiling": self._ceiling(study, windows, usual, levels, seeds[0]) if self.futures else None,
        }

    def _ceiling(
        self, study: Study, windows: Windows, usual: np.ndarray, levels: tuple[float, ...], model: np.ndarray
    ) -> dict[str, float] | None:
        """The skill of the futures' own quantiles, and of the model on the same states where those are test windows."""
        found = rate_futures(study, windows, self.futures, self.max_states)
        if found is None:
            return None
        whole = windows.outputs == 1
        rates = found.rates.mean(2, keepdims=True) if whole else found.rates
        scaling = windows.target_scaling
        scaled = (rates - np.asarray(scaling.mean)) / np.asarray(scaling.scale)
        quantiles = np.moveaxis(np.quantile(scaled, levels, axis=0), 0, -1)
        truth, runs = targets(windows, found.starts)[:, 0], found.starts // windows.frames_per_trial
        skill = pinball_skill(quantiles, usual, truth, levels, runs)
        residual = truth - scaled.mean(0)
        variance = scaled.var(0, ddof=1) / len(scaled)
        r2 = 1 - (np.square(residual) - variance).sum() / np.square(truth - truth.mean(0)).sum()
        at = {int(s): k for k, s in enumerate(np.asarray(windows.starts["test"]))}
        shared = [k for k, s in enumerate(found.starts) if int(s) in at]
        numbers = {"skill": skill["skill"], "skill_se": skill["skill_se"], "r2": float(r2), "states": len(truth)}
        if shared:
            mine = model[[at[int(found.starts[k])] for k in shared]]
            same = pinball_skill(mine, usual, truth[shared], levels, runs[shared])
            numbers |= {"model": same["skill"], "model_states": len(shared)}
        return numbers


def _nearest(prediction: Prediction) -> Array:
    """Quantiles at the nearest horizon."""
    assert prediction.quantiles is not None
    return prediction.quantiles[:, 0]


def pinball_skill(
    quantiles: Float[np.ndarray, "window target quantile"],
    reference: Float[np.ndarray, "*any quantile"],
    truth: Float[np.ndarray, "window target"],
    levels: tuple[float, ...],
    runs: Int[np.ndarray, " window"],
) -> dict[str, float]:
    r"""The pinball loss \(\sum_q \max(q (y - \hat y_q), (q - 1)(y - \hat y_q))\), and the share of another's it saves.

    Args:
        quantiles: the forecast.
        reference: the other; an axis that is missing is the same for all.
        truth: what came.
        levels: q.
        runs: the run of each window, the independent clusters of the standard error.

    Returns:
        `loss`, and `skill` with its standard error (`skill_se`).
    """
    a, b = sums_by_run(runs, *(_pinball(q, truth, levels) for q in (quantiles, reference)))
    return {
        "loss": float(a.sum() / truth.size),
        "skill": float(1 - a.sum() / b.sum()),
        "skill_se": ratio_error(a, b),
    }


def _pinball(quantiles: np.ndarray, truth: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """The loss of each window."""
    error, level = truth[..., None].astype(np.float64) - quantiles, np.asarray(levels)
    return np.maximum(level * error, (level - 1) * error).sum((1, 2))


def _saved(quantiles, reference, truth, levels, runs) -> Comparison:
    """The share of a reference's loss that is gone, run by run."""
    a, b = sums_by_run(runs, *(_pinball(q, truth, levels) for q in (quantiles, reference)))
    return compare_ratios(b - a, b)


def calibration(
    quantiles: Float[np.ndarray, "window target quantile"],
    truth: Float[np.ndarray, "window target"],
    levels: tuple[float, ...],
    runs: Int[np.ndarray, " window"],
) -> dict[str, Any]:
    """How often what came lies below each quantile.

    Rates are counts over a time: where a quantile is itself a value that comes, calibration asks that its level lie
    between the shares strictly below it and not above it.

    Args:
        quantiles: the forecast.
        truth: what came.
        levels: of the quantiles.
        runs: the run of each window, the independent clusters of the standard error.

    Returns:
        `below` and `not_above`, for each level, `not_above_se`, and `crossed`, the share of windows and targets whose
        quantiles do not ascend.
    """
    value = truth[..., None]
    size, *inside = sums_by_run(runs, np.ones_like(truth), *np.moveaxis(value <= quantiles, -1, 0))
    errors = [ratio_error(total, size) for total in inside]
    return {
        "below": (value < quantiles).mean((0, 1)).tolist(),
        "not_above": (value <= quantiles).mean((0, 1)).tolist(),
        "not_above_se": errors,
        "crossed": float((np.diff(quantiles, axis=-1) < 0).any(-1).mean()),
    }


def residual_quantiles(
    predicted: Float[np.ndarray, "window target"], truth: Float[np.ndarray, "window target"], levels: tuple[float, ...]
) -> Float[np.ndarray, "target quantile"]:
    """Quantiles of what a forecast misses, for each target.

    Args:
        predicted: the forecast.
        truth: what came.
        levels: of the quantiles.

    Returns:
        The quantiles.
    """
    return np.moveaxis(np.quantile(truth - predicted, levels, axis=0), 0, -1)


def _table(name: str, found: Mapping[str, Any]) -> Table:
    """Loss, skill and calibration of a model and its baselines."""
    rows = []
    for kind, scores in found["predictors"].items():
        rows.append(
            (
                name if kind == "model" else kind,
                quantity(scores["loss"], 4),
                estimate(scores["skill"], scores["skill_se"], 3),
                estimate(scores["seeds_mean"], scores["seeds_ci95"], 3) if "seeds" in scores else "–",
                *(f"{a:.3f}–{b:.3f}" for a, b in zip(scores["below"], scores["not_above"], strict=True)),
            )
        )
    caption = (
        f"{name}, {found['horizon_ms']:g} ms ahead. Loss in standard deviations; skill is the share of the usual "
        "quantiles' loss that is gone, ± one standard error, clustered by run; over seeds: mean ± 95 %. Calibrated: "
        "the level lies between the share of what came strictly below its quantile and that not above it."
    )
    return Table(
        caption, ("predictor", "pinball loss", "skill", "over seeds", *(f"below {q:g}" for q in found["levels"])), rows
    )


def _draw_calibration(models: Mapping[str, Any]):
    """Share of what came below each quantile, against its level, one panel for each model."""
    colours = {"model": "#0072B2", "linear": GREY, "usual": "#b0b0b0"}
    figure, axes = panels(2.9, columns=len(models), sharey=True)
    for ax, (name, found) in zip(axes, models.items(), strict=True):
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        for shift, (kind, colour) in zip((-0.015, 0, 0.015), colours.items(), strict=True):
            scores, at = found["predictors"][kind], np.asarray(found["levels"]) + shift
            low, high = np.asarray(scores["below"]), np.asarray(scores["not_above"])
            middle = (low + high) / 2
            label = name if kind == "model" else kind
            ax.errorbar(at, middle, (middle - low, high - middle), linestyle="", color=colour, elinewidth=3)
            ax.plot(at, middle, linestyle="", marker="o", markersize=4, color=colour, label=label)
        ax.set_xlabel("level of the quantile")
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("share below it")
    return figure
