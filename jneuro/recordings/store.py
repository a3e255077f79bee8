"""Recordings on disk: a Zarr store that xarray, and so every tool of the field, can open.

Layout: the root holds every sampled array as `[trial, time, neuron]`; the group `events` holds spikes as lists (time,
trial, neuron); the group `states` holds simulator states, from which a run can be continued. A store is written chunk
by chunk; its attribute `committed` is set last, so a fault costs the chunk under way and nothing before it.
"""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from jneuro.core.types import PyTree
from jneuro.recordings.recording import Recording, from_arrays

__all__ = [
    "FORMAT",
    "RecordingWriter",
    "StoreError",
    "consolidate",
    "has_events",
    "open_recording",
    "plain_attributes",
    "populations_of",
    "provenance_of",
    "read_events",
    "read_recording",
    "read_state",
    "sampled_arrays",
]

FORMAT = 1
"""Version of the layout."""

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
        self._provenance = json.dumps(provenance, sort_keys=True)
        self._populations = dict(populations or {})
        if not (path / "zarr.json").exists():
            self.frames = 0
            if path.exists() and not (path.is_dir() and all(f.suffix == ".partial" for f in path.iterdir())):
                raise StoreError(f"{path}: holds something else; choose another folder, or remove it")
            about = {"jneuro_format": FORMAT, "provenance": self._provenance, "complete": False, "committed": {}}
            self._root = zarr.open_group(path, mode="w", zarr_format=3, attributes=about)
            return
        self._root = zarr.open_group(path, mode="a", use_consolidated=False)
        if self._root.attrs.get("provenance") != self._provenance:
            raise StoreError(f"{path}: holds another recording; choose another folder, or remove this one")
        committed: Any = self._root.attrs["committed"]
        for _, array in self._root.members(max_depth=None):
            if isinstance(array, zarr.Array):
                names = array.metadata.dimension_names or ()  # type: ignore[union-attr]
                shape = (committed.get(n, 0) if n in _GROWING else s for n, s in zip(names, array.shape, strict=True))
                array.resize(tuple(shape))
        self.frames = int(committed.get("time", 0))

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
        self._grow(self._root, "time", ("time",), recording.time, unit="ms")
        for name, values in recording.values.items():
            if name == "spikes":
                self._append_events(recording)
            else:
                neurons = sum(self._populations.values()) or values.shape[2]
                names = ("trial", "time", "neuron" if values.shape[2] == neurons else f"{name}_index")
                self._grow(self._root, name, names, np.asarray(values), unit=recording.units[name])
        if states is None:
            states = jax.tree.map(lambda x: x[:, None], recording.final_state)
        group, leaves = self._root.require_group("states"), state_leaves(states)
        for name, leaf in leaves.items():
            extra = tuple(f"{name}_{i}" for i in range(leaf.ndim - 2))
            self._grow(group, name, ("trial", "snapshot", *extra), np.asarray(leaf))
        self.frames += recording.frames
        lengths = {"time": self.frames}
        if leaves:
            lengths["snapshot"] = group["step"].shape[1]  # pyright: ignore
        if "events" in self._root:
            lengths["event"] = self._root["events"]["time"].shape[0]  # type: ignore[index]
        self._root.attrs.update({"committed": lengths, "dt": recording.dt})

    def _append_events(self, recording: Recording) -> None:
        """Write spike counts as a list of events, in order of time; a count of two is two events."""
        counts = np.asarray(recording.values["spikes"])
        frame, trial, neuron = np.nonzero(counts.transpose(1, 0, 2))
        repeats = counts[trial, frame, neuron].astype(int)
        group = self._root.require_group("events")
        if "shape" not in group.attrs:  # silent trials and neurons have no events
            group.attrs["shape"] = [counts.shape[0], counts.shape[2]]
        columns = {"time": recording.time[frame], "trial": trial.astype(np.int32), "neuron": neuron.astype(np.int32)}
        for name, column in columns.items():
            unit = "ms" if name == "time" else "1"
            self._grow(group, name, ("event",), np.repeat(column, repeats), unit=unit, chunk=1 << 20)

    def _grow(self, group, name, names, values, *, unit: str = "1", chunk: int | None = None) -> None:
        """Append along the growing dimension; the first chunk creates the array."""
        axis = next(i for i, n in enumerate(names) if n in _GROWING)
        if name in group:
            with zarr.config.set({"array.write_empty_chunks": True}):
                group[name].append(values, axis)
            return
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
            compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=np.nan if values.dtype.kind == "f" else 0,
            attributes={"units": unit},
            config={"write_empty_chunks": True},
        )
        array[...] = values

    def finish(self) -> None:
        """Mark the recording as complete."""
        if self._populations:
            labels = np.repeat(np.arange(len(self._populations)), list(self._populations.values())).astype(np.int8)
            meaning = {str(i): name for i, name in enumerate(self._populations)}
            self._root.create_array(
                "population",
                data=labels,
                dimension_names=("neuron",),
                attributes={"units": "1", "meaning": meaning},
                overwrite=True,  # a killed process may have left it
                config={"write_empty_chunks": True},
            )
        self._root = consolidate(self.path)
        self._root.attrs.update({"complete": True})


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


