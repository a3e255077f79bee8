"""What a report is made of, and the order of its predictors: baselines, models, leaky models, ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from jneuro.core.types import Float
from jneuro.datasets.variables import shared_unit
from jneuro.evaluation.analysis import Analysis, Findings
from jneuro.evaluation.claims import JudgedClaim
from jneuro.report.components import number
from jneuro.report.style import COLOURS

__all__ = ["Kind", "ReportData", "Score", "best", "compared", "excitatory", "in_unit", "number", "scores", "twin"]

Kind = Literal["baseline", "model", "leaky", "ceiling"]

BASELINES = {"mean": "mean", "persistence": "persistence", "ar": "AR", "var": "VAR", "lookup": "lookup"}
GREYS = ("#969696", "#7d7d7d", "#646464", "#4b4b4b")
LEAKY_COLOUR = "#D55E00"
MARKERS = "osD^vP"


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows, as plain dictionaries and NumPy arrays; empty dictionaries leave their part out.

    Attributes:
        run: `name`, `hash`, `jneuro_version`, `versions` (package → version), `device`, `started` (ISO 8601),
            `seconds` (stage → seconds), `total_seconds` (stages side by side count once), `git_commit` (or `None`),
            `command`, `other_makers` (stage → what else than `versions` and `device` it was made with), and `loss`
            (`mse` unless given: only with it do learning curves compare with the ceiling).
        config_yaml: the resolved configuration, as written to the run folder.
        metrics: the content of `metrics.json`: `test` (model → scores, with `leaky: true` where training windows
            or scaling saw test data), `baselines` (name → scores), `ceiling` (or `None`: recorded data has no
            simulator to draw futures from), `recording` (rates [Hz], `isi_cv`, voltages [mV], `runs`, `duration_ms`)
            and `windows` (`length` and `stride` in samples, `horizons_ms`, `counts` and `runs` by split, `split`,
            `targets`: variable → unit).
            Scores are `r2`, `r2_se`, `rmse`, `mae`, `share_of_ceiling`, `skill`, `gain` and `gain_se` (R² over
            the best baseline, paired), `parameters`, `train_seconds`, `horizons_ms`, `per_horizon` and `per_neuron`;
            each may be missing or `None`. All but `per_horizon` are those of the nearest horizon. `rmse` and
            `mae` are in the unit of the model's `targets`. A model with windows of its own has `baselines` of its
            own, which its skill and gain are over.
        history: model → one record for each epoch: `epoch` (from 0), `train_loss` and `validation_loss` (mean
            over horizons and z-scored neurons), `learning_rate`, `seconds`.
        example: one test run: `time_ms` [time], `v` [time neuron] in mV, `spike_time_ms` [event],
            `spike_neuron` [event], `n_excitatory` (excitatory neurons come first).
        forecast: a contiguous stretch of one test run: `time_ms` [time], `target` [time horizon neuron] in its unit,
            `prediction` (model or baseline → array like `target`), `horizons_ms`.
        analyses: name → what else was asked, and what was found; each is told by its `section`.
        claims: of the study, judged.
    """

    run: Mapping[str, Any]
    config_yaml: str
    metrics: Mapping[str, Any]
    history: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    forecast: Mapping[str, Any] = field(default_factory=dict)
    analyses: Mapping[str, tuple[Analysis, Findings]] = field(default_factory=dict)
    claims: Sequence[JudgedClaim] = ()

    @property
    def targets(self) -> Mapping[str, str]:
        """Unit of each variable that the experiment predicts; empty if the metrics do not say."""
        return (self.metrics.get("windows") or {}).get("targets") or {}


@dataclass(frozen=True)
class Score:
    """One predictor's scores, and how it looks in every figure.

    Attributes:
        name: its key in the metrics.
        kind: what it is; only kind `model` competes.
        label: its name in figures, short, marked if leaky.
        colour: distinguishable by colour-blind readers; baselines are grey.
        marker: a second cue beside the colour.
        values: its entry in the metrics.
    """

    name: str
    kind: Kind
    label: str
    colour: str
    marker: str
    values: Mapping[str, Any]

    def value(self, key: str) -> float:
        """One number; NaN if it is missing."""
        return number(self.values.get(key))

    @property
    def own_windows(self) -> bool:
        """Whether it was scored on windows of its own, beside baselines that are not the experiment's."""
        return "baselines" in self.values

    def series(self, group: Literal["per_horizon", "per_neuron"], key: str) -> Float[np.ndarray, " any"]:
        """One number for each horizon or neuron; empty if missing."""
        return np.array([number(x) for x in (self.values.get(group) or {}).get(key) or ()], float)


