"""The section on steps of current says what the scores say."""

import numpy as np
import pytest

from jneuro.report.recording_section import recording_section

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
    }
    time = np.arange(50) * 0.1
    arrays = {"time": time, "held_out_v": np.zeros((2, 50)), "held_out_prediction": np.ones((2, 50))}
    folder = tmp_path_factory.mktemp("figures")
    return recording_section(folder, {"steps": steps}, arrays), folder


def test_the_model_stands_beside_the_references(section):
    (table,) = section[0]["tables"]
    assert [row[0] for row in table["rows"]] == [
        "the model",
        "one of two equal steps, as the other",
        "the mean of both neighbouring trials",
    ]
    assert table["rows"][0][1:] == ["1.41", "1.00", "–", "0.23", "2.50"]
    assert len(table["columns"]) == len(table["rows"][0])
    assert "2 held-out trials" in table["caption"]


def test_the_best_reference_is_named(section):
    rates, first_spikes = section[0]["sentences"]
    assert rates == (
        "The model's rates are off by 1.41 Hz; the best reference, the mean of both neighbouring trials, by 0.79 Hz."
    )
    assert "by 1.00 ms; the best reference, the mean of both neighbouring trials, by 1.06 ms" in first_spikes


def test_figures_are_written(section):
    drawn, folder = section
    for figure in drawn["figures"]:
        assert (folder / f"{figure['name']}.png").stat().st_size > 1000
        assert figure["source"].startswith("data:image/")


def test_doubtful_trials_are_named(section, tmp_path):
    found = {"scores": {}, "doubts": {"1": "30 peaks stay below"}, "tolerance_ms": 4.0, "trials": []}
    drawn = recording_section(tmp_path, {"steps": found}, {})
    assert drawn["sentences"] == ["Trial 1 is not scored: 30 peaks stay below."]
    assert not drawn["tables"] + drawn["figures"]


def test_no_steps_no_section(tmp_path):
    assert recording_section(tmp_path, {"steps": None}, {}) is None
    assert recording_section(tmp_path, {}, {}) is None
