"""Recordings by their path, whatever wrote them: stores of ours, files of other programs, files that you can read."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec

import numpy as np

from jneuro.core.config import first_error
from jneuro.core.guard import Unreadable, check_memory, found_in, rehearse, shortened
from jneuro.core.names import one_line
from jneuro.core.registry import accepted
from jneuro.core.types import Float
from jneuro.core.zarrs import check_zarr
from jneuro.recordings.electrode import Electrode
from jneuro.recordings.kinds import READERS
from jneuro.recordings.recording import Recording, by_trial
from jneuro.recordings.store import StoreError, has_events, open_recording, read_recording, sampled_arrays

__all__ = [
    "ReadError",
    "check_sweeps",
    "clipped",
    "extra",
    "from_elsewhere",
    "parsed",
    "read",
    "read_store",
    "reader_of",
    "require_readable",
]


P = ParamSpec("P")


class ReadError(StoreError):
    """A recording of another program that cannot be read, or not be used; the message says why and what to do."""


_OURS = {".abf": "abf", ".nwb": "nwb", ".zarr": "store"} | dict.fromkeys(
    (".csv", ".tsv", ".txt", ".dat", ".atf", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".nc"), "table"
)
_OURS |= dict.fromkeys(
    (".ibw", ".pxp", ".smr", ".smrx", ".axgd", ".axgx", ".wcp", ".edr", ".nix", ".plx", ".nev", ".rhd", ".rhs"), "neo"
)
"""Which of our readers takes which ending; those of plugins say so themselves."""


def read(
    path: Path | str,
    sweeps: Sequence[int] | None = None,
    *,
    reader: Any = None,
    electrode: Electrode | Mapping[str, float] | None = None,
    **arguments: Any,
) -> Recording:
    """Read a recording: of a cell, its potential and the injected current; or whatever a reader of your own gives.

    Files with the ending `.abf` and `.nwb` are read by pyabf and pynwb (`pip install 'jneuro[io]'`): potentials in mV,
    currents in pA, one trial a sweep. Tables and arrays (`.csv`, `.npz`, `.mat`, …) are read by `read_table`. Installed
    packages may add further endings. Folders are stores of ours.

    Args:
        path: the file or the store.
        sweeps: which sweeps, by their number in the file from 0; all by default.
        reader: how to read it, where its ending does not say: a function of a path and of further arguments that
            returns a Recording; its name, such as `"abf"` or `"my_readers:read_csv"`; or a mapping of a name and
            arguments.
        electrode: what the electrode added, such as `{"liquid_junction_mv": 12}`, which is taken off; see `Electrode`.
        arguments: further arguments of the reader.

    Returns:
        The recording, as NumPy arrays `[trial, time, neuron]`, and what the file says about its origin in `about`. An
        array `[time]` or `[time, neuron]` of a reader of your own is one trial.

    Raises:
        StoreError: if it cannot be read; `ReadError` if no reader knows it, or what a reader gives is no recording, if
            there is no stimulus, if it was not made in current clamp, or if its samples are not finite or clipped.
        ValueError: if the reader is unknown or does not take the arguments.

    Example:
        ```python
        recording = jn.recordings.read("171116sh_0018.abf", sweeps=[3, 4])
        recording = jn.recordings.read("trace.csv", time="t_s", v="v_mV", current="i_pA")
        recording = jn.recordings.read("trace.dat", reader=my_readers.read_dat, gain=0.05)
        ```
    """
    path = Path(path)
    block = READERS.block(reader_of(path) if reader is None else reader)
    block = block.model_copy(update=arguments) if arguments else block
    block.check_arguments("path", "sweeps")
    if block.target is not read_store and not path.exists():
        raise ReadError(f"{path}: no such file")
    found = block.build(path=path, sweeps=sweeps)
    if not isinstance(found, Recording):
        raise ReadError(f"{path}: the reader {block.name} must return a Recording, got {type(found).__name__}")
    try:
        values = by_trial(found.values)
    except ValueError as error:
        raise ReadError(f"{path}: the reader {block.name} gives no recording: {error}") from None
    if not 0 < found.dt < float("inf"):
        raise ReadError(f"{path}: dt = {found.dt} ms must be positive; mend it, or take another recording")
    if missing := [n for n in values if n not in found.units]:
        raise ReadError(f"{path}: the reader {block.name} gives no unit for {missing[0]!r}")
    for name, x in values.items():
        if (bad := np.argwhere(~np.isfinite(np.asarray(x, np.float64)))).size:
            trial, frame, neuron = map(int, bad[0])
            raise ReadError(
                f"{path}: {name} has samples that are not finite, first {x[tuple(bad[0])]} in sweep {trial}, sample "
                f"{frame}, neuron {neuron}; cut them out, or take another recording"
            )
    found = dataclasses.replace(found, values=values)
    if sweeps is not None and "sweeps" not in accepted(block.target):
        found = _chosen(path, found, sweeps)
    if electrode is None:
        return found
    try:
        return Electrode.model_validate(electrode).corrected(found)
    except ValueError as error:
        raise ReadError(f"{path}: {first_error(error)}") from error


def reader_of(path: Path) -> Callable[..., Recording]:
    """Find the reader of a file by the file's ending.

    Args:
        path: the file; a folder, and a path without an ending, is taken for a store of ours.

    Returns:
        The reader.

    Raises:
        ReadError: if no reader knows the ending, naming those that are known.
    """
    suffix = path.suffix.lower()
    if _OURS.get(suffix) not in (None, "table", "neo"):
        return READERS.find(_OURS[suffix])
    known = dict(_OURS)
    for name, entry in READERS.entries().items():
        if entry.source != "jneuro":
            reader = READERS.find(name)
            found = [s.lower() for s in getattr(reader, "suffixes", ())]
            if suffix in found:
                return reader
            known |= dict.fromkeys(found, name)
    if suffix in _OURS:  # a package's own reader of such a file goes before ours
        return READERS.find(_OURS[suffix])
    if not path.is_file() and (not suffix or path.is_dir()):
        return read_store
    by_reader = {name: [s for s in known if known[s] == name] for name in dict.fromkeys(known.values())}
    listed = "; ".join(f"{name} ({', '.join(endings)})" for name, endings in by_reader.items())
    raise ReadError(
        f"{path}: no reader is known for files that end in {suffix!r}; known are {listed}. Name one of them, or a "
        'function of your own from a path to a Recording: reader="my_readers:read_file"'
    )


def read_store(path: Path, sweeps: Sequence[int] | None = None, variables: Sequence[str] | None = None) -> Recording:
    """Read a store of ours.

    Args:
        path: the store.
        sweeps: which trials, by their number from 0; all by default.
        variables: which arrays; `spikes` makes counts of the events. By default all.

    Returns:
        The recording.

    Raises:
        StoreError: if it is damaged, unfinished, or has no such array.
    """
    names = variables or [*sampled_arrays(open_recording(path)), *(["spikes"] if has_events(path) else [])]
    try:
        sizes = check_zarr(path)
        check_memory(" and ".join(names), sum(sizes.get(v, 0) for v in names))
    except Unreadable as error:
        raise StoreError(f"{path}: {error}; make it anew, or restore it from a copy") from error
    recording = parsed(path, lambda: read_recording(path, tuple(names)))
    return recording if sweeps is None else _chosen(path, recording, sweeps)


def _chosen(path: Path, recording: Recording, sweeps: Sequence[int]) -> Recording:
    check_sweeps(path, sweeps, len(next(iter(recording.values.values()))))
    chosen = {name: array[np.asarray(sweeps)] for name, array in recording.values.items()}
    return dataclasses.replace(recording, values=chosen)


def check_sweeps(path: Path | str, sweeps: Sequence[int], count: int) -> None:
    """Refuse sweeps that a file does not have, that are named twice, or that are a mask.

    Args:
        path: the file, for the message.
        sweeps: their numbers.
        count: how many sweeps it has.

    Raises:
        ReadError: naming those that it has.
    """
    if isinstance(sweeps, str) or not np.iterable(sweeps):
        raise ReadError(f"{path}: sweeps = {sweeps!r} must be a list of numbers, such as [0, 2]")
    sweeps = list(sweeps)
    if any(isinstance(s, bool | np.bool_) or not isinstance(s, int | np.integer) for s in sweeps):
        raise ReadError(f"{path}: sweeps = {sweeps} must be numbers of sweeps, such as [0, 2], not a mask")
    if not sweeps or any(not 0 <= s < count for s in sweeps):
        raise ReadError(f"{path}: sweeps = {sweeps} must name some of the sweeps 0 to {count - 1}")
    if twice := [s for s in sweeps if sweeps.count(s) > 1]:
        raise ReadError(f"{path}: sweeps = {sweeps} names sweep {twice[0]} twice; name each once")


_EXTRAS = {"neo": "neo", "quantities": "neo"}
"""The extra that brings a package, where it is not `io`."""


def extra(name: str, path: Path | str) -> ModuleType:
    """Import a package of an extra, or say how to get it.

    Args:
        name: of the package.
        path: the file that needs it, for the message.

    Returns:
        The package.

    Raises:
        ReadError: without the package.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        brings = _EXTRAS.get(name, "io")
        raise ReadError(f"{path}: needs the package {name}; install it with pip install 'jneuro[{brings}]'") from error


