"""Recordings on disk: a Zarr store that xarray, and so every tool of the field, can open.

Layout: the root holds every sampled array as `[trial, time, neuron]`; the group `events` holds spikes as lists (time,
trial, neuron); the group `states` holds simulator states, from which a run can be continued. A store is written piece
by piece; its attribute `committed` is set last, so a fault costs the piece under way and nothing before it. It holds
the length and the checksums of every piece, so that what is damaged is cut off and made again; the attribute `seal`
holds those of the finished store (`jneuro.core.seals`). Attributes are numbers and strings, as netCDF knows them.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from jneuro.core.files import flush, naming, remove
from jneuro.core.guard import Unreadable
from jneuro.core.names import one_line
from jneuro.core.seals import remedy, store_damages, store_seal
from jneuro.core.types import PyTree
from jneuro.core.zarrs import check_zarr
from jneuro.recordings.recording import Recording, from_arrays

__all__ = [
    "COMPRESSORS",
    "FORMAT",
    "RecordingWriter",
    "StoreError",
    "consolidate",
    "has_events",
    "open_recording",
    "populations_of",
    "provenance_of",
    "read_events",
    "read_recording",
    "read_state",
    "require_whole",
    "sampled_arrays",
    "whole_pieces",
]

FORMAT = 2
"""Version of the layout; one of format 1, which has no seal, is read as far as its chunks are all there."""

COMPRESSORS = (BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec())
"""Of every array of every store: a flipped bit is noticed when it is read."""

_GROWING = ("time", "event", "snapshot")

_FILE = 1 << 20
"""Size that files of several trials may reach before compression [bytes]."""


class StoreError(ValueError):
    """A store that is missing, incomplete, damaged or not ours."""

    outcome = "error"


def state_leaves(state: PyTree) -> dict[str, Any]:
    """The leaves of a state by their path."""
    return {jax.tree_util.keystr(p, simple=True, separator="."): x for p, x in jax.tree.leaves_with_path(state)}


class RecordingWriter:
    """Writes a batch of trials, chunk after chunk, and can take up where a killed process stopped.

    Attributes:
        frames: frames written and committed.
    """

    def __init__(
        self, path: Path | str, provenance: Mapping[str, Any], populations: Mapping[str, int] | None = None
    ) -> None:
        """Begin a store, or go on with the unfinished one of the same provenance.

        Args:
            path: the folder that is, or will be, the store.
            provenance: what makes the recording; JSON values only.
            populations: name and size of each population of neurons, in their order.

        Raises:
            StoreError: if the folder holds another recording.
        """
        self.path = path = Path(path)
        self._about = {"jneuro_format": FORMAT, "provenance": json.dumps(provenance, sort_keys=True)}
        self._populations = dict(populations or {})
        self.frames, self._commits = 0, []
        if not (path / "zarr.json").exists():
            if path.exists() and not (path.is_dir() and all(f.suffix == ".partial" for f in path.iterdir())):
                raise StoreError(f"{path}: holds something else; choose another folder, or remove it")
            self._begin()
            return
        if damage := store_damages(path, under=None):
            raise StoreError(f"{damage[0]}, so {path} is not gone on with; choose another folder, or remove it")
        self._root = zarr.open_group(path, mode="a", use_consolidated=False)
        if any(self._root.attrs.get(key) != value for key, value in self._about.items()):
            raise StoreError(f"{path}: holds another recording; choose another folder, or remove this one")
        commits = json.loads(str(self._root.attrs["committed"]))
        if self.complete and not store_damages(path, deep=True):
            self._commits, self.frames = commits, commits[-1]["time"] if commits else 0
        elif whole := whole_pieces(path)[0]:
            self._take_up(commits[:whole])
        else:
            self._begin()

    def _begin(self) -> None:
        """Begin anew."""
        remove(self.path)
        self.path.mkdir(parents=True)
        about = self._described({})
        self._root = zarr.open_group(self.path, mode="w", zarr_format=3, attributes=about)

    def _take_up(self, commits: list[dict[str, Any]]) -> None:
        """Go on after some commits: cut off what came later, or was left by a killed process."""
        self._commits, self.frames = commits, commits[-1]["time"]
        for folder in [self.path, *(self.path / name for name in ("events", "states"))]:
            for inner in folder.glob("*"):
                if inner.is_dir() and not (inner / "zarr.json").exists():  # no array and no group
                    remove(inner)
        for name in commits[-1]["crc32c"]:
            array: Any = self._root[name]
            names = array.metadata.dimension_names
            array.resize(tuple(commits[-1].get(n, s) for n, s in zip(names, array.shape, strict=True)))
        self._commit()

    def _commit(self, complete: bool = False, **attributes: Any) -> None:
        """Say in the root's attributes, at once, what is there."""
        known = self._described({**self._root.attrs.asdict(), **attributes}, complete)
        self._root = self._root.update_attributes(known)  # in one write, as `attrs.update` is not

    def _described(self, attributes: Mapping[str, Any], complete: bool = False) -> dict[str, Any]:
        """The root's attributes, sealed."""
        known = {**attributes, **self._about, "complete": int(complete), "committed": json.dumps(self._commits)}
        return known | {"seal": store_seal(self.path, known, growing=not complete)}

    @property
    def complete(self) -> bool:
        """Whether the recording is finished."""
        return bool(self._root.attrs["complete"])

    def append(self, recording: Recording, states: PyTree = None) -> None:
        """Write one chunk and commit it.

        Args:
            recording: values `[trial, time, neuron]`; an array called `spikes` becomes events. An array whose last axis
                is not the neurons' gets an axis of its own name.
            states: simulator states within the chunk, each leaf `[trial, snapshot, ...]`; the last one must be the
                recording's final state. By default that state alone; data from elsewhere have none.

        Raises:
            StoreError: if the recording says another number of frames than its arrays have; nothing is written.
        """
        for name, values in recording.values.items():
            if np.ndim(values) < 2 or values.shape[1] != recording.frames:
                raise StoreError(
                    f"{self.path}: {name!r} is {np.shape(values)}; it must be [trial, time, neuron] with as many times "
                    f"as the recording has frames, {recording.frames}"
                )
        with naming(self.path):
            self._append(recording, states)

    def _append(self, recording: Recording, states: PyTree) -> None:
        """Write the arrays, then commit them."""
        checksums = {"time": self._grow(self._root, "time", ("time",), recording.time, unit="ms")}
        for name, values in recording.values.items():
            if name == "spikes":
                checksums |= self._append_events(recording)
            else:
                neurons = sum(self._populations.values()) or values.shape[2]
                names = ("trial", "time", "neuron" if values.shape[2] == neurons else f"{name}_index")
                checksums[name] = self._grow(self._root, name, names, np.asarray(values), unit=recording.units[name])
        if states is None:
            states = jax.tree.map(lambda x: x[:, None], recording.final_state)
        group, leaves = self._root.require_group("states"), state_leaves(states)
        for name, leaf in leaves.items():
            extra = tuple(f"{name}_{i}" for i in range(leaf.ndim - 2))
            found = self._grow(group, name, ("trial", "snapshot", *extra), np.asarray(leaf))
            checksums[f"states/{name}"] = found
        self.frames += recording.frames
        commit: dict[str, Any] = {"time": self.frames}
        if leaves:
            commit["snapshot"] = group[next(iter(leaves))].shape[1]  # pyright: ignore
        if "events" in self._root:
            commit["event"] = self._root["events"]["time"].shape[0]  # type: ignore[index]
        self._commits.append(commit | {"crc32c": checksums})
        self._commit(dt=recording.dt)

    def _append_events(self, recording: Recording) -> dict[str, int]:
        """Write spike counts as a list of events, in order of time; a count of two is two events."""
        counts = np.asarray(recording.values["spikes"])
        frame, trial, neuron = np.nonzero(counts.transpose(1, 0, 2))
        repeats = counts[trial, frame, neuron].astype(int)
        group = self._root.require_group("events")
        if "shape" not in group.attrs:  # silent trials and neurons have no events
            group.attrs["shape"] = [counts.shape[0], counts.shape[2]]
        columns = {"time": recording.time[frame], "trial": trial.astype(np.int32), "neuron": neuron.astype(np.int32)}
        units = {"time": "ms", "trial": "1", "neuron": "1"}
        return {
            f"events/{name}": self._grow(
                group, name, ("event",), np.repeat(column, repeats), unit=units[name], chunk=1 << 20
            )
            for name, column in columns.items()
        }

    def _grow(self, group, name, names, values, *, unit: str = "1", chunk: int | None = None) -> int:
        """Append along the growing dimension, the first piece creating the array; return the piece's checksum."""
        axis = next(i for i, n in enumerate(names) if n in _GROWING)
        if name in group:
            with zarr.config.set({"array.write_empty_chunks": True}):
                group[name].append(values, axis)
            return _checksum(values)
        # One appended chunk to a file, of one trial, which is then read without the others, or of many small ones.
        chunks = list(values.shape)
        if "trial" in names:
            trials = names.index("trial")
            chunks[trials] = max(1, min(chunks[trials], _FILE * chunks[trials] // max(values.nbytes, 1)))
        chunks[axis] = chunk or max(values.shape[axis], 1)
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(chunks),
            dimension_names=names,
            compressors=COMPRESSORS,
            fill_value=np.nan if values.dtype.kind == "f" else 0,
            attributes={"units": unit},
            config={"write_empty_chunks": True},
        )
        array[...] = values
        return _checksum(values)

    def finish(self) -> None:
        """Mark the recording as complete, once all of it has reached the disk."""
        with naming(self.path):
            if self._populations:
                labels = np.repeat(np.arange(len(self._populations)), list(self._populations.values())).astype(np.int8)
                names = " ".join(name.replace(" ", "_") for name in self._populations)
                meaning = {"flag_values": [*range(len(self._populations))], "flag_meanings": names}
                self._root.create_array(
                    "population",
                    data=labels,
                    dimension_names=("neuron",),
                    compressors=COMPRESSORS,
                    attributes={"units": "1", **meaning},  # as climate data name flags
                    overwrite=True,  # a killed process may have left it
                    config={"write_empty_chunks": True},
                )
            for leftover in self.path.rglob("*.partial"):
                remove(leftover)
            self._root = consolidate(self.path)
            flush(self.path)
            self._commit(complete=True)
            flush(self.path / "zarr.json")


def consolidate(path: Path) -> zarr.Group:
    """Gather the descriptions of all arrays at the root of a finished store, where other tools look for them first.

    Args:
        path: the store.

    Returns:
        Its root.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the standard does not have it yet
        return zarr.consolidate_metadata(path)


def whole_pieces(path: Path) -> tuple[int, int]:
    """Count the pieces of a store, finished or not, that are there as they were written, from the first on.

    Args:
        path: the store, whose root is not damaged.

    Returns:
        How many are whole, and how many were written.
    """
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    commits: Any = json.loads(str(root.attrs["committed"]))
    if store_damages(path, descriptions=True):
        return 0, len(commits)
    before: dict[str, int] = {}
    for k, commit in enumerate(commits):
        for name, checksum in commit["crc32c"].items():
            try:
                array: Any = root[name]
                names = array.metadata.dimension_names
                if _checksum(array[tuple(slice(before.get(n, 0), commit.get(n)) for n in names)]) != checksum:
                    return k, len(commits)
            except Exception:  # the codecs raise whatever they like
                return k, len(commits)
        before = {n: commit[n] for n in _GROWING if n in commit}
    return len(commits), len(commits)


def _checksum(values: np.ndarray) -> int:
    return google_crc32c.value(np.ascontiguousarray(values).tobytes())


def open_recording(path: Path | str) -> xr.Dataset:
    """Open a finished recording, lazily.

    Args:
        path: the store.

    Returns:
        The sampled arrays with the coordinate `time` [ms]; the attribute `dt` [ms], and `provenance`, as JSON (see
        `provenance_of`).

    Raises:
        StoreError: if the store is missing, unfinished, truncated, damaged, edited, or of another format.
    """
    path = Path(path)
    _open_root(path, under="")
    try:
        check_zarr(path)
        data = xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False)
    except Unreadable as error:
        raise StoreError(f"{path}: {error}; {remedy(path)}") from error
    except Exception as error:  # Zarr, its codecs and xarray raise whatever they like
        said = one_line(error, most=100)
        raise StoreError(
            f"{path}: damaged, the description of an array cannot be read ({said}); {remedy(path)}"
        ) from error
    _check_attributes(path, data)
    return data.set_coords([n for n in ("time", "population") if n in data])


def _check_attributes(path: Path, data: xr.Dataset) -> None:
    """Refuse a store, perhaps of elsewhere, whose root does not say what it must, or contradicts its arrays."""
    dt, time = data.attrs.get("dt"), data.get("time")
    if isinstance(dt, bool) or not isinstance(dt, int | float) or not 0 < dt < math.inf:
        raise StoreError(f"{path}: its attribute dt = {dt!r} must be a positive number of milliseconds; {remedy(path)}")
    if time is None or time.dims != ("time",):
        raise StoreError(f"{path}: has no times of its frames; {remedy(path)}")
    if len(time) > 1 and not np.allclose(np.diff(time.values), dt, rtol=1e-3):
        raise StoreError(f"{path}: its attribute dt = {dt:g} is not the time between its frames; {remedy(path)}")
    provenance_of(data, path)


def populations_of(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Say which neurons of a recording are of which population.

    Args:
        data: as `open_recording` opens it.

    Returns:
        A mask of the neurons for each population, by name; empty if the recording has none.
    """
    if "population" not in data:
        return {}
    labels, about = np.asarray(data["population"]), data["population"].attrs
    if "meaning" in about:  # of format 1
        return {title: labels == int(label) for label, title in about["meaning"].items()}
    titles = about["flag_meanings"].split()
    return {title: labels == i for i, title in zip(np.atleast_1d(about["flag_values"]), titles, strict=True)}


def provenance_of(data: xr.Dataset, path: Path | str = "") -> dict[str, Any]:
    """Say what made a recording, or a sweep.

    Args:
        data: as `open_recording`, `open_sweep` or xarray itself opens it.
        path: where it is, for messages.

    Returns:
        What was given to the `RecordingWriter`; of a simulation `simulation`, its configuration, and `seed`.

    Raises:
        StoreError: if it does not say.
    """
    try:
        found = json.loads(data.attrs["provenance"])
        if isinstance(found, dict):
            return found
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise StoreError(f"{path}: its attribute provenance must be a JSON object of what made it; {remedy(Path(path))}")


def require_whole(path: Path) -> None:
    """Read a finished recording through, and refuse it if anything in it is damaged.

    Args:
        path: the store.

    Raises:
        StoreError: with what is damaged, and the remedy.
    """
    _open_root(path, "", deep=True)


def _open_root(path: Path, under: str | None = None, *, deep: bool = False) -> zarr.Group:
    """Open the root group of a complete store, of which a part, or all, is as it was written."""
    if not path.exists():
        raise StoreError(f"{path}: no such recording; {remedy(path)}")
    try:
        root = zarr.open_group(path, mode="r", use_consolidated=False)
    except Exception as error:  # Zarr raises whatever it likes
        raise StoreError(f"{path}: not a Zarr store ({type(error).__name__}); {remedy(path)}") from error
    if (found := root.attrs.get("jneuro_format")) not in (1, FORMAT):
        raise StoreError(f"{path}: not a recording of jneuro's format {FORMAT}; {remedy(path)}")
    if (found == FORMAT or "seal" in root.attrs) and (damage := store_damages(path, under=under, deep=deep)):
        more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
        raise StoreError(f"{path}: damaged, {damage[0].path.relative_to(path)} {damage[0].what}{more}; {remedy(path)}")
    if not root.attrs.get("complete"):
        raise StoreError(f"{path}: unfinished, its simulation was stopped; go on with `jneuro run CONFIG --resume`")
    return root


def _read(path: Path, array: Any, name: str, selection: Any = ...) -> np.ndarray:
    """Read an array, and say which one if its bytes are damaged."""
    try:
        return np.asarray(array[selection])
    except Exception as error:  # the codecs raise whatever they like
        said = one_line(error, most=100)
        raise StoreError(f"{path}: '{name}' cannot be read ({said}); {remedy(path)}") from error


def read_recording(path: Path | str, names: Sequence[str] = ("v",)) -> Recording:
    """Read a finished recording, file by file into one block of memory for each array.

    Args:
        path: the store.
        names: which of the sampled arrays; `spikes` makes counts of the events.

    Returns:
        The recording, as NumPy arrays `[trial, time, neuron]`; without a final state (see `read_state`). `about` holds
        what the store says in words of its origin.

    Raises:
        StoreError: if the store is damaged or has no such array.
    """
    path, data = Path(path), open_recording(path)
    values = {}
    for name in names:
        if name == "spikes" and has_events(path):
            values[name] = _counts(path, data)
            continue
        if name not in data or data[name].dims != ("trial", "time", "neuron"):
            raise StoreError(f"{path}: has no sampled array '{name}'; it has {', '.join(sampled_arrays(data))}")
        array = zarr.open_array(path / name, mode="r")
        values[name] = np.empty(array.shape, array.dtype)
        together = array.chunks[0]
        for first in range(0, array.shape[0], together):
            trials = slice(first, first + together)
            values[name][trials] = _read(path, array, name, trials)
    units = {n: data[n].attrs["units"] if n in data else "1" for n in names}
    about = {key: said for key, said in provenance_of(data).items() if isinstance(said, str)}
    recording = from_arrays(dt=data.attrs["dt"], about=about, **values)
    first: Any = np.asarray(round(float(data.time[0]) / recording.dt) - 1)
    return dataclasses.replace(recording, first_step=first, unit_pairs=tuple(units.items()))


def sampled_arrays(data: xr.Dataset) -> list[str]:
    """The arrays of an opened recording that have the axes trial, time and neuron."""
    return [str(n) for n in data if data[n].dims == ("trial", "time", "neuron")]


def has_events(path: Path | str) -> bool:
    """Whether a finished recording, the store at `path`, holds spikes."""
    return "events" in _open_root(Path(path), "events")


def _counts(path: Path, data: xr.Dataset) -> np.ndarray:
    """Spikes in every frame."""
    time, trial, neuron = read_events(path)
    root: Any = zarr.open_group(path, mode="r")
    if (shape := root["events"].attrs.get("shape")) is None:  # of stores that were written before it was kept
        neurons = data.sizes["neuron"] if "neuron" in data.sizes else int(neuron.max(initial=-1)) + 1
        shape = data.sizes.get("trial") or root["states"]["step"].shape[0], neurons
    trials, neurons = shape
    counts = np.zeros((trials, data.sizes["time"], neurons), np.int32)
    frame = np.round((time - float(data.time[0])) / data.attrs["dt"]).astype(np.int64)
    np.add.at(counts, (trial, frame, neuron), 1)
    return counts


def read_events(path: Path | str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the spikes of a finished recording.

    Args:
        path: the store.

    Returns:
        Time [ms], trial and neuron of every spike, in order of time. The time is that of the frame in which it fell.

    Raises:
        StoreError: if the store is damaged or holds no spikes.
    """
    path = Path(path)
    root = _open_root(path, "events")
    if "events" not in root:
        raise StoreError(f"{path}: has no spikes")
    group = root["events"]
    return tuple(_read(path, group[n], f"events/{n}") for n in ("time", "trial", "neuron"))  # type: ignore[index]


def read_state(path: Path | str, like: PyTree, snapshots: Any = -1, *, complete: bool = True) -> PyTree:
    """Read stored simulator states.

    Args:
        path: a recording.
        like: a state of the same simulator, for its structure.
        snapshots: which of the stored states: an index, a slice or an array of indices.
        complete: whether the recording must be finished.

    Returns:
        The states, each leaf `[trial, ...]` or `[trial, snapshot, ...]`.

    Raises:
        StoreError: if the store holds no states, or those of another simulator.
    """
    path = Path(path)
    root = _open_root(path, "states") if complete else zarr.open_group(path, mode="r")
    names = list(state_leaves(like))
    if "states" not in root or any(n not in root["states"] for n in names):  # type: ignore[operator]
        raise StoreError(f"{path}: holds no states of this simulator ({', '.join(names)})")
    group = root["states"]
    leaves = [_read(path, group[n], f"states/{n}")[:, snapshots] for n in names]  # type: ignore[index]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
