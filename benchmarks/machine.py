"""The machine under a timing: what it is, which cores it may use, and how fast it multiplies and copies."""

import datetime
import functools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jneuro.core.process import keep_freed_memory, usable_cores
from jneuro.experiment import versions

__all__ = ["Yardstick", "fingerprint", "free_bytes", "settle"]

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"cpu": (512, 1 << 22), "mps": (4096, 1 << 26), "gpu": (8192, 1 << 28)}
"""Side of the matrices multiplied, and numbers copied: some milliseconds each."""
KEPT = keep_freed_memory()
"""Whether the allocator keeps what is freed: set before the first array is made, for every side in the process."""


def settle(cores: int) -> None:
    """Bind this process, and those it starts, to so many cores, and every library to as many threads.

    Args:
        cores: how many, the last ones of those allowed; call this before the first computation.

    Raises:
        SystemExit: if there are not so many.
    """
    # One device that uses all cores is the first of as many as there are cores.
    flags = f" --xla_force_host_platform_device_count={cores}"
    if cores == 1:
        flags = " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + flags).strip()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    if sys.platform != "linux":
        return  # only Linux binds a process to cores
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < cores:
        raise SystemExit(f"{cores} cores are asked for, and {len(allowed)} may be used")
    os.sched_setaffinity(0, allowed[-cores:])


@functools.cache
def fingerprint() -> dict[str, Any]:
    """What a timing depends on: device, cores, versions, flags, allocator, commit."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "device": ", ".join(sorted({d.device_kind for d in jax.devices()})),
        "platform": jax.default_backend(),
        "processor": model,
        "cores": usable_cores(),
        "versions": versions(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "allocator": "keeps freed memory" if KEPT else "the system's",
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _commit() -> str:
    """The commit that is checked out, with a mark if the package differs from it."""
    try:
        how = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **how).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "jneuro", "benchmarks/*.py"], **how).stdout.strip()
        return commit + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def free_bytes() -> float:
    """Memory that the device can still give [byte]; infinite where it does not tell."""
    device = jax.devices()[0]
    found = device.memory_stats() or {}
    if "bytes_limit" in found:
        return found["bytes_limit"] - found["bytes_in_use"]
    if device.platform == "cpu" and (info := Path("/proc/meminfo")).exists():
        lines = dict(line.split(":") for line in info.read_text().splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    return float("inf")


class Yardstick:
    """A matrix product and a copy on the default device, timed in every round beside what is measured.

    Their best times are the machine's limits. Their time in each round says how fast the machine was just then.
    """

    def __init__(self) -> None:
        """Compile both."""
        size, numbers = SIZES.get(jax.default_backend(), SIZES["cpu"])
        self._products, self._copies = [], []
        square, line = jnp.ones((size, size), jnp.float32), jnp.ones(numbers, jnp.float32)
        self._runs: list[tuple[Callable, jax.Array, list[float]]] = [
            (jax.jit(lambda x: x @ x).lower(square).compile(), square, self._products),
            (jax.jit(lambda x: -x).lower(line).compile(), line, self._copies),
        ]
        self._operations, self._bytes = 2.0 * size**3, 8.0 * numbers
        self()
        self._products.clear()
        self._copies.clear()

    def __call__(self) -> float:
        """Time both once [s]."""
        total = 0.0
        for run, argument, times in self._runs:
            began = time.perf_counter()
            jax.block_until_ready(run(argument))
            times.append(time.perf_counter() - began)
            total += times[-1]
        return total

    @property
    def limits(self) -> dict[str, float]:
        """The most operations and bytes in a second, single precision."""
        return {
            "limit_flop_per_s": self._operations / min(self._products),
            "limit_byte_per_s": self._bytes / min(self._copies),
        }
