"""A fit from its configuration to its report: simulate or read, fit, compare, predict what was held out."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jneuro.core.config import ConfigError
from jneuro.core.devices import double_precision
from jneuro.core.files import remove, written
from jneuro.core.guard import check_archive, parse_json
from jneuro.core.progress import Progress
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Key
from jneuro.evaluation.metrics import spike_scores
from jneuro.evaluation.recording_scores import recording_scores
from jneuro.experiment.fit_plan import FitPlan
from jneuro.experiment.folder import RunFolder, maker, wanted
from jneuro.experiment.simulation import simulate_stage
from jneuro.fitting.choices import Choice, choose, cut
from jneuro.fitting.config import chosen, split
from jneuro.fitting.fitter import Fit, fit, predict
from jneuro.fitting.kinds import METHODS, made
from jneuro.fitting.methods.network import NetworkProblem, Runs, simulate_runs
from jneuro.fitting.parameters import Trainable, random_starts
from jneuro.fitting.posterior import Posterior, posterior
from jneuro.fitting.problem import Trials
from jneuro.fitting.solution import named, probability
from jneuro.fitting.uncertainty import Intervals, intervals, profile
from jneuro.recordings import Recording
from jneuro.recordings.readers import read
from jneuro.recordings.store import read_recording
from jneuro.spikes.distances import match_spikes

__all__ = ["Pieces", "fit_stages"]

_MATCH_MS = 4.0
"""How near a predicted spike must be to a recorded one [ms]."""
_PEAK_MV = 30.0
"""The potential that is shown of a stepped simulator's spikes [mV]."""
_TIMED = 3
"""Of the baselines, so many repeats are fitted; the first pays for compilation."""

_Piece = TypeVar("_Piece", bound=tuple)
Numbers = dict[str, Any]


