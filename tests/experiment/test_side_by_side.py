"""Independent trainings at the same time: as many as there are cores, and what a fault does to the others."""

import threading

import jax
import pytest

from jneuro.experiment import RunFolder, training
from jneuro.experiment.training import side_by_side
from jneuro.training import on_termination


@pytest.fixture
def cores(monkeypatch):
    def pretend(number):
        monkeypatch.setattr(training, "usable_cores", lambda: number)
        monkeypatch.setattr(jax, "device_count", lambda: 1)

    return pretend


@pytest.mark.parametrize(("number", "pieces", "together"), [(1, 3, 1), (2, 3, 2), (8, 3, 3), (8, 6, 4)])
def test_as_many_at_a_time_as_there_are_cores(cores, number, pieces, together):
    cores(number)
    if together > 1:
        meeting = threading.Barrier(together)  # passes only if so many are at work
        side_by_side([lambda: meeting.wait(10)] * together)
    lock, now, most = threading.Lock(), 0, 0

    def piece():
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        threading.Event().wait(0.02)
        with lock:
            now -= 1

    side_by_side([piece] * pieces)
    assert most <= together
    assert now == 0


def test_a_fault_stops_the_others_and_is_what_is_raised(cores):
    cores(2)
    began, stopped, later = threading.Event(), threading.Event(), []

    def waits():
        with on_termination(True) as stop:
            began.set()
            assert stop.wait(10)
            stopped.set()
        raise RuntimeError("interrupted")

    def fails():
        assert began.wait(10)
        raise FloatingPointError("diverged")

    with pytest.raises(FloatingPointError, match="diverged"):
        side_by_side([waits, fails, *[lambda: later.append(1)] * 9])
    assert stopped.is_set()
    assert len(later) < 9


def test_precision_is_that_of_the_caller(cores):
    cores(2)
    found = []
    with jax.enable_x64(True):
        side_by_side([lambda: found.append(jax.numpy.zeros(()).dtype)] * 2)
    side_by_side([lambda: found.append(jax.numpy.zeros(()).dtype)] * 2)
    assert list(map(str, found)) == ["float64", "float64", "float32", "float32"]


def test_time_side_by_side_counts_once(tmp_path):
    folder = RunFolder(tmp_path)
    stages = {"simulate": (5, 105), "train a": (10, 116), "train b": (8, 118), "evaluate": (2, 130)}
    ended = {k: {"seconds": s, "ended": e} for k, (s, e) in stages.items()}
    folder.save("run.json", {"versions": {}, "stages": ended})
    assert folder.seconds == 5 + 12 + 2
