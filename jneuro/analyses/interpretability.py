"""What a voltage forecaster learned: from whom, over which lags, and with which of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field

from jneuro.core.random import stream
from jneuro.core.types import Bool, Float, Int
from jneuro.datasets import WindowConfig
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.attribution import (
    Attribution,
    input_groups,
    integrated_gradients,
    members,
    permuted_errors,
    shuffled_within,
)
from jneuro.evaluation.comparison import compare_ratios, holm
from jneuro.evaluation.connectivity_scores import score_synapses
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import interval, ratio_error
from jneuro.evaluation.protocols import SupportsAdjacency, SupportsConvolutions, SupportsGates
from jneuro.recordings import open_recording, populations_of
from jneuro.report.components import (
    Estimate,
    Plot,
    Section,
    Table,
    auroc_cell,
    auroc_estimate,
    estimate,
    forest,
    number,
    quantity,
)
from jneuro.report.style import COLOURS, GREY, INK, panels

__all__ = ["Interpretability", "convolution_share", "gate_statistics", "permutation_importance"]

_SATURATED = 0.1
"""A gate is saturated nearer than this to closed or to open, as in Karpathy, Johnson & Fei-Fei (2015)."""

_TEXT = """
{% for name, groups in importance.items() %}
{% set others = groups["all others"] %}
{% set partners = groups.values() | selectattr("more", "defined") | list %}
{{ name }}: without its own past, a neuron’s forecast loses {{ loss(groups["own past"]) }} of R², without all others
{{ loss(others) }}:
{% if "better" in [others.comparison.verdict] + partners | map(attribute="more.comparison.verdict") | list %}
it has learned from other neurons.
{% elif others.comparison.verdict == "worse" %}
what it takes from other neurons harms it.
{% else %}
nothing from other neurons that could be told from chance.
{% endif %}
{% for group, found in groups.items() if found.more is defined %}
{{ "Of these: " if loop.first }}{{ group }} {{ loss(found) }} (
{%- if found.more.comparison.verdict == "not told apart" %}
not told apart from as many
{%- else %}
{{ found.more.lost | abs | fixed(4) }} {{ "more" if found.more.lost > 0 else "less" }} than as many
{%- endif %}
 strangers){{ "." if loop.last else "," }}
{% endfor %}

{% endfor %}
{% for name, found in convolutions.items() %}
The convolutions of {{ name }} make up {{ found.input_share | percent(1) }} of the variance that its LSTM reads, and
change {{ found.output_share | percent(1) }} of that of its forecasts; with their output set to zero, R² goes from
{{ found.r2 | fixed(4) }} to {{ found.r2_without | fixed(4) }}. {{ beside[name] }} of their squared weights, one
convolution after the other, lie beside the neuron itself, on neurons with neighbouring indices, which means nothing in
a network of random connections.

{% endfor %}
{% if synapses is defined and importance %}
{% for name in importance %}
Synapses by integrated gradients of {{ name }}, AUROC:
{% for kind, found in synapses[name].items() %}
{{ kind }} ones {{ found | auroc }}, {{ "found" if found.comparison.verdict == "better" else "not found" }}
{{- "." if loop.last else ";" }}
{% endfor %}

{% endfor %}
{% for name, kinds in synapses.items() if name not in importance %}
{{ "Without a model: " if loop.first }}{{ name }}
{% for kind, found in kinds.items() %}
{{ kind }} {{ found | auroc }}{{ "," if not loop.last }}
{%- endfor %}
{{- "." if loop.last else ";" }}
{% endfor %}
{% endif %}
"""


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

    def compute(self, study: Study) -> Findings:
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

    def section(self, findings: Findings) -> Section:
        """For each model: does it learn from other neurons, and if so, from those that have a synapse?"""
        numbers = findings.numbers
        beside = {
            name: " and ".join(f"{1 - taps[len(taps) // 2]:.0%}" for taps in found["taps"])
            for name, found in numbers["convolutions"].items()
        }
        parts = (*_tables(numbers), *_plots(findings)) if numbers["importance"] else ()
        return Section("What the models learned, and from whom", _TEXT, parts, {"beside": beside, "loss": _loss})

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
            populations = {title: mask for title, mask in populations_of(data).items() if mask.any()}
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
    """Permutation importance: the R² that is lost when a group's inputs come from another window of the same run.

    Args:
        models: one for each seed.
        looked: the windows and the groups.

    Returns:
        For each group `lost`, the mean over seeds; `se`, its standard error, clustered by run; `seeds`, and `ci95`, the
        half width of their 95 % interval; `comparison` with nothing lost, paired by run, all groups judged together;
        and for partners `more`, what they lose more than strangers do, likewise.
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
    entries = found | {f"{name} more": entry["more"] for name, entry in found.items() if "more" in entry}
    for name, comparison in holm({name: entry["comparison"] for name, entry in entries.items()}).items():
        entries[name]["comparison"] = comparison
    return found


