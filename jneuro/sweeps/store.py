"""The results of a sweep on disk: a Zarr store whose dimensions are what was varied, written region by region.

The store is laid out whole before anything is computed: its labels, and its arrays, all cut into the same chunks. A
chunk is some points that are done together. The array `chunk_checksums` has a row for each, with its place and its
checksum in every array, written last: a chunk is done when its row is there and agrees. Nothing else records what is
done. So the bytes of a finished store depend on the design alone, and any number of processes may write, each its own
chunks.
"""

import json
import math
import os
import textwrap
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from jneuro.core.files import flush, naming, remove, written
from jneuro.core.seals import chunk_row, read_row, remedy, store_damages, store_seal
from jneuro.recordings.store import COMPRESSORS, StoreError, consolidate, provenance_of

__all__ = ["SWEEP_FORMAT", "Labelled", "Layout", "SweepStore", "open_sweep"]

SWEEP_FORMAT = 2
"""Version of the layout; one of format 1, which has no seal, can still be opened."""

_EVERY_CHUNK = {"array.write_empty_chunks": True}
"""A chunk of nothing but the fill value is a chunk, too."""

_ROWS = "chunk_checksums"


class Layout(NamedTuple):
    """How the points of a sweep are cut into chunks.

    Attributes:
        sizes: name and size of every dimension, the last running fastest.
        block: size of a chunk along each.
    """

    sizes: dict[str, int]
    block: tuple[int, ...]

    @classmethod
    def cut(cls, sizes: Mapping[str, int], wanted: int) -> "Layout":
        """Cut into chunks of about so many points: whole dimensions from the last one on, then a part of one."""
        block, room = [], max(wanted, 1)
        for size in reversed(list(sizes.values())):
            parts = math.ceil(size / min(size, room))
            block.append(math.ceil(size / parts))
            room //= size
            room = max(room, 1) if parts == 1 else 1
        return cls(dict(sizes), tuple(reversed(block)))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(math.ceil(s / b) for s, b in zip(self.sizes.values(), self.block, strict=True))

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return math.prod(self.counts)

    def place(self, chunk: int) -> tuple[int, ...]:
        """A chunk's place along each dimension."""
        return tuple(int(i) for i in np.unravel_index(chunk, self.counts))

    def region(self, chunk: int) -> tuple[slice, ...]:
        """A chunk's part of each dimension."""
        corners = zip(self.place(chunk), self.block, self.sizes.values(), strict=True)
        return tuple(slice(i * b, min((i + 1) * b, size)) for i, b, size in corners)

    def points(self, chunk: int) -> np.ndarray:
        """The indices of a chunk's points, in order."""
        index = np.ix_(*(np.arange(s.start, s.stop) for s in self.region(chunk)))
        return np.ravel_multi_index(index, tuple(self.sizes.values())).reshape(-1)


Labelled = Mapping[str, tuple[tuple[str, ...], Any, dict[str, Any]]]
"""Name to dimensions, values or something of their shape and type, and attributes."""


