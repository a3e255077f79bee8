"""The stage that reports: from the run folder alone to report.html."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jneuro.evaluation import Findings
from jneuro.evaluation.claims import judge
from jneuro.evaluation.results import dump, typed
from jneuro.experiment.folder import RunFolder, maker
from jneuro.experiment.plan import Plan
from jneuro.experiment.simulation import require_recording
from jneuro.recordings import has_events, open_recording, read_events

__all__ = ["report_stage"]

_EXAMPLE_MS = 1000.0
"""Length of the stretch shown as raster and traces [ms]."""


def report_stage(plan: Plan, folder: RunFolder) -> Path:
    """Write the report and its figures.

    Args:
        plan: the experiment.
        folder: of the run, evaluated.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: if the run has not been evaluated.
    """
    from jneuro.report import ReportData, write_report  # with Matplotlib, which no other stage needs

    require_recording(plan, folder)
    for training in plan.trainings:
        folder.require(training.stage)
    metrics, store = typed(folder.load("metrics.json")), plan.recording(folder)
    folder.require(plan.stages["evaluate"])
    with folder.stage(plan.stages["report"]):
        info, claims = folder.info, judge(plan.config.claims, metrics)
        folder.save("claims.json", dump(claims))
        data = ReportData(
            run={
                **{k: info.get(k) for k in ("name", "hash", "started", "git_commit", "command")},
                **maker(),
                "jneuro_version": maker()["versions"]["jneuro"],
                "other_makers": folder.other_makers(plan.stages.values()),
                "loss": _loss(plan),
                "seconds": {name: stage["seconds"] for name, stage in info["stages"].items()},
                "total_seconds": folder.seconds,
            },
            config_yaml=(folder.path / "config.yaml").read_text(),
            metrics=metrics,
            claims=claims,
            history={t.label: _history(folder, t.folder) for t in plan.trainings},
            example=_example(store, plan.config.windows.discard_ms, metrics["windows"]["runs"]["test"][0]),
            forecast=_forecast(folder),
            analyses={
                a.key: (a, Findings(metrics["analyses"][a.key], _arrays(folder, a.key)))
                for a in plan.config.evaluate.analyses
            },
        )
        return write_report(data, folder.path)


def _arrays(folder: RunFolder, name: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The arrays of an analysis, with their dimensions."""
    data = folder.load(f"analyses.zarr/{name}", xr.Dataset)
    return {str(key): (tuple(map(str, data[key].dims)), data[key].values) for key in data.variables}


def _loss(plan: Plan) -> str:
    """The loss that all models are trained with, or what else to call them."""
    losses = {t.recipe.loss.name for t in plan.trainings}
    return losses.pop() if len(losses) == 1 else "several"


def _history(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    """The epochs of a training."""
    return [json.loads(line) for line in (folder.path / "models" / name / "metrics.jsonl").read_text().splitlines()]


def _example(store: Path, first: float, trial: int) -> dict[str, Any]:
    """One run's voltages and spikes, after the discarded beginning."""
    data = open_recording(store)
    shown = data.sel(time=slice(first, first + _EXAMPLE_MS)).isel({"trial": trial}, missing_dims="ignore")
    example: dict[str, Any] = {"time_ms": shown.time.values}
    if "v" in shown:
        example["v"] = shown["v"].values
    if "population" in data and has_events(store):
        time, of, neuron = read_events(store)
        kept = (of == trial) & (time >= first) & (time <= first + _EXAMPLE_MS)
        example |= {"spike_time_ms": time[kept], "spike_neuron": neuron[kept]}
        example["n_excitatory"] = int(np.sum(data["population"].values == 0))
    return example


def _forecast(folder: RunFolder) -> dict[str, Any]:
    """The stretch that was forecast sample by sample."""
    data = folder.load("predictions.zarr/trace", xr.Dataset)
    names = [str(n).removeprefix("prediction.") for n in data if str(n).startswith("prediction.")]
    return {
        "time_ms": data["time"].values,
        "target": data["target"].values,
        "prediction": {n: data[f"prediction.{n}"].values for n in names},
        "horizons_ms": data["horizon"].values.tolist(),
    }
