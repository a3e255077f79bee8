"""This process: its CPU cores, the C library's memory allocator, and how it is stopped; imports nothing heavy."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["STOPPED", "Stopped", "at_work", "heed_signals", "keep_freed_memory", "leave", "usable_cores"]


def usable_cores() -> int:
    """How many CPU cores this process may use: as many as XLA has threads for one CPU device."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: one arena, so that memory freed by one thread serves another
    -4: 0,  # M_MMAP_MAX: large blocks come from the heap too
    -1: 1 << 30,  # M_TRIM_THRESHOLD [bytes]
    -2: 256 << 20,  # M_TOP_PAD [bytes]
}


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed for the next step; call it before anything large is allocated.

    XLA on a CPU frees its buffers after every call, and glibc gives large ones back to the system, which then must
    clear the pages anew: about 50,000 page faults in a training step of 700 ms. The setting holds for the whole
    process, so only programs make it (the command line, the benchmarks), never `import jneuro`.
    `JNEURO_ALLOCATOR=system` switches it off.

    Returns:
        Whether it was done: false on other C libraries, and where the user switched it off.
    """
    if sys.platform != "linux" or os.environ.get("JNEURO_ALLOCATOR") == "system":
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())


# How a program is stopped -----------------------------------------------------------------------------------------

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped; what is written stays, continue with --resume"
"""What is said when a signal has ended the program."""


class Stopped(BaseException):
    """SIGTERM or Ctrl-C, where no training is there to save itself first."""


class _State:
    """Of this process; only the program itself, never a user's own, lets signals be heeded."""

    heeded = False
    working = False
    """Whether there is something that would rather end its piece of work in order."""
    stopping = False


def heed_signals() -> None:
    """Let Ctrl-C and SIGTERM end this program, whatever it is doing; called first of all, before anything is imported.

    Python tells of a signal only when the main thread is back from what it computes or compiles, which may take a
    minute; what is raised while modules are imported may be swallowed by them. A thread of its own therefore reads the
    signals: it says `stopping …` at once, ends a program that has begun nothing, and a second signal ends any. Nothing
    is lost by that, since files and folders appear whole or not at all. What has begun gets `Stopped`.
    """
    if _State.heeded or threading.current_thread() is not threading.main_thread():
        return
    _State.heeded = True
    for number in _SIGNALS:
        signal.signal(number, _stop)
    if sys.platform == "win32":  # there, signals come through sockets alone
        return
    signal.signal(signal.SIGALRM, _stop)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are not this program's
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise in the main thread, once: whoever presses Ctrl-C again does not disturb the end."""
    del number
    if sys.platform != "win32":
        if _State.stopping or not _State.working:
            return
        while frame is not None:
            if frame.f_code.co_name in _SWALLOWING:
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
                return
            frame = frame.f_back
    _State.stopping = True
    raise Stopped


_SWALLOWING = ("__del__", "_xla_gc_callback")
"""Functions that Python calls by itself, where what is raised goes nowhere."""
_AGAIN_S = 0.02


def _watch(reader: int) -> None:
    """Read the numbers of signals, as they come."""
    come = 0
    while number := os.read(reader, 1):
        if number[0] not in _SIGNALS:
            continue
        come += 1
        if come == 1 and _State.working:
            _say("stopping … (once more: at once)")
        elif come == 1 and not _State.stopping:
            _say(STOPPED)
            os._exit(1)
        elif come > 1:
            os._exit(1)


def _say(text: str) -> None:
    """Write on standard error without a look at what else is just being written there."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


def leave(code: int) -> NoReturn:
    """End a program that was stopped, before anything that ends with it can be disturbed or waits for something.

    Args:
        code: the exit code.
    """
    if not _State.heeded:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Let a first signal raise `Stopped` for the duration of a `with` block, so that what has begun ends in order."""
    _State.working = True
    try:
        yield
    finally:
        _State.working = False
