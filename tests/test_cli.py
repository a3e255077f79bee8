"""The command line: help, lists, and exit codes without tracebacks."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import jneuro.cli
import jneuro.console
import jneuro.experiment.running
from jneuro.core.process import STOPPED, Stopped
from jneuro.core.registry import Registry
from jneuro.models import MODELS
from jneuro.simulators import SIMULATORS, SimulationError, parameters
from jneuro.training import TrainingDiverged, TrainingInterrupted

ROOT = Path(__file__).parents[1]
QUICK = "configs/quick/voltage_forecast.yaml"


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command in this process, in the repository's root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(jneuro.cli, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(jneuro.cli, "heed_signals", lambda: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["jneuro", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            jneuro.cli.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err)

    return call


COMMANDS = ("run", "simulate", "train", "evaluate", "report", "convert", "list", "doctor")


def test_help_names_every_command(cli):
    found = cli("--help")
    assert found.code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b +[A-Z]", found.out), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(cli, command):
    found = cli(command, "--help")
    assert (found.code, found.err) == (0, "")
    assert re.search(rf"Usage: .*jneuro {command}", found.out)
    if command == "run":
        for word in ("--out", "--resume", "CONFIG", "train.epochs=3"):
            assert word in found.out


# Arguments, and what the message must say.
MISTAKES = {
    "no such file": (["run", "missing.yaml"], "missing.yaml: cannot be read (No such file or directory)"),
    "no such key": (["run", QUICK, "trian.epochs=3"], "unknown key 'trian'; did you mean 'train'?"),
    "bad value": (["run", QUICK, "simulation.simulator.tau_m=-1"], "command line: simulation.simulator: Brunel: tau_m"),
    "no override": (["train", QUICK, "epochs"], "'epochs' must have the form key=value"),
    "no folder": (["simulate", QUICK, "--out", "pyproject.toml"], "pyproject.toml: cannot be written"),
    "not ours": (["run", QUICK, "--out", "tests"], "tests: is not empty and not a run folder"),
    "no run": (["evaluate", "tests"], "tests: not a run folder, config.yaml is missing"),
    "no report": (["report", "nowhere"], "nowhere: not a run folder"),
    "no recording": (["run", QUICK, "simulation=null", "recording=x.zarr"], "x.zarr: no such recording"),
    "no name": (["list", "brunell"], "unknown name 'brunell'; did you mean 'brunel'?"),
    "markup": (["run", "[red]x[/].yaml"], "[red]x[/].yaml: cannot be read"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(cli, case):
    arguments, expected = MISTAKES[case]
    found = cli(*arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert expected in found.err


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run"], ["run", QUICK, "--fast"], ["evaluate"], ["report", "a", "b"], ["run", "--out"]]
)
def test_wrong_usage_is_exit_code_2(cli, arguments):
    found = cli(*arguments)
    assert found.code == 2
    assert re.search(r"Usage: .*jneuro|Missing command|requires an argument", found.err)
    assert "Traceback" not in found.err


def test_no_command_shows_the_help(cli):
    found = cli()
    assert re.search(r"Usage: .*jneuro", found.out + found.err)
    assert "Traceback" not in found.err


FAILURES = {
    "simulation": (SimulationError("v of run 3 is not finite"), "v of run 3 is not finite"),
    "training": (TrainingDiverged("the loss", 7, 0, 0.1, 2.0), "the loss is not finite at step 7"),
    "interrupted": (TrainingInterrupted("saved step 7"), "saved step 7"),
    "disk": (OSError(28, "No space left on device"), "No space left on device"),
    "stopped": (Stopped(), "stopped; what is written stays, continue with --resume"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_run_is_one_message_and_exit_code_1(cli, monkeypatch, tmp_path, case):
    error, expected = FAILURES[case]

    def fail(*_):
        raise error

    monkeypatch.setattr(jneuro.experiment.running, "run_stages", fail)
    found = cli("run", QUICK, "--out", tmp_path / "a")
    assert found.code == 1
    assert expected in found.err
    assert found.err.count("\n") == 1
    assert f"voltage_forecast_quick in {tmp_path / 'a'}" in found.out


def test_a_fault_of_ours_is_not_hidden(monkeypatch, cli, tmp_path):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(jneuro.experiment.running, "run_stages", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli("run", QUICK, "--out", tmp_path / "a")


def test_list_shows_everything(cli):
    found = cli("list")
    assert found.code == 0
    for kind, registry in Registry.every.items():
        assert re.search(rf"^{kind[:-2]}\w+ *$", found.out, re.MULTILINE), kind
        for name in registry:
            assert re.search(rf"^ {name} +[A-Z]", found.out, re.MULTILINE), name
    for path in Path(ROOT / "configs").rglob("*.yaml"):
        assert str(path.relative_to(ROOT)) in found.out


@pytest.mark.parametrize(
    ("what", "inside", "outside"),
    [
        ("simulators", "brunel", "compact"),
        ("simulator", "brunel", "compact"),
        ("models", "compact", "brunel "),
        ("stimuli", "sine", "compact"),
        ("losses", "pinball", "compact"),
        ("analyses", "rollout", "pinball "),
        ("configs", QUICK, "compact "),
    ],
)
def test_list_of_one_kind(cli, what, inside, outside):
    found = cli("list", what)
    assert found.code == 0
    assert inside in found.out
    assert outside not in found.out


@pytest.mark.parametrize("name", [*SIMULATORS, *MODELS, "tsit5", "adam", "features"])
def test_list_of_one_thing(cli, name):
    found = cli("list", name)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"{name}: ")
    for kind, registry in Registry.every.items():
        assert (f"\n{kind} jneuro." in found.out) == (name in registry)
    if name in SIMULATORS:
        for parameter in parameters(SIMULATORS[name]).values():
            assert re.search(rf"\b{parameter.name}\b", found.out)
            assert parameter.doc in found.out
        assert f"presets: {', '.join(SIMULATORS[name].presets)}" in " ".join(found.out.split())
    if name in MODELS:
        for key in MODELS[name].model_fields:
            # Each with its meaning.
            assert key == "name" or re.search(rf"\b{key} .*[a-z]{{3}}", found.out), key


def test_list_of_ones_own(cli, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        '''"""Mine."""
import jneuro as jn

class Leak(jn.stimuli.Stimulus):
    """A current that leaks away.

    Attributes:
        tau: time constant [ms].
    """

    tau: float = 3 * 2.5

    def __call__(self, t):
        return t

    def jumps(self):
        return ()

class Unfinished(jn.stimuli.Stimulus):
    """One day."""

def half(prediction, batch):
    """Half of it."""
'''
    )
    found = cli("list", "mine:Leak", "--code", tmp_path)
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("mine:Leak: A current that leaks away.")
    assert re.search(r"tau .* 7.5 .* time constant \[ms\]", found.out)
    assert "stimulus: can be used as one" in found.out
    assert "model: " not in found.out
    assert re.search("stimulus: lacks [a-z_]+", cli("list", "mine:Unfinished", "--code", tmp_path).out)
    monkeypatch.chdir(tmp_path)
    assert "Half of it." in cli("list", "mine:half").out
    missing = cli("list", "mine:Laek")
    assert missing.code == 2
    assert "has no 'Laek'; it has" in missing.err


def test_a_number_that_is_none_is_a_dash():
    assert [jneuro.console._number(value, ".2f") for value in (None, float("nan"), 0.5)] == ["–", "–", "0.50"]


def test_doctor_shows_the_installation(cli, monkeypatch):
    monkeypatch.setenv("JNEURO_ALLOCATOR", "system")
    monkeypatch.setattr(jneuro.console.shutil, "which", lambda _: None)
    monkeypatch.setattr(jneuro.console.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**30))
    found = cli("doctor")
    for word in ("jneuro", "jax", "python", "devices", "cpu", "float32", "allocator", "100 GiB"):
        assert word in found.out
    gpu = Path("/dev/nvidia0").exists()
    assert (found.code, "all is well" in found.out) == ((1, False) if gpu else (0, True))


def test_doctor_says_what_is_wrong_and_what_to_do(cli, monkeypatch):
    monkeypatch.delenv("JNEURO_ALLOCATOR", raising=False)
    monkeypatch.setattr(jneuro.console.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    monkeypatch.setattr(jneuro.console.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    found = cli("doctor")
    assert found.code == 1
    assert "less than 2 GiB of disk are free here\n  remedy: free some, or write elsewhere with --out" in found.out
    assert "JAX sees only the CPU\n  remedy: pip install 'jneuro[cuda]'" in found.out
    assert "all is well" not in found.out


def test_the_command_itself():
    """In a process of its own, as it is installed: no traceback, nothing on stdout."""
    script = Path(sys.executable).with_name("jneuro")
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from jneuro.cli import main; main()"]
    done = subprocess.run(
        [*command, "run", "missing.yaml"],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: missing.yaml: cannot be read (No such file or directory); see `jneuro list configs`\n"
    )


def test_more_devices_than_cores_are_told(monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "")
    jneuro.cli._cpu_devices(10_000)
    assert capsys.readouterr().err.startswith("note: 10000 devices on ")
    assert os.environ["XLA_FLAGS"].endswith("device_count=10000")


def _started(*arguments):
    """A process of its own whose standard error is read line by line."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)


