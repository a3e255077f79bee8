"""Run folder: its layout, its lock, which stages are finished, and atomic storage of results.

config.yaml       the resolved configuration
run.json          versions, device, git commit, code of one's own; and of every stage its seconds, end, content,
                  versions, and the checksums of what it has written
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
import functools
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
from jneuro.core.files import finite, flush, remove, write_json, write_text, written
from jneuro.core.progress import Progress
from jneuro.core.resources import Estimate
from jneuro.core.seals import Finding, again, digits, seal, seal_store, unlike
from jneuro.recordings.store import COMPRESSORS

__all__ = ["FORMAT", "DamagedRecord", "Planned", "RunFolder", "Stage", "maker", "versions", "wanted"]

FORMAT = 3
"""Version of the layout of a run folder."""

_PACKAGES = ("jneuro", "jax", "jaxlib", "flax", "optax", "equinox", "orbax-checkpoint", "numpy", "zarr", "xarray")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of what results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _source_hash() -> str:
    """Stands for the code itself, which may change between two versions."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return content_hash([file.read_text(encoding="utf-8") for file in files])


@functools.cache
def maker() -> dict[str, Any]:
    """What a result depends on beside its content: versions, source and device."""
    device = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    return {"versions": versions(), "source": _source_hash(), "device": device}


