"""What an experiment will do: all that it names is built and checked against the rest once, before anything runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jneuro.core.code import changed_files, loaded_code
from jneuro.core.config import (
    ConfigError,
    Content,
    Kind,
    Resolved,
    content_hash,
    content_of,
    first_message,
    load_config,
)
from jneuro.core.names import unknown_name
from jneuro.core.random import stream
from jneuro.core.registry import Block
from jneuro.core.resources import Estimate, Part
from jneuro.core.seals import digest
from jneuro.core.types import Array, Key
from jneuro.datasets.variables import FROM_SPIKES, columns_of, needed
from jneuro.datasets.windowing import WindowConfig
from jneuro.evaluation.baselines import check_baselines, label_of
from jneuro.evaluation.claims import check_claims
from jneuro.experiment.config import EvaluationConfig, ExperimentConfig, ModelEntry
from jneuro.experiment.estimates import Data, evaluated, recorded, simulated, trained
from jneuro.experiment.folder import DamagedRecord, RunFolder, Stage
from jneuro.models.base import Sizes, check_shapes, sized
from jneuro.recordings.store import has_events, open_recording, provenance_of
from jneuro.simulators.config import SimulationConfig
from jneuro.training.losses import cost
from jneuro.training.recipe import TrainConfig

__all__ = ["Plan", "Training", "load_plan", "load_with_code", "recorded_code", "reopen", "resolve"]


@dataclass(frozen=True)
class Training:
    """One model to be trained.

    Attributes:
        name: the model's name in the configuration.
        label: the name under which it is scored.
        folder: its folder below `models`.
        leaky: whether it is trained and scored under the report's leaky split.
        seed: which of its random starts.
        model: the configuration of the model, with the sizes of its data.
        windows: what it sees and predicts.
        recipe: how it is trained.
        root: the experiment's own seed.
        stage: of the run.
    """

    name: str
    label: str
    folder: str
    leaky: bool
    seed: int
    model: Any
    windows: WindowConfig
    recipe: TrainConfig
    root: int
    stage: Stage

    def stream(self, purpose: str) -> Key[Array, ""]:
        """A random stream of the training; the first seed's is that of the name alone."""
        key = stream(stream(jax.random.key(self.root), purpose), self.name)
        return jax.random.fold_in(key, self.seed) if self.seed else key


@dataclass(frozen=True)
class Plan:
    """An experiment, resolved.

    Attributes:
        config: the configuration, with the sizes of the data in its models.
        simulation: the simulation that makes, or has made, the recording; None where nobody knows it.
        seed: its seed.
        trainings: the models, then the leaky twins, each with all its seeds.
        stages: the stages by name, in order.
        code: the folder of code of one's own that the configuration names, and the hashes of its files.
        estimate: what all that takes at least.
    """

    config: ExperimentConfig
    simulation: SimulationConfig | None
    seed: int
    trainings: tuple[Training, ...]
    stages: Mapping[str, Stage]
    code: tuple[Path | None, Mapping[str, str]]
    estimate: Estimate

    def recording(self, folder: RunFolder) -> Path:
        """The recording: simulated into the run folder, or one that the configuration names."""
        given = self.config.recording
        return given.path if given and given.is_store else folder.path / "recording.zarr"


def load_with_code(
    kind: type[Kind],
    resolve: Callable[[Kind], Resolved],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    code: Path | None = None,
) -> Resolved:
    """Load and resolve a configuration whose code lies beside it or, for that of a run folder, where the run found it.

    Args:
        kind: what the file describes.
        resolve: makes the plan.
        path: the YAML file.
        overrides: `a.b=value`, each replacing one key.
        code: the folder of code of one's own, in place of these.

    Returns:
        The plan.

    Raises:
        ConfigError: for anything wrong with it, among it code of a run that has changed since; it is not executed.
    """
    path = Path(path)
    where: Any = (code, None) if code is not None else None
    if path.name == "config.yaml" and (path.parent / "run.json").exists():
        where = recorded_code(path.parent, code)
    return load_config(kind, path, overrides, code=where, resolve=resolve)


