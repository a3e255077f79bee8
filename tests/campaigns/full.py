"""A disk that is full: files that may grow no longer, a small file system, or an injected error."""

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.campaigns.common import Row, campaign, made, sketched
from tests.campaigns.kills import undisturbed
from tests.campaigns.processes import compared, finish, start

__all__ = ["full", "limited", "no_space"]


def limited(size: int) -> None:
    """No file of this process may become longer, for good."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def no_space(after: int) -> None:
    """After so many files that took their place, none does any more in this process."""
    left = iter(range(after))

    def refusing(function: Callable) -> Callable:
        def call(*args, **words):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **words)

        return call

    os.replace, os.rename = refusing(os.replace), refusing(os.rename)


@contextlib.contextmanager
def _small(path: Path, size: int) -> Iterator[Callable[[], None] | None]:
    """A file system of so many bytes, and a function that makes it large; None where it cannot be mounted."""
    path.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
        try:
            return subprocess.run(words, capture_output=True).returncode == 0
        except OSError:
            return False

    if not mount(f"size={size}"):
        yield None
        return
    try:
        yield lambda: mount("remount,size=256m")
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True)


@campaign
@sketched()
def full(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Let a work run into a full disk, then resume it with room.

    It must end in one line, or by finishing, and be the same as an undisturbed one after `--resume`.
    """
    whole, _ = undisturbed(home, only, fast)
    while row.tried < count:
        name, way = rng.choice(only), rng.choice(["limit", "tmpfs", "injected"])
        row.tried += 1
        out = home / "full" / f"{row.tried}"
        whole_size = sum(f.stat().st_size for f in whole[name].rglob("*") if f.is_file())
        with (
            _small(out, int(whole_size * rng.uniform(0.02, 1.2)))
            if way == "tmpfs"
            else contextlib.nullcontext() as room
        ):
            if way == "tmpfs" and room is None:
                way = "injected"
            size, number = rng.choice([4096, 8192, 16384, 32768, 65536]), rng.randrange(1, 60)
            before = {"limit": partial(limited, size), "injected": partial(no_space, number), "tmpfs": None}[way]
            child = start(made(home, name, out / name), home / "log", before=before)
            if not child.ended(600):
                child.end()
            lines = [line for line in child.text.splitlines() if line.startswith(("failed:", "error:"))]
            how = {0: "finished", 1: "failed", 2: "refused"}.get(child.code or 0, "")
            if child.traceback or (child.code and len(lines) != 1):
                how = ""
            how = how or ("traceback" if child.traceback else f"exit {child.code}")
            about = {"work": name, "way": way, "size": size, "number": number, "text": child.text[-1500:]}
            row.add(f"{way}: {how}", None if how in ("failed", "finished", "refused") else about)
            if room is not None:
                room()
            child = finish(made(home, name, out / name, resume=True), home / "log")
            other = compared(out / name, whole[name], home / "scratch") if not child.code else [child.text[-1500:]]
            row.add(f"{way}: {'other' if other else 'same'} after", about | {"other": other[:9]} if other else None)
        shutil.rmtree(out, ignore_errors=True)
