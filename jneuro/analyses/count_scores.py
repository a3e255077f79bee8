"""Scores of predicted spike counts: squared error, Poisson deviance and bits per spike, by population and by size."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from jneuro.core.types import Float, Int
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.comparison import compare_ratios, holm
from jneuro.evaluation.count_ceiling import count_ceiling, futures_of_counts
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import interval, ratio_error, sums_by_run
from jneuro.recordings import open_recording, populations_of
from jneuro.report.components import Estimate, Plot, Section, Table, estimate, forest, number, quantity
from jneuro.report.style import COLOURS, GREY, INK, panels

__all__ = ["CountScores", "mean_rate", "score_counts"]

_TEXT = """
A bin of {{ settings.bin_ms | general }} ms holds {{ settings.spikes_per_bin | fixed(3) }} spikes on average. Bits per
spike count from each neuron's mean rate in training runs; no prediction's logarithm is taken below
{{ settings.floor | percent(0) }} of that rate.

{% if best.model and best.baseline %}
{% set gain = comparisons[best.model] %}
Of all {{ settings.neurons }} neurons, the best model, {{ best.model }}, gains {{ bits(best.model) }} bits per spike and
the best baseline, {{ best.baseline }}, {{ bits(best.baseline) }}: the model is {{ gain.verdict }}
{{- "," if gain.verdict != "not told apart" else " from it," }} by {{ gain | bounds(3) }} bits per spike (95 %, paired
by run).
{% endif %}

