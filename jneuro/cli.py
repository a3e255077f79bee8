"""The command line: `jneuro run|sweep|simulate|train|evaluate|report|check|claims|convert|bench|list|doctor`.

Exit codes: 0 fine, 1 failed or stopped, 2 the user's mistake. Heavy imports happen inside the commands.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from jneuro.core.process import STOPPED, Stopped, at_work, heed_signals, keep_freed_memory, leave, usable_cores

if TYPE_CHECKING:
    from jneuro.core.progress import Progress
    from jneuro.experiment.folder import Planned, RunFolder

__all__ = ["app", "main"]

app = typer.Typer(
    name="jneuro",
    help="Differentiable neural simulators, the sequence models trained on them, and an honest score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="An experiment's YAML file; see `jneuro list configs`.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=value]...", help="Keys to replace, such as train.epochs=3.")
]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder; runs/<name>-<hash> by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Code = Annotated[
    Path | None,
    typer.Option(
        "--code", metavar="DIR", help="Where your own code lies; by default beside the file, or as in the run."
    ),
]


@contextlib.contextmanager
def _at_work(plan: "Planned", folder: "RunFolder") -> Iterator[tuple[Console, "Progress"]]:
    """Say what runs and where, and show its progress for the duration of a `with` block."""
    from jneuro.core.progress import showing

    console = Console()
    console.print(f"[bold]{plan.config.name}[/] in {folder.path}", soft_wrap=True)
    with at_work(), showing(True, console) as progress:
        yield console, progress


def _say_report(page: Path) -> None:
    Console().print(f"report: {page}", soft_wrap=True)


def _stages(
    config: str, overrides: list[str] | None, out: Path | None, resume: bool, last: str, code: Path | None
) -> None:
    """Run an experiment up to a stage."""
    from jneuro.console import print_claims, print_scores
    from jneuro.core.config import find_config
    from jneuro.experiment.folder import RunFolder
    from jneuro.experiment.plan import load_plan
    from jneuro.experiment.running import run_stages

    plan = load_plan(find_config(config), overrides or [], code=code)
    folder = RunFolder.prepare(plan, out, resume=resume)
    with _at_work(plan, folder) as (console, progress):
        run_stages(plan, folder, progress, last)
    if last == "report":
        print_scores(console, folder.load("metrics.json"))
        print_claims(console, folder.load("claims.json"))
        _say_report(folder.path / "report.html")


@app.command()
def run(
    config: Config, overrides: Overrides = None, out: Out = None, resume: Resume = False, code: Code = None
) -> None:
    """Run an experiment: simulate, train, evaluate, report."""
    _stages(config, overrides, out, resume, "report", code)


@app.command()
def fit(
    config: Config, overrides: Overrides = None, out: Out = None, resume: Resume = False, code: Code = None
) -> None:
    """Fit a simulator's parameters to a recording: simulate or read, fit, compare, report."""
    from jneuro.console import print_fit
    from jneuro.core.config import find_config
    from jneuro.experiment.fit_plan import load_fit
    from jneuro.experiment.fitting import fit_stages
    from jneuro.experiment.folder import RunFolder

    plan = load_fit(find_config(config), overrides or [], code=code)
    folder = RunFolder.prepare(plan, out, resume=resume)
    with _at_work(plan, folder) as (console, progress):
        page = fit_stages(plan, folder, progress)
    print_fit(console, folder.load("metrics.json"))
    _say_report(page)


@app.command()
def sweep(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    processes: Annotated[int | None, typer.Option("--processes", help="Processes that share the sweep.")] = None,
    process: Annotated[int | None, typer.Option("--process", help="Which of them this is, from 0.")] = None,
    coordinator: Annotated[
        str | None, typer.Option("--coordinator", help="HOST:PORT of process 0, for --distributed.")
    ] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="As Slurm, Open MPI or Kubernetes have started the processes.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, help="CPU devices; by default one for each core.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option("--memory", min=0.001, help="Most memory of a device, GiB; by default half the free."),
    ] = None,
    code: Code = None,
) -> None:
    """Simulate at many points of parameters, stimuli and seeds; figures and one labelled store."""
    from jneuro.core.config import find_config
    from jneuro.experiment.sweeping import join_processes, load_sweep, open_folder, sweep_stages

    _cpu_devices(devices)
    # Processes meet before anything is computed, which the checks of a configuration do.
    mine, all_of_them = join_processes(coordinator, processes, process, detect=distributed)
    plan = load_sweep(find_config(config), overrides or [], code=code)
    folder = open_folder(plan, out, resume=resume, process=mine)
    most = None if memory is None else int(memory * 2**30)
    with _at_work(plan, folder) as (console, progress):
        page = sweep_stages(plan, folder, progress, process=mine, processes=all_of_them, memory=most)
    if page is None:
        console.print("this process's points are done; others are missing, of processes that run or must be started")
    else:
        _say_report(page)


def _cpu_devices(wanted: int | None) -> None:
    """Let JAX see so many CPU devices, one for each core: a loop of small steps keeps but one core busy."""
    flag, flags = "--xla_force_host_platform_device_count", os.environ.get("XLA_FLAGS", "")
    if wanted is None and flag in flags:
        return
    if (wanted or 0) > (cores := usable_cores()):
        print(f"note: {wanted} devices on {cores} cores are slower than {cores}; leave out --devices", file=sys.stderr)
    os.environ["XLA_FLAGS"] = f"{flags} {flag}={wanted or cores}".strip()


@app.command()
def simulate(config: Config, overrides: Overrides = None, out: Out = None, code: Code = None) -> None:
    """Only simulate, into the run folder's recording.zarr; goes on with what is there."""
    _stages(config, overrides, out, True, "simulate", code)