def recorded_code(run: Path, code: Path | None = None) -> tuple[Path | None, Mapping[str, str] | None]:
    """Find the code with which a run was made.

    Args:
        run: the run folder.
        code: where it is, if not where the run found it.

    Returns:
        Its folder, and the hashes that its files must have; None if run.json is damaged and does not say.

    Raises:
        ConfigError: if it is no run folder, or the code has gone.
    """
    try:
        folder, files = RunFolder.find(run, edited=True).code
    except DamagedRecord:  # of which --resume alone makes another
        return code or run, None
    where = (folder if code is None else code) if files else None
    if where is not None and not where.is_dir():
        raise ConfigError(f"{run}: its code, {', '.join(files)}, is not in {where} any more; say where with --code DIR")
    if where is not None and (changed := changed_files(where, files)):
        raise ConfigError(
            f"{', '.join(str(where / name) for name in changed)}: changed since the run {run}, so nothing of it is "
            "executed; restore it, say with --code DIR where it is, or go on from your own YAML file with --resume"
        )
    return where, files


def reopen(run: Path, code: Path | None = None) -> tuple[Plan, RunFolder]:
    """Take up a run by its folder.

    Args:
        run: the run folder.
        code: the folder of code of one's own; by default where the run found it.

    Returns:
        The plan, and the folder.

    Raises:
        ConfigError: if it is no run folder, its config.yaml or the code that it names has changed, or that has gone.
    """
    folder = RunFolder.find(run)
    plan = load_with_code(ExperimentConfig, partial(resolve, limited=False), run / "config.yaml", code=code)
    if content_hash(plan.config, code=False) != folder.info["hash"]:
        raise ConfigError(f"{run / 'config.yaml'}: has changed since the run; restore it, or run it with another --out")
    return plan, folder


def resolve(config: ExperimentConfig, *, limited: bool = True) -> Plan:
    """Build and check all that an experiment names.

    Args:
        config: the experiment.
        limited: whether to refuse what is beyond this machine; not where it has been done already.

    Returns:
        The plan.

    Raises:
        ValueError: with the key and the remedy; nothing is computed before.
    """
    for analysis in config.evaluate.analyses:
        try:
            analysis.check(config.windows, list(config.models))
        except ValueError as error:
            raise ValueError(f"evaluate.analyses: {error}") from error
    data, simulation, seed = _source(config)
    _check_names(config, data)
    estimate = Estimate.of(_parts(config, data, simulation), limited=limited)
    models = {name: _sized(config, name, data) for name in config.models}
    config = config.model_copy(update={"models": models})
    made, given = content_of(simulation, seed), config.recording
    source = made if given is None else content_of(given, digest(given.path))
    trainings = _trainings(config, source)
    check_claims(
        config.claims,
        models=[t.label for t in trainings if not t.seed],
        baselines=[label_of(b) for b in config.evaluate.baselines],
        analyses=[a.key for a in config.evaluate.analyses],
        ceiling=config.evaluate.ceiling is not None,
    )
    stages = [t.stage for t in trainings]
    if config.simulation is not None:
        stages.insert(0, Stage("simulate", source, ("recording.zarr",)))
    elif config.recording and not config.recording.is_store:
        stages.insert(0, Stage("read", source, ("recording.zarr",)))
    scored = content_of(made, source, config.windows, *(t.stage.content for t in trainings), config.evaluate)
    stages.append(
        Stage("evaluate", scored, ("metrics.json", "metrics.schema.json", "predictions.zarr", "analyses.zarr"))
    )
    stages.append(
        Stage("report", content_of(config.name, scored, list(config.claims)), ("report.html", "claims.json", "figures"))
    )
    return Plan(config, simulation, seed, trainings, {s.name: s for s in stages}, loaded_code(), estimate)