{% if ceiling %}
Whoever knew the simulator's full state would gain {{ ceiling.all.bits | fixed(3) }} bits per spike (between
{{ ceiling.all.bits_low | fixed(3) }} and {{ ceiling.all.bits_high | fixed(3) }}, from {{ settings.futures }} futures of
each state), explain {{ ceiling.all.r2 | percent(1) }} of the variance, and still err by a mean square of
{{ ceiling.all.mse | fixed(4) }}: the rest is input that has not come yet.
{% endif %}
"""


class CountScores(Analysis):
    """The next bin's counts, by every model of every seed, the baselines, and the best that could be.

    Attributes:
        floor: no prediction is less than this share of the neuron's mean rate where its logarithm is taken: linear
            predictors and the squared-error head may be negative. The same for all predictors.
        futures: of each state, for the ceiling; even.
        max_states: at most so many states of each test run.
    """

    name: Literal["count_scores"] = "count_scores"
    floor: float = Field(default=0.05, gt=0, lt=1)
    futures: int = Field(default=256, ge=4, multiple_of=2)
    max_states: int = Field(default=10, ge=2)

    def check(self, windows: WindowConfig, models) -> None:
        """Needs counts as they are."""
        if windows.targets != ("spikes",) or windows.measurement_noise:
            raise ValueError("count_scores needs targets: [spikes] and measurement_noise: 0")

    def compute(self, study: Study) -> Findings:
        """Score everything on all neurons it predicts, on each population, and on the neurons that all predict."""
        data = open_recording(study.recording)
        total = data.sizes["neuron"]
        main = study.windows
        # A model with windows of its own for another bin is no model of these counts.
        same = {n: w for n, w in study.windows_of.items() if (w.dt, w.horizons[0]) == (main.dt, main.horizons[0])}
        kept = {n: _kept(study, w, total) for n, w in same.items()}
        main = _kept(study, study.windows, total)
        groups = {"all": np.ones(total, bool)}
        groups |= populations_of(data)
        groups["shared"] = np.bincount(np.concatenate([main, *kept.values()]), minlength=total) == len(kept) + 1
        rate = np.ones(total)
        rate[main] = mean_rate(_counts(study.windows, targets(study.windows, study.windows.starts["train"])))
        found, gains = {}, {}
        for name, baseline in study.baselines.items():
            found[name] = {"kind": "baseline"} | self._score(study, name, [baseline], study.windows, main, rate, groups)
            gains[name] = self._gains(study, name, study.windows, rate[main])
        for name, mine in kept.items():
            study.tell(f"counts of {name}")
            windows, models = study.windows_of[name], study.models[name]
            found[name] = {"kind": "model"} | self._score(study, name, models, windows, mine, rate, groups)
            if len(mine) == len(main):
                gains[name] = self._gains(study, name, windows, rate[mine])
        best = {kind: _best(found, kind, len(main)) for kind in ("model", "baseline")}
        against = gains[best["baseline"]] if best["baseline"] else None
        comparisons = {
            name: compare_ratios(mine - against[0], spikes)
            for name, (mine, spikes) in gains.items()
            if against is not None and found[name]["kind"] == "model"
        }
        numbers: dict[str, Any] = {
            "settings": {
                "bin_ms": study.windows.dt,
                "neurons": len(main),
                "shared": int(groups["shared"].sum()),
                "spikes_per_bin": float(rate[main].mean()),
                "test_runs": len(study.windows.trials("test")),
                "floor": self.floor,
                "futures": self.futures,
            },
            "predictors": found,
            "best": best,
            "comparisons": holm(comparisons),
            "ceiling": None,
        }
        study.tell("ceiling of counts")
        halves = futures_of_counts(study, self.futures, self.max_states)
        if halves is not None:
            mine = np.isin(np.arange(total), main)
            numbers["ceiling"] = {n: count_ceiling(halves, rate, self.futures, g & mine) for n, g in groups.items()}
        return Findings(numbers)

    def section(self, findings: Findings) -> Section:
        """The best model against the best baseline and the ceiling, by population and by size."""
        numbers = findings.numbers
        predictors, ceiling = numbers["predictors"], numbers["ceiling"] or {}
        rows = [_row(name, str(p["neurons"]), p["groups"]["all"]) for name, p in predictors.items()]
        if ceiling:
            c = ceiling["all"]
            rows.append(("ceiling", "state", _pair(c, "bits"), "–", "–", _pair(c, "mse", 5), quantity(c["r2"], 4)))
        named = {n: p["groups"] for n, p in predictors.items()} | ({"ceiling": ceiling} if ceiling else {})
        groups = list(dict.fromkeys(g for p in named.values() for g in p))
        split = [(n, *(_pair(p[g], "bits") if g in p else "–" for g in groups)) for n, p in named.items()]
        shared = numbers["settings"]["shared"]
        span = (ceiling["shared"]["bits_low"], ceiling["shared"]["bits_high"]) if ceiling else None
        drawn = [
            Estimate(
                name, s["bits"], s["bits"] - error, s["bits"] + error, s["seeds"],
                colour=GREY if p["kind"] == "baseline" else COLOURS[0],
            )
            for name, p in predictors.items()
            for s in [p["groups"]["shared"]]
            for error in [number(s["bits_se"])]
        ]  # fmt: skip
        sizes = {p["neurons"] for p in predictors.values() if p["kind"] == "model"}
        parts = (
            Table(
                "All neurons that each predicts; ± one standard error, clustered by run; over seeds: mean ± 95 %.",
                ("predictor", "neurons", "bits per spike", "over seeds", "deviance", "MSE", "R²"),
                rows,
            ),
            Table(
                f"Bits per spike by group; shared: the {shared} neurons that all predict.",
                ("predictor", *groups),
                split,
            ),
            Plot(
                "count_scores",
                "Bits per spike",
                "Bits per spike over the mean rate of every baseline (grey) and model (blue) on the neurons that all "
                "predict, with the range of the ceiling.",
                "Right of zero, a predictor knows more than each neuron's mean rate. The ceiling knows the full state.",
                forest({"": drawn}, f"bits per spike over the mean rate, {shared} shared neurons", span=span),
            ),
            Plot(
                "count_sizes",
                "Bits per spike by size",
                "Bits per spike on the neurons that all models predict, against how many neurons a model observes and "
                "predicts.",
                "More neurons hold more information. Where the bits fall all the same, this training does not make use "
                "of it.",
                _draw_sizes(predictors, span),
            )
            if len(sizes) > 1
            else None,
        )
        bits = lambda name: _pair(predictors[name]["groups"]["all"], "bits")  # noqa: E731
        return Section("How well spike counts are predicted", _TEXT, parts, {"bits": bits})

    def _gains(self, study: Study, name: str, windows: Windows, rate: np.ndarray) -> list[np.ndarray]:
        """Gain over the mean rate in nats, and spikes times log 2, by run: a predictor's first seed on all neurons."""
        starts = np.asarray(windows.starts["test"])
        truth = _counts(windows, targets(windows, starts))
        expected = np.maximum(_counts(windows, study.predictions[name]), self.floor * rate)
        gain = truth * np.log(expected / rate) - expected + rate
        return sums_by_run(starts // windows.frames_per_trial, gain, truth * np.log(2))

    def _score(self, study, name, predictors, windows: Windows, kept, rate, groups) -> dict[str, Any]:
        """One model's scores by group: the first seed's, with the bits of all seeds."""
        starts = windows.starts["test"]
        truth = _counts(windows, targets(windows, starts))
        runs = np.asarray(starts) // windows.frames_per_trial
        inside = {group: mask[kept] for group, mask in groups.items() if mask[kept].any()}
        every = []
        for seed, predictor in enumerate(predictors):
            scaled = forecast(predictor, windows, starts) if seed else study.predictions[name]
            predicted = _counts(windows, scaled)
            every.append(
                {
                    group: score_counts(predicted[:, m], truth[:, m], rate[kept][m], runs, self.floor)
                    for group, m in inside.items()
                }
            )
        for group in inside:
            bits = [scores[group]["bits"] for scores in every]
            every[0][group] |= {"seeds": bits, "seeds_mean": float(np.mean(bits)), "seeds_ci95": interval(bits)}
        return {"neurons": len(kept), "features": windows.features, "groups": every[0]}


def _kept(study: Study, windows: Windows, total: int) -> Int[np.ndarray, " neuron"]:
    """The neurons that windows predict."""
    return study.config.model_copy(update={"neurons": windows.outputs}).kept(total)


def _counts(windows: Windows, values: np.ndarray) -> Float[np.ndarray, "window neuron"]:
    """Counts at the nearest horizon, in spikes."""
    scaling = windows.target_scaling
    return values[:, 0].astype(np.float64) * np.asarray(scaling.scale) + np.asarray(scaling.mean)


def mean_rate(counts: Float[np.ndarray, "window neuron"]) -> Float[np.ndarray, " neuron"]:
    """Mean count of every neuron; one that never fires is given half a spike.

    Args:
        counts: of training runs.

    Returns:
        The means, positive.
    """
    return np.maximum(counts.sum(0), 0.5) / len(counts)


def score_counts(
    predicted: Float[np.ndarray, "window neuron"],
    truth: Float[np.ndarray, "window neuron"],
    rate: Float[np.ndarray, " neuron"],
    runs: Int[np.ndarray, " window"],
    floor: float,
) -> dict[str, float]:
    r"""Score predicted counts.

    With \(\lambda\) the prediction, no less than `floor` of the rate, and \(m\) the rate:

    \[ D = \langle 2\,(y \log(y/\lambda) - y + \lambda) \rangle, \qquad \mathrm{bits} = \frac{\sum y \log(\lambda/m) -
    \lambda + m}{\log 2 \; \sum y}. \]

    Args:
        predicted: the expected counts; the squared error takes them as they are.
        truth: what came.
        rate: each neuron's mean count in training runs.
        runs: the run of each window, the independent clusters of the standard errors.
        floor: see above.

    Returns:
        `mse`, `deviance` (a bin), `bits` (per spike, over the mean rate), each with its standard error (`_se`), and
        `r2`, the share of the mean rate's squared error that is explained.
    """
    expected = np.maximum(predicted, floor * rate)
    squared = np.square(predicted - truth)
    deviance = 2 * (truth * np.log(np.where(truth > 0, truth, 1) / expected) - truth + expected)
    gain = truth * np.log(expected / rate) - expected + rate
    sums = {
        "mse": (squared, np.ones_like(truth)),
        "deviance": (deviance, np.ones_like(truth)),
        "bits": (gain, truth * np.log(2)),
    }
    found = {}
    for name, pair in sums.items():
        a, b = sums_by_run(runs, *pair)
        found |= {name: float(a.sum() / b.sum()), f"{name}_se": ratio_error(a, b)}
    return found | {"r2": float(1 - squared.sum() / np.square(truth - rate).sum())}


def _best(predictors: Mapping[str, Any], kind: str, neurons: int) -> str | None:
    """The predictor of a kind with the most bits, among those of all neurons; None if there is none."""
    of_all = {
        n: number(p["groups"]["all"]["bits"])
        for n, p in predictors.items()
        if p["kind"] == kind and p["neurons"] == neurons
    }
    return max(of_all, key=lambda n: of_all[n], default=None)


def _pair(scores: Mapping[str, Any], key: str, digits: int = 3) -> str:
    return estimate(scores[key], scores.get(f"{key}_se"), digits)


def _row(name: str, neurons: str, s: Mapping[str, Any]) -> tuple[str, ...]:
    over = estimate(s["seeds_mean"], s["seeds_ci95"], 3) if len(s["seeds"]) > 1 else "–"
    return name, neurons, _pair(s, "bits"), over, _pair(s, "deviance", 4), _pair(s, "mse", 5), quantity(s["r2"], 4)


def _draw_sizes(predictors: Mapping[str, Any], span: tuple[float, float] | None):
    """Bits per spike on the shared neurons against how many neurons a model saw."""
    models = {name: p for name, p in predictors.items() if p["kind"] == "model"}
    figure, (ax,) = panels(3.2)
    for name, predictor in models.items():
        s, at = predictor["groups"]["shared"], predictor["neurons"]
        ax.errorbar(at, s["bits"], number(s["bits_se"]), marker="o", capsize=3, label=name)
        ax.plot([at] * len(s["seeds"]), s["seeds"], linestyle="", marker="_", color=INK)
    if span:
        ax.axhspan(*span, color="#D55E00", alpha=0.35, label="ceiling")
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xscale("log")
    sizes = sorted({p["neurons"] for p in models.values()})
    ax.set_xticks(sizes, [str(s) for s in sizes])
    ax.minorticks_off()
    ax.set_xlabel("neurons observed and predicted")
    ax.set_ylabel("bits per spike, shared neurons")
    ax.legend(frameon=False, fontsize=8)
    return figure