def in_unit(data: ReportData, what: str) -> str:
    """Head a column or an axis with the unit of the experiment's targets.

    Args:
        data: the run.
        what: is measured.

    Returns:
        `what [unit]`; `what` alone if the unit is unknown.
    """
    unit = shared_unit(data.targets)
    return f"{what} [{unit}]" if unit else what


def scores(data: ReportData) -> list[Score]:
    """All predictors: baselines, models, leaky models, each ascending in R², then the ceiling."""
    found = []
    baselines = data.metrics.get("baselines") or {}
    for i, (name, values) in enumerate(baselines.items()):
        found.append(
            Score(name, "baseline", BASELINES.get(name, _short(name)), GREYS[i % 4], MARKERS[i % 6], values),
        )
    for i, (name, values) in enumerate((data.metrics.get("test") or {}).items()):
        leaky = bool(values.get("leaky"))
        label = _short(name) + (" (leaky)" if leaky and "leaky" not in _short(name) else "")
        label += " (own windows)" if "baselines" in values else ""
        colour = LEAKY_COLOUR if leaky else COLOURS[i % 4]
        found.append(Score(name, "leaky" if leaky else "model", label, colour, MARKERS[i % 6], values))
    ceiling = data.metrics.get("ceiling")
    if ceiling:
        values = {**ceiling, "r2_se": ceiling.get("se"), "share_of_ceiling": 1.0}
        found.append(Score("noise ceiling", "ceiling", "noise ceiling", "#000000", "*", values))
    order = ("baseline", "model", "leaky", "ceiling")
    return sorted(found, key=lambda s: (order.index(s.kind), np.nan_to_num(s.value("r2"), nan=-np.inf)))


def best(data: ReportData, kind: Kind) -> Score | None:
    """Find the best predictor of one kind.

    Args:
        data: the run.
        kind: the kind.

    Returns:
        The one with the highest R², among those scored on the experiment's own windows if there are any; None if none
        has a finite R².
    """
    found = [s for s in reversed(scores(data)) if s.kind == kind and np.isfinite(s.value("r2"))]
    # A model with windows of its own is scored beside baselines of its own: its gain is not over those of the table.
    comparable = [s for s in found if not s.own_windows]
    return next(iter(comparable or found), None)


def twin(data: ReportData) -> tuple[Score, Score] | None:
    """A model and the same one under the leaky split, named `<model> (leaky split)`; the best such pair."""
    by_name = {s.name: s for s in scores(data)}
    for leaky in reversed(by_name.values()):
        honest = by_name.get(leaky.name.removesuffix(" (leaky split)"))
        if leaky.kind == "leaky" and honest is not None and honest.kind == "model":
            return honest, leaky
    return None


def compared(data: ReportData, names: Mapping[str, Any]) -> list[Score]:
    """Find what figures compare.

    Args:
        data: the run.
        names: those that can be shown.

    Returns:
        The best honest model (failing that, the best leaky one) and the best baseline, as far as there are any. Models
        with windows of their own compare with no baseline of the experiment, and are left out.
    """
    kept = [s for s in reversed(scores(data)) if s.name in names and not s.own_windows]
    model = next((s for kind in ("model", "leaky") for s in kept if s.kind == kind), None)
    baseline = next((s for s in kept if s.kind == "baseline"), None)
    return [s for s in (model, baseline) if s is not None]


def excitatory(data: ReportData, neurons: int) -> np.ndarray:
    """Tell which neurons are excitatory.

    Args:
        data: the run.
        neurons: how many there are.

    Returns:
        A mask; all true if the run does not say.
    """
    return np.arange(neurons) < data.example.get("n_excitatory", neurons)


def _short(name: str, limit: int = 28) -> str:
    """A name that fits a figure, safe from Matplotlib's own markup."""
    return (name if len(name) <= limit else name[: limit - 1] + "…").replace("$", r"\$").removeprefix("_")
