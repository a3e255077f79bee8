"""Progress reporting: one protocol for all long-running work, and displays for terminals, notebooks and logs.

Work begins a `Task` and updates it; the `Progress` that it was given decides how that is shown. Inside the library the
default is `Progress()`, which shows nothing; verbs go through `showing`, which finds what suits the place.
"""

import contextlib
import datetime
import html
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SILENT", "Lines", "Notebook", "Progress", "Task", "Terminal", "showing", "working"]

AUTOMATIC_AFTER_S = 2.0
"""Work that lasts longer than this is shown unasked, on a terminal and in a notebook."""
_REDRAW_S = 0.2


class Task:
    """Handle of one running piece of work; as a context manager, it ends with the block. This one shows nothing.

    Every method may be called from any thread.
    """

    def update(
        self, done: float | None = None, total: float | None = None, text: str | None = None, **values: float | str
    ) -> None:
        """Say where the work is.

        Args:
            done: how much is done, in the task's unit.
            total: how much there is, where that was not known before or has changed; or said again where work only
                begins, after compilation, from where speed counts.
            text: what is being done now.
            values: further figures by name, such as a loss; NaN hides one.
        """

    def part(self, text: str, begin: float, end: float) -> "Task":
        """A task of its own, from 0 to 1, that is a part of this one, whose amounts are shares too.

        Args:
            text: what the part is; stands before its own texts.
            begin: share of this task that is done when the part begins.
            end: share of it that is done when the part ends.
        """
        return _Part(self, text, begin, end)

    def end(self, *, finished: bool = True) -> None:
        """Say that the work is over.

        Args:
            finished: whether it was done to its end.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(finished=kind is None)


SILENT = Task()
"""Where nobody asks how the work goes on."""


class _Part(Task):
    """A part of another task, which sees its share and its text."""

    def __init__(self, whole: Task, text: str, begin: float, end: float) -> None:
        self._whole, self._text, self._begin, self._end = whole, text, begin, end

    def update(self, done=None, total=None, text=None, **values) -> None:
        share = None if done is None else self._begin + (self._end - self._begin) * done / (total or 1.0)
        self._whole.update(share, None, self._text if text is None else f"{self._text}, {text}", **values)


class Progress:
    """Receives progress events and shows nothing. A subclass observes work; pass it as `progress=`.

    Example:
        >>> class Told(Progress):
        ...     def begin(self, text, total=None, unit="", done=0.0):
        ...         print(text, total, unit)
        ...         return Task()
        >>> with Told().begin("count", 3, "sheep") as task:
        ...     task.update(1)
        count 3 sheep
    """

    def begin(self, text: str, total: float | None = None, unit: str = "", done: float = 0.0) -> Task:
        """Say that work begins.

        Args:
            text: what is done.
            total: how much of it there is; None if that is not known. Speed counts from when it is.
            unit: of `total`, in the plural, such as "points"; empty for shares, whose total is 1. "s" means simulated
                time, whose speed is shown as a multiple of real time.
            done: how much was done before, as of work that is resumed.

        Returns:
            The task, to be updated and ended.
        """
        del text, total, unit, done
        return Task()

    def note(self, text: str) -> None:
        """Say in one line what the user should know, such as that something is computed again, and why.

        Args:
            text: the line.
        """


class _Shown(Task):
    """What a display knows of a task."""

    def __init__(self, display: "_Display", title: str, total: float | None, unit: str, done: float) -> None:
        self._display, self.title, self.total, self.unit, self.done = display, title, total, unit, done
        self._began, self._before, self.over = time.monotonic(), done, False
        self._last = self._began
        self.text, self._values = "", {}

    def update(self, done=None, total=None, text=None, **values) -> None:
        with self._display.lock:
            still = done == self.done == self._before
            if total is not None and (self.total is None or still):
                # Neither compilation nor what was done before is speed.
                self._began, self._before = time.monotonic(), done or 0.0
                self._last = self._began
            elif done is not None and done != self.done:
                self._last = time.monotonic()
            self.done = self.done if done is None else done
            self.total = self.total if total is None else total
            self.text = self.text if text is None else text
            self._values |= values
            self._display.changed(self)

    def end(self, *, finished: bool = True) -> None:
        with self._display.lock:
            if not self.over:
                self.over = True
                self.done = self.total if finished and self.total else self.done
                self._display.changed(self)

    @property
    def share(self) -> float | None:
        """How much is done of all, if that is known."""
        return self.done / self.total if self.total else None

    @property
    def speed(self) -> float:
        """Units a second, from the beginning to the last update: what comes in batches has no speed of its own."""
        return (self.done - self._before) / max(self._last - self._began, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds that are left, if that is known."""
        if not self.total or self.speed <= 0:
            return None
        return max((self.total - self.done) / self.speed - (time.monotonic() - self._last), 0.0)

    def line(self) -> str:
        """Title, text, amounts, speed and values."""
        parts = [f"{self.title}: {self.text}" if self.text else self.title]
        if self.total and self.unit:
            parts.append(f"{self.done:,.10g} of {self.total:,.10g} {self.unit}")
            if self.speed > 0:
                parts.append(f"{self.speed:.2g} × real time" if self.unit == "s" else f"{self.speed:.3g} {self.unit}/s")
        for name, value in self._values.items():
            if isinstance(value, str | int):
                parts.append(f"{name} {value}")
            elif math.isfinite(value):
                parts.append(f"{name} {value:.4g}")
        return ", ".join(parts)


