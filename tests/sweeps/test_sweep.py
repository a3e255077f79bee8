"""Results depend on the design alone: not on devices, processes, batches, or how often a sweep was killed."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from sweep_problems import HIGH, cheap, picky, spread

from jneuro.core.progress import Progress, Task
from jneuro.recordings import StoreError
from jneuro.simulators import Izhikevich, simulate
from jneuro.simulators.stimuli import Constant
from jneuro.sweeps.program import GroupProgram, SweepMemoryError
from jneuro.sweeps.runner import run_sweep
from jneuro.sweeps.store import open_sweep

ROOT = Path(__file__).parents[2]


def run(config, path, **more):
    return run_sweep(config.problem(), path, **more)


def digest(path):
    """Name and content of every file."""
    files = sorted(f for f in path.rglob("*") if f.is_file())
    return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "sweep.zarr"
    return path, run(cheap(), path)


def test_each_point_is_the_simulation_of_its_parameters(whole):
    data = whole[1]
    assert data.rate.dims == ("a", "amplitude")
    assert data.ok.all()
    for a, amplitude in ((0.02, 20.0), (0.1, 5.0)):
        recording = simulate(Izhikevich(a=a), Constant(amplitude), duration=2.0, key=jax.random.key(0))
        found = data.v_mean.sel(a=a, amplitude=amplitude)
        np.testing.assert_allclose(found, np.mean(recording.values["v"]), rtol=1e-5)


def test_one_device_writes_the_same_bytes_as_two(whole, tmp_path):
    with jax.default_device(jax.devices()[1]):
        run(cheap(), tmp_path / "s")
    assert digest(tmp_path / "s") == digest(whole[0])


def test_only_what_is_missing_is_computed_and_the_bytes_are_the_same(whole, tmp_path):
    path, seen = tmp_path / "s", []
    for process in (2, 0):
        assert run(cheap(), path, process=process, processes=3) is None
    with pytest.raises(StoreError, match=r"unfinished, \d+ of \d+ chunks are missing; .*--resume"):
        open_sweep(path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file()}
    (path / "rate" / "c" / "0" / "0.killed.partial").write_bytes(b"torn")
    assert open_sweep(path, complete=False).rate.isnull().any()

    class Heard(Progress, Task):
        def begin(self, text, total=None, unit="", done=0.0):
            seen.append((done, total, unit))
            return self

        def update(self, done=None, total=None, text=None, **values):
            seen.append((done, values))

    run(cheap(), path, progress=Heard())
    assert 0 < seen[0][0] < seen[0][1] == 35
    assert seen[-1] == (35, {"failed": 0})
    assert all(f.stat().st_mtime_ns == t for f, t in before.items())
    assert digest(path) == digest(whole[0])
    # A flipped bit is noticed when it is read.
    flip(sorted(f for f in (path / "v_mean" / "c").rglob("*") if f.is_file())[1])
    with pytest.raises(ValueError, match="checksum"):
        open_sweep(path).v_mean.load()
    run(cheap(), path)
    assert digest(path) == digest(whole[0])


def flip(file):
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


def overwrite(path, *names):
    """Put a chunk of the same arrays where another was."""
    for name in names:
        files = sorted(f for f in (path / name / "c").rglob("*") if f.is_file())
        shutil.copy(files[0], files[-1])


DAMAGES = {
    "a chunk of another place": (lambda p: overwrite(p, "v_mean"), "v_mean/c/6/0 is another chunk than was"),
    "all of another chunk": (
        lambda p: overwrite(p, "v_mean", "rate", "ok", "reason", "chunk_checksums"),
        "is another chunk than was written here",
    ),
    "a chunk cut": (lambda p: os.truncate(p / "rate" / "c" / "0" / "0", 9), "rate/c/0/0 is damaged"),
    "a chunk missing": (lambda p: (p / "rate" / "c" / "1" / "0").unlink(), "rate/c/1/0 is missing"),
    "a label": (lambda p: os.truncate(p / "a" / "c" / "0", 9), "a/c/0 is damaged"),
    "a label missing": (lambda p: (p / "amplitude" / "c" / "0").unlink(), "amplitude/c/0 is missing"),
    "a description": (lambda p: os.truncate(p / "rate" / "zarr.json", 100), "rate/zarr.json is damaged"),
    "a unit": (
        lambda p: (p / "v_mean" / "zarr.json").write_text((p / "v_mean" / "zarr.json").read_text().replace("mV", "uV")),
        "v_mean/zarr.json is not what was written",
    ),
    "the root": (lambda p: (p / "zarr.json").write_bytes(b""), "no store of a sweep"),
    "the provenance": (
        lambda p: (p / "zarr.json").write_text((p / "zarr.json").read_text().replace("izhikevich", "izhikevicx", 1)),
        "zarr.json its attribute 'provenance' has been edited",
    ),
    "an array": (lambda p: shutil.rmtree(p / "rate"), "rate/zarr.json is missing"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_is_damaged_is_named(whole, tmp_path, case):
    path, (damage, said) = shutil.copytree(whole[0], tmp_path / "s"), DAMAGES[case]
    damage(path)
    with pytest.raises(StoreError) as caught:
        open_sweep(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("cases", [[*DAMAGES][:4], [*DAMAGES][4:-1], [*DAMAGES][-1:]])
def test_what_is_damaged_is_made_again(whole, tmp_path, cases):
    path = shutil.copytree(whole[0], tmp_path / "s")
    for case in reversed(cases):
        DAMAGES[case][0](path)
    run(cheap(), path)
    assert digest(path) == digest(whole[0])


def test_memory_that_does_not_suffice_halves_the_batch(whole, tmp_path, monkeypatch):
    sizes, call = [], GroupProgram.__call__

    def scarce(self, groups):
        sizes.append(self.groups)
        if self.groups > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
        return call(self, groups)

    monkeypatch.setattr(GroupProgram, "__call__", scarce)
    run(cheap(), tmp_path / "s")
    assert sizes[:2] == [2, 1]
    assert digest(tmp_path / "s") == digest(whole[0])
    with pytest.raises(SweepMemoryError, match=r"4 points side by side need .* lower sweep.lanes"):
        run(cheap(), tmp_path / "t", memory=100)


def test_a_failing_point_is_recorded_and_stops_nothing(tmp_path):
    design = {"axes": {"d": [8, 3e38], "amplitude": [1e4]}, "seeds": 2, "chunk": 2}
    data = run(cheap(design, ("v_mean", "spike_count"), keep=("v",)), tmp_path / "s").squeeze("amplitude")
    np.testing.assert_array_equal(data.ok, [[True, True], [False, False]])
    assert data.v_mean.isnull().sel(d=3e38).all()
    assert data.reason.values.tolist() == [["", ""], ["not finite, or the time step too coarse"] * 2]
    assert np.isfinite(data.v_mean.sel(d=8)).all()
    assert data.v_trace.dims[:3] == ("d", "seed", "time")
    assert data.time[-1] == 2.0


def test_a_point_that_raises_is_recorded_and_the_others_go_on(whole, tmp_path, caplog):
    config, mean = cheap(measures=("v_mean", picky)), whole[1].v_mean
    data, raised = run(config, tmp_path / "two"), mean > HIGH
    assert 0 < raised.sum() < raised.size
    np.testing.assert_array_equal(data.ok, ~raised)
    np.testing.assert_allclose(data.picky, mean.where(~raised), rtol=1e-6)
    np.testing.assert_array_equal(data.v_mean.isnull(), raised)
    for reason, v in zip(data.reason.values.ravel().tolist(), mean.values.ravel(), strict=True):
        assert bool(reason) == (v > HIGH)
        assert not reason or float(re.fullmatch(r"ValueError: (.*) mV is too high", reason)[1]) == pytest.approx(
            v, abs=0.1
        )
    assert len([r for r in caplog.records if "callback" in r.message]) == 1
    with jax.default_device(jax.devices()[1]):
        run(config, tmp_path / "one")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_another_design_is_refused_and_nothing_is_lost(whole, tmp_path):
    before = digest(whole[0])
    with pytest.raises(StoreError, match=r"another design, which differs in seed \(0, not 1\); choose another folder"):
        run(cheap(seed=1), whole[0])
    assert digest(whole[0]) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        run(cheap(), tmp_path / "mine")


def test_a_function_of_ones_own(whole, tmp_path):
    design = {"design": "random", "points": 3, "axes": {"a": {"low": 0.02, "high": 0.1}}}
    data = run(cheap(design, ("v_min", "v_max", spread)), tmp_path / "s")
    np.testing.assert_array_equal(data.spread, data.v_max - data.v_min)
    assert data.a.dims == ("point",)


def test_draws_per_seed_are_shared_and_per_point_are_not(tmp_path):
    noise = {"name": "white_noise", "sd": 3, "hold": 1, "duration": 2}
    for draws, same in (("per_seed", True), ("per_point", False)):
        design = {"axes": {"c": [-65, -65.0001]}, "seeds": 2, "draws": draws}
        simulation = {"simulator": {"name": "izhikevich"}, "stimulus": noise, "duration_ms": 2}
        data = run(cheap(design, ("v_mean",), simulation=simulation), tmp_path / draws)
        assert (data.v_mean[0] == data.v_mean[1]).all() == same
        assert (data.v_mean[:, 0] != data.v_mean[:, 1]).all()


YAML = """\
name: shared
simulation: {simulator: {name: izhikevich}, stimulus: {name: constant, amplitude: 0}, duration_ms: 20}
sweep:
  axes: {a: {low: 0.02, high: 0.1, points: 16}, amplitude: {low: 0, high: 20, points: 64}}
  chunk: 4
  lanes: 4
