r"""How well a matrix of scores between neurons tells who drives whom.

Matrices are `[pre, post]`. What they are judged against is the truth of a simulated network: who has a synapse on whom,
how strong it is, and the causal weight \(\Omega\), which also asks whether the spikes came in the right order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jneuro.core.types import Bool, Float, Int
from jneuro.evaluation.analysis import Study
from jneuro.evaluation.baselines import Linear
from jneuro.evaluation.comparison import Comparison, compare, compare_resampled
from jneuro.evaluation.metrics import interval
from jneuro.recordings import has_events, open_recording, populations_of, read_events

__all__ = [
    "Separation",
    "agreement",
    "auroc",
    "causal_weight",
    "cross_correlation",
    "linear_weights",
    "score_synapses",
    "separate",
]


class Separation(NamedTuple):
    """How well scores separate pairs of one kind from the others.

    Attributes:
        auroc: chance that a pair of the kind scores higher than another.
        low: 2.5 % quantile over resampled postsynaptic neurons.
        high: 97.5 % quantile.
        null_low: 2.5 % quantile with neurons shuffled within their populations.
        null_high: 97.5 % quantile.
        comparison: the area against the null's, with what the bounds and the null say together.
    """

    auroc: float
    low: float
    high: float
    null_low: float
    null_high: float
    comparison: Comparison


def auroc(
    score: Float[np.ndarray, " pair"],
    label: Bool[np.ndarray, " pair"],
    weight: Float[np.ndarray, " pair"] | None = None,
) -> float:
    """Area under the receiver operating characteristic: ties count half.

    Args:
        score: of each pair.
        label: whether it is of the kind.
        weight: how often each counts; once by default.

    Returns:
        The area; NaN if all pairs are of one kind.
    """
    return _area(np.unique(score, return_inverse=True)[1], label, np.ones(len(score)) if weight is None else weight)


def _area(place: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """The area from the scores' places among the different values."""
    inside, outside = (np.bincount(place, weight * (label == kind)) for kind in (True, False))
    below = np.cumsum(outside) - outside / 2
    total = inside.sum() * outside.sum()
    return float((inside * below).sum() / total) if total else float("nan")


def separate(
    score: Float[np.ndarray, "pre post"],
    label: Bool[np.ndarray, "pre post"],
    kept: Bool[np.ndarray, "pre post"],
    population: Int[np.ndarray, " post"],
    *,
    draws: int,
    rng: np.random.Generator,
) -> Separation:
    """Score a matrix against a kind of pair, with bounds and a null.

    Args:
        score: the matrix.
        label: which pairs are of the kind.
        kept: the pairs that count.
        population: of each neuron; presynaptic ones are the first.

    Other Args:
        draws: of the bootstrap, and of the shuffles.
        rng: draws them.

    Returns:
        The area and its quantiles.
    """
    pre, post = np.nonzero(kept)
    kinds, neurons = label[kept], score.shape[1]
    # A pair that a shuffle takes from where none counts, such as the diagonal, has the matrix's median.
    filled = np.where(kept, score, np.median(score[kept]))
    places = np.unique(filled, return_inverse=True)[1].reshape(filled.shape)
    once = np.ones(len(kinds))
    resampled, shuffled = [], []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, neurons, neurons), minlength=neurons)
        resampled.append(_area(places[kept], kinds, times[post].astype(float)))
        order = np.arange(neurons)
        for part in np.unique(population):
            order[population == part] = rng.permutation(order[population == part])
        shuffled.append(_area(places[order[pre], order[post]], kinds, once))
    low, high, null_low, null_high = (
        float(q) for x in (resampled, shuffled) for q in np.nanquantile(x, [0.025, 0.975])
    )
    area = _area(places[kept], kinds, once)
    judged = compare_resampled(area, np.array(resampled), np.array(shuffled), paired_by="target neuron", n=neurons)
    return Separation(area, low, high, null_low, null_high, judged)


def agreement(score: Float[np.ndarray, " pair"], truth: Float[np.ndarray, " pair"]) -> dict[str, float]:
    """How alike two matrices are, as vectors of pairs.

    Args:
        score: one.
        truth: the other.

    Returns:
        `cosine` (similarity) and `spearman` (rank correlation); NaN for a constant one.
    """
    from scipy.stats import rankdata  # costs most of a second

    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = score @ truth / (np.linalg.norm(score) * np.linalg.norm(truth))
        a, b = (x - x.mean() for x in (rankdata(score), rankdata(truth)))
        return {"cosine": float(cosine), "spearman": float(a @ b / np.sqrt((a @ a) * (b @ b)))}


