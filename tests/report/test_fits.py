"""Parts of a fit's report say what small metrics say: profiles, the posterior, networks, steps of current."""

import numpy as np
import pytest

from jneuro.report.fits import chosen, network, predicted, profiled, sampled, stepped
from jneuro.report.page import shown

PARAMETERS = {"g": {"value": 5.4, "se": 0.1, "truth": 5.5}, "r": {"value": 700.0, "se": 2.0, "truth": 500.0}}


def test_nothing_wanted_nothing_shown():
    for section in (profiled, sampled, network, stepped):
        assert section({"parameters": PARAMETERS, "steps": None}, {}) is None


def test_profiles(tmp_path):
    value = np.linspace(5.1, 5.7, 7)
    arrays = {"profile_0_value": value, "profile_0_excess": np.square((value - 5.4) / 0.1)}
    found = {"name": "g", "intervals": {"68 %": [5.3, 5.5], "95 %": [5.204, None]}, "truth": 5.5}
    section = shown(profiled({"parameters": PARAMETERS, "profiles": [found]}, arrays), tmp_path)
    assert section["tables"][0].rows == [["g", "5.3 … 5.5", "5.204 … open", "± 0.196", "5.5"]]
    assert (tmp_path / "figures" / "profiles.png").exists()


def posterior_metrics(ok):
    values = {n: {"mean": 1.0, "sd": 0.1, "low": 0.8, "high": 1.2, "r_hat": 1.002, "ess": 400.0} for n in PARAMETERS}
    about = {"divergences": 0, "acceptance": 0.9, "gradients": 7000, "chains": 2, "draws": 50}
    return {
        "parameters": PARAMETERS,
        "posterior": {
            "values": values,
            "ok": ok,
            "reason": "" if ok else "the chains have not converged: take more draws",
            "truth": {"g": 5.5, "r": None},
            **about,
        },
        "calibration": {"data_sets": 40, "draws": 9, "p_values": {"g": 0.4, "r": 0.7}, "divergences": 0},
    }


def test_posterior_and_calibration(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"posterior": rng.normal(size=(2, 50, 2)), "ranks": rng.integers(0, 10, (40, 2))}
    section = shown(sampled(posterior_metrics(True), arrays), tmp_path)
    assert section["sentences"][0] == "The chains agree."
    assert "0.4 (g), 0.7 (r)" in section["sentences"][1]
    assert [f["name"] for f in section["figures"]] == ["posterior", "ranks"]
    section = shown(sampled(posterior_metrics(False), arrays), tmp_path)
    assert section["sentences"][0] == "The chains have not converged: take more draws before using the posterior."


def test_a_network(tmp_path):
    point = {"parameters": PARAMETERS, "chi2": 1.9, "ok": True}
    about = {
        "features": ["log_rate", "isi_cv", "rate_cv"],
        **{key: [3.4, 0.4, 0.2] for key in ("observed", "standard_error", "fitted")},
        "degrees_of_freedom": 1,
        "points": [point],
    }
    arrays = {key: np.random.default_rng(0).normal(size=(5, 3)) for key in ("features", "fitted_features")}
    section = shown(network({"parameters": PARAMETERS, "network": about}, arrays), tmp_path)
    said = "Of 2 values at 1 point, 1 are within 5 % of the truth; the worst is off by 40.0 %."
    assert section["sentences"] == [said]
    assert section["tables"][1].rows == [["5.5", "5.4 ± 0.1", "−1.82", "500", "700 ± 2", "40.00", "1.9", "yes"]]