class SweepStore:
    """The results of a sweep, finished or not."""

    def __init__(
        self, path: Path, layout: Layout, quantities: Labelled, coords: Labelled, provenance: Mapping[str, Any]
    ) -> None:
        """Lay out a store, or find the one that another process, or an earlier one, has laid out.

        Args:
            path: the folder that is, or will be, the store.
            layout: how points are cut into chunks.
            quantities: what is stored of every point: its own dimensions, its shape and type, attributes.
            coords: labels: their dimensions, values and attributes.
            provenance: what makes the results; JSON values only.

        Raises:
            StoreError: if the folder holds something else, or the results of another sweep.
        """
        text = json.dumps(provenance, sort_keys=True)
        what = layout, quantities, coords, text
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            with zarr.config.set(_EVERY_CHUNK), written(path, first=True) as fresh:
                _lay_out(fresh, *what)
        if store_damages(path, under=None):
            _require_ours(path, {*quantities, *coords, _ROWS})
        else:
            _require_same(path, text)
        if any(store_damages(path, deep=True, under=name) for name in (*quantities, *coords, _ROWS)):
            _restore(path, *what)
        self.path, self.layout = path, layout
        self._further = {name: len(like.shape) for name, (_, like, _) in sorted(quantities.items())}
        self._provenance = text
        root: Any = zarr.open_group(path, mode="r+", use_consolidated=False)
        with zarr.config.set(_EVERY_CHUNK):  # an array keeps what is set when it is opened
            self._arrays = {name: root[name] for name in [*quantities, _ROWS]}

    def done(self, chunk: int) -> bool:
        """Whether a chunk is there, in its place."""
        place = self.layout.place(chunk)
        return read_row(self.path, _ROWS, place) == chunk_row(self.path, self._further, place, self._provenance)

    def failures(self, chunk: int) -> int | None:
        """Number of points of a chunk that failed; None if it is not there, or its bytes are damaged."""
        if not self.done(chunk):
            return None
        region = self.layout.region(chunk)
        try:
            found = {name: np.asarray(self._arrays[name][region]) for name in self._further}
        except Exception:  # the codecs raise whatever they like
            return None
        return int(np.count_nonzero(~found["ok"]))

    def write(self, chunk: int, results: Mapping[str, np.ndarray]) -> None:
        """Write a chunk: every quantity's `[point, ...]`, points in the order of `Layout.points`."""
        region, place = self.layout.region(chunk), self.layout.place(chunk)
        shape = tuple(s.stop - s.start for s in region)
        with naming(self.path):
            for name, values in results.items():
                self._arrays[name][region] = values.reshape(*shape, *values.shape[1:])
            self._arrays[_ROWS][place] = np.asarray(
                chunk_row(self.path, self._further, place, self._provenance), np.uint32
            )

    def tidy(self) -> None:
        """Remove what killed processes left, and wait for the disk; for when all chunks are there."""
        for leftover in [*self.path.rglob("*.partial"), *self.path.parent.glob(f".{self.path.name}.*")]:
            remove(leftover)
        flush(self.path)


def _require_ours(path: Path, names: set[str]) -> None:
    """Refuse a folder whose root says nothing, unless all that is in it is of the sweep that is to be stored there.

    Chunks of another sweep with the same names are no danger: their rows say so.
    """
    there = {f.name for f in path.iterdir()} if path.is_dir() else {""}
    strangers = {n for n in there - names - {"zarr.json"} if not n.endswith(".partial")}
    if strangers or _ROWS not in there:
        raise StoreError(
            f"{path}: holds something else than a sweep of this format; choose another folder, or remove it"
        )


def _require_same(path: Path, text: str) -> None:
    """Refuse the results of another sweep."""
    attributes = _root(path).attrs
    if attributes.get("jneuro_sweep_format") != SWEEP_FORMAT:
        raise StoreError(f"{path}: holds something else than a sweep; choose another folder, or remove it")
    if attributes.get("provenance") == text:
        return
    there, wanted = json.loads(str(attributes.get("provenance"))), json.loads(text)
    code = [there.pop("code"), wanted.pop("code")]
    if differs := _difference(there, wanted):
        what = f"design, which differs in {differs}"
    else:
        parts = [name for name in code[0] | code[1] if code[0].get(name) != code[1].get(name)]
        changed = f"the source of its {', '.join(parts)}, or of a module that it imports, has changed"
        what = f"code: {changed}"
    raise StoreError(f"{path}: holds a sweep of another {what}; choose another folder, or remove this one")


