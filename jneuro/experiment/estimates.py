"""What experiments, fits and sweeps will take at least, from their configurations alone; nothing is drawn or built."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from flax import nnx

from jneuro.core.config import numbers_in
from jneuro.core.registry import Block
from jneuro.core.resources import Part
from jneuro.core.types import PyTree
from jneuro.experiment.simulation import build_runs, initial_states
from jneuro.fitting.config import FitConfig, chosen
from jneuro.models.base import build_model
from jneuro.simulators.config import SimulationConfig
from jneuro.sweeps.config import SweepConfig

__all__ = ["Data", "evaluated", "fitted", "recorded", "simulated", "swept", "trained"]

_LARGE = 1_000_000
"""Neurons of all runs together, or of one network squared, from which on what is drawn for them is counted too."""
_WIDE = 1024
"""Sizes within a model, from which on its parameters are counted."""
_WIDEST = 2**24
"""Sizes within a model, beyond which nothing can be built, not even without its numbers."""
_FILE = 4096
"""Least size of a file [byte]."""


class Data(NamedTuple):
    """What is known of a recording, whether it exists or not."""

    duration_ms: float
    dt: float
    runs: int
    neurons: int
    variables: list[str]


def recorded(key: str, data: Data, names: Sequence[str]) -> Part:
    """A recording as windows need it in memory: its variables, and all of them again in single precision.

    Args:
        key: of the configuration: "simulation" or "recording".
        data: its sizes.
        names: the variables that are read.
    """
    each = sum(1 if name == "spikes" else 4 for name in names)
    about = (
        f"runs = {data.runs} of duration_ms = {data.duration_ms:g}, with {data.neurons} neurons every {data.dt:g} ms: "
        f"{', '.join(names)} alone"
    )
    values = data.runs * data.neurons * data.duration_ms / data.dt
    return Part(key, about, "take fewer or shorter runs, or record less often", memory=values * each)


def simulated(simulation: SimulationConfig) -> Iterator[Part]:
    """A simulation: its steps, the chunk that is computed at once, what is drawn for it, and its store.

    Args:
        simulation: the configuration.
    """
    s, runs = simulation, f"runs = {simulation.runs} of duration_ms = {simulation.duration_ms:g}"
    steps = (s.runs * s.duration_ms + s.warmup_ms) / s.step
    arrays = len(set(s.recorded) - {"spikes"})  # those are stored as a list
    frame = s.runs * s.neurons * (4 * arrays + ("spikes" in s.recorded))
    yield Part(
        "simulation",
        f"{runs}, with {s.neurons} neurons, recorded every {s.frame:g} ms in steps of {s.step:g} ms",
        "take fewer or shorter runs, or record less",
        steps=steps,
        memory=frame * s.snapshot_every_ms / s.frame,
        disk=4 * arrays * s.runs * s.neurons * s.duration_ms / s.frame,
    )
    if max(s.runs * s.neurons, s.neurons**2) < _LARGE:
        return
    try:
        made = eqx.filter_eval_shape(build_runs, s, jax.random.key(0))
        state = _bytes(eqx.filter_eval_shape(initial_states, made))
    except (OverflowError, MemoryError, ValueError) as error:
        raise ValueError(f"simulation: {runs}, with {s.neurons} neurons, cannot be laid out ({error})") from error
    snapshots = s.duration_ms / s.snapshot_every_ms
    yield Part(
        "simulation",
        f"{s.runs} networks of {s.neurons} neurons, with their connections and states,",
        "take fewer neurons or runs, or connectivity: fixed",
        memory=_bytes(made) + state,
    )
    yield Part(
        "simulation",
        f"the state of {s.runs} runs every {s.snapshot_every_ms:g} ms",
        "raise snapshot_every_ms, or take fewer or shorter runs",
        disk=snapshots * state,
    )


def trained(name: str, model: Any, *, windows: int, epochs: int, batch_size: int, seeds: int) -> Part:
    """The training of a model: its steps; its weights with their gradients and Adam's moments; its checkpoint.

    Args:
        name: of the model.
        model: its configuration, with the sizes of its data.
        windows: of an epoch.
        epochs: most of them.
        batch_size: windows in a step.
        seeds: trainings from as many starts.

    Raises:
        ValueError: for a model that cannot be built, or more steps than can be counted.
    """
    steps = epochs * (windows // batch_size)
    if steps >= 2**31:
        raise ValueError(
            f"models.{name}: epochs = {epochs} of {windows // batch_size} steps are more steps than can be counted; "
            "lower train.epochs, early_stopping ends it before"
        )
    weights = _weights(name, model)
    about = f"{weights / 4:,.0f} parameters in {steps:,} steps" if weights else f"{steps:,} steps"
    sizes = "lower the sizes of the model"
    return Part(f"models.{name}.model", about, sizes, seeds * steps, memory=4 * weights, disk=3 * weights * seeds)


def _weights(name: str, model: Any) -> float:
    """The size of a model's parameters [byte]; 0 where no size within it is large enough for that to matter."""
    sizes = model.arguments if isinstance(model, Block) else dict(model)
    largest = {k: max([0, *(n for n in numbers_in(v) if isinstance(n, int))]) for k, v in sizes.items()}
    wide = {key: size for key, size in largest.items() if size > _WIDE}
    if too := [key for key, value in wide.items() if value > _WIDEST]:
        raise ValueError(f"models.{name}.model.{too[0]} = {wide[too[0]]} is more than {_WIDEST:,}; lower it")
    if not wide:
        return 0
    try:
        built = nnx.eval_shape(lambda: build_model(model, rngs=nnx.Rngs(0)))
    except (OverflowError, MemoryError) as error:
        raise ValueError(f"models.{name}.model: {', '.join(wide)}: cannot be laid out ({error}); lower it") from error
    return _bytes(nnx.state(built, nnx.Param))


