"""What a report says in words: what was run, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jneuro.report.data import BASELINES, ReportData, Score, best, number, twin

__all__ = ["auroc", "duration", "facts", "paragraph", "quantity", "verdict"]


def quantity(value: float, digits: int) -> str:
    """Write a number with a true minus sign.

    Args:
        value: the number.
        digits: decimals.

    Returns:
        The text; an en dash for what is not finite.
    """
    return f"{value:,.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def auroc(found: Mapping[str, Any]) -> str:
    """Write an area under the ROC curve with its bounds.

    Args:
        found: `auroc`, `low` and `high`.

    Returns:
        The text.
    """
    return f"{number(found['auroc']):.3f} ({number(found['low']):.3f} to {number(found['high']):.3f})"


def duration(seconds: float) -> str:
    """Write a time in the two largest units that fit.

    Args:
        seconds: the time [s].

    Returns:
        The text.

    >>> duration(4.25), duration(75), duration(4000)
    ('4.2 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def paragraph(data: ReportData) -> str:
    """Say in plain words what was run."""
    recording, windows = data.metrics.get("recording") or {}, data.metrics.get("windows") or {}
    said = []
    if recording.get("runs") and recording.get("duration_ms"):
        runs = recording["runs"]
        said.append(f"The recording holds {runs:,} run{'s' * (runs != 1)} of {recording['duration_ms'] / 1e3:g} s.")
    if windows.get("length"):
        counts = windows["counts"]
        said.append(
            f"{_task(windows['length'], windows['horizons_ms'], data.targets)}; {counts['train']:,} windows were used "
            f"to train, {counts['validation']:,} to select, {counts['test']:,} to test."
        )
        if windows.get("split") == "run":
            said.append("The splits share no run, so nothing in the test windows was seen in training.")
        else:
            said.append("The split is the published report’s, in which training and test windows overlap: it leaks.")
    models = data.metrics.get("test") or {}
    if models:
        said.append(f"Trained: {_listed(models)}.")
    if own := [name for name, s in models.items() if "baselines" in s]:
        said.append(f"With windows of their own, not comparable with the rest: {_listed(own)}.")
    if windows.get("split") == "run" and any(s.get("leaky") for s in models.values()):
        said.append("Those marked leaky were trained and tested on overlapping windows instead, as the report did.")
    return " ".join(said)


def _task(length: int, horizons: Sequence[float], targets: Mapping[str, str]) -> str:
    """What is predicted from what."""
    named = _listed(targets) if targets else "the target"
    if horizons[-1] <= 0:
        return f"From each window of {length:,} samples, each predictor states {named} at {len(horizons):,} of them"
    many = len(horizons) > 12
    ahead = f"{horizons[0]:g} to {horizons[-1]:g}" if many else _listed(f"{h:g}" for h in horizons)
    return f"From the last {length} samples, each predictor forecasts {named} {ahead} ms ahead"


def verdict(data: ReportData) -> list[str]:
    """State what the run shows, one sentence an item: model, baseline, ceiling, leak."""
    model, baseline, ceiling = best(data, "model"), best(data, "baseline"), best(data, "ceiling")
    leader = model or baseline
    said = []
    if model is None:
        trained = data.metrics.get("test")
        said.append("No model was tested on unseen runs." if trained else "No model has been trained yet.")
    if leader is not None:
        own = model is not None and model.own_windows
        horizons = leader.values.get("horizons_ms") if own else (data.metrics.get("windows") or {}).get("horizons_ms")
        ahead = ""
        if horizons:
            ahead = f" for {min(horizons):g}\u00a0ms ahead" if min(horizons) > 0 else " at the first sample predicted"
        said.append(_comparison(model, None if own else baseline, ahead))
        if own:
            said.append("No model has the experiment’s own windows, so none compares with the baselines of the table.")
        if not own or math.isfinite(leader.value("share_of_ceiling")):
            said.append(_below_ceiling(leader, ceiling))
    pair = twin(data)
    if pair is not None:
        said.append(_leak(*pair))
    return said


def _leak(honest: Score, leaky: Score) -> str:
    """What the leak is worth to a model, if that can be told from chance."""
    gain = leaky.value("r2") - honest.value("r2")
    errors = [x for x in (honest.value("r2_se"), leaky.value("r2_se")) if math.isfinite(x)]
    said = (
        f"What the leak is worth: under the report’s leaky split {honest.name} scores {_r2(leaky)} in place "
        f"of {_r2(honest)}, a difference of {'+' * (gain > 0)}{quantity(gain, 4)}"
    )
    if gain > 2 * math.hypot(*errors):
        return f"{said} owed to the leak, not to skill."
    return f"{said}: no gain that could be told from chance."


def _comparison(model: Score | None, baseline: Score | None, ahead: str) -> str:
    """Best model against best baseline."""
    if model is None or baseline is None:
        only = model or baseline
        assert only is not None
        role = "model" if only is model else "baseline"
        return f"The best {role}, {_name(only)}, reaches a test R² of {_r2(only)}{ahead}."
    gain, error = model.value("gain"), model.value("gain_se")
    gain = model.value("r2") - baseline.value("r2") if math.isnan(gain) else gain
    skill = model.value("skill")
    worth = f"; skill, the share of its squared error removed, is {_percent(skill)}" if math.isfinite(skill) else ""
    by = quantity(abs(gain), 4) + (f" (±\u00a0{quantity(error, 4)}, paired by run)" if math.isfinite(error) else "")
    relation = f"{by} above" if gain > 0 else f"{by} below: it does not beat"
    return (
        f"The best model, {_name(model)}, reaches a test R² of {_r2(model)}{ahead}, {relation} the best baseline, "
        f"{_name(baseline)}, at {_r2(baseline)}{worth}."
    )


def _below_ceiling(leader: Score, ceiling: Score | None) -> str:
    """The share of what can be known, and a warning where a score cannot be true."""
    if ceiling is None:
        return "The noise ceiling is unknown, so how much of the rest could be predicted at all is unknown too."
    share = leader.value("share_of_ceiling")
    share = leader.value("r2") / ceiling.value("r2") if math.isnan(share) else share
    said = f"That is {_percent(share)} of the noise ceiling, {_r2(ceiling)}, the most a forecast can hope for."
    errors = [x for x in (leader.value("r2_se"), ceiling.value("r2_se")) if math.isfinite(x)]
    if leader.value("r2") > ceiling.value("r2") + 2 * math.hypot(*errors):
        said += " A score above the ceiling cannot be a forecast: look for a leak, or for too few futures."
    return said


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Name and value of what one wants to know of a run at a glance."""
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
        stages = ", ".join(f"{stage} {duration(s)}".replace(" ", "\u00a0") for stage, s in together.items())
        found.append(("Time", f"{duration(run['total_seconds'])} ({stages})"))
    found += [("Device", str(run.get("device", "–"))), ("Started", str(run.get("started", "–")).replace("T", " "))]
    return found


def _name(score: Score) -> str:
    """The name as prose has it."""
    return BASELINES.get(score.name, score.name)


def _r2(score: Score) -> str:
    """R² with its standard error, if there is one."""
    se = score.value("r2_se")
    return quantity(score.value("r2"), 4) + (f"\u00a0±\u00a0{quantity(se, 4)}" if math.isfinite(se) else "")


def _percent(share: float) -> str:
    """A fraction in percent."""
    return f"{quantity(100 * share, 1)}\u00a0%"


def _listed(items: Any) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else str(last)
