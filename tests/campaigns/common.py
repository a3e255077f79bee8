"""What the campaigns share: three small works, the commands that make them, and the comparison of two folders."""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# As in the suite: what has been compiled is kept for the next process.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".pytest_cache" / "d" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")

__all__ = [
    "LONGEST",
    "WORKS",
    "Row",
    "Said",
    "Slow",
    "alarm",
    "at_end",
    "called",
    "campaign",
    "differences",
    "made",
    "sketched",
    "write_works",
]

RUN = """\
name: run
seed: 3
simulation:
  simulator: {name: brunel, n_excitatory: 8, n_inhibitory: 2, rule: {name: bernoulli, p: 0.3}}
  runs: 5
  duration_ms: 200
  snapshot_every_ms: 50
windows:
  discard_ms: 50
  length_ms: 10
  stride_ms: 5
  horizons_ms: [1, 2]
  fractions: {train: 0.6, validation: 0.2, test: 0.2}
models:
  compact: {model: {name: compact, lags: 4, hidden: 4, mixing_hidden: 4}}
train: {batch_size: 16, epochs: 3, optimizer: {name: adam, learning_rate: 3e-3}, steps_per_call: 2}
evaluate:
  baselines: [persistence]
  ceiling: {futures: 2, max_states: 3}
  trace_ms: 20
  analyses: [{name: error_analysis, bins: 3, threshold: -50}]
claims:
  - text: a compact model beats persistence
    quantity: test.compact.r2
    against: baselines.persistence.r2
"""
SWEEP = """\
name: sweep
simulation:
  simulator: {name: brunel, n_excitatory: 8, n_inhibitory: 2, rule: {name: bernoulli, p: 0.3}}
  duration_ms: 20
sweep:
  design: grid
  chunk: 4
  lanes: 2
  axes:
    g: {low: 0, high: 20, points: 4}
    eta: {of: simulator.rate_external, times: 500, low: 0.5, high: 4, points: 4}
measures: [rate, isi_cv, network_state]
keep: [v]
"""
FIT = """\
name: fit
simulation:
  simulator: {name: hodgkin_huxley}
  stimulus: {name: step, amplitude: [10, 18], onset: 2, end: 8}
  runs: 1
  duration_ms: 10
  snapshot_every_ms: 10
  dt_ms: 0.025
  record_every_ms: 0.1
  record: [v, current]
simulator: {name: hodgkin_huxley}
fit:
  trainable: [g_na, g_k]
  noise_mv: 0.5
  method: {name: nelder_mead, evaluations: 40}
train: [0]
held_out: [1]
repeats: 2
"""
WORKS = {"run": RUN, "sweep": SWEEP, "fit": FIT}
"""The smallest experiment, sweep and fit that have every kind of file, by the command that makes them."""

LONGEST = 300
"""Characters that a line of a message may have."""


def write_works(home: Path, *, fast: bool = False) -> None:
    """Write the configurations of all works into a folder; if it must be fast, an experiment without what is slow."""
    for name, text in WORKS.items():
        if fast:
            text = re.sub(r"ceiling: .*", "ceiling: null", re.sub(r".*analyses: .*\n", "", text))
        (home / f"{name}.yaml").write_text(text)


def made(home: Path, name: str, out: Path, *, resume: bool = False) -> list[str]:
    """The command that makes a work."""
    return [name, str(home / f"{name}.yaml"), "--out", str(out), *(["--resume"] if resume else [])]


class Slow(BaseException):
    """Something took longer than it may."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """End what a `with` block does after some time, by an exception that nothing catches."""

    def ring(*_):
        raise Slow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Said:
    """How a command ended: `fine`, `refused` (in clear lines), `long` (a line of them is), `traceback` or `hang`."""

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException | None, text: str = "") -> "Said":
        """Judge what was raised, as the command line would tell it."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            return cls("fine", text)
        if isinstance(error, Slow):
            return cls("hang", text)
        if isinstance(error, SystemExit) or getattr(error, "outcome", None) or isinstance(error, OSError):
            said = text if isinstance(error, SystemExit) else str(error)
            # Where the user's folders lie is not counted.
            lines = [re.sub(r"(/[\w.-]+)+/", "/", line) for line in said.splitlines()]
            return cls("long" if any(len(line) > LONGEST for line in lines) else "refused", said)
        return cls("traceback", "".join(traceback.format_exception(error))[-3000:])


def called(words: Sequence[Any], seconds: float = 300) -> Said:
    """Run a command in this process."""
    from typer.testing import CliRunner

    from jneuro.cli import app

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            with alarm(seconds):
                done = CliRunner().invoke(app, [str(word) for word in words])
        except Slow as error:
            return Said.of(error)
    return Said.of(done.exception, done.output)


def _sketch(figure: Any, target: Any, **_: Any) -> None:
    """Write a digest of what a figure shows."""
    shown: list[Any] = []
    for ax in figure.get_axes():
        shown += [line.get_xydata().tolist() for line in ax.lines]
        shown += [[path.vertices.tolist() for path in c.get_paths()] for c in ax.collections]
        shown += [np.ma.filled(np.ma.asarray(c.get_array(), float), 0).tolist() for c in ax.images]
        shown += [
            patch.get_path().vertices.tolist() + patch.get_patch_transform().get_matrix().tolist()
            for patch in ax.patches
        ]
        shown += [text.get_text() for text in (*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label)]
    target.write(hashlib.sha256(repr(shown).encode()).hexdigest().encode())