def _restore(path: Path, *what: Any) -> None:
    """Write anew, in a store whose chunks stay, what is laid out: labels and descriptions, the same bytes again."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with zarr.config.set(_EVERY_CHUNK):
            _lay_out(fresh, *what)
        flush(fresh)
        for file in sorted(f for f in fresh.rglob("*") if f.is_file()):
            target = path / file.relative_to(fresh)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    finally:
        remove(fresh)


def _lay_out(path: Path, layout: Layout, quantities: Labelled, coords: Labelled, provenance: str) -> None:
    """Write everything but the results; equal designs give equal bytes."""
    known = {"jneuro_sweep_format": SWEEP_FORMAT, "provenance": provenance}
    root = zarr.create_group(path, zarr_format=3, attributes=known)
    for name, (dims, values, attributes) in coords.items():
        about = {"dimension_names": dims, "attributes": attributes, "chunks": values.shape}
        root.create_array(name, data=values, compressors=COMPRESSORS, **about)
    for name, (dims, like, attributes) in quantities.items():
        root.create_array(
            name,
            shape=(*layout.sizes.values(), *like.shape),
            dtype=like.dtype,
            chunks=(*layout.block, *like.shape),
            dimension_names=(*layout.sizes, *dims),
            compressors=COMPRESSORS,
            fill_value={"f": np.nan, "T": ""}.get(np.dtype(like.dtype).kind, 0),
            attributes=attributes,
        )
    words = 1 + len(quantities)
    root.create_array(
        _ROWS,
        shape=(*layout.counts, words),
        dtype=np.uint32,
        chunks=(*[1] * len(layout.counts), words),
        dimension_names=(*(f"{name}_chunk" for name in layout.sizes), "checksum"),
        compressors=(Crc32cCodec(),),  # read without Zarr
        fill_value=0,
    )
    root = consolidate(path)
    root.update_attributes(known | {"seal": store_seal(path, known, later=sorted(quantities), rows=_ROWS)})


def _difference(there: Any, wanted: Any, key: str = "") -> str:
    """The first key in which two nests differ; empty if they do not."""
    if there == wanted:
        return ""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for name in dict.fromkeys([*wanted, *there]):
            if there.get(name) != wanted.get(name):
                return _difference(there.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    said = [textwrap.shorten(str(value), 40, placeholder="...") for value in (there, wanted)]
    return f"{key} ({said[0]}, not {said[1]})"


def _root(path: Path) -> zarr.Group:
    try:
        return zarr.open_group(path, mode="r", use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path}: no store of a sweep ({type(error).__name__}); make it with `jneuro sweep`"
        ) from error


def open_sweep(path: Path | str, *, complete: bool = True) -> xr.Dataset:
    """Open the results of a sweep, lazily and labelled.

    Args:
        path: the store.
        complete: whether all points must be there; otherwise `ok` is False, and floats are NaN, where they are not.

    Returns:
        What was measured, and raw traces if they were kept. Dimensions are the axes of a grid, or else `point`, along
        which the axes are coordinates; then `seed`, if there are several; then a quantity's own. `ok` says which
        points stayed finite. `provenance_of` says what made them; `to_netcdf` writes them.

    Raises:
        StoreError: if the store is missing, unfinished, damaged, or no sweep.
    """
    path = Path(path)
    root = _root(path)
    if (found := root.attrs.get("jneuro_sweep_format")) not in (1, SWEEP_FORMAT):
        raise StoreError(f"{path}: not a sweep of jneuro's format {SWEEP_FORMAT}; make it with `jneuro sweep`")
    sealed = found == SWEEP_FORMAT or "seal" in root.attrs
    if complete and not sealed:
        _require_chunks(path, root)
    damage = store_damages(path, finished=complete) if sealed else []
    if gone := [f for f in damage if f.what == "is missing" and f.path.relative_to(path).parts[0] == _ROWS]:
        chunks = math.prod(root[_ROWS].shape[:-1])  # pyright: ignore
        said = f"unfinished, {len(gone)} of {chunks} chunks are missing"
        raise StoreError(f"{path}: {said}; go on with `jneuro sweep ... --resume`, or open it with complete=False")
    if damage:
        more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
        said = f"damaged, {damage[0].path.relative_to(path)} {damage[0].what}{more}"
        raise StoreError(f"{path}: {said}; {remedy(path, 'sweep CONFIG')}")
    data = xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False).drop_vars(_ROWS, errors="ignore")
    provenance_of(data, path)
    return data.set_coords([str(n) for n in data if data[n].attrs.get("role") == "axis"])


def _require_chunks(path: Path, root: zarr.Group) -> None:
    """Refuse a store without a seal of which chunks are missing."""
    for name, array in root.members():
        if isinstance(array, zarr.Array) and array.nchunks_initialized < array.nchunks:
            missing = array.nchunks - array.nchunks_initialized
            said = f"unfinished, {missing} of {array.nchunks} chunks of '{name}' are missing"
            raise StoreError(f"{path}: {said}; open it with complete=False")
