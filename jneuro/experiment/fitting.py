"""A fit from its configuration to its report: simulate or read, fit, compare, predict what was held out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jneuro.core.config import ConfigError
from jneuro.core.devices import double_precision
from jneuro.core.progress import Progress
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Key
from jneuro.evaluation.metrics import spike_scores
from jneuro.evaluation.recording_scores import recording_scores
from jneuro.experiment.fit_pieces import Pieces
from jneuro.experiment.fit_plan import FitPlan
from jneuro.experiment.fit_uncertainty import uncertainties
from jneuro.experiment.folder import RunFolder, wanted
from jneuro.experiment.network_fitting import fit_network
from jneuro.experiment.simulation import simulate_stage
from jneuro.fitting.config import chosen
from jneuro.fitting.data import Target
from jneuro.fitting.fitter import Fit, fit, predict, predict_spikes
from jneuro.fitting.keeping import named
from jneuro.fitting.kinds import METHODS, made
from jneuro.fitting.solution import random_starts
from jneuro.fitting.uncertainty import intervals
from jneuro.recordings import Recording
from jneuro.recordings.readers import read
from jneuro.spikes.detection import Detector

__all__ = ["fit_stages"]

_MATCH_MS = 4.0
"""How near a predicted spike must be to a recorded one [ms]."""
_PEAK_MV = 30.0
"""The potential that is shown of a stepped simulator's spikes [mV]."""
_TIMED = 3
"""Of the baselines, so many repeats are fitted; the first pays for compilation."""


def fit_stages(plan: FitPlan, folder: RunFolder, progress: Progress) -> Path:
    """Run what is not done: simulate, fit, report.

    Args:
        plan: the fit.
        folder: of the run.
        progress: hears how it goes on.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: if the recording cannot be fitted.
    """
    with folder.lock():
        stage: Any = plan.stages.get("simulate")
        simulation, path = plan.simulation, plan.recording(folder)
        if simulation and wanted(stage, folder, progress, "simulated") and not folder.reuse(stage):
            double = jax.enable_x64(not plan.config.of_network)
            with double, folder.stage(stage), progress.begin("simulate", unit="s") as task:
                simulate_stage(simulation, plan.seed, path, lambda *ms: task.update(*(1e-3 * t for t in ms)))
        if wanted(plan.stages["fit"], folder, progress, "fitted"):
            pieces = Pieces(folder.path / "pieces")
            with folder.stage(plan.stages["fit"]):
                if plan.config.of_network:
                    with progress.begin("network") as task:
                        fit_network(plan, folder, lambda text: task.update(text=text))
                else:
                    _fit_all(plan, folder, progress, pieces)
                pieces.clear()
        with folder.stage(plan.stages["report"]), progress.begin("report"):
            return _report(folder)


class _Data(NamedTuple):
    """The trials that are fitted, and those that are predicted; None if there are none."""

    train: Target
    held_out: Target | None
    every: Target


def _load(plan: FitPlan, folder: RunFolder) -> Recording:
    """The recording, without noise if it is a simulation, cut and thinned to what is wanted."""
    config = plan.config
    path = plan.recording(folder)
    recording = config.recording.read() if config.recording else read(path)
    every = round((config.sample_ms or recording.dt) / recording.dt)
    if config.sample_ms is not None and abs(every * recording.dt - config.sample_ms) > 1e-6:
        raise ConfigError(f"sample_ms = {config.sample_ms} must be a multiple of {recording.dt:g} ms, as {path} has it")
    first, last = (round(ms / recording.dt) for ms in config.cut_ms or (0.0, recording.frames * recording.dt))
    if last > recording.frames:
        raise ConfigError(f"cut_ms: the recording ends at {recording.frames * recording.dt:g} ms")
    values = {name: x[:, first:last:every] for name, x in recording.values.items()}
    step, frames = recording.step * every, len(range(first, last, every))
    return dataclasses.replace(recording, values=values, step=step, frames=frames)


