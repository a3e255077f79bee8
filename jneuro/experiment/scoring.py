"""The stage that evaluates: models beside baselines beside the noise ceiling."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx

from jneuro.core.random import stream
from jneuro.core.types import PyTree
from jneuro.datasets import SPLITS, Windows, needed
from jneuro.datasets.variables import shared_unit, units_of
from jneuro.evaluation import (
    Source,
    Study,
    ceiling_scores,
    compare,
    compare_estimates,
    evaluate,
    forecast,
    interval,
    metrics_schema,
    simulate_futures,
    targets,
)
from jneuro.evaluation.baselines import allowed_baselines
from jneuro.evaluation.results import dump
from jneuro.experiment.folder import RunFolder
from jneuro.experiment.plan import Plan, Training
from jneuro.experiment.simulation import build_runs, initial_states, require_recording
from jneuro.experiment.training import cut_windows, load_model
from jneuro.recordings import (
    Recording,
    has_events,
    open_recording,
    populations_of,
    read_events,
    read_recording,
    read_state,
)
from jneuro.simulators import ODESimulator, SteppedSimulator
from jneuro.spikes.intervals import isi_cv

__all__ = ["evaluate_stage"]


def evaluate_stage(plan: Plan, folder: RunFolder, tell: Callable[[str], None]) -> dict[str, Any]:
    """Score every model, the baselines and the ceiling; write metrics.json and predictions.zarr.

    Args:
        plan: the experiment.
        folder: of the run, with its models trained.
        tell: told what is being done.

    Returns:
        The metrics.
    """
    config = plan.config
    require_recording(plan, folder)
    with folder.stage(plan.stages["evaluate"]):
        scored = _score(plan, folder, tell)
        metrics = scored.metrics
        for training in plan.trainings:
            model = scored.models[training.label]
            epochs = folder.path / "models" / training.folder / "metrics.jsonl"
            metrics["test"][training.label] |= {
                "parameters": sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))),
                "train_seconds": sum(json.loads(line)["seconds"] for line in epochs.read_text().splitlines()),
            }
        metrics["test"] = _gather_seeds(metrics["test"], plan.trainings)
        _judge_leaks(metrics["test"], plan.trainings, len(scored.windows.trials("test")))
        metrics["windows"] = _windows(scored.windows, config.windows) | {"targets": scored.units}
        tell("predictions")
        own = [t for t in plan.trainings if t.leaky == scored.windows.leaky]
        shown = {t.label: scored.models[t.label] for t in own if not t.seed and scored.cut[t.label] is scored.windows}
        predictions = {name: scored.predictions[name] for name in shown}
        stored = _predictions(plan, scored.windows, scored.baselines | shown, predictions, shared_unit(scored.units))
        folder.save("predictions.zarr", stored)
        if config.evaluate.analyses:
            metrics["analyses"], arrays = _analyse(plan, _study(plan, folder, scored, tell))
            folder.save("analyses.zarr", arrays)
        folder.save("metrics.json", dump(metrics))
        folder.save("metrics.schema.json", metrics_schema())
    return metrics


class _Scored(NamedTuple):
    """Everything that was scored.

    Attributes:
        metrics: as in metrics.json.
        windows: the experiment's.
        models: by the training's label.
        cut: the windows of each, by the training's label.
        baselines: fitted on the experiment's windows.
        predictions: forecasts of the test windows, by label or baseline.
        units: unit of each target of the experiment.
    """

    metrics: dict[str, Any]
    windows: Windows
    models: dict[str, Any]
    cut: dict[str, Windows]
    baselines: dict[str, Callable]
    predictions: dict[str, np.ndarray]
    units: dict[str, str]


def _score(plan: Plan, folder: RunFolder, tell: Callable[[str], None]) -> _Scored:
    """Score all trainings on the windows of each, the experiment's own first."""
    config, store = plan.config, plan.recording(folder)
    hows = dict.fromkeys([config.windows, *(t.windows for t in plan.trainings)])
    recording = read_recording(store, needed(dict.fromkeys(n for how in hows for n in how.variables)))
    windows = cut_windows(plan, recording)
    tell("noise ceiling")
    ceiling = _ceiling(plan, store, windows)
    metrics: dict[str, Any] = {"test": {}, "baselines": {}, "ceiling": ceiling}
    metrics["recording"] = _describe(store, config.windows.discard_ms, recording)
    scored = _Scored(metrics, windows, {}, {}, {}, {}, units_of(recording, config.windows.targets))
    for how in hows:
        group = [t.label for t in plan.trainings if t.windows == how]
        main, leaky_twins = how == config.windows, how.split != config.windows.split
        tell("baselines and models" if main else ", ".join(group))
        cut = windows if main else cut_windows(plan, recording, how)
        same = all(getattr(how, key) == getattr(config.windows, key) for key in ("targets", "neurons", "frame_ms"))
        models = {t.label: load_model(t, folder) for t in plan.trainings if t.label in group}
        found = evaluate(
            models,
            cut,
            baselines=None if leaky_twins else allowed_baselines(config.evaluate.baselines, cut),
            ceiling=ceiling if same and cut.horizons == windows.horizons else None,
        )
        metrics["test"] |= found.metrics["test"]
        for label in group:
            metrics["test"][label]["targets"] = units = units_of(recording, how.targets)
            metrics["test"][label]["unit"] = shared_unit(units)
        scored.models.update(models)
        scored.cut.update(dict.fromkeys(group, cut))
        scored.predictions.update({n: p for n, p in found.predictions.items() if main or n in group})
        if main:
            metrics["baselines"] = found.metrics["baselines"]
            scored.baselines.update(found.baselines)
        elif not leaky_twins:
            for label in group:
                metrics["test"][label]["baselines"] = found.metrics["baselines"]
    return scored


