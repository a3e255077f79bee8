"""An experiment as one YAML file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from jneuro.core.config import AbsolutePath, Config, RunConfig, first_message, load_config, unknown_name
from jneuro.datasets import FROM_SPIKES, Horizons, Scale, WindowConfig, columns_of
from jneuro.evaluation import AnyAnalysis, CeilingConfig
from jneuro.evaluation.baselines import DEFAULTS, Baselines, check_baselines
from jneuro.models.build import Sizes, sized
from jneuro.models.kinds import MODELS
from jneuro.recordings import has_events, open_recording
from jneuro.simulators.config import SimulationConfig
from jneuro.training import TrainConfig

__all__ = ["EvaluationConfig", "ExperimentConfig", "ModelEntry", "SimulationConfig", "load_experiment"]


class WindowOverrides(Config):
    """What a model may see and predict otherwise than the experiment's windows say; they are explained there."""

    targets: tuple[str, ...] | None = Field(default=None, min_length=1)
    inputs: tuple[str, ...] | None = Field(default=None, min_length=1)
    known: tuple[str, ...] | None = None
    frame_ms: float | None = Field(default=None, gt=0)
    length_ms: float | None = Field(default=None, gt=0)
    stride_ms: float | None = Field(default=None, gt=0)
    horizons_ms: Horizons | None = None
    scaling: Scale | None = None
    neurons: int | None = Field(default=None, ge=1)


class ModelEntry(Config):
    """A model and, where it differs from the experiment's, how to train it.

    Attributes:
        model: which.
        train: how; null takes the experiment's.
        windows: keys of the experiment's `windows` that differ for this model, such as `{length_ms: 20}`.
        seeds: how many are trained, from as many random starts; scores are the first's, with the spread of all.
    """

    model: Annotated[Any, MODELS.field()]
    train: TrainConfig | None = None
    windows: WindowOverrides | None = None
    seeds: int = Field(default=1, ge=1, le=100)


