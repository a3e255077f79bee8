"""The part of a fit's report on uncertainty: profiles, the posterior, calibration, and the features of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.components import number, quantity
from jneuro.report.page import inline
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, WIDTH, panels, save

__all__ = ["draw_posterior", "draw_profiles", "draw_ranks", "network_section", "posterior_section", "profile_section"]

Numbers = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_LEVELS = {"68 %": 1.0, "95 %": 3.841}
_PAIRS = 6
"""Values of a figure of pairs."""


def profile_section(folder: Path, metrics: Numbers, arrays: Arrays) -> dict[str, Any] | None:
    """Profiles of the likelihood, or None.

    Args:
        folder: where figures go.
        metrics: of the fit.
        arrays: of the fit.
    """
    found = metrics.get("profiles")
    if not found:
        return None
    rows = []
    for p in found:
        se = number(metrics["parameters"][p["name"]]["se"])
        ends = [_interval(p["intervals"][level]) for level in _LEVELS]
        rows.append([p["name"], *ends, f"± {1.96 * se:.3g}", "–" if p["truth"] is None else f"{p['truth']:g}"])
    columns = ["Parameter", *(f"Profile, {level}" for level in _LEVELS), "Curvature, 95 %", "Truth"]
    table = {
        "caption": "Intervals from the profile of the likelihood; ‘open’ where it does not rise enough.",
        "columns": columns,
        "rows": rows,
    }
    caption = (
        "Signed root of twice the likelihood lost when one value is held and all others are fitted again; a straight "
        "line if the curvature says all. Grey: 95 %; orange: the truth."
    )
    figure = _figure(folder, "profiles", "Profiles of the likelihood", draw_profiles(found, arrays), caption)
    return {"title": "Profiles", "sentences": [], "tables": [table], "figures": [figure]}


def _interval(ends: Any) -> str:
    low, high = (number(x) for x in ends)
    return f"{'open' if not np.isfinite(low) else f'{low:.4g}'} … {'open' if not np.isfinite(high) else f'{high:.4g}'}"


def draw_profiles(found: Any, arrays: Arrays) -> Figure:
    """The signed root of every profile.

    Args:
        found: the profiles of the metrics.
        arrays: of the fit.
    """
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure, axes = panels(0.3 + 2.0 * rows, rows, columns)
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    for i, (p, ax) in enumerate(zip(found, axes, strict=False)):
        value, excess = arrays[f"profile_{i}_value"], arrays[f"profile_{i}_excess"]
        best = int(np.argmin(excess))
        root = np.sqrt(np.maximum(excess, 0)) * np.sign(np.arange(len(value)) - best)
        ax.axhspan(-(_LEVELS["95 %"] ** 0.5), _LEVELS["95 %"] ** 0.5, color="#eeeeee", zorder=0)
        ax.plot(value, root, "o-", color=INHIBITORY, markersize=3, linewidth=1)
        if p["truth"] is not None:
            ax.axvline(p["truth"], color=EXCITATORY, linewidth=0.9)
        ax.set_xlabel(p["name"], color=INK, fontsize=9)
        ax.set_ylabel("signed root", color=INK, fontsize=9)
    return figure


def posterior_section(folder: Path, metrics: Numbers, arrays: Arrays) -> dict[str, Any] | None:
    """The posterior and the calibration of its sampler, or None.

    Args:
        folder: where figures go.
        metrics: of the fit.
        arrays: of the fit.
    """
    found = metrics.get("posterior")
    if not found:
        return None
    names = list(found["values"])
    rows = [
        [
            name,
            f"{v['mean']:.5g}",
            f"{v['sd']:.2g}",
            f"{number(metrics['parameters'][name]['se']):.2g}",
            f"{v['low']:.4g} … {v['high']:.4g}",
            "–" if found["truth"][name] is None else f"{found['truth'][name]:g}",
            quantity(number(v["r_hat"]), 3),
            f"{number(v['ess']):,.0f}",
        ]
        for name, v in found["values"].items()
    ]
    columns = ["Parameter", "Mean", "SD", "Curvature SE", "95 %", "Truth", "R-hat", "ESS"]
    table = {
        "caption": f"Posterior, NUTS: {found['chains']} chains of {found['draws']} draws; {found['divergences']} "
        f"diverged, mean acceptance {found['acceptance']:.2f}, {found['gradients']:,} gradients.",
        "columns": columns,
        "rows": rows,
    }
    figures = [
        _figure(
            folder,
            "posterior",
            "Posterior",
            draw_posterior(names, arrays["posterior"], found["truth"]),
            "Draws of all chains, in pairs, and each alone; orange: the truth.",
        )
    ]
    said = [
        "The chains agree."
        if found["ok"]
        else "The chains have not converged (R-hat above 1.01, fewer than 100 effective draws, or more than 1 % "
        "diverged): take more draws before using the posterior."
    ]
    if calibration := metrics.get("calibration"):
        p_values = calibration["p_values"]
        said.append(
            f"Calibration: ranks of the truth among {calibration['draws']} draws, in {calibration['data_sets']} data "
            "sets simulated from the prior, are uniform with p = "
            + ", ".join(f"{number(p):.2g} ({name})" for name, p in p_values.items())
            + "."
        )
        drawn = draw_ranks(list(p_values), arrays["ranks"], calibration["draws"])
        caption = "Ranks of the true values among posterior draws; grey: where 95 % of bins are, if all is right."
        figures.append(_figure(folder, "ranks", "Calibration", drawn, caption))
    return {"title": "Posterior", "sentences": said, "tables": [table], "figures": figures}


def draw_posterior(names: list[str], draws: np.ndarray, truth: Numbers) -> Figure:
    """Marginals on the diagonal, pairs below it.

    Args:
        names: of the values; the first six are drawn.
        draws: of every chain.
        truth: the known values.
    """
    flat, count = draws.reshape(-1, draws.shape[-1]), min(len(names), _PAIRS)
    figure, axes = panels(WIDTH, count, count, sharex="col")
    shown = flat[:: max(len(flat) // 1000, 1)]
    for row in range(count):
        for column in range(count):
            ax = axes[row * count + column]
            ax.tick_params(labelsize=6)
            ax.locator_params(nbins=3)
            x, y = names[column], names[row]
            if column > row:
                ax.set_visible(False)
                continue
            if column == row:
                ax.hist(flat[:, row], 30, color=INHIBITORY, alpha=0.6)
                ax.set_yticks([])
            else:
                ax.plot(shown[:, column], shown[:, row], ".", color=INHIBITORY, markersize=1, alpha=0.4)
                if truth[y] is not None:
                    ax.axhline(truth[y], color=EXCITATORY, linewidth=0.8)
            if truth[x] is not None:
                ax.axvline(truth[x], color=EXCITATORY, linewidth=0.8)
            if row == count - 1:
                ax.set_xlabel(x, color=INK, fontsize=8)
            if column == 0 and row:
                ax.set_ylabel(y, color=INK, fontsize=8)
    return figure


def draw_ranks(names: list[str], ranks: np.ndarray, draws: int) -> Figure:
    """Histograms of ranks, with the band of a binomial distribution.

    Args:
        names: of the values.
        ranks: of every data set.
        draws: the highest possible rank.
    """
    columns = min(len(names), 2)
    rows, bins = -(-len(names) // columns), max(2, min(len(ranks) // 10, 20))
    figure, axes = panels(0.3 + 1.7 * rows, rows, columns)
    mean = len(ranks) / bins
    sd = np.sqrt(mean * (1 - 1 / bins))
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for name, column, ax in zip(names, ranks.T, axes, strict=False):
        ax.axhspan(mean - 1.96 * sd, mean + 1.96 * sd, color="#dddddd", zorder=0)
        ax.hist(column, list(np.linspace(0, draws + 1, bins + 1) - 0.5), color=INHIBITORY, alpha=0.7)
        ax.set_title(name, fontsize=9, color=INK, loc="left")
    axes[-1].set_xlabel("rank", color=INK, fontsize=9)
    return figure


def network_section(folder: Path, metrics: Numbers, arrays: Arrays) -> dict[str, Any] | None:
    """What the network's runs look like, fitted and observed, and fits at other truths; None for a cell.

    Args:
        folder: where figures go.
        metrics: of the fit.
        arrays: of the fit.
    """
    found = metrics.get("network")
    if not found:
        return None
    features = [
        [name, f"{number(o):.4g}", f"{number(se):.2g}", f"{number(f):.4g}"]
        for name, o, se, f in zip(
            found["features"], found["observed"], found["standard_error"], found["fitted"], strict=True
        )
    ]
    tables = [
        {
            "caption": "Features, means over runs.",
            "columns": ["Feature", "Observed", "Standard error", "Fitted"],
            "rows": features,
        }
    ]
    rows, off = [], []
    for point in found["points"]:
        cells = []
        for p in point["parameters"].values():
            value, truth = number(p["value"]), number(p["truth"])
            error = 100 * (value / truth - 1)
            off.append(abs(error))
            cells += [f"{truth:g}", f"{value:.4g} ± {number(p['se']):.2g}", quantity(error, 2)]
        rows.append([*cells, quantity(number(point["chi2"]), 1), "yes" if point["ok"] else "no"])
    names = list(metrics["parameters"])
    head = [x for name in names for x in (f"{name}, truth", "Fitted", "Error [%]")]
    caption = (
        f"All points; χ² has {found['degrees_of_freedom']} degrees of freedom. Intervals are one standard error, from "
        "the covariance of features over runs, recorded and simulated ones and the slopes between them."
    )
    tables.append({"caption": caption, "columns": [*head, "χ²", "Accepted"], "rows": rows})
    known = np.asarray(off)[np.isfinite(off)]
    said = []
    if known.size:
        where = f"{len(rows)} point{'s' * (len(rows) != 1)}"
        said.append(
            f"Of {known.size} values at {where}, {int(np.sum(known <= 5))} are within 5 % of the truth; "
            f"the worst is off by {quantity(known.max(), 1)} %."
        )
    if deviations := found.get("deviations"):
        said.append(
            f"In units of their standard errors they are off by {quantity(number(deviations['rms']), 2)} (root mean "
            f"square; 1 if the standard errors are right) and {quantity(number(deviations['largest']), 1)} at most."
        )
    caption = "Features of single runs, observed (blue) and of the fitted network (orange), against the log rate."
    figure = _figure(folder, "features", "Features", _draw_features(found["features"], arrays), caption)
    return {"title": "The network’s features", "sentences": said, "tables": tables, "figures": [figure]}


def _draw_features(names: list[str], arrays: Arrays) -> Figure:
    figure, axes = panels(2.2, 1, len(names) - 1)
    count = min(len(arrays["features"]), len(arrays["fitted_features"]))  # as many of both
    for i, ax in enumerate(axes, 1):
        for key, colour in (("fitted_features", EXCITATORY), ("features", INHIBITORY)):
            ax.plot(arrays[key][:count, 0], arrays[key][:count, i], ".", color=colour, markersize=3, alpha=0.4)
        ax.set_xlabel(names[0], color=INK, fontsize=8)
        ax.set_title(names[i], fontsize=8, color=INK, loc="left")
        ax.tick_params(labelsize=7)
    return figure


def _figure(folder: Path, name: str, title: str, drawn: Figure, caption: str) -> dict[str, str]:
    source = inline(*save(drawn, folder / name))
    return {"name": name, "title": title, "alt": caption, "caption": caption, "source": source}
