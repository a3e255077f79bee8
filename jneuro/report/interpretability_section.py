"""The section on what a voltage forecaster learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import COLOURS, ReportData, number
from jneuro.report.prose import auroc
from jneuro.report.style import INK, panels

__all__ = [
    "draw_importance",
    "draw_lags",
    "draw_memory",
    "draw_synapses",
    "say_interpretability",
    "tabulate_interpretability",
]

_SURE = 1.96
"""Standard errors in 95 % bounds."""

_LEAST = 5e-5
"""A smaller loss in R² is zero to the four decimals that are shown."""


def say_interpretability(numbers: Mapping[str, Any]) -> list[str]:
    """For each model: does it learn anything from other neurons, and if so, from those that have a synapse?"""
    said = [_from_others(name, found) for name, found in numbers["importance"].items()]
    said += [_from_convolutions(name, found) for name, found in numbers["convolutions"].items()]
    if "synapses" in numbers and numbers["importance"]:
        said += _from_synapses(numbers)
    return said


def _from_others(name: str, found: Mapping[str, Any]) -> str:
    """Own past against all others, partners against strangers."""
    own, others = found["own past"], found["all others"]
    text = f"{name}: without its own past, a neuron’s forecast loses {_loss(own)} of R², without all others "
    text += _loss(others)
    partners = [g["more"] for g in found.values() if "more" in g]
    if any(g["lost"] > max(_SURE * _error(g), _LEAST) for g in (others, *partners)):
        text += ": it has learned from other neurons"
    elif others["lost"] < -max(_SURE * _error(others), _LEAST):
        text += ": what it takes from other neurons harms it"
    else:
        text += ": nothing from other neurons that could be told from chance"
    told = [
        f"{n} {_loss(g)} ({_versus(g['more'])} strangers)"
        for n, g in found.items()
        if "more" in g and max(abs(g["lost"]), _error(g)) > _LEAST
    ]
    return f"{text}. Of these: {', '.join(told)}." if told else f"{text}."


def _versus(more: Mapping[str, Any]) -> str:
    if more["lost"] > _SURE * _error(more):
        return f"{more['lost']:.4f} more than as many"
    if more["lost"] < -_SURE * _error(more):
        return f"{-more['lost']:.4f} less than as many"
    return "not told apart from as many"


def _error(found: Mapping[str, Any]) -> float:
    """The larger of the two errors that were measured: over runs, and over seeds."""
    seeds = np.asarray(found["seeds"], float)
    over = np.std(seeds, ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
    return float(np.fmax(number(found["se"]), over))


def _loss(found: Mapping[str, Any]) -> str:
    return f"{found['lost']:.4f} ± {_error(found):.4f}".replace("-", "−")


def _from_convolutions(name: str, found: Mapping[str, Any]) -> str:
    """What the convolutions add, and whether that comes from other neurons."""
    beside = " and ".join(f"{1 - taps[len(taps) // 2]:.0%}" for taps in found["taps"])
    return (
        f"The convolutions of {name} make up {found['input_share']:.1%} of the variance that its LSTM reads, and "
        f"change {found['output_share']:.1%} of that of its forecasts; with their output set to zero, R² goes from "
        f"{found['r2']:.4f} to {found['r2_without']:.4f}. {beside} of their squared weights, one convolution after the "
        "other, lie beside the neuron itself, on neurons with neighbouring indices, which means nothing in a network "
        "of random connections."
    )


def _from_synapses(numbers: Mapping[str, Any]) -> list[str]:
    """Whether attributions find the synapses."""
    said = []
    for name in numbers["importance"]:
        told = []
        for kind, one in numbers["synapses"][name].items():
            found = one["auroc"] > one["null_high"] and one["low"] > 0.5
            told.append(f"{kind} ones {auroc(one)}, {'found' if found else 'not found'}")
        said.append(f"Synapses by integrated gradients of {name}, AUROC: {'; '.join(told)}.")
    rivals = {name: found for name, found in numbers["synapses"].items() if name not in numbers["importance"]}
    told = [f"{name} {', '.join(f'{k} {auroc(o)}' for k, o in found.items())}" for name, found in rivals.items()]
    return [*said, f"Without a model: {'; '.join(told)}."] if told else said


def tabulate_interpretability(numbers: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Losses by group, attributions, synapses, gates.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of each table.
    """
    settings, importance = numbers["settings"], numbers["importance"]
    if not importance:
        return []
    models = tuple(importance)
    size = settings["sizes"]
    rows = [
        (group, f"{size[group]:.1f}", *(_loss_by_seed(importance[m][group]) for m in models))
        for group in settings["groups"]
    ]
    caption = (
        "R² that is lost when a group’s inputs come from another window of the same run "
        f"({settings['windows']:,} windows of {settings['runs']} test runs): mean, one standard error (the larger of "
        "that over runs and that over seeds), seeds."
    )
    tables: list[Any] = [(caption, ("inputs", "neurons", *models), rows)]
    given = numbers["attribution"].values()
    told = [(group, *(f"{100 * a['shares'][group]:.1f} %" for a in given)) for group in settings["groups"]]
    told.append(("missing", *(f"{100 * a['incomplete']:.2g} %" for a in given)))
    caption = (
        "Integrated gradients: each group’s share of the absolute attributions, and what the sum of all attributions "
        "misses of the change in the forecast from that of the mean input."
    )
    tables.append((caption, ("inputs", *models), told))
    if "synapses" in numbers:
        tables.append(_synapse_table(numbers["synapses"], settings["per_run"]))
    if numbers["gates"]:
        tables.append(_gate_table(numbers["gates"]))
    return tables