measures: [rate, v_mean]
"""


def start(folder, *arguments):
    """Begin `jneuro sweep` in a process of its own, on one device."""
    code = "import sys; from jneuro.cli import main; sys.argv = sys.argv[1:]; main()"
    command = [sys.executable, "-c", code, "jneuro", "sweep", str(folder / "s.yaml"), "--devices", "1", *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_one_of_them_killed_and_restarted(tmp_path, processes):
    (tmp_path / "s.yaml").write_text(YAML)
    run, part = tmp_path / "run", ("--processes", str(processes))
    running = [start(tmp_path, "--out", str(run), *part, "--process", str(k)) for k in range(processes)]
    try:
        mine = run / "sweep.zarr" / "ok" / "c" / "0" / "1"  # of process 1
        deadline = time.monotonic() + 240
        while not mine.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        running[1].send_signal(signal.SIGKILL)
        codes = [process.wait(timeout=240) for process in running]
        assert codes == [0 if k != 1 else codes[1] for k in range(processes)], (tmp_path / "log").read_text()
        again = start(tmp_path, "--out", str(run), *part, "--process", "1", "--resume")
        assert again.wait(timeout=240) == 0, (tmp_path / "log").read_text()
    finally:
        for process in running:
            process.kill()
    assert (run / "report.html").exists()
    assert "report" in json.loads((run / "run.json").read_text())["stages"]
    alone = start(tmp_path, "--out", str(tmp_path / "alone"))
    assert alone.wait(timeout=240) == 0
    assert digest(run / "sweep.zarr") == digest(tmp_path / "alone" / "sweep.zarr")
