"""What the descriptions in a Zarr store promise, held against its files before anything of it is read.

A few bytes of JSON may declare an array of any size, and a chunk may unpack to more than its array declares; Zarr
believes both. Here only the descriptions and the first bytes of every chunk are looked at.
"""

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jneuro.core.guard import Unreadable, check_memory, read_json
from jneuro.core.names import one_line

__all__ = ["check_zarr"]

_CODECS = ("blosc", "bytes", "crc32c", "zstd")
"""What our stores are written with; others may execute code, or unpack to any size."""
_SIZES = {"bool": 1, "float16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
_SIZES |= {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DEEP = 8
"""Groups within groups."""


def check_zarr(path: Path) -> dict[str, int]:
    """Refuse a store of format 3 whose descriptions do not fit its files.

    Args:
        path: the store.

    Returns:
        Size of each array in memory by its name, such as `events/time` [bytes].

    Raises:
        Unreadable: naming the array, and what is wrong with it.
    """
    if not path.is_dir():
        return {}  # who opens it will say so
    try:
        return dict(_check(path, tuple((file, file.stat().st_mtime_ns) for file in _descriptions(path))))
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror}: {error.filename})") from error


def _descriptions(folder: Path, deep: int = 0) -> Iterator[Path]:
    """The descriptions of a store's root and members."""
    if (folder / "zarr.json").exists():
        yield folder / "zarr.json"
    if deep < _DEEP and not (folder / "c").is_dir():
        for inner in sorted(f for f in folder.iterdir() if f.is_dir()):
            yield from _descriptions(inner, deep + 1)


@functools.lru_cache(maxsize=64)
def _check(path: Path, files: tuple[tuple[Path, int], ...]) -> tuple[tuple[str, int], ...]:
    """Check a store, once as long as its descriptions stay as they are."""
    sizes = {}
    for file, _ in files:
        name = "/".join(file.parent.relative_to(path).parts) or "the root"
        try:
            about = read_json(file)
            if not isinstance(about, dict) or about.get("node_type") not in ("array", "group"):
                raise Unreadable("is none of Zarr's, format 3")
            if not isinstance(about.get("attributes", {}), dict):
                raise Unreadable("has attributes that are no mapping")
            if about["node_type"] == "array":
                sizes[name] = _check_array(file.parent, about)
        except Unreadable as error:
            raise Unreadable(f"damaged: the description of {one_line(name, most=60)!r} {error}") from error
    return tuple(sizes.items())


def _check_array(folder: Path, about: dict[str, Any]) -> int:
    try:
        shape, chunks = about["shape"], about["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec if isinstance(codec, str) else codec["name"] for codec in about["codecs"]]
        size = _SIZES[about["data_type"]]
        whole = all(type(n) is int and n >= 0 for n in shape) and all(type(n) is int and n > 0 for n in chunks)
        if not whole or len(shape) != len(chunks):
            raise Unreadable(f"has the shape {one_line(shape, most=60)} in chunks of {one_line(chunks, most=60)}")
    except (KeyError, TypeError) as error:
        raise Unreadable(f"cannot be understood ({one_line(repr(error), most=80)})") from error
    if unknown := [c for c in codecs if c not in _CODECS]:
        raise Unreadable(f"names the codec {one_line(unknown[0], most=40)!r}; read are {', '.join(_CODECS)}")
    bytes_ = size * math.prod(chunks)
    check_memory("chunks", bytes_)
    count, found = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)), 0
    for at, _, names in os.walk(folder / "c"):
        for name in (n for n in names if not n.endswith(".partial")):  # which a killed writer leaves
            found += not name.startswith(".")
            _check_chunk(Path(at, name), codecs, bytes_)
    if count > found:
        raise Unreadable(f"declares {count} chunks, of which {found} are there")
    return size * math.prod(shape)


def _check_chunk(file: Path, codecs: list[str], expected: int) -> None:
    """Refuse a chunk that would unpack to another size than its array declares."""
    with file.open("rb") as chunk:
        head = chunk.read(18)
    declared = expected
    if "blosc" in codecs:
        declared = int.from_bytes(head[4:8], "little")
    elif "zstd" in codecs:
        declared = _zstd_size(head)
    if declared != expected:
        raise Unreadable(f"has a chunk, {file.name!r}, that unpacks to {declared} bytes; {expected} are declared")


def _zstd_size(head: bytes) -> int:
    """The size that a frame of Zstandard declares (RFC 8878, 3.1.1.1); -1 if it does not."""
    if len(head) < 6:
        return -1
    flag, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    start, width = 5 + (not single) + (0, 1, 2, 4)[dictionary], (single, 2, 4, 8)[flag]
    return int.from_bytes(head[start : start + width], "little") + 256 * (flag == 1) if width else -1