def _lost(rise: Float[np.ndarray, "seed run"], below: Float[np.ndarray, " run"]) -> dict[str, Any]:
    seeds = (rise.sum(1) / below.sum()).tolist()
    return {
        "lost": float(np.mean(seeds)),
        "se": ratio_error(rise.mean(0), below),
        "seeds": seeds,
        "ci95": interval(seeds),
        "comparison": compare_ratios(rise.mean(0), below),
    }


def _told(found: Attribution, looked: _Looked) -> Mapping[str, Any]:
    """How well the attributions add up, and each group's share of them."""
    missing = np.sqrt(np.mean(np.square(found.explained - found.change)) / np.mean(np.square(found.change)))
    amounts = dict(zip(looked.groups, found.lags.sum(1), strict=True))
    whole = amounts["own past"] + amounts["all others"]
    return {"incomplete": float(missing), "shares": {name: float(a / whole) for name, a in amounts.items()}}


def gate_statistics(
    model: SupportsGates, windows: Windows, starts: Int[np.ndarray, " window"]
) -> tuple[list[dict[str, Any]], list[Float[np.ndarray, " unit"]]]:
    r"""How open the gates are, and how long a unit remembers, \(-\Delta t / \ln \bar f\) with its mean forget gate.

    Args:
        model: the forecaster, which shows its gates.
        windows: the data.
        starts: first frame of each window.

    Returns:
        For each layer: `mean`, `closed` and `open` (shares of saturated values) by gate, and `memory_ms`, the quartiles
        over units; and each layer's memory unit by unit, ascending [ms].
    """
    graph, variables = nnx.split(model)

    @jax.jit
    def watch(variables, data, start):
        model, inputs = nnx.merge(graph, variables), data.gather(start).inputs

        def told(gate):
            return gate.mean((0, 1)), (gate < _SATURATED).mean((0, 1)), (gate > 1 - _SATURATED).mean((0, 1))

        return [{name: told(gate) for name, gate in layer._asdict().items()} for layer in model.gates(inputs)]

    layers, memories = [], []
    for layer in watch(variables, windows, jnp.asarray(starts)):
        entry: dict[str, Any] = {key: {} for key in ("mean", "closed", "open")}
        for name, values in layer.items():
            for key, value in zip(entry, values, strict=True):
                entry[key][name] = float(value.mean())
        memory = np.sort(-windows.dt / np.log(np.asarray(layer["forget"][0], np.float64)))
        layers.append(entry | {"memory_ms": np.quantile(memory, [0.25, 0.5, 0.75]).tolist()})
        memories.append(memory)
    return layers, memories


def convolution_share(
    model: SupportsConvolutions, windows: Windows, starts: Int[np.ndarray, " window"]
) -> dict[str, Any]:
    """What the convolutions add: to what the LSTM reads, and to the forecast at the nearest horizon.

    Args:
        model: the forecaster, which can do without its convolutions, of which it has one at least.
        windows: the data.
        starts: first frame of each window.

    Returns:
        `input_share`, the variance of the convolved features over that of what the LSTM reads; `output_share`, the
        variance of the change in the forecast when they are zero over that of the forecast; `r2` and `r2_without`, on
        these windows; and `taps`, the share of each convolution's squared weights by the offset of the neuron's index.
    """
    graph, variables = nnx.split(model)

    @jax.jit
    def spread(variables, data, start):
        inputs = data.gather(start).inputs
        whole = nnx.merge(graph, variables).augment(inputs, train=False)
        return (whole - inputs).var(0).sum() / whole.var(0).sum()

    pair: Any = (model, model.without_convolutions())
    said, silent = (forecast(m, windows, starts, batch_size=64)[:, 0].astype(np.float64) for m in pair)
    truth = targets(windows, starts)[:, 0]
    r2 = [float(1 - np.square(x - truth).sum() / np.square(truth - truth.mean(0)).sum()) for x in (said, silent)]
    return {
        "input_share": float(spread(variables, windows, jnp.asarray(starts))),
        "output_share": float((said - silent).var(0).sum() / said.var(0).sum()),
        "r2": r2[0],
        "r2_without": r2[1],
        "taps": [(np.asarray(w) / np.sum(w)).tolist() for w in model.taps()],
    }


