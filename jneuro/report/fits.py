"""The report of a fit, made of parts: what was found, how sure that is, what it cost, and what it predicts.

A part is a function of what the run stored, the metrics and the arrays; it returns a section, or None where the run has
nothing for it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import jneuro.report.fit_figures as draw
from jneuro.report.components import Plot, Section, Table, duration, number, quantity, read_template, render
from jneuro.report.page import shown, write_page

__all__ = ["PARTS", "write_fit_report"]

Numbers = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_REFERENCES = {
    "model": "the model",
    "repeat": "one of two equal steps, as the other",
    "interpolation": "the mean of both neighbouring trials",
}
_STEPS = {
    "rate_rms_hz": "Rate [Hz]",
    "latency_ms": "First spike [ms]",
    "adaptation": "Adaptation",
    "gamma": "Γ",
    "rmse_mv": "Potential [mV]",
}


def write_fit_report(folder: Path, run: Numbers, config_yaml: str, metrics: Numbers, arrays: Arrays) -> Path:
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
    recording, trials = metrics["recording"], metrics["recording"]["trials"]
    size = f"{recording['duration_ms']:g} ms"
    facts = [
        *([("Noise", f"{metrics['noise_mv']:.3g} mV (SD)")] if "noise_mv" in metrics else []),
        ("Samples", f"{trials} × {size}, every {recording['dt_ms']:g} ms"),
        ("Time", duration(sum(run["seconds"].values()))),
        ("Device", str(run["device"])),
        ("Started", str(run["started"]).replace("T", " ")),
    ]
    known = {n: p for n, p in metrics["parameters"].items() if p["truth"]}
    off = {n: abs(number(p["value"]) / p["truth"] - 1) for n, p in known.items()}
    worst = max(off, key=lambda n: off[n], default="")
    names = {
        **{"network": None, "repeats": None, **metrics, "worst": worst, "off": off.get(worst)},
        "without_errors": all(np.isnan(number(p["se"])) for p in metrics["parameters"].values()),
    }
    return write_page(
        folder,
        run=run,
        config_yaml=config_yaml,
        paragraph=f"Fitted: {', '.join(metrics['parameters'])}, to {trials} trial{'s' * (trials != 1)} of {size}, by "
        f"the method {metrics['fit']['method']}.",
        verdict=render(read_template("fit_verdict.j2"), names),
        facts=facts,
        sections=[shown(s, folder) for part in PARTS if (s := part(metrics, arrays)) is not None],
    )


def _interval(ends: Any) -> str:
    return " … ".join(f"{number(x):.4g}" if np.isfinite(number(x)) else "open" for x in ends)


def _truth(value: Any) -> str:
    return "–" if value is None else f"{value:g}"


def found(metrics: Numbers, arrays: Arrays) -> Section:
    """Fitted values, directions that the data leave open, traces before and after."""
    rows = []
    for name, p in metrics["parameters"].items():
        value, error, truth = number(p["value"]), number(p["se"]), number(p["truth"])
        share = 100 * (value / truth - 1) if truth else np.nan
        deviation = (value - truth) / error if error else np.nan
        sure = "–" if np.isnan(error) else f"{error:.2g}"
        rows.append([name, f"{value:.5g}", sure, _truth(p["truth"]), quantity(share, 2), quantity(deviation, 2)])
    values = Table(
        "Fitted values; standard errors are those of Gauss and Newton, where the objective gives any.",
        ["Parameter", "Fitted", "Standard error", "Truth", "Error [%]", "Error / SE"],
        rows,
    )
    directions = Table(
        "Identifiability: singular values of the Jacobian, in logarithms of the parameters. A direction is sloppy "
        "where its standard deviation is large.",
        ["Direction", "Singular value", "Standard deviation", "Made of"],
        [
            [str(i + 1), f"{number(d['singular_value']):.3g}", f"{number(d['factor']):.3g}", d["direction"]]
            for i, d in enumerate(metrics["identifiability"])
        ],
    )
    pieces = " The fitted one is that of all segments together." if metrics["fit"]["method"] == "shooting" else ""
    figures = (
        _plot(
            "traces",
            "Before and after",
            draw.traces(arrays) if "v" in arrays else None,
            f"Recorded potential, the model before and after the fit; below each, recorded minus fitted.{pieces}",
        ),
        _plot(
            "intervals",
            "Intervals",
            draw.intervals(metrics["parameters"]),
            "Fitted values and two standard errors, relative to the truth (blue), or to the value itself where no "
            "truth is known (grey).",
        ),
    )
    return Section("What was found", parts=(values, directions if directions.rows else None, *figures))


def network(metrics: Numbers, arrays: Arrays) -> Section | None:
    """What the network's runs look like, fitted and observed, and fits at other truths."""
    about = metrics.get("network")
    if not about:
        return None
    columns = [about[key] for key in ("features", "observed", "standard_error", "fitted")]
    features = [
        [name, f"{number(o):.4g}", f"{number(se):.2g}", f"{number(f):.4g}"]
        for name, o, se, f in zip(*columns, strict=True)
    ]
    rows, off = [], []
    for point in about["points"]:
        cells = []
        for p in point["parameters"].values():
            value, truth = number(p["value"]), number(p["truth"])
            off.append(abs(error := 100 * (value / truth - 1)))
            cells += [f"{truth:g}", f"{value:.4g} ± {number(p['se']):.2g}", quantity(error, 2)]
        rows.append([*cells, quantity(number(point["chi2"]), 1), "yes" if point["ok"] else "no"])
    known = np.asarray(off)[np.isfinite(off)]
    heads = [x for name in metrics["parameters"] for x in (f"{name}, truth", "Fitted", "Error [%]")]
    text = """
    {% if known %}
    Of {{ known }} values at {{ points | length }} point{{ "s" if points | length != 1 }}, {{ near }} are within 5 % of
    the truth; the worst is off by {{ worst | fixed(1) }} %.

    {% endif %}
    {% if deviations %}
    In units of their standard errors they are off by {{ deviations.rms | fixed(2) }} (root mean square; 1 if the
    standard errors are right) and {{ deviations.largest | fixed(1) }} at most.
    {% endif %}
    """
    names = {"known": known.size, "near": int(np.sum(known <= 5)), "worst": known.max(initial=0)}
    parts = (
        Table("Features, means over runs.", ["Feature", "Observed", "Standard error", "Fitted"], features),
        Table(
            f"All points; χ² has {about['degrees_of_freedom']} degrees of freedom. Intervals are one standard error, "
            "from the covariance of features over runs, recorded and simulated ones and the slopes between them.",
            [*heads, "χ²", "Accepted"],
            rows,
        ),
        _plot(
            "features",
            "Features",
            draw.features(about["features"], arrays),
            "Features of single runs, observed (blue) and of the fitted network (orange), against "
            f"{about['features'][0]}.",
        ),
    )
    return Section("The network’s features", text, parts, {"deviations": None, **about, **names})


