"""A sweep from its configuration to its figures, by one process or by several."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from jneuro.core.code import loaded_code
from jneuro.core.config import ConfigError, content_of
from jneuro.core.files import remove
from jneuro.core.progress import Progress
from jneuro.experiment.folder import RunFolder, Stage
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
    """

    config: SweepConfig
    stages: Mapping[str, Stage]
    code: tuple[Path | None, Mapping[str, str]]


def resolve_sweep(config: SweepConfig) -> SweepPlan:
    """Say what a sweep will do.

    Args:
        config: the sweep, which has checked itself.

    Returns:
        The plan.
    """
    stage = Stage("report", content_of(config), ("report.html", "figures"))
    return SweepPlan(config, {"report": stage}, loaded_code())


load_sweep = partial(load_with_code, SweepConfig, resolve_sweep)
"""Load, check and resolve a sweep; arguments as of `load_with_code`."""


def join_processes(
    coordinator: str | None, processes: int | None, process: int | None, *, detect: bool = False
) -> tuple[int, int]:
    """Find out which of how many processes this one is.

    Processes that meet through `jax.distributed` part again at once: a sweep needs no messages, and one that dies must
    not take the others with it.

    Args:
        coordinator: address and port of the first process; None: the numbers suffice, nobody is met.
        processes: how many there are.
        process: which this is, from 0.
        detect: let JAX find all that out, from Slurm, Open MPI or Kubernetes.

    Returns:
        This process's number, and how many there are.

    Raises:
        ConfigError: if the arguments contradict each other, or nothing is detected.
    """
    if (processes is None) != (process is None) or (coordinator is not None and processes is None):
        raise ConfigError("command line: --processes and --process go together; --coordinator needs both")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ConfigError(f"command line: --process {process} must be at least 0 and less than --processes {processes}")
    if not detect and coordinator is None:
        return process or 0, processes or 1
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"command line: the processes cannot meet ({error}); say --processes and --process, for each its own"
        ) from error
    found = jax.process_index(), jax.process_count()
    jax.distributed.shutdown()
    return found


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
    """Compute what is missing of this process's part; whoever comes last writes the report.

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
        ConfigError: if a function of one's own cannot be computed.
    """
    if folder.done(stage := plan.stages["report"]):
        return folder.path / "report.html"
    store = folder.path / "sweep.zarr"
    if process == 0 and (why := folder.why_stale(stage)):
        progress.note(f"sweep: {why}; computed again")
        remove(store)
    began = time.perf_counter()
    try:
        how = {"process": process, "processes": processes, "memory": memory, "progress": progress}
        found = run_sweep(plan.config.problem(), store, **how)
    except ValueError as error:
        raise (
            error if type(error) is not ValueError else ConfigError(f"{folder.path / 'config.yaml'}: {error}")
        ) from error
    if found is None:
        return None
    seconds = round(time.perf_counter() - began, 3)
    with folder.stage(stage):
        return _report(plan.config, folder, found, seconds)


def _report(config: SweepConfig, folder: RunFolder, data: xr.Dataset, seconds: float) -> Path:
    """Write figures and page."""
    from jneuro.report.sweep_section import write_sweep_report  # with Matplotlib

    info: dict[str, Any] = folder.info
    run = {
        "name": config.name,
        "hash": info["hash"],
        "jneuro_version": info["versions"]["jneuro"],
        "versions": info["versions"],
        "git_commit": info["git_commit"],
        "command": info["command"],
        "device": info["device"],
        "started": info["started"],
        "seconds": seconds,
    }
    text = (folder.path / "config.yaml").read_text(encoding="utf-8")
    return write_sweep_report(folder.path, run, text, config, data)
