"""Time an ensemble in one program against its members one after the other: `python benchmarks/ensemble.py [CORES]`.

Eight members with other seeds and learning rates train an epoch, validation and the host's loop included, compilation
apart: as eight calls of `train` on one device, as one `train_ensemble` on one device, and, with two cores, as one
spread over two CPU devices. Ways alternate, and the least time of each counts.
"""

# ruff: noqa: E402, the cores are settled before JAX is imported

import os
import sys

CORES = int(sys.argv[1]) if len(sys.argv) > 1 else 1
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={CORES}"
if CORES == 1:
    os.environ["XLA_FLAGS"] += " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import record

from jneuro.datasets import Scaling, Windows
from jneuro.models import CompactForecasterConfig, LSTMForecasterConfig, build_model
from jneuro.training import Adam, TrainConfig, train, train_ensemble

MEMBERS, NEURONS, LENGTH, STEPS, REPEATS = 8, 100, 150, 24, 3
CASES = {
    "compact": CompactForecasterConfig(features=NEURONS, length=LENGTH),
    "lstm 1x64": LSTMForecasterConfig(features=NEURONS, length=LENGTH, layers=1, hidden=64),
}


def windows(batch_size):
    """Noise: an epoch of training windows, and one batch for validation."""
    values = np.random.default_rng(0).normal(size=(2000, NEURONS)).astype(np.float32)
    starts = {"train": jnp.arange(STEPS * batch_size), "validation": jnp.arange(1000, 1000 + batch_size)}
    return Windows(jnp.asarray(values), starts, Scaling(np.zeros(1), np.ones(1)), LENGTH, (1,), 1.0, 2000, False)


def time_case(name, config, batch_size):
    """One row."""
    models = [build_model(config, rngs=nnx.Rngs(seed)) for seed in range(MEMBERS)]
    recipes = [
        TrainConfig(epochs=1, batch_size=batch_size, optimizer=Adam(learning_rate=1e-3 * 1.2**k))
        for k in range(MEMBERS)
    ]
    keys, data = [jax.random.key(seed) for seed in range(MEMBERS)], windows(batch_size)
    # All with one recipe: another learning rate would compile another program.
    ways = {
        "apart": (1, lambda: [train(m, data, recipes[0], key=k) for m, k in zip(models, keys, strict=True)]),
        "together": (1, lambda: train_ensemble(models, data, recipes, keys=keys)),
        "spread": (CORES, lambda: train_ensemble(models, data, recipes, keys=keys)),
    }
    times = {way: [] for way, (devices, _) in ways.items() if way != "spread" or devices > 1}
    for _ in range(REPEATS + 1):
        for way, measured in times.items():
            devices, function = ways[way]
            with jax.default_device(jax.devices()[0] if devices == 1 else None):
                began = time.perf_counter()
                function()
                measured.append(time.perf_counter() - began)
    seconds = {way: min(measured[1:]) for way, measured in times.items()}
    ratios = {f"{way}_speedup": round(seconds["apart"] / s, 2) for way, s in seconds.items() if way != "apart"}
    first = {f"{way}_first_s": round(measured[0], 2) for way, measured in times.items()}
    row = {"case": name, "members": MEMBERS, "batch_size": batch_size, "steps": STEPS, "cores": CORES}
    return row | {f"{way}_s": round(s, 4) for way, s in seconds.items()} | ratios | first


if __name__ == "__main__":
    record("ensemble", [time_case(name, config, size) for name, config in CASES.items() for size in (8, 32)])
