"""Two CPU devices, and implicit rank promotion an error, in every test."""

import gc
import importlib.metadata
import os
from pathlib import Path

# Most of the suite's time is compilation, which the lowest level of LLVM's optimisation and XLA's older emitters, where
# there still are any, shorten to a third. Flags of the environment come last, and win.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=2",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else "",
        os.environ.get("XLA_FLAGS", ""),
    ]
)

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Drop compiled programs when there are many: each takes memory maps, of which Linux allows a process 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 25_000:
        jax.clear_caches()
        gc.collect()


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
