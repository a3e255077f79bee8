"""Checkpoints: the whole training state on disk, committed atomically by Orbax.

    <directory>/<step>/state     arrays: the latest state (parameters, moments, …) and the best weights
    <directory>/<step>/record    JSON: histories, fingerprint of the training, checksum of the arrays

Latest and best stand in one checkpoint, so no moment exists at which they disagree. Where several processes train
together, all call and the first writes; the directory must be one that they share.
"""

import logging
import math
import shutil
import signal
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from jneuro.core.types import PyTree

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Checkpoints",
    "Saved",
    "Weights",
    "load_best",
    "named_arrays",
    "on_termination",
    "plain_key",
    "with_arrays",
]

Arrays = Mapping[str, np.ndarray]


class CheckpointError(ValueError):
    """Checkpoints that are missing, damaged, or of another training."""

    outcome = "error"


TRASH = "deleted"


@dataclass(frozen=True)
class Checkpoints:
    """Where and when to save; the end of every epoch and SIGTERM always save.

    Attributes:
        directory: holds the checkpoints of one training.
        resume: continue from the latest checkpoint if there is one; False refuses a directory that holds any.
        every_seconds: also save within an epoch, at the first call that ends so long after the last save.
        keep: how many checkpoints to keep; with two, a damaged one can be replaced by the one before.
    """

    directory: str | Path
    resume: bool = True
    every_seconds: float | None = None
    keep: int = 2


class Weights(NamedTuple):
    """What a model has learnt.

    Attributes:
        params: its parameters.
        rest: its other variables, such as batch statistics.
    """

    params: PyTree
    rest: PyTree


class Saved(NamedTuple):
    """One checkpoint.

    Attributes:
        step: steps taken.
        arrays: the state and the best weights, by name.
        histories: the epoch records, as written, of the training or of each member of an ensemble.
    """

    step: int
    arrays: Arrays
    histories: list[list[dict[str, Any]]]


def named_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Copy a tree to the host, each leaf under its path.

    Args:
        tree: any tree of arrays.

    Returns:
        The copies, such as `params.linear.kernel`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(jax.tree.map(plain_key, tree)))
    # A copy, since on a CPU the host's array may be a view of a buffer that is about to be donated.
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.array(leaf) for path, leaf in leaves}


def plain_key(leaf: Any) -> Any:
    """A random key, as an optax state may hold, as its numbers; anything else as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def with_arrays(tree: PyTree, arrays: Arrays) -> PyTree:
    """Rebuild a tree from named copies, each leaf placed as in `tree`.

    Args:
        tree: gives structure and placement.
        arrays: what `named_arrays` made of a tree of that structure; more names may be there.

    Returns:
        The tree.
    """

    def place(path, leaf):
        value = arrays[jax.tree_util.keystr(path, simple=True, separator=".")]
        if _is_key(leaf):
            data = jax.device_put(value, jax.random.key_data(leaf).sharding, may_alias=False)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(value, leaf.sharding, may_alias=False)

    return jax.tree_util.tree_map_with_path(place, tree)


def _checksum(arrays: Arrays) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).data, zlib.crc32(name.encode(), total))
    return total


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, value in tree.items() for k, v in _flat(value, f"{path}.{name}" if path else name).items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Orbax from warning that a directory opened for reading cannot be written."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class CheckpointStore:
    """The checkpoints of one training; a context manager."""

    def __init__(self, where: Checkpoints, fingerprint: dict[str, Any] | None):
        """Open a directory, or make it.

        Args:
            where: the directory, and what to do with it.
            fingerprint: JSON values that say which training this is; None reads any, and changes nothing.

        Raises:
            ValueError: if it holds checkpoints and `resume` is False.
        """
        self.directory = Path(where.directory).absolute()
        self._fingerprint = fingerprint
        self._empty_trash()
        if fingerprint is None:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=where.keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
                todelete_subdir=TRASH,
            )
        with _quiet():
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=options,
                item_handlers={"state": ocp.PyTreeCheckpointHandler(), "record": ocp.JsonCheckpointHandler()},
            )
        if not where.resume and self._manager.all_steps():
            self._manager.close()
            raise CheckpointError(f"{self.directory} holds checkpoints; resume from them, or delete it to start anew")

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, step: int, arrays: Arrays, histories: list[list[dict[str, Any]]]) -> None:
        """Commit one checkpoint and delete those beyond the number to keep.

        Args:
            step: steps taken; a step that is there already is not written again.
            arrays: the state and the best weights, by name.
            histories: the epoch records of the training, or of each member of an ensemble.
        """
        if step in self._manager.all_steps():
            return
        record = {
            "histories": histories,
            "fingerprint": self._fingerprint,
            "names": sorted(arrays),
            "checksum": _checksum(arrays),
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeSave(dict(arrays)), record=ocp.args.JsonSave(record)),
        )
        self._empty_trash()

    def restore(self) -> Saved | None:
        """Read the latest checkpoint, or the one before if it is damaged; damaged ones are deleted.

        Returns:
            The checkpoint; None if there has never been one.

        Raises:
            ValueError: if it belongs to another training, or if none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged = []
        for step in steps:
            try:
                saved, fingerprint = self._read(step)
            except Exception as error:
                damaged.append((step, error))
                continue
            if self._fingerprint is not None:
                self._check(self._fingerprint, fingerprint)
            for bad, error in damaged:
                warnings.warn(f"{self.directory / str(bad)} is damaged ({error}); using {step}", stacklevel=2)
                if self._fingerprint is not None:
                    self._manager.delete(bad)
            self._empty_trash()
            return saved
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be read ({damaged[0][1]}); delete it to start anew"
            )
        return None

    def _empty_trash(self) -> None:
        # Old checkpoints leave by a rename, so that a kill cannot leave half of one among the good ones.
        if self._fingerprint is not None and jax.process_index() == 0:
            shutil.rmtree(self.directory / TRASH, ignore_errors=True)

    def _read(self, step: int) -> tuple[Saved, dict[str, Any]]:
        record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in record["names"]}
        arrays = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=as_numpy))
        )["state"]
        if _checksum(arrays) != record["checksum"]:
            raise CheckpointError("the arrays do not match their checksum")
        return Saved(step, arrays, record["histories"]), record["fingerprint"]

    def _check(self, wanted: dict[str, Any], found: dict[str, Any]) -> None:
        ours, theirs = _flat(wanted), _flat(found)
        differ = [k for k in sorted(ours | theirs) if not _alike(k, ours.get(k), theirs.get(k))]
        if differ:
            what = "; ".join(_changed(k, theirs.get(k), ours.get(k)) for k in differ[:3])
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise CheckpointError(
                f"{self.directory} holds checkpoints of another training: {what}{more}; "
                "choose another directory, or delete this one to start anew"
            )


