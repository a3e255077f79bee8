"""The benchmark: the pipelines whose epochs it compares do the same, and what it says of times is right."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.utils.data import DataLoader, Subset

from jneuro.core.random import stream
from jneuro.datasets import WindowConfig, window
from jneuro.interop import to_torch
from jneuro.models import CNNLSTM, CNNLSTMConfig
from jneuro.recordings import Recording
from jneuro.training import TrainConfig

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)
RUNS, FRAMES, NEURONS, LENGTH = 10, 110, 6, 12


@pytest.fixture
def pipelines(monkeypatch):
    """The modules of our pipeline and of PyTorch's."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "tests" / "torch_equivalence")
    import epoch
    import torch_pipeline

    return epoch, torch_pipeline


def test_an_epoch_is_the_same_in_both_pipelines(pipelines):
    ours, theirs = pipelines
    noise = np.random.default_rng(0).normal(size=(RUNS, FRAMES, NEURONS)).astype(np.float32)
    voltage = np.cumsum(noise, 1) - 60
    recording = Recording({"v": voltage}, np.bool_(True), np.int32(0), None, 0.1, 10, FRAMES, (("v", "mV"),))
    how = {"discard_ms": 10.0, "measurement_noise": 0.0, "length_ms": LENGTH, "stride_ms": 5.0}
    windows = window(recording, WindowConfig(**how), key=KEY)
    runs = {split: windows.trials(split) for split in windows.starts}
    data = theirs.prepare(voltage, runs, discard=10, noise=0.0, length=LENGTH, stride=5)
    for split, starts in windows.starts.items():
        np.testing.assert_array_equal(data[split].starts, starts)
    np.testing.assert_allclose(data["train"].values, windows.values, 1e-4, 1e-5)

    config = CNNLSTMConfig(features=NEURONS, length=LENGTH, hidden=8, dropout=0, channel_dropout=0)
    model, recipe = CNNLSTM(config, rngs=nnx.Rngs(0)), TrainConfig(epochs=1, batch_size=8, warmup_epochs=0)
    from twins.forecaster import CNNLSTMTwin

    twin = CNNLSTMTwin(config)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch(model).items()})
    # The order of the windows is the one thing that is not the same: here theirs are drawn as ours.
    order = jax.random.permutation(jax.random.fold_in(stream(KEY, "order"), 0), windows.count("train"))
    shuffled = DataLoader(Subset(data["train"], np.asarray(order).tolist()), batch_size=8, drop_last=True)
    batches = theirs.loaders(data, 8) | {"train": shuffled}
    expected, found = theirs.fit(twin, batches, recipe)[0], ours.our_epoch(model, windows, recipe, KEY)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], 1e-4), name


