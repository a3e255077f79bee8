"""What the loader accepts of mutated configurations, begun: it must be possible, or be refused or fail in a line."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

from tests.campaigns.common import Row, campaign, sketched
from tests.campaigns.processes import Child, ready, start

__all__ = ["begun"]

MOST_S = 30.0
"""How long a work is looked at; one that is still at it then is asked to stop."""
MOST_BYTES = 3 << 30
"""Memory beyond which a work so small is not possible."""


@campaign
@sketched()
def begun(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Begin mutated configurations that were accepted and that mean something else than the original.

    Each must finish, be refused, fail in one line, or still be at work within its memory and heed SIGTERM.
    """
    ready()
    accepted = _accepted(rng.randrange(2**32), count, home, only)
    for number, path in enumerate(accepted):
        out = home / f"begun{number}"
        child = start([path.name.split(".")[0], str(path), "--out", str(out)], home / "log")
        how = _watched(child)
        row.tried += 1
        fine = how in ("finished", "refused", "failed", "at work, stopped")
        about = {"work": path.name, "how": "", "file": path.read_text(), "text": child.text[-1500:]}
        row.add(how, None if fine else about)
        shutil.rmtree(out, ignore_errors=True)


def _accepted(seed: int, count: int, home: Path, only: tuple[str, ...]) -> list[Path]:
    """Files of accepted configurations, made by a child, since loading initialises JAX."""
    folder = home / "accepted"
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if not pid:
        try:
            _write_accepted(seed, count, folder, only)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return sorted(folder.glob("*.yaml"))


def _write_accepted(seed: int, count: int, folder: Path, only: tuple[str, ...]) -> None:
    from jneuro.core.config import content_hash
    from tests.campaigns.fuzz import bases_of, load
    from tests.campaigns.mutate import mutated

    rng, file = random.Random(seed), folder / "f.txt"
    bases, found = bases_of(file, only, small=True), 0
    while found < count:
        name, text, places, plain = rng.choice(bases)
        mutation = mutated(text, places, rng)
        content = mutation.text.encode("utf-8", "surrogatepass") if isinstance(mutation.text, str) else mutation.text
        file.write_bytes(content)
        plan, _ = load(name, file)
        if plan is not None and not mutation.legal and content_hash(plan.config, code=False) != plain:
            (folder / f"{name}.{found:06d}.yaml").write_bytes(content)
            found += 1
    file.unlink()


def _watched(child: Child) -> str:
    """Wait for a command, and say how it ended."""
    until = time.monotonic() + MOST_S
    while not child.ended(0.1):
        resident = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > MOST_BYTES:
            child.end()
            return "too much memory"
        if time.monotonic() > until:
            child.send(signal.SIGTERM)
            if not child.ended(MOST_S):
                child.end()
                return "deaf"
            return "traceback" if child.traceback else "at work, stopped"
    if child.traceback:
        return "traceback"
    return {0: "finished", 1: "failed", 2: "refused"}.get(child.code or 0, f"exit {child.code}")
