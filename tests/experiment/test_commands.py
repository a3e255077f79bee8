"""The commands on a real run, stage by stage."""

import json
import shutil
import sys

import pytest

import jneuro.cli
from jneuro.experiment import RunFolder


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command in this process; returns its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(jneuro.cli, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(jneuro.cli, "heed_signals", lambda: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["jneuro", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            jneuro.cli.main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out + err

    return call


def test_stage_by_stage(tiny, cli):
    # A sibling's recording and models are taken, so that only the evaluation is computed.
    out = tiny.home / "stages"
    try:
        assert cli("simulate", tiny.file, "--out", out)[0] == 0
        assert list(RunFolder.find(out).info["stages"]) == ["simulate"]
        code, said = cli("evaluate", out)
        assert code == 2
        assert "compact is not trained" in said
        code, said = cli("report", out)
        assert code == 2
        assert "train compact is not done; go on with `jneuro run" in said
        assert cli("train", tiny.file, "--out", out)[0] == 0
        code, said = cli("evaluate", out)
        assert code == 0
        for name in ("persistence", "lookup", "compact (leaky split)", "noise ceiling"):
            assert name in said
        ours, theirs = (json.loads((p / "metrics.json").read_text()) for p in (out, tiny.folder))
        assert ours["test"]["compact"]["r2"] == theirs["test"]["compact"]["r2"]
        assert f"{ours['test']['compact']['r2']:.4f}" in said
        assert cli("report", out) == (0, f"report: {out / 'report.html'}\n")
        assert (out / "report.html").exists()
    finally:
        shutil.rmtree(out)


def test_a_finished_run_only_shows_its_scores(tiny, cli):
    code, said = cli("run", tiny.file, "--out", tiny.folder)
    assert code == 0
    assert f"tiny in {tiny.folder}" in said
    assert f"{tiny.metrics['ceiling']['r2']:.4f}" in said
    assert said.rstrip().endswith(f"report: {tiny.folder / 'report.html'}")


def test_a_recording_that_was_damaged_meanwhile(tiny, cli, tmp_path):
    shutil.copytree(tiny.folder, tmp_path / "a")
    next(f for f in (tmp_path / "a" / "recording.zarr" / "v" / "c").rglob("*") if f.is_file()).unlink()
    code, said = cli("evaluate", tmp_path / "a")
    assert code == 2
    assert "there is no recording, since recording.zarr/v/c/0/0/0 is missing; go on with `jneuro run" in said
    assert "Traceback" not in said