@pytest.fixture
def programs(monkeypatch):
    """The benchmark's own modules can be imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delenv("JNEURO_BENCHMARK_RESULTS", raising=False)


def runs(rng, count, rounds=15, slower=1.0):
    """Rows of one run: each round's pace is the machine's, each row has a noise of its own, and luck in each run."""
    pace = 0.01 * np.exp(0.15 * rng.normal() + 0.05 * rng.normal(size=rounds))
    for row in range(count):
        times = 0.2 * slower * pace / 0.01 * np.exp(0.01 * rng.normal() + 0.03 * rng.normal(size=rounds))
        times[rng.random(rounds) < 0.1] *= 2  # somebody else's turn
        yield {"subject": "made up", "case": row, "samples_s": times.tolist(), "yardstick_s": pace.tolist()}


def test_a_slow_down_of_a_fifth_is_found_and_noise_is_not(programs):
    from compare import compare

    rng = np.random.default_rng(0)
    alarms, found = 0, 0
    for _ in range(20):
        before, again, slower = (list(runs(rng, 8, slower=s)) for s in (1.0, 1.0, 1.2))
        alarms += any(c.regression for c in compare(before, again))
        mixed = compare(before, [*slower[:1], *again[1:]])
        found += [c.name for c in mixed if c.regression] == ["made up, 0"]
    assert (alarms, found) == (0, 20)


def test_compare_ends_with_a_code(programs, tmp_path, monkeypatch, capsys):
    import compare

    rng, files = np.random.default_rng(0), {}
    for name, slower in (("before", 1.0), ("after", 1.5)):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in runs(rng, 2, slower=slower)))
    (tmp_path / "none.jsonl").write_text("")
    for pair, code in ((("before", "after"), 1), (("after", "before"), 0), (("before", "none"), 2)):
        monkeypatch.setattr(sys, "argv", ["compare.py", *(str(tmp_path / f"{name}.jsonl") for name in pair)])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        assert ended.value.code == code
    assert "2 rows compared, 2 slower by more than 10%" in capsys.readouterr().out


def test_sides_take_turns_and_who_fails_is_absent(programs):
    from harness import Call, take_turns

    order = []

    def side(name, seconds):
        return lambda: Call(lambda: order.append(name) or seconds, {"compile_s": 1.0, "flop": 1e6})

    def broken():
        raise RuntimeError("no such device\nand more")

    sides = {"ours": side("ours", 0.1), "theirs": side("theirs", 0.25), "missing": broken}
    rows = take_turns(sides, seconds=1e-9, rounds=4)
    assert order[-8:] == ["ours", "theirs"] * 4
    assert rows["theirs"]["ratio"] == pytest.approx(2.5)
    assert "ratio" not in rows["ours"]
    assert rows["ours"] | {"median_s": 0.1, "q1_s": 0.1, "q3_s": 0.1, "rounds": 4, "compile_s": 1.0} == rows["ours"]
    assert rows["ours"]["flop_per_s"] == pytest.approx(1e7)
    assert rows["ours"]["flop_share"] == pytest.approx(1e7 / rows["ours"]["limit_flop_per_s"])
    assert len(rows["ours"]["samples_s"]) == len(rows["ours"]["yardstick_s"]) == 4
    assert rows["missing"] == {"absent": "RuntimeError: no such device"}


def test_operations_in_loops_are_counted_as_often_as_the_loop_turns(programs):
    from harness import compiled

    def inner(x, _):
        return jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=3)[0], None

    run, about = compiled(lambda x: jax.lax.scan(inner, x, None, length=5)[0], jnp.eye(16))
    assert about["flop"] == pytest.approx(15 * 2 * 16**3, rel=0.1)
    assert about["compile_s"] > 0 < about["memory_mib"]
    np.testing.assert_array_equal(run(), np.eye(16))


def test_a_peer_runs_when_it_is_told_to(programs, tmp_path, monkeypatch):
    import harness

    monkeypatch.setattr(harness, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="make peers"):
        harness.Peer("tool", ["program.py"])
    python = tmp_path / ".peers" / "tool" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    folder = tmp_path / "benchmarks" / "peers"
    folder.mkdir(parents=True)
    source = (ROOT / "benchmarks" / "peers" / "result.py").read_text()
    end = "\nfound = rounds(lambda: 2.0, 10)\nprint(json.dumps(dict(compile_s=0, accuracy=len(found), versions={})))\n"
    (folder / "program.py").write_text(source.replace("import numpy as np\n", "") + end)
    (folder / "broken.py").write_text("raise SystemExit('no licence')")
    peer = harness.Peer("tool", ["program.py"])
    assert [peer(), peer()] == [20.0, 20.0]
    assert peer.finish() == {"compile_s": 0, "accuracy": 2, "versions": {}}
    with pytest.raises(RuntimeError, match="no licence"):
        harness.Peer("tool", ["broken.py"])


def test_the_suite_goes_on_where_it_stopped(programs, tmp_path, monkeypatch, capsys):
    import suite

    path, ran = tmp_path / "results.jsonl", []
    chosen = suite.entries("cpu", quick=False, cores=2)
    assert len({e.name for e in chosen}) == len(chosen)
    assert "mps" in suite.entries("mps", quick=False, cores=2)[0].name
    assert not any("float64" in e.name for e in suite.entries("mps", quick=False, cores=2))

    def run(entry, path, limit):
        ran.append(entry.name)
        return {"entry": entry.name} | ({"absent": "broken"} if len(ran) == 2 else {})

    real = suite.run
    monkeypatch.setattr(suite, "run", run)
    first = chosen[:3]
    assert suite.run_all(first, path, 1e9) == [first[1].name]
    assert suite.run_all(first, path, 1e9) == []
    assert ran == [first[0].name, first[1].name, first[2].name, first[1].name]
    assert suite.run_all(chosen[3:4], path, 1.0) == [chosen[3].name]  # no budget for it
    assert "left for another time" in capsys.readouterr().out
    missing = real(suite.Entry("no_such_program", (), "cpu", 1.0), path, 60.0)
    assert "no_such_program.py" in missing["absent"]
    assert suite.seconds_of("20min") == 1200


def test_the_report_has_what_was_measured_and_what_is_absent(programs, tmp_path):
    import report
    from rows import read

    path = tmp_path / "made.jsonl"
    time = {"median_s": 0.1, "q1_s": 0.09, "q3_s": 0.2, "rounds": 3, "platform": "cpu", "dtype": "float32"}
    rows = [
        {"subject": "simulators", "case": "a", "what": "simulate", "by": "jneuro", **time, "median_s": 9.0},
        {"subject": "simulators", "case": "a", "what": "simulate", "by": "jneuro", **time},
        {"subject": "simulators", "case": "a", "what": "simulate", "by": "nest", **time, "ratio": 3.0, "bar": 4.0},
        {"platform": "mps", "by": "jneuro", "absent": "unknown backend | mps"},
        {"entry": "simulators a cpu", "seconds": 3.0},
        *({"subject": "ladder", "case": "b", "what": "simulate", "by": "jneuro", **time, "batch": b, "throughput": b}
          for b in (1, 16)),
        {"subject": "solvers", "case": "c", "what": "RK4", "by": "jneuro", **time, "solver": "RK4", "error_ms": 0.1,
         "counts_wrong": 0, "flop": 1e6, "byte": 1e6, "flop_per_s": 1e7, "limit_flop_per_s": 1e9,
         "limit_byte_per_s": 1e9},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["median_s"] for row in read(path)[:1]] == [0.1]
    page = report.write(path)
    text = (page.parent / "report.md").read_text()
    assert "| simulators, a, simulate, nest, cpu, float32 | 3.00 | ≥ 4 | no |" in text
    assert "unknown backend / mps" in text
    assert {p.stem for p in page.parent.glob("*.png")} == {"speed_up", "throughput", "accuracy", "roofline"}
    assert page.read_text().count("<img") == 4


def test_the_command_starts_the_suite():
    from jneuro.cli import run_benchmark

    assert run_benchmark(["--help"]) == 0
    assert run_benchmark(["--platforms", "tpu"]) == 2