def profiled(metrics: Numbers, arrays: Arrays) -> Section | None:
    """Profiles of the likelihood."""
    seen = metrics.get("profiles")
    if not seen:
        return None
    rows = [
        [
            p["name"],
            *(_interval(ends) for ends in p["intervals"].values()),
            f"± {1.96 * number(metrics['parameters'][p['name']]['se']):.3g}",
            _truth(p["truth"]),
        ]
        for p in seen
    ]
    caption = (
        "Signed root of twice the likelihood lost when one value is held and all others are fitted again; a straight "
        "line if the curvature says all. Grey: 95 %; orange: the truth."
    )
    table = Table(
        "Intervals from the profile of the likelihood; ‘open’ where it does not rise enough.",
        ["Parameter", *(f"Profile, {level}" for level in seen[0]["intervals"]), "Curvature, 95 %", "Truth"],
        rows,
    )
    plot = _plot("profiles", "Profiles of the likelihood", draw.profiles(seen, arrays), caption)
    return Section("Profiles", parts=(table, plot))


def sampled(metrics: Numbers, arrays: Arrays) -> Section | None:
    """The posterior, and the calibration of its sampler."""
    drawn, ranked = metrics.get("posterior"), metrics.get("calibration")
    if not drawn:
        return None
    rows = [
        [
            name,
            f"{v['mean']:.5g}",
            f"{v['sd']:.2g}",
            f"{number(metrics['parameters'][name]['se']):.2g}",
            f"{v['low']:.4g} … {v['high']:.4g}",
            _truth(drawn["truth"][name]),
            quantity(v["r_hat"], 3),
            quantity(v["ess"], 0),
        ]
        for name, v in drawn["values"].items()
    ]
    text = """
    {% if ok %}
    The chains agree.
    {% else %}
    {{ reason | capital }} before using the posterior.
    {% endif %}

    {% if ranked %}
    Calibration: ranks of the truth among {{ ranked.draws }} draws, in {{ ranked.data_sets }} data sets simulated from
    the prior, are uniform with p = {{ p_values | join(", ") }}.
    {% endif %}
    """
    p_values = [f"{number(p):.2g} ({name})" for name, p in ranked["p_values"].items()] if ranked else []
    parts = [
        Table(
            f"Posterior, NUTS: {drawn['chains']} chains of {drawn['draws']} draws; {drawn['divergences']} diverged, "
            f"mean acceptance {drawn['acceptance']:.2f}, {drawn['gradients']:,} gradients.",
            ["Parameter", "Mean", "SD", "Curvature SE", "95 %", "Truth", "R-hat", "ESS"],
            rows,
        ),
        _plot(
            "posterior",
            "Posterior",
            draw.posterior(list(drawn["values"]), arrays["posterior"], drawn["truth"]),
            "Draws of all chains, in pairs, and each alone; orange: the truth.",
        ),
    ]
    if ranked:
        figure = draw.ranks(list(ranked["p_values"]), arrays["ranks"], ranked["draws"])
        caption = "Ranks of the true values among posterior draws; grey: where 95 % of bins are, if all is right."
        parts.append(_plot("ranks", "Calibration", figure, caption))
    return Section("Posterior", text, parts, {**drawn, "ranked": ranked, "p_values": p_values})