def _data(plan: FitPlan, folder: RunFolder, recording: Recording, key: Key[Array, ""]) -> _Data:
    """The target, with new noise for a simulation."""
    config = plan.config
    if config.simulation is not None:
        noise = jax.random.normal(stream(key, "noise"), recording.values["v"].shape, float)
        v = np.asarray(recording.values["v"], np.float64) + config.noise_mv * np.asarray(noise)
        recording = dataclasses.replace(recording, values={**recording.values, "v": v})
    try:
        target = Target.of(recording, noise_sd=config.fit.noise_mv)
        train, held_out = (chosen(trials, target.trials) for trials in (config.train, config.held_out))
    except ValueError as error:
        raise ConfigError(f"{plan.recording(folder)}: {error}") from error
    if not train:
        raise ConfigError("train: names no trial")
    return _Data(target.of_trials(train), target.of_trials(held_out) if held_out else None, target)


def _fit_all(plan: FitPlan, folder: RunFolder, progress: Progress, pieces: Pieces) -> None:
    """Fit, as often as is asked; then the baselines; write metrics.json and fit.zarr."""
    config = plan.config
    method: Any = config.fit.method
    recording, keys = _load(plan, folder), trial_keys(jax.random.key(config.seed), config.repeats)

    def repeat(way: Any, count: int, own: bool, title: str, prefix: str) -> list[Fit]:
        found = []
        with progress.begin(title, 1.0) as task:
            for r, key in enumerate(keys[:count]):
                name = f"fit {r + 1} of {count}"
                part = task.part(name, r / count, (r + 1) / count)
                how = {"progress": part, "keep": named(pieces.keep, prefix + name)}
                found.append(_fit(plan, _data(plan, folder, recording, key).train, way, key, own, how))
        return found

    with double_precision():
        many = f", {config.repeats} times" if config.repeats > 1 else ""
        fits = repeat(method, len(keys), True, f"fit: {_label(method)}{many}", "")
        count = min(config.repeats, _TIMED)
        baselines = [
            repeat(other, count, False, f"baseline: {_label(other)}", f"baseline {i + 1}, ")
            for i, other in enumerate(config.fit.baselines)
        ]
        first, data = fits[0], _data(plan, folder, recording, keys[0])
        certain = intervals(first.problem, first.q, first.solution.covariance) if np.isfinite(first.data_cost) else None
        metrics = {
            "fit": _about(first, method, fits),
            "parameters": _parameters(plan, first, certain),
            "identifiability": certain.table() if certain else [],
            "baselines": [_about(b[0], m, b) for m, b in zip(config.fit.baselines, baselines, strict=True)],
            "recording": {"trials": data.train.trials, "duration_ms": data.train.duration, "dt_ms": data.train.dt},
            "noise_mv": float(data.train.noise_sd),
        }
        if config.repeats > 1:
            metrics["repeats"] = _repeats(plan, fits)
        arrays = _arrays(plan, first, data.train, [b[0] for b in baselines])
        further = uncertainties(first, config.fit.uncertainty, plan.truth or {}, keys[0], progress, pieces.keep)
        metrics, arrays = metrics | further[0], arrays | further[1]
        if data.held_out is not None:
            predicted = np.array(predict(first.simulator, data.held_out, **_how(plan)))
            spikes = config.fit.spikes.fixed(np.asarray(data.every.v), data.every.dt)
            crossed: dict[str, Any] = {"threshold": float(spikes.threshold_mv), "fall": spikes.return_mv}
            times = predict_spikes(first.simulator, data.held_out, **_how(plan), **crossed)
            if first.simulator.has_reset:  # whose potential is already reset where it spikes
                for row, t in zip(predicted, times, strict=True):
                    row[np.floor(t / data.held_out.dt + 1).astype(int)] = _PEAK_MV
            metrics["held_out"] = _held_out(spikes, data.held_out, predicted, crossed)
            metrics["steps"] = _steps(plan, data.every, predicted, times)
            arrays |= {
                "held_out_v": (("held_out", "time"), np.asarray(data.held_out.v)),
                "held_out_prediction": (("held_out", "time"), predicted),
            }
    folder.save("fit.zarr", xr.Dataset(arrays))
    folder.save("metrics.json", metrics)


