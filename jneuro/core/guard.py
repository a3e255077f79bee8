"""Files from elsewhere, under limits: of time, of memory, of depth, of what an archive unpacks to; nothing executes.

Where a library parses a file in C, or believes its numbers, a damaged file may keep it in a loop that hears no signal,
take all memory, or end the process. Such a file is rehearsed first: another process goes through all of it, under a
limit of time and of memory, and ends in our place. What it gets through is then read here.

The other process is started once, imports neither JAX nor this package's models, and waits for the next file; it ends
with this one.
"""

import atexit
import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, TypeVar

from jneuro.core.names import one_line

__all__ = [
    "Unreadable",
    "check_archive",
    "check_memory",
    "found_in",
    "parse_json",
    "read_json",
    "rehearse",
    "shortened",
]


class Unreadable(ValueError):
    """A file that exceeds the limits under which it is read; the message says which, without the file's name."""

    outcome = "error"


_SECONDS, _BYTES_PER_SECOND = 30.0, 2e6
"""A rehearsal may take so long, and longer for a large file."""
_MEMORY = 512 << 20
"""It may take so much memory [bytes], and eight times the size of the file."""
_JSON = 32 << 20
"""Size of the largest JSON file that is parsed [bytes]; its objects take some thirty times as much."""


E = TypeVar("E", bound=Exception)


def shortened(error: E, name: object) -> E:
    """The same error with a message of one line; what is longer follows as a note, which tracebacks show.

    Args:
        error: of ours, made of one text.
        name: of the file; see `one_line`.
    """
    short = type(error)(one_line(error, name=name))
    for note in [*([str(error)] if str(short) != str(error) else []), *getattr(error, "__notes__", [])]:
        short.add_note(note)
    return short


_SIGNS = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"ABF2": "Axon Binary Format 2",
    b"ABF ": "Axon Binary Format 1",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"MATLAB 5.0": "a MATLAB file",
    b"CEDFILE": "a CFS file of CED's",
    b"DAT1": "a HEKA file",
    b"DAT2": "a HEKA file",
    b"version https://git-lfs": "the pointer of git-lfs to a file that was not fetched",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"%PDF": "a PDF",
    b"\x80\x02": "a Python pickle",
}


def found_in(path: Path) -> str:
    """What a file is found to be, by its first bytes.

    Args:
        path: the file.

    Returns:
        A few words, such as "HDF5" or "a web page".
    """
    if not path.is_file():
        kind = "a Zarr store" if (path / "zarr.json").exists() else "a folder"
        return kind if path.is_dir() else "a device or a pipe" if path.exists() else "not there"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        return f"not readable ({error.strerror})"
    for sign, kind in _SIGNS.items():
        if start.lower().startswith(sign.lower()):
            return kind
    if not start.strip(b"\0"):
        return "zeros" if start else "empty"
    try:
        text = start.decode("utf-8").lstrip()
    except UnicodeDecodeError:
        return "of an unknown kind"
    return "JSON" if text.startswith(("{", "[")) else "text"


