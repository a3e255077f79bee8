"""The stage that simulates, with ODE simulators."""

import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress
from jneuro.experiment import RunFolder, run, run_stages
from jneuro.experiment.plan import load_plan
from jneuro.experiment.simulation import build_runs, initial_states
from jneuro.recordings import open_recording, read_events, read_recording
from jneuro.simulators import HodgkinHuxley, simulate, stimuli
from jneuro.simulators.config import SimulationConfig

CONFIG = """\
name: squid
simulation:
  simulator: {name: hodgkin_huxley}
  stimulus: {name: constant, amplitude: AMPLITUDE}
  runs: 2
  duration_ms: 40
  snapshot_every_ms: 10
  record_every_ms: 0.5
  record: [v, n, spikes]
windows: {length_ms: 5, discard_ms: 0, stride_ms: 5, split: report}
models:
  m: {model: {name: compact, lags: 4}}
train: {batch_size: 4}
evaluate: {ceiling: null, baselines: [persistence, {name: ar, order: 4}, var, lookup]}
"""


@pytest.mark.parametrize("amplitude", [12.0, [0.0, 8.0, 12.0]], ids=["one cell", "population"])
def test_recorded_as_simulated(tmp_path, amplitude):
    file = tmp_path / "squid.yaml"
    file.write_text(CONFIG.replace("AMPLITUDE", str(amplitude)))
    plan = load_plan(file)
    run_stages(plan, RunFolder.prepare(plan, tmp_path / "run"), Progress(), "simulate")
    found = open_recording(tmp_path / "run" / "recording.zarr")
    stimulus = stimuli.Constant(np.asarray(amplitude, np.float32))
    alone = simulate(HodgkinHuxley(), stimulus, duration=40.0, record_every=0.5, key=jax.random.key(0))
    cells = np.size(amplitude)
    assert found["v"].shape == (2, 80, cells)
    assert "m" not in found
    # In single precision, and laid out otherwise: 2e-4 ms on the flank of a spike.
    for trial in range(2):
        np.testing.assert_allclose(found["v"][trial], alone.values["v"].reshape(80, cells), atol=0.05)
    counts = np.asarray(alone.values["spikes"]).reshape(80, cells)
    assert len(read_events(tmp_path / "run" / "recording.zarr")[0]) == 2 * counts.sum() > 0
    assert plan.simulation.steps_of_a_frame == 20


def test_every_run_draws_its_stimulus(tmp_path):
    file = tmp_path / "squid.yaml"
    step = "{name: step, amplitude: {uniform: [5, 30]}, onset: {choice: [0, 5]}}"
    text = CONFIG.replace("{name: constant, amplitude: AMPLITUDE}", step).replace(
        "[v, n, spikes]", "[v, current, spikes]"
    )
    file.write_text(text.replace("runs: 2", "runs: 6"))
    plan = load_plan(file)
    run_stages(plan, RunFolder.prepare(plan, tmp_path / "run"), Progress(), "simulate")
    store = tmp_path / "run" / "recording.zarr"
    recording = read_recording(store, ("v", "current", "spikes"))
    current = recording.values["current"][..., 0]
    amplitude = current.max(1)
    assert len(set(amplitude.tolist())) == 6
    assert np.all((amplitude >= 5) & (amplitude <= 30))
    onset = np.argmax(current > 0, axis=1)
    assert set(onset.tolist()) <= {0, 9}  # the first frame is at 0.5 ms; current at 5 ms stands in the tenth
    for trial in range(6):
        stimulus = stimuli.Step(amplitude[trial], onset=5.0 if onset[trial] else 0.0)
        alone = simulate(HodgkinHuxley(), stimulus, duration=40.0, record_every=0.5, key=jax.random.key(0)).values
        np.testing.assert_allclose(recording.values["v"][trial, :, 0], alone["v"], atol=0.05)
        np.testing.assert_array_equal(recording.values["spikes"][trial, :, 0], alone["spikes"])


