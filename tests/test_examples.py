"""The example folders, copied elsewhere and run by the commands that they name."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import jneuro.cli
from jneuro.core.code import code_folder

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Copy a folder of examples, and run a command in the copy; returns where the results are, and what was said."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(jneuro.cli, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(jneuro.cli, "heed_signals", lambda: None)

    def call(example, name, file):
        home = shutil.copytree(EXAMPLES / example, tmp_path / "mine")
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["jneuro", name, file, "--out", "done"])
        with pytest.raises(SystemExit) as caught:
            jneuro.cli.main()
        out, err = capsys.readouterr()
        assert not caught.value.code, out + err
        return home / "done", out + err

    yield call
    with code_folder(None):
        pass


def test_sweep_of_a_cell_of_ones_own(command):
    folder, _ = command("own_cell", "sweep", "sweep.yaml")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "swing" in page


def test_fit_of_a_cell_of_ones_own_to_a_file_of_ones_own(command):
    folder, _ = command("own_cell", "fit", "fit.yaml")
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["parameters"]
    # `trace.csv` was made with g_ca = 4.4 and g_k = 9.
    fitted = {name: p["value"] for name, p in found.items()}
    assert fitted["g_ca"] == pytest.approx(4.4, rel=0.02)
    assert fitted["g_k"] == pytest.approx(9.0, rel=0.02)


def test_run_on_a_simulator_of_ones_own(command):
    folder, _ = command("own_cell", "run", "run.yaml")
    assert "small" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]


def test_run_with_models_of_ones_own(command):
    folder, said = command("own_model", "run", "run.yaml")
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert {"linear", "convolutional"} <= set(scores)
    assert "Seasonal" in said
    assert float((folder.parent / "lowest.txt").read_text(encoding="utf-8")) > 0


def test_run_on_a_file_of_ones_own(command):
    folder, _ = command("own_cell", "run", "run_on_file.yaml")
    assert "small" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]


def test_a_study_of_ones_own(command):
    folder, said = command("own_study", "run", "study.yaml")
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    verdicts = {claim["text"]: claim["status"] for claim in claims}
    assert verdicts["the last value is no forecast of an oscillation"] == "reproduced"
    assert verdicts["the potential resonates near 32 Hz"] == "reproduced"
    assert verdicts["the same holds in the animal"] == "not run"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Error spectrum" in page
    assert "What is forecast peaks at" in page
    assert "claim" in said


def test_a_fit_by_a_measure_of_ones_own(command):
    folder, _ = command("own_study", "fit", "fit.yaml")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["fit"]["ok"]
    assert metrics["fit"]["values"] == pytest.approx({"g": 6, "tau_w": 25}, rel=0.05)
