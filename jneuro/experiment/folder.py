"""Run folder: its layout, its lock, which stages are finished, and atomic storage of results.

config.yaml       the resolved configuration
run.json          versions, device, git commit, code of one's own; and of every stage its seconds, end and content
recording.zarr    the recording
models/NAME/      checkpoints and metrics.jsonl of every model
metrics.json      all scores
predictions.zarr  forecasts of the test windows, and of one stretch sample by sample
analyses.zarr     arrays of the analyses, a group each
figures/          every figure as PNG and SVG
report.html       the report
"""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import xarray as xr
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from jneuro.core.config import ConfigError, Content, RunConfig, content_hash, to_yaml
from jneuro.core.files import flush, remove, write_json, write_text, written
from jneuro.core.progress import Progress
from jneuro.core.resources import Estimate

__all__ = ["FORMAT", "Planned", "RunFolder", "Stage", "versions", "wanted"]

FORMAT = 2
"""Version of the layout of a run folder."""

_PACKAGES = ("jneuro", "jax", "jaxlib", "flax", "optax", "equinox", "orbax-checkpoint", "numpy", "zarr", "xarray")


def versions() -> dict[str, str]:
    """Versions of Python and of what results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


_SEALED_BYTES = 64 << 20


def _seal(path: Path) -> str:
    """Stands for a file or a folder: names and sizes, and up to 64 MiB all content; stores have checksums of their own.

    It also sees what checksums of chunks do not: one that is missing, or another's in its place.
    """
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    about = hashlib.sha256(repr([(f.relative_to(path.parent).as_posix(), f.stat().st_size) for f in files]).encode())
    if sum(f.stat().st_size for f in files) <= _SEALED_BYTES:
        for file in files:
            about.update(file.read_bytes())
    return about.hexdigest()[:16] if files else ""


def _source_hash() -> str:
    """Stands for the code itself, which may change between two versions."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return content_hash([file.read_text(encoding="utf-8") for file in files])


class Stage(NamedTuple):
    """A stage of a run, and all that its result depends on.

    Attributes:
        name: the stage.
        content: what its result depends on.
        outputs: what it writes, relative to the run folder.
    """

    name: str
    content: Content
    outputs: tuple[str, ...]


class Planned(Protocol):
    """What a run folder must know of a plan."""

    @property
    def config(self) -> RunConfig:
        """The resolved configuration."""
        ...

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The stages by name, in order."""
        ...

    @property
    def code(self) -> tuple[Path | None, Mapping[str, str]]:
        """The folder of code of one's own that the configuration names, and the hashes of its files."""
        ...

    @property
    def estimate(self) -> Estimate:
        """What all that takes at least."""
        ...


