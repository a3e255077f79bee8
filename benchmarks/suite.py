"""Everything that is timed, in the order of its value: `python benchmarks/suite.py [--quick] [--budget 20min] ...`.

Each entry is a program of this folder in a process of its own, which writes every row as soon as it is measured. What a
file of results holds already is not measured again, so a run that was stopped, or whose budget is spent, goes on where
it ended. Every platform of JAX (cpu, cuda, mps) is asked for; one that is absent stands in the results with its reason.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from jneuro.simulators import SIMULATORS

__all__ = ["Entry", "entries", "seconds_of"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLATFORMS = ("cpu", "cuda", "mps")
LONGEST_S = 1800
LAST_LINE_SAYS = {"JAX_TRACEBACK_FILTERING": "off"}
"""Or else the last line of an error is about its traceback."""
MODELS = (
    "lstm",
    "encoder_decoder",
    "seq2seq_50",
    "seq2seq_200",
    "rollout",
    "tft",
    "lstm_autoencoder",
    "spike_count_lstm",
    "compact",
    "cnn_lstm",
)


class Entry(NamedTuple):
    """One program with its arguments.

    Attributes:
        program: its name, without ending.
        arguments: what it is given.
        platform: of JAX.
        expected_s: about how long it takes on two cores.
    """

    program: str
    arguments: tuple[str, ...]
    platform: str
    expected_s: float

    @property
    def name(self) -> str:
        """How results call it."""
        return " ".join((self.program, *self.arguments, self.platform))


def entries(platform: str, quick: bool, cores: int) -> list[Entry]:
    """What runs on a platform, the most valuable first.

    Args:
        platform: cpu, cuda or mps.
        quick: what four minutes allow.
        cores: of the CPU.

    Returns:
        The entries.
    """
    one, both = ("--cores", "1"), ("--cores", str(cores))

    def entry(program, *arguments, expected=60.0):
        short = ("--quick", "--seconds", "1") if quick else ()
        return Entry(program, (*arguments, *short), platform, expected)

    if quick:
        return [
            entry("simulators", "ca1_float32", "hodgkin_huxley", "brunel_100", *one, expected=25),
            entry("models", "lstm", "compact", *both, expected=35),
            entry("solvers", "hodgkin_huxley", *one, expected=10),
            entry("ladder", "ca1_pyramidal", "hodgkin_huxley", "brunel", *one, expected=25),
        ]
    found = [entry("simulators", case, *one, expected=150) for case in ("ca1_float32", "hodgkin_huxley", "brunel_100")]
    found += [entry("models", case, *both) for case in MODELS[:2]]
    found += [entry("models", "epoch", *both, expected=400)]
    networks = ("brunel_12500", "brunel_12500 any weights", "izhikevich_1000", "izhikevich_10000")
    found += [entry("simulators", case, *one, expected=150) for case in networks]
    found += [entry("simulators", "ca1_gradient", *one)]
    found += [entry("models", case, *both) for case in MODELS[2:]]
    doubles = ("float64",) if platform != "mps" else ()
    if doubles:
        found += [entry("simulators", "ca1_float64", *one, expected=150)]
    found += [entry("models", case, *both, "--dtype", "bfloat16") for case in MODELS]
    for dtype in ("float32", *doubles):
        for case in ("hodgkin_huxley", "ca1_pyramidal"):
            found += [entry("solvers", case, *one, "--dtype", dtype)]
    ladder = (*SIMULATORS, "brunel_12500")
    for dtype in ("float32", *doubles):
        found += [entry("ladder", case, *one, "--dtype", dtype, expected=90) for case in ladder]
    found += [entry(program, expected=600) for program in ("fits", "sweeps") if (HERE / f"{program}.py").exists()]
    if platform == "cpu":
        found += [entry("startup", *one)]
        found += [entry("models", case, *one) for case in (*MODELS, "epoch")]
        found += [entry("ensemble", "--cores", str(n), expected=120) for n in sorted({1, cores})]
        sides = ("jneuro", "torch eager")
        found += [entry("models", case, *both, "--alone", side) for case in (*MODELS, "epoch") for side in sides]
    else:
        found.sort(key=lambda e: not {"lstm", "epoch"} & {*e.arguments[:1]})  # what a GPU is asked for first
    return found


def seconds_of(text: str) -> float:
    """Seconds from a text such as 90, 90s, 20min or 2h."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|)", text.strip())
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 20min or 2h")
    return float(number[1]) * {"s": 1, "": 1, "min": 60, "h": 3600}[number[2]]


