"""What users see while a training runs."""

import json

import jax
from flax import nnx
from training_problems import Linear, config, windows

from jneuro.core.progress import Lines
from jneuro.training import Checkpoints, MetricsFile, TrainingProgress, train


def run(*callbacks, **kwargs):
    return train(
        Linear(rngs=nnx.Rngs(0)), windows(), config(epochs=3), key=jax.random.key(0), callbacks=callbacks, **kwargs
    )


def test_a_training_shows_steps_epoch_losses_and_speed(tmp_path):
    lines = []
    run(TrainingProgress(Lines(lines.append), "train CNN-LSTM"), checkpoint=Checkpoints(tmp_path), progress=False)
    assert lines[0] == "train CNN-LSTM"
    assert lines[-1].startswith("train CNN-LSTM, 42 of 42 steps, ")
    for part in (" steps/s, ", "epoch 3/3, loss ", ", validation "):
        assert part in lines[-1]
    assert "validation" not in lines[1]


def test_train_shows_itself_where_it_is_asked_to(capsys):
    run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    # What was understood of the data is said before anything is computed: a wrong order of axes shows.
    assert err.splitlines()[0] == "train Linear on 3 runs × 120 frames × 3 variables"
    assert "3 variables, 42 of 42 steps, " in err.splitlines()[-1]
    run()
    assert capsys.readouterr() == ("", "")


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