def _check_ceiling(config: ExperimentConfig, simulation: SimulationConfig) -> None:
    """Refuse a ceiling of what simulated futures do not give at once."""
    if config.evaluate.ceiling is None:
        return
    if simulation.deterministic:
        name = simulation.simulator.name
        raise ValueError(f"evaluate.ceiling: {name} has no noise, so its future is known; set it to null")
    targets, horizons = config.windows.targets, config.windows.horizons_ms
    ahead = horizons == "next_window" or (isinstance(horizons, tuple) and min(horizons, default=0) > 0)
    derived = set(targets) & (set(FROM_SPIKES) - {"spikes"})
    if len(targets) > 1 or derived or not ahead or config.windows.neurons is not None:
        raise ValueError(
            "evaluate.ceiling: needs one recorded variable, or spikes, of all neurons as target and horizons "
            "ahead; set it to null"
        )


def _source(config: ExperimentConfig) -> tuple[Data, SimulationConfig | None, int]:
    """What is known of the recording; the simulation that makes, or has made it, and its seed."""
    simulation: SimulationConfig | None = config.simulation
    if simulation is not None:
        _check_ceiling(config, simulation)
        sizes = simulation.duration_ms, simulation.record_every_ms, simulation.runs, simulation.neurons
        return Data(*sizes, list(simulation.recorded)), simulation, config.seed
    given: Any = config.recording
    if not given.is_store:
        found = given.read()
        trials, frames, neurons = next(iter(found.values.values())).shape
        return Data(frames * found.dt, found.dt, trials, neurons, list(found.values)), None, config.seed
    store = open_recording(given.path)
    sampled = [str(n) for n in store if store[n].dims == ("trial", "time", "neuron")]
    sizes, dt, made_by = store.sizes, store.attrs["dt"], provenance_of(store, given.path)
    variables = [*sampled, *(["spikes"] if has_events(given.path) else [])]
    data = Data(sizes["time"] * dt, dt, sizes["trial"], sizes["neuron"], variables)
    if "simulation" not in made_by:
        return data, None, config.seed
    try:
        return data, SimulationConfig.model_validate(made_by["simulation"]), made_by["seed"]
    except ValueError as error:
        if config.evaluate.ceiling is None:
            return data, None, config.seed
        said = first_message(error)
        raise ValueError(
            f"evaluate.ceiling: the simulation behind {given.path} cannot be built here ({said}); set it to null"
        ) from error


def _windows_by_key(config: ExperimentConfig) -> dict[str, WindowConfig]:
    """The experiment's windows and those of models that have their own, by their key."""
    own = {f"models.{n}.windows": config.windows_of(n) for n, entry in config.models.items() if entry.windows}
    return {"windows": config.windows} | own


def _check_names(config: ExperimentConfig, data: Data) -> None:
    """Refuse windows of variables that the recording has not."""
    derived = FROM_SPIKES if "spikes" in data.variables else ()
    known = [*(n for n in data.variables if n not in FROM_SPIKES), *derived]
    for key, windows in _windows_by_key(config).items():
        for name in windows.variables:
            if name not in known:
                raise ValueError(f"{key}: {unknown_name(name, known, 'variable')}")


def _parts(config: ExperimentConfig, data: Data, simulation: SimulationConfig | None) -> Iterator[Part]:
    """What an experiment takes, the simplest first; what does not fit together is refused on the way."""
    every = _windows_by_key(config)
    names = needed(n for windows in every.values() for n in windows.variables)
    yield recorded("simulation" if config.simulation else "recording", data, names)
    if config.simulation is not None:
        yield from simulated(config.simulation)
    _check_windows(config, data)
    frame = config.windows.frame(data.dt) * data.dt
    counts, horizons = config.windows.check(data.duration_ms, data.dt, data.runs), config.windows.frames(frame)[-1]
    seen = data._replace(dt=frame, neurons=len(config.windows.kept(data.neurons)))
    yield from evaluated(seen, simulation, counts=counts, horizons=horizons, config=config.evaluate)
    for name, entry in config.models.items():
        windows, recipe, model = config.windows_of(name), config.train_config_of(name), _model(config, name, data)
        count = windows.check(data.duration_ms, data.dt, data.runs)["train"]
        how = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "seeds": entry.seeds}
        yield trained(name, model, windows=count, **how)


