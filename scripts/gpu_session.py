"""Everything worth measuring on a GPU, in the order of its value: `python scripts/gpu_session.py --budget 20min`.

Rows are written as they are measured, into `benchmarks/results/gpu.jsonl`. Run again, it goes on where it was stopped.
"""

import sys
from pathlib import Path

from jneuro.cli import run_benchmark

if __name__ == "__main__":
    out = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu.jsonl"
    sys.exit(run_benchmark(["--platforms", "cuda", "--out", str(out), *sys.argv[1:]]))
