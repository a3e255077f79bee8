"""What the command line shows: progress, scores, lists and the doctor's findings."""

import os
import platform
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from jneuro.core.config import ConfigError, config_files, unknown_name
from jneuro.core.registry import accepted
from jneuro.datasets.variables import shared_unit
from jneuro.experiment import versions
from jneuro.fitting.watching import FitProgress
from jneuro.models.kinds import MODELS
from jneuro.simulators import SIMULATORS, STIMULI, parameters
from jneuro.training import Callback, RichProgress

__all__ = ["LiveObserver", "print_doctor", "print_fit", "print_list", "print_scores"]


class _Bars:
    """Rich progress bars on a terminal."""

    def __init__(self, console: Console) -> None:
        """Prepare the display on a console."""
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(escape(text), soft_wrap=True)


class LiveObserver(_Bars):
    """Shows a run's stages as rich progress bars; off a terminal, as lines."""

    _tenth = 0

    def __init__(self, console: Console) -> None:
        """Prepare the display on a console."""
        super().__init__(console)
        self._beginning = threading.Lock()

    def __exit__(self, *_: object) -> None:
        self._finish()
        super().__exit__()

    def _finish(self) -> None:
        """Fill the running stage's bar."""
        if self._task is not None:
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, total=task.total or 1, completed=task.total or 1)
            self._progress.stop_task(self._task)
            self._task = None

    def stage(self, text: str) -> None:
        """Begin a stage."""
        with self._beginning:
            self._finish()
        self._tenth = 0
        if not self._console.is_terminal:
            self._console.print(text)
        elif not text.startswith("train "):
            self._task = self._progress.add_task(text, total=None)

    def advance(self, done: float, total: float) -> None:
        """Move the simulation's bar."""
        if self._task is not None:
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            speed = done / (1e3 * task.elapsed) if task.elapsed else 0.0
            text = f"simulate {done / 1e3:g} of {total / 1e3:g} s, {speed:.2g} × real time"
            self._progress.update(self._task, total=total, completed=done, description=text)
        elif done == total:
            self._console.print(f"simulated {total / 1e3:g} s")

    def fitting(self, progress: FitProgress) -> None:
        """Move a fit's bar; off a terminal, at most ten lines."""
        cost = f", cost {progress.cost:.4g}" if np.isfinite(progress.cost) else ""
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=progress.share, description=progress.text + cost)
        elif not self._console.is_terminal and (tenth := int(10 * progress.share + 1e-9)) > self._tenth:
            self._tenth = tenth
            self._console.print(f"{progress.text}{cost}", highlight=False)

    def training(self, label: str) -> Iterable[Callback]:
        """A bar with epoch, losses and speed."""
        return (RichProgress(f"train {label}", self._progress),)


