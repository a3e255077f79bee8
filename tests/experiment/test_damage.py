"""What is damaged after a run is found and named by whoever would use it, and made again by --resume."""

import json
import os
import re
import shutil

import pytest
import xarray as xr

from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress
from jneuro.core.seals import Finding
from jneuro.experiment import RunFolder, require_trained, run, running
from jneuro.experiment.checking import check_folder
from jneuro.experiment.conversion import convert
from jneuro.experiment.folder import DamagedRecord
from jneuro.experiment.plan import load_plan, reopen
from jneuro.experiment.reporting import report_stage
from jneuro.recordings.store import RecordingWriter, StoreError
from jneuro.training.checkpoints import latest


def first(path, pattern):
    return sorted(f for f in path.glob(pattern) if f.is_file())[0]


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def last(path, name="compact"):
    """The folder of the latest checkpoint."""
    return max((path / "models" / name / "checkpoints").iterdir(), key=lambda f: int(f.name))


def evaluate(folder):
    require_trained(*reopen(folder))


def report(folder):
    report_stage(*reopen(folder))


def claims(folder):
    RunFolder.find(folder).load("claims.json")


def converted(folder):
    convert(folder / "models" / "compact", folder / "converted")


DAMAGES = {
    "a chunk of the recording gone": (
        lambda p: first(p, "recording.zarr/v/c/**/*").unlink(),
        evaluate,
        "recording.zarr/v/c/0/0/0",
        "is missing",
    ),
    "a bit of it": (
        lambda p: flip(p / "recording.zarr/population/c/0"),
        report,
        "recording.zarr/population/c/0",
        "is damaged",
    ),
    "its provenance": (
        lambda p: edit(p / "recording.zarr" / "zarr.json", '\\"seed\\": 3', '\\"seed\\": 4'),
        evaluate,
        "recording.zarr/zarr.json",
        "is not what was written",
    ),
    "the last checkpoint": (
        lambda p: first(last(p), "**/d/*").write_bytes(b""),
        evaluate,
        r"models/compact/checkpoints/12/state/\S+",
        "is not what was written",
    ),
    "all checkpoints": (
        lambda p: shutil.rmtree(p / "models" / "compact" / "checkpoints"),
        converted,
        "models/compact/checkpoints",
        "is missing",
    ),
    "a checkpoint too many": (
        lambda p: shutil.copytree(last(p), last(p).with_name("999")),
        evaluate,
        "models/compact/checkpoints/999",
        "does not belong here",
    ),
    "an epoch's record": (
        lambda p: edit(p / "models" / "compact" / "metrics.jsonl", "0.", "1."),
        report,
        "models/compact/metrics.jsonl",
        "is not what was written",
    ),
    "a score": (
        lambda p: edit(p / "metrics.json", '"r2": 0.', '"r2": 1.'),
        report,
        "metrics.json",
        "is not what was written",
    ),
    "all scores": (lambda p: (p / "metrics.json").unlink(), report, "metrics.json", "is missing"),
    "a prediction": (
        lambda p: first(p, "predictions.zarr/test/target/c/**/*").unlink(),
        report,
        "predictions.zarr/test/target/c/0/0/0",
        "is missing",
    ),
    "an analysis": (
        lambda p: (p / "analyses.zarr" / "zarr.json").write_bytes(bytes(99)),
        report,
        "analyses.zarr/zarr.json",
        "is not what was written",
    ),
    "a verdict": (
        lambda p: edit(p / "claims.json", "not run", "reproduced"),
        claims,
        "claims.json",
        "is not what was written",
    ),
    "the record": (lambda p: os.truncate(p / "run.json", 99), evaluate, "run.json", "damaged"),
    "a second of it": (lambda p: edit(p / "run.json", '"seconds": ', '"seconds": 9'), report, "run.json", "damaged"),
    "no record": (lambda p: (p / "run.json").unlink(), claims, "run.json", "missing"),
    "another seed": (
        lambda p: edit(p / "config.yaml", "seed: 3", "seed: 1"),
        evaluate,
        "config.yaml",
        "has changed since",
    ),
    "no configuration": (lambda p: (p / "config.yaml").unlink(), report, "config.yaml", "is missing"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_is_damaged_is_named_with_a_remedy(tiny, tmp_path, case):
    damage, use, file, what = DAMAGES[case]
    out = shutil.copytree(tiny.folder, tmp_path / "a run")
    assert check_folder(out) == []
    damage(out)
    (found,) = check_folder(out)
    assert re.fullmatch(file, found.path.relative_to(out).as_posix())
    assert what in found.what
    assert re.search(r"`jneuro run .*--out '.*/a run' --resume`", found.remedy)
    with pytest.raises((ConfigError, StoreError), match=f"{file}.* {what}.*--(resume|out)"):
        use(out)
    if file != "config.yaml":
        with pytest.raises(ConfigError, match=f"{file}.* {what}"):
            run(out / "config.yaml", out=out)


class Heard(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def scores(metrics):
    """The metrics without times."""
    return json.loads(re.sub(r'"train_seconds": [0-9.e-]+', '"train_seconds": 0', json.dumps(metrics)))


def test_whatever_is_damaged_is_made_again(tiny, tmp_path):
    out, heard = shutil.copytree(tiny.folder, tmp_path / "run"), Heard()
    flip(first(out, "recording.zarr/v/c/**/*"))
    first(last(out), "**/d/*").write_bytes(b"")
    edit(out / "models" / "compact.1" / "metrics.jsonl", "0.", "1.")
    shutil.rmtree(out / "models" / "compact.leaky")
    edit(out / "metrics.json", '"r2": 0.', '"r2": 1.')
    (out / "analyses.zarr" / "zarr.json").write_bytes(b"")
    (out / "figures" / "other.png").write_bytes(b"")
    plan = load_plan(out / "config.yaml")
    folder = RunFolder.prepare(plan, out, resume=True)
    with pytest.warns(UserWarning, match="checkpoints/12 is damaged .*; using 6"):
        running.run_stages(plan, folder, heard)
    assert check_folder(out) == []
    assert not (out / "figures" / "other.png").exists()
    assert scores(folder.load("metrics.json")) == scores(tiny.metrics)
    assert [note.partition(":")[0] for note in heard.notes] == [
        "simulate",
        "train compact",
        "train compact (seed 1)",
        "train compact (leaky split)",
        "evaluate",
        "report",
    ]
    assert heard.notes[0] == "simulate: recording.zarr/v/c/0/0/0 is damaged; simulated again"


def test_a_record_is_made_again_from_what_is_there(tiny, tmp_path):
    out = shutil.copytree(tiny.folder, tmp_path / "run")
    (out / "run.json").write_bytes(b"\xff")
    (out / "recording.zarr" / "zarr.json").write_bytes(b"")
    assert [f.path.relative_to(out).as_posix() for f in check_folder(out)] == ["run.json", "recording.zarr/zarr.json"]
    with pytest.raises(DamagedRecord, match=r"run.json: damaged; make it again with `jneuro run .*--resume`"):
        RunFolder.prepare(load_plan(out / "config.yaml"), out)
    plan = load_plan(out / "config.yaml")
    folder = RunFolder.prepare(plan, out, resume=True)
    running.run_stages(plan, folder, Progress(), "train")
    assert check_folder(out) == []
    kept = json.loads((tiny.folder / "run.json").read_text())["stages"]["train compact"]["outputs"]
    assert folder.info["stages"]["train compact"]["outputs"] == kept
    (out / "config.yaml").write_bytes(b"")
    RunFolder.prepare(tiny.plan, out, resume=True)  # by one's own file
    assert check_folder(out) == []


def test_other_versions_are_told(tiny, tmp_path):
    out, heard = shutil.copytree(tiny.folder, tmp_path / "run"), Heard()
    folder = RunFolder(out)
    stages = folder.info["stages"]
    stages["simulate"]["by"] = {
        "versions": stages["simulate"]["by"]["versions"] | {"jax": "0.0.1"},
        "source": "",
        "device": "TPU v9",
    }
    folder._update(stages=stages)
    folder.note_makers(tiny.plan.stages.values(), heard)
    assert heard.notes == [
        "simulate: made with jax 0.0.1, device TPU v9; what is finished is kept, the rest is made with today's"
    ]
    other = RunFolder.prepare(tiny.plan, tmp_path / "other")
    assert not other.reuse(tiny.plan.stages["simulate"])  # a sibling of another version lends nothing
    assert other.reuse(tiny.plan.trainings[0].stage)


def test_stores_alone_and_what_is_none(tiny, tmp_path):
    store = shutil.copytree(tiny.folder / "predictions.zarr", tmp_path / "a.zarr")
    assert check_folder(store) == []
    flip(first(store, "trace/time/c/*"))
    assert check_folder(store) == [Finding(store / "trace" / "time" / "c" / "0", "is damaged")]
    with pytest.raises(ConfigError, match="neither a run folder nor a store"):
        check_folder(tmp_path)
    begun = tmp_path / "b.zarr"
    RecordingWriter(begun, {})
    assert check_folder(begun) == []
    xr.Dataset({"v": ("time", [1.0])}).to_zarr(tmp_path / "c.zarr", zarr_format=3, consolidated=False)
    assert [f.what for f in check_folder(tmp_path / "c.zarr")] == ["has no seal, so it was not made by this version"]


def test_a_checkpoint_of_another_step_is_none(tiny, tmp_path):
    home = shutil.copytree(tiny.folder / "models" / "compact" / "checkpoints", tmp_path / "c")
    (home / "12").rename(home / "13")
    with pytest.warns(UserWarning, match="its content does not match its checksum"):
        saved, damaged = latest(home)
    assert (saved.step, damaged) == (6, [13])
