"""What a fit will do: all that it names is built and checked against the rest once, before anything runs."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.core.code import loaded_code
from jneuro.core.config import content_of
from jneuro.core.devices import double_precision
from jneuro.core.resources import Estimate, Part
from jneuro.core.seals import digest
from jneuro.datasets.variables import frames_in
from jneuro.experiment.estimates import Data, fitted, recorded, simulated
from jneuro.experiment.folder import RunFolder, Stage
from jneuro.experiment.plan import load_with_code
from jneuro.fitting.config import FitConfig, chosen, split
from jneuro.fitting.kinds import METHODS, OBJECTIVES, made
from jneuro.fitting.objectives import require_residuals
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Trials
from jneuro.simulators.base import step_count
from jneuro.simulators.config import SimulationConfig
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["FitPlan", "load_fit", "resolve_fit"]


@dataclass(frozen=True)
class FitPlan:
    """A fit, resolved.

    Attributes:
        config: the configuration.
        simulator: what is fitted; of a cell in double precision.
        trainable: which of its parameters.
        objectives: what is minimised; none for what a cell or a network is fitted to by default.
        truth: the values that the fit should find; None where nobody knows them, or where the model is another one.
        stages: the stages by name, in order.
        code: the folder of code of one's own that the configuration names, and the hashes of its files.
        estimate: what all that takes at least.
    """

    config: FitConfig
    simulator: ODESimulator | SteppedSimulator
    trainable: Trainable
    objectives: tuple[Any, ...]
    truth: dict[str, float] | None
    stages: Mapping[str, Stage]
    code: tuple[Path | None, Mapping[str, str]]
    estimate: Estimate

    @property
    def simulation(self) -> SimulationConfig | None:
        """The truth that is simulated, if any."""
        return self.config.simulation

    @property
    def seed(self) -> int:
        """The seed of all that is drawn."""
        return self.config.seed

    def recording(self, folder: RunFolder) -> Path:
        """The recording: simulated into the run folder, or one that the configuration names."""
        return self.config.recording.path if self.config.recording else folder.path / "recording.zarr"


def resolve_fit(config: FitConfig) -> FitPlan:
    """Build and check all that a fit names.

    Args:
        config: the fit.

    Returns:
        The plan.

    Raises:
        ValueError: with the key and the remedy; nothing is computed before.
    """
    with contextlib.nullcontext() if config.of_network else double_precision():
        simulator = config.simulator.build()
        try:
            trainable = Trainable.of(simulator, config.fit.trainable)
        except ValueError as error:
            raise ValueError(f"fit.{error}") from error
    if config.of_network:
        if not isinstance(simulator, SteppedSimulator):
            raise ValueError(f"fit.method: features are those of a network, and {config.simulator.name} is none")
        _check_truths(config, trainable)
    estimate = Estimate.of(_parts(config))
    named: dict[str, tuple[str, ...]] = {
        "fit": ("metrics.json", "fit.zarr", "pieces"),
        "report": ("report.html", "figures"),
    }
    data = digest(config.recording.path) if config.recording else ""
    stages = {name: Stage(name, content_of(config, name, data), outputs) for name, outputs in named.items()}
    if config.simulation is not None:
        first = Stage("simulate", content_of(config.simulation, config.seed), ("recording.zarr",))
        stages = {"simulate": first, **stages}
    try:
        objectives = tuple(made(OBJECTIVES, part) for part in config.fit.objective or ())
        made(METHODS, config.fit.method)
        _check_objectives(config, objectives)
    except ValueError as error:
        raise ValueError(f"fit.{error}" if str(error).startswith("objective.") else f"fit: {error}") from error
    return FitPlan(config, simulator, trainable, objectives, _truth(config, trainable), stages, loaded_code(), estimate)


def _check_objectives(config: FitConfig, objectives: tuple[Any, ...]) -> None:
    """Refuse objectives of the wrong shape for the trials of a simulation that is still to be run."""
    simulation = config.simulation
    if simulation is None or config.of_network:
        return
    # What is left to the recording only changes how many samples there are.
    begin, end = config.part or (0.0, simulation.duration_ms)
    dt = config.sample or simulation.frame
    trials = len(chosen(config.train, simulation.runs * simulation.neurons))
    nothing = np.broadcast_to(np.zeros(()), (trials, max(round((end - begin) / dt), 2)))
    for i, (part, objective) in enumerate(zip(config.fit.objective or (), objectives, strict=True)):
        like = Trials(nothing, nothing, np.ones(()), None, dt, ("mV", "1"))  # pyright: ignore
        require_residuals(objective, like, f"objective.{i}: {part.name}", values=False)


def _check_truths(config: FitConfig, trainable: Trainable) -> None:
    """Refuse other truths outside the bounds."""
    for values in config.truths:
        if set(values) != set(trainable.names):
            raise ValueError(f"truths: {values} must give exactly {', '.join(trainable.names)}")
        for name, low, high in zip(trainable.names, *zip(*trainable.bounds, strict=True), strict=True):
            if not low < values[name] < high:
                said = f"{name} = {values[name]:g} lies outside fit.trainable's ({low:g}, {high:g})"
                raise ValueError(f"truths: {said}")


def _parts(config: FitConfig) -> Iterator[Part]:
    """What a fit takes, the simplest first; what its simulation has not is refused on the way."""
    simulation = config.simulation
    if simulation is not None:
        data = Data(simulation.duration_ms, simulation.frame, simulation.runs, simulation.neurons, [])
        read = [name for name in simulation.recorded if name in _needed(config)]
        yield recorded("simulation", data, read)
        yield from simulated(simulation)
        _check_simulation(config, simulation)
    yield from fitted(config)


def _needed(config: FitConfig) -> tuple[str, ...]:
    """To what, and with what, is fitted."""
    return ("spikes",) if config.of_network else ("v", "current")


def _check_simulation(config: FitConfig, simulation: SimulationConfig) -> None:
    """Refuse a simulation to which one cannot fit, and trials, times and samples that it has not."""
    if config.part is not None and config.part[1] > simulation.duration_ms * (1 + 1e-9):
        raise ValueError(f"cut_ms: the recording ends at {simulation.duration_ms:g} ms")
    if config.sample is not None and not config.of_network:
        frames_in("sample_ms", config.sample, simulation.frame)
        if config.sample > simulation.duration_ms:
            raise ValueError(f"sample_ms = {config.sample:g} is more than the {simulation.duration_ms:g} ms of a trial")
    if config.fit.dt_ms is not None and not config.of_network:
        sample = config.sample or simulation.frame
        if step_count(sample, config.fit.dt_ms, "the time between samples") < 1:
            raise ValueError(f"fit.dt_ms = {config.fit.dt_ms:g} is more than the {sample:g} ms between samples")
    missing = [name for name in _needed(config) if name not in simulation.recorded]
    if missing:
        raise ValueError(f"simulation.record: must hold '{missing[0]}', to which, or with which, is fitted")
    count = simulation.runs * (1 if config.of_network else simulation.neurons)
    split(config.train, config.held_out, count)


def _truth(config: FitConfig, trainable: Trainable) -> dict[str, float] | None:
    if not config.same_model or config.simulation is None:
        return None
    with double_precision():
        values = trainable.values(config.simulation.simulator.build())
    return dict(zip(trainable.names, map(float, values), strict=True))


load_fit = partial(load_with_code, FitConfig, resolve_fit)
"""Load, check and resolve a fit; arguments as of `load_with_code`."""