class Pieces:
    """Keeps what is finished of a fit, so that it is not done again after a kill: a start, a fit, some draws.

    A piece is one file, there whole or not at all. Its folder belongs to one configuration, and so do its names.
    """

    def __init__(self, path: Path) -> None:
        """Keep pieces in a folder, which is made when there is one."""
        self._path, self._begun, self._first = path, set(), set()

    def compiled_for(self, name: str) -> bool:
        """Whether a fit was the first of its method in its process, which compiled for the others."""
        return any(piece.startswith(name) for piece in self._first)

    def keep(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Read a piece that is there, or make it and write it."""
        file = self._path / f"{re.sub(r'[^a-z0-9]+', '-', name)}.npz"
        # What is damaged, which NumPy and zipfile say in many ways, is made again, as what is missing.
        with contextlib.suppress(Exception):
            check_archive(file)
            with file.open("rb") as raw, np.load(raw) as stored:
                plain = parse_json(str(stored["plain"]))
                if plain.pop("piece") != name:
                    raise ValueError("another piece")
                self._first |= {name} if plain.pop("first") else set()
                return kind(**plain, **{k: jnp.asarray(stored[k]) for k in stored.files if k != "plain"})
        method = name.partition("fit ")[0]
        first = method not in self._begun
        self._begun.add(method)
        self._first |= {name} if first else set()
        piece = make()
        fields = piece._asdict()  # pyright: ignore
        # Arrays as they are; numbers, strings and what is missing as JSON.
        arrays = {k: np.asarray(v) for k, v in fields.items() if isinstance(v, jax.Array | np.ndarray)}
        plain = json.dumps({"piece": name, "first": first} | {k: v for k, v in fields.items() if k not in arrays})
        with written(file) as fresh, fresh.open("wb") as out:
            np.savez(out, plain=np.asarray(plain), **arrays)  # pyright: ignore
        return piece

    def clear(self) -> None:
        """Remove all, once the whole is written."""
        remove(self._path)


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
        folder.note_makers(plan.stages.values(), progress)
        stage: Any = plan.stages.get("simulate")
        simulation, path = plan.simulation, plan.recording(folder)
        if simulation and wanted(stage, folder, progress, "simulated") and not folder.reuse(stage):
            double = jax.enable_x64(not plan.config.of_network)
            with double, folder.stage(stage, mends=True), progress.begin("simulate", unit="s") as task:
                simulate_stage(simulation, plan.seed, path, lambda *ms: task.update(*(1e-3 * t for t in ms)))
        if wanted(plan.stages["fit"], folder, progress, "fitted"):
            pieces = Pieces(folder.path / "pieces")
            precision = contextlib.nullcontext() if plan.config.of_network else double_precision()
            with folder.stage(plan.stages["fit"]), precision:
                metrics, arrays = _fitted(plan, folder, progress, pieces)
                folder.save("fit.zarr", _with_units(arrays, metrics))
                folder.save("metrics.json", metrics)
                pieces.clear()
        with folder.stage(plan.stages["report"]), progress.begin("report"):
            return _report(folder)


def _with_units(arrays: Numbers, metrics: Numbers) -> xr.Dataset:
    """The arrays with the units of those whose unit does not depend on a parameter."""
    data = xr.Dataset(arrays)
    units = dict.fromkeys(("v", "before", "prediction", "held_out_v", "held_out_prediction"), "mV") | {"time": "ms"}
    if steps := metrics.get("steps"):
        units["current"] = steps["current_unit"]
    for name in units.keys() & data.variables.keys():
        data[name].attrs["units"] = units[name]
    return data


# What is fitted ------------------------------------------------------------------------------------------------------


class _Case(NamedTuple):
    """One fit of those that are asked for.

    Attributes:
        simulator: what is fitted.
        target: to what.
        key: of the fit.
        truth: the values to be found, where they are known.
    """

    simulator: Any
    target: Any
    key: Key[Array, ""]
    truth: Mapping[str, float] | None


def _read(plan: FitPlan, folder: RunFolder, progress: Progress) -> tuple[FitPlan, Recording, list[Choice]]:
    """The recording, without noise if it is a simulation, cut and thinned; and the plan for it, and what was chosen."""
    config, path = plan.config, plan.recording(folder)
    network = config.of_network
    if config.recording and not (network and config.recording.is_store):
        recording = config.recording.read()
    else:
        recording = read_recording(path, ("spikes",)) if network else read(path)
    try:
        if network:
            return plan, cut(recording, config), []
        found = choose(config, plan.simulator, recording)
        trainable = Trainable.of(found.simulator, found.config.fit.trainable)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    for choice in found.choices:
        progress.note(f"{choice.key}: {choice.value} ({choice.why})")
    plan = dataclasses.replace(plan, config=found.config, simulator=found.simulator, trainable=trainable)
    return plan, found.recording, found.choices


def _trials(plan: FitPlan, folder: RunFolder, recording: Recording, key: Key[Array, ""]) -> Trials:
    """All trials, with new noise for a simulation."""
    config = plan.config
    if config.simulation is not None:
        noise = jax.random.normal(stream(key, "noise"), recording.values["v"].shape, float)
        v = np.asarray(recording.values["v"], np.float64) + config.noise_mv * np.asarray(noise)
        recording = dataclasses.replace(recording, values={**recording.values, "v": v})
    try:
        every = Trials.of(recording, noise_sd=config.fit.noise_mv)
        split(config.train, config.held_out, every.trials)
    except ValueError as error:
        raise ConfigError(f"{plan.recording(folder)}: {error}") from error
    return every


def _runs(plan: FitPlan, folder: RunFolder, recording: Recording) -> list[_Case]:
    """The recorded runs of a network, and simulated ones, as many and as long, at other truths."""
    config, trainable, key = plan.config, plan.trainable, jax.random.key(plan.seed)
    method: Any = config.fit.method
    objectives = plan.objectives
    spikes: Any = recording.values["spikes"]
    try:
        spikes = np.asarray(spikes)[chosen(config.train, len(spikes))]
        first = dataclasses.replace(recording, values={"spikes": spikes})
        problem = NetworkProblem.of(plan.simulator, first, trainable, objectives)  # pyright: ignore
    except ValueError as error:
        raise ConfigError(f"{plan.recording(folder)}: {error}") from error
    targets: list[tuple[Mapping[str, float] | None, Runs]] = [(plan.truth, problem.target)]
    for i, truth in enumerate(config.truths):
        made_of: Any = config.simulation and config.simulation.simulator.build()
        like = dataclasses.replace(problem, simulator=made_of)  # one program for all
        values = jnp.asarray([truth[name] for name in trainable.names])
        every = np.tile(np.asarray(trainable.unconstrain(values)), (len(problem.target.features), 1))
        keys = trial_keys(stream(key, f"truth {i}"), len(every))
        warmup = config.part[0] if config.part else 0.0
        features = simulate_runs(like, every, keys, warmup, method.batch)
        targets.append((truth, problem.target._replace(features=features)))
    return [_Case(plan.simulator, t, stream(key, f"fit {i}"), truth) for i, (truth, t) in enumerate(targets)]


def _repeats(plan: FitPlan, folder: RunFolder, recording: Recording, method: Any, own: bool) -> list[_Case]:
    """The fitted trials of a cell, again with new noise; of repeats, from a simulator of their own."""
    config, trainable = plan.config, plan.trainable
    cases, spread = [], getattr(made(METHODS, method), "spread", 2.0)
    for key in trial_keys(jax.random.key(config.seed), config.repeats):
        simulator: Any = plan.simulator
        every = _trials(plan, folder, recording, key)
        if own and config.repeats > 1:
            values = trainable.values(simulator)
            drawn = random_starts(trainable, values, 1, spread=spread, key=stream(key, "simulator"))
            simulator = trainable.insert(simulator, trainable.constrain(drawn[0]))
        cases.append(_Case(simulator, every.of_trials(chosen(config.train, every.trials)), key, plan.truth))
    return cases


# The stage -----------------------------------------------------------------------------------------------------------


def _fitted(plan: FitPlan, folder: RunFolder, progress: Progress, pieces: Pieces) -> tuple[Numbers, Numbers]:
    """Fit, as often as is asked; then the baselines: metrics.json and fit.zarr."""
    plan, recording, choices = _read(plan, folder, progress)
    config, network, method = plan.config, plan.config.of_network, plan.config.fit.method

    def fits_of(way: Any, cases: list[_Case], title: str, prefix: str) -> tuple[list[Fit], list[float]]:
        """The fits, and the seconds of those for which nothing was compiled."""
        options, found, seconds = config.fit.model_copy(update={"method": way}), [], []
        with progress.begin(title, 1.0) as task:
            for i, case in enumerate(cases):
                name = f"fit {i + 1} of {len(cases)}"
                part = task.part(name, i / len(cases), (i + 1) / len(cases))
                how = {"key": case.key, "progress": part, "keep": named(pieces.keep, prefix + name)}
                try:
                    found.append(fit(case.simulator, case.target, plan.trainable, options=options, **how))
                except (ValueError, ImportError) as error:
                    raise ConfigError(f"fit: {error}") from error
                seconds += [] if pieces.compiled_for(prefix + name) else [found[-1].seconds]
        return found, seconds

    cases = _runs(plan, folder, recording) if network else _repeats(plan, folder, recording, method, own=True)
    many = f", {len(cases)} times" if len(cases) > 1 else ""
    fits, seconds = fits_of(method, cases, f"fit: {_label(method)}{many}", "")
    baselines = []
    for i, other in enumerate(config.fit.baselines):
        again = _repeats(plan, folder, recording, other, own=False)[: min(config.repeats, _TIMED)]
        baselines.append(fits_of(other, again, f"baseline: {_label(other)}", f"baseline {i + 1}, "))
    first, target = fits[0], cases[0].target
    certain = [
        intervals(f.problem, jnp.asarray(f.q), f.solution.covariance) if np.isfinite(f.data_cost) else None
        for f in (fits if network else fits[:1])
    ]
    metrics: Numbers = {
        "fit": _about(method, fits, seconds),
        "parameters": _parameters(cases[0].truth, first, certain[0]),
        "identifiability": certain[0].table() if certain[0] else [],
        "baselines": [_about(m, *b) for m, b in zip(config.fit.baselines, baselines, strict=True)],
        "recording": {"duration_ms": target.duration, "dt_ms": target.dt},
        "choices": [choice._asdict() for choice in choices],
    }
    arrays = _starts([first, *(b[0] for b, _ in baselines)])
    if network:
        metrics["recording"]["trials"] = len(target.features)
        metrics["network"], more = _network(cases, fits, certain)
        return metrics, arrays | more
    metrics["recording"]["trials"], metrics["noise_mv"] = target.trials, float(target.noise_sd)
    if config.repeats > 1:
        metrics["repeats"] = _errors(plan, fits, seconds)
    before = predict(first.problem.simulator, target, **_how(plan))
    arrays |= {
        "time": (("time",), target.time),
        "v": (("trial", "time"), np.asarray(target.v)),
        "current": (("trial", "time"), np.asarray(target.current)),
        "before": (("trial", "time"), np.asarray(before.v)),
        "prediction": (("trial", "time"), np.asarray(first.prediction)),
    }
    every = _trials(plan, folder, recording, cases[0].key)
    for more in (_uncertainties(plan, first, cases[0].key, progress, pieces), _predicted(plan, first, every)):
        metrics, arrays = metrics | more[0], arrays | more[1]
    return metrics, arrays


def _how(plan: FitPlan) -> Numbers:
    """How trials are predicted: as they were fitted."""
    fit = plan.config.fit
    return {"dt": fit.dt_ms, "solver": fit.solver, "gradient": fit.gradient, "own_start": not fit.free_start}


def _label(method: Any) -> str:
    """A method's name, and where it starts if the name does not say so."""
    return "least_squares, random starts" if getattr(method, "first", "") == "random" else method.name


def _about(method: Any, fits: list[Fit], seconds: list[float]) -> Numbers:
    """What a method did: of the first fit the result, of all the median of simulations and, once compiled, seconds."""
    first = fits[0]
    return {
        "method": _label(method),
        "ok": first.ok,
        "reason": first.reason,
        "data_cost": first.data_cost,
        "starts": len(first.solution.cost),
        "agreeing": first.agreeing,
        "simulations": float(np.median([f.simulations for f in fits])),
        "seconds": float(np.median(seconds or [f.seconds for f in fits])),
        "compiled": bool(seconds),
        "first_seconds": first.seconds,
        "accepted": sum(f.ok for f in fits),
        "fits": len(fits),
        "values": dict(zip(first.names, map(float, first.values), strict=True)),
    }


def _parameters(truth: Mapping[str, float] | None, found: Fit, certain: Intervals | None) -> dict[str, Numbers]:
    """Every fitted value with its interval, and the truth where it is known."""
    errors = certain.standard_errors if certain else np.full(len(found.names), np.nan)
    return {
        name: {"value": float(value), "se": float(error), "truth": (truth or {}).get(name)}
        for name, value, error in zip(found.names, found.values, errors, strict=True)
    }


def _starts(fits: list[Fit]) -> Numbers:
    """Cost, history and values of every start of every method."""
    arrays = {}
    for i, one in enumerate(fits):
        name, solution = f"baseline_{i - 1}" if i else "fit", one.solution
        arrays[f"{name}_cost"] = ((f"{name}_start",), np.asarray(solution.cost))
        arrays[f"{name}_history"] = ((f"{name}_start", f"{name}_iteration"), np.asarray(solution.history))
        arrays[f"{name}_values"] = ((f"{name}_start", "unknown"), np.asarray(jax.vmap(one.problem.values)(solution.q)))
    return arrays


def _errors(plan: FitPlan, fits: list[Fit], seconds: list[float]) -> Numbers:
    """How good all repeats are, beside the Cramér–Rao bound at the truth."""
    truth = plan.truth
    found: Numbers = {
        "fits": len(fits),
        "ok": sum(f.ok for f in fits),
        "simulations_max": max(f.simulations for f in fits),
        "seconds_max": max(seconds or [f.seconds for f in fits]),
    }
    if truth is None:
        return found
    true = np.asarray([*truth.values()])
    errors = np.stack([np.asarray(f.values)[: len(true)] for f in fits]) / true - 1
    problem: Any = fits[0].problem
    # At the true parameters, with the fitted start states.
    at = jnp.concatenate([problem.trainable.unconstrain(jnp.asarray(true)), fits[0].q[len(true) :]])
    bound = np.asarray(intervals(problem, at).standard_errors)[: len(true)] / np.abs(true)
    good = [f.ok for f in fits]
    rms = np.sqrt(np.mean(np.square(errors[good]), 0)) if any(good) else np.full(len(true), np.nan)
    worst = np.abs(errors[good]).max(0) if any(good) else rms
    columns = {"rms": rms, "median": np.median(np.abs(errors), 0), "worst": worst, "bound": bound}
    return found | {
        "within_1_percent": int(np.sum(np.all(np.abs(errors) <= 0.01, 1))),
        "wrong_but_accepted": int(np.sum(np.any(np.abs(errors) > 0.05, 1) & np.asarray(good))),
        "parameters": {
            name: {f"{column}_percent": 100 * float(x[i]) for column, x in columns.items()}
            for i, name in enumerate(truth)
        },
        "errors_percent": (100 * errors).tolist(),
    }


def _network(cases: list[_Case], fits: list[Fit], certain: list[Any]) -> tuple[Numbers, Numbers]:
    """What the network's runs look like, fitted and observed, and fits at other truths."""
    target, observed, fitted = cases[0].target, np.asarray(cases[0].target.features), np.asarray(fits[0].prediction)
    freedom = len(target.names) - len(fits[0].values)
    # Errors of all values in units of their standard errors, whose size is 1 if these are right.
    z = [
        (value - case.truth[name]) / error
        for case, one, sure in zip(cases, fits, certain, strict=True)
        if case.truth and sure
        for name, value, error in zip(one.names, one.values, sure.standard_errors, strict=True)
    ]
    points = [
        {
            "parameters": _parameters(case.truth, one, sure),
            "chi2": one.solution.chi2,
            "p_value": None if one.solution.chi2 is None else float(probability(one.solution.chi2, freedom)),
            "agreeing": one.agreeing,
            "ok": one.ok,
            "reason": one.reason,
            "simulated_s": 1e-3 * one.simulations * target.duration,
        }
        for case, one, sure in zip(cases, fits, certain, strict=True)
    ]
    metrics = {
        "features": list(target.names),
        "observed": observed.mean(0).tolist(),
        "standard_error": (observed.std(0, ddof=1) / len(observed) ** 0.5).tolist(),
        "fitted": fitted.mean(0).tolist(),
        "deviations": {"rms": float(np.sqrt(np.mean(np.square(z)))), "largest": float(np.abs(z).max())} if z else None,
        "degrees_of_freedom": freedom,
        "points": points,
    }
    return metrics, {"features": (("trial", "feature"), observed), "fitted_features": (("run", "feature"), fitted)}


def _predicted(plan: FitPlan, found: Fit, every: Trials) -> tuple[Numbers, Numbers]:
    """How well the trials are predicted that were not fitted; step by step too, where the current goes in steps."""
    numbers, asked = chosen(plan.config.held_out, every.trials), plan.config.held_out
    if not numbers and (plan.simulation is None or asked != "none"):
        why = f"held_out: {asked} names none of {every.trials} trial{'s' * (every.trials > 1)}"
        return {"not_held_out": why}, {}
    if not numbers:
        return {}, {}
    detector = plan.config.fit.spikes
    fixed = detector.fixed(np.asarray(every.v), every.dt)
    held_out = dataclasses.replace(every.of_trials(numbers), threshold=float(fixed.threshold_mv), fall=fixed.return_mv)
    simulator: Any = found.simulator
    seen = predict(simulator, held_out, **_how(plan))
    predicted, times = np.array(seen.v), seen.spike_times()
    if simulator.has_reset:  # whose potential is already reset where it spikes
        for row, spikes in zip(predicted, times, strict=True):
            row[np.floor(spikes / held_out.dt + 1).astype(int)] = _PEAK_MV
    v, detected = np.asarray(held_out.v), fixed(np.asarray(held_out.v), held_out.dt)
    named, trials = _named(plan, every.trials), []
    for i, number in enumerate(numbers):
        scores = spike_scores([match_spikes(detected.times[i], times[i], _MATCH_MS)])
        if detected.doubts[i]:  # no score of spikes that are in doubt
            scores = dict.fromkeys(scores, np.nan)
        rmse = float(np.sqrt(np.mean(np.square(v[i] - predicted[i]))))
        trials.append({"number": named[number], "rmse_mv": rmse, **scores})
    steps = recording_scores(
        np.asarray(every.v),
        np.asarray(every.current),
        every.dt,
        held_out=numbers,
        predicted_v=predicted,
        predicted_times=times,
        detector=fixed,
    )
    steps["trials"] = [named[t] for t in steps["trials"]]
    steps["doubts"] = {str(named[int(t)]): said for t, said in steps["doubts"].items()}
    rmse = float(np.mean([t["rmse_mv"] for t in trials]))
    metrics = {"held_out": {"tolerance_ms": _MATCH_MS, "rmse_mv": rmse, "trials": trials}}
    metrics |= {"steps": {**steps, "current_unit": every.units[1]}}
    both = {"held_out_v": v, "held_out_prediction": predicted}
    return metrics, {name: (("held_out", "time"), x) for name, x in both.items()}


def _named(plan: FitPlan, trials: int) -> list[int]:
    """What each trial is called: its sweep's number in the file, where each sweep is one trial."""
    sweeps = plan.config.recording.sweeps if plan.config.recording else None
    return list(sweeps) if sweeps and len(sweeps) == trials else [*range(trials)]


def _uncertainties(
    plan: FitPlan, found: Fit, key: Key[Array, ""], progress: Progress, pieces: Pieces
) -> tuple[Numbers, Numbers]:
    """Profiles and the posterior, as far as the configuration asks for them."""
    options, truth = plan.config.fit.uncertainty, plan.truth or {}
    metrics, arrays = {}, {}
    problem: Any = found.problem
    try:
        if options.profile:
            seen = []
            with progress.begin("profiles", len(options.profile), "parameters") as task:
                for i, name in enumerate(options.profile):
                    task.update(i, text=name)
                    seen.append(profile(problem, found.q, name, points=options.points))
            metrics["profiles"] = [
                {"name": p.name, "intervals": {k: list(v) for k, v in p.intervals.items()}, "truth": truth.get(p.name)}
                for p in seen
            ]
            for i, p in enumerate(seen):
                arrays[f"profile_{i}_value"] = ((f"profile_{i}",), p.value)
                arrays[f"profile_{i}_excess"] = ((f"profile_{i}",), p.excess)
        if options.posterior is not None:
            with progress.begin("uncertainty", 1.0) as task:
                how: Numbers = {"options": options.posterior, "progress": task, "keep": pieces.keep}
                drawn, ranks = posterior(problem, found.q, key=stream(key, "posterior"), **how)
            metrics["posterior"] = _summary(drawn) | {"truth": {name: truth.get(name) for name in drawn.names}}
            arrays["posterior"] = (("chain", "draw", "unknown"), drawn.draws)
            if ranks is not None:
                metrics["calibration"] = {
                    "data_sets": len(ranks.ranks),
                    "draws": ranks.draws,
                    "p_values": dict(zip(ranks.names, map(float, ranks.p_values), strict=True)),
                    "divergences": ranks.divergences,
                    "gradients": ranks.leapfrogs,
                }
                arrays["ranks"] = (("data_set", "unknown"), np.asarray(ranks.ranks))
    except ValueError as error:
        raise ConfigError(f"fit.uncertainty: {error}") from error
    return metrics, arrays


def _summary(drawn: Posterior) -> Numbers:
    """What is kept of a posterior beside its draws."""
    return {
        "values": drawn.table(),
        "ok": drawn.ok,
        "reason": drawn.reason,
        "divergences": drawn.divergences,
        "acceptance": drawn.acceptance,
        "gradients": drawn.leapfrogs,
        "chains": len(drawn.draws),
        "draws": drawn.draws.shape[1],
    }


def _report(folder: RunFolder) -> Path:
    """Write the report and its figures from what is in the folder."""
    from jneuro.report.fits import write_fit_report  # with Matplotlib

    stored = folder.load("fit.zarr", xr.Dataset)
    arrays = {str(name): stored[name].values for name in stored.variables}
    info = folder.info
    made_by = maker()
    run = {k: info.get(k) for k in ("name", "hash", "started", "git_commit", "command")} | made_by
    run |= {
        "jneuro_version": made_by["versions"]["jneuro"],
        "seconds": {name: stage["seconds"] for name, stage in info["stages"].items()},
    }
    yaml = (folder.path / "config.yaml").read_text()
    return write_fit_report(folder.path, run, yaml, folder.load("metrics.json"), arrays)
