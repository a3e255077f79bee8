"""The studies at their sources' own size, most valuable first: `python scripts/paper_scale.py --budget 25min`.

Each study is run with one seed of every model, then with all its seeds; the second run takes over what the first has
simulated and trained. When the budget is spent, the run at work is told to stop, saves its state and goes on the next
time. What it came to is appended to a small file, `benchmarks/results/paper_scale.jsonl`.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from suite import seconds_of, write

from jneuro.experiment import RunFolder
from jneuro.experiment.config import ExperimentConfig
from jneuro.experiment.plan import load_plan

__all__ = ["Job", "choose", "history", "jobs", "summary"]

ROOT = Path(__file__).resolve().parents[1]
HOUR = 3600.0
EXPECTED = {
    "voltage_forecast": (1.0 * HOUR, 3 * HOUR),
    "hh_surrogate": (0.3 * HOUR, 0.7 * HOUR),
    "ring_counts": (0.3 * HOUR, 1.3 * HOUR),
    "spike_activity": (0.4 * HOUR, 1.3 * HOUR),
    "ca1_forecast": (9.0 * HOUR, 27 * HOUR),
}
"""Studies by value, with the seconds that one seed and all may take on one GPU: guesses from the numbers of steps."""
GRACE_S = 120.0
"""So long a run may take to save its state before it is killed; then it goes on from the checkpoint before."""
LEAST_S = 20.0
"""With less time left nothing is begun: it would not end compiling."""
LONGEST_LIST = 12
START = "from jneuro.cli import main; main()"


class Job(NamedTuple):
    """One run of one study.

    Attributes:
        study: the name of its configuration.
        seeds: whether each model gets `one`, or `all` that the configuration names.
        expected_s: about how long it takes.
    """

    study: str
    seeds: str
    expected_s: float

    @property
    def name(self) -> str:
        """How results call it."""
        return f"{self.study}, {'all seeds' if self.seeds == 'all' else 'one seed'}"


def jobs(studies: Collection[str]) -> list[Job]:
    """What there is to run: every study with one seed, then whole.

    Args:
        studies: the wanted ones.

    Returns:
        The jobs, the most valuable first.
    """
    passes = enumerate(("one", "all"))
    return [Job(n, seeds, times[k]) for k, seeds in passes for n, times in EXPECTED.items() if n in studies]


def choose(wanted: Sequence[Job], spent: Mapping[str, float], over: Collection[str], left: float) -> Job | None:
    """What to do next: the first job that should end in the time that is left, or else go on with the first of all.

    Args:
        wanted: all jobs, the most valuable first.
        spent: seconds that were given to each before, by its name.
        over: names of those that are finished, or failed just now.
        left: seconds that are left.

    Returns:
        The job; None if nothing is left to do, or no time.
    """
    if left < LEAST_S:
        return None
    remaining = [job for job in wanted if job.name not in over]
    ending = [job for job in remaining if job.expected_s - spent.get(job.name, 0.0) <= left]
    return next(iter([*ending, *remaining]), None)


def history(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], set[str]]:
    """What earlier calls did.

    Args:
        rows: of the results.

    Returns:
        Seconds spent on each job, and the finished ones.
    """
    spent: dict[str, float] = {}
    for row in rows:
        spent[row["job"]] = spent.get(row["job"], 0.0) + row["seconds"]
    return spent, {row["job"] for row in rows if row["state"] == "finished"}


def summary(value: Any) -> Any:
    """The numbers of a run's metrics without their long lists.

    Args:
        value: metrics.json, or a part of it.

    Returns:
        The same, with lists of more than a dozen entries left out.
    """
    if isinstance(value, dict):
        found = {key: summary(v) for key, v in value.items()}
        return {key: v for key, v in found.items() if v is not None}
    if isinstance(value, list):
        return [summary(v) for v in value] if len(value) <= LONGEST_LIST else None
    return float(f"{value:.6g}") if isinstance(value, float) else value


def run(job: Job, configs: Path, left: float) -> dict[str, Any]:
    """Run a job, or go on with it, for so long; what came of it."""
    path = configs / f"{job.study}.yaml"
    config, keys = load_plan(path).config, list[str]()
    if job.seeds == "one":
        keys = [f"models.{name}.seeds=1" for name, entry in config.models.items() if entry.seeds > 1]
        config = load_plan(path, keys).config
    command = [sys.executable, "-c", START, "run", str(path), *keys, "--resume"]
    began, process, code = time.perf_counter(), subprocess.Popen(command), None
    try:
        code = process.wait(left)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where this program is told to stop
        _stop(process)
    state = "stopped" if code is None else "failed" if code else "finished"
    return {"job": job.name, "state": state, "seconds": round(time.perf_counter() - began, 1)} | _found(config, state)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let a run that is still at work save its state and end."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _found(config: ExperimentConfig, state: str) -> dict[str, Any]:
    """What ran where, and what a finished run came to."""
    path = RunFolder.default_path(config)
    if not (path / "config.yaml").exists():
        return {}
    folder = RunFolder.find(path)
    kept = ("name", "hash", "device", "versions", "source", "git_commit", "started")
    found = {key: folder.info[key] for key in kept}
    found["stages"] = {name: stage["seconds"] for name, stage in folder.info["stages"].items()}
    return found | ({"metrics": summary(folder.load("metrics.json"))} if state == "finished" else {})


def main() -> None:
    """Run what fits into the budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"all by default: {', '.join(EXPECTED)}")
    parser.add_argument("--budget", type=seconds_of, default=float("inf"), help="such as 25min; the rest is left")
    parser.add_argument("--configs", type=Path, default=ROOT / "configs", help="configs/quick for a rehearsal")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "paper_scale.jsonl")
    given = parser.parse_args()
    if unknown := [n for n in given.studies if n not in EXPECTED]:
        parser.error(f"no study is called {unknown[0]!r}; there are {', '.join(EXPECTED)}")
    ends, wanted = time.perf_counter() + given.budget, jobs(given.studies or EXPECTED)
    before = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    spent, over = history([json.loads(line) for line in before])
    failed: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    while job := choose(wanted, spent, over, left := ends - time.perf_counter()):
        print(f"{job.name}: about {job.expected_s / 60:.0f} min, {spent.get(job.name, 0) / 60:.0f} spent", flush=True)
        row = run(job, given.configs, min(left, 1e9))
        write(given.out, row)
        print(f"{job.name}: {row['state']} after {row['seconds']:.0f} s", flush=True)
        spent[job.name] = spent.get(job.name, 0.0) + row["seconds"]
        over |= {job.name} if row["state"] != "stopped" else set()
        failed += [job.name] if row["state"] == "failed" else []
    left_over = [job.name for job in wanted if job.name not in over]
    print(f"left for another time: {'; '.join(left_over) or 'nothing'}", flush=True)
    sys.exit(1 if failed or left_over else 0)


if __name__ == "__main__":
    main()