class _Display(Progress):
    """Shows tasks, of any thread, from its start to its stop."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tasks: list[_Shown] = []
        self._started = self._stopped = False

    def begin(self, text: str, total: float | None = None, unit: str = "", done: float = 0.0) -> Task:
        with self.lock:
            self.tasks.append(task := _Shown(self, text, total, unit, done))
            self.changed(task)
        return task

    def start(self) -> None:
        """Show what goes on, from now on."""
        with self.lock:
            if not self._stopped:
                self._started = True
                self.open()
                for task in self.tasks:
                    self.changed(task)

    def stop(self) -> None:
        """Leave what is shown as it is."""
        with self.lock:
            self._stopped = True
            if self._started:
                self.close()

    def open(self) -> None:
        """Prepare to show."""

    def changed(self, task: _Shown) -> None:
        """Show that a task began, changed or ended."""

    def close(self) -> None:
        """Show no more."""


class Lines(_Display):
    """Writes a line where a task begins and at each tenth of it; where its amount is not known, at each new text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Name what writes a line."""
        super().__init__()
        self._write, self._last = write, {}

    def note(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    def changed(self, task: _Shown) -> None:
        """Write a line if it is time."""
        where = task.text if task.share is None else int(10 * task.share + 1e-9)
        if task not in self._last:
            self._write(task.title)
        elif self._last[task] != where and (not task.over or task.total):
            share = f", {task.share:.0%}" if task.share is not None and not task.unit else ""
            left = task.left if task.unit and not task.over else None
            left = "" if left is None else f", {left:.0f} s left"
            self._write(task.line() + share + left)
        self._last[task] = where


class Terminal(_Display):
    """A bar for each task."""

    def __init__(self, console: "Console | None" = None) -> None:
        """Name the console; standard error by default."""
        super().__init__()
        self._console, self._bars, self._ids = console, None, {}

    def open(self) -> None:
        """Begin to draw."""
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.text import Text

        class Left(ProgressColumn):
            """Time that is left; Rich's own column takes the speed of the last updates, which come in batches."""

            def render(self, task: Any) -> Text:
                left = task.fields["shown"].left
                known = "-:--:--" if left is None else str(datetime.timedelta(seconds=round(left)))
                return Text(known, style="progress.remaining")

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), Left())
        self._bars = Bars(*columns, console=self._console or Console(stderr=True))
        self._bars.start()

    def note(self, text: str) -> None:
        """Print the line above the bars."""
        console = self._bars.console if self._bars else self._console
        if console is not None:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    def changed(self, task: _Shown) -> None:
        """Move the task's bar."""
        if self._bars is None:
            return
        if task not in self._ids:
            self._ids[task] = self._bars.add_task(task.title, total=task.total, shown=task)
        ended = {"total": 1.0, "completed": 1.0} if task.over and not task.total else {}
        shown: dict[str, Any] = {"total": task.total, "completed": task.done, "description": task.line()} | ended
        self._bars.update(self._ids[task], **shown)
        if task.over:
            self._bars.stop_task(self._ids[task])

    def close(self) -> None:
        """Leave the bars."""
        if self._bars is not None:
            self._bars.stop()