def cost(metrics: Numbers, arrays: Arrays) -> Section:
    """What each method cost."""
    every = [metrics["fit"], *metrics["baselines"]]
    rows = [
        [
            f["method"],
            f"{f['starts']}",
            f"{quantity(100 * f['agreeing'], 0)} %",
            quantity(f["data_cost"], 4),
            "yes" if f["ok"] else "no",
            quantity(f["simulations"], 0),
            quantity(f["seconds"], 2),
            quantity(f["first_seconds"], 1),
        ]
        for f in every
    ]
    table = Table(
        "What each method cost: simulation equivalents of all starts (a column of a Jacobian is one, a reverse-mode "
        "gradient three) and seconds, compiled where the fit was repeated, and the first time. Agreeing: starts that "
        "came to the lowest cost.",
        ["Method", "Starts", "Agreeing", "Cost", "Accepted", "Simulations", "Seconds", "First time"],
        rows,
    )
    pulled = " While the model is pulled towards the data, its cost is that of the pulled model."
    if metrics["fit"]["method"] == "shooting":
        pulled = " Shooting has one value a stage, gaps included: it grows as the joints become stiff."
    caption = (
        f"Cost against iterations, one line a start; the lowest in orange.{'' if 'network' in metrics else pulled}"
    )
    plot = _plot("costs", "Costs of all starts", draw.costs(arrays, [f["method"] for f in every]), caption)
    return Section("What it cost", parts=(table, plot))


def repeated(metrics: Numbers, arrays: Arrays) -> Section | None:
    """Errors of all repeats."""
    del arrays
    repeats = metrics.get("repeats")
    if not repeats or "parameters" not in repeats:
        return None
    keys = ("rms_percent", "median_percent", "worst_percent", "bound_percent")
    table = Table(
        "Errors over all repeats; root mean square and worst are of those that were accepted.",
        ["Parameter", "RMS error [%]", "Median [%]", "Worst [%]", "Cramér–Rao bound [%]"],
        [[name, *(quantity(p[k], 3) for k in keys)] for name, p in repeats["parameters"].items()],
    )
    caption = "Errors with new noise each time; the bars are twice the Cramér–Rao bound."
    return Section(
        "Again, with new noise",
        parts=(table, _plot("repeats", "Errors of every repeat", draw.errors(repeats), caption)),
    )


