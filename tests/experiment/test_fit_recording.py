"""A fit of a file that another program might have written, from its path to its report."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress
from jneuro.experiment import RunFolder
from jneuro.experiment.fit_plan import load_fit
from jneuro.experiment.fitting import fit_stages
from jneuro.recordings import Recording, write_nwb
from jneuro.simulators import Izhikevich, simulate, stimuli

ROOT = Path(__file__).parents[2]
YAML = """
name: small
recording: cell.nwb
sample_ms: 0.2
simulator: {name: izhikevich, preset: regular_spiking_2007, k: 0.8}
fit:
  dt_ms: 0.2
  trainable: {k: [0.3, 2], d: [20, 400]}
  method: {name: spikes, starts: 1, evaluations: 12, sigma: 0.1}
  objective: [{name: ordered_spikes, slots: 8}, {name: subthreshold}]
train: even
held_out: odd
"""
AMPLITUDES = np.array([0.0, 60.0, 120.0, 180.0, 240.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five sweeps of a step of 130 ms."""
    path = tmp_path_factory.mktemp("fit")
    cell = Izhikevich.regular_spiking_2007(n=5)
    step = stimuli.Step(AMPLITUDES, onset=10.0, end=140.0)
    seen = simulate(cell, step, duration=150.0, record=("v", "spikes"), key=jax.random.key(0))
    v = np.where(np.asarray(seen.values["spikes"]), 30.0, np.asarray(seen.values["v"]))
    current = np.stack([np.asarray(step(t)) for t in seen.time])
    values = {"v": v.T[..., None], "current": current.T[..., None]}
    units = (("v", "mV"), ("current", "pA"))
    recording = Recording(values, np.asarray(True), np.asarray(-1), None, seen.dt, 1, seen.frames, units)
    write_nwb(path / "cell.nwb", recording)
    (path / "fit.yaml").write_text(YAML)
    return path


def test_a_file_is_fitted_by_its_path(folder):
    plan = load_fit(folder / "fit.yaml")
    run = RunFolder.prepare(plan, folder / "run")
    page = fit_stages(plan, run, Progress()).read_text(encoding="utf-8")
    metrics = run.load("metrics.json")
    scores = metrics["steps"]["scores"]
    assert metrics["recording"]["dt_ms"] == 0.2
    assert metrics["steps"]["trials"] == [1, 3]
    assert set(scores) == {"model", "interpolation"}
    assert scores["model"]["rate_rms_hz"] <= 1e3 / 130
    assert scores["model"]["gamma"] > 0.5
    assert metrics["fit"]["data_cost"] is None
    for said in (
        "What it predicts of the cell",
        "the mean of both neighbouring trials",
        "came to rest",
        "still moving",
    ):
        assert (said in page) == (said != "came to rest")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample_ms=0.25", r"cell.nwb: sample_ms = 0.25 must be a multiple of 0.1 ms"),
        ("cut_ms=[0,200]", "cut_ms: the recording ends at 150 ms"),
        ("held_out=[7]", r"cell.nwb: held_out: there is no trial 7; the recording has 5"),
    ],
)
def test_what_does_not_fit_the_file_is_said_before_anything_is_computed(folder, tmp_path, override, message):
    plan = load_fit(folder / "fit.yaml", [override])
    run = RunFolder.prepare(plan, tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        fit_stages(plan, run, Progress())


def test_a_recording_takes_the_place_of_a_simulation(folder):
    config = load_fit(ROOT / "configs" / "fit_recording.yaml", [f"recording={folder / 'cell.nwb'}"]).config
    assert config.simulation is None
    assert config.recording.path == folder / "cell.nwb"
