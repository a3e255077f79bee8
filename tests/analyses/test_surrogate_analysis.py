"""What a surrogate is good for: the pieces against closed forms, and how it is told."""

from types import SimpleNamespace

import numpy as np
import pytest

from jneuro.analyses.surrogate import SurrogateAnalysis, ValidityMap, families, nearest
from jneuro.datasets import WindowConfig
from jneuro.evaluation import Findings, compare
from jneuro.evaluation.surrogate_cost import latency_weights
from jneuro.report.components import render


def test_latency_weights_give_the_derivative_of_the_crossing():
    dt, a = 0.05, 3.0
    time = dt * np.arange(200)
    v = a * time - 10.0  # crosses 0 at 10 / a
    assert latency_weights(v, dt, 0.0) @ time == pytest.approx(-10 / a**2)
    assert not latency_weights(v - 100, dt, 0.0).any()


def test_nearest_neighbour():
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(2, 30, 5))
    order = rng.permutation(30)
    np.testing.assert_array_equal(nearest(inputs, outputs, inputs[order] + 1e-6), outputs[order])


def test_families_reach_the_amplitudes_that_they_name():
    points = families(SimpleNamespace(length=2560, dt=0.05), ValidityMap(), 3, np.random.default_rng(0))
    assert {family for family, *_ in points} == {"step", "sine", "noise", "ramp", "pulses"}
    for family, x, amplitude, currents in points:
        assert currents.shape == (3, 2560)
        if family in ("step", "ramp"):
            np.testing.assert_allclose(currents.max(1), x)
        if family == "noise":
            np.testing.assert_allclose(currents.std(1), x, rtol=0.1)
        if family == "sine" and 50 <= x <= 200:
            np.testing.assert_allclose(currents.max(1), amplitude, rtol=2e-3)
        if family == "pulses" and x == 100:
            begins = np.flatnonzero(np.diff(currents[0]) > 0)
            np.testing.assert_allclose(np.diff(begins), 200, atol=1)


def scores(**more):
    return {
        "recall": 0.9, "recall_se": 0.01, "precision": 0.8, "f1": 0.85, "timing_ms": 0.1, "bias_ms": 0.0,
        "true": 20.0, "predicted": 19.0, "rmse": 3.0, "r2": 0.9, **more,
    }  # fmt: skip


