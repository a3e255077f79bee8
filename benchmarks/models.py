"""Time the models beside PyTorch: `python benchmarks/models.py [CASE ...] [--cores 1 2] [--eager] [--dry-run]`.

Both sides run in one process, bound to the same one core or two, with as many threads and the same settings of the
allocator. They take turns, round by round, after a first call each (`first_call_s`) that compiles and touches fresh
memory. `ratio` is the shortest time of PyTorch divided by ours, so above 1 ours is faster; `bar` is what ought to be
reached. Ours is the library as one uses it: a training step is one of those that `jneuro.train` compiles, the gathering
of its batch included; PyTorch's is given its batch. PyTorch runs the twins of the equivalence suite, eagerly and
through `torch.compile`, with what was found to serve it: fused Adam, `inference_mode`, denormal numbers flushed to zero
as XLA does. `peak_mib` is the most memory that a process of one side alone came to hold beyond its imports, in the case
so far, compilation included.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import record

ROOT = Path(__file__).resolve().parents[1]
CASES = (
    "lstm",
    "seq2seq_50",
    "seq2seq_200",
    "rollout",
    "encoder_decoder",
    "tft",
    "lstm_autoencoder",
    "spike_count_lstm",
    "compact",
    "cnn_lstm",
    "epoch",
)


def run(case: str, cores: int, seconds: float, side: str | None = None) -> list[dict[str, Any]]:
    """Run a case in a process of its own, on its own cores."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise SystemExit(f"{cores} cores are asked for, and {len(allowed)} may be used")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "torch_equivalence")]),
        "OMP_NUM_THREADS": str(cores),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if cores == 1 else "",
    }
    command = [sys.executable, ROOT / "benchmarks" / "model_cases.py", case, str(cores), str(seconds)]
    os.sched_setaffinity(0, allowed[-cores:])
    try:
        done = subprocess.run([*command, *([side] if side else [])], stdout=subprocess.PIPE, text=True, env=environment)
    finally:
        os.sched_setaffinity(0, allowed)
    done.check_returncode()
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    """Time cases, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of timed rounds for each row's comparison")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out, and the memory")
    parser.add_argument("--dry-run", action="store_true", help="one round, and nothing is written")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for case in given.cases or CASES:
        for cores in given.cores:
            rows = run(case, cores, 0 if given.dry_run else given.seconds, "eager" if given.eager else None)
            if given.dry_run:
                for row in rows:
                    print(json.dumps({"case": case, "cores": cores} | row))
                continue
            peaks = {}
            for side in () if given.eager else ("jneuro", "torch eager"):
                peaks |= {(r["what"], r["by"]): {"peak_mib": r["peak_mib"]} for r in run(case, cores, 0, side)}
            record("models", [{"case": case, "cores": cores} | r | peaks.get((r["what"], r["by"]), {}) for r in rows])


if __name__ == "__main__":
    main()
