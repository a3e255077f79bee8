"""Recordings by their path, whatever wrote them: stores of ours, files of other programs, files that you can read."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec

import numpy as np

from jneuro.core.guard import Unreadable, check_memory, found_in, one_line, rehearse, shortened
from jneuro.core.registry import accepted
from jneuro.core.types import Float
from jneuro.core.zarrs import check_zarr
from jneuro.recordings.kinds import READERS
from jneuro.recordings.recording import Recording, by_trial
from jneuro.recordings.store import StoreError, read_recording

__all__ = [
    "ReadError",
    "check_sweeps",
    "clipped",
    "extra",
    "factor_to",
    "from_elsewhere",
    "parsed",
    "read",
    "read_store",
    "reader_of",
]


P = ParamSpec("P")


class ReadError(StoreError):
    """A recording of another program that cannot be read, or not be used; the message says why and what to do."""


_OURS = {".abf": "abf", ".nwb": "nwb", ".zarr": "store"}
"""Which of our readers takes which ending; those of plugins say so themselves."""


def read(path: Path | str, sweeps: Sequence[int] | None = None, *, reader: Any = None, **arguments: Any) -> Recording:
    """Read a recording: of a cell, its potential and the injected current; or whatever a reader of your own gives.

    Files with the ending `.abf` and `.nwb` are read by pyabf and pynwb (`pip install 'jneuro[io]'`): potentials in mV,
    currents in pA, one trial a sweep. Installed packages may add further endings. Folders are stores of ours.

    Args:
        path: the file or the store.
        sweeps: which sweeps, by their number in the file from 0; all by default.
        reader: how to read it, where its ending does not say: a function of a path and of further arguments that
            returns a Recording; its name, such as `"abf"` or `"my_readers:read_csv"`; or a mapping of a name and
            arguments.
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
        recording = jn.recordings.read("trace.csv", reader=my_readers.read_csv, time="t_s")
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
    if bad := [n for n, x in values.items() if not np.isfinite(np.asarray(x, np.float64)).all()]:
        raise ReadError(f"{path}: {bad[0]} has samples that are not finite; cut them out, or take another recording")
    found = dataclasses.replace(found, values=values)
    return found if sweeps is None or "sweeps" in accepted(block.target) else _chosen(path, found, sweeps)


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
    if suffix in _OURS:
        return READERS.find(_OURS[suffix])
    known = dict(_OURS)
    for name, entry in READERS.entries().items():
        if entry.source != "jneuro":
            reader = READERS.find(name)
            found = [s.lower() for s in getattr(reader, "suffixes", ())]
            if suffix in found:
                return reader
            known |= dict.fromkeys(found, name)
    if not suffix or path.is_dir():
        return read_store
    listed = ", ".join(f"{s} ({name})" for s, name in known.items())
    raise ReadError(
        f"{path}: no reader is known for files that end in {suffix!r}; known are {listed}. Name one of them, or a "
        'function of your own from a path to a Recording: reader="my_readers:read_file"'
    )


def read_store(
    path: Path, sweeps: Sequence[int] | None = None, variables: Sequence[str] = ("v", "current")
) -> Recording:
    """Read a store of ours.

    Args:
        path: the store.
        sweeps: which trials, by their number from 0; all by default.
        variables: which arrays.

    Returns:
        The recording.

    Raises:
        StoreError: if it is damaged, unfinished, or has no such array.
    """
    try:
        sizes = check_zarr(path)
        check_memory(" and ".join(variables), sum(sizes.get(v, 0) for v in variables))
    except Unreadable as error:
        raise StoreError(f"{path}: {error}; make it anew, or restore it from a copy") from error
    recording = parsed(path, lambda: read_recording(path, tuple(variables)))
    return recording if sweeps is None else _chosen(path, recording, sweeps)


def _chosen(path: Path, recording: Recording, sweeps: Sequence[int]) -> Recording:
    check_sweeps(path, sweeps, len(next(iter(recording.values.values()))))
    chosen = {name: array[np.asarray(sweeps)] for name, array in recording.values.items()}
    return dataclasses.replace(recording, values=chosen)


def check_sweeps(path: Path, sweeps: Sequence[int], count: int) -> None:
    """Refuse sweeps that a file does not have, that are named twice, or that are a mask.

    Args:
        path: the file, for the message.
        sweeps: their numbers.
        count: how many sweeps it has.

    Raises:
        ReadError: naming those that it has.
    """
    sweeps = list(sweeps)
    if any(isinstance(s, bool | np.bool_) for s in sweeps):
        raise ReadError(f"{path}: sweeps = {sweeps} must be numbers of sweeps, such as [0, 2], not a mask")
    if not sweeps or any(not 0 <= s < count for s in sweeps):
        raise ReadError(f"{path}: sweeps = {sweeps} must name some of the sweeps 0 to {count - 1}")
    if twice := [s for s in sweeps if sweeps.count(s) > 1]:
        raise ReadError(f"{path}: sweeps = {sweeps} names sweep {twice[0]} twice; name each once")


def extra(name: str, path: Path) -> ModuleType:
    """Import a package of the extra `io`, or say how to get it.

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
        raise ReadError(f"{path}: needs the package {name}; install it with pip install 'jneuro[io]'") from error


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
        message = (
            f"{path}: cannot be read ({said}); it is {found_in(path)}: damaged, or not of the format that its name"
            " promises; get it anew, or name its reader, reader=…"
        )
        raise ReadError(one_line(message, name=path)) from error


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
            try:
                rehearse(rehearsal, path)
            except Unreadable as error:
                raise ReadError(f"{path}: {error}") from error
            return parsed(path, lambda: reader(*args, **kwargs))

        return guarded

    return decorate


_PREFIXES = {"f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "": 0}


def factor_to(unit: str, target: str) -> float | None:
    """The factor from a unit to `mV` or `pA`; None where they measure different things.

    Args:
        unit: as files write it: `mV`, `volts`, `nA`, `amperes`.
        target: `mV` or `pA`.

    Returns:
        The factor.
    """
    symbol = unit.strip().replace("volts", "V").replace("amperes", "A").replace("Volts", "V").replace("Amperes", "A")
    if not symbol or symbol[-1] != target[-1] or symbol[:-1] not in _PREFIXES:
        return None
    # Powers of ten from 10**0 up are exact, so a file in mV or pA is read to the last bit.
    power = _PREFIXES[symbol[:-1]] - _PREFIXES[target[:-1]]
    return 10.0**power if power >= 0 else 1 / 10.0**-power


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
