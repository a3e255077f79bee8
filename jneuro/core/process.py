"""Resources of this process: CPU cores and the C library's memory allocator; imports no JAX."""

import ctypes
import os
import sys

__all__ = ["keep_freed_memory", "usable_cores"]


def usable_cores() -> int:
    """How many CPU cores this process may use: as many as XLA has threads for one CPU device."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_SETTINGS = {
    -8: 1,  # M_ARENA_MAX: one arena, so that memory freed by one thread serves another
    -4: 0,  # M_MMAP_MAX: large blocks come from the heap too
    -1: 1 << 30,  # M_TRIM_THRESHOLD [bytes]
    -2: 256 << 20,  # M_TOP_PAD [bytes]
}


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed for the next step; call it before anything large is allocated.

    XLA on a CPU frees its buffers after every call, and glibc gives large ones back to the system, which then must
    clear the pages anew: about 50,000 page faults in a training step of 700 ms. The setting holds for the whole
    process, so only programs make it (the command line, the benchmarks), never `import jneuro`.
    `JNEURO_ALLOCATOR=system` switches it off.

    Returns:
        Whether it was done: false on other C libraries, and where the user switched it off.
    """
    if sys.platform != "linux" or os.environ.get("JNEURO_ALLOCATOR") == "system":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())