def _how(plan: FitPlan) -> dict[str, Any]:
    """How trials are predicted: as they were fitted."""
    fit = plan.config.fit
    return {"dt": fit.dt_ms, "solver": fit.solver, "gradient": fit.gradient, "own_start": not fit.free_start}


def _steps(plan: FitPlan, every: Target, predicted: np.ndarray, times: list[np.ndarray]) -> dict[str, Any] | None:
    """Scores of the held-out trials step by step, where the current goes in steps."""
    scores = recording_scores(
        np.asarray(every.v),
        np.asarray(every.current),
        every.dt,
        held_out=chosen(plan.config.held_out, every.trials),
        predicted_v=predicted,
        predicted_times=times,
        detector=plan.config.fit.spikes,
    )
    return scores and {**scores, "current_unit": every.current_unit}


def _fit(plan: FitPlan, target: Target, method: Any, key: Key[Array, ""], own: bool, how: Mapping[str, Any]) -> Fit:
    """One fit, of repeats from a simulator of its own."""
    config, trainable = plan.config, plan.trainable
    simulator: Any = plan.simulator
    if own and config.repeats > 1:
        spread = getattr(made(METHODS, method), "spread", 2.0)
        drawn = random_starts(trainable, trainable.values(simulator), 1, spread=spread, key=stream(key, "simulator"))
        simulator = trainable.insert(simulator, trainable.constrain(drawn[0]))
    options = config.fit.model_copy(update={"method": method})
    try:
        return fit(simulator, target, trainable, key=key, options=options, **how)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"fit: {error}") from error


def _label(method: Any) -> str:
    """A method's name, and where it starts if the name does not say so."""
    return "least_squares, random starts" if getattr(method, "first", "") == "random" else method.name


def _about(first: Fit, method: Any, fits: list[Fit]) -> dict[str, Any]:
    """What a method did: of the first fit the result, of all the median of simulations and, once compiled, seconds."""
    warm = fits[1:] or fits
    return {
        "method": _label(method),
        "ok": first.ok,
        "reason": first.reason,
        "data_cost": first.data_cost,
        "starts": len(first.solution.cost),
        "agreeing": first.agreeing,
        "simulations": float(np.median([f.simulations for f in fits])),
        "seconds": float(np.median([f.seconds for f in warm])),
        "compiled": len(fits) > 1,
        "first_seconds": first.seconds,
        "accepted": sum(f.ok for f in fits),
        "fits": len(fits),
        "values": dict(zip(first.names, map(float, first.values), strict=True)),
    }


def _parameters(plan: FitPlan, found: Fit, certain: Any) -> dict[str, dict[str, Any]]:
    """Every fitted value with its interval, and the truth where it is known."""
    truth = plan.truth or {}
    errors = certain.standard_errors if certain else np.full(len(found.names), np.nan)
    return {
        name: {"value": float(value), "se": float(error), "truth": truth.get(name)}
        for name, value, error in zip(found.names, found.values, errors, strict=True)
    }