def absent(platform: str) -> str | None:
    """Why a platform of JAX cannot be used; None if it can."""
    code = f"import jax; (jax.device_put(1.0, jax.devices({platform!r})[0]) + 1).block_until_ready()"
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"} | LAST_LINE_SAYS
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return lines[-1][:300] if done.returncode else None


def run(entry: Entry, path: Path, limit: float) -> dict[str, Any]:
    """Run an entry; what happened."""
    folders = [ROOT, HERE, ROOT / "tests" / "torch_equivalence"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "JNEURO_BENCHMARK_RESULTS": str(path),
        "JAX_PLATFORMS": entry.platform,
        **LAST_LINE_SAYS,
    }
    command = [sys.executable, str(HERE / f"{entry.program}.py"), *entry.arguments]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, timeout=limit)
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        failure = {"absent": lines[-1][:300]} if done.returncode else {}
    except subprocess.TimeoutExpired:
        failure = {"absent": f"it took longer than {limit:.0f} s"}
    return {"entry": entry.name, "platform": entry.platform, "seconds": time.perf_counter() - began} | failure


def write(path: Path, row: dict[str, Any]) -> None:
    """Append a row to the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def finished(path: Path) -> set[str]:
    """The entries that a file of results holds."""
    if not path.exists():
        return set()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["entry"] for row in rows if "entry" in row and "absent" not in row}


def run_all(chosen: list[Entry], path: Path, budget: float) -> list[str]:
    """Run what the results do not hold yet, for so long; the entries that failed or were left."""
    done, ends, wrong = finished(path), time.perf_counter() + budget, []
    for number, entry in enumerate(chosen, 1):
        left = ends - time.perf_counter()
        if entry.name in done:
            continue
        if left < entry.expected_s:
            print(f"left for another time: {entry.name}", flush=True)
            wrong.append(entry.name)
            continue
        print(f"[{number}/{len(chosen)}] {entry.name}", flush=True)
        row = run(entry, path, min(LONGEST_S, left))
        write(path, row)
        if "absent" in row:
            print(f"  failed: {row['absent']}", flush=True)
            wrong.append(entry.name)
    return wrong


def main() -> None:
    """Run the suite, and write its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, and no peers: four minutes at most")
    parser.add_argument("--budget", type=seconds_of, default=float("inf"), help="such as 20min; the rest is left")
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS, default=PLATFORMS, metavar="PLATFORM")
    parser.add_argument("--only", default="", help="entries whose name contains this")
    parser.add_argument(
        "--out", type=Path, help="the results; benchmarks/results/suite.jsonl by default, or quick.jsonl"
    )
    given = parser.parse_args()
    path = given.out or Path("benchmarks/results") / ("quick.jsonl" if given.quick else "suite.jsonl")
    path, cores = path.resolve(), min(os.cpu_count() or 1, 2)
    wanted = {p: [e for e in entries(p, given.quick, cores) if given.only in e.name] for p in given.platforms}
    if not any(wanted.values()):
        programs = sorted({e.program for p in given.platforms for e in entries(p, given.quick, cores)})
        parser.error(f"--only {given.only}: no entry has this in its name; programs are {', '.join(programs)}")
    chosen: list[Entry] = []
    for platform in given.platforms:
        if (why := absent(platform)) is None:
            chosen += wanted[platform]
        else:
            print(f"{platform}: absent, {why}", flush=True)
            write(path, {"platform": platform, "by": "jneuro", "absent": why})
    if importlib.util.find_spec("torch") is None:
        print("PyTorch: absent; pip install 'jneuro[torch]'", flush=True)
    wrong = run_all(chosen, path, given.budget)
    subprocess.run([sys.executable, str(HERE / "report.py"), str(path)], check=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
