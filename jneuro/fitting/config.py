"""A fit as one YAML file."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from jneuro.core.config import Config, RunConfig
from jneuro.core.names import shown, unknown_name
from jneuro.fitting.fitter import FitOptions
from jneuro.fitting.kinds import METHODS, of_networks
from jneuro.fitting.posterior import PosteriorOptions
from jneuro.recordings.kinds import RecordingSource
from jneuro.simulators.config import SimulationConfig, SimulatorConfig

__all__ = ["FitConfig", "FitSection", "TrialNumbers", "UncertaintyOptions", "chosen", "split"]

TrialNumbers = Literal["all", "even", "odd", "none"] | tuple[int, ...]
"""Trials by their numbers from 0, or by a word."""


def chosen(trials: TrialNumbers, count: int) -> list[int]:
    """The numbers of the trials that are meant.

    Args:
        trials: which.
        count: how many there are.

    Returns:
        The numbers.

    Raises:
        ValueError: if one does not exist.
    """
    if isinstance(trials, str):
        return {"all": [*range(count)], "even": [*range(0, count, 2)], "odd": [*range(1, count, 2)], "none": []}[trials]
    if outside := [i for i in trials if not 0 <= i < count]:
        raise ValueError(f"there is no trial {outside[0]}; the recording has {count}, numbered from 0")
    return list(trials)


def split(train: TrialNumbers, held_out: TrialNumbers, count: int) -> tuple[list[int], list[int]]:
    """The numbers of the trials that are fitted, and of those that are held out.

    Args:
        train: which are fitted.
        held_out: which are not.
        count: how many there are.

    Returns:
        Both.

    Raises:
        ValueError: if a trial does not exist or is in both, or none is fitted.
    """
    wanted: dict[str, TrialNumbers] = {"train": train, "held_out": held_out}
    found = []
    for key, trials in wanted.items():
        try:
            found.append(chosen(trials, count))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    if not found[0]:
        raise ValueError("train: names no trial")
    if both := sorted({*found[0]} & {*found[1]}):
        raise ValueError(f"train and held_out both name trial {both[0]}; a trial is either fitted or held out")
    return found[0], found[1]


class UncertaintyOptions(Config):
    """What is said about uncertainty beyond the intervals from the curvature.

    Attributes:
        profile: fitted values whose likelihood is profiled.
        points: of a profile, on either side of the fitted value.
        posterior: how the posterior is sampled; not at all by default.
    """

    profile: tuple[str, ...] = ()
    points: int = Field(default=6, ge=2)
    posterior: PosteriorOptions | None = None


def _named(value: Any) -> Any:
    """Parameters with their bounds, of a mapping or a list of names."""
    if isinstance(value, list | tuple):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"= {shown(value)}: {shown(wrong[0])} must be a parameter's name")
        return dict.fromkeys(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"= {shown(value)} must be a list of parameters, or a mapping of them to their bounds")
    return value


class FitSection(FitOptions):
    """What is fitted, and how.

    Attributes:
        uncertainty: profiles and the posterior.
        trainable: parameters, each with its bounds, or null for those that the simulator declares; or only names.
        baselines: other methods, on the same objective and from the same random starts, for comparison.
    """

    trainable: Annotated[
        dict[str, tuple[float, float] | None],
        BeforeValidator(_named),
    ] = Field(min_length=1)
    baselines: tuple[Annotated[Any, METHODS.field()], ...] = ()
    uncertainty: UncertaintyOptions = UncertaintyOptions()

    @model_validator(mode="after")
    def _baselines_of_cells(self) -> Self:
        if wrong := [b.name for b in self.baselines if of_networks(b)]:
            raise ValueError(f"baselines: {wrong[0]} is for networks; name methods for cells")
        return self


class FitConfig(RunConfig):
    """One fit: where the recording comes from, what is fitted to it, and what is predicted.

    Attributes:
        simulation: what to simulate as a truth that is known; or
        recording: a recording that exists, in its stead: a store, an ABF or an NWB file; or a mapping of `path`,
            `reader` (of one's own: `my_readers:read_csv`, alone or with arguments) and `sweeps`.
        noise_mv: standard deviation of the noise that is added to a simulation [mV].
        cut_ms: beginning and end of the part of each trial that is used [ms]; the whole by default. `auto`: around the
            changes of the current.
        sample_ms: time between the samples that are used, a multiple of the recording's [ms]; all by default. `auto`:
            about 0.1 ms, or the cell's time step.
        adapt: whether the cell starts where the recording does, and the bounds of its potentials, capacitances,
            conductances and currents reach as far around the recorded cell's rest and capacitance as they do around
            those of `simulator`.
        simulator: what is fitted; its own values are the middle of random starts.
        fit: which of its parameters, and how.
        train: trials that are fitted.
        held_out: trials that are only predicted.
        repeats: how often a simulation is fitted; if more than once, each time with new noise, and from a simulator
            whose trainable parameters are drawn within the method's `spread` of its own.
        truths: of a network, values of its trainable parameters at which it is simulated and fitted again.
    """

    simulation: SimulationConfig | None = None
    recording: RecordingSource | None = None
    noise_mv: float = Field(default=0.5, ge=0)
    cut_ms: tuple[float, float] | Literal["auto"] | None = None
    sample_ms: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None
    adapt: bool = False
    simulator: SimulatorConfig
    fit: FitSection
    train: TrialNumbers = "all"
    held_out: TrialNumbers = "none"
    repeats: int = Field(default=1, ge=1)
    truths: tuple[dict[str, float], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _recording_first(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("recording") is not None:
            return {**data, "simulation": None}
        return data

    @field_validator("train", "held_out", mode="before")
    @classmethod
    def _numbered(cls, value: Any) -> Any:
        if value in ("all", "even", "odd", "none") or isinstance(value, list | tuple):
            return value
        raise ValueError(f"= {shown(value)}: must be all, even, odd, none, or a list of trials by their numbers from 0")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.simulation is None) == (self.recording is None):
            raise ValueError("give either 'simulation' or 'recording', the path of a store, an ABF or an NWB file")
        if self.repeats > 1 and self.simulation is None:
            raise ValueError("repeats: only a simulation can be fitted again with new noise; set it to 1")
        if self.part is not None and not 0 <= self.part[0] < self.part[1]:
            raise ValueError(f"cut_ms = {list(self.part)} must be a beginning and a later end")
        self._check_uncertainty()
        if self.of_network:
            self._check_network()
        elif self.truths:
            raise ValueError("truths: is for a network, with the method features; a cell has repeats")
        return self

    @property
    def part(self) -> tuple[float, float] | None:
        """`cut_ms` where it says numbers; None for the whole, or what is still to be chosen."""
        return self.cut_ms if isinstance(self.cut_ms, tuple) else None

    @property
    def sample(self) -> float | None:
        """`sample_ms` where it says a number; None for all samples, or what is still to be chosen."""
        return self.sample_ms if isinstance(self.sample_ms, float) else None

    @property
    def of_network(self) -> bool:
        """Whether a network is fitted, to statistics of its spikes."""
        return of_networks(self.fit.method)

    def _check_uncertainty(self) -> None:
        known = [*self.fit.trainable]
        for name in self.fit.uncertainty.profile:
            if name not in known and not (self.fit.free_start and name.startswith("start.")):
                raise ValueError(f"fit.uncertainty.profile: {unknown_name(name, known, 'trainable parameter')}")

    def _check_network(self) -> None:
        if (
            self.fit.baselines
            or self.repeats > 1
            or self.fit.free_start
            or self.fit.uncertainty != UncertaintyOptions()
        ):
            raise ValueError(
                "fit.method: features take no baselines, repeats, free_start or uncertainty; the intervals of a "
                "network come from the covariance of its features over runs"
            )
        if self.adapt or "auto" in (self.cut_ms, self.sample_ms):
            raise ValueError("adapt, and auto for cut_ms and sample_ms, are for cells; give a network numbers")
        if self.truths and not self.same_model:
            raise ValueError("truths: need a simulation of the same simulator")

    @property
    def same_model(self) -> bool:
        """Whether what is fitted is the model that was simulated, whose values are then known."""
        return self.simulation is not None and self.simulation.simulator.name == self.simulator.name
