"""Two CPU devices, and implicit rank promotion an error, in every test."""

import os

# Most of the suite's time is compilation, which the lowest level of LLVM's optimisation shortens.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
)

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    """Double precision for the duration of a test."""
    with jax.enable_x64(True):
        yield
