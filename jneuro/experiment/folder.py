"""The folder of a run: what is in it, whose it is, and which stages are done.

config.yaml       the resolved configuration
run.json          versions, device, git commit, and seconds, end and content hash of every finished stage
recording.zarr    the recording
models/NAME/      checkpoints and metrics.jsonl of every model
metrics.json      all scores
predictions.zarr  forecasts of the test windows, and of one stretch sample by sample
figures/          every figure as PNG and SVG
report.html       the report
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

import jax
import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

from jneuro.core.config import ConfigError, Kind, RunConfig, content_hash, load_config, to_yaml
from jneuro.experiment.config import ExperimentConfig

__all__ = ["RunFolder", "finite", "versions"]

_PACKAGES = ("jneuro", "jax", "jaxlib", "flax", "optax", "equinox", "orbax-checkpoint", "numpy", "zarr", "xarray")


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


class RunFolder(Generic[Kind]):
    """One run on disk."""

    def __init__(self, path: Path, config: Kind) -> None:
        """Wrap a folder that `prepare` or `find` has checked."""
        self.path = path
        self.config = config
        self._writing = threading.Lock()  # of trainings side by side

    @classmethod
    def default_path(cls, config: RunConfig) -> Path:
        """`runs/<name>-<hash>`."""
        return Path("runs") / f"{config.name}-{content_hash(config)}"

    @classmethod
    def prepare(cls, config: Kind, out: Path | None = None, *, resume: bool = False) -> "RunFolder[Kind]":
        """Make a run folder, or take up an existing one.

        Args:
            config: the experiment, fit or sweep.
            out: the folder; `runs/<name>-<hash>` by default.
            resume: continue an unfinished run.

        Raises:
            ConfigError: if the folder cannot be written, holds something else, another run, or an unfinished run that
                was not to be resumed.
        """
        path = cls.default_path(config) if out is None else out
        _check_writable(path)
        if (path / "config.yaml").exists():
            folder = cls.find(path, type(config))
            if content_hash(folder.config) != content_hash(config):
                raise ConfigError(
                    f"{path}: holds the run of another configuration "
                    f"(hash {content_hash(folder.config)}, not {content_hash(config)}); "
                    "choose another --out, or remove it"
                )
            if not resume and not folder.done("report"):
                raise ConfigError(f"{path}: holds an unfinished run; continue it with --resume, or remove it")
            return folder
        # What a kill between the first two files leaves is no obstacle.
        if path.exists() and any(f.name not in ("run.json", "run.json.new", "config.yaml.new") for f in path.iterdir()):
            raise ConfigError(f"{path}: is not empty and not a run folder; choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, config)
        folder._update(
            name=config.name,
            hash=content_hash(config),
            versions=versions(),
            code=_source_hash(),
            device=", ".join(sorted({d.device_kind for d in jax.devices()})),
            git_commit=_git_commit(),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=" ".join(["jneuro", *sys.argv[1:]]),
            stages={},
        )
        _write(path / "config.yaml", to_yaml(config))
        return folder

    @classmethod
    def find(cls, path: Path, kind: type[Kind] = ExperimentConfig) -> "RunFolder[Kind]":
        """Open an existing run folder.

        Args:
            path: the folder.
            kind: what its configuration describes.

        Raises:
            ConfigError: if it is none.
        """
        if not (path / "config.yaml").exists():
            raise ConfigError(f"{path}: not a run folder, config.yaml is missing; make one with `jneuro run CONFIG`")
        return cls(path, load_config(kind, path / "config.yaml"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder.

        Raises:
            ConfigError: if one is at work in it.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(f"{self.path}: another process is at work here; wait for it, or stop it") from None
            yield

    @property
    def recording(self) -> Path:
        """The recording: simulated here, or one that the configuration names."""
        given = self.config.recording if isinstance(self.config, ExperimentConfig) else None
        return given or self.path / "recording.zarr"

    def model(self, name: str) -> Path:
        """Where a model's training lives."""
        return self.path / "models" / name

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        file = self.path / "run.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def done(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return stage in self.info.get("stages", {})

    @contextlib.contextmanager
    def stage(self, name: str, content: str = "") -> Iterator[None]:
        """Time a stage, and mark it as finished when its body ends without an error.

        Args:
            name: the stage.
            content: hash of everything that its result depends on.
        """
        began = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - began, 3)
        self._finish(name, {"seconds": seconds, "ended": round(time.time(), 3), "hash": content})

    @property
    def seconds(self) -> float:
        """How long the finished stages took; those that ran side by side count once."""
        stages = self.info.get("stages", {}).values()
        total, until = sum(s["seconds"] for s in stages if "ended" not in s), 0.0  # by an earlier version
        for began, ended in sorted((s["ended"] - s["seconds"], s["ended"]) for s in stages if "ended" in s):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total

    def reuse(self, stage: str, content: str, source: str) -> bool:
        """Take a finished stage from a sibling run of the same content, code, versions and device, by hard links.

        Args:
            stage: the stage.
            content: hash of everything that its result depends on.
            source: the stage's folder, relative to the run folder.

        Returns:
            Whether one was found.
        """
        for other in sorted(self.path.parent.glob("*/run.json")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                there = json.loads(other.read_text())
                found = there["stages"].get(stage, {})
                same = all(there[k] == self.info[k] for k in ("versions", "device", "code"))
                if not same or other.parent == self.path or found.get("hash") != content:
                    continue
                # Whole or not at all: a link may be impossible, or the process killed half way.
                fresh = self.path / f"{source}.new"
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.copytree(other.parent / source, fresh, copy_function=os.link)
                shutil.rmtree(self.path / source, ignore_errors=True)
                os.replace(fresh, self.path / source)
                self._finish(stage, found | {"from": other.parent.name})
                return True
        return False

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        _write(self.path / name, json.dumps(value, indent=1))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run.

        Raises:
            ConfigError: if the stage that makes it has not run.
        """
        if not (self.path / name).exists():
            raise ConfigError(f"{self.path}: {name} is missing; make it with `jneuro evaluate {self.path}`")
        return json.loads((self.path / name).read_text())

    def _finish(self, stage: str, how: dict[str, Any]) -> None:
        with self._writing:
            self._update(stages=self.info.get("stages", {}) | {stage: how})

    def _update(self, **entries: Any) -> None:
        self.write_json("run.json", self.info | entries)


def finite(value: Any) -> Any:
    """Make a value fit for JSON, which has no NaN: what could not be computed becomes null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _check_writable(path: Path) -> None:
    """Refuse a folder in which nothing can be written, before anything is computed."""
    parent = path
    while not parent.exists():
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise NotADirectoryError(20, "not a folder")
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error


def _git_commit() -> str | None:
    """The commit of the working folder, if it is in a git repository."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
