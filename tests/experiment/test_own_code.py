"""A stranger's folder gets what built-in systems get: run, resume, evaluate, report, fit; stale stages are redone."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from own_code import write
from typer.testing import CliRunner

from jneuro.cli import app
from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress, Task
from jneuro.experiment import RunFolder, load_plan, run, run_stages
from jneuro.experiment.fit_plan import load_fit
from jneuro.experiment.fitting import fit_stages
from jneuro.experiment.sweeping import load_sweep


class Told(Progress):
    """Hears notes, and may be interrupted."""

    def __init__(self, until=None):
        self.notes, self.until = [], until

    def note(self, text):
        self.notes.append(text)

    def begin(self, text, total=None, unit="", done=0.0):
        if text == self.until:
            raise KeyboardInterrupt
        return Task()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder, and a run of it that was killed after training and taken up again."""
    home = write(tmp_path_factory.mktemp("stranger") / "code")
    out = home.parent / "run"
    plan = load_plan(home / "own.yaml")
    folder = RunFolder.prepare(plan, out)
    with pytest.raises(KeyboardInterrupt):
        run_stages(plan, folder, Told("evaluate"))
    trained = folder.info["stages"]["train mine"]
    metrics = run(home / "own.yaml", out=out, resume=True)
    assert RunFolder(out).info["stages"]["train mine"] == trained
    return SimpleNamespace(home=home, out=out, metrics=metrics)