def parsed(path: Path, parse: Callable[[], Any]) -> Any:
    """What a package's parser makes of a file, or an error that names the file.

    Args:
        path: the file.
        parse: calls the parser.

    Returns:
        What it returns.

    Raises:
        ReadError: whatever the parser raises; an error of ours in one line.
    """
    try:
        return parse()
    except Unreadable as error:
        raise ReadError(f"{path}: {error}") from error
    except StoreError as error:
        raise shortened(error, path) from error.__cause__
    except Exception as error:  # the parsers raise whatever they like
        said = one_line(f"{type(error).__name__}: {error}", most=100)
        if isinstance(error, PermissionError):
            raise ReadError(f"{path}: cannot be opened ({error.strerror}); ask for the right to read it") from error
        message = (
            f"{path}: cannot be read ({said}); it is {found_in(path)}: damaged, or not of the format that its name"
            " promises; get it anew, or name its reader, reader=…"
        )
        raise ReadError(one_line(message, name=path)) from error


def require_readable(path: Path, rehearsal: str) -> None:
    """Let another process go through a file first, under limits of time and memory.

    Args:
        path: the file.
        rehearsal: what goes through the file; see `jneuro.core.guard.rehearse`.

    Raises:
        ReadError: if it takes longer or more memory, or ends the process.
    """
    try:
        rehearse(rehearsal, path)
    except Unreadable as error:
        raise ReadError(f"{path}: {error}") from error


