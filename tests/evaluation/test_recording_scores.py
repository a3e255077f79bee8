"""Scores of steps of current, and the references that a recording offers itself."""

import os
from pathlib import Path

import numpy as np
import pytest

from jneuro.evaluation.recording_scores import recording_scores
from jneuro.recordings import read
from jneuro.spikes.detection import Detector

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("JNEURO_DATA", ROOT.parent / "shared" / "data")) / "recordings"
DT = 0.5


def protocol(amplitudes, pulse=300.0):
    """Two steps of 200 ms with the same amplitude, and between them a pulse that all trials share."""
    time = DT * np.arange(1200)
    step = ((time >= 50) & (time < 250)) | ((time >= 350) & (time < 550))
    shared = np.where((time >= 260) & (time < pulse), -20.0, 0.0)
    return np.where(step[None], np.asarray(amplitudes)[:, None], shared[None])


def drawn(times):
    """Potentials with spikes of 2 ms at given times, on a rest that differs from trial to trial."""
    v = np.full((len(times), 1200), -70.0)
    for row, spikes in zip(v, times, strict=True):
        for t in spikes:
            row[round(t / DT) : round(t / DT) + 4] = 30.0
    return v + np.arange(len(times))[:, None] * np.where(v < 0, 1.0, 0.0)


TIMES = [[], [70, 370], [60, 160, 360, 460], [55, 100, 165, 355, 400, 465], [53, 93, 143, 203, 353, 393, 443, 503]]
CURRENT = protocol([0.0, 10.0, 20.0, 30.0, 40.0])


def test_without_steps_trials_are_compared_as_wholes():
    """Of a current that never changes, or always does."""
    v = drawn(TIMES)
    noise = np.random.default_rng(0).normal(size=CURRENT.shape)
    for current in (0 * CURRENT, noise):
        how = {"predicted_v": v[[2]] + 1, "predicted_times": [np.array(TIMES[2], float)]}
        found = recording_scores(v, current, DT, held_out=[2], **how)
        assert found["whole"]
        assert found["curve"] is None
        assert set(found["scores"]) == {"model", "interpolation"}
        assert found["scores"]["model"]["rate_rms_hz"] == 0
        assert found["scores"]["model"]["rmse_mv"] == pytest.approx(1.0)
        assert found["scores"]["interpolation"]["rate_rms_hz"] == 0  # 2 and 6 spikes, between them 4


def test_scores_beside_the_references():
    v, held_out = drawn(TIMES), [1, 3]
    times = [np.array([73.0, 373.0]), np.array([57.0, 102.0, 357.0, 402.0, 467.0])]
    scores = recording_scores(v, CURRENT, DT, held_out=held_out, predicted_v=v[held_out] + 2, predicted_times=times)
    model, repeat, interpolation = (scores["scores"][n] for n in ("model", "repeat", "interpolation"))
    assert model["rate_rms_hz"] == pytest.approx(np.sqrt((0 + 0 + 25 + 0) / 4))
    assert model["latency_ms"] == pytest.approx(2.5 + DT * 30 / 100, abs=0.01)
    assert model["rmse_mv"] == pytest.approx(2.0)
    assert 0.9 < model["gamma"] < 1
    np.testing.assert_allclose([repeat[n] for n in ("rate_rms_hz", "latency_ms", "rmse_mv")], 0, atol=1e-9)
    assert repeat["gamma"] == pytest.approx(1)
    # Between 0 and 2 spikes there is 1, between 2 and 4 there are 3; but the first of trial 0 is never there.
    assert interpolation["rate_rms_hz"] == 0
    assert interpolation["latency_ms"] == pytest.approx(1.5, abs=0.01)
    assert interpolation["rmse_mv"] == pytest.approx(0)
    assert scores["curve"]["rate_true"] == [[5, 5], [15, 15]]
    assert scores["curve"]["current"] == [[10, 10], [30, 30]]
    assert scores["trials"] == held_out
    last = recording_scores(v, CURRENT, DT, held_out=[4], predicted_v=v[[4]], predicted_times=[np.asarray(TIMES[4])])
    assert "interpolation" not in last["scores"]


def test_what_follows_another_current_is_no_repetition():
    v, how = drawn(TIMES), {"held_out": [1], "predicted_times": [np.zeros(0)]}
    other = protocol([0.0, 10.0, 20.0, 30.0, 40.0], pulse=350.0)
    assert "repeat" not in recording_scores(v, other, DT, predicted_v=v[[1]], **how)["scores"]
    noisy = CURRENT + 0.1 * np.random.default_rng(0).normal(size=CURRENT.shape)
    found, clean = (recording_scores(v, c, DT, predicted_v=v[[1]], **how)["scores"] for c in (noisy, CURRENT))
    assert found["repeat"]["gamma"] == pytest.approx(1)
    assert found["model"]["rate_rms_hz"] == pytest.approx(clean["model"]["rate_rms_hz"], rel=0.01)


def test_doubtful_trials_are_not_scored():
    """Spikes that stay below the threshold are not silence."""
    v = drawn(TIMES)
    low = np.where(v > 0, -12.0, v)
    how = {"held_out": [1, 3], "predicted_v": v[[1, 3]], "predicted_times": [np.zeros(0)] * 2}
    found = recording_scores(low, CURRENT, DT, **how)
    assert found["scores"] == {}
    assert set(found["doubts"]) == {"1", "2", "3", "4"}
    assert "stay below the threshold of 0 mV (the highest reaches -12.0 mV)" in found["doubts"]["1"]
    whole = recording_scores(low, CURRENT, DT, detector=Detector(threshold_mv="auto"), **how)
    assert whole["doubts"] == {}
    assert whole["scores"]["model"]["rate_rms_hz"] == pytest.approx(np.sqrt((5**2 + 15**2) / 2))
    mixed = np.concatenate([low[:2], v[2:]])
    found = recording_scores(mixed, CURRENT, DT, **how)
    assert found["trials"] == [3]
    assert found["scores"]["model"]["rate_rms_hz"] == pytest.approx(15)


REFERENCES = {  # rates [Hz], first spikes [ms], Γ: the data's own, as others measured them
    "171116sh_0018.abf": (0.79, 1.06, 0.315),
    "17o05028_ic_steps.abf": (1.04, 2.6, 0.06),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize("name", REFERENCES)
def test_references_of_recorded_cells(name):
    """Their first spikes cross another threshold. The second step follows −100 or −50 pA: it repeats nothing."""
    recording = read(DATA / name)
    v, current = (recording.values[n][..., 0] for n in ("v", "current"))
    held_out = [*range(1, len(v), 2)]
    nothing = [np.zeros(0)] * len(held_out)
    found = recording_scores(
        v, current, recording.dt, held_out=held_out, predicted_v=v[held_out], predicted_times=nothing
    )
    assert (set(found["scores"]), found["doubts"]) == ({"model", "interpolation"}, {})
    scores, (rate, latency, gamma) = found["scores"]["interpolation"], REFERENCES[name]
    assert scores["rate_rms_hz"] == pytest.approx(rate, rel=0.2)
    assert scores["latency_ms"] == pytest.approx(latency, rel=0.3)
    assert scores["gamma"] == pytest.approx(gamma, abs=0.01)