STUBBORN = """
import sys, time
from jneuro.core.process import Stopped, at_work, heed_signals
heed_signals()
with at_work():
    print("begun", file=sys.stderr, flush=True)
    while True:
        try:
            time.sleep(60)
        except Stopped:  # as code that was not written for it does
            print("swallowed", file=sys.stderr, flush=True)
"""


def test_a_signal_ends_the_program_at_any_moment(tmp_path):
    """While it imports, at once; in the midst of work, in order; and at the second signal in any case."""
    out = ("--out", str(tmp_path / "a"))
    importing = [_started("-X", "importtime", "-m", "jneuro", "run", QUICK, *out) for _ in range(2)]
    working = _started("-c", STUBBORN)
    for process, number, moment in zip(importing, (signal.SIGINT, signal.SIGTERM), ("typer", "jax._src"), strict=True):
        while moment not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        said = [line for line in process.communicate(timeout=60)[1].splitlines() if "import time" not in line]
        assert (process.returncode, [line for line in said if line]) == (1, [STOPPED])
    assert working.stderr.readline() == "begun\n"
    working.send_signal(signal.SIGINT)
    # The thread and the main thread speak in either order.
    heard = {line for line in (working.stderr.readline().strip() for _ in range(3)) if line}
    assert heard == {"swallowed", "stopping … (once more: at once)"}
    working.send_signal(signal.SIGTERM)
    assert (working.communicate(timeout=60)[1], working.returncode) == ("", 1)
    assert not (tmp_path / "a").exists()