def print_scores(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the score table: baselines, models, ceiling.

    Args:
        console: where.
        metrics: the content of metrics.json.
    """
    horizon = metrics["windows"]["horizons_ms"][0]
    table = Table(title=f"test scores, {horizon:g} ms ahead", title_justify="left")
    table.add_column("predictor", overflow="fold")
    unit = shared_unit(metrics["windows"].get("targets") or {})
    for column in ("R²", "± SE", f"RMSE {unit}".rstrip(), f"MAE {unit}".rstrip(), "of ceiling", "skill"):
        table.add_column(column, justify="right")
    rows = [*metrics["baselines"].items(), *sorted(metrics["test"].items(), key=lambda item: item[1]["r2"])]
    for name, s in rows:
        numbers = {k: _number(s.get(k), form) for k, form in _COLUMNS.items()}
        if "baselines" in s:  # windows of its own: its skill is over baselines that are not in this table
            numbers["skill"] = "–"
        if (own := shared_unit(s.get("targets") or {})) not in ("", unit):
            numbers |= {k: f"{numbers[k]} {own}" for k in ("rmse_mv", "mae_mv")}
        style = "yellow" if s.get("leaky") else None if name in metrics["baselines"] else "bold"
        mark = " ⚠ leaky" if s.get("leaky") and "leaky" not in name else ""
        table.add_row(name + mark, *numbers.values(), style=style)
    if ceiling := metrics.get("ceiling"):
        table.add_section()
        table.add_row("noise ceiling", _number(ceiling["r2"], ".4f"), _number(ceiling["se"], ".4f"), "", "", "100%", "")
    console.print(table)


def print_fit(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print what a fit found and what it cost.

    Args:
        console: where.
        metrics: the content of metrics.json.
    """
    table = Table("parameter", "fitted", "± SE", "truth", title_justify="left")
    for name, p in metrics["parameters"].items():
        table.add_row(name, _number(p["value"], ".5g"), _number(p["se"], ".2g"), _number(p["truth"], "g"))
    console.print(table)
    table = Table("method", "accepted", "cost", "simulations", "seconds", title_justify="left")
    for found in (metrics["fit"], *metrics["baselines"]):
        counts = f"{found['accepted']} of {found['fits']}"
        cost, seconds = _number(found["data_cost"], ".4f"), _number(found["seconds"], ".2f")
        table.add_row(found["method"], counts, cost, f"{found['simulations']:,.0f}", seconds)
    console.print(table)
    if not metrics["fit"]["ok"]:
        console.print(f"[yellow]flagged:[/] {escape(metrics['fit']['reason'])}", soft_wrap=True)


_COLUMNS = {
    "r2": ".4f",
    "r2_se": ".4f",
    "rmse_mv": ".3f",
    "mae_mv": ".3f",
    "share_of_ceiling": ".1%",
    "skill": ".1%",
}


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def print_list(console: Console, what: str) -> None:
    """Print what there is, or everything about one thing.

    Args:
        console: where.
        what: a group, a name, or nothing for all groups.

    Raises:
        ConfigError: for an unknown name.
    """
    groups = {
        "simulators": {name: SIMULATORS.about(name) for name in SIMULATORS},
        "models": {name: MODELS.about(name) for name in MODELS},
        "stimuli": {name: STIMULI.about(name) for name in STIMULI},
        "configs": {str(path): _header(path) for path in config_files()},
    }
    if what in ("", *groups):
        for group in groups if not what else [what]:
            table = Table("name", "", title=group, title_justify="left", box=None, show_header=False)
            for name, text in groups[group].items():
                table.add_row(name, text)
            console.print(table)
    elif what in SIMULATORS:
        _print_simulator(console, what)
    elif what in MODELS:
        _print_model(console, what)
    elif what in STIMULI:
        console.print(f"[bold]{what}[/]: {_first_line(STIMULI[what])}\narguments: {', '.join(accepted(STIMULI[what]))}")
    else:
        raise ConfigError(unknown_name(what, [*groups, *SIMULATORS, *MODELS, *STIMULI], "name"))


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _header(path: Path) -> str:
    """The first comment line of a configuration."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _print_simulator(console: Console, name: str) -> None:
    cls = SIMULATORS[name]
    console.print(f"[bold]{name}[/]: {_first_line(cls)}")
    declared = parameters(cls).values()
    sources = list(dict.fromkeys(p.source for p in declared))
    table = Table("parameter", "unit", "default", "bounds", "meaning", "source")
    for p in declared:
        bounds = "" if isinstance(p.default, str) else str(p.bounds)
        table.add_row(p.name, p.unit, str(p.default), bounds, p.doc, f"({sources.index(p.source) + 1})")
    console.print(table)
    for number, source in enumerate(sources, 1):
        console.print(f"({number}) {source}", highlight=False)
    console.print(f"records: {', '.join(f'{n} [{r.unit}]' for n, r in cls.recordables.items())}", markup=False)
    console.print(f"presets: {', '.join(cls.presets)}")


def _print_model(console: Console, name: str) -> None:
    config = MODELS[name]
    console.print(f"[bold]{name}[/]: {_first_line(config)}")
    about = {k: text for cls in reversed(config.__mro__) for k, text in _attributes(cls.__doc__ or "").items()}
    table = Table("key", "default", "meaning")
    for key, field in config.model_fields.items():
        table.add_row(key, str(field.default), about.get(key, ""))
    console.print(table)


def _attributes(doc: str) -> dict[str, str]:
    """The entries of a docstring's section `Attributes`."""
    found: dict[str, str] = {}
    key = ""
    for line in doc.partition("Attributes:")[2].splitlines():
        name, separator, text = line.strip().partition(": ")
        if separator and name.isidentifier() and line.startswith(" " * 8) and not line.startswith(" " * 9):
            key, found[name] = name, text
        elif key and line.strip():
            found[key] += " " + line.strip()
    return found


def print_doctor(console: Console, allocator: bool) -> bool:
    """Print the state of the installation.

    Args:
        console: where.
        allocator: whether the allocator was told to keep freed memory.

    Returns:
        Whether all is well.
    """
    table = Table("", "", show_header=False, box=None)
    for name, version in versions().items():
        table.add_row(name, version)
    table.add_row("platform", f"{platform.platform()}, {os.cpu_count()} cores")
    table.add_row("devices", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))
    x64 = jax.config.jax_enable_x64  # pyright: ignore
    precision = jax.config.jax_default_matmul_precision or "the backend's default"  # pyright: ignore
    table.add_row("precision", f"{'float64 allowed' if x64 else 'float32'}, matrix products in {precision}")
    kept = "keeps freed memory (switch off: JNEURO_ALLOCATOR=system)" if allocator else "system default"
    table.add_row("allocator", kept)
    table.add_row("free disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB")
    console.print(table)
    problems = list(_problems(allocator))
    for problem, remedy in problems:
        console.print(f"[yellow]problem:[/] {problem}\n  remedy: {escape(remedy)}")
    if not problems:
        console.print("[green]all is well[/]")
    return not problems


def _problems(allocator: bool) -> Iterable[tuple[str, str]]:
    """What is wrong, and how to mend it."""
    backends = {d.platform for d in jax.devices()}
    if backends == {"cpu"} and (shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()):
        yield "there is an NVIDIA GPU, but JAX sees only the CPU", "pip install 'jneuro[cuda]'"
    if backends == {"cpu"} and platform.system() == "Darwin" and platform.machine() == "arm64":
        yield "there is an Apple GPU, but JAX sees only the CPU", "pip install 'jneuro[mps]', or go on without it"
    if "gpu" in backends and jax.config.jax_default_matmul_precision is None:  # pyright: ignore
        yield (
            "matrix products may use TF32, which does not agree with PyTorch in float32",
            "set JAX_DEFAULT_MATMUL_PRECISION=highest where digits matter",
        )
    if platform.system() == "Linux" and not allocator and os.environ.get("JNEURO_ALLOCATOR") != "system":
        yield "the C library's allocator cannot be set; steps on the CPU are slower", "use a system with glibc"
    if shutil.disk_usage(".").free < 2 * 2**30:
        yield "less than 2 GiB of disk are free here", "free some, or write elsewhere with --out"
    computed = np.asarray(jax.jit(lambda x: x @ x)(np.eye(64, dtype=np.float32)))
    if not np.array_equal(computed, np.eye(64)):
        yield "the device computes wrongly: the square of the identity is not the identity", "update the driver and jax"
