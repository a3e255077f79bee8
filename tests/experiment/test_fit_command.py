"""`jneuro fit` from its file to its report."""

import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from jneuro.cli import app
from jneuro.core.config import ConfigError
from jneuro.experiment.fit_plan import load_fit
from jneuro.fitting import LeastSquares, NelderMead
from jneuro.fitting.config import chosen

TEXT = """
name: small
simulation:
  simulator: {name: hodgkin_huxley}
  stimulus: {name: step, amplitude: [10, 25, 18], onset: 2, end: 12}
  runs: 1
  duration_ms: 15
  snapshot_every_ms: 15
  dt_ms: 0.025
  solver: rk4
  record_every_ms: 0.1
  record: [v, current]
simulator: {name: hodgkin_huxley}
fit:
  trainable: [g_na, g_k]
  noise_mv: 0.5
  solver: staggered_crank_nicolson
  dt_ms: 0.0125
  baselines: [{name: nelder_mead, evaluations: 30}]
train: [0, 1]
held_out: [2]
repeats: 2
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def call(*words):
    return CliRunner().invoke(app, ["fit", *map(str, words)])


def stopped(*_):
    raise KeyboardInterrupt


def test_a_fit_from_its_file_to_its_report(file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as late:
        late.setattr("jneuro.experiment.fitting._errors", stopped)
        assert call(file, "--out", out).exit_code != 0
    assert len(list((out / "pieces").iterdir())) == 4  # two fits of each method
    with monkeypatch.context() as again:
        for method in (LeastSquares, NelderMead):
            again.setattr(method, "solve", stopped)
        done = call(file, "--out", out, "--resume")
    assert done.exit_code == 0, done.exception
    assert not (out / "pieces").exists()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["fit"]["ok"], metrics["fit"]["reason"]
    for name, true in {"g_na": 120.0, "g_k": 36.0}.items():
        found = metrics["parameters"][name]
        assert found["truth"] == true
        assert abs(found["value"] - true) < 4 * found["se"]
    assert [b["method"] for b in metrics["baselines"]] == ["nelder_mead"]
    assert not metrics["baselines"][0]["ok"]
    assert metrics["repeats"]["fits"] == 2
    assert metrics["repeats"]["wrong_but_accepted"] == 0
    assert metrics["held_out"]["trials"][0]["recall"] == 1.0
    assert metrics["held_out"]["rmse_mv"] < 5
    stored = xr.open_zarr(out / "fit.zarr", consolidated=False)
    assert dict(stored.v.sizes) == {"trial": 2, "time": 150}
    assert np.abs(stored.prediction - stored.v).mean() < np.abs(stored.before - stored.v).mean()
    page = (out / "report.html").read_text()
    for text in ("The fit is accepted", "What it cost", "Again, with new noise", "What it predicts", "Identifiability"):
        assert text in page
    for name in ("traces", "costs", "intervals", "repeats", "held_out"):
        assert (out / "figures" / f"{name}.png").exists()
    stages = json.loads((out / "run.json").read_text())["stages"]
    assert call(file, "--out", out).exit_code == 0
    assert json.loads((out / "run.json").read_text())["stages"]["fit"] == stages["fit"]  # not fitted again
    assert isinstance(call(file, "seed=1", "--out", out).exception, ConfigError)


REFUSED = {
    "no data": ("simulation=null", "give either 'simulation' or 'recording'"),
    "parameter": ("fit.trainable=[g_nb]", "did you mean 'g_na'"),
    "bounds": ("fit.trainable=[e_na]", "e_na has no bounds"),
    "method": ("fit.method={name: cmaes}", "did you mean 'cma'"),
    "objective": ("fit.objective=[{name: features, features: {height: 1}}]", "unknown feature 'height'"),
    "both": ("held_out=[1]", "train and held_out both name trial 1; a trial is either fitted or held out"),
    "trial": ("held_out=[3]", "held_out: there is no trial 3; the recording has 3"),
    "record": ("simulation.record=[v]", "must hold 'current'"),
    "cut": ("cut_ms=[5, 2]", "a beginning and a later end"),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_runs(file, tmp_path, override, message):
    error = call(file, override, "--out", tmp_path / "run").exception
    assert message in str(error)
    assert error.outcome == "error"
    assert not (tmp_path / "run").exists()


def test_repeats_need_a_simulation(file, tmp_path):
    text = (
        TEXT[: TEXT.index("simulation:")]
        + "recording: nothing.abf\n"
        + TEXT[TEXT.index("simulator: {name: hodgkin_huxley}\nfit") :]
    )
    file.write_text(text)
    with pytest.raises(ConfigError, match="repeats: only a simulation"):
        load_fit(file)
    missing = call(file, "repeats=1", "--out", tmp_path / "run").exception
    assert missing.outcome == "error"
    assert "nothing.abf" in str(missing)


def test_trials_by_words():
    assert [chosen(w, 5) for w in ("all", "even", "odd", "none", (4, 1))] == [
        [0, 1, 2, 3, 4], [0, 2, 4], [1, 3], [], [4, 1],
    ]  # fmt: skip