def _study(plan: Plan, folder: RunFolder, scored: _Scored, tell: Callable[[str], None]) -> Study:
    """What analyses see: the honest models, by name."""
    config = plan.config
    own = [t for t in plan.trainings if t.leaky == scored.windows.leaky]
    names = [*config.models, *scored.baselines]
    return Study(
        windows=scored.windows,
        windows_of={t.name: scored.cut[t.label] for t in own},
        config=config.windows,
        models={name: [scored.models[t.label] for t in own if t.name == name] for name in config.models},
        baselines=scored.baselines,
        predictions={name: scored.predictions[name] for name in names},
        metrics=scored.metrics,
        recording=plan.recording(folder),
        source=_source(plan),
        key=stream(jax.random.key(config.seed), "analyses"),
        tell=tell,
    )


def _gather_seeds(scores: dict[str, Any], trainings: Sequence[Training]) -> dict[str, Any]:
    """Put the scores of later seeds into the first seed's entry, with their mean and its 95 % interval."""
    kept = {t.label: scores[t.label] for t in trainings if not t.seed}
    for first in (t for t in trainings if not t.seed):
        labels = [t.label for t in trainings if (t.name, t.leaky) == (first.name, first.leaky)]
        if len(labels) > 1:
            every = {key: [scores[label].get(key) for label in labels] for key in ("r2", "gain")}
            kept[first.label]["seeds"] = every | {"mean": float(np.mean(every["r2"])), "ci95": interval(every["r2"])}
    return kept


def _judge_leaks(scores: dict[str, Any], trainings: Sequence[Training], runs: int) -> None:
    """What the leak is worth to each leaky twin: by seed where there are three or more, else by two standard errors."""
    for twin in (t for t in trainings if t.leaky and not t.seed and t.label != t.name):
        leaky, honest = scores[twin.label], scores[twin.name]
        seeds = [s["seeds"]["r2"] if "seeds" in s else [] for s in (leaky, honest)]
        leaky["leak"] = (
            compare(*seeds, paired_by="seed")
            if min(map(len, seeds)) > 2
            else compare_estimates(leaky["r2"], honest["r2"], (leaky["r2_se"], honest["r2_se"]), n=runs)
        )


def _source(plan: Plan) -> Source | None:
    """The simulator behind the recording; None for one from elsewhere."""
    simulation = plan.simulation
    if simulation is None:
        return None
    runs = build_runs(simulation, jax.random.key(plan.seed))

    def of_run(trial: int) -> SteppedSimulator | ODESimulator:
        one = runs.of(np.array([trial])).simulators
        return jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, one) if runs.per_trial else one

    each = plan.config.windows.frame(simulation.record_every_ms)
    return Source(of_run(0), of_run, runs.per_trial, runs.dt, runs.solver, simulation.record_every_ms * each)


def _analyse(plan: Plan, study: Study) -> tuple[dict[str, Any], dict[str, xr.Dataset]]:
    """Run the analyses; their numbers and arrays by their names. One that fails costs its own section alone."""
    numbers, arrays = {}, {}
    for analysis in plan.config.evaluate.analyses:
        study.tell(analysis.name.replace("_", " "))
        try:
            found = analysis.compute(study)
            arrays[analysis.key] = xr.Dataset(found.arrays)
            numbers[analysis.key] = found.numbers
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            study.tell(f"{analysis.name} failed: {said}")
            arrays[analysis.key], numbers[analysis.key] = xr.Dataset(), {"failed": said}
    return numbers, arrays


def _describe(store: Path, discard_ms: float, recording: Recording) -> dict[str, Any]:
    """What the recording is like: rates, irregularity, voltages."""
    runs, _, neurons = next(iter(recording.values.values())).shape
    duration = recording.frames * recording.dt
    found: dict[str, Any] = {"runs": runs, "duration_ms": duration, "neurons": neurons}
    if "v" in recording.values:
        values = recording.values["v"][:, round(discard_ms / recording.dt) :]
        found |= {
            "v_mean": float(values.mean(dtype=np.float64)),
            # One trial at a time: the whole in double precision would be in memory twice.
            "v_sd": float(np.sqrt(np.mean([v.var(dtype=np.float64) for v in values]))),
            "v_min": float(values.min()),
            "v_max": float(values.max()),
        }
    data = open_recording(store)
    if "population" not in data or not has_events(store):
        return found
    time, trial, neuron = read_events(store)
    seconds = duration * 1e-3 * runs
    found["rate_hz"] = len(time) / neurons / seconds
    for name, mask in populations_of(data).items():
        if mask.any():
            found[f"rate_{name[0]}_hz"] = float(np.sum(mask[neuron]) / mask.sum() / seconds)
    return found | {"isi_cv": isi_cv(time, trial, neuron)}