@pytest.mark.parametrize(("connectivity", "drawn"), [("per_run", (3,)), ("fixed", ())])
def test_every_run_draws_the_numbers_of_its_cell(connectivity, drawn):
    simulator = {"name": "hodgkin_huxley", "g_k": {"normal": [36, 2]}}
    config = SimulationConfig(simulator=simulator, runs=3, duration_ms=100, connectivity=connectivity)
    runs = build_runs(config, jax.random.key(0))
    assert runs.simulators.g_k.z.shape == drawn
    assert initial_states(runs).y.v.shape[:1] == (3,)
    plain = SimulationConfig(simulator="hodgkin_huxley", runs=3, duration_ms=100)
    assert not build_runs(plain, jax.random.key(0)).per_trial


def test_a_model_with_windows_of_its_own(tmp_path):
    file = tmp_path / "squid.yaml"
    own = (
        "{model: {name: lstm, hidden: 4, layers: 1}, windows: {inputs: [current], length_ms: 4, horizons_ms: [0.5, 1]}}"
    )
    text = CONFIG.replace("AMPLITUDE", "{uniform: [5, 30]}").replace("[v, n, spikes]", "[v, current]")
    text = text.replace("  m: ", f"  s: {own}\n  m: ").replace("runs: 2", "runs: 10").replace("report}", "run}")
    file.write_text(text.replace("{batch_size: 4}", "{batch_size: 4, epochs: 1}"))
    config = load_plan(file).config
    model = config.models["s"].model
    assert (model.features, model.targets, model.length, model.horizons) == (1, 1, 8, 2)
    metrics = run(config, out=tmp_path / "run")
    assert set(metrics["baselines"]) == {"persistence", "ar", "var", "lookup"}
    assert set(metrics["test"]["s"]["baselines"]) == {"var"}  # the others need the voltage's past
    assert metrics["test"]["s"]["horizons_ms"] == [0.5, 1.0]
    assert metrics["test"]["m"]["horizons_ms"] == [1.0]
    assert metrics["windows"]["targets"] == metrics["test"]["s"]["targets"] == {"v": "mV"}
    assert "own windows" in (tmp_path / "run" / "report.html").read_text().split("<tbody>", 1)[1]
    assert load_plan(tmp_path / "run" / "config.yaml").config == config


@pytest.mark.parametrize(
    ("amplitude", "says"),
    [
        ("{uniform: [0, 3], normal: [0, 1]}", "a draw is either uniform"),
        ("{unifrom: [0, 3]}", "unknown key 'unifrom'; did you mean 'uniform'"),
        ("{uniform: 3}", "uniform"),
    ],
)
def test_draws_that_are_none(tmp_path, amplitude, says):
    file = tmp_path / "squid.yaml"
    file.write_text(CONFIG.replace("AMPLITUDE", amplitude))
    with pytest.raises(ConfigError, match=says):
        load_plan(file)


@pytest.mark.slow
def test_two_thousand_cells_stay_below_three_gibibytes(tmp_path):
    """CA1 over 2000 currents × 1000 ms, all variables every 0.1 ms: 800 MB, streamed to the store."""
    program = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    from jneuro.experiment.plan import load_plan
    from jneuro.core.progress import Progress
    from jneuro.experiment import RunFolder, run_stages
    home = Path(sys.argv[1])
    amplitude = np.linspace(0, 3, 2000).round(5).tolist()
    (home / "ca1.yaml").write_text(f'''
    name: ca1
    simulation:
      simulator: {{name: ca1_pyramidal}}
      stimulus: {{name: constant, amplitude: {amplitude}}}
      runs: 1
      duration_ms: 1000
      snapshot_every_ms: 100
      record_every_ms: 0.1
    windows: {{length_ms: 5, split: report}}
    models:
      m: {{model: {{name: compact, lags: 4}}}}
    train: {{batch_size: 4}}
    evaluate: {{ceiling: null}}
    ''')
    plan = load_plan(home / "ca1.yaml")
    run_stages(plan, RunFolder.prepare(plan, home / "run"), Progress(), "simulate")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 3.0
    assert open_recording(tmp_path / "run" / "recording.zarr")["q"].shape == (1, 10_000, 2000)
