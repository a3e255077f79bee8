"""How everything here is timed.

- Compilation is timed apart, by lowering and compiling ahead of time.
- The sides of a comparison take turns, round by round, after a first call each, which touches fresh memory. A call runs
  to its end (`block_until_ready`) before the clock stops, and what lasts less than 5 ms is called several times.
- Of each side the median, the quartiles and the least time are kept, and every round's. Ratios are of medians.
- In every round a matrix product and a copy are timed too (`machine.Yardstick`): the machine's limits in the same run,
  and how fast it was just then.
- Absolute times are not stable between machines, nor on one that others use; compare what was measured in one run.

Results are JSON lines with a fingerprint, written after every row: see `record`.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from costs import costs
from machine import ROOT, Yardstick, fingerprint, free_bytes, settle

__all__ = [
    "Call",
    "Peer",
    "TookTooLong",
    "arguments",
    "compiled",
    "count_costs",
    "fingerprint",
    "limited",
    "measure",
    "peak_mib",
    "reason",
    "record",
    "take_turns",
    "timed",
]

RESULTS = Path(__file__).parent / "results"
SHORTEST_S = 5e-3
"""A round of a side lasts at least so long."""


def arguments(about: str, cases: Collection[str]) -> argparse.Namespace:
    """Read a program's command line, and bind the process to its cores.

    Args:
        about: the program's docstring.
        cases: what it can measure.

    Returns:
        `cases`, all by default, `cores`, `seconds` of each comparison, `dtype`, `alone`, `quick`.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)}; all by default")
    parser.add_argument("--cores", type=int, default=1, help="of the CPU, to which the process is bound")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timed rounds for each comparison")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16"))
    parser.add_argument("--alone", metavar="SIDE", help="of the models: only this side, for the memory that it takes")
    parser.add_argument("--quick", action="store_true", help="smaller, and without peers")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(cases):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    given.cases = given.cases or list(cases)
    settle(given.cores)
    return given


class Call(NamedTuple):
    """Something to be timed.

    Attributes:
        run: runs it to its end; returns None, or the seconds that are to count.
        about: what is known of it before it runs, such as `compile_s` and the costs of one call.
    """

    run: Callable[[], float | None]
    about: Mapping[str, Any] = {}


class TookTooLong(BaseException):
    """A time limit has passed; not an `Exception`, which PyTorch's compiler would catch and go on."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `TookTooLong` if the body takes longer; 0 sets no limit."""

    def stop(*_):
        raise TookTooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def compiled(function: Callable, *arguments: Any, count: bool = True) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Compile a function for its arguments.

    Args:
        function: pure, of arrays.
        arguments: its arguments.
        count: whether to count operations and bytes too, for which every loop's body is compiled once more.

    Returns:
        What calls it and waits, and `compile_s`, `memory_mib` (arguments, results and temporaries), `flop`, `byte`.

    Raises:
        MemoryError: if the device has not enough memory left.
    """
    began = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    about: dict[str, Any] = {"compile_s": time.perf_counter() - began}
    if sizes := program.memory_analysis():
        needed = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        if needed > 0.8 * free_bytes():
            raise MemoryError(f"needs {needed / 2**20:.0f} MiB of the {free_bytes() / 2**20:.0f} that are free")
        about["memory_mib"] = needed / 2**20
    if count:
        about |= costs(program, function, *arguments)
    return lambda: jax.block_until_ready(program(*arguments)), about


def count_costs(function: Callable, *arguments: Any) -> dict[str, float]:
    """Count a function's operations and bytes, without keeping what is compiled."""
    return costs(jax.jit(function).lower(*arguments).compile(), function, *arguments)


def timed(run: Callable[[], Any], times: int = 1) -> float:
    """Seconds that a call takes, by its own measure if it has one."""
    began, own = time.perf_counter(), None
    for _ in range(times):
        own = run()
    return own if isinstance(own, float) else (time.perf_counter() - began) / times