def _ceiling(plan: Plan, store: Path, windows: Windows) -> dict[str, Any] | None:
    """The noise ceiling on the test runs; None for a recording without a noisy simulator behind it."""
    wanted, config, simulation = plan.config.evaluate.ceiling, plan.config.windows, plan.simulation
    if wanted is None or simulation is None or simulation.deterministic:
        return None
    key = jax.random.key(plan.seed)
    trials = windows.trials("test")
    runs = build_runs(simulation, key).of(trials)
    # A snapshot is the end of a window if the window before it, and the farthest target after it, lie in the run.
    each = round(simulation.snapshot_every_ms / windows.dt)
    discard = round(config.discard_ms / windows.dt)
    last = each * np.arange(1, round(simulation.duration_ms / simulation.snapshot_every_ms) + 1) - 1 - discard
    usable = np.flatnonzero((last >= windows.length - 1) & (last + windows.horizons[-1] < windows.frames_per_trial))
    if not len(usable):
        return None
    usable = usable[np.unique(np.linspace(0, len(usable) - 1, wanted.max_states).round().astype(int))]
    like = initial_states(runs)
    states: PyTree = jax.tree.map(lambda s: jnp.asarray(s[trials][:, usable]), read_state(store, like, slice(None)))
    mean, variance = simulate_futures(
        runs.simulators,  # pyright: ignore
        states,
        runs.stimulus,
        per_trial=runs.per_trial,
        stimuli=runs.stimuli,
        variable=config.targets[0],
        horizons=windows.horizons,
        record_every=simulation.record_every_ms * config.frame(simulation.record_every_ms),
        futures=wanted.futures,
        key=stream(key, "ceiling"),
    )
    starts = (trials[:, None] * windows.frames_per_trial + last[usable] - windows.length + 1).reshape(-1)
    shape, scaling = (len(starts), len(windows.horizons), windows.outputs), windows.target_scaling
    mean = np.asarray(scaling.apply(mean)).reshape(shape)
    variance = (np.asarray(variance) / np.asarray(scaling.scale) ** 2).reshape(shape)
    return ceiling_scores(targets(windows, starts), mean, variance, wanted.futures)


def _windows(windows: Windows, config: Any) -> dict[str, Any]:
    """What was learned from and what was scored."""
    return {
        "length": windows.length,
        "stride": round(config.stride_ms / windows.dt),
        "dt": windows.dt,
        "horizons_ms": [h * windows.dt for h in windows.horizons],
        "counts": {name: windows.count(name) for name in SPLITS},
        "runs": {name: windows.trials(name).tolist() for name in SPLITS},
        "split": config.split,
    }


def _predictions(
    plan: Plan,
    windows: Windows,
    predictors: Mapping[str, Any],
    predictions: Mapping[str, np.ndarray],
    unit: str,
) -> dict[str, xr.Dataset]:
    """The models' forecasts of the test windows, and everybody's of one stretch, sample by sample [`unit`]."""
    scaling = windows.target_scaling
    invert = lambda z: np.asarray(scaling.invert(jnp.asarray(z)), np.float32)  # noqa: E731
    dims, horizons = ("window", "horizon", "neuron"), ("horizon", [h * windows.dt for h in windows.horizons])
    offset = plan.config.windows.discard_ms + windows.dt * (windows.length + windows.horizons[0])
    stretch = _stretch(plan.config.evaluate.trace_ms, windows)
    whole = np.asarray(windows.starts["test"]), predictions
    trace = stretch, {name: forecast(p, windows, stretch) for name, p in predictors.items()}
    found = {}
    for group, (first, made) in {"test": whole, "trace": trace}.items():
        arrays = {"target": targets(windows, first)} | {f"prediction.{name}": p for name, p in made.items()}
        coords = {
            "horizon": horizons,
            "run": ("window", first // windows.frames_per_trial),
            "time": ("window", first % windows.frames_per_trial * windows.dt + offset),
        }
        about = {"units": unit, "time": "of the target at the nearest horizon [ms]"}
        found[group] = xr.Dataset({name: (dims, invert(z)) for name, z in arrays.items()}, coords, about)
    return found


def _stretch(trace_ms: float, windows: Windows) -> np.ndarray:
    """First frames of consecutive windows in the first test run."""
    trial = int(windows.trials("test")[0])
    reach = windows.length + windows.horizons[-1]
    count = min(round(trace_ms / windows.dt), windows.frames_per_trial - reach + 1)
    return trial * windows.frames_per_trial + np.arange(count)
