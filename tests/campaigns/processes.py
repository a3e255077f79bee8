"""Commands in processes of their own, forked from one that has imported all and begun nothing.

A start takes a tenth of a second instead of four, so that signals fall into the work rather than into imports. Some
starts are made anew nevertheless, for the signals of the first seconds. Nothing that initialises JAX is called here.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.common import at_end, differences

__all__ = ["Child", "compared", "finish", "moment", "ready", "start"]

_HEAVY = (
    "cli",
    "console",
    "experiment.running",
    "experiment.sweeping",
    "experiment.fitting",
    "report.sweep",
    "testing",
)


def ready() -> None:
    """Import what commands import, so that children do not."""
    for name in _HEAVY:
        importlib.import_module(f"jneuro.{name}")
    importlib.import_module("matplotlib.pyplot")


@dataclass
class Child:
    """A command at work.

    Attributes:
        pid: of its process.
        log: what it printed.
        code: its exit code when it has ended; −N for a signal.
    """

    pid: int
    log: Path
    code: int | None = None

    def ended(self, seconds: float) -> bool:
        """Wait for it so long; whether it has ended."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(min(0.02, max(until - time.monotonic(), 0)))
        return True

    def send(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it."""
        self.send(signal.SIGKILL)
        self.ended(60)

    @property
    def text(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def traceback(self) -> bool:
        """Whether it printed a traceback."""
        return "Traceback (most recent call last)" in self.text


def _begun(child: Child) -> Child:
    at_end.append(child.end)
    return child


def start(words: Sequence[str], log: Path, *, before: Callable[[], None] | None = None, anew: bool = False) -> Child:
    """Begin a command.

    Args:
        words: its arguments.
        log: takes what it prints.
        before: called in the child, to take its disk away, or to slow it down.
        anew: in a fresh interpreter, as a user does.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if anew:
        with log.open("wb") as out:
            done = subprocess.Popen(
                [sys.executable, "-m", "jneuro", *words], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        done.returncode = 0  # it is waited for here, and not by Popen
        return _begun(Child(done.pid, log))
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return _begun(Child(pid, log))
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(handle, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        sys.argv = ["jneuro", *words]
        if before is not None:
            before()
        from jneuro.__main__ import main

        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def finish(words: Sequence[str], log: Path, seconds: float = 900) -> Child:
    """Run a command to its end."""
    child = start(words, log)
    if not child.ended(seconds):
        child.end()
    return child


def compared(folder: Path, whole: Path, scratch: Path) -> list[str]:
    """`differences` of two folders, in a child: reading checkpoints begins threads, and then nothing can be forked."""
    pid = os.fork()
    if not pid:
        try:
            scratch.write_text(json.dumps(differences(folder, whole)))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(scratch.read_text())


def moment(rng: random.Random, seconds: float) -> float:
    """When to strike: early moments are as interesting as late ones."""
    return rng.uniform(0, seconds) if rng.random() < 0.8 else rng.uniform(0, 0.5)
