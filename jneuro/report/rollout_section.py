"""The section on forecasters of a driven cell rolled out far beyond their horizon."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jneuro.report.components import number, quantity

__all__ = ["CHAOTIC", "say_rollouts", "tabulate_rollouts"]

Numbers = Mapping[str, Any]

CHAOTIC = 0.005
"""An exponent above this, per ms, is not mistaken for zero over the few seconds that are averaged."""


def say_rollouts(numbers: Numbers) -> list[str]:
    """The source's claims, one by one, and what limits any rollout.

    Args:
        numbers: of the analysis.
    """
    said = [*_repetition(numbers), _horizon(numbers), *_order(numbers), *_loss(numbers)]
    return [s for s in [*said, _chaos(numbers), _cost(numbers)] if s]


def _models(numbers: Numbers, **wanted: Any) -> dict[str, int]:
    """Models and their N_p, ascending, that have all of some properties."""
    found = {n: p for n, p in numbers["predictors"].items() if p["kind"] == "model"}
    found = {n: p["steps"] for n, p in found.items() if all(p[k] == v for k, v in wanted.items())}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _judged(numbers: Numbers) -> str:
    """The time at which the last period repeated is the standard: 100 ms, or the nearest that is stated."""
    times = next(iter(next(iter(numbers["scores"].values())).values()))["rmse"]
    return min(times, key=lambda t: abs(float(t) - 100))


def _with_bound(value: Numbers, key: str) -> str:
    return f"{quantity(number(value[key]), 2)} ± {quantity(number(value['ci95']), 2)}"


def _repetition(numbers: Numbers) -> list[str]:
    """In each regime, the model of the longest horizon against the last period repeated."""
    models = _models(numbers, order="reverse", scaled=True) or _models(numbers)
    name, at = list(models)[-1], _judged(numbers)
    said = []
    for regime, scores in numbers["scores"].items():
        mine, standard = scores[name], scores["last_period"]
        gain = mine["against_last_period"][at]
        low, high = (number(gain["gain"]) + s * number(gain["ci95"]) for s in (-1, 1))
        verdict = "beats" if low > 0 else "does not beat" if high < 0 else "is not told apart from"
        error, standing = (number(scores[n]["rmse"][at]["mean"]) for n in (name, "mean"))
        said.append(
            f"{regime.capitalize()}, {at} ms ahead: {name} (N_p = {models[name]}) {verdict} the last period repeated: "
            f"RMSE {_with_bound(mine['rmse'][at], 'mean')} against {_with_bound(standard['rmse'][at], 'mean')} "
            f"standard deviations, a lead of {_with_bound(gain, 'gain')} (95 % intervals over currents); it is "
            f"{'better' if error < standing else 'no better'} than the regime's mean, {quantity(standing, 2)}. Over "
            f"the whole rollout it fires {quantity(number(mine['spikes']), 1)} spikes and repetition "
            f"{quantity(number(standard['spikes']), 1)}, where the cell fires "
            f"{quantity(number(mine['true_spikes']), 1)}; {quantity(100 * number(mine['coincidence']), 0)} % and "
            f"{quantity(100 * number(standard['coincidence']), 0)} % are matched."
            + ("" if low > 0 else _slip(mine, standard, numbers["settings"], at))
        )
    return said


def _slip(mine: Numbers, standard: Numbers, settings: Numbers, at: str) -> str:
    """Why repetition leads: what an error of the rate does to the phase."""
    true = number(mine["true_spikes"])
    if not true:
        return ""
    off = [abs(number(s["spikes"]) / true - 1) for s in (mine, standard)]
    slipped = off[0] * true * float(at) / settings["rollout_ms"]
    return (
        f" Why: the model's rate is off by {quantity(100 * off[0], 1)} %, which adds up to {quantity(slipped, 2)} "
        f"spikes in {at} ms, repetition's by {quantity(100 * off[1], 1)} %, and repetition measures the period on a "
        f"past of {settings['past_ms']:g} ms."
    )


def _horizon(numbers: Numbers) -> str:
    """Claim: the error falls with N_p in every regime."""
    models = _models(numbers, order="reverse", scaled=True)
    if len(models) < 2:
        return ""
    parts, held = [], []
    for regime, scores in numbers["scores"].items():
        errors = [number(scores[n]["rmse_whole"]) for n in models]
        held.append(all(np.diff(errors) < 0))
        parts.append(f"{regime} {', '.join(quantity(e, 2) for e in errors)}")
    count = f"in {sum(held)} of {len(held)} regimes"
    lengths = ", ".join(str(n) for n in models.values())
    apart = {
        name: "; ".join(
            f"{regime} {', '.join(quantity(number(scores[n][name]), 1) for n in models)}"
            for regime, scores in numbers["scores"].items()
        )
        for name in ("van_rossum", "victor_purpura")
    }
    return (
        f"Claim “RMSE falls with N_p in every regime”: {'reproduced' if all(held) else f'holds {count}'}. Mean RMSE "
        f"over the whole rollout for N_p = {lengths}: {'; '.join(parts)}. But RMSE forgives a forecast that falls "
        f"silent more than one that fires out of phase. Between the spike trains, van Rossum's D² is "
        f"{apart['van_rossum']}; Victor and Purpura's distance, at {numbers['settings']['cost_per_ms']:g} for moving a "
        f"spike by 1 ms, {apart['victor_purpura']}."
    )


def _order(numbers: Numbers) -> list[str]:
    """Claim: the reversed order helps early predictions."""
    said = []
    for forward, steps in _models(numbers, order="forward", scaled=True).items():
        twins = [n for n, s in _models(numbers, order="reverse", scaled=True).items() if s == steps]
        for name in twins:
            parts, held = [], []
            for regime, scores in numbers["scores"].items():
                first, later = list(scores[name]["rmse"])[:2]
                pairs = [[number(scores[n]["rmse"][at]["mean"]) for n in (name, forward)] for at in (first, later)]
                seeds = [[number(v) for v in scores[n]["rmse"][first]["seeds"]] for n in (name, forward)]
                held.append(max(seeds[0]) < min(seeds[1]))
                shown = [f"{quantity(a, 3)} against {quantity(b, 3)}" for a, b in pairs]
                parts.append(f"{regime} {shown[0]} in the first {first} ms, {shown[1]} at {later} ms")
            verdict = "reproduced" if all(held) else f"holds for every seed in {sum(held)} of {len(held)} regimes"
            said.append(
                f"Claim “the reversed order helps early predictions”: {verdict} at N_p = {steps}. RMSE of {name} "
                f"against {forward}: {'; '.join(parts)}."
            )
    return said


def _loss(numbers: Numbers) -> list[str]:
    """The paper's loss against the loss of z-scored states."""
    said = []
    for name, steps in _models(numbers, scaled=False).items():
        twins = [n for n, s in _models(numbers, order="reverse", scaled=True).items() if s == steps]
        for twin in twins:
            at = next(iter(next(iter(numbers["scores"].values()))[name]["rmse"]))
            parts = []
            for regime, scores in numbers["scores"].items():
                v = (quantity(number(scores[n]["v_rmse_mv"][at]), 2) for n in (twin, name))
                every = (quantity(number(scores[n]["rmse"][at]["mean"]), 2) for n in (twin, name))
                parts.append(
                    f"{regime} {' and '.join(v)} mV, {' and '.join(every)} standard deviations over all states"
                )
            said.append(
                f"Loss of scaled states ({twin}) and the paper's ({name}), in the first {at} ms: {'; '.join(parts)}. "
                f"The paper's loss does not see states that are small in their own unit."
            )
    return said