def predicted(metrics: Numbers, arrays: Arrays) -> Section | None:
    """Trials that were not fitted, one by one; where the current goes in steps, `stepped` shows them by steps."""
    if why := metrics.get("not_held_out"):
        text = """
        Nothing was held out ({{ why }}), so nothing here tells how the cell's other responses are predicted: all that
        is shown was fitted.
        """
        return Section("What it predicts", text, names={"why": why})
    held_out = metrics.get("held_out")
    if not held_out or not metrics["steps"]["whole"]:
        return None
    rows = [
        [
            str(t["number"]),
            quantity(t["rmse_mv"], 2),
            quantity(t["true"], 0),
            quantity(t["predicted"], 0),
            *(quantity(100 * number(t[key]), 0) for key in ("recall", "precision")),
        ]
        for t in held_out["trials"]
    ]
    table = Table(
        f"Trials that were not fitted; spikes count as found within {held_out['tolerance_ms']:g} ms.",
        ["Trial", "RMSE [mV]", "Spikes", "Predicted", "Found [%]", "True [%]"],
        rows,
    )
    text = """
    The current does not go in steps that last 100 ms or longer and differ from trial to trial, so there is no curve of
    rates over currents: trials are compared as wholes.
    """
    return Section("What it predicts, trial by trial", text, parts=(table,))


def stepped(metrics: Numbers, arrays: Arrays) -> Section | None:
    """What is predicted of a cell, by steps of current if there are any, beside the recording's own references."""
    about = metrics.get("steps")
    if not about:
        return None
    scores = about["scores"]
    text = """
    {% for what, unit, own, best, reference in said %}
    The model's {{ what }} are off by {{ own | fixed(2) }} {{ unit }}
    {%- if reference %}; the best reference, {{ reference }}, by {{ best | fixed(2) }} {{ unit }}{% endif %}.

    {% endfor %}
    {% for trial, why in doubts.items() %}
    Trial {{ trial }} is not scored: {{ why }}.

    {% endfor %}
    """
    said = []
    for key, what, unit in (("rate_rms_hz", "rates", "Hz"), ("latency_ms", "first spikes", "ms")) if scores else ():
        others = {n: number(s[key]) for n, s in scores.items() if n != "model"}
        best = min(others, key=lambda n: others[n], default="")
        if np.isfinite(number(scores["model"][key])):
            said.append((what, unit, scores["model"][key], others.get(best), _REFERENCES.get(best, "")))
    parts: tuple[Any, ...] = ()
    if scores:
        rows = [[_REFERENCES[n], *(quantity(s[key], 2) for key in _STEPS)] for n, s in scores.items()]
        numbers = [t["number"] for t in metrics["held_out"]["trials"]]
        parts = (
            Table(
                f"Errors of {len(about['trials'])} held-out trial{'s' * (len(about['trials']) > 1)}, "
                f"{'whole' if about['whole'] else 'step by step'}: of rates, root mean square; of first spikes and of "
                "the adaptation index, median; of the potential, root mean square away from spikes. Γ is the "
                f"coincidence of spikes within ±{about['tolerance_ms']:g} ms (1 at best, 0 by chance). Below the "
                "model, what the recording itself says.",
                ["Prediction", *_STEPS.values()],
                rows,
            ),
            _plot(
                "held_out",
                "Held-out trials",
                draw.held_out(arrays, numbers),
                "Recorded potential and the model's; some of the trials that were not fitted.",
            ),
            _curves(about) if about["curve"] else None,
        )
    return Section("What it predicts of the cell", text, parts, {"said": said, "doubts": about["doubts"]})


def _curves(about: Numbers) -> Plot | None:
    curve = {k: np.array([[number(x) for x in row] for row in v]) for k, v in about["curve"].items()}
    return _plot(
        "steps_curve",
        "Rates and first spikes",
        draw.step_curves(curve, about["current_unit"]),
        "Rate, and time of the first spike, in each step of the held-out trials: recorded (circles) and predicted "
        "(lines), one line a step.",
    )


def chosen(metrics: Numbers, arrays: Arrays) -> Section | None:
    """What the configuration left to the recording."""
    del arrays
    choices = metrics.get("choices")
    if not choices:
        return None
    rows = [[c["key"], c["value"], c["why"]] for c in choices]
    caption = "What the configuration leaves to the recording; a number in its place decides otherwise."
    return Section("What was taken from the recording", parts=(Table(caption, ["Key", "Taken", "Why"], rows, True),))


def _plot(name: str, title: str, figure: Any, caption: str) -> Plot | None:
    """A figure whose caption also says what is drawn; None where nothing is."""
    return None if figure is None else Plot(name, title, caption, caption, figure)


PARTS = (found, network, profiled, sampled, cost, repeated, stepped, predicted, chosen)
"""The sections of the report, in order."""
