"""Start the benchmark, whose programs lie beside the package."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_benchmark"]


def run_benchmark(arguments: Sequence[str]) -> int:
    """Run the suite of the working folder's `benchmarks/`, or else of the one that came with the package.

    Args:
        arguments: of `benchmarks/suite.py`.

    Returns:
        Its exit code.
    """
    here = Path("benchmarks")
    folder = here if (here / "suite.py").exists() else Path(__file__).parents[1] / "benchmarks"
    return subprocess.run([sys.executable, str(folder / "suite.py"), *arguments]).returncode