def _chaos(numbers: Numbers) -> str:
    """The largest Lyapunov exponents, and what they leave."""
    parts = []
    for regime, found in numbers["lyapunov"].items():
        values = np.asarray([number(v) for v in found["per_ms"]])
        text = f"{regime} between {quantity(1e3 * values.min(), 1)} and {quantity(1e3 * values.max(), 1)} per second"
        if (chaotic := values > CHAOTIC).any():
            doubling = np.log(2) / values[chaotic].mean()
            text += (
                f" ({chaotic.sum()} of {len(values)} currents chaotic: errors double in {quantity(doubling, 0)} ms, "
                f"and from a hundredth of a standard deviation to a whole in {quantity(doubling * np.log2(100), 0)} ms)"
            )
        else:
            text += " (none told apart from zero: errors of the phase stay, they do not grow)"
        parts.append(text)
    return f"Largest Lyapunov exponent, from the simulator's tangent in double precision: {'; '.join(parts)}."


def _cost(numbers: Numbers) -> str:
    """When the surrogate is worth it."""
    timing = numbers["timing"]
    seconds, count = dict(timing["seconds"]), timing["examples"]
    own = seconds.pop("simulator")
    fastest = min(seconds, key=lambda n: seconds[n])
    ratio = seconds[fastest] / own
    verdict = (
        f"{quantity(ratio, 1)} times as long, so the surrogate is not worth it for speed here"
        if ratio > 1
        else f"{quantity(1 / ratio, 1)} times less, so the surrogate saves time here"
    )
    return (
        f"Time for {count} examples of {numbers['settings']['rollout_ms']:g} ms in one batch: the simulator takes "
        f"{quantity(own, 3)} s, the fastest model, {fastest}, {quantity(seconds[fastest], 3)} s: {verdict}. The paper "
        f"times 1000 examples on a GTX 1080 Ti (8.896, 3.778, 3.679 and 3.565 s for N_p = 1, 50, 100 and 200), and no "
        f"simulator."
    )


def tabulate_rollouts(numbers: Numbers) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Scores of every predictor, a table for each regime, and the times.

    Args:
        numbers: of the analysis.

    Returns:
        Caption, headings and rows of each table.
    """
    tables = []
    for regime, scores in numbers["scores"].items():
        times = list(next(iter(scores.values()))["rmse"])
        headings = ("predictor", *(f"RMSE at {t} ms [SD]" for t in times), f"of v at {_judged(numbers)} ms [mV]")
        headings += ("valid for [ms]", "spikes matched", "spike error [ms]", "van Rossum D²", "Victor–Purpura D")
        headings += ("spikes",)
        rows = [(name, *_cells(entry, times, _judged(numbers))) for name, entry in scores.items()]
        tables.append((f"Rollouts, {regime}", headings, rows))
    timing = numbers["timing"]
    headings = ("what", "seconds", "times the simulator's")
    own = timing["seconds"]["simulator"]
    rows = [(name, quantity(s, 3), quantity(s / own, 2)) for name, s in timing["seconds"].items()]
    tables.append(
        (f"Time for {timing['examples']} examples of {numbers['settings']['rollout_ms']:g} ms", headings, rows)
    )
    return tables


def _cells(entry: Numbers, times: list[str], judged: str) -> tuple[str, ...]:
    rmse = [_with_bound(entry["rmse"][t], "mean") for t in times]
    return (
        *rmse,
        quantity(number(entry["v_rmse_mv"][judged]), 2),
        quantity(number(entry["valid_ms"]), 1),
        f"{quantity(100 * number(entry['coincidence']), 0)} %",
        quantity(number(entry["spike_error_ms"]), 2),
        quantity(number(entry["van_rossum"]), 1),
        quantity(number(entry["victor_purpura"]), 1),
        f"{quantity(number(entry['spikes']), 1)} of {quantity(number(entry['true_spikes']), 1)}",
    )
