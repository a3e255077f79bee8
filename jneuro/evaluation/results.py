"""Typed results: what metrics.json holds, with units, as plain JSON that is read without jneuro.

`Metrics` is what `evaluate` and a run's `metrics.json` hold; its JSON schema (`metrics_schema`) is written beside it.
A number that could not be computed is NaN here and null in JSON.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import (
    Any,
    NotRequired,  # pydantic wants these of Python below 3.12
)

import numpy as np
from typing_extensions import TypedDict

from jneuro.evaluation.comparison import Comparison

__all__ = ["Ceiling", "Metrics", "Quantity", "Scores", "SeedScores", "dump", "metrics_schema", "typed"]


@dataclass(frozen=True)
class Quantity:
    """A number with its unit.

    Attributes:
        value: the number; NaN for what could not be computed.
        unit: its unit, such as `mV`; `1` for a pure number.
        digits: decimals that a text shows; None for four significant digits.

    Examples:
        >>> from jneuro.evaluation import Quantity
        >>> print(Quantity(12.3456, "Hz"), Quantity(0.5, digits=2))
        12.35 Hz 0.50
    """

    value: float
    unit: str = "1"
    digits: int | None = None

    def __str__(self) -> str:
        shown = f"{self.value:.4g}" if self.digits is None else f"{self.value:,.{self.digits}f}"
        shown = shown.replace("-", "−") if np.isfinite(self.value) else "–"
        return shown if self.unit == "1" else f"{shown} {self.unit}"


class SeedScores(TypedDict):
    """Scores of a model's random starts.

    Attributes:
        r2: of each.
        gain: of each, over the best baseline.
        mean: of `r2`.
        ci95: half width of Student's 95 % interval of the mean.
    """

    r2: list[float | None]
    gain: list[float | None]
    mean: float | None
    ci95: float | None


class Scores(TypedDict):
    """Scores of a model or a baseline on the test windows, at the nearest horizon unless a key says otherwise.

    Attributes:
        r2: share of the variance that is explained, all targets together.
        r2_se: its standard error, clustered by run.
        rmse_z: root-mean-square error in standard deviations of each target in training data.
        mae_z: mean absolute error, likewise.
        rmse: root-mean-square error [`unit`].
        mae: mean absolute error [`unit`].
        unit: of `rmse` and `mae`; empty for targets of several units, or where nobody knows it.
        per_horizon: the same by horizon.
        per_neuron: `r2`, `rmse` and `mae` by target.
        horizons_ms: time of each horizon after the window [ms].
        leaky: whether training windows or scaling saw test data.
        share_of_ceiling: `r2` over the ceiling's; null without a ceiling.
        skill: share of the best baseline's squared error that is gone.
        gain: `r2` less that of the best baseline, on the same windows.
        comparison: the same with interval and verdict, paired by run, all models judged together (Holm).
        against: difference in `r2` to every other predictor of the same windows, paired by run, each judged alone.
        leak: of a leaky twin, what its `r2` is above that of the honest model.
        metrics: means of further metrics over windows; `metrics_se`, their standard errors over runs.
        targets: unit of each variable that is predicted.
        parameters: trainable numbers of the model.
        train_seconds: time of its training [s].
        seeds: scores of all random starts, if there are several.
        baselines: scores of the baselines of a model that has windows of its own.
    """

    r2: float | None
    r2_se: float | None
    rmse_z: float | None
    mae_z: float | None
    rmse: float | None
    mae: float | None
    unit: NotRequired[str]
    per_horizon: dict[str, list[float | None]]
    per_neuron: dict[str, list[float | None]]
    horizons_ms: list[float]
    leaky: bool
    share_of_ceiling: float | None
    skill: NotRequired[float | None]
    gain: NotRequired[float | None]
    comparison: NotRequired[Comparison]
    against: NotRequired[dict[str, Comparison]]
    leak: NotRequired[Comparison]
    metrics: NotRequired[dict[str, float | None]]
    metrics_se: NotRequired[dict[str, float | None]]
    targets: NotRequired[dict[str, str]]
    parameters: NotRequired[int]
    train_seconds: NotRequired[float]
    seeds: NotRequired[SeedScores]
    baselines: NotRequired[dict[str, Any]]


class Ceiling(TypedDict):
    """The noise ceiling.

    Attributes:
        r2: the most that a forecast can hope for, at the nearest horizon.
        se: its standard error.
        futures: simulated from each state.
        samples: states times targets.
        per_horizon: `r2` and `se` by horizon.
        per_neuron: `r2` and `se` by target.
    """

    r2: float | None
    se: float | None
    futures: int
    samples: int
    per_horizon: dict[str, list[float | None]]
    per_neuron: dict[str, list[float | None]]


class Metrics(TypedDict):
    """What a run found, as in metrics.json.

    Attributes:
        test: scores of the models by name.
        baselines: scores of the baselines by name.
        ceiling: the noise ceiling; null where no simulator stands behind the recording.
        recording: rates [Hz], potentials [mV], runs and duration [ms].
        windows: length and stride in frames, horizons [ms], counts and runs by split, units of the targets.
        analyses: numbers of each analysis by its name.
    """

    test: dict[str, Scores]
    baselines: dict[str, Scores]
    ceiling: Ceiling | None
    recording: NotRequired[dict[str, Any]]
    windows: NotRequired[dict[str, Any]]
    analyses: NotRequired[dict[str, dict[str, Any]]]


def metrics_schema() -> dict[str, Any]:
    """JSON schema of metrics.json."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Metrics).json_schema()
    for name in ("difference", "p"):  # null where there is one run only
        schema["$defs"]["Comparison"]["properties"][name] = {"type": ["number", "null"]}
    bound = {"type": ["number", "null"]}
    schema["$defs"]["Comparison"]["properties"]["ci95"] |= {"prefixItems": [bound, bound]}
    return schema


def dump(value: Any) -> Any:
    """Turn results into JSON values: a `Quantity` or a `Comparison` becomes a mapping of its fields.

    Args:
        value: mappings, lists, results and JSON values.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): dump(v) for k, v in value.items()}
    return [dump(v) for v in value] if isinstance(value, list | tuple) else value


def typed(value: Any) -> Any:
    """Undo `dump`: mappings with the fields of a result become it, and null among its numbers is NaN again.

    Args:
        value: JSON values.
    """
    if isinstance(value, Mapping):
        if value.keys() == {f.name for f in fields(Comparison)}:
            low, high = (np.nan if x is None else x for x in value["ci95"])
            known = {k: np.nan if value[k] is None else value[k] for k in ("difference", "p")}
            return Comparison(**{**value, **known, "ci95": (low, high)})
        if value.keys() == {f.name for f in fields(Quantity)}:
            return Quantity(**{**value, "value": np.nan if value["value"] is None else value["value"]})
        return {k: typed(v) for k, v in value.items()}
    return [typed(v) for v in value] if isinstance(value, list | tuple) else value