class Notebook(_Display):
    """Bars of HTML below a notebook's cell; need IPython alone."""

    _handle: Any = None
    _drawn = 0.0

    def __init__(self) -> None:
        """Begin without notes."""
        super().__init__()
        self._notes: list[str] = []

    def open(self) -> None:
        """Make the place."""
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        self._handle = display(self, display_id=True)

    def changed(self, task: _Shown) -> None:
        """Draw anew, a few times a second."""
        if self._handle is not None and (task.over or time.monotonic() - self._drawn > _REDRAW_S):
            self.close()

    def close(self) -> None:
        """Draw."""
        self._drawn = time.monotonic()
        self._handle.update(self)

    def note(self, text: str) -> None:
        """Show the line above the bars."""
        self._notes.append(text)

    def _repr_html_(self) -> str:
        rows = [f"<div>{html.escape(text)}</div>" for text in self._notes]
        for task in self.tasks:
            value = 1.0 if task.over and task.share is None else task.share
            bar = "<progress></progress>" if value is None else f"<progress value='{value:.4f}'></progress>"
            rows.append(f"<div>{bar} {html.escape(task.line())}</div>")
        return "".join(rows)

    def __repr__(self) -> str:
        return "\n".join(task.line() for task in self.tasks)


_showing = threading.Lock()
"""Held by whom something is shown: work that belongs to other work does not draw over it."""


@contextlib.contextmanager
def showing(progress: Progress | bool | None, console: "Console | None" = None) -> Iterator[Progress]:
    """Give, for the duration of a `with` block, the progress that the argument of a verb means.

    Args:
        progress: None shows work that lasts longer than 2 s, on a terminal and in a notebook, and is silent elsewhere;
            True shows it at once, elsewhere as lines on standard error; False never; a `Progress` is passed on.
        console: where to show it.
    """
    if isinstance(progress, Progress):
        yield progress
        return
    if not isinstance(progress, bool | None):
        raise ValueError(f"progress = {progress!r} must be True, False, None, or a Progress")
    display = None if progress is False else _display(console, always=bool(progress))
    if display is None or not _showing.acquire(blocking=False):
        yield Progress()
        return
    timer = threading.Timer(0.0 if progress else AUTOMATIC_AFTER_S, display.start)
    timer.daemon = True
    try:
        display.start() if progress else timer.start()
        yield display
    finally:
        timer.cancel()
        display.stop()
        _showing.release()


@contextlib.contextmanager
def working(progress: Task | Progress | bool | None, text: str) -> Iterator[Task]:
    """Give, for the duration of a `with` block, a task that goes from 0 to 1.

    Args:
        progress: the task itself, which its owner ends; or what `showing` takes, where the task is begun.
        text: what is done.
    """
    if isinstance(progress, Task):
        yield progress
        return
    with showing(progress) as shown, shown.begin(text, 1.0) as task:
        yield task


def _display(console: "Console | None", *, always: bool) -> _Display | None:
    """What shows work here; None where nothing should unasked."""
    if console is not None:
        if console.is_terminal:
            return Terminal(console)
        return Lines(lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False))
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        return Notebook()
    if sys.stderr is not None and sys.stderr.isatty():
        return Terminal()
    return Lines(lambda line: print(line, file=sys.stderr, flush=True)) if always else None
