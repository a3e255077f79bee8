"""The report of a fit: what was found, how sure that is, what it cost, and what it predicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.components import duration, number, quantity
from jneuro.report.fit_figures import draw_costs, draw_errors, draw_held_out, draw_intervals, draw_traces
from jneuro.report.fit_uncertainty import network_section, posterior_section, profile_section
from jneuro.report.page import inline, write_page
from jneuro.report.recording_section import recording_section
from jneuro.report.style import save

__all__ = ["write_fit_report"]

Numbers = Mapping[str, Any]


def write_fit_report(
    folder: Path, run: Numbers, config_yaml: str, metrics: Numbers, arrays: Mapping[str, np.ndarray]
) -> Path:
    """Write report.html and the figures of a fit.

    Args:
        folder: the run folder.
        run: what the page says of the run; see `write_page`.
        config_yaml: the resolved configuration.
        metrics: the content of metrics.json.
        arrays: the content of fit.zarr.

    Returns:
        The path of the page.
    """
    (folder / "figures").mkdir(exist_ok=True)
    recording, seconds = metrics["recording"], run["seconds"]
    trials = recording["trials"]
    facts = [
        *([("Noise", f"{metrics['noise_mv']:.3g} mV (SD)")] if "noise_mv" in metrics else []),
        ("Samples", f"{trials} × {recording['duration_ms']:g} ms, every {recording['dt_ms']:g} ms"),
        ("Time", duration(sum(seconds.values()))),
        ("Device", str(run["device"])),
        ("Started", str(run["started"]).replace("T", " ")),
    ]
    paragraph = (
        f"Fitted: {', '.join(metrics['parameters'])}, to {trials} trial{'s' * (trials != 1)} of "
        f"{recording['duration_ms']:g} ms, by the method {metrics['fit']['method']}."
    )
    parts = (
        *(_found, network_section, profile_section, posterior_section),
        *(_costs, _repeated, _predicted, recording_section),
    )
    return write_page(
        folder,
        run=run,
        config_yaml=config_yaml,
        paragraph=paragraph,
        verdict=_verdict(metrics),
        facts=facts,
        sections=[section for part in parts if (section := part(folder / "figures", metrics, arrays))],
    )


def _verdict(metrics: Numbers) -> list[str]:
    """Whether to believe it, and what it is worth."""
    fit, said = metrics["fit"], []
    cost = quantity(number(fit["data_cost"]), 3)
    if fit["ok"] and all(np.isnan(number(p["se"])) for p in metrics["parameters"].values()):
        said.append(
            "The fit is accepted: it came to rest, away from all bounds. What it is worth, held-out trials say."
        )
    elif fit["ok"] and (network := metrics.get("network")):
        chi2, freedom = number(network["points"][0]["chi2"]), network["degrees_of_freedom"]
        said.append(
            f"The fit is accepted: its features are off by a chi-squared of {quantity(chi2, 2)}, where {freedom} is "
            "expected."
        )
    elif fit["ok"]:
        said.append(
            f"The fit is accepted: its mean squared error is {cost} times the noise’s variance (1 at the truth)."
        )
    else:
        said.append(f"The fit is flagged and should not be believed: {fit['reason']}.")
    known = {n: p for n, p in metrics["parameters"].items() if p["truth"] is not None}
    if known:
        off = {n: number(p["value"]) / p["truth"] - 1 for n, p in known.items() if p["truth"]}
        worst = max(off, key=lambda n: abs(off[n]))
        said.append(f"The truth is known: {worst} is off most, by {quantity(100 * abs(off[worst]), 2)} %.")
    if repeats := metrics.get("repeats"):
        said.append(_of_repeats(repeats))
    return [*said, *(_against(fit, other) for other in metrics["baselines"])]


def _of_repeats(repeats: Numbers) -> str:
    text = f"Of {repeats['fits']} fits with new noise, {repeats['ok']} were accepted"
    if "within_1_percent" in repeats:
        text += (
            f"; in {repeats['within_1_percent']} every parameter is within 1 % of the truth; "
            f"{repeats['wrong_but_accepted']} were accepted and off by more than 5 %"
        )
    return (
        f"{text}. None took more than {repeats['simulations_max']:,.0f} simulations and, compiled, "
        f"{quantity(number(repeats['seconds_max']), 2)} s."
    )


def _against(fit: Numbers, other: Numbers) -> str:
    ratio = other["simulations"] / fit["simulations"]
    return (
        f"{other['method'].capitalize()} took {other['simulations']:,.0f} simulations and "
        f"{quantity(other['seconds'], 2)} s where {fit['method']} took {fit['simulations']:,.0f} and "
        f"{quantity(fit['seconds'], 2)} s, {quantity(ratio, 1)} times as many; its cost is "
        f"{quantity(number(other['data_cost']), 3)}."
    )


def _found(folder: Path, metrics: Numbers, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    rows = []
    for name, p in metrics["parameters"].items():
        value, error, truth = number(p["value"]), number(p["se"]), number(p["truth"])
        share = 100 * (value / truth - 1) if truth else np.nan
        deviation = (value - truth) / error if error else np.nan
        rows.append(
            [
                name,
                f"{value:.5g}",
                "–" if np.isnan(error) else f"{error:.2g}",
                "–" if np.isnan(truth) else f"{truth:g}",
                *(quantity(x, 2) for x in (share, deviation)),
            ]
        )
    columns = ["Parameter", "Fitted", "Standard error", "Truth", "Error [%]", "Error / SE"]
    table = {
        "caption": "Fitted values; standard errors are those of Gauss and Newton, where the objective gives any.",
        "columns": columns,
        "rows": rows,
    }
    pieces = " The fitted one is that of all segments together." if metrics["fit"]["method"] == "shooting" else ""
    figures = [
        _figure(
            folder,
            "traces",
            "Before and after",
            draw_traces(arrays) if "v" in arrays else None,
            "Recorded potential, the model before and after the fit; below each, recorded minus fitted." + pieces,
        ),
        _figure(
            folder,
            "intervals",
            "Intervals",
            draw_intervals(metrics["parameters"]),
            "Fitted values and two standard errors, relative to the truth (blue), or to the value itself where no "
            "truth is known (grey).",
        ),
    ]
    return {
        "title": "What was found",
        "sentences": [],
        "tables": [table, *_identifiability(metrics["identifiability"])],
        "figures": [f for f in figures if f],
    }


def _identifiability(found: Any) -> list[dict[str, Any]]:
    """Directions in the space of parameters, the sloppiest last."""
    if not found:
        return []
    rows = [
        [str(i + 1), f"{number(d['singular_value']):.3g}", f"{number(d['factor']):.3g}", d["direction"]]
        for i, d in enumerate(found)
    ]
    return [
        {
            "caption": "Identifiability: singular values of the Jacobian, in logarithms of the parameters. A direction "
            "is sloppy where its standard deviation is large.",
            "columns": ["Direction", "Singular value", "Standard deviation", "Made of"],
            "rows": rows,
        }
    ]


def _costs(folder: Path, metrics: Numbers, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    every = [metrics["fit"], *metrics["baselines"]]
    rows = [
        [
            f["method"],
            f"{f['starts']}",
            f"{quantity(100 * f['agreeing'], 0)} %",
            quantity(number(f["data_cost"]), 4),
            "yes" if f["ok"] else "no",
            f"{f['simulations']:,.0f}",
            quantity(f["seconds"], 2),
            quantity(f["first_seconds"], 1),
        ]
        for f in every
    ]
    columns = ["Method", "Starts", "Agreeing", "Cost", "Accepted", "Simulations", "Seconds", "First time"]
    caption = (
        "What each method cost: simulation equivalents of all starts (a column of a Jacobian is one, a reverse-mode "
        "gradient three) and seconds, compiled where the fit was repeated, and the first time. Agreeing: starts that "
        "came to the lowest cost."
    )
    pulled = " While the model is pulled towards the data, its cost is that of the pulled model."
    pulled = "" if "network" in metrics else pulled
    if metrics["fit"]["method"] == "shooting":
        pulled = " Shooting has one value a stage, gaps included: it grows as the joints become stiff."
    figure = _figure(
        folder,
        "costs",
        "Costs of all starts",
        draw_costs(arrays, [f["method"] for f in every]),
        f"Cost against iterations, one line a start; the lowest in orange.{pulled}",
    )
    return {
        "title": "What it cost",
        "sentences": [],
        "tables": [{"caption": caption, "columns": columns, "rows": rows}],
        "figures": [figure] if figure else [],
    }


def _repeated(folder: Path, metrics: Numbers, arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    del arrays
    repeats = metrics.get("repeats")
    if not repeats or "parameters" not in repeats:
        return None
    keys = ("rms_percent", "median_percent", "worst_percent", "bound_percent")
    rows = [[name, *(quantity(number(p[k]), 3) for k in keys)] for name, p in repeats["parameters"].items()]
    columns = ["Parameter", "RMS error [%]", "Median [%]", "Worst [%]", "Cramér–Rao bound [%]"]
    caption = "Errors over all repeats; root mean square and worst are of those that were accepted."
    figure = _figure(
        folder,
        "repeats",
        "Errors of every repeat",
        draw_errors(repeats),
        "Errors with new noise each time; the bars are twice the Cramér–Rao bound.",
    )
    return {
        "title": "Again, with new noise",
        "sentences": [],
        "tables": [{"caption": caption, "columns": columns, "rows": rows}],
        "figures": [figure] if figure else [],
    }


def _predicted(folder: Path, metrics: Numbers, arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    held_out = metrics.get("held_out")
    if not held_out or metrics.get("steps"):  # which `recording_section` shows
        return None
    rows = [
        [
            str(i),
            quantity(number(t["rmse_mv"]), 2),
            quantity(number(t["true"]), 0),
            quantity(number(t["predicted"]), 0),
            quantity(100 * number(t["recall"]), 0),
            quantity(100 * number(t["precision"]), 0),
        ]
        for i, t in enumerate(held_out["trials"])
    ]
    columns = ["Trial", "RMSE [mV]", "Spikes", "Predicted", "Found [%]", "True [%]"]
    caption = f"Trials that were not fitted; spikes count as found within {held_out['tolerance_ms']:g} ms."
    figure = _figure(
        folder,
        "held_out",
        "Held-out trials",
        draw_held_out(arrays),
        "Potentials that were not fitted, and the prediction.",
    )
    return {
        "title": "What it predicts",
        "sentences": [],
        "tables": [{"caption": caption, "columns": columns, "rows": rows}],
        "figures": [figure] if figure else [],
    }


def _figure(folder: Path, name: str, title: str, drawn: Figure | None, caption: str) -> dict[str, str] | None:
    """Write a figure; what the page shows of it."""
    if drawn is None:
        return None
    source = inline(*save(drawn, folder / name))
    return {"name": name, "title": title, "alt": caption, "caption": caption, "source": source}
