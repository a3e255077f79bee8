"""An experiment as one YAML file."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from jneuro.core.config import Config, RunConfig
from jneuro.core.names import shown, unknown_name, unusable_name
from jneuro.datasets import Horizons, Scale, WindowConfig
from jneuro.evaluation import CeilingConfig
from jneuro.evaluation.baselines import DEFAULTS, Baselines, label_of
from jneuro.evaluation.claims import Claim
from jneuro.evaluation.kinds import ANALYSES, BASELINES
from jneuro.models.kinds import MODELS
from jneuro.recordings.kinds import RecordingSource
from jneuro.simulators.config import SimulationConfig
from jneuro.training import TrainConfig

__all__ = ["EvaluationConfig", "ExperimentConfig", "ModelEntry", "SimulationConfig"]


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
    analyses: tuple[Annotated[Any, ANALYSES.field()], ...] = ()

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
        recording: a recording that exists: the path of a store, or of a file that a reader knows; or a mapping of
            `path`, `reader` and `sweeps`.
        windows: how it is cut.
        models: models by a name of the user's.
        train: how they are trained.
        evaluate: what is reported.
        claims: what the results are to show; see `jneuro.evaluation.claims.Claim`. No result depends on them.
    """

    outside_hash: ClassVar[frozenset[str]] = frozenset({"claims"})

    simulation: SimulationConfig | None = None
    recording: RecordingSource | None = None
    windows: WindowConfig = WindowConfig()
    models: dict[str, ModelEntry] = Field(min_length=1)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluationConfig = EvaluationConfig()
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.simulation is None) == (self.recording is None):
            raise ValueError("give either 'simulation' or 'recording', the path of a finished one")
        taken = {name.lower() for name in (*BASELINES.ours, *map(label_of, self.evaluate.baselines))}
        for name in self.models:
            if why := unusable_name(name):
                raise ValueError(f"models: {shown(name)} {why}")
            if name.lower() in taken:
                raise ValueError(f"models: {name!r} is the name of a baseline; choose another")
        if self.evaluate.leaky_twins and self.windows.split == "report":
            raise ValueError("evaluate.leaky_twins: windows.split = 'report' is the leaky split already; leave one out")
        for name in self.evaluate.leaky_twins:
            if name not in self.models:
                raise ValueError(f"evaluate.leaky_twins: {unknown_name(name, self.models, 'model')}")
        return self

    def windows_of(self, name: str) -> WindowConfig:
        """What a model sees and predicts."""
        own = self.models[name].windows
        changed = {key: value for key, value in own if value is not None} if own else {}
        return self.windows.model_copy(update=changed)

    def train_config_of(self, name: str) -> TrainConfig:
        """How a model is trained."""
        return self.models[name].train or self.train
