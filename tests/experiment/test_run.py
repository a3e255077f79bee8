"""A small experiment from its configuration to its report: what is there, what is reused, what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import xarray as xr
import zarr

import jneuro.experiment.simulation as simulation
from jneuro import cli
from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress, Task
from jneuro.experiment import RunFolder, require_trained, run, run_stages, running
from jneuro.experiment.plan import load_plan, reopen
from jneuro.recordings import RecordingWriter, open_recording, provenance_of, read_recording
from jneuro.simulators import SimulationError

MODELS = {"compact": False, "compact (leaky split)": True}


def test_every_score_stands_beside_baselines_and_ceiling(tiny):
    metrics = tiny.metrics
    assert metrics == json.loads((tiny.folder / "metrics.json").read_text())
    assert {n: s["leaky"] for n, s in metrics["test"].items()} == MODELS
    assert list(metrics["baselines"]) == ["persistence", "ar", "var", "lookup"]
    for name, score in {**metrics["test"], **metrics["baselines"]}.items():
        for key in ("r2", "rmse", "mae", "share_of_ceiling"):
            assert np.isfinite(score[key]), (name, key)
        assert score["horizons_ms"] == [1.0, 5.0]
        assert len(score["per_horizon"]["r2"]) == 2
        assert len(score["per_neuron"]["r2"]) == 20
    for name in MODELS:
        assert metrics["test"][name]["train_seconds"] > 0
        assert metrics["test"][name]["parameters"] == metrics["test"]["compact"]["parameters"] > 100
    ceiling = metrics["ceiling"]
    assert 0.5 < ceiling["r2"] < 1
    # Of six states only: the error of a difference of variances, itself uncertain by a third.
    assert 0 < ceiling["se"] < 0.2
    # One test run of 350 kept ms: snapshots at 100, 150 … 350 ms have a whole window before and 5 ms after them.
    assert ceiling["samples"] == 6 * 20
    assert metrics["windows"]["counts"] == {"train": 3 * 66, "validation": 66, "test": 66}
    assert sorted(r for runs in metrics["windows"]["runs"].values() for r in runs) == list(range(5))
    assert metrics["windows"]["targets"] == metrics["test"]["compact"]["targets"] == {"v": "mV"}
    recording = metrics["recording"]
    assert (recording["runs"], recording["duration_ms"], recording["neurons"]) == (5, 400.0, 20)
    assert 5 < recording["rate_hz"] < 60
    assert recording["rate_hz"] == pytest.approx(0.8 * recording["rate_e_hz"] + 0.2 * recording["rate_i_hz"])


def test_the_folder_holds_what_it_promises(tiny):
    for name in ("config.yaml", "run.json", "recording.zarr", "metrics.json", "predictions.zarr", "report.html"):
        assert (tiny.folder / name).exists(), name
    for name in ("compact", "compact.1", "compact.leaky", "compact.leaky.1"):
        lines = (tiny.folder / "models" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    pictures = {f.suffix for f in (tiny.folder / "figures").iterdir()}
    assert pictures == {".png", ".svg"}
    html = (tiny.folder / "report.html").read_text()
    for word in ("compact", "lookup", "ceiling", "leak"):
        assert word in html
    info = json.loads((tiny.folder / "run.json").read_text())
    trained = [f"train compact{leaky}{seed}" for leaky in ("", " (leaky split)") for seed in ("", " (seed 1)")]
    stages = ["simulate", *trained, "evaluate", "report"]
    assert list(info["stages"]) == stages
    assert {"versions", "device", "git_commit", "hash", "command"} <= info.keys()
    assert reopen(tiny.folder)[0].config == tiny.plan.config


def test_the_spread_over_seeds(tiny):
    for name in MODELS:
        score = tiny.metrics["test"][name]
        first, second = score["seeds"]["r2"]
        assert first == score["r2"] != second
        assert score["seeds"]["mean"] == pytest.approx((first + second) / 2)
        # Student's 97.5 % point with one degree of freedom is 12.706; the error of the mean of two is half their gap.
        assert score["seeds"]["ci95"] == pytest.approx(12.706 * abs(first - second) / 2, rel=1e-3)


def test_analyses_are_told(tiny):
    assert set(tiny.metrics["analyses"]["error_analysis"]["populations"]) == {"excitatory", "inhibitory"}
    data = xr.open_zarr(tiny.folder / "analyses.zarr", group="error_analysis", consolidated=False)
    assert data["distance.rmse.compact"].shape == data["since_spike.rmse_se.lookup"].shape == (3,)
    html = (tiny.folder / "report.html").read_text()
    assert "Where the forecast is wrong" in html
    assert (tiny.folder / "figures" / "error_analysis.png").exists()


def test_what_a_model_learned_is_told(tiny):
    found = tiny.metrics["analyses"]["interpretability"]
    lost = found["importance"]["compact"]
    assert len(lost["own past"]["seeds"]) == 2
    assert lost["own past"]["lost"] > abs(lost["all others"]["lost"])
    assert {"excitatory partners", "inhibitory strangers"} < set(lost) == set(found["settings"]["groups"])
    assert found["settings"]["per_run"]
    assert found["attribution"]["compact"]["incomplete"] < 0.05
    assert set(found["synapses"]) == {"compact", "VAR weights", "cross-correlation"}
    data = xr.open_zarr(tiny.folder / "analyses.zarr", group="interpretability", consolidated=False)
    assert data["synapse"].shape == data["pairs.compact"].shape == (20, 20)
    assert 0.15 < data["synapse"].mean() < 0.45
    html = (tiny.folder / "report.html").read_text()
    assert "without its own past" in html
    assert "Whose past the forecast needs" in html


def test_claims_are_judged_and_told(tiny, capsys):
    judged = json.loads((tiny.folder / "claims.json").read_text())
    assert [c["status"] for c in judged][2] == "not run"
    assert judged[0]["evidence"][0].startswith(f"{tiny.metrics['test']['compact']['r2']:.4g} against")
    assert judged[1]["text"] == "it needs its own past"
    html = (tiny.folder / "report.html").read_text()
    assert "Of 3 claims" in html
    assert "needs a GPU" in html
    cli.claims([tiny.folder])
    assert "| it is fast on a GPU | not run | needs a GPU |" in capsys.readouterr().out
    # A claim changes nothing that was computed.
    fewer = load_plan(tiny.file, ["claims=[]"])
    assert fewer.stages["evaluate"] == tiny.plan.stages["evaluate"]
    assert fewer.stages["report"] != tiny.plan.stages["report"]


def test_other_claims_are_judged_without_doing_anything_else_again(tiny, tmp_path):
    folder, file = shutil.copytree(tiny.folder, tmp_path / "run"), tmp_path / "tiny.yaml"
    file.write_text(tiny.file.read_text().replace("needs a GPU", "needs two GPUs"))
    before = json.loads((folder / "run.json").read_text())["stages"]
    with pytest.raises(ConfigError, match="report was done before"):
        run(file, out=folder)
    run(file, out=folder, resume=True)
    after = json.loads((folder / "run.json").read_text())["stages"]
    assert {n for n in after if after[n] != before[n]} == {"report"}
    assert json.loads((folder / "claims.json").read_text())[2]["evidence"] == ["needs two GPUs"]
    assert reopen(folder)[0].config.claims[2].why == "needs two GPUs"


def test_results_fit_their_schema(tiny):
    schema = json.loads((tiny.folder / "metrics.schema.json").read_text())
    jsonschema.validate(tiny.metrics, schema)
    assert {"test", "baselines", "ceiling"} <= set(schema["required"])
    comparison = tiny.metrics["test"]["compact"]["comparison"]
    assert comparison["paired_by"] == "run"
    assert comparison["ci95"] == [None, None]  # one test run


def test_predictions_are_those_that_were_scored(tiny):
    data = xr.open_zarr(tiny.folder / "predictions.zarr", group="test", consolidated=False)
    error = (data["prediction.compact"] - data["target"]).isel(horizon=0).values
    assert np.sqrt(np.mean(error**2)) == pytest.approx(tiny.metrics["test"]["compact"]["rmse"], rel=1e-4)
    assert "prediction.compact (leaky split)" not in data
    # The target at a given time is that frame of the recording, give or take the measurement noise of 0.2 mV.
    v = read_recording(tiny.folder / "recording.zarr")
    for horizon, ahead in enumerate((0, 4)):
        frame = np.searchsorted(v.time, data["time"].values - 1e-6) + ahead
        noise = data["target"].values[:, horizon] - v.values["v"][data["run"].values, frame]
        assert noise.std() == pytest.approx(0.2, rel=0.1)


def test_the_recording_is_that_of_its_parts(tiny):
    data = open_recording(tiny.folder / "recording.zarr")
    assert dict(data.sizes) == {"trial": 5, "time": 400, "neuron": 20}
    assert provenance_of(data)["seed"] == 3
    # Every run has its own network and its own noise.
    assert len({data["v"].values[n].tobytes() for n in range(5)}) == 5
    v, last = data["v"].values, zarr.open_array(tiny.folder / "recording.zarr" / "states" / "y.v", mode="r")
    np.testing.assert_array_equal(last[:, -1], v[:, -1])
    np.testing.assert_array_equal(last[:, 0], v[:, 49])


@pytest.fixture
def idle(monkeypatch):
    """Let every stage that computes fail."""

    def refuse(*_, **__):
        raise AssertionError("computed again")

    for name in ("simulate_stage", "train_stage", "evaluate_stage", "report_stage"):
        monkeypatch.setattr(running, name, refuse)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("resume", [False, True])
def test_running_again_computes_nothing(tiny, resume):
    before = {f: f.stat().st_mtime_ns for f in tiny.folder.rglob("*") if f.is_file() and f.name != ".lock"}
    assert run(tiny.file, out=tiny.folder, resume=resume) == tiny.metrics
    assert {f: f.stat().st_mtime_ns for f in before} == before


@pytest.mark.parametrize("resume", [False, True])
def test_the_folder_of_another_configuration_is_refused(tiny, resume):
    with pytest.raises(ConfigError, match="holds the run of another configuration") as caught:
        run(tiny.file, ["seed=4"], out=tiny.folder, resume=resume)
    assert str(caught.value).startswith(f"{tiny.folder}: ")
    assert "choose another --out" in str(caught.value)


def prepared(tiny, out, overrides=(), **more):
    return RunFolder.prepare(load_plan(tiny.file, overrides), out, **more)


@pytest.mark.usefixtures("idle")
def test_an_unfinished_run_is_not_taken_up_unasked(tiny, tmp_path):
    prepared(tiny, tmp_path / "a")
    with pytest.raises(ConfigError, match="unfinished run; continue it with --resume, or remove it"):
        run(tiny.file, out=tmp_path / "a")
    assert prepared(tiny, tmp_path / "a", resume=True).path == tmp_path / "a"


def test_two_processes_do_not_work_in_one_folder(tiny, tmp_path):
    begun = prepared(tiny, tmp_path / "a")
    with begun.lock(), pytest.raises(ConfigError, match="another process is at work here"):
        prepared(tiny, tmp_path / "a")
    with begun.lock(1), begun.lock(2), pytest.raises(ConfigError, match="is at work"), begun.lock(1):
        pass
    folder = prepared(tiny, tiny.folder)
    with folder.lock(), pytest.raises(ConfigError, match="another process is at work here; wait for it, or stop it"):
        run_stages(tiny.plan, folder, Progress())
    run_stages(tiny.plan, folder, Progress())


def test_a_run_without_models_is_not_evaluated(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"compact is not trained; go on with `jneuro run .*--resume`"):
        require_trained(tiny.plan, prepared(tiny, tmp_path / "a"))
    with pytest.raises(ConfigError, match=r"metrics.json is missing; make it with `jneuro run"):
        prepared(tiny, tmp_path / "a", resume=True).load("metrics.json")
    require_trained(tiny.plan, prepared(tiny, tiny.folder))
    with pytest.raises(ConfigError, match="not a run folder"):
        RunFolder.find(tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "run.json",
            "(?s).*",
            '{"format": 2, "versions": {"jneuro": "1.0"}, "stages": {}}',
            r"/a: written by jneuro 1.0, in format 2 of run folders; this version reads format 3",
        ),
        ("run.json", "{", "", "run.json: damaged; make it again with `jneuro run .*--resume`"),
        (
            "run.json",
            '"name": "tiny"',
            '"name": "tinx"',
            "run.json: damaged; make it again with `jneuro run .*--resume`",
        ),
        ("config.yaml", "seed: 3", "seed: 4", "config.yaml: has changed since the run; restore it"),
        ("config.yaml", "needs a GPU", "needs a CPU", "config.yaml: has changed since the run; restore it"),
    ],
)
def test_the_folder_of_another_version_or_that_was_edited_is_refused(tiny, tmp_path, file, old, new, said):
    prepared(tiny, tmp_path / "a")
    text = (tmp_path / "a" / file).read_text()
    assert re.search(old, text)
    (tmp_path / "a" / file).write_text(re.sub(old, new, text, count=1))
    with pytest.raises(ConfigError, match=said):
        reopen(tmp_path / "a")


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    ("stage", "files", "said"),
    [
        ("evaluate", "metrics.json", "metrics.json is not what was written"),
        ("evaluate", "predictions.zarr/test/*/c/**/*", r"predictions.zarr/test/\S+ is missing"),
        ("simulate", "recording.zarr/v/c/**/*", "recording.zarr/v/c/0/0/0 is damaged"),
        ("train compact", "models/compact/checkpoints/**/*", r"models/compact/\S+ is not what was written"),
        ("report", "figures/*", r"figures/\S+ is not what was written"),
    ],
)
def test_what_was_changed_after_the_run_is_noticed(tiny, tmp_path, stage, files, said):
    out = tmp_path / "a"
    shutil.copytree(tiny.folder, out)
    file = next(f for f in sorted(out.glob(files)) if f.is_file())
    if "missing" in said:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ConfigError, match=f"{stage} was done before, but {said}; do again"):
        run(tiny.file, out=out)
    if stage == "evaluate":
        top = file.relative_to(out).parts[0]
        with pytest.raises(
            ConfigError, match=r"damaged, is (missing|not what was written); make it again with `jneuro"
        ):
            RunFolder.find(out).load(top if top.endswith("json") else f"{top}/test", Any)


@pytest.mark.usefixtures("idle")
def test_folders_that_cannot_be_used(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "link", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match=r"cannot be written \(.*\); choose another folder with --out"):
            run(tiny.file, out=out)
    with pytest.raises(ConfigError, match="is not empty and not a run folder; choose another --out"):
        run(tiny.file, out=tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "link"]


def test_a_read_only_folder_is_refused(tiny):
    user, home = os.geteuid(), Path(tempfile.mkdtemp())
    home.chmod(0o555)
    plan = load_plan(tiny.file)
    try:
        if user == 0:  # root may write everywhere
            os.seteuid(65534)
        with pytest.raises(ConfigError, match=r"/a: cannot be written \(Permission denied\); choose another folder"):
            RunFolder.prepare(plan, home / "a")
    finally:
        os.seteuid(user)
        home.rmdir()


def test_a_sibling_shares_recording_and_models(tiny, monkeypatch):
    monkeypatch.setattr(simulation, "build_runs", lambda *_: pytest.fail("simulated again"))
    plan = load_plan(tiny.file, ["evaluate.baselines=[persistence, lookup]", "evaluate.leaky_twins=[]"])
    folder = RunFolder.prepare(plan, tiny.home / "sibling")
    try:
        run_stages(plan, folder, Progress(), "train")
        assert folder.info["stages"]["simulate"]["from"] == "whole"
        assert folder.info["stages"]["train compact"]["from"] == "whole"
        for name in ("recording.zarr/v/zarr.json", "models/compact/metrics.jsonl"):
            assert (folder.path / name).samefile(tiny.folder / name)
        np.testing.assert_array_equal(
            read_recording(plan.recording(folder)).values["v"],
            read_recording(tiny.folder / "recording.zarr").values["v"],
        )
    finally:
        shutil.rmtree(folder.path)


def test_where_there_are_no_hard_links_everything_is_computed(tiny, monkeypatch):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    def begin(*_):
        raise InterruptedError

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(simulation, "build_runs", begin)
    folder = RunFolder.prepare(tiny.plan, tiny.home / "unlinked")
    try:
        with pytest.raises(InterruptedError):
            run_stages(tiny.plan, folder, Progress(), "simulate")
        assert RecordingWriter(folder.path / "recording.zarr", provenance(tiny)).frames == 0
    finally:
        shutil.rmtree(folder.path)


def provenance(tiny):
    return {"simulation": tiny.plan.simulation.model_dump(mode="json"), "seed": 3}


def test_a_folder_that_was_hardly_begun_is_taken(tiny, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    assert prepared(tiny, tmp_path).info["name"] == "tiny"


@pytest.mark.parametrize("override", ["seed=4", "simulation.duration_ms=450", "simulation.simulator.g=6"])
def test_a_sibling_of_another_simulation_shares_nothing(tiny, override):
    plan = load_plan(tiny.file, [override])
    folder = RunFolder.prepare(plan, tiny.home / "stranger")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simulation, "build_runs", lambda *_: (_ for _ in ()).throw(InterruptedError))
            with pytest.raises(InterruptedError):
                run_stages(plan, folder, Progress(), "simulate")
        assert folder.info["stages"] == {}
    finally:
        shutil.rmtree(folder.path)


def scores(metrics):
    """The metrics without times."""
    text = json.dumps(metrics)
    return json.loads(re.sub(r'"train_seconds": [0-9.e-]+', '"train_seconds": 0', text))


def test_a_recording_of_elsewhere_with_its_ceiling(tiny, tmp_path):
    # The same recording by its path: the same numbers, and the ceiling from its provenance.
    config = "\n".join(re.sub(r"(?s)simulation:.*?windows:", "windows:", tiny.file.read_text()).splitlines())
    (tmp_path / "recorded.yaml").write_text(f"recording: {tiny.folder / 'recording.zarr'}\n{config}\n")
    plan = load_plan(tmp_path / "recorded.yaml")
    folder = RunFolder.prepare(plan, tmp_path / "a")
    run_stages(plan, folder, Progress(), "evaluate")
    metrics = folder.load("metrics.json")
    assert not (tmp_path / "a" / "recording.zarr").exists()
    assert scores(metrics) == scores(tiny.metrics)


def test_one_network_for_all_runs_and_the_same_in_chunks(tiny, tmp_path, monkeypatch):
    wanted = ["simulation.connectivity=fixed", "evaluate.leaky_twins=[]", "train.epochs=1"]
    plan = load_plan(tiny.file, wanted)
    whole = RunFolder.prepare(plan, tmp_path / "a" / "run")
    run_stages(plan, whole, Progress(), "evaluate")
    metrics = whole.load("metrics.json")
    assert 0.5 < metrics["ceiling"]["r2"] < 1
    assert set(metrics["test"]) == {"compact"}
    runs = simulation.build_runs(plan.simulation, simulation.jax.random.key(3))
    assert not runs.per_trial
    assert runs.simulators.adjacency.shape == (20, 20)
    # Chunk by chunk, stopped in the middle and continued.
    heard = []

    class Impatient(Progress, Task):
        def begin(self, text, total=None, unit="", done=0.0):
            return self

        def update(self, done, total):
            heard.append(done / total)
            if len(heard) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "_CHUNK", 2 * 50 * 5 * 20)
    folder = RunFolder.prepare(plan, tmp_path / "b" / "run")
    with pytest.raises(KeyboardInterrupt):
        run_stages(plan, folder, Impatient(), "simulate")
    run_stages(plan, folder, Impatient(), "simulate")
    assert heard == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert_same_stores(plan.recording(folder), plan.recording(whole))


def assert_same_stores(one, other):
    one, other = (dict(zarr.open_group(path, mode="r").members(max_depth=None)) for path in (one, other))
    assert one.keys() == other.keys()
    for name, array in one.items():
        if isinstance(array, zarr.Array):
            np.testing.assert_array_equal(array[...], other[name][...], name)


def test_a_simulation_that_leaves_the_finite_numbers_says_where(tiny, tmp_path):
    wanted = ["simulation.simulator.tau_m=0.02", "simulation.simulator.v_threshold=1e38", "simulation.runs=4"]
    with pytest.raises(SimulationError, match=r"of run \d, cell \d+, is not finite at t = \d+ ms"):
        run(tiny.file, [*wanted, "windows.fractions={train: 0.5, validation: 0.25, test: 0.25}"], out=tmp_path / "a")


CHILD = Path(__file__).with_name("experiment_child.py")


def test_a_killed_run_ends_bit_identical(tiny, tmp_path):
    """Killed or stopped again and again; each time it is taken up, and nothing shows in the end."""
    # A chunk extends time, v, three columns of events and four states; the second chunk begins at 9.
    moments = {
        ("SIGKILL", "grow 13"): None,
        ("SIGTERM", "grow 4"): "stopped; what is written stays, continue with --resume",
        ("SIGKILL", "step 9"): None,
        ("SIGTERM", "step 9"): "saved step 9 in ",
        ("SIGKILL", "stage evaluate: predictions"): None,
    }
    out = tmp_path / "run"
    for (name, moment), said in moments.items():
        arguments = ["run", str(tiny.file), "--out", str(out), *(["--resume"] if out.exists() else [])]
        command = [sys.executable, str(CHILD), name, moment, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == (-9 if said is None else 1), (moment, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        if said is not None:
            assert said in done.stderr
            assert len([line for line in done.stderr.splitlines() if line and "stopping …" not in line]) == 1
        assert not (out / "metrics.json").exists()
    metrics = run(tiny.file, out=out, resume=True)
    assert scores(metrics) == scores(tiny.metrics)
    for name in ("recording.zarr", "predictions.zarr"):
        assert_same_stores(out / name, tiny.folder / name)
    assert (out / "report.html").exists()