def _loss_by_seed(found: Mapping[str, Any]) -> str:
    seeds = f"; {', '.join(f'{s:.4f}' for s in found['seeds'])}" if len(found["seeds"]) > 1 else ""
    return f"{_loss(found)}{seeds}".replace("-", "−")


def _synapse_table(synapses: Mapping[str, Any], per_run: bool):
    kinds = list(dict.fromkeys(k for found in synapses.values() for k in found))
    rows = []
    for name, found in synapses.items():
        cells = [f"{auroc(o)}; null {o['null_low']:.3f} to {o['null_high']:.3f}" for o in map(found.get, kinds) if o]
        rows.append((name, *cells))
    of = "mean over the test runs, each with a network of its own, with 95 % bounds over runs" if per_run else ""
    of = of or "with 95 % bounds over target neurons"
    caption = (
        f"AUROC, the chance that a pair with a synapse scores higher than one without: {of}; null: shuffled neurons."
    )
    return caption, ("matrix", *(f"{k} synapses" for k in kinds)), rows


def _gate_table(gates: Mapping[str, Any]):
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
    return caption, ("layer", "input gate", "forget gate", "output gate", "memory"), rows


def draw_importance(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """R² lost by group of inputs, one colour a model, on a symmetric logarithm: own past outweighs all else.

    Args:
        data: the report's.
        arrays: none are needed.
    """
    numbers = data.analyses["interpretability"][0]
    models, groups = numbers["importance"], numbers["settings"]["groups"]
    if not models:
        return None
    figure, (ax,) = panels(0.36 * len(groups) + 1.2)
    for k, (name, found) in enumerate(models.items()):
        at = np.arange(len(groups)) + 0.7 * ((k + 0.5) / len(models) - 0.5)
        lost = [found[g]["lost"] for g in groups]
        error = [_SURE * _error(found[g]) for g in groups]
        ax.errorbar(lost, at, xerr=error, linestyle="", marker="o", markersize=4, color=COLOURS[k % 4], label=name)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_xscale("symlog", linthresh=1e-3)
    ax.set_yticks(range(len(groups)), groups)
    ax.invert_yaxis()
    ax.set_xlabel("R² lost (95 % bounds)")
    ax.legend(frameon=False, fontsize=8)
    return figure


def draw_lags(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """Mean absolute attribution by lag, one panel a model, one line a group.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    numbers = data.analyses["interpretability"][0]
    models, settings = list(numbers["importance"]), numbers["settings"]
    if not models:
        return None
    groups = [g for g in settings["groups"] if g == "own past" or g.endswith(("partners", "strangers"))]
    groups = groups if len(groups) > 1 else settings["groups"]
    styles = {"own past": (INK, "-")}
    others = [g for g in groups if g != "own past"]
    kinds = list(dict.fromkeys(g.split()[0] for g in others))
    for g in others:
        styles[g] = (("#D55E00", "#0072B2", "#009E73")[kinds.index(g.split()[0]) % 3], ":" if "strang" in g else "-")
    figure, axes = panels(2.3 * len(models) + 0.5, rows=len(models), sharex=True)
    for ax, name in zip(axes, models, strict=True):
        lags = arrays[f"lags.{name}"]
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


def draw_synapses(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """AUROC of attributions, linear weights and cross-correlation with bounds and null; None without a truth.

    Args:
        data: the report's.
        arrays: none are needed.
    """
    numbers = data.analyses["interpretability"][0]
    synapses = numbers.get("synapses")
    if not synapses:
        return None
    kinds, names = list(next(iter(synapses.values()))), list(reversed(synapses))
    figure, axes = panels(0.36 * len(names) + 1.2, columns=len(kinds), sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        for place, name in enumerate(names):
            one = synapses[name][kind]
            ax.fill_betweenx([place - 0.3, place + 0.3], one["null_low"], one["null_high"], color="#d9d9d9")
            colour = COLOURS[0] if name in numbers["importance"] else "#7d7d7d"
            error = [[max(one["auroc"] - one["low"], 0)], [max(one["high"] - one["auroc"], 0)]]
            ax.errorbar(one["auroc"], place, xerr=error, marker="o", markersize=4, color=colour)
            ax.plot(one["seeds"], [place] * len(one["seeds"]), linestyle="", marker="|", color=colour)
        ax.axvline(0.5, color=INK, linewidth=0.8)
        ax.set_title(f"{kind} synapses", fontsize=9)
        ax.set_xlabel("AUROC")
    axes[0].set_yticks(range(len(names)), names)
    return figure


def draw_memory(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure | None:
    """Memory of the LSTM units, sorted, and squared weights of the convolutions by offset; None without an LSTM.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    numbers = data.analyses["interpretability"][0]
    gates, convolutions = numbers["gates"], numbers["convolutions"]
    if not gates:
        return None
    figure, axes = panels(2.8, columns=2 if convolutions else 1)
    for k, (name, layers) in enumerate(gates.items()):
        for layer in range(len(layers)):
            memory = arrays[f"memory.{name}.{layer}"]
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
