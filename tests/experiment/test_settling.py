"""Runs that part ways from one settled state."""

import jax
import numpy as np
import pytest

from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress
from jneuro.core.random import stream
from jneuro.experiment import RunFolder, run_stages
from jneuro.experiment.plan import load_plan
from jneuro.experiment.simulation import build_runs
from jneuro.recordings import read_recording
from jneuro.simulators import simulate

# A block of this network is 1.5 ms.
SETTLED = ["simulation.connectivity=fixed", "evaluate.leaky_twins=[]", "simulation.warmup_ms=150"]
SHORT = ["simulation.duration_ms=100", "windows.stride_ms=1", "evaluate.ceiling=null", "train.batch_size=2"]


def test_runs_begin_where_the_shared_past_ends(tiny, tmp_path):
    plan = load_plan(tiny.file, [*SETTLED, *SHORT])
    folder, config = RunFolder.prepare(plan, tmp_path / "run"), plan.config
    run_stages(plan, folder, Progress(), "simulate")
    recording = read_recording(plan.recording(folder), ("v",))
    v = np.asarray(recording.values["v"])
    simulator = build_runs(config.simulation, jax.random.key(config.seed)).simulators
    past = simulate(simulator, duration=150.0, key=stream(jax.random.key(config.seed), "settle"), record=("v",))
    after = np.asarray(past.final_state.y.v)
    # Less than the 10 ms of the membrane later the runs are close to it and to each other; later they are not.
    assert np.corrcoef(v[0, 0], after)[0, 1] > 0.7
    assert np.corrcoef(v[0, 0], v[1, 0])[0, 1] > 0.7
    assert np.corrcoef(v[0, -1], v[1, -1])[0, 1] < 0.7
    assert recording.time[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simulation.connectivity=per_run", "all runs share"),
        ("simulation.warmup_ms=100", "multiple of brunel's 1.5 ms"),
    ],
)
def test_what_cannot_settle(tiny, override, message):
    with pytest.raises(ConfigError, match=message):
        load_plan(tiny.file, [*SETTLED, override])
