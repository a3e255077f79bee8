"""However many devices and processes share a batch, and in whichever way, the losses are those of one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from parallel_child import SETTINGS, Terminate
from training_problems import Layered, Noisy, config, curves, weights, windows

from jneuro.experiment.plan import load_plan
from jneuro.training import Checkpoints, TrainingInterrupted, predict, train

CHILD = Path(__file__).with_name("parallel_child.py")


def run(mode, seed=0, dtype=np.float32, callbacks=(), checkpoint=None, **model):
    """Train a `Layered`; the mode `single` takes one of the devices, of which there are two."""
    layered = Layered(rngs=nnx.Rngs(seed), dtype=dtype, **model)
    settings = config(**SETTINGS, parallel="auto" if mode == "single" else mode)
    with jax.default_device(jax.devices()[0] if mode == "single" else None):
        return train(
            layered,
            windows(dtype=dtype),
            settings,
            key=jax.random.key(seed),
            callbacks=callbacks,
            checkpoint=checkpoint,
        )


@pytest.fixture(scope="module")
def single():
    return run("single")


def assert_close(a, b, tolerance=1e-6):
    """Losses and weights agree."""
    assert (a.best_epoch, a.stopped) == (b.best_epoch, b.stopped)
    np.testing.assert_allclose(curves(a), curves(b), rtol=tolerance, atol=tolerance)
    for name, value in weights(a.model).items():
        np.testing.assert_allclose(value, weights(b.model)[name], rtol=0, atol=10 * tolerance, err_msg=name)


@pytest.mark.parametrize("mode", ["auto", "pmap"])
def test_two_devices_are_one(single, mode):
    result = run(mode)
    assert_close(result, single)
    # The result lies where the given model does, and predicts there.
    devices = {leaf.devices().pop() for leaf in jax.tree.leaves(nnx.state(result.model, nnx.Param))}
    assert devices == {jax.devices()[0]}
    starts = windows().starts["test"]
    ours, theirs = (predict(r.model, windows(), starts) for r in (result, single))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [{"dropout": 0.0}, {"normalise": False}, {"dropout": 0.0, "normalise": False}], ids=str
)
def test_each_layer_by_itself(part):
    single, mapped = run("single", **part), run("pmap", **part)
    assert_close(mapped, single)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_devices_are_one_in_double_precision(x64, mode):
    assert_close(run(mode, dtype=np.float64), run("single", dtype=np.float64), 1e-12)


@pytest.mark.parametrize(("first", "second"), [("single", "pmap"), ("pmap", "single")])
def test_resumes_on_other_devices(tmp_path, single, first, second):
    with pytest.raises(TrainingInterrupted, match="saved step 12"):
        run(first, callbacks=[Terminate()], checkpoint=Checkpoints(tmp_path))
    assert_close(run(second, checkpoint=Checkpoints(tmp_path)), single)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def children(folder, ways, devices, processes=1):
    """Let processes train together on so many devices each; return the curves of each process, by way."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    warnings = ["-W", "error", "-W", "ignore:Error reading persistent compilation cache entry:UserWarning"]
    command = [sys.executable, *warnings, str(CHILD), str(folder), ",".join(ways)]
    port = str(free_port())
    running = []
    try:
        for k in range(processes):
            extra = [str(k), str(processes), port] if processes > 1 else []
            with (folder / f"{k}.log").open("w") as log:
                environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
                running.append(subprocess.Popen(command + extra, stdout=log, stderr=log, env=environment))
        codes = [process.wait(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert codes == [0] * processes, (folder / "0.log").read_text()[-2000:]
    return [json.loads((folder / f"{k}.json").read_text()) for k in range(processes)]


def test_eight_devices_are_one(tmp_path, single):
    (found,) = children(tmp_path, ["auto", "pmap"], 8)
    for way, curve in found.items():
        np.testing.assert_allclose(curve, curves(single), rtol=1e-6, atol=1e-6, err_msg=way)


@pytest.mark.parametrize(
    ("devices", "ways"),
    [
        (1, ["interrupted"]),
        pytest.param(2, ["auto", "pmap", "interrupted", "ensemble"], marks=pytest.mark.slow),
        pytest.param(4, ["auto", "pmap", "interrupted", "ensemble"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_one(tmp_path, single, devices, ways):
    first, second = children(tmp_path, ways, devices, processes=2)
    assert first == second, "all processes return the same"
    for way, curve in first.items():
        np.testing.assert_allclose(curve, curves(single), rtol=1e-6, atol=1e-6, err_msg=way)
    assert [path.name for path in tmp_path.glob("metrics-*")] == ["metrics-0.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "metrics-0.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]


def test_a_configuration_file_chooses():
    quick = Path(__file__).parents[2] / "configs" / "quick" / "voltage_forecast.yaml"
    assert load_plan(quick).config.train.parallel == "auto"
    assert load_plan(quick, ["train.parallel=pmap"]).config.train.parallel == "pmap"


def test_refuses_what_cannot_be_divided():
    data = windows()
    for mode in ("auto", "jit", "pmap"):
        with pytest.raises(
            ValueError, match=r"batch_size = 7 cannot be divided among 2 devices; use a multiple of 2, "
        ):
            train(Layered(rngs=nnx.Rngs(0)), data, config(batch_size=7, parallel=mode), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"Flax's Dropout at drop a part of the batch .* or parallel 'jit'"):
        train(Noisy(rngs=nnx.Rngs(0)), data, config(parallel="pmap"), key=jax.random.key(0))
    with pytest.raises(ValueError, match="'auto', 'jit' or 'pmap'"):
        config(parallel="shard")
