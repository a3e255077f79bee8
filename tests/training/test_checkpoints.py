"""A training that is killed anywhere ends as if nothing had happened."""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from training_problems import Linear, Noisy, assert_same, comparable, config, weights, windows

from jneuro.models.base import Prediction
from jneuro.training import Adam, Checkpoints, TrainingDiverged, TrainingInterrupted, load_best, train
from jneuro.training.checkpoints import CheckpointStore

CHILD = Path(__file__).with_name("training_child.py")
KEY = jax.random.key(1)


def run(where=None, model=Noisy, key=KEY, **changes):
    every, resume = changes.pop("every_seconds", None), changes.pop("resume", True)
    callbacks = changes.pop("callbacks", ())
    checkpoint = Checkpoints(where, resume, every) if where else None
    settings = config(**({"epochs": 6} | changes))
    return train(model(rngs=nnx.Rngs(0)), windows(), settings, key=key, callbacks=callbacks, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def saved_steps(where):
    return sorted(int(p.name) for p in Path(where).iterdir() if p.name.isdigit())


def signal_child(where, line, number, delay=0.0):
    """Start a training, wait for a line of its output, then a moment, then send the signal.

    Returns:
        Exit code and standard error.
    """
    command = [sys.executable, str(CHILD), str(where)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        if not any(heard.strip() == line for heard in child.stdout):
            pytest.fail(f"the child ended before {line!r}: {child.stderr.read()}")
        time.sleep(delay)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
    return child.returncode, errors


def test_sigkill_anywhere_then_resume_is_bit_identical(tmp_path, uninterrupted):
    # Before the first checkpoint; within an epoch; around the writing of a checkpoint, at random.
    delays = random.Random(time.time_ns())
    moments = [("step 5", 0.0), ("step 33", 0.0), *((f"epoch {e}", delays.uniform(0, 0.08)) for e in (2, 3))]
    for line, delay in moments:
        code, errors = signal_child(tmp_path, line, signal.SIGKILL, delay)
        assert code == -signal.SIGKILL, (line, delay)
        assert errors == "", "the library must be silent"
    assert max(saved_steps(tmp_path)) >= 28
    assert_same(run(tmp_path), uninterrupted)
    assert not list(tmp_path.glob("*tmp*"))


def test_sigterm_saves_within_the_epoch_and_exits_cleanly(tmp_path, uninterrupted):
    code, errors = signal_child(tmp_path, "step 33", signal.SIGTERM)
    assert (code, errors) == (75, "")
    assert saved_steps(tmp_path) == [28, 33]
    assert_same(run(tmp_path), uninterrupted)


class Terminate:
    """Sends SIGTERM to this process at a step, once."""

    def __init__(self, step):
        self.step = step

    def on_steps(self, progress):
        if progress.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch(self, record):
        pass


@pytest.mark.parametrize("step", [5, 14, 24, 84])
def test_sigterm_handler_is_restored(tmp_path, uninterrupted, step):
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match=f"saved step {step} in"):
        run(tmp_path, callbacks=[Terminate(step)])
    assert signal.getsignal(signal.SIGTERM) is former
    assert_same(run(tmp_path), uninterrupted)


def test_no_handler_outside_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path, Linear, epochs=1)))
    thread.start()
    thread.join()
    assert len(results) == 1


def test_timed_saves_change_nothing_and_a_finished_training_is_not_repeated(tmp_path, uninterrupted):
    assert_same(run(tmp_path, every_seconds=0.0), uninterrupted)
    before = saved_steps(tmp_path)
    assert before == [80, 84]
    again = run(tmp_path)
    assert_same(again, uninterrupted)
    assert again.history[-1].seconds > 0
    assert saved_steps(tmp_path) == before
    best = load_best(Noisy(rngs=nnx.Rngs(9)), tmp_path)
    for name, value in weights(uninterrupted.model).items():
        np.testing.assert_array_equal(weights(best)[name], value)


def array_files(folder):
    return [p for p in (folder / "state").rglob("*") if p.parent.name == "d"]


def truncate(folder):
    for file in array_files(folder):
        os.truncate(file, file.stat().st_size // 2)


def flip(folder):
    """Change a byte of every file of arrays; Orbax itself does not always notice."""
    for file in array_files(folder):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def lose_arrays(folder):
    shutil.rmtree(folder / "state")


def garble_record(folder):
    (folder / "record" / "metadata").write_text("{")


@pytest.fixture
def late_complaints():
    """Orbax reads arrays at once; when several fail, TensorStore complains later of those that nobody awaits."""
    yield
    time.sleep(0.5)
    gc.collect()


@pytest.mark.usefixtures("late_complaints")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [truncate, flip, lose_arrays, garble_record])
def test_damaged_latest_falls_back_to_the_one_before(tmp_path, uninterrupted, damage):
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, callbacks=[Terminate(47)])
    assert saved_steps(tmp_path) == [42, 47]
    damage(tmp_path / "47")
    with pytest.warns(UserWarning, match=r"47 is damaged .* using 42"):
        result = run(tmp_path)
    assert_same(result, uninterrupted)