def open_recording(path: Path | str) -> xr.Dataset:
    """Open a finished recording, lazily.

    Args:
        path: the store.

    Returns:
        The sampled arrays with the coordinate `time` [ms]; attributes `dt` [ms] and `provenance` (JSON; see
        `provenance_of`). All attributes are such that netCDF takes them: `open_recording(path).to_netcdf("a.nc")`.

    Raises:
        StoreError: if the store is missing, unfinished, truncated, or of another format.
    """
    path = Path(path)
    root = _open_root(path)
    try:
        members = root.members(max_depth=None)
    except ValueError as error:
        raise StoreError(f"{path}: the description of an array cannot be read ({error}); {_REMEDY}") from error
    for name, array in members:
        if isinstance(array, zarr.Array) and array.nchunks_initialized < array.nchunks:
            missing = array.nchunks - array.nchunks_initialized
            raise StoreError(
                f"{path}: truncated, {missing} of {array.nchunks} chunks of '{name}' are missing; {_REMEDY}"
            )
    data = plain_attributes(xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False))
    return data.set_coords([n for n in ("time", "population") if n in data])


def plain_attributes(data: xr.Dataset) -> xr.Dataset:
    """Write attributes that netCDF does not have as JSON: nests, truths, and lists of words.

    Args:
        data: a dataset; it is changed.

    Returns:
        The same dataset.
    """
    for attributes in (data.attrs, *(data[name].attrs for name in data.variables)):
        for key, value in attributes.items():
            words = isinstance(value, list | tuple) and any(isinstance(x, str) for x in value)
            if words or value is None or isinstance(value, bool | dict):
                attributes[key] = json.dumps(value)
    return data


def provenance_of(data: xr.Dataset) -> dict[str, Any]:
    """What made a recording or a sweep.

    Args:
        data: an opened store.
    """
    return json.loads(data.attrs["provenance"])


def populations_of(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Which neurons belong to which population.

    Args:
        data: an opened recording.

    Returns:
        For every population, in their order, whether each neuron is one of it; empty where no populations are known.
    """
    if "population" not in data:
        return {}
    label, meaning = np.asarray(data["population"]), json.loads(data["population"].attrs["meaning"])
    return {name: label == int(number) for number, name in meaning.items()}


_REMEDY = "make it anew with `jneuro simulate`, or restore it from a copy"
_ELSEWHERE = f"{_REMEDY}; what another program wrote is read by a reader, `jn.recordings.read(path, reader=…)`"


def _open_root(path: Path) -> zarr.Group:
    """Open the root group of a complete store."""
    if not path.exists():
        raise StoreError(f"{path}: no such recording; {_REMEDY}")
    try:
        root = zarr.open_group(path, mode="r", use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: not a Zarr store ({type(error).__name__}); {_ELSEWHERE}") from error
    if root.attrs.get("jneuro_format") != FORMAT:
        raise StoreError(f"{path}: not a recording of jneuro's format {FORMAT}; {_ELSEWHERE}")
    if not root.attrs.get("complete"):
        raise StoreError(f"{path}: unfinished, its simulation was stopped; go on with `jneuro run ... --resume`")
    return root


def _read(path: Path, array: Any, name: str, selection: Any = ...) -> np.ndarray:
    """Read an array, and say which one if its bytes are damaged."""
    try:
        return np.asarray(array[selection])
    except Exception as error:  # the codecs raise whatever they like
        raise StoreError(f"{path}: '{name}' cannot be read ({error}); {_REMEDY}") from error


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
    recording = from_arrays(dt=data.attrs["dt"], units=units, about=about, **values)
    first: Any = np.asarray(round(float(data.time[0]) / recording.dt) - 1)
    return dataclasses.replace(recording, first_step=first)


def sampled_arrays(data: xr.Dataset) -> list[str]:
    """The arrays of an opened recording that have the axes trial, time and neuron."""
    return [str(n) for n in data if data[n].dims == ("trial", "time", "neuron")]


def has_events(path: Path | str) -> bool:
    """Whether a finished recording, the store at `path`, holds spikes."""
    return "events" in _open_root(Path(path))


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
    root = _open_root(path)
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
    root = _open_root(path) if complete else zarr.open_group(path, mode="r")
    names = list(state_leaves(like))
    if "states" not in root or any(n not in root["states"] for n in names):  # type: ignore[operator]
        raise StoreError(f"{path}: holds no states of this simulator ({', '.join(names)})")
    group = root["states"]
    leaves = [_read(path, group[n], f"states/{n}")[:, snapshots] for n in names]  # type: ignore[index]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
