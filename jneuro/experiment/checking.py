"""Verify what lies on disk, from end to end: run folders of experiments, fits and sweeps, and single stores."""

import json
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr

from jneuro.core.config import ConfigError
from jneuro.core.seals import Finding, again, is_store, store_damages
from jneuro.experiment.folder import DamagedRecord, RunFolder
from jneuro.recordings.store import whole_pieces
from jneuro.training.checkpoints import CheckpointError, latest

__all__ = ["check_folder"]


def check_folder(path: Path | str) -> list[Finding]:
    """Find all that is damaged, missing, misplaced or edited; every byte is read, and nothing is executed or changed.

    What a stage has not finished is looked at as far as it is there.

    Args:
        path: the run folder of an experiment, a fit or a sweep; or a store.

    Returns:
        What is wrong, file by file, each with its remedy; empty if all is as it was written.

    Raises:
        ConfigError: if it is neither, or a run folder of another version's format.
    """
    path = Path(path)
    if not (path / "config.yaml").exists() and not (path / "run.json").exists():
        if not is_store(path):
            raise ConfigError(f"{path}: neither a run folder nor a store; name one that jneuro has made")
        return _of_store(path)
    found, mend = _of_record(path), f"make it again with {again(path)}"
    folder, sealed = RunFolder(path), set()
    if not any(f.path.name == "run.json" for f in found):
        found += folder.damages()
        sealed = {name for then in folder.info["stages"].values() for name in then["outputs"]}
    found += [f for f in _unfinished(path, sealed) if f.path not in {g.path for g in found}]
    return [f if f.remedy else f._replace(remedy=mend) for f in found]


def _of_record(path: Path) -> list[Finding]:
    """What is wrong with the two files that say what the folder is."""
    try:
        RunFolder.find(path)
    except DamagedRecord:
        return [Finding(path / "run.json", "is damaged" if (path / "run.json").exists() else "is missing")]
    except ConfigError as error:
        if "in format" in str(error):
            raise
        what = "has changed since the run" if (path / "config.yaml").exists() else "is missing"
        verb = again(path).split("jneuro ")[1].split()[0]
        how = f"`jneuro {verb} CONFIG --out {shlex.quote(str(path))} --resume`"
        return [Finding(path / "config.yaml", what, f"restore it, or name your own YAML file in {how}")]
    return []


def _unfinished(path: Path, sealed: set[str]) -> Iterator[Finding]:
    """What is wrong with what no finished stage has written."""
    for store in sorted(f for f in path.glob("*.zarr") if f.name not in sealed):
        yield from _of_store(store)
    for home in sorted(path.glob("models/*")):
        if f"models/{home.name}" not in sealed:
            yield from _of_checkpoints(home / "checkpoints")
    for piece in sorted(path.glob("pieces/*.npz")):
        try:
            whole = zipfile.ZipFile(piece).testzip() is None
        except (OSError, zipfile.BadZipFile, ValueError):
            whole = False
        if not whole:
            yield Finding(piece, "is damaged")


def _of_checkpoints(directory: Path) -> list[Finding]:
    with warnings.catch_warnings(action="ignore"):
        try:
            _, damaged = latest(directory)
        except CheckpointError:
            return [Finding(directory, "holds no checkpoint that can be read")]
    return [Finding(directory / str(step), "is damaged") for step in damaged]


def _of_store(path: Path) -> list[Finding]:
    """What is wrong with a store, finished or not."""
    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
        known = attributes.get("jneuro_format", 2), attributes.get("jneuro_sweep_format", 2)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return [Finding(path / "zarr.json", "is damaged" if is_store(path) else "is missing")]
    if "seal" not in attributes and 1 in known:
        said = "is of format 1, without checksums of its places and attributes, so only its chunks could be checked"
        return [Finding(path, said, "make it again with this version"), *_chunks(path)]
    if "seal" not in attributes:
        return [Finding(path, "has no seal, so it was not made by this version")]
    sweep = "jneuro_sweep_format" in attributes
    found = store_damages(path, deep=True, finished=not sweep)
    if not found and not sweep and not attributes.get("complete", True):
        whole, written = whole_pieces(path)
        if whole < written:
            found = [Finding(path, f"is whole in {whole} of the {written} pieces that were written")]
    return found


def _chunks(path: Path) -> Iterator[Finding]:
    """Arrays of a store without a seal that cannot be read."""
    try:
        for name, array in zarr.open_group(path, mode="r").members(max_depth=None):
            if isinstance(array, zarr.Array) and array.nchunks_initialized < array.nchunks:
                yield Finding(path / name, "has chunks that are missing")
            elif isinstance(array, zarr.Array):
                np.asarray(array[...])
    except Exception as error:  # the codecs raise whatever they like
        yield Finding(path, f"cannot be read ({' '.join(str(error).split())})")
