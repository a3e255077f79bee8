"""Two CPU devices, implicit rank promotion an error, and compiled programs kept from run to run, in every test."""

import ctypes
import gc
import importlib.metadata
import os
from pathlib import Path

# Most of the suite's time is compilation, which the lowest level of LLVM's optimisation and XLA's older emitters, where
# there still are any, shorten to a third; a module marked `optimized` is compiled as users compile, because its time is
# that of running. Flags of the environment come last, and win.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=2",
        "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else "",
        os.environ.get("XLA_FLAGS", ""),
    ]
)

# JAX finds what it has compiled by program, flags, version and processor, for all workers, for the processes that tests
# start, and for the next run. JAX_ENABLE_COMPILATION_CACHE=false turns it off, `pytest --cache-clear` empties it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "d" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest

CACHE = Path(__file__).parents[1] / ".pytest_cache" / "d" / "jax"
MOST_KEPT = 2**30
"""Bytes of compiled programs on disk, beyond which those that were not used for longest are removed."""
MOST_HELD = 2**30
"""Bytes of memory, beyond which a process drops what it has compiled, at the end of a module."""


def pytest_sessionstart():
    """Remove old programs; once, before there are workers."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    kept = 0
    for path in sorted(CACHE.glob("*-cache"), key=lambda path: path.stat().st_atime, reverse=True):
        kept += path.stat().st_size
        if kept > MOST_KEPT:
            path.unlink()


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _programs(request):
    """Compile a module marked `optimized` as users do, and drop what was compiled otherwise.

    Compiled programs are also dropped when they are many: beside memory they take memory maps, of which Linux allows
    65,530.
    """
    optimized = request.node.get_closest_marker("optimized") is not None
    if optimized:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    if optimized:
        jax.config.update("jax_disable_most_optimizations", True)
    statm = Path("/proc/self/statm")
    held = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
    if optimized or held > MOST_HELD:
        jax.clear_caches()
        gc.collect()
        # glibc holds on to what is free; other C libraries have no such function.
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)


@pytest.fixture
def x64():
    """Double precision for the duration of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def as_users_compile():
    """Options of `jax.jit` that undo the suite's choice of emitters, where the last bit depends on it."""
    chosen = "xla_cpu_use_fusion_emitters=false" in os.environ["XLA_FLAGS"]
    return {"xla_cpu_use_fusion_emitters": True} if chosen else {}