def _check_windows(config: ExperimentConfig, data: Data) -> None:
    """Refuse windows and baselines that do not fit the recording, and a stretch that is longer than it."""
    for key, windows in _windows_by_key(config).items():
        try:
            windows.check(data.duration_ms, data.dt, data.runs)
            windows.kept(data.neurons)
            frame = windows.frame(data.dt) * data.dt
            observed = set(windows.targets) <= set(windows.observed)
            if key == "windows":
                key = "evaluate.baselines"
                check_baselines(config.evaluate.baselines, windows.frames(frame)[1], observed=observed)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    # The default is longer than a short recording.
    longest = max(data.duration_ms, EvaluationConfig().trace_ms)
    if config.evaluate.trace_ms > longest:
        raise ValueError(
            f"evaluate.trace_ms = {config.evaluate.trace_ms:g} is more than the {data.duration_ms:g} ms of a run"
        )


def _model(config: ExperimentConfig, name: str, data: Data) -> Any:
    """A model with the sizes of its data."""
    try:
        return sized(config.models[name].model, _sizes(config.windows_of(name), data))
    except ValueError as error:
        raise ValueError(f"models.{name}.model: {first_message(error)}") from error


def _sized(config: ExperimentConfig, name: str, data: Data) -> ModelEntry:
    """A model with the sizes of its data; refuse one, or a training, that does not fit them."""
    entry, windows, recipe = config.models[name], config.windows_of(name), config.train_config_of(name)
    twins = [windows.model_copy(update={"split": "report"})] if name in config.evaluate.leaky_twins else []
    least = min(w.check(data.duration_ms, data.dt, data.runs)["train"] for w in [windows, *twins])
    if recipe.batch_size > least:
        key = f"models.{name}.train.batch_size" if entry.train else "train.batch_size"
        raise ValueError(
            f"{key} = {recipe.batch_size} is more than the {least} training windows; lower it or windows.stride_ms"
        )
    model = _model(config, name, data)
    if isinstance(model, Block):  # one of the user's own, of which nothing else is known before it is called
        try:
            check_shapes(model, _sizes(windows, data), check=cost(recipe.loss))
        except ValueError as error:
            raise ValueError(f"models.{name}.model: {first_message(error)}") from error
    return entry.model_copy(update={"model": model})


def _sizes(windows: WindowConfig, data: Data) -> Sizes:
    """What a model takes from its data."""
    _, length, _, horizons = windows.frames(windows.frame(data.dt) * data.dt)
    neurons = len(windows.kept(data.neurons))
    features, outputs, known = (
        sum(columns_of(n, neurons) for n in names) for names in (windows.observed, windows.targets, windows.known)
    )
    alike = windows.observed == windows.targets
    return Sizes(features, length, len(horizons), None if alike else outputs, known)


def _trainings(config: ExperimentConfig, source: Content) -> tuple[Training, ...]:
    """All trainings of an experiment: the models, then the leaky twins, each with all its seeds."""
    leaky = config.windows.split == "report"
    first = [(n, n, n, leaky) for n in config.models]
    first += [(n, f"{n} (leaky split)", f"{n}.leaky", True) for n in config.evaluate.leaky_twins]
    found: dict[str, Training] = {}
    for name, label, folder, leaks in first:
        entry, windows, recipe = config.models[name], config.windows_of(name), config.train_config_of(name)
        windows = windows.model_copy(update={"split": "report"}) if leaks else windows
        common = content_of(source, config.seed, windows, leaks, name, entry.model, recipe)
        for seed in range(entry.seeds):
            said, where = (f"{label} (seed {seed})", f"{folder}.{seed}") if seed else (label, folder)
            # Some file systems do not tell capitals from small letters.
            if (other := found.get(where.lower())) is not None:
                both = f"{other.label!r} and {said!r} would both be trained in models/{where}"
                raise ValueError(f"models: {both}; rename one")
            stage = Stage(f"train {said}", content_of(common, seed), (f"models/{where}",))
            how = (entry.model, windows, recipe, config.seed, stage)
            found[where.lower()] = Training(name, said, where, leaks, seed, *how)
    return tuple(found.values())


load_plan = partial(load_with_code, ExperimentConfig, resolve)
"""Load, check and resolve an experiment; arguments as of `load_with_code`."""
