"""How much memory there is for a batch of points."""

from pathlib import Path
from typing import Any

import jax

__all__ = ["available_memory", "is_out_of_memory"]

_UNKNOWN = 2 << 30
_SHARE = 0.5


def available_memory(device: Any, devices: int) -> int:
    """What a program may take on a device [byte]: half of what is free, shared among the devices of a host's memory.

    Args:
        device: the device.
        devices: number of devices of this process.

    Returns:
        The budget.
    """
    if (stats := device.memory_stats()) and (limit := stats.get("bytes_limit")):
        return int(_SHARE * (limit - stats.get("bytes_in_use", 0)))
    return int(_SHARE * min(_free_host_memory()) / devices)


def _free_host_memory() -> list[int]:
    """What the host, and the group of processes that this one belongs to, have left [byte]."""
    found = []
    if (info := Path("/proc/meminfo")).exists():
        found += [1024 * int(line.split()[1]) for line in info.read_text().splitlines() if "MemAvailable" in line]
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        found.append(max(int(text) - int(used.read_text()), 0))
    return found or [_UNKNOWN]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and ("resource_exhausted" in text or "out of memory" in text)
