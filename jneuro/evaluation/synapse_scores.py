"""How well matrices between neurons tell the synapses of a network, beside linear weights and cross-correlation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jneuro.core.types import Bool, Float
from jneuro.evaluation.analysis import Study
from jneuro.evaluation.baselines import Linear
from jneuro.evaluation.connectivity_scores import cross_correlation, separate
from jneuro.evaluation.metrics import interval
from jneuro.recordings import has_events, open_recording, read_events

__all__ = ["score_synapses"]


def score_synapses(
    study: Study,
    synapse: Bool[np.ndarray, "run pre post"],
    pairs: Mapping[str, Sequence[Float[np.ndarray, "pre post"]]],
    max_lag_ms: float,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Score matrices, larger meaning a synapse, against the networks of the test runs.

    Args:
        study: the recording, and the vector autoregression if there is one.
        synapse: by test run, or of the one network of all runs.
        pairs: a model's matrices, one for each seed.
        max_lag_ms: the cross-correlation's lags end here [ms].
        draws: of the bootstrap over target neurons, and of the shuffles of the null.
        rng: draws them.

    Returns:
        For every matrix and each population of presynaptic neurons the area under the ROC curve with its bounds. Where
        every run has a network of its own these are means over runs, with Student's interval over them. The
        cross-correlation is that of the training runs, or of each such run itself.
    """
    data = open_recording(study.recording)
    population = np.asarray(data["population"])
    kinds = {title: population == int(k) for k, title in data["population"].attrs["meaning"].items()}
    matrices = {name: [np.repeat(m[None], len(synapse), 0) for m in every] for name, every in pairs.items()}
    linear = study.baselines.get("var")
    if isinstance(linear, Linear):
        weights = np.asarray(linear.coefficients, np.float64)[:, :-1, 0]
        size = np.linalg.norm(weights.reshape(len(weights), linear.order, -1), axis=1).T
        matrices["VAR weights"] = [np.repeat(size[None], len(synapse), 0)]
    if has_events(study.recording):
        matrices["cross-correlation"] = [_correlations(study, len(synapse), kinds["inhibitory"], max_lag_ms)]
    found: dict[str, Any] = {}
    for name, every in matrices.items():
        found[name] = {}
        for kind, rows in kinds.items():
            kept = np.repeat(rows[:, None], len(rows), 1) & ~np.eye(len(rows), dtype=bool)
            if synapse[:, kept].any():
                scores = [_areas(m, synapse, kept, population, draws if not k else 1, rng) for k, m in enumerate(every)]
                seeds = [s["auroc"] for s in scores]
                found[name][kind] = scores[0] | {"seeds": seeds, "seeds_ci95": interval(seeds)}
    return found


def _areas(every, synapse, kept, population, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Scores of one network, or the mean over several."""
    parts = [
        separate(m, s, kept & np.isfinite(m), population, draws=max(draws // len(synapse), 1), rng=rng)._asdict()
        for m, s in zip(every, synapse, strict=True)
    ]
    mean = {key: float(np.mean([p[key] for p in parts])) for key in parts[0]}
    if len(parts) > 1:
        half = interval([p["auroc"] for p in parts])
        mean |= {"low": mean["auroc"] - half, "high": mean["auroc"] + half}
    return mean


def _correlations(study: Study, networks: int, inhibitory: np.ndarray, max_lag_ms: float) -> np.ndarray:
    """Excess of coincidences after excitatory spikes, lack of them after inhibitory ones, for each network."""
    time, trial, neuron = read_events(study.recording)
    data, dt = open_recording(study.recording), study.windows.dt
    frames, lag = round(data.sizes["time"] * data.attrs["dt"] / dt), round(max_lag_ms / dt)
    first = round(study.config.discard_ms / dt)
    groups = [study.windows.trials("train")] if networks == 1 else study.windows.trials("test")[:, None]
    found = []
    for runs in groups:
        kept = np.isin(trial, runs) & (time > study.config.discard_ms)
        # Runs lie end to end, apart by more than the largest lag.
        step = np.rint(time[kept] / dt).astype(int) + np.searchsorted(runs, trial[kept]) * (frames + lag + 1)
        arguments = step, neuron[kept], len(inhibitory), (frames - first) * len(runs), lag
        more, fewer = cross_correlation(*arguments), cross_correlation(*arguments, fewer=True)
        found.append(np.where(inhibitory[:, None], fewer, more))
    return np.stack(found)
