"""A sweep from its configuration to its figures, by one process or by several."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jneuro.core.code import loaded_code
from jneuro.core.config import ConfigError, content_of
from jneuro.core.files import remove
from jneuro.core.names import one_line, shown
from jneuro.core.process import at_work
from jneuro.core.progress import Progress
from jneuro.core.resources import Estimate
from jneuro.core.seals import store_damages
from jneuro.experiment.estimates import swept
from jneuro.experiment.folder import RunFolder, Stage, maker
from jneuro.experiment.plan import load_with_code
from jneuro.sweeps.config import SweepConfig
from jneuro.sweeps.runner import run_sweep

__all__ = ["SweepPlan", "join_processes", "load_sweep", "open_folder", "resolve_sweep", "sweep_stages"]

_PATIENCE_S = 120.0


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, resolved.

    Attributes:
        config: the configuration.
        stages: the stages by name, in order.
        code: the folder of code of one's own that the configuration names, and the hashes of its files.
        estimate: what all that takes at least.
    """

    config: SweepConfig
    stages: Mapping[str, Stage]
    code: tuple[Path | None, Mapping[str, str]]
    estimate: Estimate


def resolve_sweep(config: SweepConfig) -> SweepPlan:
    """Say what a sweep will do.

    Args:
        config: the sweep, which has checked itself.

    Returns:
        The plan.
    """
    estimate = Estimate.of(swept(config))
    _ = config.problem().like  # measures that cannot be computed are refused before there is a folder
    stage = Stage("report", content_of(config), ("report.html", "figures", "sweep.zarr"))
    return SweepPlan(config, {"report": stage}, loaded_code(), estimate)


load_sweep = partial(load_with_code, SweepConfig, resolve_sweep)
"""Load, check and resolve a sweep; arguments as of `load_with_code`."""


def join_processes(
    coordinator: str | None, processes: int | None, process: int | None, *, detect: bool = False
) -> tuple[int, int]:
    """Find out which of how many processes this one is.

    Who says both numbers is believed, and meets nobody: a sweep needs no messages, and JAX would end whoever waits for
    a process that never comes. Processes that meet to be told who they are part again at once: one that dies must not
    take the others with it.

    Args:
        coordinator: address and port of the first process, where JAX does not detect it.
        processes: how many there are.
        process: which this is, from 0.
        detect: let JAX find all that out, from Slurm, Open MPI or Kubernetes.

    Returns:
        This process's number, and how many there are.

    Raises:
        ConfigError: if the arguments contradict each other, or nothing is detected.
    """
    if (processes is None) != (process is None) or (coordinator is not None and processes is None and not detect):
        raise ConfigError("command line: --processes and --process go together; --coordinator needs both")
    if processes is not None and process is not None:
        if not 0 <= process < processes:
            raise ConfigError(
                f"command line: --process {process} must be at least 0 and less than --processes {processes}"
            )
        return process, processes
    if not detect:
        return 0, 1
    if coordinator is not None:
        _require_address(coordinator)
    with at_work():
        command, cpu = [sys.executable, "-c", _MEET, coordinator or ""], os.environ | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, env=cpu, capture_output=True, text=True)
    if done.returncode != 0:
        said = next((line for line in reversed(done.stderr.splitlines()) if "Error: " in line), _NOBODY)
        raise ConfigError(
            f"command line: the processes cannot meet ({one_line(said, 120)}); say --processes and --process, for each "
            "its own"
        )
    index, count = done.stdout.split()[-2:]
    return int(index), int(count)


_MEET = f"""
import sys, jax
jax.distributed.initialize(sys.argv[1] or None, initialization_timeout={_PATIENCE_S:.0f})
print(jax.process_index(), jax.process_count(), flush=True)
jax.distributed.shutdown()
"""
"""Asked in a process of its own, since JAX ends one in which nobody else comes."""
_NOBODY = f"not all of them came within {_PATIENCE_S:.0f} s"