@pytest.mark.usefixtures("late_complaints")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_all_damaged_is_an_error_and_no_silent_restart(tmp_path):
    run(tmp_path, Linear, epochs=2)
    for step in saved_steps(tmp_path):
        truncate(tmp_path / str(step))
    with pytest.raises(ValueError, match=f"no checkpoint in {tmp_path} can be read"):
        run(tmp_path, Linear, epochs=2)


def test_another_training_is_refused(tmp_path):
    run(tmp_path, Linear, epochs=1)
    with pytest.raises(ValueError, match=rf"{tmp_path} .*config.batch_size was 8, is 16; choose another directory"):
        run(tmp_path, Linear, epochs=1, batch_size=16)
    with pytest.raises(ValueError, match=r"model\.params\.inner"):
        run(tmp_path, Noisy, epochs=1)
    with pytest.raises(ValueError, match="key was"):
        run(tmp_path, Linear, epochs=1, key=jax.random.key(2))
    with pytest.raises(ValueError, match="holds checkpoints; resume from them, or delete it"):
        run(tmp_path, Linear, epochs=1, resume=False)
    with pytest.raises(ValueError, match=r"of another model: best\.params.inner"):
        load_best(Noisy(rngs=nnx.Rngs(0)), tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        load_best(Noisy(rngs=nnx.Rngs(0)), tmp_path / "nowhere")
    assert len(comparable(run(tmp_path, Linear, epochs=1, steps_per_call=14).history)) == 1


def test_divergence_leaves_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"learning_rate or set a smaller optimizer\.clip_norm") as caught:
        run(tmp_path, Linear, optimizer=Adam(learning_rate=1e30))
    error = caught.value
    assert (error.epoch, error.learning_rate) == (1, pytest.approx(1e30))
    assert 15 <= error.step < 28
    assert np.isfinite(error.last_loss)
    assert saved_steps(tmp_path) == [14]
    assert all(np.isfinite(v).all() for v in weights(load_best(Linear(rngs=nnx.Rngs(0)), tmp_path)).values())


class Sized(Linear):
    """A `Linear` whose settings change no shape."""

    def __init__(self, frames=6, *, rngs, **more):
        super().__init__(rngs=rngs, **more)
        self.frames, self.drop = frames, nnx.Dropout(0.1 * frames, rngs=rngs)


def test_a_model_of_other_settings_or_precision_is_another(tmp_path):
    run(tmp_path, Sized, epochs=1)
    model = load_best(Sized(rngs=nnx.Rngs(1)), tmp_path)
    model.eval()
    assert load_best(model, tmp_path).frames == 6, "Flax's modes are no settings"
    with pytest.raises(ValueError, match=r"of another model: drop.rate is 0.6.* there and 0.3.* in the model"):
        load_best(Sized(3, rngs=nnx.Rngs(0)), tmp_path)
    with pytest.raises(ValueError, match=r"map.bias.* is float32\[3\] there and bfloat16\[3\] in the"):
        load_best(Sized(rngs=nnx.Rngs(0), dtype=jax.numpy.bfloat16), tmp_path)
    with pytest.raises(ValueError, match=r"settings.drop.rate was 0.6.*, is 0.3.*; settings.frames was 6, is 3"):
        run(tmp_path, lambda rngs: Sized(3, rngs=rngs), epochs=1)


class Idle(nnx.Module):
    """Predicts the last frame; its parameter only decays, so the loss stays finite whatever becomes of it."""

    def __init__(self, *, rngs):
        self.idle = nnx.Param(jax.numpy.ones(3))

    def __call__(self, batch, *, train):
        return Prediction(batch.inputs[:, -1:])


def test_bad_weights_under_a_good_loss_are_not_saved(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"state\.optimizer.* is not finite at step 28"):
        run(tmp_path, Idle, optimizer=Adam(learning_rate=1e30, clip_norm=None))
    assert saved_steps(tmp_path) == [14]


def test_a_full_disk_names_the_checkpoint(tmp_path, monkeypatch):
    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing ... No space left on device [many pages]")

    with CheckpointStore(Checkpoints(tmp_path), {}) as store:
        monkeypatch.setattr(store._manager, "save", full)
        with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '.*/3'$"):
            store.save(3, {"a": np.zeros(2)}, [])
