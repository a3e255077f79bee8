"""A sweep under Slurm and Open MPI: processes learn who they are from what JAX detects."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jneuro.core.config import ConfigError
from jneuro.experiment.sweeping import join_processes

ROOT = Path(__file__).parents[2]
CODE = "from jneuro.experiment.sweeping import join_processes; print(join_processes(None, None, None, detect=True))"
CLUSTERS = {
    "slurm": {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{}",
        "SLURM_LOCALID": "{}",
    },
    "open_mpi": {
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "{}",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{}",
    },
}


@pytest.mark.parametrize("cluster", ["slurm", pytest.param("open_mpi", marks=pytest.mark.slow)])
def test_processes_are_who_the_cluster_says(cluster):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = {"JAX_COORDINATOR_PORT": str(free.getsockname()[1]), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command, running = [sys.executable, "-c", CODE], []
    for k in (0, 1):
        environment = os.environ | port | {name: value.format(k) for name, value in CLUSTERS[cluster].items()}
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    try:
        said = [process.communicate(timeout=240)[0].strip() for process in running]
    finally:
        for process in running:
            process.kill()
    assert said == ["(0, 2)", "(1, 2)"]


def test_who_says_both_numbers_meets_nobody(monkeypatch):
    monkeypatch.setattr("jneuro.experiment.sweeping.subprocess.run", None)
    assert join_processes("localhost:1", 4, 3) == (3, 4)
    assert join_processes(None, 4, 3, detect=True) == (3, 4)
    assert join_processes(None, None, None) == (0, 1)
    for coordinator, processes, process in (("localhost:1", None, None), (None, 4, None), (None, 4, 4)):
        with pytest.raises(ConfigError, match=r"command line: --process"):
            join_processes(coordinator, processes, process)
    for address in ("localhost", ":5000", "localhost:0", "localhost:99999", "nowhere.invalid:5000"):
        with pytest.raises(ConfigError, match=r"command line: --coordinator '.*' is no address"):
            join_processes(address, None, None, detect=True)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise ValueError('coordinator_address should be defined.')", "ValueError: coordinator_address should be"),
        ("import os; os.abort()", "not all of them came within 120 s"),  # so JAX ends, where nobody comes
    ],
)
def test_processes_that_do_not_meet_are_told_in_one_line(monkeypatch, how, said):
    monkeypatch.setattr("jneuro.experiment.sweeping._MEET", how)
    with pytest.raises(ConfigError, match=rf"the processes cannot meet \({said}.*\); say --processes and --process"):
        join_processes(None, None, None, detect=True)
