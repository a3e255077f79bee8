"""What a voltage forecaster learned: from whom, over which lags, and with which of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from pydantic import Field

from jneuro.core.random import stream
from jneuro.core.types import Bool, Float, Int
from jneuro.datasets import WindowConfig
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.attribution import Attribution, integrated_gradients, permuted_errors, shuffled_within
from jneuro.evaluation.forecasts import targets
from jneuro.evaluation.lstm_parts import convolution_share, gate_statistics
from jneuro.evaluation.metrics import interval, ratio_error
from jneuro.evaluation.neuron_groups import input_groups, members
from jneuro.evaluation.protocols import SupportsAdjacency, SupportsConvolutions, SupportsGates
from jneuro.evaluation.synapse_scores import score_synapses
from jneuro.recordings import open_recording

__all__ = ["Interpretability", "permutation_importance"]


class Interpretability(Analysis):
    """Permutation importance, integrated gradients, convolutions and gates of the models with the experiment's windows.

    Attributes:
        models: which; null takes all.
        windows: test windows for the permutations, in each of which one neuron's forecast is looked at.
        attributed: of these, for the integrated gradients.
        steps: points of the integral.
        watched: of these, for gates and convolutions.
        max_lag_ms: the cross-correlation's lags end here [ms].
        draws: of the bootstrap over target neurons, and of the shuffles of the null.
    """

    name: Literal["interpretability"] = "interpretability"
    models: tuple[str, ...] | None = None
    windows: int = Field(default=4000, ge=20)
    attributed: int = Field(default=1000, ge=20)
    steps: int = Field(default=16, ge=2, le=256)
    watched: int = Field(default=128, ge=2)
    max_lag_ms: float = Field(default=5.0, gt=0)
    draws: int = Field(default=200, ge=20)

    def check(self, windows: WindowConfig, models) -> None:
        """Needs one variable, observed and predicted, without external input, and models that exist."""
        if windows.observed != windows.targets or len(windows.targets) != 1 or windows.known:
            raise ValueError("interpretability needs windows of one variable, which is observed and predicted")
        for name in self.models or ():
            if name not in models:
                raise ValueError(f"interpretability: models has {name!r}, which is none of {', '.join(models)}")

    def analyse(self, study: Study) -> Findings:
        """Ask every model, seed by seed for the permutations and the pairs of neurons, else its first seed."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, self.name))))
        names = [n for n in self.models or study.models if study.windows_of[n] is study.windows]
        looked = _Looked(study, self.windows, rng)
        numbers: dict[str, Any] = {"settings": looked.settings, "importance": {}, "attribution": {}}
        numbers |= {"convolutions": {}, "gates": {}}
        arrays: dict[str, Any] = {}
        pairs: dict[str, list[np.ndarray]] = {}
        few, some = (looked.starts[_spaced(len(looked.starts), n)] for n in (self.watched, self.attributed))
        for name in names:
            every = study.models[name]
            study.tell(f"permutation importance, {name}")
            numbers["importance"][name] = permutation_importance(every, looked)
            study.tell(f"integrated gradients, {name}")
            found = [self._attribute(model, looked, some) for model in every]
            numbers["attribution"][name] = _told(found[0], looked)
            pairs[name] = [a.pairs for a in found]
            arrays[f"pairs.{name}"] = (("pre", "post"), found[0].pairs.astype(np.float32))
            arrays[f"lags.{name}"] = (("group", "lag"), found[0].lags.astype(np.float32))
            self._parts(name, every[0], study, few, numbers, arrays)
        if looked.synapse is not None:
            study.tell("synapses from attributions")
            numbers["synapses"] = score_synapses(study, looked.synapse, pairs, self.max_lag_ms, self.draws, rng)
            arrays["synapse"] = (("pre", "post"), looked.synapse[0])
        return Findings(numbers, arrays)

    def _attribute(self, model: nnx.Module, looked: "_Looked", starts: np.ndarray) -> Attribution:
        """Integrated gradients in some of the windows, the targets in turn."""
        run, target = looked.places(starts)
        groups = np.stack([members(g, run, target) for g in looked.groups.values()])
        return integrated_gradients(model, looked.windows, starts, target, groups, self.steps)

    def _parts(self, name: str, model: nnx.Module, study: Study, starts: np.ndarray, numbers, arrays) -> None:
        """Gates and convolutions, of models that have them."""
        if isinstance(model, SupportsGates):
            numbers["gates"][name], memories = gate_statistics(model, study.windows, starts)
            for k, memory in enumerate(memories):
                arrays[f"memory.{name}.{k}"] = ((f"unit.{name}",), memory)
        if isinstance(model, SupportsConvolutions) and len(model.taps()):
            numbers["convolutions"][name] = convolution_share(model, study.windows, starts)