CURVE = {
    "current": [[10.0, 10.0], [30.0, 30.0]],
    "rate_true": [[0.0, 2.0], [6.0, 6.0]],
    "rate_model": [[0.0, 0.0], [8.0, 6.0]],
    "latency_true": [[None, 40.0], [12.0, 14.0]],
    "latency_model": [[None, None], [11.0, 13.0]],
}
MODEL = {"rate_rms_hz": 1.41, "latency_ms": 1.0, "adaptation": None, "gamma": 0.234, "rmse_mv": 2.5}
REPEAT = MODEL | {"rate_rms_hz": 1.0, "latency_ms": 2.0}
INTERPOLATION = MODEL | {"rate_rms_hz": 0.79, "latency_ms": 1.06}


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    scores = {"model": MODEL, "repeat": REPEAT, "interpolation": INTERPOLATION}
    steps = {
        "scores": scores,
        "curve": CURVE,
        "tolerance_ms": 4.0,
        "trials": [1, 3],
        "current_unit": "pA",
        "doubts": {},
        "whole": False,
    }
    time = np.arange(50) * 0.1
    arrays = {"time": time, "held_out_v": np.zeros((2, 50)), "held_out_prediction": np.ones((2, 50))}
    folder = tmp_path_factory.mktemp("run")
    held_out = {"trials": [{"number": n} for n in (1, 3)]}
    return shown(stepped({"steps": steps, "held_out": held_out}, arrays), folder), folder


def test_the_model_stands_beside_the_references(section):
    (table,) = section[0]["tables"]
    assert [row[0] for row in table.rows] == [
        "the model",
        "one of two equal steps, as the other",
        "the mean of both neighbouring trials",
    ]
    assert table.rows[0][1:] == ["1.41", "1.00", "–", "0.23", "2.50"]
    assert len(table.columns) == len(table.rows[0])
    assert "2 held-out trials" in table.caption


def test_the_best_reference_is_named(section):
    rates, first_spikes = section[0]["sentences"]
    assert rates == (
        "The model's rates are off by 1.41 Hz; the best reference, the mean of both neighbouring trials, by 0.79 Hz."
    )
    assert "by 1.00 ms; the best reference, the mean of both neighbouring trials, by 1.06 ms" in first_spikes


def test_figures_are_written(section):
    drawn, folder = section
    for figure in drawn["figures"]:
        assert (folder / "figures" / f"{figure['name']}.png").stat().st_size > 1000
        assert figure["source"].startswith("data:image/")


def test_doubtful_trials_are_named(section, tmp_path):
    found = {"scores": {}, "doubts": {"1": "30 peaks stay below"}, "tolerance_ms": 4.0, "trials": [], "whole": False}
    drawn = shown(stepped({"steps": found}, {}), tmp_path)
    assert drawn["sentences"] == ["Trial 1 is not scored: 30 peaks stay below."]
    assert not drawn["tables"] + drawn["figures"]


def test_trials_are_called_by_their_own_numbers(tmp_path):
    trial = {"rmse_mv": 2.0, "true": 3.0, "predicted": 4.0, "recall": 1.0, "precision": 0.75}
    held_out = {"tolerance_ms": 4.0, "trials": [{"number": 7, **trial}, {"number": 9, **trial}]}
    drawn = shown(predicted({"held_out": held_out, "steps": {"whole": True}}, {}), tmp_path)
    assert drawn["tables"][0].rows[0] == ["7", "2.00", "3", "4", "100", "75"]
    assert "no curve of rates over currents" in drawn["sentences"][0]
    assert predicted({"held_out": held_out, "steps": {"whole": False}}, {}) is None


def test_what_was_not_held_out_and_what_was_chosen_is_said(tmp_path):
    drawn = shown(predicted({"not_held_out": "held_out: odd names none of 1 trial"}, {}), tmp_path)
    assert drawn["sentences"][0].startswith("Nothing was held out (held_out: odd names none of 1 trial), so nothing")
    choice = {"key": "sample_ms", "value": "0.1 ms", "why": "one of 2 samples"}
    assert shown(chosen({"choices": [choice]}, {}), tmp_path)["tables"][0].rows == [[*choice.values()]]
    assert chosen({"choices": []}, {}) is None
