"""The summary of a report: what was run in a paragraph, the verdict in sentences, the facts at a glance.

The sentences are the templates `paragraph.j2` and `verdict.j2` beside this file.
"""

import math
from typing import Any

from jneuro.evaluation.comparison import compare_estimates
from jneuro.report.components import duration, number, quantity, read_template, render
from jneuro.report.data import BASELINES, ReportData, Score, best, twin

__all__ = ["facts", "paragraph", "verdict"]


def paragraph(data: ReportData) -> str:
    """Say in plain words what was run.

    Args:
        data: the run.
    """
    models = data.metrics.get("test") or {}
    names = {
        "recording": {"runs": None} | (data.metrics.get("recording") or {}),
        "windows": {"length": None, "split": None} | (data.metrics.get("windows") or {}),
        "targets": data.targets,
        "models": models,
        "own": [name for name, scores in models.items() if "baselines" in scores],
        "leaky": any(scores.get("leaky") for scores in models.values()),
    }
    return " ".join(render(read_template("paragraph.j2"), names))


def verdict(data: ReportData) -> list[str]:
    """State what the run shows, one paragraph an item: model against baseline, ceiling, leak.

    Args:
        data: the run.
    """
    model, baseline, ceiling = best(data, "model"), best(data, "baseline"), best(data, "ceiling")
    leader = model or baseline
    own = model is not None and model.own_windows
    names: dict[str, Any] = {
        "model": model,
        "baseline": baseline,
        "ceiling": ceiling,
        "own": own,
        "tested": data.metrics.get("test"),
        "windows": data.metrics.get("windows") or {"horizons_ms": ()},
        "twin": twin(data),
        "name": _name,
        "share": _share(leader, ceiling, own),
        "beyond": None,
    }
    if leader is not None and ceiling is not None:
        scores = [(s.value("r2"), s.value("r2_se")) for s in (leader, ceiling)]
        runs = len((names["windows"].get("runs") or {}).get("test", ())) or 2
        names["beyond"] = compare_estimates(scores[0][0], scores[1][0], (scores[0][1], scores[1][1]), n=runs)
    return render(read_template("verdict.j2"), names)


def _share(leader: Score | None, ceiling: Score | None, own: bool) -> float | None:
    """The share of the ceiling; NaN where that is unknown, None where nothing is said of it."""
    if leader is None:
        return None
    share = leader.value("share_of_ceiling")
    if own and math.isnan(share):
        return None
    return leader.value("r2") / ceiling.value("r2") if math.isnan(share) and ceiling is not None else share


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Name and value of what one wants to know of a run at a glance.

    Args:
        data: the run.
    """
    run, recording = data.run, data.metrics.get("recording") or {}
    windows, ceiling = data.metrics.get("windows") or {}, data.metrics.get("ceiling") or {}

    def known(key: str, digits: int, unit: str = "") -> str:
        return f"{quantity(number(recording.get(key)), digits)} {unit}".rstrip()

    found = []
    if recording:
        parts = [("E", "rate_e_hz"), ("I", "rate_i_hz")]
        split = ", ".join(f"{n} {known(k, 1)}" for n, k in parts if recording.get(k) is not None)
        if recording.get("rate_hz") is not None:
            found.append(("Rate", known("rate_hz", 1, "Hz") + (f" ({split})" if split else "")))
            found.append(("ISI variation (CV)", known("isi_cv", 2)))
        extent = (
            f"{known('v_mean', 1)} ± {known('v_sd', 1)} mV (SD), from {known('v_min', 1)} to {known('v_max', 1, 'mV')}"
        )
        if recording.get("v_mean") is not None:
            found.append(("Voltage", extent))
    if windows:
        found.append(("Window", f"{windows['length']} samples, every {windows['stride']}"))
        runs = windows.get("runs") or {}
        if runs:
            found.append(("Runs by split", ", ".join(f"{split} {len(of)}" for split, of in runs.items())))
    if ceiling.get("futures"):
        found.append(("Ceiling", f"{ceiling['futures']:,} futures, {ceiling['samples']:,} samples"))
    seconds = run.get("seconds") or {}
    if seconds:
        together: dict[str, float] = {}
        for stage, s in seconds.items():  # the seeds of a model in one
            name = stage.partition(" (seed ")[0]
            together[name] = together.get(name, 0.0) + s
        stages = ", ".join(f"{stage} " + duration(s).replace(" ", "\u00a0") for stage, s in together.items())
        found.append(("Time", f"{duration(run['total_seconds'])} ({stages})"))
    found += [("Device", str(run.get("device", "–"))), ("Started", str(run.get("started", "–")).replace("T", " "))]
    return found


def _name(score: Score) -> str:
    """The name as prose has it."""
    return BASELINES.get(score.name, score.name)