@contextlib.contextmanager
def sketched() -> Iterator[None]:
    """Have figures written as a digest of what they show, since drawing them is most of what a report takes."""
    from matplotlib.figure import Figure

    drawn, Figure.savefig = Figure.savefig, _sketch
    try:
        yield
    finally:
        Figure.savefig = drawn


_TIMES = re.compile(r"^(ended|started|command|from|.*seconds.*)$")
_PAGE = [
    (re.compile(r"(<th[^>]*>(Time|Started|Command|Folder)</th>)<td>.*?</td>"), r"\1"),
    (re.compile(r"<td><data value=\"[\d.e-]+\">[\d.]+ (m?s|min|h)</data></td>"), ""),
    (re.compile(r"<code>jneuro .*?</code>"), ""),
    (re.compile(r"compiled, [\d.]+ s"), "compiled"),
    # The last two columns of a fit's methods.
    (re.compile(r"(<th[^>]*>\w+</th><td>\d+</td><td>\d+ %</td>.*?)<td>[\d.]+</td><td>[\d.]+</td></tr>"), r"\1"),
]


def _timeless(value: Any) -> Any:
    """JSON without what differs between two equal runs."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _TIMES.match(k)}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _content(path: Path) -> bytes:
    """What a file says, without times."""
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        return json.dumps([_timeless(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.suffix == ".html":
        text = path.read_text()
        for pattern, kept in _PAGE:
            text = pattern.sub(kept, text)
        return text.encode()
    return path.read_bytes()


def _checkpoint(folder: Path) -> bytes:
    """All arrays of a checkpoint; its files are named at random."""
    import tensorstore

    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": folder.resolve().as_uri() + "/"}).result()
    return b"".join(key + store.read(key).result().value for key in sorted(store.list().result()))


def _digests(folder: Path) -> dict[str, str]:
    """Every file of a finished folder by its name, with the checkpoints' arrays in place of their files."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in ("run.json", ".lock", "report.lock"):
            continue
        if "/checkpoints/" in name:
            step = folder / re.match(r".*/checkpoints/[^/]+", name)[0]
            name, make = step.relative_to(folder).as_posix(), lambda step=step: _checkpoint(step / "state")
        else:
            make = lambda path=path: _content(path)  # noqa: E731
        if name not in found:
            try:
                found[name] = hashlib.sha256(make()).hexdigest()
            except Exception as error:  # damaged
                found[name] = f"{type(error).__name__}: {error}"
    return found


@dataclass
class _Known:
    digests: dict[Path, dict[str, str]] = field(default_factory=dict)


_known = _Known()


def differences(folder: Path, whole: Path) -> list[str]:
    """Names of the files that differ from those of an undisturbed work, but for times; run.json by its stages."""
    expected = _known.digests.setdefault(whole, {}) or _digests(whole)
    _known.digests[whole] = expected
    found = _digests(folder)
    return sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))


@dataclass
class Row:
    """A row of the campaigns' table.

    Attributes:
        campaign: its name.
        seed: of all that is drawn.
        tried: how often something was tried.
        counts: how often it came out in which way.
        faults: what should not be, each with all that it takes to do it again.
        command: what made the row.
        seconds: how long it took.
    """

    campaign: str
    seed: int
    tried: int = 0
    counts: Counter = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    command: str = ""
    seconds: float = 0.0

    def add(self, outcome: str, fault: dict[str, Any] | None = None) -> None:
        """Count an outcome."""
        self.counts[outcome] += 1
        if fault is not None:
            self.faults.append({"outcome": outcome, **fault})
            print(f"{self.campaign} {self.tried}: {outcome}: {fault}"[:600], file=sys.stderr, flush=True)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "counts": dict(sorted(self.counts.items()))}


at_end: list[Callable[[], None]] = []
"""Called when a campaign has ended, such as to end processes that it has left."""


def campaign(function: Callable[..., None]) -> Callable[..., Row]:
    """Make a driver of `function(row, rng, count, home, only, fast)`.

    Its arguments are then `seed` and `count`; `home`, a folder to work in, where finished works are used again; `only`,
    works that are taken, by their commands; and `fast`, which leaves out what costs most.
    """

    def drive(*, seed: int, count: int, home: Path, only: Sequence[str] = (), fast: bool = False) -> Row:
        name = function.__name__
        row, began = Row(name, seed), time.monotonic()
        row.command = f"python -m tests.campaigns {name} --count {count} --seed {seed}"
        row.command += (f" --only {','.join(only)}" if only else "") + (" --fast" if fast else "")
        home.mkdir(parents=True, exist_ok=True)
        try:
            function(row, random.Random(f"{name} {seed}"), count, home, tuple(only) or tuple(WORKS), fast)
        except KeyboardInterrupt:
            pass  # what was tried until then counts
        finally:
            while at_end:
                at_end.pop()()
        row.seconds = round(time.monotonic() - began, 1)
        return row

    drive.__doc__, drive.__name__ = function.__doc__, function.__name__
    return drive
