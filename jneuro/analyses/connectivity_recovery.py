"""What a model's attention says of who drives whom, beside its sensitivity, linear weights and cross-correlation."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field

from jneuro.core.random import stream
from jneuro.core.types import Bool, Float, Int
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.connectivity_scores import agreement, causal_weight, cross_correlation, linear_weights, separate
from jneuro.evaluation.forecasts import observe
from jneuro.evaluation.metrics import interval
from jneuro.evaluation.protocols import SupportsSynapses
from jneuro.models.base import forward
from jneuro.recordings import open_recording, read_events, read_state
from jneuro.report.components import Plot, Section, Table, auroc_cell, auroc_estimate, forest, number, quantity
from jneuro.report.style import COLOURS, GREY
from jneuro.simulators.simulation import first_state

__all__ = ["ConnectivityRecovery", "attention_matrices", "sensitivity"]

_TEXT = """
{% if not settings %}
No reservoir stands behind this recording, so there is no truth to compare with.
{% else %}
{{ settings.pairs }} pairs whose first neuron is excitatory, from {{ settings.runs }} training runs. Plastic weights at
the first and the last snapshot of a run correlate by {{ settings.weight_drift | fixed(3) }}.

{% for kind, best in best_of.items() %}
{% set mine = matrices[best].neurons[kind] %}
{{ kind | capital }} ({{ settings.share[kind] | percent(1) }} of the pairs): {{ best }} has AUROC {{ mine | auroc }},
{% if mine.comparison.verdict == "not told apart" %}
not told apart from shuffled neurons
{% else %}
{{ mine.comparison.verdict }} than shuffled neurons
{% endif %}
({{ mine.null_low | fixed(3) }} to {{ mine.null_high | fixed(3) }}); the spikes' cross-correlation has
{{ matrices["cross-correlation"].neurons[kind] | auroc }}.