def _require_address(coordinator: str) -> None:
    """Refuse an address that is none; who waits there for nobody is ended by JAX, and not in one line."""
    host, _, port = coordinator.rpartition(":")
    try:
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError("it must be HOST:PORT")
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"command line: --coordinator {shown(coordinator)} is no address ({said})") from error


def open_folder(plan: SweepPlan, out: Path | None, *, resume: bool, process: int) -> RunFolder:
    """Make the run folder, or take up an existing one; only the first process makes it.

    Args:
        plan: the sweep.
        out: the folder; `runs/<name>-<hash>` by default.
        resume: continue an unfinished sweep.
        process: which this is.

    Returns:
        The folder.

    Raises:
        ConfigError: if it holds something else, or the first process does not make it.
    """
    if process == 0:
        return RunFolder.prepare(plan, out, resume=resume)
    path = RunFolder.default_path(plan.config) if out is None else out
    began = time.monotonic()
    while not (path / "config.yaml").exists():
        if time.monotonic() - began > _PATIENCE_S:
            raise ConfigError(f"{path}: process 0 has not made the run folder; start it, on the same file system")
        time.sleep(0.1)
    return RunFolder.prepare(plan, out, resume=True)


def sweep_stages(
    plan: SweepPlan,
    folder: RunFolder,
    progress: Progress,
    *,
    process: int = 0,
    processes: int = 1,
    memory: int | None = None,
) -> Path | None:
    """Compute what is missing, or damaged, of this process's part; whoever comes last writes the report.

    Args:
        plan: the sweep.
        folder: of the run.
        progress: hears how it goes on, and in one line what the user should know.
        process: which of several processes this is.
        processes: how many there are.
        memory: most memory of a device [byte].

    Returns:
        The path of report.html; None while points of other processes are missing.

    Raises:
        ConfigError: if a function of one's own cannot be computed, or another process computes this part.
    """
    with folder.lock(None if processes == 1 else process):
        return _computed(plan, folder, progress, process, processes, memory)


def _computed(
    plan: SweepPlan, folder: RunFolder, progress: Progress, process: int, processes: int, memory: int | None
) -> Path | None:
    """As `sweep_stages`, alone with this part."""
    stage, store, file = plan.stages["report"], folder.path / "sweep.zarr", folder.path / "config.yaml"
    began = time.perf_counter()
    if process == 0:
        folder.note_makers(plan.stages.values(), progress)
    then = (folder.info["begun"] | folder.info["stages"]).get(stage.name, {})
    if process == 0 and then.get("hash", stage.content.hash) != stage.content.hash:
        progress.note(f"sweep: {folder.why_stale(stage)}; computed again")
        remove(store)
        folder.forget(stage)
    elif process == 0 and (why := folder.why_stale(stage)):
        progress.note(f"sweep: {why}; made again")
    elif process == 0 and store.exists() and (damage := store_damages(store, deep=True, finished=False)):
        more = f", and {len(damage) - 1} more" if damage[1:] else ""
        progress.note(f"sweep: {damage[0].path.relative_to(folder.path)} {damage[0].what}{more}; made again")
    try:
        how = {"process": process, "processes": processes, "memory": memory, "progress": progress}
        found = run_sweep(plan.config.problem(), store, **how)
    except ValueError as error:
        raise (error if type(error) is not ValueError else ConfigError(f"{file}: {error}")) from error
    if found is None:
        return None
    if folder.done(stage) and (page := folder.path / "report.html").exists():
        return page
    from jneuro.report.sweep import write_sweep_report  # with Matplotlib

    with folder.stage(stage, mends=True):  # or the store would go
        about, seconds = folder.info, round(time.perf_counter() - began, 3)
        run = about | maker() | {"jneuro_version": maker()["versions"]["jneuro"], "seconds": seconds}
        return write_sweep_report(folder.path, run, file.read_text(encoding="utf-8"), plan.config, found)