def _spaced(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))


class _Looked:
    """The test windows that are looked at, and who is whose input in them.

    Attributes:
        windows: the experiment's.
        starts: first frame of each window.
        synapse: by test run, or of the one network; None if unknown.
        groups: see `input_groups`.
        settings: what the report tells of it.
    """

    def __init__(self, study: Study, count: int, rng: np.random.Generator):
        self.windows = study.windows
        every = np.asarray(study.windows.starts["test"])
        self.starts = every[_spaced(len(every), count)]
        self.runs = study.windows.trials("test")
        source = study.source
        self.synapse: Bool[np.ndarray, "run pre post"] | None = None
        if source is not None and isinstance(source.simulator, SupportsAdjacency):
            networks = [source.of_run(int(r)) for r in (self.runs if source.per_run else self.runs[:1])]
            self.synapse = np.stack([_synapses(n) for n in networks])
        data = open_recording(study.recording)
        populations = {"other": np.ones(study.windows.outputs, bool)}
        if "population" in data and study.config.neurons is None:
            label = np.asarray(data["population"])
            populations = {title: label == int(k) for k, title in data["population"].attrs["meaning"].items()}
            populations = {title: mask for title, mask in populations.items() if mask.any()}
        self.populations = populations
        self.groups = input_groups(populations, self.synapse, rng)
        run, target = self.places(self.starts)
        self.other = shuffled_within(run, rng)
        self.settings = {
            "windows": len(self.starts),
            "runs": len(self.runs),
            "neurons": study.windows.outputs,
            "lag_ms": study.windows.dt,
            "groups": list(self.groups),
            "per_run": bool(source is not None and source.per_run),
            "sizes": {n: float(members(g, run, target).sum(1).mean()) for n, g in self.groups.items()},
        }

    def places(self, starts: np.ndarray) -> tuple[Int[np.ndarray, " window"], Int[np.ndarray, " window"]]:
        """The run of each window, as an index into the test runs, and the neuron that is looked at there."""
        run = np.searchsorted(self.runs, starts // self.windows.frames_per_trial)
        return run, np.arange(len(starts)) % self.windows.outputs


def _synapses(network: Any) -> Bool[np.ndarray, "pre post"]:
    return np.asarray(network.adjacency) > 0


def permutation_importance(models: Sequence[nnx.Module], looked: _Looked) -> dict[str, Any]:
    """The R² that is lost when a group's inputs come from another window of the same run.

    Args:
        models: one for each seed.
        looked: the windows and the groups.

    Returns:
        For each group `lost`, the mean over seeds; `se`, its standard error, clustered by run; `seeds`, and `ci95`, the
        half width of their 95 % interval; and for partners `more`, what they lose more than strangers do, likewise.
    """
    run, target = looked.places(looked.starts)
    taken = np.stack([np.zeros((len(run), looked.windows.features), bool)])
    groups = np.stack([members(g, run, target) for g in looked.groups.values()])
    truth = targets(looked.windows, looked.starts)[:, 0].astype(np.float64)
    spread = np.square(truth - truth.mean(0))[np.arange(len(run)), target]
    below = np.bincount(run, spread)
    rises = []
    for model in models:
        errors = permuted_errors(
            model, looked.windows, looked.starts, target, np.concatenate([taken, groups]), looked.other
        )
        rises.append([np.bincount(run, e - errors[0]) for e in errors[1:]])
    by_group = dict(zip(looked.groups, np.moveaxis(np.asarray(rises), 1, 0), strict=True))
    found = {name: _lost(rise, below) for name, rise in by_group.items()}
    for name, rise in by_group.items():
        if name.endswith(" partners"):
            found[name]["more"] = _lost(rise - by_group[name.replace("partners", "strangers")], below)
    return found


def _lost(rise: Float[np.ndarray, "seed run"], below: Float[np.ndarray, " run"]) -> dict[str, Any]:
    seeds = (rise.sum(1) / below.sum()).tolist()
    return {
        "lost": float(np.mean(seeds)),
        "se": ratio_error(rise.mean(0), below),
        "seeds": seeds,
        "ci95": interval(seeds),
    }


def _told(found: Attribution, looked: _Looked) -> Mapping[str, Any]:
    """How well the attributions add up, and each group's share of them."""
    missing = np.sqrt(np.mean(np.square(found.explained - found.change)) / np.mean(np.square(found.change)))
    amounts = dict(zip(looked.groups, found.lags.sum(1), strict=True))
    whole = amounts["own past"] + amounts["all others"]
    return {"incomplete": float(missing), "shares": {name: float(a / whole) for name, a in amounts.items()}}