class DamagedRecord(ConfigError):
    """A run.json that is missing or damaged; --resume makes it again."""


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
        self._mended: list[str] = []

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
        config, path = plan.config, cls.default_path(plan.config) if out is None else out
        _check_writable(path)
        folder, there = cls(path), {f.name for f in path.glob("*") if not f.name.startswith(".lock")}
        # What a kill between the first two files leaves is no obstacle.
        if there <= {"run.json", ".new-run.json", ".new-config.yaml"}:
            try:
                plan.estimate.require_disk(path)
            except ValueError as error:
                raise ConfigError(str(error)) from error
            path.mkdir(parents=True, exist_ok=True)
            folder._begin(plan)
            return folder
        if not there & {"run.json", "config.yaml"}:
            raise ConfigError(f"{path}: is not empty and not a run folder; choose another --out")
        text, file = to_yaml(config), path / "config.yaml"
        try:
            found = folder._checked()
        except DamagedRecord:
            if not resume or not file.exists():
                raise
            if file.read_bytes() != text.encode():
                raise ConfigError(
                    f"{path}: run.json is missing or damaged, and config.yaml is of another configuration; choose "
                    "another --out, or remove it"
                ) from None
            with folder.lock():
                folder._begin(plan)  # each stage finds what it has written before, and whether that is whole
            folder._mended.append("run.json: was missing or damaged; made again, with today's versions")
            return folder
        if (then := found.get("hash")) != (now := content_hash(config, code=False)):
            raise ConfigError(
                f"{path}: holds the run of another configuration (hash {then}, not {now}); "
                "choose another --out, or remove it"
            )
        if not resume:
            folder._require_finished(plan.stages.values())
        elif found.get("code") != (where := _code(plan)):
            folder._update(code=where)
        if not file.exists() or file.read_bytes() != text.encode():
            if resume and (not file.exists() or found["config"] != digits(file.read_text("utf-8", "replace"))):
                folder._mended.append("config.yaml: was missing or damaged; written again")
            folder._update(config=digits(text))  # what is outside the hash, such as claims, may have changed
            write_text(file, text)
        return folder

    def _begin(self, plan: Planned) -> None:
        """Write the first two files."""
        config, text = plan.config, to_yaml(plan.config)
        about = {
            "format": FORMAT,
            "name": config.name,
            "hash": content_hash(config, code=False),
            "config": digits(text),
            "code": _code(plan),
            **maker(),
            "git_commit": _git_commit(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": " ".join(["jneuro", *sys.argv[1:]]),
            "begun": {},
            "stages": {},
        }
        self._write(about)
        write_text(self.path / "config.yaml", text)

    def _require_finished(self, stages: Iterable[Stage]) -> None:
        """Refuse a run that has stages to do, unless that was asked for."""
        for stage in stages:
            if self.done(stage):
                continue
            with self.lock():  # or another process is doing them
                pass
            if why := self.why_stale(stage):
                raise ConfigError(
                    f"{self.path}: {stage.name} was done before, but {why}; do again what depends on it with --resume, "
                    "or choose another --out"
                )
            raise ConfigError(f"{self.path}: holds an unfinished run; continue it with --resume, or remove it")

    @classmethod
    def find(cls, path: Path, *, edited: bool = False) -> "RunFolder":
        """Open an existing run folder.

        Args:
            path: the folder.
            edited: whether its config.yaml may have been changed since the run, as for another run.

        Raises:
            ConfigError: if it is none, one of another version's format, or its run.json or config.yaml is damaged.
        """
        file, ours = path / "config.yaml", (path / "run.json").exists()
        if not file.exists():
            how = f"make it again with {again(path)}" if ours else "make one with `jneuro run CONFIG`"
            raise ConfigError(f"{path}: not a run folder, config.yaml is missing; {how}")
        folder = cls(path)
        known = folder._checked().get("config")
        if not edited and known != digits(file.read_text(encoding="utf-8", errors="replace")):
            raise ConfigError(
                f"{path / 'config.yaml'}: has changed since the run; restore it, or run it with another --out"
            )
        return folder

    def _checked(self) -> dict[str, Any]:
        """The content of run.json, if it is of this format."""
        info = self.info
        if (found := info.get("format")) != FORMAT:
            writer = info.get("versions")
            writer = writer.get("jneuro") if isinstance(writer, dict) else "an unknown version"
            raise ConfigError(
                f"{self.path}: written by jneuro {writer}, in format {found or 1} of run folders; this version reads "
                f"format {FORMAT}: read it with the version that wrote it, or run again into another --out"
            )
        return info

    @contextlib.contextmanager
    def lock(self, part: int | None = None) -> Iterator[None]:
        """Keep other processes out of the folder.

        Args:
            part: of several processes that share the work, which this is; only another of that number is kept out.

        Raises:
            ConfigError: if one is at work in it.
        """
        try:
            lock = FileLock(self.path / (".lock" if part is None else f".lock-{part}"), blocking=False).acquire()
        except Timeout:
            said = f"{self.path}: another process is at work here; wait for it, or stop it"
            raise ConfigError(said) from None
        with lock:
            yield

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            DamagedRecord: if it is missing, or not as it was written.
        """
        path = self.path / "run.json"
        try:
            found = dict(json.loads(path.read_bytes()))
            # What older versions wrote has no seal, but names its versions; another file has neither.
            ours = "seal" in found or found.get("format") == FORMAT or "versions" not in found
            what = "damaged" if ours and found.pop("seal", "") != digits(found) else ""
        except FileNotFoundError:
            what = "missing"
        except (ValueError, TypeError, RecursionError):
            what = "damaged"
        if what:
            raise DamagedRecord(f"{path}: {what}; make it again with {again(self.path)}")
        return found

    @property
    def code(self) -> tuple[Path | None, dict[str, str]]:
        """The folder of code of one's own with which the run was made, and the hashes of its files."""
        found = self.info.get("code") or {}
        return (Path(found["folder"]) if found.get("folder") else None), dict(found.get("files") or {})

    def done(self, stage: Stage, *, deep: bool = True) -> bool:
        """Whether a stage is finished, its result is still that of today's code, and still as it was written.

        Args:
            stage: the stage.
            deep: whether stores are read whole for that; else only what is missing, edited or misplaced is seen.
        """
        then = self.info["stages"].get(stage.name)
        return then is not None and then["hash"] == stage.content.hash and not self._changed(then, deep)

    def _changed(self, then: Mapping[str, Any], deep: bool = True) -> list[Finding]:
        """What a finished stage has written and is no longer as it was."""
        outputs = then.get("outputs", {})
        return [f for name, sealed in outputs.items() for f in unlike(self.path / name, sealed, deep=deep)]

    def damages(self) -> list[Finding]:
        """What is no longer as the finished stages have written it.

        Raises:
            ConfigError: if run.json or config.yaml is damaged itself, or of another format.
        """
        return [f for then in self._checked()["stages"].values() for f in self._changed(then)]

    def why_stale(self, stage: Stage, *, deep: bool = True) -> str:
        """Say why what is there of a stage no longer counts; empty if it does, or if there is nothing.

        Args:
            stage: the stage.
            deep: as in `done`.
        """
        info = self.info
        then = info["stages"].get(stage.name) or info["begun"].get(stage.name)
        if then is None:
            return ""
        if then["hash"] == stage.content.hash:
            said = [f"{f.path.relative_to(self.path)} {f.what}" for f in self._changed(then, deep)]
            return ", and ".join([*said[:1], *([f"{len(said) - 1} more"] if said[1:] else [])])
        if stage.content.sourceless:
            return f"{', '.join(stage.content.sourceless)} has no source that could be compared, so nothing is kept"
        before, files = then.get("code", {}), stage.content.files
        changed = [f for f in sorted(before.keys() | files.keys()) if before.get(f) != files.get(f)]
        verb = "has" if len(changed) == 1 else "have"
        return f"{', '.join(changed)} {verb} changed since" if changed else "what it is made with has changed since"

    def require(self, stage: Stage, said: str = "", *, deep: bool = True) -> None:
        """Refuse to use what a stage has not made, or not as it is now.

        Args:
            stage: the stage.
            said: what is missing without it, such as "compact is not trained".
            deep: as in `done`.

        Raises:
            ConfigError: with the remedy.
        """
        if not self.done(stage, deep=deep):
            why = self.why_stale(stage, deep=deep)
            raise ConfigError(
                f"{self.path}: {said or f'{stage.name} is not done'}{why and ', since ' + why}; "
                f"go on with {again(self.path)}"
            )

    def other_makers(self, stages: Iterable[Stage]) -> dict[str, str]:
        """What of today's versions, source and device was another when a stage was done, or begun.

        Args:
            stages: of the run.

        Returns:
            Name of a stage to what was, such as "jax 0.4.30, another device (TPU v4)".
        """
        info, now, found = self.info, maker(), {}
        for stage in stages:
            then = (info["stages"].get(stage.name) or info["begun"].get(stage.name) or {}).get("by", now)
            before = then["versions"]
            said = [f"{name} {before.get(name)}" for name, is_ in now["versions"].items() if before.get(name) != is_]
            said += [f"device {then['device']}"] if then["device"] != now["device"] else []
            if said or then["source"] != now["source"]:
                found[stage.name] = ", ".join(said) or "another source of the same version"
        return found

    def note_makers(self, stages: Iterable[Stage], progress: Progress) -> None:
        """Say which stages were done with other versions, and so need not be what today's would make.

        Says also what of the folder's own two files had to be written again.

        Args:
            stages: of the run.
            progress: is told.
        """
        for text in self._mended:
            progress.note(text)
        found: dict[str, list[str]] = {}
        for name, made in self.other_makers(stages).items():
            found.setdefault(made, []).append(name)
        for made, names in found.items():
            more = f" and {len(names) - 1} more" if names[1:] else ""
            progress.note(
                f"{names[0]}{more}: made with {made}; what is finished is kept, the rest is made with today's"
            )

    def forget(self, stage: Stage) -> None:
        """Let a stage be one that was never done.

        Args:
            stage: the stage.
        """
        with self._writing:
            info = self.info
            kept = {key: {k: v for k, v in info[key].items() if k != stage.name} for key in ("begun", "stages")}
            self._update(**kept)

    @contextlib.contextmanager
    def stage(self, stage: Stage, *, mends: bool = False) -> Iterator[None]:
        """Time a stage, and mark it as finished when its body ends without an error.

        What another content has left of it is removed before, and what is damaged, too.

        Args:
            stage: the stage.
            mends: whether it finds itself what of its own outputs is damaged, and goes on with the rest.
        """
        info = self.info
        then = info["stages"].get(stage.name) or info["begun"].get(stage.name)
        if self.why_stale(stage) and not (mends and then["hash"] == stage.content.hash):
            for name in stage.outputs:
                remove(self.path / name)
        made = {"hash": stage.content.hash, "code": stage.content.files, "by": maker()}
        with self._writing:
            info = self.info
            kept = {k: v for k, v in info["stages"].items() if k != stage.name}
            self._update(stages=kept, begun=info["begun"] | {stage.name: made})
        began = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - began, 3)
        for name in stage.outputs:
            flush(self.path / name)
        outputs = {name: seal(self.path / name) for name in stage.outputs}
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
        for other in sorted(self.path.parent.glob("*/run.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                there = json.loads(other.read_text(encoding="utf-8"))
                found = there["stages"].get(stage.name, {})
                same = there["format"] == FORMAT and found.get("by") == maker()
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
                    codecs = {name: {"compressors": COMPRESSORS} for name in data.variables}
                    how: Any = {"mode": "a", "consolidated": False, "zarr_format": 3, "write_empty_chunks": True}
                    data.to_zarr(fresh, group=group, encoding=codecs, **how)
                seal_store(fresh)
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
            raise ConfigError(f"{self.path}: {name} is missing; make it with {again(self.path)}")
        for then in self.info["stages"].values():
            if top in then["outputs"] and (damage := unlike(self.path / top, then["outputs"][top])):
                raise ConfigError(f"{damage[0].path}: damaged, {damage[0].what}; make it again with {again(self.path)}")
        if kind is xr.Dataset:
            return xr.open_zarr(path, consolidated=False, chunks=None)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return value if kind is Any else TypeAdapter(kind).validate_python(value)
        except (ValueError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"{path}: damaged ({said}); make it again with {again(self.path)}") from None

    def _finish(self, stage: str, how: dict[str, Any]) -> None:
        with self._writing:
            info = self.info
            self._update(
                stages=info["stages"] | {stage: how},
                begun={k: v for k, v in info["begun"].items() if k != stage},
            )

    def _update(self, **entries: Any) -> None:
        self._write(self.info | entries)

    def _write(self, about: Mapping[str, Any]) -> None:
        entries = json.loads(json.dumps(finite(about)))  # as it will be read
        write_json(self.path / "run.json", entries | {"seal": digits(entries)})


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


def _code(plan: Planned) -> dict[str, Any]:
    """Where a plan's code of one's own is, and what it is."""
    home, files = plan.code
    return {"folder": home and str(home), "files": dict(files)}


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
        # `describe --dirty` would lock the index, and leave the lock when it is ended.
        commit, changed = (
            subprocess.check_output(["git", *words], stderr=subprocess.DEVNULL, text=True, timeout=5).strip()
            for words in (_DESCRIBE, _CHANGED)
        )
        return f"{commit}-dirty" if changed else commit or None
    return None


_DESCRIBE = ("describe", "--always")
_CHANGED = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