def _error(found: Mapping[str, Any]) -> float:
    """The larger of the two standard errors that were measured: over runs, and over seeds."""
    seeds = np.asarray(found["seeds"], float)
    over = np.std(seeds, ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
    return float(np.fmax(number(found["se"]), over))


def _loss(found: Mapping[str, Any]) -> str:
    return estimate(found["lost"], _error(found), 4)


def _tables(numbers: Mapping[str, Any]) -> list[Table]:
    """Losses by group, attributions, synapses, gates."""
    settings, importance = numbers["settings"], numbers["importance"]
    models, groups = tuple(importance), settings["groups"]

    def lost(found: Mapping[str, Any]) -> str:
        seeds = f"; {', '.join(quantity(s, 4) for s in found['seeds'])}" if len(found["seeds"]) > 1 else ""
        return f"{_loss(found)}{seeds}"

    permuted = [(g, f"{settings['sizes'][g]:.1f}", *(lost(importance[m][g]) for m in models)) for g in groups]
    given = numbers["attribution"].values()
    told = [(group, *(f"{100 * a['shares'][group]:.1f} %" for a in given)) for group in groups]
    told.append(("missing", *(f"{100 * a['incomplete']:.2g} %" for a in given)))
    tables = [
        Table(
            "R² that is lost when a group’s inputs come from another window of the same run "
            f"({settings['windows']:,} windows of {settings['runs']} test runs): mean, one standard error (the larger "
            "of that over runs and that over seeds), seeds.",
            ("inputs", "neurons", *models),
            permuted,
        ),
        Table(
            "Integrated gradients: each group’s share of the absolute attributions, and what the sum of all "
            "attributions misses of the change in the forecast from that of the mean input.",
            ("inputs", *models),
            told,
        ),
    ]
    if "synapses" in numbers:
        kinds = list(dict.fromkeys(k for found in numbers["synapses"].values() for k in found))
        over = (
            "mean over the test runs, each with a network of its own, with 95 % bounds over runs"
            if settings["per_run"]
            else "with 95 % bounds over target neurons"
        )
        tables.append(
            Table(
                f"AUROC, the chance that a pair with a synapse scores higher than one without: {over}; null: shuffled "
                "neurons.",
                ("matrix", *(f"{k} synapses" for k in kinds)),
                [(n, *(auroc_cell(o) for o in map(f.get, kinds) if o)) for n, f in numbers["synapses"].items()],
            )
        )
    if numbers["gates"]:
        tables.append(_gate_table(numbers["gates"]))
    return tables


def _gate_table(gates: Mapping[str, Any]) -> Table:
    rows = []
    for name, layers in gates.items():
        for k, layer in enumerate(layers):
            cells = [
                f"{layer['mean'][g]:.2f} ({100 * layer['closed'][g]:.0f} %, {100 * layer['open'][g]:.0f} %)"
                for g in ("input", "forget", "output")
            ]
            low, middle, high = layer["memory_ms"]
            rows.append((f"{name}, layer {k + 1}", *cells, f"{middle:.1f} ({low:.1f} to {high:.1f})"))
    caption = (
        "Gates: mean (share below 0.1, share above 0.9), and the memory −Δt / ln of a unit’s mean forget gate [ms]: "
        "median and quartiles over units."
    )
    return Table(caption, ("layer", "input gate", "forget gate", "output gate", "memory"), rows)


def _plots(findings: Findings) -> list[Plot]:
    """Importance by group, attribution by lag, synapses, and the LSTM's memory."""
    numbers = findings.numbers
    lost = [
        Estimate(group, c.difference, *c.ci95, series=name)
        for name, found in numbers["importance"].items()
        for group in numbers["settings"]["groups"]
        for c in [found[group]["comparison"]]
    ]
    plots = [
        Plot(
            "importance",
            "Whose past the forecast needs",
            "R² that is lost when the past of a group of neurons is taken from another window, for every model, with "
            "95 % bounds; the groups are the neuron itself, others by population, synaptic partners and strangers.",
            "The axis is linear near zero and logarithmic beyond. A model that knows who talks to whom needs partners, "
            "not strangers.",
            forest({"": lost}, "R² lost (95 % bounds over runs)", linear_below=1e-3),
        ),
        Plot(
            "attribution_lags",
            "Over which lags",
            "Mean absolute attribution, by integrated gradients, of the neuron’s own past, of its partners and of "
            "strangers against the time before the last sample, one panel for each model.",
            "Solid: own past and partners; dotted: strangers. Spikes take 1.5 ms, so those of the last milliseconds "
            "are still under way.",
            _draw_lags(findings),
        ),
    ]
    if numbers.get("synapses"):
        plots.append(_synapse_plot(numbers))
    if numbers["gates"]:
        plots.append(
            Plot(
                "lstm_parts",
                "Memory of the LSTM, and reach of the convolutions",
                "Share of LSTM units whose memory is shorter than a time, for every layer, and, where there are "
                "convolutions, the share of their squared weights by the offset of the neuron’s index.",
                "Memory is what a unit’s mean forget gate keeps. Weights off zero mix neurons whose numbers are close, "
                "which no network here cares for.",
                _draw_memory(findings),
            )
        )
    return plots


def _synapse_plot(numbers: Mapping[str, Any]) -> Plot:
    """Areas of every matrix, one panel for each kind of synapse."""
    synapses = numbers["synapses"]
    drawn = {
        f"{kind} synapses": [
            auroc_estimate(name, found[kind], COLOURS[0] if name in numbers["importance"] else GREY)
            for name, found in synapses.items()
        ]
        for kind in next(iter(synapses.values()))
    }
    return Plot(
        "attribution_synapses",
        "Do attributions find the synapses?",
        "Chance that a pair of neurons with a synapse scores higher than one without, for the attributions of every "
        "model, the weights of a vector autoregression and the cross-correlation of spikes, with bounds and the range "
        "of shuffled neurons.",
        "Blue: models. Grey: what needs no model of voltages. Bars of grey: shuffled neurons.",
        forest(drawn, "AUROC", reference=0.5),
    )


def _draw_lags(findings: Findings):
    """Mean absolute attribution by lag, one panel a model, one line a group."""
    models, settings = list(findings.numbers["importance"]), findings.numbers["settings"]
    groups = [g for g in settings["groups"] if g == "own past" or g.endswith(("partners", "strangers"))]
    groups = groups if len(groups) > 1 else settings["groups"]
    styles = {"own past": (INK, "-")}
    others = [g for g in groups if g != "own past"]
    kinds = list(dict.fromkeys(g.split()[0] for g in others))
    for g in others:
        styles[g] = (("#D55E00", "#0072B2", "#009E73")[kinds.index(g.split()[0]) % 3], ":" if "strang" in g else "-")
    figure, axes = panels(2.3 * len(models) + 0.5, rows=len(models), sharex=True)
    for ax, name in zip(axes, models, strict=True):
        lags = findings.arrays[f"lags.{name}"][1]
        shown = min(lags.shape[1], 40)
        time = np.arange(shown) * settings["lag_ms"]
        for group in groups:
            colour, style = styles[group]
            line = lags[settings["groups"].index(group), :shown]
            ax.plot(time, np.where(line > 0, line, np.nan), color=colour, linestyle=style, label=group, linewidth=1.3)
        ax.set_yscale("log")
        ax.set_ylabel("|attribution| [z]")
        ax.set_title(name, fontsize=9)
    axes[-1].set_xlabel("before the last sample [ms]")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _draw_memory(findings: Findings):
    """Memory of the LSTM units, sorted, and squared weights of the convolutions by offset."""
    gates, convolutions = findings.numbers["gates"], findings.numbers["convolutions"]
    figure, axes = panels(2.8, columns=2 if convolutions else 1)
    for k, (name, layers) in enumerate(gates.items()):
        for layer in range(len(layers)):
            memory = findings.arrays[f"memory.{name}.{layer}"][1]
            label = name if len(layers) == 1 else f"{name}, {layer + 1}"
            share = (np.arange(len(memory)) + 0.5) / len(memory)
            axes[0].plot(memory, share, color=COLOURS[k % 4], linestyle=("-", "--", ":")[layer % 3], label=label)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("memory [ms]")
    axes[0].set_ylabel("share of units below")
    axes[0].legend(frameon=False, fontsize=7)
    for k, (name, found) in enumerate(convolutions.items()):
        for number_, taps in enumerate(found["taps"]):
            offset = np.arange(len(taps)) - (len(taps) - 1) // 2
            style = ("-", "--", ":")[number_ % 3]
            label = f"{name}, {number_ + 1}"
            axes[1].plot(offset, taps, color=COLOURS[k % 4], linestyle=style, marker="o", markersize=4, label=label)
    if convolutions:
        axes[1].set_ylim(bottom=0)
        axes[1].set_xlabel("offset of the neuron’s index")
        axes[1].set_ylabel("share of squared weights")
        axes[1].legend(frameon=False, fontsize=7)
    return figure
