"""Work tells where it is, and who shows it decides how: bars, lines, HTML, or nothing."""

import io
import math
import sys
import threading
import types

import pytest
from rich.console import Console

import jneuro.core.progress as module
from jneuro.core.progress import Lines, Notebook, Progress, Terminal, showing


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second whenever it is read."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))


def count(progress, of=100, **how):
    with progress.begin("count", of, **how) as task:
        for i in range(1, of + 1):
            task.update(i, failed=0, cost=5.0 / i if i > of // 2 else math.nan)


@pytest.mark.parametrize(
    ("how", "first", "last"),
    [
        ({"unit": "points"}, "count, 10 of 100 points, ", "count, 100 of 100 points, "),
        ({}, "count, failed 0, 10%", "count, failed 0, cost 0.05, 100%"),
        ({"unit": "s"}, "count, 10 of 100 s, ", " × real time, failed 0, cost 0.05"),
    ],
    ids=["units", "shares", "simulated time"],
)
def test_lines_at_the_beginning_and_at_each_tenth(how, first, last):
    lines = []
    count(Lines(lines.append), **how)
    assert len(lines) == 11
    assert lines[0] == "count"
    assert lines[1].startswith(first)
    assert last in lines[-1]
    assert ("s left" in lines[1]) == bool(how)
    assert "cost" not in lines[5]


def test_lines_of_what_has_no_amount_follow_its_text():
    lines = []
    with Lines(lines.append).begin("evaluate") as task:
        for text in ("ceiling", "ceiling", "baselines"):
            task.update(text=text)
    assert lines == ["evaluate", "evaluate: ceiling", "evaluate: baselines"]


def test_what_was_done_before_is_no_speed(clock):
    lines = []
    with Lines(lines.append).begin("train", 100, "steps", done=50) as task:
        task.update(60)
    assert lines[1].startswith("train, 60 of 100 steps, ")
    assert "left" in lines[1]
    # Ten steps in some seconds of a clock that is read a few times.
    assert float(lines[1].split("steps, ")[1].split(" ")[0]) <= 10
    assert lines[-1] == lines[2]
    assert lines[2].startswith("train, 100 of 100")


def test_the_time_that_is_left_is_that_of_whole_batches(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Lines(lambda line: None).begin("sweep", 80, "points", 16) as task:
        task.update(text="compiling", failed=0)
        now[0] = 20.0
        task.update(16, 80, text="")  # from here on speed counts
        assert task.left is None
        for batch in range(2):
            now[0] += 10.0
            for done in range(16 * batch + 17, 16 * batch + 33):  # all at once
                task.update(done)
        assert task.speed == 1.6
        assert task.left == 20.0
        now[0] += 15.0
        assert task.left == 5.0
        now[0] += 15.0
        assert task.left == 0.0
        assert "48 of 80 points, 1.6 points/s" in task.line()
        task.update(49, 80)
        assert task.speed == 33 / 50  # a total that is said again changes nothing


def test_what_is_no_progress_is_refused():
    with pytest.raises(ValueError, match="progress = 'yes' must be True, False, None, or a Progress"), showing("yes"):
        pass


def test_parts_know_their_share_and_their_text():
    lines = []
    whole = Lines(lines.append).begin("fit", 1.0)
    part = whole.part("fit 2 of 2", 0.5, 1.0).part("start 1 of 4", 0.0, 0.25)
    part.update(1, 2, text="step 3", cost=2.0)
    assert lines[-1] == "fit: fit 2 of 2, start 1 of 4, step 3, cost 2, 56%"


def test_what_fails_is_not_filled():
    lines = []
    task = Lines(lines.append).begin("divide", 10, "times")
    task.update(2)
    with pytest.raises(ZeroDivisionError), task:
        raise ZeroDivisionError
    assert lines[-1].startswith("divide, 2 of 10 times")


def test_bars_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with showing(True, console) as progress:
        assert isinstance(progress, Terminal)
        count(progress, unit="points [of all]")
        progress.begin("report").end()
        bars = progress._bars
    assert [(t.completed, t.total) for t in bars.tasks] == [(100, 100), (1.0, 1.0)]
    assert "count, 100 of 100 points [of all]" in out.getvalue()
    assert "report" in out.getvalue()


def test_off_a_terminal_the_command_line_gets_lines():
    out = io.StringIO()
    with showing(True, Console(file=out, width=20)) as progress:
        count(progress, unit="points [of all]")
    assert len(out.getvalue().splitlines()) == 11


@pytest.fixture
def notebook(monkeypatch):
    """A kernel that keeps what is displayed."""
    shown = []

    class Kernel:
        def display(self, thing, display_id):
            assert display_id
            shown.append(thing._repr_html_())
            return types.SimpleNamespace(update=lambda thing: shown.append(thing._repr_html_()))

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = Kernel
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = Kernel().display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_bars_in_a_notebook(notebook):
    with showing(True) as progress:
        assert isinstance(progress, Notebook)
        count(progress, unit="<points>")
        progress.begin("report")
    assert notebook[0] == ""
    assert "<progress value='1.0000'></progress> count, 100 of 100 &lt;points&gt;" in notebook[-1]
    assert "<progress></progress> report" in notebook[-1]
    assert len(notebook) < 20  # redrawn by time, not by update


def test_what_is_short_is_not_shown_unasked(notebook, monkeypatch):
    with showing(None) as progress:
        count(progress)
    assert notebook == []
    monkeypatch.setattr(module, "AUTOMATIC_AFTER_S", 0.0)
    with showing(None) as progress:
        progress.begin("long work")
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join(10)
    assert "long work" in notebook[-1]


@pytest.mark.parametrize("progress", [None, False, Progress()], ids=["elsewhere", "never", "silent"])
def test_nothing_is_shown(progress, capsys):
    with showing(progress) as found:
        count(found)
    assert capsys.readouterr() == ("", "")


def test_asked_for_off_a_terminal_it_is_lines_on_standard_error(capsys):
    with showing(True) as progress:
        count(progress)
        with showing(None) as inner, showing(True) as other:  # work within work
            count(inner)
            count(other)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 11


def test_tasks_of_several_threads():
    lines = []
    display = Lines(lines.append)
    threads = [threading.Thread(target=count, args=(display,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines) == 4 * 11