def take_turns(
    sides: Mapping[str, Callable[[], Call]], *, seconds: float, rounds: int = 5, limits: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """Time several sides in alternating rounds.

    Args:
        sides: makes each side's call; the ratios are those of the others to the first.
        seconds: how long to go on; 0 runs one round.
        rounds: the least number of them.
        limits: seconds that making a side, and its first call, may take.

    Returns:
        A row for each side: times, costs, shares of the machine's limits, ratio. A side that cannot be made, or fails
        in its first call, is absent with its reason.
    """
    calls, rows = {}, {}
    for by, make in sides.items():
        try:
            with limited((limits or {}).get(by, 0)):
                call = make()
                first = timed(call.run)
        except (Exception, TookTooLong) as error:
            rows[by] = {"absent": reason(error)}
            continue
        calls[by], rows[by] = call, {**call.about, "first_call_s": first}
    if not calls:
        return rows
    often = {by: _often(call.run, rows[by]["first_call_s"]) for by, call in calls.items()}
    yardstick, ends = Yardstick(), time.perf_counter() + seconds
    times: dict[str, list[float]] = {by: [] for by in calls}
    pace: list[float] = []
    while len(pace) < (rounds if seconds else 1) or time.perf_counter() < ends:
        pace.append(yardstick())
        for by, call in calls.items():
            times[by].append(timed(call.run, often[by]))
    base = statistics.median(times[next(iter(calls))])
    for by, series in times.items():
        rows[by] |= summary(series) | {"yardstick_s": _rounded(pace)} | yardstick.limits
        rows[by] |= _shares(rows[by])
        if by != next(iter(sides)) and next(iter(sides)) in calls:
            rows[by]["ratio"] = rows[by]["median_s"] / base
    return rows


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _often(run: Callable[[], Any], first: float) -> int:
    """How many calls make a round, where the first call is not yet telling."""
    if first > 20 * SHORTEST_S:
        return 1
    once = timed(run)
    return max(1, round(SHORTEST_S / max(once, 1e-7))) if once < SHORTEST_S else 1


def summary(times: list[float]) -> dict[str, Any]:
    """Median, quartiles, least, and all of them."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    found = {"median_s": middle, "q1_s": low, "q3_s": high, "min_s": min(times), "rounds": len(times)}
    return found | {"samples_s": _rounded(times)}


def _rounded(times: list[float]) -> list[float]:
    return [float(f"{t:.5g}") for t in times]


def _shares(row: Mapping[str, Any]) -> dict[str, float]:
    """The shares of the machine's limits that a call reaches."""
    found = {}
    for what in ("flop", "byte"):
        if what in row:
            found[f"{what}_per_s"] = row[what] / row["median_s"]
            found[f"{what}_share"] = found[f"{what}_per_s"] / row[f"limit_{what}_per_s"]
    return found


def measure(function: Callable, *arguments: Any, repeats: int = 5) -> tuple[Any, dict[str, Any]]:
    """Compile a function, then time it by itself.

    Args:
        function: pure, of arrays.
        arguments: its arguments.
        repeats: timed calls.

    Returns:
        Its result, and what `compiled` and `summary` say.
    """
    run, about = compiled(function, *arguments, count=False)
    result = run()
    return result, about | summary([timed(run) for _ in range(repeats)])


class Peer:
    """Another simulator, in its own environment and process, which runs once whenever it is told to.

    Args:
        name: its environment, below `.peers`.
        command: its program, below `benchmarks/peers`, and the program's arguments.

    Raises:
        FileNotFoundError: if it is not installed.
        RuntimeError: if it fails.
    """

    def __init__(self, name: str, command: list[str]):
        python = ROOT / ".peers" / name / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError("not installed; make peers")
        environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONPATH", "JAX_PLATFORMS")}
        program = [python, ROOT / "benchmarks" / "peers" / command[0], *command[1:]]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives as long as the process
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment | {"JNEURO_ROUNDS": "told"},
        )
        self._read()  # it says when it is built

    def _read(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        self._close()
        raise RuntimeError((said or ["it stopped without a word"])[-1])

    def _close(self) -> None:
        for file in (self._process.stdin, self._process.stdout, self._errors):
            file.close()

    def __call__(self) -> float:
        """Run once: the seconds that it reports."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def finish(self) -> dict[str, Any]:
        """End it: what it says of accuracy and versions."""
        self._process.stdin.close()
        found = self._read()
        self._process.wait()
        self._close()
        return {k: found[k] for k in ("compile_s", "accuracy", "versions")}


def peak_mib() -> float:
    """The most memory that this process has held."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**20 if sys.platform == "darwin" else 2**10)


def record(subject: str, rows: list[dict[str, Any]]) -> None:
    """Print rows, and append them to a file of results, each as soon as it is there.

    Args:
        subject: the program that measured them: the file is `results/<subject>.jsonl`, unless the environment names one
            for all in `JNEURO_BENCHMARK_RESULTS`.
        rows: what was measured. Subject, case, what, by, platform, cores, dtype and batch tell rows apart.
    """
    path = Path(os.environ.get("JNEURO_BENCHMARK_RESULTS") or RESULTS / f"{subject}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for row in rows:
            whole = {"subject": subject, "platform": jax.default_backend()} | row
            print(json.dumps({k: v for k, v in whole.items() if not isinstance(v, list)}), flush=True)
            file.write(json.dumps(whole | {"fingerprint": fingerprint()}) + "\n")
            file.flush()