{% endfor %}
{% endif %}
"""

_GAP_MS = 1000.0
"""Silence laid between the runs, longer than any lag or time constant [ms]."""


class ConnectivityRecovery(Analysis):
    """Whether neurons that a model attends to alike, or reacts to, are those that drive each other.

    Asked of pairs whose first neuron is excitatory. All matrices are made from training runs; weights are their mean.

    Attributes:
        attention: a model of kind `neuron_tft`.
        counts: a model that predicts the spikes of all neurons from theirs; null leaves its sensitivity out.
        windows: of the training runs, in which attention and sensitivity are observed.
        max_lag_ms: the cross-correlation's lags end here [ms].
        tau_ms: time constant of the causal weight [ms].
        strong: share of the greatest weight from which a synapse is strong.
        draws: of the bootstrap over target neurons, and of the shuffles of the null.
    """

    name: Literal["connectivity_recovery"] = "connectivity_recovery"
    attention: str
    counts: str | None = None
    windows: int = Field(default=64, ge=2)
    max_lag_ms: float = Field(default=25.0, gt=0)
    tau_ms: float = Field(default=20.0, gt=0)
    strong: float = Field(default=0.5, gt=0, lt=1)
    draws: int = Field(default=200, ge=20)

    def check(self, windows, models) -> None:
        """Needs its models."""
        for key in ("attention", "counts"):
            wanted = getattr(self, key)
            if wanted is not None and wanted not in models:
                raise ValueError(f"connectivity_recovery: {key} = {wanted!r} is none of the models {', '.join(models)}")

    def compute(self, study: Study) -> Findings:
        """Score every matrix against every truth; nothing where no network that lists its synapses is known."""
        source = study.source
        if source is None or not isinstance(source.simulator, SupportsSynapses):
            return Findings({"settings": None})
        truth = _truth(study, source.simulator, self.tau_ms)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, "connectivity"))))
        strongest = float(source.simulator.weight_max)
        labels = {
            "synapse": truth.delay > 0,
            "strong synapse": truth.weight >= self.strong * strongest,
            "large Ω": truth.omega > np.median(truth.omega[truth.omega > 0]),
        }
        kept = np.zeros(truth.weight.shape, bool)
        kept[truth.excitatory] = True
        np.fill_diagonal(kept, False)
        scored, arrays = {}, {}
        for name, every in self._matrices(study, truth).items():
            study.tell(f"connectivity from {name}")
            scored[name] = {"neurons": {}, "agreement": {}}
            for kind, label in labels.items():
                first = separate(every[0], label, kept, truth.population, draws=self.draws, rng=rng)._asdict()
                others = [separate(m, label, kept, truth.population, draws=1, rng=rng).auroc for m in every[1:]]
                seeds = [first["auroc"], *others]
                scored[name]["neurons"][kind] = first | {"seeds": seeds, "seeds_ci95": interval(seeds)}
            for what, matrix in {"W": truth.weight, "Ω": truth.omega}.items():
                scored[name]["agreement"][what] = agreement(every[0][kept], matrix[kept])
            arrays[name.replace(" ", "_")] = (("pre", "post"), every[0].astype(np.float32))
        arrays["weight"] = (("pre", "post"), truth.weight.astype(np.float32))
        settings = {
            "pairs": int(kept.sum()),
            "share": {kind: float(label[kept].mean()) for kind, label in labels.items()},
            "runs": len(study.windows.trials("train")),
            "weight_drift": truth.drift,
            "draws": self.draws,
        }
        return Findings({"settings": settings, "matrices": scored}, arrays)

    def section(self, findings: Findings) -> Section:
        """For each kind of pair: does attention leave its null, and does it reach the cross-correlation?"""
        title, numbers = "What attention says of the connections", findings.numbers
        if not numbers["settings"]:
            return Section(title, _TEXT)
        matrices, kinds = numbers["matrices"], list(numbers["settings"]["share"])
        of_attention = [name for name in matrices if name.startswith("attention")]
        best = {k: max(of_attention, key=lambda n: number(matrices[n]["neurons"][k]["auroc"])) for k in kinds}
        alike = [
            (name, *(quantity(found["agreement"][w][key], 3) for w in ("W", "Ω") for key in ("cosine", "spearman")))
            for name, found in matrices.items()
        ]
        rows = [(name, *(auroc_cell(found["neurons"][k]) for k in kinds)) for name, found in matrices.items()]
        drawn = {
            kind: [
                auroc_estimate(name, found["neurons"][kind], COLOURS[0] if name in of_attention else GREY)
                for name, found in matrices.items()
            ]
            for kind in kinds
        }
        heads = ("matrix", "cosine with W", "rank correlation with W", "cosine with Ω", "rank correlation with Ω")
        parts = (
            Table(
                "AUROC: the chance that a pair of the kind scores higher than another, with 95 % bounds over target "
                "neurons; null: 95 % of shuffles of the neurons within their populations.",
                ("matrix", *kinds),
                rows,
            ),
            Table("Likeness to the weights W and the causal weights Ω.", heads, alike),
            Plot(
                "connectivity_recovery",
                "Who drives whom",
                "Chance that a connected pair of neurons scores higher than another, for every matrix of scores, with "
                "bounds and the range of shuffled neurons, one panel for each kind of pair.",
                "Blue: how alike two neurons attend to their pasts. Grey: what does not need attention. A point within "
                "its band says no more than which population the neurons belong to.",
                forest(drawn, "AUROC", reference=0.5),
            ),
        )
        return Section(title, _TEXT, parts, {"best_of": best})

    def _matrices(self, study: Study, truth: "_Truth") -> Mapping[str, list[np.ndarray]]:
        """The matrices by name, one for each seed of a model."""
        windows = study.windows_of[self.attention]
        found: dict[str, list[np.ndarray]] = {"attention similarity": [], "attention correlation": []}
        for model in study.models[self.attention]:
            similar, correlated = attention_matrices(_attention(model, windows, _some(windows, self.windows)))
            found["attention similarity"].append(similar)
            found["attention correlation"].append(correlated)
        if self.counts is not None:
            windows = study.windows_of[self.counts]
            starts = _some(windows, self.windows)
            found["sensitivity"] = [sensitivity(m, windows, starts) for m in study.models[self.counts]]
        weights = linear_weights(study)
        if weights is not None and study.windows.features == study.windows.outputs:
            found["linear weights"] = [weights.astype(np.float32).sum(1).T]
        step, neuron = np.rint(truth.time / truth.dt).astype(int), truth.neuron
        lag = round(self.max_lag_ms / truth.dt)
        found["cross-correlation"] = [cross_correlation(step, neuron, len(truth.population), truth.steps, lag)]
        return found


class _Truth(NamedTuple):
    """The network, and the spikes of the training runs laid end to end.

    Attributes:
        weight: mean over the runs and their snapshots [pA].
        delay: of each synapse [ms]; zero where there is none.
        omega: the causal weight [pA].
        drift: correlation of the weights at the first snapshot and at the last, of the plastic synapses.
        population: of each neuron.
        excitatory: neurons whose synapses excite, all of them.
        time: of each spike [ms].
        neuron: its neuron.
        steps: recorded, in all runs.
        dt: the time step [ms].
    """

    weight: Float[np.ndarray, "pre post"]
    delay: Float[np.ndarray, "pre post"]
    omega: Float[np.ndarray, "pre post"]
    drift: float
    population: Int[np.ndarray, " neuron"]
    excitatory: Bool[np.ndarray, " neuron"]
    time: Float[np.ndarray, " event"]
    neuron: Int[np.ndarray, " event"]
    steps: int
    dt: float


def _truth(study: Study, simulator: Any, tau: float) -> _Truth:
    """Read it from the recording."""
    data, runs = open_recording(study.recording), study.windows.trials("train")
    stored = read_state(
        study.recording, jax.eval_shape(lambda key: first_state(simulator, key), study.key), slice(None)
    )
    rows = np.asarray(stored.y.weights)[runs]
    synapses = simulator.synapses()
    listed = lambda w: np.asarray(simulator.weights(stored.y._replace(weights=jnp.asarray(w))))  # noqa: E731
    place, plastic = (np.asarray(synapses.pre), np.asarray(synapses.post)), np.asarray(synapses.plastic)
    weight, delay = np.zeros((2, simulator.neurons, simulator.neurons))
    weight[place], delay[place] = listed(rows.mean((0, 1))), np.asarray(synapses.delay)
    early, late = (listed(rows[0, at])[plastic] for at in (0, -1))
    time, trial, neuron = read_events(study.recording)
    kept = np.isin(trial, runs) & (time > study.config.discard_ms)
    duration = data.sizes["time"] * data.attrs["dt"]
    time = time[kept] + np.searchsorted(runs, trial[kept]) * (duration + _GAP_MS)
    excitatory = np.all(weight >= 0, axis=1)
    omega = causal_weight(np.where(excitatory[:, None], weight, 0), delay, time, neuron[kept], tau)
    steps = round((duration - study.config.discard_ms) / simulator.dt) * len(runs)
    population = np.asarray(data["population"])
    drift = float(np.corrcoef(early, late)[0, 1])
    return _Truth(weight, delay, omega, drift, population, excitatory, time, neuron[kept], steps, simulator.dt)


def _some(windows: Windows, count: int) -> np.ndarray:
    """Training windows, evenly spaced."""
    starts = np.asarray(windows.starts["train"])
    return starts[np.unique(np.linspace(0, len(starts) - 1, count).round().astype(int))]


def _attention(model: nnx.Module, windows: Windows, starts: np.ndarray) -> Float[np.ndarray, "window neuron time"]:
    """Attention at the first horizon to the past."""
    pick = lambda prediction: prediction.diagnostics["attention"][:, :, 0, : windows.length]  # noqa: E731
    return observe(model, windows, starts, pick, batch_size=8)


def attention_matrices(
    attention: Float[np.ndarray, "window neuron time"],
) -> tuple[Float[np.ndarray, "pre post"], Float[np.ndarray, "pre post"]]:
    """How alike neurons attend to their pasts: cosine similarity, and correlation over windows and times.

    Args:
        attention: of each neuron to each time of its past.

    Returns:
        Both matrices, which are symmetric.
    """
    rows = np.moveaxis(attention.astype(np.float64), 1, 0).reshape(attention.shape[1], -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows - rows.mean(1, keepdims=True)
    spread = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, spread, out=np.zeros_like(rows), where=spread > 0)
    return unit @ unit.T, rows @ rows.T


def sensitivity(model: Any, windows: Windows, starts: np.ndarray) -> Float[np.ndarray, "pre post"]:
    """Mean derivative of what is predicted of each neuron with respect to what another one did, at all times together.

    Args:
        model: predicts all that it observes.
        windows: its own.
        starts: of those to average over.

    Returns:
        The derivatives, at the first horizon.
    """
    graph, variables = nnx.split(model)
    batch = windows.gather(jnp.asarray(starts))

    def said(inputs, variables):
        return forward(nnx.merge(graph, variables), batch._replace(inputs=inputs)).mean[:, 0].mean(0)

    @jax.jit
    def rows(variables):
        # In reverse mode, which the LSTM's own rule allows: one pass for each neuron that is predicted.
        back = jax.vjp(lambda x: said(x, variables), batch.inputs)[1]
        return jax.lax.map(
            lambda n: back(jnp.zeros(windows.outputs).at[n].set(1))[0].sum((0, 1)), jnp.arange(windows.outputs)
        )

    return np.asarray(rows(variables), np.float64).T
