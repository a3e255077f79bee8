"""How everything here is timed.

Compilation is timed apart, by lowering and compiling ahead of time. Each further call runs to the end
(`block_until_ready`) before the clock stops; the median of the repeats counts. Absolute times are not stable between
machines, nor on one that others use; compare what was measured in one run. Results are appended as JSON lines with a
fingerprint of device and versions.
"""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jneuro.allocator import keep_freed_memory
from jneuro.experiment import versions

__all__ = ["fingerprint", "measure", "record"]

_RESULTS = Path(__file__).parent / "results"


def measure(function: Callable, *arguments: Any, repeats: int = 5) -> tuple[Any, dict[str, float]]:
    """Compile a function, then time it.

    Args:
        function: pure, of arrays.
        arguments: its arguments.
        repeats: timed calls.

    Returns:
        Its result, and `compile_s`, `median_s` and `min_s`.
    """
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    result, times = None, []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - began)
    # The first call touches fresh memory.
    return result, {"compile_s": compile_s, "median_s": statistics.median(times[1:]), "min_s": min(times[1:])}


def fingerprint() -> dict[str, Any]:
    """What a timing depends on."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "device": ", ".join(sorted({d.device_kind for d in jax.devices()})),
        "processor": model,
        "cores": os.cpu_count(),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
    }


def record(subject: str, rows: list[dict[str, Any]]) -> None:
    """Print rows, and append them to `results/<subject>.jsonl`."""
    _RESULTS.mkdir(exist_ok=True)
    with (_RESULTS / f"{subject}.jsonl").open("a") as file:
        for row in rows:
            print(json.dumps(row))
            file.write(json.dumps(row | {"fingerprint": fingerprint()}) + "\n")


keep_freed_memory()
