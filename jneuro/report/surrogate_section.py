"""The section on what a surrogate of a neuron is good for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jneuro.report.components import quantity
from jneuro.report.data import BASELINES, number

__all__ = ["say_surrogate", "tabulate_surrogate"]

Numbers = Mapping[str, Any]


def say_surrogate(numbers: Numbers) -> list[str]:
    """The answers, question by question.

    Args:
        numbers: of the analysis.
    """
    said = [_spikes(numbers), _step(numbers["step"], numbers["best"]), _sines(numbers["sine"])]
    said += [_noise(numbers["noise"]), _field(numbers), _map(numbers), _cost(numbers["timings"])]
    return [*said, *_gradients(numbers["gradients"])]


def _share(value: Any) -> str:
    return f"{quantity(100 * number(value), 1)}\u00a0%"


def _spikes(numbers: Numbers) -> str:
    """Held-out steps, and whether the target is met."""
    best, steps = numbers["best"], numbers["steps"]
    mine, others = steps[best], {n: s for n, s in steps.items() if n in BASELINES or n == "nearest neighbour"}
    rival = max(others, key=lambda n: np.nan_to_num(number(others[n]["f1"])))
    ahead = number(mine["f1"]) > number(others[rival]["f1"])
    met = number(mine["recall"]) >= 0.95
    return (
        f"Held-out steps: {best} predicts {_share(mine['recall'])} (± {quantity(100 * number(mine['recall_se']), 1)}, "
        f"standard error over runs) of {mine['true']:.0f} spikes within {numbers['tolerance_ms']:g} ms; "
        f"{_share(mine['precision'])} of its own are true, {quantity(number(mine['timing_ms']), 3)} ms off on average. "
        f"The target of 95 % is {'met' if met else 'missed'}. It {'beats' if ahead else 'does not beat'} the best "
        f"baseline, {BASELINES.get(rival, rival)}, which predicts {_share(others[rival]['recall'])}."
    )


def _step(step: Numbers, best: str) -> str:
    def heights(values: Any) -> str:
        return ", ".join(quantity(v, 1) for v in values[:3]) or "none"

    return (
        f"Questions 2 and 3, a step of 20 µA/cm² after 17.8 ms: the simulator spikes {step['true']:.0f} times in the "
        f"window, {best} {step['predicted']:.0f} times, of which {_share(step['recall'])} are matched; the voltage is "
        f"off by {quantity(number(step['rmse']), 1)} mV (root mean square). The first peaks are "
        f"{heights(step['peaks_true'])} mV and {heights(step['peaks_predicted'])} mV."
    )


def _sines(sine: Numbers) -> str:
    def band(found: Numbers) -> str:
        low, high = found["lowest_hz"], found["highest_hz"]
        return "at none of the frequencies" if low is None else f"from {low:g} to {high:g} Hz"

    return (
        "Question 4, sines of 80 µA/cm² from 1 Hz to 2 kHz, of which no training run held any: the simulator spikes "
        f"{band(sine['true'])}, the surrogate {band(sine['predicted'])} (lowest and highest that spike)."
    )


def _noise(noise: Numbers) -> str:
    def counts(found: Numbers) -> str:
        spikes = f"{quantity(number(found['count']), 2)} ± {quantity(number(found['count_sd']), 2)} spikes"
        height = f"{quantity(number(found['height']), 1)} ± {quantity(number(found['height_sd']), 1)} mV"
        return f"{spikes} of {height}"

    return (
        f"Question 5, white noise of SD 20 µA/cm², mean ± SD over draws: the simulator has {counts(noise['true'])}, "
        f"the surrogate {counts(noise['predicted'])}; {_share(noise['recall'])} of the spikes are matched."
    )


def _field(numbers: Numbers) -> str:
    parts = [
        f"{name}: {f['samples']:,} samples ({f['ms']:.1f} ms), of its first two layers alone {f['two_layers']} "
        f"({f['two_layers_ms']:.1f} ms)"
        for name, f in numbers["receptive_field"].items()
        if f
    ]
    return f"Question 6, the receptive field of the encoder: {'; '.join(parts)}."


def _map(numbers: Numbers) -> str:
    """The range in which the surrogate can be trusted."""
    families: dict[str, list[float]] = {}
    for p in numbers["map"]:
        label = (
            f"steps {'within' if p['inside'] else 'beyond'} the trained range" if p["family"] == "step" else p["family"]
        )
        families.setdefault(label, []).append(number(p["rmse"]))
    listed = "; ".join(f"{name} {np.mean(values):.1f} mV" for name, values in families.items())
    return (
        f"Validity: trained on steps of at most {numbers['trained_to']:.0f} µA/cm², the surrogate errs, root mean "
        f"square averaged over each family's points, by {listed}. A surrogate is a model of its training set: where "
        "the map marks a point as outside, its voltage is not evidence."
    )


def _cost(timings: list[Numbers]) -> str:
    both = [t for t in timings if t["simulator_s"] and t["surrogate_s"]]
    if not both:
        return "No batch was timed on both sides."
    ratios = [t["simulator_s"] / t["surrogate_s"] for t in both]
    listed = ", ".join(f"{quantity(r, 2)} at {t['batch']:,}" for r, t in zip(ratios, both, strict=True))
    verdict = "it saves nothing on this device" if max(ratios) < 1 else "it pays where that is above one"
    return (
        f"Cost: the simulator's time divided by the surrogate's, for the same windows, by batch: {listed}; {verdict}. "
        "Compilation is not counted."
    )


def _gradients(found: Numbers) -> list[str]:
    names = {"mean_v": "the mean voltage", "latency": "the time of the first spike"}
    return [
        f"Gradient of {names[name]} with respect to a step's amplitude, at {g['amplitudes']} amplitudes: through "
        f"the surrogate it correlates with that through the simulator by {quantity(number(g['correlation']), 2)}, its "
        f"sign agrees in {_share(g['same_sign'])}, and its median relative error is {_share(g['relative_error'])}."
        for name, g in found.items()
    ]


def tabulate_surrogate(numbers: Numbers) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Caption, headings and rows of the tables: predictors on held-out steps, and timings.

    Args:
        numbers: of the analysis.
    """
    spikes: list[tuple[str, ...]] = [
        (
            str(BASELINES.get(name, name)),
            f"{_share(s['recall'])} ± {quantity(100 * number(s['recall_se']), 1)}",
            _over_seeds(s),
            _share(s["precision"]),
            quantity(number(s["timing_ms"]), 3),
            quantity(number(s["rmse"]), 2),
            quantity(number(s["r2"]), 3),
        )
        for name, s in numbers["steps"].items()
    ]
    columns = ("predictor", "recall ± SE", "seeds, mean ± 95 %", "precision", "timing [ms]", "RMSE [mV]", "R²")
    kinds = ("simulator_s", "surrogate_s", "simulator_compile_s", "surrogate_compile_s")
    times: list[tuple[str, ...]] = [
        (f"{t['batch']:,}", *(quantity(1e3 * number(t[kind]), 1) for kind in kinds)) for t in numbers["timings"]
    ]
    heads = ("batch", "simulator [ms]", "surrogate [ms]", "compiling simulator [ms]", "compiling surrogate [ms]")
    tolerance = numbers["tolerance_ms"]
    return [
        (f"Held-out steps: spikes within {tolerance:g} ms, and the voltage over the whole window", columns, spikes),
        ("Time of one call, median; a dash marks what was left out as too slow", heads, times),
    ]


def _over_seeds(scores: Numbers) -> str:
    """Mean recall over seeds; a dash for one."""
    recalls = scores.get("recalls") or []
    if len(recalls) < 2:
        return "–"
    mean = np.mean([number(r) for r in recalls])
    return f"{_share(mean)} ± {quantity(100 * number(scores['recall_ci95']), 1)} ({len(recalls)})"