def evaluated(
    data: Data, simulation: SimulationConfig | None, *, counts: Mapping[str, int], horizons: Sequence[int], config: Any
) -> Iterator[Part]:
    """The evaluation: forecasts of the test windows, and simulated futures.

    Args:
        data: the recording.
        simulation: what made it, where that is known.
        counts: windows by split.
        horizons: of the windows, in frames.
        config: the section `evaluate`.
    """
    values = 4 * counts["test"] * len(horizons) * data.neurons
    about = f"the forecasts of {counts['test']:,} test windows, {len(horizons)} horizons and {data.neurons} neurons"
    remedy = "raise windows.stride_ms, or take fewer horizons"
    yield Part("windows", about, remedy, memory=values, disk=values)
    ceiling = config.ceiling
    if simulation is None or ceiling is None:
        return
    runs = max(1, round(data.runs * counts["test"] / sum(counts.values())))
    states = runs * min(ceiling.max_states, simulation.duration_ms / simulation.snapshot_every_ms)
    steps = horizons[-1] * data.dt / simulation.step
    yield Part(
        "evaluate.ceiling",
        f"futures = {ceiling.futures} of {states:g} states, {horizons[-1] * data.dt:g} ms each,",
        "lower futures or max_states",
        steps=ceiling.futures * states * steps,
        memory=12 * states * len(horizons) * data.neurons,
    )


def fitted(config: FitConfig) -> Iterator[Part]:
    """A fit: its steps, what all starts hold at once, its pieces, and the draws of the posterior.

    Args:
        config: the fit.
    """
    method, simulation, more = config.fit.method, config.simulation, config.fit.uncertainty
    said = method.arguments if isinstance(method, Block) else dict(method)
    starts, turns = said.get("starts", 1), said.get("steps", said.get("evaluations", 1))
    if said.get("first") in ("auto", "weak_form") or not all(isinstance(x, int | float) for x in (starts, turns)):
        starts = turns = 1
    steps = frames = trials = 1.0
    if simulation is not None:
        begin, end = config.part or (0.0, simulation.duration_ms)
        steps = (end - begin) / (config.fit.dt_ms or simulation.step)
        frames = (end - begin) / (config.sample or simulation.frame)
        trials = len(chosen(config.train, simulation.runs * simulation.neurons)) if not config.of_network else 1
    about = f"repeats = {config.repeats}, {starts} starts of {turns} turns over {trials:g} trials of {steps:,.0f} steps"
    yield Part(
        "fit",
        about,
        "take fewer repeats, starts or trials, shorter ones, or a larger dt_ms",
        steps=config.repeats * starts * turns * trials * steps,
        memory=8 * starts * trials * frames,
        disk=config.repeats * (_FILE + 8 * trials * frames),
    )
    if more.profile:
        fits = 2 * more.points * len(more.profile)
        about = f"points = {more.points} on either side of {len(more.profile)} values"
        yield Part("fit.uncertainty", about, "take fewer points", steps=fits * trials * steps, memory=8 * fits)
    if (posterior := more.posterior) is not None:
        chains, draws, sets = posterior.chains, posterior.draws, posterior.calibration
        every = chains * (posterior.warmup + draws) + sets * posterior.calibration_draws * posterior.thin
        about = f"chains = {chains} of warmup = {posterior.warmup} and draws = {draws}, calibration = {sets}"
        held = 8 * (chains * draws + sets * posterior.calibration_draws) * len(config.fit.trainable)
        remedy = "take fewer chains, draws or calibrations"
        yield Part("fit.uncertainty.posterior", about, remedy, steps=every * trials * steps, memory=held)


def swept(config: SweepConfig) -> Iterator[Part]:
    """A sweep: its steps and its design, then one point's recording, and the store.

    Args:
        config: the sweep.
    """
    run, design = config.simulation, config.sweep
    each = (run.duration_ms + run.warmup_ms) / run.step
    about = f"{design.count:,} points of {run.duration_ms:g} ms in steps of {run.step:g} ms"
    fewer = "take fewer points or seeds, or a shorter duration_ms"
    yield Part("sweep", about, fewer, steps=design.count * each, memory=8 * design.count * (2 * len(design.varied) + 1))
    needs = {name for measure in config.problem().measures for name in measure.needs}
    frame = {name: run.neurons * (1 if name == "spikes" else 4) for name in {*config.keep, *needs}}
    frames = run.duration_ms / run.frame
    about = f"a recording of {run.duration_ms:g} ms every {run.frame:g} ms, with {run.neurons} neurons,"
    yield Part("simulation", about, "record less often, or a shorter time", memory=frames * sum(frame.values()))
    kept = design.count * (frames * sum(frame[name] for name in config.keep) + 4 * len(config.measures))
    less = "keep fewer traces, record less often, or take fewer points"
    yield Part("sweep", f"what is kept of {design.count:,} points", less, disk=kept)


def _bytes(tree: PyTree) -> float:
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.ShapeDtypeStruct)]
    return float(sum(math.prod(x.shape) * getattr(x.dtype, "itemsize", 8) for x in leaves))
