"""What users see while a training runs."""

import io
import json

import jax
import pytest
from flax import nnx
from rich.console import Console
from rich.progress import Progress
from training_problems import Linear, config, windows

from jneuro.training import Checkpoints, MetricsFile, RichProgress, train


def run(*callbacks, **kwargs):
    return train(
        Linear(rngs=nnx.Rngs(0)), windows(), config(epochs=3), key=jax.random.key(0), callbacks=callbacks, **kwargs
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_names_stage_speed_and_losses(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, color_system=None)
    with Progress(console=console) as display:
        with RichProgress("CNN-LSTM", display) as progress:
            run(progress)
        task = display.tasks[0]
        assert (task.completed, task.total) == (42, 42)
        for part in ("CNN-LSTM epoch 3/3 loss ", " validation ", " steps/s"):
            assert part in task.description
    assert ("CNN-LSTM epoch 2 loss" in out.getvalue()) is not terminal


def test_progress_makes_its_own_display(capsys):
    with RichProgress("LSTM") as progress:
        run(progress)
    captured = capsys.readouterr()
    assert len([line for line in captured.out.splitlines() if line.startswith("LSTM epoch")]) == 3
    assert captured.err == ""


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_file_after_a_kill(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    whole = run(MetricsFile(path), checkpoint=Checkpoints(tmp_path / "checkpoints"))
    assert read(path) == [record._asdict() for record in whole.history]
    # As if the training had been killed after writing epoch 2 and before its checkpoint, and in the middle of a line.
    last = max((p for p in (tmp_path / "checkpoints").iterdir()), key=lambda p: int(p.name))
    last.rename(tmp_path / "taken")
    with path.open("a") as file:
        file.write('{"epoch": 3, "st')
    run(MetricsFile(path), checkpoint=Checkpoints(tmp_path / "checkpoints"))
    assert [record["epoch"] for record in read(path)] == [0, 1, 2]
    assert [r["train_loss"] for r in read(path)] == [r.train_loss for r in whole.history]
    run(MetricsFile(path), checkpoint=Checkpoints(tmp_path / "checkpoints"))
    assert len(read(path)) == 3
    run(MetricsFile(path))
    assert len(read(path)) == 3