def call(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def stages(out):
    return {name: stage["ended"] for name, stage in json.loads((out / "run.json").read_text())["stages"].items()}


def test_everything_of_ones_own_in_one_run(own):
    test, baselines = own.metrics["test"]["mine"], own.metrics["baselines"]
    assert set(baselines) == {"persistence", "Last"}
    assert baselines["Last"]["r2"] == baselines["persistence"]["r2"]
    assert np.isfinite(test["r2"])
    found = own.metrics["analyses"]
    assert found["my_analyses.LargestError"]["of"]["windows"] > 0
    assert found["my_analyses.Broken"] == {"failed": "AttributeError: 'Study' object has no attribute 'no_such_thing'"}
    lines = (own.out / "models" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert "bias" in json.loads(lines[0])["metrics"]
    page = (own.out / "report.html").read_text()
    for words in ("Largest error", "All that it found", "This analysis failed (AttributeError"):
        assert words in page
    recorded = json.loads((own.out / "run.json").read_text())["code"]
    assert recorded["folder"] == str(own.home)
    assert set(recorded["files"]) == {"my_analyses.py", "my_cells.py", "my_models.py", "my_numbers.py"}


def test_what_was_run_is_evaluated_with_the_code_of_the_run_alone(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = stages(own.out)
    assert call("evaluate", own.out).exit_code == 0
    assert call("report", own.out).exit_code == 0
    assert stages(own.out)["train mine"] == before["train mine"]
    copy, helper = shutil.copytree(own.home, tmp_path / "copy"), own.home / "my_numbers.py"
    text = helper.read_text()
    helper.write_text(text + "\nopen('executed', 'w')\n")
    try:
        for words in (["evaluate", own.out], ["report", own.out], ["run", own.out / "config.yaml", "--resume"]):
            error = str(call(*words, *(["--out", own.out] if words[0] == "run" else [])).exception)
            assert f"{helper}: changed since the run {own.out}, so nothing of it is executed" in error
            assert "--code DIR" in error
            assert "\n" not in error
        assert not (tmp_path / "executed").exists()
        assert call("report", own.out, "--code", copy).exit_code == 0
    finally:
        helper.write_text(text)
    gone = own.home.rename(tmp_path / "gone")
    try:
        assert "say where with --code DIR" in str(call("evaluate", own.out).exception)
    finally:
        gone.rename(own.home)


@pytest.mark.parametrize("file", ["my_models.py", "my_numbers.py"])
def test_a_stage_whose_code_has_changed_is_done_again(own, tmp_path, file):
    home = shutil.copytree(own.home, tmp_path / "code")
    out = shutil.copytree(own.out, tmp_path / "run")
    (home / file).write_text((home / file).read_text() + "\nMORE = 1\n")
    before, old = stages(out), (out / "models" / "mine" / "metrics.jsonl").stat().st_ino
    with pytest.raises(ConfigError, match=rf"train mine was done before, but {file} has changed since; .* --resume"):
        run(home / "own.yaml", out=out)
    told = Told()
    run(home / "own.yaml", out=out, resume=True, progress=told)
    assert told.notes[0] == f"train mine: {file} has changed since; trained again"
    assert [note.partition(":")[0] for note in told.notes] == ["train mine", "evaluate", "report"]
    after = stages(out)
    assert after["simulate"] == before["simulate"]
    assert all(after[name] > before[name] for name in ("train mine", "evaluate", "report"))
    assert (out / "models" / "mine" / "metrics.jsonl").stat().st_ino != old
    assert call("evaluate", out).exit_code == 0


def test_what_has_no_source_is_used_and_never_kept(own, tmp_path):
    config = load_plan(own.home / "own.yaml").config
    models = {"mine": {"model": {"name": "compact", "lags": 2}}}
    plain = {
        "name": "plain",
        "simulation": config.simulation,
        "windows": config.windows,
        "models": models,
        "train": {"batch_size": 16, "epochs": 1, "loss": lambda p, b: abs(p.mean - b.targets).mean((1, 2))},
        "evaluate": {"ceiling": None, "baselines": ["persistence"]},
    }
    first = run(plain, out=tmp_path / "a")
    told = Told()
    again = run(plain, out=tmp_path / "a", resume=True, progress=told)
    assert told.notes[0].startswith("train mine: ")
    assert told.notes[0].endswith("has no source that could be compared, so nothing is kept; trained again")
    assert again["test"]["mine"]["r2"] == first["test"]["mine"]["r2"]


def test_a_fit_of_ones_own(own, tmp_path):
    with pytest.raises(ConfigError, match=r"fit\.objective\.0: my_fits:Table: .* the shape \(1, 20\)"):
        load_fit(own.home / "own_fit.yaml", ['fit.objective=["my_fits:Table"]'])
    plan = load_fit(own.home / "own_fit.yaml")
    folder = RunFolder.prepare(plan, tmp_path / "fit")
    with pytest.raises(KeyboardInterrupt):
        fit_stages(plan, folder, Told("report"))
    done = stages(folder.path)
    fit_stages(plan, folder, Told())
    assert stages(folder.path) | {"report": 0} == done | {"report": 0}
    found = folder.load("metrics.json")
    assert found["fit"]["method"] == "my_fits:Grid"
    assert found["parameters"]["tau"]["value"] == pytest.approx(10, rel=1e-6)
    helper = own.home / "my_fits.py"
    text = helper.read_text()
    try:
        helper.write_text(text + "\nMORE = 1\n")
        told, changed = Told(), load_fit(own.home / "own_fit.yaml")
        fit_stages(changed, RunFolder.prepare(changed, folder.path, resume=True), told)
    finally:
        helper.write_text(text)
    assert told.notes[0] == "fit: my_fits.py has changed since; fitted again"
    assert stages(folder.path)["simulate"] == done["simulate"]
    assert stages(folder.path)["fit"] > done["fit"]


def test_a_recording_and_an_optimizer_of_ones_own(tmp_path):
    home, out = write(tmp_path / "code"), tmp_path / "run"
    plan = load_plan(home / "own_csv.yaml")
    with pytest.raises(KeyboardInterrupt):
        run_stages(plan, RunFolder.prepare(plan, out), Told("evaluate"))
    done = stages(out)
    assert list(done) == ["read", "train mine"]
    told = Told()
    assert np.isfinite(run(home / "own_csv.yaml", out=out, resume=True, progress=told)["test"]["mine"]["r2"])
    assert told.notes == []
    assert {n: t for n, t in stages(out).items() if n in done} == done
    used = set(json.loads((out / "run.json").read_text())["code"]["files"])
    assert used == {"my_models.py", "my_numbers.py", "my_optimizers.py", "my_readers.py"}
    for file, again in (("my_optimizers.py", ["train mine"]), ("my_readers.py", ["read", "train mine"])):
        (home / file).write_text((home / file).read_text() + "\nMORE = 1\n")
        before = stages(out)
        with pytest.raises(ConfigError, match=rf"{again[0]} was done before, but {file} has changed since"):
            run(home / "own_csv.yaml", out=out)
        run(home / "own_csv.yaml", out=out, resume=True)
        after = stages(out)
        assert [n for n in done if after[n] > before[n]] == again


@pytest.mark.parametrize("rule", ['{name: "my_rules:Ring", k: 4}', '"my_rules:Ring"', '"my_rules:wide"'])
def test_a_rule_of_ones_own_is_part_of_what_the_simulation_depends_on(tmp_path, rule):
    home = write(tmp_path / "code")
    file, helper = home / "own_rule.yaml", home / "my_distances.py"
    file.write_text(file.read_text().replace('{name: "my_rules:Ring", k: 4}', rule))
    stage = load_plan(file).stages["simulate"]
    assert set(stage.content.files) == {"my_rules.py", "my_distances.py"}
    helper.write_text(helper.read_text() + "\nMORE = 1\n")
    changed = load_plan(file).stages["simulate"]
    assert changed.content.hash != stage.content.hash
    assert changed.content.files["my_rules.py"] == stage.content.files["my_rules.py"]


def test_a_network_with_a_rule_of_ones_own_is_simulated_again_when_it_has_changed(tmp_path):
    home, out = write(tmp_path / "code"), tmp_path / "run"
    assert call("simulate", home / "own_rule.yaml", "--out", out).exit_code == 0
    first = stages(out)
    assert call("simulate", home / "own_rule.yaml", "--out", out).exit_code == 0
    assert stages(out) == first
    helper = home / "my_distances.py"
    helper.write_text(helper.read_text() + "\nopen('executed', 'w')\n")
    assert "nothing of it is executed" in str(call("evaluate", out).exception)
    helper.write_text(helper.read_text().replace("open('executed', 'w')", "MORE = 1"))
    said = call("simulate", home / "own_rule.yaml", "--out", out)
    assert said.exit_code == 0
    assert "simulate: my_distances.py has changed since; simulated again" in said.output
    assert stages(out)["simulate"] > first["simulate"]


def test_a_sweep_of_a_cell_that_has_changed_is_computed_again(tmp_path):
    home, out = write(tmp_path / "code"), tmp_path / "sweep"
    assert call("sweep", home / "own_sweep.yaml", "--out", out).exit_code == 0
    first = stages(out)
    assert call("sweep", home / "own_sweep.yaml", "--out", out, "--resume").exit_code == 0
    assert stages(out) == first
    cells = home / "my_cells.py"
    cells.write_text(cells.read_text() + "\nMORE = 1\n")
    refused = str(call("sweep", home / "own_sweep.yaml", "--out", out).exception)
    assert "report was done before, but my_cells.py has changed since" in refused
    said = call("sweep", home / "own_sweep.yaml", "--out", out, "--resume")
    assert said.exit_code == 0
    assert "sweep: my_cells.py has changed since; computed again" in said.output
    assert stages(out)["report"] > first["report"]


REFUSED = {
    "no such module": ('model: {name: "my_models:Linear"', 'model: {name: "our_models:Linear"', "our_models"),
    "no such class": ("my_models:Linear", "my_models:Liner", "has no 'Liner'"),
    "no model": ("my_models:Linear", "my_models:Bell", "is no model: its class is not a flax.nnx.Module"),
    "no analysis": ("my_analyses:Broken", "my_models:Bell", "is no analysis: derive its class from jneuro's Analysis"),
    "argument": ("gain: 0.5", "gian: 0.5", "did you mean 'gain'"),
    "a baseline's name": ("mine: {", "persistence: {", "'persistence' is the name of a baseline"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(own, tmp_path, case):
    home = write(tmp_path)
    old, new, said = REFUSED[case]
    text = (home / "own.yaml").read_text()
    assert old in text
    (home / "own.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_plan(home / "own.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_simulator_is_constructed_once_for_each_block_and_precision(tmp_path):
    home = write(tmp_path)
    cells = home / "my_cells.py"
    counted = "    COUNT = []\n\n    def __check_init__(self):\n        self.COUNT.append(1)\n\n    class State"
    cells.write_text(cells.read_text().replace("    class State", counted, 1))
    # A fit simulates in double precision, and knows the truth in it; a sweep also builds, twice, the ends of its axis.
    for load, name, most in ((load_plan, "own", 1), (load_fit, "own_fit", 4), (load_sweep, "own_sweep", 5)):
        config = load(home / f"{name}.yaml").config
        simulator = config.simulation.simulator.target
        assert 1 <= len(simulator.COUNT) <= most, (name, len(simulator.COUNT))
        simulator.COUNT.clear()