class RunFolder:
    """Storage of one run; knows nothing of what is stored."""

    def __init__(self, path: Path) -> None:
        """Wrap a folder that `prepare` or `find` has checked."""
        self.path = path
        self._writing = threading.Lock()  # of trainings side by side

    @classmethod
    def default_path(cls, config: RunConfig) -> Path:
        """`runs/<name>-<hash>`; the hash is that of the configuration alone, not of code that it names."""
        return Path("runs") / f"{config.name}-{content_hash(config, code=False)}"

    @classmethod
    def prepare(cls, plan: Planned, out: Path | None = None, *, resume: bool = False) -> "RunFolder":
        """Make a run folder, or take up an existing one.

        Args:
            plan: of an experiment, fit or sweep.
            out: the folder; `runs/<name>-<hash>` by default.
            resume: continue an unfinished run, and do stages anew whose code has changed.

        Raises:
            ConfigError: if the folder cannot be written, holds something else, another run, or an unfinished run that
                was not to be resumed.
        """
        config, (home, files) = plan.config, plan.code
        path = cls.default_path(config) if out is None else out
        _check_writable(path)
        now, where = content_hash(config, code=False), {"folder": home and str(home), "files": dict(files)}
        if (path / "config.yaml").exists():
            folder = cls.find(path)
            if (then := folder.info.get("hash")) != now:
                raise ConfigError(
                    f"{path}: holds the run of another configuration (hash {then}, not {now}); "
                    "choose another --out, or remove it"
                )
            if not resume:
                folder._require_finished(plan.stages.values())
            elif folder.info.get("code") != where:
                folder._update(code=where)
            if (text := to_yaml(config)) != (path / "config.yaml").read_text(encoding="utf-8"):
                write_text(path / "config.yaml", text)  # what is outside the hash, such as claims, may have changed
            return folder
        # What a kill between the first two files leaves is no obstacle.
        allowed = ("run.json", ".new-run.json", ".new-config.yaml", ".lock")
        if path.exists() and any(f.name not in allowed for f in path.iterdir()):
            raise ConfigError(f"{path}: is not empty and not a run folder; choose another --out")
        try:
            plan.estimate.require_disk(path)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        about = {
            "format": FORMAT,
            "name": config.name,
            "hash": now,
            "versions": versions(),
            "source": _source_hash(),
            "code": where,
            "device": ", ".join(sorted({d.device_kind for d in jax.devices()})),
            "git_commit": _git_commit(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": " ".join(["jneuro", *sys.argv[1:]]),
            "begun": {},
            "stages": {},
        }
        write_json(path / "run.json", about)
        write_text(path / "config.yaml", to_yaml(config))
        return folder

    def _require_finished(self, stages: Iterable[Stage]) -> None:
        """Refuse a run that has stages to do, unless that was asked for."""
        for stage in stages:
            if self.done(stage):
                continue
            if why := self.why_stale(stage):
                raise ConfigError(
                    f"{self.path}: {stage.name} was done before, but {why}; do again what depends on it with --resume, "
                    "or choose another --out"
                )
            raise ConfigError(f"{self.path}: holds an unfinished run; continue it with --resume, or remove it")

    @classmethod
    def find(cls, path: Path) -> "RunFolder":
        """Open an existing run folder.

        Args:
            path: the folder.

        Raises:
            ConfigError: if it is none, or one of another version's format.
        """
        if not (path / "config.yaml").exists():
            raise ConfigError(f"{path}: not a run folder, config.yaml is missing; make one with `jneuro run CONFIG`")
        folder = cls(path)
        if (found := folder.info.get("format")) != FORMAT:
            writer = (folder.info.get("versions") or {}).get("jneuro", "an unknown version")
            raise ConfigError(
                f"{path}: written by jneuro {writer}, in format {found or 1} of run folders; this version reads format "
                f"{FORMAT}: read it with the version that wrote it, or run again into another --out"
            )
        return folder

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder.

        Raises:
            ConfigError: if one is at work in it.
        """
        try:
            lock = FileLock(self.path / ".lock", blocking=False).acquire()
        except Timeout:
            said = f"{self.path}: another process is at work here; wait for it, or stop it"
            raise ConfigError(said) from None
        with lock:
            yield

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        return self.load("run.json") if (self.path / "run.json").exists() else {}

    @property
    def code(self) -> tuple[Path | None, dict[str, str]]:
        """The folder of code of one's own with which the run was made, and the hashes of its files."""
        found = self.info.get("code") or {}
        return (Path(found["folder"]) if found.get("folder") else None), dict(found.get("files") or {})

    def done(self, stage: Stage) -> bool:
        """Whether a stage is finished, its result is still that of today's code, and still as it was written."""
        then = self.info.get("stages", {}).get(stage.name, {})
        return then.get("hash") == stage.content.hash and not self._changed(then)

    def _changed(self, then: Mapping[str, Any]) -> list[str]:
        """What a finished stage has written and is no longer as it was."""
        return [name for name, seal in then.get("outputs", {}).items() if seal != _seal(self.path / name)]

    def why_stale(self, stage: Stage) -> str:
        """Say why what is there of a stage no longer counts; empty if it does, or if there is nothing."""
        info = self.info
        then = info.get("stages", {}).get(stage.name) or info.get("begun", {}).get(stage.name)
        if then is None:
            return ""
        if then["hash"] == stage.content.hash:
            changed = self._changed(then)
            return f"{', '.join(changed)} is missing or has been changed since" if changed else ""
        if stage.content.sourceless:
            return f"{', '.join(stage.content.sourceless)} has no source that could be compared, so nothing is kept"
        before, files = then.get("code", {}), stage.content.files
        changed = [f for f in sorted(before.keys() | files.keys()) if before.get(f) != files.get(f)]
        verb = "has" if len(changed) == 1 else "have"
        return f"{', '.join(changed)} {verb} changed since" if changed else "what it is made with has changed since"

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time a stage, and mark it as finished when its body ends without an error.

        What another content has left of it is removed before.

        Args:
            stage: the stage.
        """
        if self.why_stale(stage):
            for name in stage.outputs:
                remove(self.path / name)
        made = {"hash": stage.content.hash, "code": stage.content.files}
        with self._writing:
            info = self.info
            kept = {k: v for k, v in info["stages"].items() if k != stage.name or v["hash"] == stage.content.hash}
            self._update(stages=kept, begun=info["begun"] | {stage.name: made})
        began = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - began, 3)
        for name in stage.outputs:
            flush(self.path / name)
        outputs = {name: _seal(self.path / name) for name in stage.outputs}
        self._finish(stage.name, {"seconds": seconds, "ended": round(time.time(), 3), **made, "outputs": outputs})

    @property
    def seconds(self) -> float:
        """How long the finished stages took; those that ran side by side count once."""
        total, until = 0.0, 0.0
        stages = self.info.get("stages", {}).values()
        for began, ended in sorted((s["ended"] - s["seconds"], s["ended"]) for s in stages):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total

    def reuse(self, stage: Stage) -> bool:
        """Take a finished stage from a sibling run of the same content, code, versions and device, by hard links.

        Args:
            stage: the stage.

        Returns:
            Whether one was found.
        """
        info = self.info
        for other in sorted(self.path.parent.glob("*/run.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                there = json.loads(other.read_text(encoding="utf-8"))
                found = there["stages"].get(stage.name, {})
                same = all(there[k] == info[k] for k in ("format", "versions", "device", "source"))
                if not same or other.parent == self.path or not RunFolder(other.parent).done(stage):
                    continue
                for name in stage.outputs:
                    _link(other.parent / name, self.path / name)
                self._finish(stage.name, found | {"from": other.parent.name})
                return True
        return False

    def save(self, name: str, result: Any) -> None:
        """Store a result, whole or not at all.

        Args:
            name: where: `x.json`, or `x.zarr`.
            result: what: an `xarray.Dataset`, or several by the names of their groups; or anything that pydantic can
                turn into JSON, in which NaN becomes null.
        """
        if name.endswith(".zarr"):
            with written(self.path / name) as fresh:
                for group, data in ({None: result} if isinstance(result, xr.Dataset) else result).items():
                    data.to_zarr(fresh, group=group, mode="a", consolidated=False, zarr_format=3)
        else:
            write_json(self.path / name, TypeAdapter(type(result)).dump_python(result))

    def load(self, name: str, kind: Any = Any) -> Any:
        """Read a result.

        Args:
            name: see `save`; a group is `x.zarr/group`.
            kind: what it is: `xarray.Dataset`, or a type that pydantic can check; by default plain JSON.

        Raises:
            ConfigError: if it is missing, damaged or of another kind.
        """
        path, top = self.path / name, name.partition("/")[0]
        if not path.exists():
            raise ConfigError(f"{self.path}: {name} is missing; make it with `jneuro evaluate {self.path}`")
        stages = {} if name == "run.json" else self.info.get("stages", {})
        if any(top in self._changed(then) for then in stages.values() if top in then.get("outputs", {})):
            raise ConfigError(f"{path}: damaged (not what was written); restore it, or make it again with --resume")
        if kind is xr.Dataset:
            return xr.open_zarr(path, consolidated=False, chunks=None)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return value if kind is Any else TypeAdapter(kind).validate_python(value)
        except ValueError as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"{path}: damaged ({said}); restore it, or remove the run folder and run again") from None

    def _finish(self, stage: str, how: dict[str, Any]) -> None:
        with self._writing:
            info = self.info
            self._update(
                stages=info["stages"] | {stage: how},
                begun={k: v for k, v in info["begun"].items() if k != stage},
            )

    def _update(self, **entries: Any) -> None:
        write_json(self.path / "run.json", self.info | entries)


def wanted(stage: Stage | None, folder: RunFolder, progress: Progress, again: str) -> bool:
    """Whether a stage is to be done; if it was done before, say why it is done again.

    Args:
        stage: the stage; None is not to be done.
        folder: of the run.
        progress: told why.
        again: what is done again, as in "trained".
    """
    if stage is None or folder.done(stage):
        return False
    if why := folder.why_stale(stage):
        progress.note(f"{stage.name}: {why}; {again} again")
    return True


def _link(source: Path, target: Path) -> None:
    """Let a file or a folder be there a second time, whole or not at all, without copying what it holds."""
    with written(target) as fresh:
        if not source.is_dir():
            os.link(source, fresh)
            return
        fresh.mkdir()
        for inner in sorted(source.rglob("*")):
            there = fresh / inner.relative_to(source)
            there.mkdir() if inner.is_dir() else os.link(inner, there)


def _check_writable(path: Path) -> None:
    """Refuse a folder in which nothing can be written, before anything is computed."""
    try:
        parent = next(p for p in (path, *path.absolute().parents) if p.exists() or p.is_symlink())
        if not parent.is_dir():
            raise NotADirectoryError(20, "not a folder")
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error


def _git_commit() -> str | None:
    """The commit of the working folder, if it is in a git repository."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(_DESCRIBE, stderr=subprocess.DEVNULL, text=True, timeout=5).strip() or None
    return None


_DESCRIBE = ("git", "describe", "--always", "--dirty")