@app.command()
def train(config: Config, overrides: Overrides = None, out: Out = None, code: Code = None) -> None:
    """Simulate if that has not been done, and train; goes on with what is there."""
    _stages(config, overrides, out, True, "train", code)


@app.command()
def evaluate(run: Run, code: Code = None) -> None:
    """Score a trained run again: models, baselines, ceiling."""
    from jneuro.console import print_scores
    from jneuro.core.progress import showing
    from jneuro.experiment.plan import reopen
    from jneuro.experiment.running import require_trained
    from jneuro.experiment.scoring import evaluate_stage

    plan, folder = reopen(run, code)
    require_trained(plan, folder)
    console = Console()
    with folder.lock(), at_work(), showing(True, console) as progress, progress.begin("evaluate") as task:
        metrics = evaluate_stage(plan, folder, lambda text: task.update(text=text))
    print_scores(console, metrics)


@app.command()
def report(run: Run, code: Code = None) -> None:
    """Write the report of an evaluated run again."""
    from jneuro.experiment.plan import reopen
    from jneuro.experiment.reporting import report_stage

    plan, folder = reopen(run, code)
    with folder.lock():
        _say_report(report_stage(plan, folder))


@app.command("inspect")
def inspect_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording: a store, or a file that a reader reads.")],
    said: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="How to read it, such as channel=1 or sweeps=[0,2]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The figure, a PNG file; by default beside FILE, NAME.inspect.png.")
    ] = None,
) -> None:
    """Look at a recording: what is in it, its currents, steps and spikes, what is in doubt; with a figure."""
    from jneuro.console import print_inspection
    from jneuro.report.inspection import source_of

    print_inspection(Console(), source_of(file, said or ()), out)


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|STORE...", help="Run folders, or single stores.")],
) -> None:
    """Verify run folders and stores from end to end; exit code 1 if anything is damaged."""
    from jneuro.experiment.checking import check_folder

    console, damaged = Console(soft_wrap=True, highlight=False), False
    for path in paths:
        for finding in (found := check_folder(path)):
            console.print(str(finding), markup=False)
        damaged = damaged or bool(found)
        if not found:
            console.print(f"{path}: all is as it was written", markup=False)
    if damaged:
        raise typer.Exit(1)


@app.command()
def claims(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with a report.")],
) -> None:
    """Print how the claims of finished runs came out, as Markdown tables."""
    from jneuro.evaluation.claims import JudgedClaim, claims_table
    from jneuro.experiment.folder import RunFolder

    for run in runs:
        folder = RunFolder.find(run)
        judged = folder.load("claims.json", list[JudgedClaim])
        print(f"## {folder.info['name']}\n\n{claims_table(judged)}\n")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A weights folder, models/NAME of a run, .pt, .json.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A weights folder to be made, .pt, or .json for Keras.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model's configuration, or EXPERIMENT:NAME; a .pt SOURCE needs it."),
    ] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="For pytorch-forecasting: its names of the columns, a,b,c.")
    ] = "",
    length: Annotated[
        int | None, typer.Option("--length", min=1, help="Samples of the window, for a Keras file that leaves it open.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace TARGET.")] = False,
) -> None:
    """Convert a model's weights between Orbax, PyTorch and Keras, bit by bit."""
    from jneuro.experiment.conversion import convert

    names = columns.split(",") if columns else ()
    found = convert(source, target, model=model, columns=names, length=length, overwrite=overwrite)
    Console().print(f"{type(found).__name__} in {target}", soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: typer.Context) -> None:
    """Time everything, on every device and beside every peer, and write a report; --help tells the options."""
    raise typer.Exit(run_benchmark(arguments.args))


def run_benchmark(arguments: Sequence[str]) -> int:
    """Run the benchmark suite of the working folder's `benchmarks/`, or else of the one that came with the package.

    Args:
        arguments: of `benchmarks/suite.py`.

    Returns:
        Its exit code.
    """
    here = Path("benchmarks")
    folder = here if (here / "suite.py").exists() else Path(__file__).parent / "benchmarks"
    with at_work():
        return subprocess.run([sys.executable, str(folder / "suite.py"), *arguments]).returncode


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(metavar="[KIND|NAME|MODULE:NAME]", help="A kind, such as simulators or configs, or one name."),
    ] = "",
    code: Annotated[
        Path | None, typer.Option("--code", metavar="DIR", help="Where your own code lies; here by default.")
    ] = None,
) -> None:
    """List what a configuration can name: simulators, models, losses and so on; or everything about one name."""
    from jneuro.console import print_list

    print_list(Console(), what, code)


@app.command()
def doctor() -> None:
    """Show versions, devices, precision and allocator; say what is wrong and how to mend it."""
    from jneuro.console import print_doctor

    if not print_doctor(Console(), _allocator):
        raise typer.Exit(1)


_allocator = False


def main() -> None:
    """Run the command line; a user's mistake or a failed run ends in one clear message, not a traceback.

    Errors of this package that are meant for the user have an `outcome`: "error", "failed" or "stopped".
    """
    global _allocator
    _allocator = keep_freed_memory()
    say = Console(stderr=True, soft_wrap=True, highlight=False)
    heed_signals()
    try:
        app()
    except Stopped:
        say.print(STOPPED)
        leave(1)
    except Exception as error:
        outcome = getattr(error, "outcome", "failed" if isinstance(error, OSError) else None)
        if outcome is None:
            raise
        say.print(f"[red]{outcome}:[/] ", end="")
        say.print(str(error), markup=False)
        if outcome == "stopped":
            leave(1)
        sys.exit(2 if outcome == "error" else 1)