def _repeats(plan: FitPlan, fits: list[Fit]) -> dict[str, Any]:
    """How good all fits are, beside the Cramér–Rao bound at the truth."""
    truth = plan.truth
    found: dict[str, Any] = {
        "fits": len(fits),
        "ok": sum(f.ok for f in fits),
        "simulations_max": max(f.simulations for f in fits),
    }
    found["seconds_max"] = max(f.seconds for f in fits[1:])
    if truth is None:
        return found
    true = np.asarray([*truth.values()])
    errors = np.stack([np.asarray(f.values)[: len(true)] for f in fits]) / true - 1
    problem = fits[0].problem
    # At the true parameters, with the fitted start states.
    at = jnp.concatenate([problem.trainable.unconstrain(jnp.asarray(true)), fits[0].q[len(true) :]])
    bound = np.asarray(intervals(problem, at).standard_errors)[: len(true)] / np.abs(true)
    good = [f.ok for f in fits]
    rms = np.sqrt(np.mean(np.square(errors[good]), 0)) if any(good) else np.full(len(true), np.nan)
    worst = np.abs(errors[good]).max(0) if any(good) else rms
    return found | {
        "within_1_percent": int(np.sum(np.all(np.abs(errors) <= 0.01, 1))),
        "wrong_but_accepted": int(np.sum(np.any(np.abs(errors) > 0.05, 1) & np.asarray(good))),
        "parameters": {
            name: {
                "rms_percent": 100 * r,
                "median_percent": 100 * m,
                "worst_percent": 100 * w,
                "bound_percent": 100 * b,
            }
            for name, r, m, w, b in zip(truth, rms, np.median(np.abs(errors), 0), worst, bound, strict=True)
        },
        "errors_percent": (100 * errors).tolist(),
    }


def _held_out(spikes: Detector, target: Target, predicted: np.ndarray, crossed: Mapping[str, float]) -> dict[str, Any]:
    """How well the trials are predicted that were not fitted; no score of spikes that are in doubt."""
    trials, v = [], np.asarray(target.v)
    for true, model, doubt in zip(v, predicted, spikes(v, target.dt).doubts, strict=True):
        scores = spike_scores(true[None], model[None], target.dt, tolerance=_MATCH_MS, **crossed)
        scores = dict.fromkeys(scores, np.nan) if doubt else scores
        trials.append({"rmse_mv": float(np.sqrt(np.mean(np.square(true - model)))), **scores})
    return {"tolerance_ms": _MATCH_MS, "rmse_mv": float(np.mean([t["rmse_mv"] for t in trials])), "trials": trials}


def _arrays(plan: FitPlan, found: Fit, target: Target, baselines: list[Fit]) -> dict[str, Any]:
    """The content of fit.zarr."""
    before = predict(found.problem.simulator, target, **_how(plan))
    arrays = {
        "time": (("time",), target.time),
        "v": (("trial", "time"), np.asarray(target.v)),
        "current": (("trial", "time"), np.asarray(target.current)),
        "before": (("trial", "time"), np.asarray(before)),
        "prediction": (("trial", "time"), np.asarray(found.prediction)),
    }
    for i, one in enumerate([found, *baselines]):
        name = f"baseline_{i - 1}" if i else "fit"
        solution = one.solution
        arrays[f"{name}_cost"] = ((f"{name}_start",), np.asarray(solution.cost))
        arrays[f"{name}_history"] = ((f"{name}_start", f"{name}_iteration"), np.asarray(solution.history))
        values = jax.vmap(one.problem.values)(solution.q)
        arrays[f"{name}_values"] = ((f"{name}_start", "unknown"), np.asarray(values))
    return arrays


def _report(folder: RunFolder) -> Path:
    """Write the report and its figures from what is in the folder."""
    from jneuro.report.fit_section import write_fit_report  # with Matplotlib

    stored = folder.load("fit.zarr", xr.Dataset)
    arrays = {str(name): stored[name].values for name in stored.variables}
    info = folder.info
    run = {k: info.get(k) for k in ("name", "hash", "versions", "device", "started", "git_commit", "command")}
    run |= {
        "jneuro_version": info["versions"]["jneuro"],
        "seconds": {name: stage["seconds"] for name, stage in info["stages"].items()},
    }
    yaml = (folder.path / "config.yaml").read_text()
    return write_fit_report(folder.path, run, yaml, folder.load("metrics.json"), arrays)