def test_a_section_of_given_numbers():
    near = compare([0.85, 0.86, 0.84], [0.3, 0.3, 0.31], paired_by="run")
    slow = compare([0.5, 0.51], [0.1, 0.1], paired_by="repeat", higher_is_better=False)
    fast = compare([0.1, 0.1], [0.5, 0.51], paired_by="repeat", higher_is_better=False)
    point = {"series": "", "level_inside": True, "inside": False, "rmse": 9.0, "neighbour_rmse": 8.0}
    far = {"amplitudes": 13, "correlation": 0.5, "same_sign": 0.75, "relative_error": None}
    numbers = {
        "tolerance_ms": 0.5,
        "unit": "pA",
        "best": "ours",
        "trained_to": 60.0,
        "steps": {
            "nearest neighbour": scores(f1=0.3),
            "mean": scores(recall=0.0, f1=None, precision=None, timing_ms=None),
            "ours": scores(recalls=[0.9, 0.92], recall_ci95=0.1),
            "other": scores(recalls=[0.9], recall_ci95=None),
        },
        "best_against": {"nearest neighbour": near},
        "receptive_field": {"ours": {"samples": 3544, "ms": 177.2, "two_layers": 72, "two_layers_ms": 3.6}, "o": None},
        "step": scores(peaks_true=[41.37, 26.1, 25.2, 25.1], peaks_predicted=[]),
        "sine": {
            "true": {"lowest_hz": 1.0, "highest_hz": 796.0},
            "predicted": {"lowest_hz": None, "highest_hz": None},
        },
        "noise": scores(
            true={"count": 4.0, "count_sd": 0.8, "height": 39.9, "height_sd": 1.9},
            predicted={"count": 0.0, "count_sd": 0.0, "height": None, "height_sd": None},
        ),
        "map": [point | {"family": f, "x": x} for f in ("step", "ramp", "noise", "pulses") for x in (1.0, 2.0)]
        + [point | {"family": "sine", "x": 1.0, "series": f"{a} pA"} for a in (20, 40)],
        "families": {"steps_within_the_trained_range": {"rmse": 2.0, "against_nearest": near}},
        "timings": [
            {"batch": n, "simulator_s": 0.1, "surrogate_s": s, "simulator_compile_s": 1.0, "surrogate_compile_s": s}
            for n, s in ((1, 0.5), (1024, 0.05), (4096, None))
        ],
        "time_against_simulator": {"1": slow, "1024": fast},
        "gradients": {"mean_v": far, "latency": far},
    }
    lines = ("step_true", "step_predicted", "target_ms", "sine_hz", "sine_true", "sine_predicted", "amplitude")
    lines += ("noise_counts_true", "noise_counts_predicted", "noise_heights_true", "noise_heights_predicted")
    lines += tuple(f"{q}_{who}" for q in ("mean_v", "latency") for who in ("simulator", "surrogate"))
    found = Findings(numbers, {name: (("x",), np.arange(1, 6)) for name in lines})
    section = SurrogateAnalysis().section(back := Findings.load(found.dump(), found.arrays))
    said = render(section.text, {**back.numbers, **section.names})
    assert said == [
        "Held-out steps: ours predicts 90.0 % (± 1.0, standard error over runs) of 20 spikes within 0.5 ms; 80.0 % of "
        "its own are true, 0.100 ms off on average. It beats the best baseline, nearest neighbour, which predicts "
        "90.0 %: F1 0.850 against 0.300, a difference of 0.547 (0.509 to 0.585) (95 %, 3 runs).",
        "A step of 20 pA after 17.8 ms: the simulator spikes 20 times in the window, ours 19 times, of which 90.0 % "
        "are matched; the voltage is off by 3.0 mV (root mean square). The first peaks are 41.4, 26.1, 25.2 mV and "
        "none mV.",
        "Sines of 80 pA from 1 Hz to 2 kHz: lowest and highest frequency that spike are 1.0 and 796.0 Hz of the "
        "simulator, – and – Hz of the surrogate (a dash: none does).",
        "White noise of SD 20 pA, mean ± SD over draws: the simulator has 4.00 ± 0.80 spikes of 39.9 ± 1.9 mV, the "
        "surrogate 0.00 ± 0.00 spikes of – mV; 90.0 % of the spikes are matched.",
        "The receptive field of the encoder, and of its first two layers alone: ours 3,544 samples (177.2 ms) and 72 "
        "(3.6 ms).",
        "Validity: trained on currents of at most 60 pA, the surrogate errs, root mean square averaged over each "
        "family's points, by steps within the trained range 2.0 mV (better). In brackets: against the nearest training "
        "run, over the points of a family. A surrogate is a model of its training set: where the map marks a point as "
        "outside, its voltage is not evidence.",
        "Cost: the simulator's time divided by the surrogate's, for the same windows, by batch: 0.20 at 1, 2.00 at "
        "1,024; it pays at 1024 (95 %). Compilation is not counted.",
        *(
            f"Gradient of {what} with respect to a step's amplitude, at 13 amplitudes: through the surrogate it "
            "correlates with that through the simulator by 0.50, its sign agrees in 75.0 %, and its median relative "
            "error is – %."
            for what in ("the mean voltage", "the time of the first spike")
        ),
    ]
    spikes, times, *plots = section.parts
    assert [row[2] for row in spikes.rows] == ["–", "–", "91.0 ± 10.0\u00a0% (2)", "–"]
    assert times.rows[2] == ("4,096", "100.0", "–", "1,000.0", "–")
    assert [plot.name for plot in plots] == [f"surrogate_{n}" for n in ("questions", "map", "timings", "gradients")]


def test_needs_current_in_and_voltage_out():
    steps = {"inputs": ["current"], "targets": ["v"]}
    SurrogateAnalysis().check(WindowConfig(**steps, discard_ms=0), ["m"])
    with pytest.raises(ValueError, match="inputs = "):
        SurrogateAnalysis().check(WindowConfig(discard_ms=0), ["m"])
    with pytest.raises(ValueError, match="discard_ms to 0"):
        SurrogateAnalysis().check(WindowConfig(**steps, discard_ms=100), ["m"])