class EvaluationConfig(Config):
    """What stands beside the models' scores.

    Attributes:
        baselines: a list of names, with arguments where needed, such as `[persistence, {name: ar, order: 20}]`; or
            `module:name` of your own, with a method `fit(windows)` that returns a model.
        ceiling: how the noise ceiling is computed; null leaves it out.
        leaky_twins: models that are trained once more under the report's leaky split, to show what the leak is worth.
        trace_ms: length of the stretch of a test run that is forecast sample by sample, for the figures [ms].
        analyses: what else is asked of the models, each once.
    """

    baselines: Baselines = DEFAULTS
    ceiling: CeilingConfig | None = CeilingConfig()
    leaky_twins: tuple[str, ...] = ()
    trace_ms: float = Field(default=300.0, gt=0)
    analyses: tuple[AnyAnalysis, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [a.name for a in self.analyses]
        if twice := [n for n in names if names.count(n) > 1]:
            raise ValueError(f"analyses: {twice[0]} stands there twice; leave one out")
        return self


class ExperimentConfig(RunConfig):
    """One experiment: where the recording comes from, what is cut from it, what is trained and what is evaluated.

    Attributes:
        simulation: what to simulate; or
        recording: a recording that exists.
        windows: how it is cut.
        models: models by a name of the user's.
        train: how they are trained.
        evaluate: what is reported.
    """

    simulation: SimulationConfig | None = None
    recording: AbsolutePath | None = None
    windows: WindowConfig = WindowConfig()
    models: dict[str, ModelEntry] = Field(min_length=1)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.simulation is None) == (self.recording is None):
            raise ValueError("give either 'simulation' or 'recording', the path of a finished one")
        for name in self.models:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(f"models: {name!r} must be made of letters, digits, '_', '.' and '-'")
        if self.evaluate.leaky_twins and self.windows.split == "report":
            raise ValueError("evaluate.leaky_twins: windows.split = 'report' is the leaky split already; leave one out")
        for name in self.evaluate.leaky_twins:
            if name not in self.models:
                raise ValueError(f"evaluate.leaky_twins: {unknown_name(name, self.models, 'model')}")
        for analysis in self.evaluate.analyses:
            try:
                analysis.check(self.windows, list(self.models))
            except ValueError as error:
                raise ValueError(f"evaluate.analyses: {error}") from error
        if self.simulation is not None:
            s = self.simulation
            if self.evaluate.ceiling is not None:
                if s.deterministic:
                    raise ValueError(
                        f"evaluate.ceiling: {s.simulator.name} has no noise, so its future is known; set it to null"
                    )
                self._has_ceiling()
            self._known_variables(s.recorded)
            self._fit_data(s.duration_ms, s.record_every_ms, s.runs, s.neurons)
        else:
            data = open_recording(self.recording)  # type: ignore[arg-type]
            sampled = [str(n) for n in data if data[n].dims == ("trial", "time", "neuron")]
            self._known_variables([*sampled, *(["spikes"] if has_events(self.recording) else [])])  # type: ignore[arg-type]
            sizes = data.sizes
            self._fit_data(sizes["time"] * data.attrs["dt"], data.attrs["dt"], sizes["trial"], sizes["neuron"])
        return self

    def _has_ceiling(self) -> None:
        """Refuse a ceiling of what simulated futures do not give at once."""
        targets, horizons = self.windows.targets, self.windows.horizons_ms
        ahead = horizons == "next_window" or (isinstance(horizons, tuple) and min(horizons, default=0) > 0)
        derived = set(targets) & (set(FROM_SPIKES) - {"spikes"})
        if len(targets) > 1 or derived or not ahead or self.windows.neurons is not None:
            raise ValueError(
                "evaluate.ceiling: needs one recorded variable, or spikes, of all neurons as target and horizons "
                "ahead; set it to null"
            )

    def _known_variables(self, recorded: Sequence[str]) -> None:
        known = [*(n for n in recorded if n not in FROM_SPIKES), *(FROM_SPIKES if "spikes" in recorded else ())]
        for key, windows in self._every_windows():
            for name in windows.variables:
                if name not in known:
                    raise ValueError(f"{key}: {unknown_name(name, known, 'variable')}")

    def _every_windows(self) -> list[tuple[str, WindowConfig]]:
        """All windows by the key that sets them."""
        own = [(f"models.{n}.windows", self.windows_of(n)) for n, entry in self.models.items() if entry.windows]
        return [("windows", self.windows), *own]

    def _fit_data(self, duration_ms: float, dt: float, runs: int, neurons: int) -> None:
        """Refuse windows, models and baselines that do not fit the recording; tell the models its sizes.

        Raises:
            ValueError: with the key and the remedy.
        """
        for key, windows in self._every_windows():
            try:
                windows.check(duration_ms, dt, runs)
                windows.kept(neurons)
                frame = windows.frame(dt) * dt
                observed = set(windows.targets) <= set(windows.observed)
                if key == "windows":
                    check_baselines(self.evaluate.baselines, windows.frames(frame)[1], observed=observed)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        filled = {}
        for name, entry in self.models.items():
            windows = self.windows_of(name)
            splits = [windows]
            if name in self.evaluate.leaky_twins:
                splits.append(windows.model_copy(update={"split": "report"}))
            least = min(w.check(duration_ms, dt, runs)["train"] for w in splits)
            if (size := self.train_config_of(name).batch_size) > least:
                key = f"models.{name}.train.batch_size" if entry.train else "train.batch_size"
                raise ValueError(
                    f"{key} = {size} is more than the {least} training windows; lower it or windows.stride_ms"
                )
            try:
                filled[name] = entry.model_copy(update={"model": sized(entry.model, _sizes(windows, dt, neurons))})
            except ValueError as error:
                raise ValueError(f"models.{name}.model: {first_message(error)}") from error
        # Frozen for users; the resolved configuration must state the sizes.
        object.__setattr__(self, "models", filled)

    def windows_of(self, name: str) -> WindowConfig:
        """What a model sees and predicts."""
        own = self.models[name].windows
        changed = {key: value for key, value in own if value is not None} if own else {}
        return self.windows.model_copy(update=changed)

    def train_config_of(self, name: str) -> TrainConfig:
        """How a model is trained."""
        return self.models[name].train or self.train


def _sizes(windows: WindowConfig, dt: float, neurons: int) -> Sizes:
    """What a model takes from its data."""
    _, length, _, horizons = windows.frames(windows.frame(dt) * dt)
    neurons = len(windows.kept(neurons))
    features, outputs, known = (
        sum(columns_of(n, neurons) for n in names) for names in (windows.observed, windows.targets, windows.known)
    )
    alike = windows.observed == windows.targets
    return Sizes(features, length, len(horizons), None if alike else outputs, known)


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Load and check an experiment; see `load_config`.

    Args:
        path: the YAML file.
        overrides: `a.b=value`, each replacing one key.
    """
    return load_config(ExperimentConfig, path, overrides)