def from_elsewhere(package: str, rehearsal: str) -> Callable[[Callable[P, Recording]], Callable[P, Recording]]:
    """Read a file by a package's parser, after another process went through it under limits of time and memory.

    Args:
        package: the parser.
        rehearsal: what goes through the file; see `jneuro.core.guard.rehearse`.

    Returns:
        A decorator of a reader; whatever it raises of a file is a ReadError of one line.
    """

    def decorate(reader: Callable[P, Recording]) -> Callable[P, Recording]:
        @functools.wraps(reader)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Recording:
            path = Path(kwargs.get("path", args[0] if args else ""))  # pyright: ignore
            extra(package, path)
            require_readable(path, rehearsal)
            return parsed(path, lambda: reader(*args, **kwargs))

        return guarded

    return decorate


_FLAT_SAMPLES = 3
"""A cut potential stays at its extreme for so many samples at least."""
_JUMP = 1.0
"""It comes there by more than this from one sample to the next [mV]; a cell at rest creeps to its extreme."""


def clipped(v: Float[np.ndarray, " time"]) -> tuple[int, int] | None:
    """Find where a potential was cut by the amplifier or the converter: it jumps to an extreme and stays there.

    Args:
        v: the potential [mV].

    Returns:
        The first such stretch at its highest, else at its lowest value: its first sample, and the one after its last.
        None if there is none.
    """
    for extreme in (v.max(), v.min()):
        edges = np.diff(np.concatenate([[0], (v == extreme).astype(int), [0]]))
        begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        for begin, end in zip(begins, ends, strict=True):
            if end - begin >= _FLAT_SAMPLES and begin > 0 and abs(v[begin] - v[begin - 1]) > _JUMP:
                return int(begin), int(end)
    return None
