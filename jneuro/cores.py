"""The CPU cores that this process may use."""

import os
import sys

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """How many CPU cores this process may use: as many as XLA has threads for one CPU device."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
