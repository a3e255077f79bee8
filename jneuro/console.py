"""What the command line shows: scores, lists and the doctor's findings; JAX comes with what needs it."""

import contextlib
import importlib
import inspect
import math
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jneuro.core.code import CodeError, code_folder, load_object
from jneuro.core.config import ConfigError, config_files
from jneuro.core.names import unknown_name
from jneuro.core.outline import Outline, outline
from jneuro.core.registry import Registry

__all__ = ["print_doctor", "print_fit", "print_inspection", "print_list", "print_scores"]


def print_scores(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the score table: baselines, models, ceiling.

    Args:
        console: where.
        metrics: the content of metrics.json.
    """
    from jneuro.datasets.variables import shared_unit

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
            numbers |= {k: f"{numbers[k]} {own}" for k in ("rmse", "mae")}
        style = "yellow" if s.get("leaky") else None if name in metrics["baselines"] else "bold"
        mark = " ⚠ leaky" if s.get("leaky") and "leaky" not in name else ""
        table.add_row(name + mark, *numbers.values(), style=style)
    if ceiling := metrics.get("ceiling"):
        table.add_section()
        table.add_row("noise ceiling", _number(ceiling["r2"], ".4f"), _number(ceiling["se"], ".4f"), "", "", "100%", "")
    console.print(table)


def print_claims(console: Console, claims: Sequence[Mapping[str, Any]]) -> None:
    """Print how the claims of a study came out.

    Args:
        console: where to.
        claims: as in claims.json.
    """
    if claims:
        table = Table("claim", "verdict", "evidence", title="claims", title_justify="left")
        for claim in claims:
            table.add_row(claim["text"], claim["status"], "; ".join(claim["evidence"]))
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
    if why := metrics.get("not_held_out"):
        console.print(f"nothing was held out: {escape(why)}", soft_wrap=True)
    if not metrics["fit"]["ok"]:
        console.print(f"[yellow]flagged:[/] {escape(metrics['fit']['reason'])}", soft_wrap=True)


def print_inspection(console: Console, source: Any, out: Path | None) -> None:
    """Print what is in a recording and write its figure.

    Args:
        console: where.
        source: the `RecordingFile`.
        out: the figure's file; by default beside the recording.

    Raises:
        ReadError: if it cannot be read as a cell's potential and current, after what it contains has been printed.
    """
    from jneuro.recordings.contents import contents
    from jneuro.recordings.readers import ReadError
    from jneuro.report.inspection import inspect

    try:
        recording = source.read()
        found = inspect(recording, sweeps=source.sweeps)
    except ValueError as error:
        with contextlib.suppress(ReadError):  # of a damaged file nothing is known
            for line in contents(source.path) if source.path.exists() else ():
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        raise error if isinstance(error, ReadError) else ReadError(f"{source.path}: {error}") from error
    facts = Table("", "", show_header=False, box=None)
    for key, value in found.facts:
        facts.add_row(key, escape(value))
    console.print(facts)
    table = Table(*map(escape, found.trials.columns), title_justify="left")
    for row in found.trials.rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for doubt in found.doubts:
        console.print(f"[yellow]in doubt:[/] {escape(doubt)}", soft_wrap=True, highlight=False)
    if not found.doubts:
        console.print("nothing is in doubt")
    path = out or Path(f"{source.path}.inspect.png")
    found.figure.savefig(path, format="png", dpi=160)
    console.print(f"figure: {escape(str(path))}", soft_wrap=True, highlight=False)


_COLUMNS = {
    "r2": ".4f",
    "r2_se": ".4f",
    "rmse": ".3f",
    "mae": ".3f",
    "share_of_ceiling": ".1%",
    "skill": ".1%",
}


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def print_list(console: Console, what: str, code: Path | None = None) -> None:
    """Print what there is, or everything about one thing; of what is named, nothing but one's own code is executed.

    Args:
        console: where.
        what: a kind, a name of any kind, `module:name` of one's own, or nothing for all kinds.
        code: where one's own code lies.

    Raises:
        ConfigError: for an unknown name, or code that cannot be used.
    """
    for file in sorted(Path(__file__).parent.glob("*/kinds.py")):
        importlib.import_module(f"jneuro.{file.parent.name}.kinds")
    groups = {_plural(kind): registry for kind, registry in Registry.every.items()}
    kinds = {plural: plural for plural in groups} | {r.kind: plural for plural, r in groups.items()}
    if not what:
        for plural, registry in groups.items():
            _print_kind(console, plural, registry)
        _print_configs(console)
    elif what in ("configs", "config"):
        _print_configs(console)
    elif what in kinds:
        _print_kind(console, kinds[what], groups[kinds[what]])
    elif ":" in what:
        _print_own(console, what, code or Path.cwd())
    else:
        found = [registry for registry in groups.values() if what in registry]
        if not found:
            names = [name for registry in groups.values() for name in registry]
            raise ConfigError(unknown_name(what, dict.fromkeys([*groups, "configs", *names]), "name"))
        for registry in found:
            entry = registry.entries()[what]
            _print_outline(console, what, registry.kind, entry.reference, outline(entry.reference), entry.source)


def _plural(kind: str) -> str:
    for ending, plural in (("us", "i"), ("is", "es"), ("ss", "sses"), ("y", "ies")):
        if kind.endswith(ending):
            return kind.removesuffix(ending) + plural
    return kind + "s"


def _print_kind(console: Console, title: str, registry: Registry) -> None:
    entries = registry.entries()
    table = Table("name", "", "", title=title, title_justify="left", box=None, show_header=False)
    for name, entry in entries.items():
        table.add_row(name, escape(registry.about(name)), "" if entry.source == "jneuro" else f"from {entry.source}")
    if not entries:
        table.add_row("", f"none of ours; module:name of your own may be a {registry.kind}")
    console.print(table)


def _print_configs(console: Console) -> None:
    table = Table("name", "", title="configs", title_justify="left", box=None, show_header=False)
    for path in config_files():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(str(path), escape(first.removeprefix("#").strip() if first.startswith("#") else ""))
    console.print(table)


def _print_own(console: Console, reference: str, folder: Path) -> None:
    """Print a name of one's own, and of what kinds it is."""
    with code_folder(folder):
        try:
            found = load_object(reference, "name")
        except CodeError as error:
            raise ConfigError(str(error)) from error
        # A kind that takes any class at all says nothing about this one.
        strict = [registry for registry in Registry.every.values() if registry.lacks(object) is not None]
        lacks = {registry.kind: registry.lacks(found) for registry in strict}
        _print_outline(console, reference, "", reference, outline(reference), "")
    if inspect.isroutine(found):
        console.print("a function; what it is called with and what it returns are checked when it is used")
        return
    for kind, said in lacks.items():
        if said is None or said.startswith(("lacks", "needs")):
            console.print(f"{kind}: {said or 'can be used as one'}", markup=False)


def _print_outline(console: Console, name: str, kind: str, reference: str, found: Outline | None, source: str) -> None:
    """Print what a thing declares."""
    doc = " ".join(found.doc.partition("\n\n")[0].split()) if found else ""
    console.print(f"[bold]{escape(name)}[/]: {escape(doc)}", highlight=False)
    origin = "" if source in ("", "jneuro") else f", from the package {source}"
    console.print(f"{kind}{' ' if kind else ''}{reference}{origin}", markup=False, highlight=False)
    if found is None:
        return
    arguments = found.arguments
    sources = list(dict.fromkeys(a.source for a in arguments.values() if a.source))
    columns = {
        "unit": [a.unit for a in arguments.values()],
        "default": ["(required)" if a.default is None else a.default for a in arguments.values()],
        "bounds": [a.bounds for a in arguments.values()],
        "meaning": [a.doc for a in arguments.values()],
        "source": [f"({sources.index(a.source) + 1})" if a.source else "" for a in arguments.values()],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    if arguments:
        table = Table("argument", *shown)
        for name, *cells in zip(arguments, *shown.values(), strict=True):
            table.add_row(name, *map(escape, cells))
        console.print(table)
    for number, text in enumerate(sources, 1):
        console.print(f"({number}) {text}", highlight=False, markup=False)
    if found.records:
        console.print(f"records: {', '.join(f'{n} [{u}]' if u else n for n, u in found.records.items())}", markup=False)
    if found.presets:
        console.print(f"presets: {', '.join(found.presets)}")


def print_doctor(console: Console, allocator: bool) -> bool:
    """Print the state of the installation.

    Args:
        console: where.
        allocator: whether the allocator was told to keep freed memory.

    Returns:
        Whether all is well.
    """
    import jax

    from jneuro.experiment.folder import versions

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
    import jax
    import numpy as np

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