def read_json(path: Path) -> Any:
    """Read a JSON file of at most 32 MiB.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        Unreadable: if it is larger, cannot be read, is not JSON, or is nested too deep.
    """
    try:
        if (size := path.stat().st_size) > _JSON:
            raise Unreadable(f"has {size} bytes of JSON, more than {_JSON}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"cannot be read as JSON, it is {found_in(path)} ({error.reason})") from error
    return parse_json(text)


def parse_json(text: str) -> Any:
    """Parse JSON.

    Args:
        text: the JSON.

    Returns:
        Its content.

    Raises:
        Unreadable: if it is none, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Unreadable("is JSON that is nested too deep") from error
    except ValueError as error:
        raise Unreadable(f"is not JSON ({one_line(error, most=100)})") from error


def check_archive(path: Path) -> None:
    """Refuse an archive whose entries are compressed, or declare more bytes than the file has.

    NumPy's `savez` and PyTorch's `save` never compress, so an archive that would unpack to more is not theirs.

    Args:
        path: a ZIP archive.

    Raises:
        Unreadable: if it is such a one, or none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise Unreadable(f"it is a damaged archive ({one_line(error, most=100)})") from error
    if packed := [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]:
        raise Unreadable(f"it is an archive with compressed entries ({one_line(packed[0], most=60)!r})")
    if (declared := sum(e.file_size for e in entries)) > (size := path.stat().st_size):
        raise Unreadable(f"it is an archive of {size} bytes that declares to hold {declared}")


def check_memory(what: str, size: int) -> None:
    """Refuse what does not fit into the memory that is free.

    Args:
        what: in the message, such as "'v'".
        size: its size [bytes].

    Raises:
        Unreadable: with both sizes.
    """
    import psutil

    if size > (free := psutil.virtual_memory().available):
        raise Unreadable(f"asks for {size:.3g} bytes of memory for {what}, of {free:.3g} that are free")


class _Worker:
    """The other process, and the pipes to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        begin = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from jneuro.core import guard; guard._serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", begin, json.dumps([os.path.abspath(p) for p in sys.path])],
            cwd=Path(sys.executable).parent,  # so that the working folder can be removed
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
            text=True,
            encoding="utf-8",
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout

    def close(self) -> None:
        """End it; it may be deaf."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.requests, self.answers):
            with contextlib.suppress(OSError):
                pipe.close()


_worker: _Worker | None = None
_turn = threading.Lock()


def _stop() -> None:
    global _worker
    if _worker is not None and _worker.owner == os.getpid():
        _worker.close()
    _worker = None


atexit.register(_stop)


def rehearse(task: str, path: Path, *, seconds: float | None = None) -> None:
    """Let another process go through a file first, under limits of time and memory.

    Only what would end or stop this process is told. An error that the task raises is not: the reader of the file meets
    it in turn, and knows better what it means, or does not need that part. Limits of memory are the system's, on Linux
    alone.

    Args:
        task: what goes through the file, as `module:function` of the path; it must import no JAX.
        path: the file.
        seconds: how long it may take; by default 30, and more for more than 60 MB, or as the environment's
            JNEURO_READ_SECONDS says.

    Raises:
        Unreadable: if it takes longer or more memory, or ends the process; or raised by the task.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return  # a program that holds Python within has no command to start another
    global _worker
    if path.exists() and not path.is_file():
        raise Unreadable(f"is {found_in(path)}, where a file was expected")
    size = path.stat().st_size
    told = os.environ.get("JNEURO_READ_SECONDS", "")
    default = float(told) if told.replace(".", "", 1).isdigit() else max(_SECONDS, size / _BYTES_PER_SECOND)
    limits = {"seconds": default if seconds is None else seconds, "bytes": _MEMORY + 8 * size}
    with _turn:
        if _worker is not None and (_worker.owner != os.getpid() or _worker.process.poll() is not None):
            _stop()
        worker = _worker = _worker or _Worker()
        answer = ""
        try:
            # It answers once when it is ready, which may take long on a busy machine, and once when it is done.
            worker.requests.write(json.dumps({"task": task, "path": str(path.absolute()), **limits}) + "\n")
            worker.requests.flush()
            ready = worker.answers.readline()
            begun = time.monotonic()
            answer = worker.answers.readline() if ready else ""
        except OSError:
            ready, begun = "", time.monotonic()
        finally:
            if not answer:  # it ended, or this process was interrupted
                _stop()
    if not ready:
        raise Unreadable(f"cannot be tried out: {sys.executable} cannot start another process")
    if not answer:
        if time.monotonic() - begun >= 0.8 * limits["seconds"]:  # which the other process counts
            raise Unreadable(
                f"is not read within {limits['seconds']:g} s: its structure leads in a circle; get it anew (or, on a"
                " slow disk, set JNEURO_READ_SECONDS)"
            )
        raise Unreadable("crashes the library that reads it; it is damaged, get it anew")
    if refused := json.loads(answer):
        raise Unreadable(refused)


def _serve() -> None:
    """In the other process: go through one file after the other, until the first process closes the pipe or ends."""
    import faulthandler
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            request = json.loads(line)
            module, _, name = request["task"].partition(":")
            refused = None
            try:
                task = getattr(importlib.import_module(module), name)
            except ImportError:  # without its library there is no reader either
                task = bool
            answer(True)
            _end_with_parent(True)
            # Ends the process from a thread of C, whatever Python is waiting for.
            faulthandler.dump_traceback_later(request["seconds"], exit=True, file=nowhere)
            _limit_memory(request["bytes"])
            try:
                task(Path(request["path"]))
            except (Unreadable, MemoryError) as error:
                refused = str(error) or "takes more memory than its size can need; it is damaged, get it anew"
            except Exception:  # the reader will say it
                refused = None
            _limit_memory(None)
            faulthandler.cancel_dump_traceback_later()
            _end_with_parent(False)
            answer(refused)


def _limit_memory(more: int | None) -> None:
    """Let this process take only so much more memory [bytes]; None lifts the limit."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = hard if more is None else used + more if hard == resource.RLIM_INFINITY else min(used + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _end_with_parent(on: bool) -> None:
    """Let the system end this process when the pipe breaks, though Python may be deaf; elsewhere its time runs out."""
    if sys.platform == "linux":
        import fcntl
        import signal

        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