def cross_correlation(
    step: Int[np.ndarray, " event"],
    neuron: Int[np.ndarray, " event"],
    neurons: int,
    steps: int,
    max_lag: int,
    *,
    fewer: bool = False,
) -> Float[np.ndarray, "pre post"]:
    r"""The largest excess of coincidences at any lag, \(\max_\ell (C_{ij}(\ell) - E_{ij}) / \sqrt{E_{ij}}\).

    \(C_{ij}(\ell)\) counts spikes of j that come \(\ell\) steps after one of i, and \(E_{ij} = n_i n_j / T\) is what
    independent neurons would have.

    Args:
        step: of each spike; runs lie apart by more than the largest lag.
        neuron: its neuron.
        neurons: how many there are.
        steps: recorded, in all.
        max_lag: the lags are 1 to this [steps].
        fewer: asks for the largest lack of coincidences instead, as after spikes of inhibitory neurons.

    Returns:
        The excess, or the lack; zero for neurons that never fire.
    """
    from scipy.sparse import coo_matrix

    shape = (int(step.max(initial=0)) + max_lag + 1, neurons)
    raster = coo_matrix((np.ones(len(step)), (step, neuron)), shape).tocsr()
    number = np.bincount(neuron, minlength=neurons).astype(float)
    expected = np.outer(number, number) / steps
    best, sign = np.full((neurons, neurons), -np.inf), -1 if fewer else 1
    for lag in range(1, max_lag + 1):
        best = np.maximum(best, sign * (raster[:-lag].T @ raster[lag:]).toarray())
    return np.divide(best - sign * expected, np.sqrt(expected), out=np.zeros_like(expected), where=expected > 0)


def causal_weight(
    weight: Float[np.ndarray, "pre post"],
    delay: Float[np.ndarray, "pre post"],
    time: Float[np.ndarray, " event"],
    neuron: Int[np.ndarray, " event"],
    tau: float,
) -> Float[np.ndarray, "pre post"]:
    r"""The causal weight, averaged over the spikes of each target.

    \[ \Omega_{ij} = W_{ij} \, e^{-(t_j - t_i)/\tau} \, H(t_j - t_i - \delta_{ij}), \]

    with \(t_j\) each spike of j and \(t_i\) the last of i that had arrived by then. (The source prints the exponent
    without its sign.)

    Args:
        weight: W, zero where there is no synapse.
        delay: δ [ms].
        time: of each spike [ms]; runs lie apart by many τ.
        neuron: its neuron.
        tau: τ [ms].

    Returns:
        Ω; zero for targets that never fire.

    References:
        Kulkarni et al., Neuro-Inspired Computational Elements Conference (2023).
    """
    trains = [np.sort(time[neuron == n]) for n in range(weight.shape[1])]
    found = np.zeros_like(weight)
    for i, j in zip(*np.nonzero(weight), strict=True):
        if len(trains[i]) and len(trains[j]):
            last = np.searchsorted(trains[i], trains[j] - delay[i, j], "right") - 1
            passed = np.where(last >= 0, trains[j] - trains[i][last], np.inf)
            found[i, j] = weight[i, j] * np.exp(-passed / tau).mean()
    return found


def linear_weights(study: Study) -> Float[np.ndarray, "post lag pre"] | None:
    """The weights of the vector autoregression at the nearest horizon; None if it is no baseline of the study.

    Args:
        study: the experiment.
    """
    linear = study.baselines.get("var")
    if not isinstance(linear, Linear):
        return None
    weights = np.asarray(linear.coefficients, np.float64)[:, :-1, 0]
    return weights.reshape(len(weights), linear.order, -1)


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
    population, kinds = np.asarray(data["population"]), populations_of(data)
    matrices = {name: [np.repeat(m[None], len(synapse), 0) for m in every] for name, every in pairs.items()}
    if (weights := linear_weights(study)) is not None:
        matrices["VAR weights"] = [np.repeat(np.linalg.norm(weights, axis=1).T[None], len(synapse), 0)]
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


def _areas(every, synapse, kept, population, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """Scores of one network, or the mean over several."""
    parts = [
        separate(m, s, kept & np.isfinite(m), population, draws=max(draws // len(synapse), 1), rng=rng)._asdict()
        for m, s in zip(every, synapse, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    mean = {key: float(np.mean([p[key] for p in parts])) for key in parts[0] if key != "comparison"}
    half = interval([p["auroc"] for p in parts])
    apart = [p["comparison"].difference for p in parts]
    return mean | {
        "low": mean["auroc"] - half,
        "high": mean["auroc"] + half,
        "comparison": compare(apart, paired_by="run"),
    }


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