def _alike(key: str, one: Any, other: Any) -> bool:
    """Whether two entries of fingerprints agree; numbers of initial weights, up to the rounding of a device."""
    if "start." in f"{key[:12]}" and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    return one == other


def _changed(key: str, was: Any, now: Any) -> str:
    """Say what differs between two trainings."""
    _, source, what = key.rpartition("source.")
    if source and was is not None and now is not None:
        return f"the source of {what} has changed"
    _, start, name = key.rpartition("start.")
    return f"the initial weights {name} are others" if start else f"{key} was {was}, is {now}"


def load_best(model: nnx.Module, directory: str | Path) -> nnx.Module:
    """Give a model the best weights of a training's latest checkpoint.

    Args:
        model: a model of the same configuration; it is not changed.
        directory: where the training saved.

    Returns:
        A new model.

    Raises:
        CheckpointError: if there is no checkpoint that can be read, or it is of another model.
    """
    saved = None
    if Path(directory).is_dir():
        with CheckpointStore(Checkpoints(directory), None) as store:
            saved = store.restore()
    if saved is None:
        raise CheckpointError(
            f"there is no checkpoint in {directory}; train with Checkpoints({str(directory)!r}) first"
        )
    graph, params, rngs, rest = nnx.split(model, nnx.Param, nnx.RngState, ...)
    weights = {"best": Weights(params, rest)}
    wanted = {name: array.shape for name, array in named_arrays(weights).items()}
    found = {name: array.shape for name, array in saved.arrays.items() if name.startswith("best.")}
    if wanted != found:
        name = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise CheckpointError(
            f"the weights in {directory} are of another model: "
            f"{name} is {found.get(name)} there and {wanted.get(name)} in the model"
        )
    best = with_arrays(weights, saved.arrays)["best"]
    return nnx.merge(graph, best.params, rngs, best.rest, copy=True)


_NOTED: ContextVar[threading.Event | None] = ContextVar("noted", default=None)


@contextmanager
def on_termination(active: bool) -> Iterator[threading.Event]:
    """Note a SIGTERM instead of dying of it.

    Args:
        active: whether to; outside the main thread, where no handler can be installed, nothing is done either.

    Yields:
        An event, set once the signal came; within another such block, that block's. The former handler is restored
        afterwards.
    """
    event = _NOTED.get()
    if not active or event is not None:
        yield event if active and event else threading.Event()
        return
    token = _NOTED.set(event := threading.Event())
    here = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, lambda *_: event.set()) if here else None
    try:
        yield event
    finally:
        _NOTED.reset(token)
        if here:
            signal.signal(signal.SIGTERM, former or signal.SIG_DFL)
