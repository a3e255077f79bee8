"""Files under limits: another process ends in our place, and messages are one line."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jneuro.core import guard
from jneuro.core.guard import Unreadable, check_archive, found_in, parse_json, read_json, rehearse, shortened
from jneuro.core.names import one_line

TASKS = """
import os, re, sys
from jneuro.core.guard import Unreadable

def loop(path):
    re.match("(a+)+$", "a" * 60 + "b")  # in C, and holds the interpreter

def memory(path):
    bytearray(1 << 33)

def crash(path):
    os.abort()

def chatter(path):
    print("something", flush=True)
    os.write(1, b"something")

def mistake(path):
    raise KeyError("the reader will say it")

def refuse(path):
    raise Unreadable("is refused")

def light(path):
    import jneuro.core.hdf5, jneuro.recordings.rehearsal
    if heavy := {"jax", "pydantic", "zarr", "torch"} & set(sys.modules):
        raise Unreadable(f"imports {heavy}")
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Tasks that the other process can import, and a file for them."""
    (tmp_path / "guarded_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    guard._stop()
    yield tmp_path / "guarded_tasks.py"
    guard._stop()


def test_another_process_ends_in_our_place(tasks):
    for task, said in (
        ("light", None),
        ("chatter", None),
        ("mistake", None),
        ("refuse", "is refused"),
        ("memory", "takes more memory than its size can need" if sys.platform == "linux" else None),
        ("loop", r"is not read within 0\.5 s: its structure leads in a circle; get it anew"),
        ("crash", "crashes the library that reads it; it is damaged, get it anew"),
        ("light", None),
    ):
        limit = 0.5 if task == "loop" else None
        if said is None:
            rehearse(f"guarded_tasks:{task}", tasks, seconds=limit)
        else:
            with pytest.raises(Unreadable, match=f"^{said}"):
                rehearse(f"guarded_tasks:{task}", tasks, seconds=limit)
    rehearse("no_such_library:walk", tasks)  # without its library there is no reader, which says so


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends with its time")
def test_the_other_process_ends_with_a_parent_that_is_killed(tasks):
    code = (
        "import sys; from pathlib import Path; from jneuro.core import guard\n"
        f"sys.path.insert(0, {str(tasks.parent)!r}); path = Path({str(tasks)!r})\n"
        "guard.rehearse('guarded_tasks:light', path); print(guard._worker.process.pid, flush=True)\n"
        "guard.rehearse('guarded_tasks:loop', path)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.send_signal(signal.SIGKILL)
    ended = False
    for _ in range(100):
        try:
            ended = Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            ended = True
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
    assert ended


def test_messages_are_one_line():
    assert one_line("\x1b[1ma\n  b\x1b[0m\tc\x00") == r"a b c\x00"
    long = one_line("/a/path: " + "x" * 500 + "; do this", name="/a/path")
    assert (len(long), long[:9], long[-10:]) == (300, "/a/path: ", "x; do this"[-10:])
    path = "/" + "p" * 290
    assert one_line(f"{path}: {'x' * 300}; do this", name=path).startswith(f"{path}: x")
    error = shortened(ValueError("y" * 1000), "")
    assert (len(str(error)), error.__notes__) == (300, ["y" * 1000])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (bytes(5000), "zeros"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "the pointer of git-lfs to a file that was not fetched"),
        (b' {"a": 1}', "JSON"),
        (b"a,b\n1,2", "text"),
        (b"\xff\xfe\x00\x01", "of an unknown kind"),
    ],
)
def test_a_file_is_found_to_be_something(tmp_path, content, kind):
    (tmp_path / "f").write_bytes(content)
    assert found_in(tmp_path / "f") == kind


def test_json_has_limits(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    for content, said in (
        (b"[" * 100_000, "nested too deep"),
        (b"{", "is not JSON"),
        (b"\xff", "cannot be read as JSON, it is of an unknown kind"),
        (b"1" * 5000, "is not JSON"),
    ):
        file.write_bytes(content)
        with pytest.raises(Unreadable, match=said):
            read_json(file)
    assert parse_json('{"a": 1}') == {"a": 1}
    monkeypatch.setattr(guard, "_JSON", 3)
    with pytest.raises(Unreadable, match="has 5000 bytes of JSON, more than 3"):
        read_json(file)
    with pytest.raises(Unreadable, match="No such file"):
        read_json(tmp_path / "absent.json")


def test_archives_have_limits(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, x=np.arange(9))
    check_archive(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Unreadable, match="it is a damaged archive"):
        check_archive(file)
    np.savez_compressed(file, x=np.zeros(1 << 20))
    with pytest.raises(Unreadable, match="it is an archive with compressed entries"):
        check_archive(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", bytes(1000))
    content = file.read_bytes()
    at = content.index(b"PK\x01\x02") + 24  # the size in the central directory
    file.write_bytes(content[:at] + (1 << 30).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(Unreadable, match=r"an archive of \d+ bytes that declares to hold 1073741824"):
        check_archive(file)
