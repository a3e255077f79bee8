"""Seals: checksums of what is finished, each with its place, by which damage is found and named.

A seal of files is a dictionary, file → CRC32C. A seal of a Zarr store stands in its root's attribute `seal`: a checksum
of every root attribute, of the description of every array and group, and of every chunk. The last codec of our arrays
appends the chunk's CRC32C to its file, so that four bytes of each file tell whether the right chunk is in the right
place, and reading all of it whether it is whole.

Several processes may write a store, each its own chunks, as sweeps do: then the last array to be written holds a row
for each chunk, with its place and its checksums in all arrays, and a chunk is there when its row is.
"""

import functools
import itertools
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from jneuro.core.files import write_text

__all__ = [
    "Finding",
    "again",
    "chunk_row",
    "digest",
    "digits",
    "is_store",
    "last_word",
    "read_row",
    "remedy",
    "seal",
    "seal_store",
    "store_damages",
    "store_seal",
    "unlike",
]

_BLOCK = 1 << 22
_MOST_CHUNKS = 10**7


class Finding(NamedTuple):
    """What is wrong with a file.

    Attributes:
        path: the file.
        what: what is wrong with it, such as "is missing".
        remedy: what mends it.
    """

    path: Path
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")


def _checksum(path: Path, without: int = 0) -> str:
    """CRC32C of a file, without its last bytes, as eight hexadecimal digits."""
    about = path.stat()
    return _checksum_of(path, without, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@functools.lru_cache(1 << 16)
def _checksum_of(path: Path, without: int, inode: int, size: int, *_: int) -> str:
    """As `_checksum`; a file that nobody has touched since is read once in a process."""
    found, left = 0, size - without
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            found, left = google_crc32c.extend(found, block), left - len(block)
    return f"{found:08x}"


def digits(value: Any) -> str:
    """CRC32C of a value that JSON knows, as eight hexadecimal digits.

    Args:
        value: the value.
    """
    return f"{google_crc32c.value(json.dumps(value, sort_keys=True).encode()):08x}"


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store, whose root seals all within it.

    Args:
        path: the folder.
    """
    return (path / "zarr.json").is_file()


def seal(path: Path) -> dict[str, str]:
    """Take the checksums of a file, or of all files of a folder; of a Zarr store, of its root alone.

    Args:
        path: what; it need not exist.

    Returns:
        File, relative to `path`, to checksum.
    """
    if is_store(path):
        return {"zarr.json": _checksum(path / "zarr.json")}
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return {f.relative_to(path).as_posix(): _checksum(f) for f in files}


def digest(path: Path) -> str:
    """One number for all that is at a path, so that a change of it is noticed.

    Args:
        path: a file, a folder or a store.
    """
    return digits(seal(path))


def unlike(path: Path, sealed: Mapping[str, str], *, deep: bool = True) -> list[Finding]:
    """Find what is no longer as it was sealed.

    Args:
        path: a file, a folder or a store.
        sealed: what `seal` said of it when it was finished.
        deep: whether all chunks of a store are read, too.
    """
    if list(sealed) == ["zarr.json"] and not is_store(path):
        return [Finding(path / "zarr.json", "is missing")]
    now = seal(path)
    found = [Finding(path / _top(name, now), "is missing") for name in sealed if name not in now]
    found += [Finding(path / _top(name, sealed), "does not belong here") for name in now if name not in sealed]
    found += [Finding(path / n, "is not what was written") for n in sealed if now.get(n, sealed[n]) != sealed[n]]
    found = [*dict.fromkeys(found)]
    return found + (store_damages(path, deep=deep) if is_store(path) and not found else [])


def _top(name: str, known: Mapping[str, str]) -> str:
    """The outermost folder of a file that has no file that is known; the file itself if each has one."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth])
        if not any(other.startswith(f"{folder}/") for other in known):
            return folder
    return name


# Stores --------------------------------------------------------------------------------------------------------------


def _description(path: Path) -> dict[str, Any]:
    """The description of an array or a group."""
    about = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError("no description")
    return about


def _shapeless(about: Mapping[str, Any]) -> str:
    """Checksum of a description but for the shape, which grows."""
    return digits({k: v for k, v in about.items() if k != "shape"})


def _members(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Arrays and groups within a group, with their descriptions."""
    for inner in sorted(path.iterdir()):
        if (inner / "zarr.json").is_file():
            yield inner, (about := _description(inner))
            if about["node_type"] == "group":
                yield from _members(inner)


def _counts(about: Mapping[str, Any]) -> list[int]:
    """Number of chunks along each axis."""
    chunks = about["chunk_grid"]["configuration"]["chunk_shape"]
    return [-(-size // chunk) for size, chunk in zip(about["shape"], chunks, strict=True)]


def _files(array: Path, counts: list[int]) -> Iterator[Path]:
    """Files of the chunks, in order."""
    for index in itertools.product(*map(range, counts)):
        yield array.joinpath("c", *map(str, index))


def last_word(file: Path) -> str:
    """The checksum that the codec has written at the end of a chunk; empty if it has none.

    Args:
        file: of the chunk.

    Returns:
        Eight hexadecimal digits.
    """
    try:
        with file.open("rb") as bytes_:
            bytes_.seek(-4, 2)
            return bytes_.read()[::-1].hex()  # little-endian
    except OSError:
        return ""


def store_seal(
    path: Path, attributes: Mapping[str, Any], *, growing: bool = False, later: Sequence[str] = (), rows: str = ""
) -> str:
    """Take the seal of a store.

    Args:
        path: the store.
        attributes: of its root.
        growing: whether it is unfinished: then shapes and chunks are left out.
        later: arrays whose chunks are still to be written, in the order in which `rows` has their checksums.
        rows: the array that has them.

    Returns:
        The value of the attribute `seal`.

    Raises:
        FileNotFoundError: if a chunk is missing.
    """
    members: dict[str, list[Any]] = {}
    for member, about in _members(path):
        members[member.relative_to(path).as_posix()] = entry = [_shapeless(about)]
        if about["node_type"] == "array" and not growing:
            if member.name in (*later, rows):
                entry.append(about["shape"])
                continue
            words = {chunk: last_word(chunk) for chunk in _files(member, _counts(about))}
            if gone := [chunk for chunk, word in words.items() if not word]:
                raise FileNotFoundError(2, "vanished while the store was written", str(gone[0]))
            entry += [about["shape"], "".join(words.values())]
    known = {k: digits(v) for k, v in attributes.items() if k != "seal"}
    said = {"attributes": known, "later": list(later), "members": members, "rows": rows}
    return json.dumps(said if growing else said | {"root": _rest(_description(path))}, sort_keys=True)


def _rest(root: Mapping[str, Any]) -> str:
    """Checksum of what a root says beside its attributes, such as the descriptions that are gathered there."""
    return digits({k: v for k, v in root.items() if k != "attributes"})


def seal_store(path: Path) -> None:
    """Write the seal of a store that is finished.

    Args:
        path: the store; its arrays end with the codec CRC32C, and have all their chunks.
    """
    root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    root["attributes"] = root.get("attributes", {}) | {"seal": store_seal(path, root.get("attributes", {}))}
    write_text(path / "zarr.json", json.dumps(root, indent=2))


def chunk_row(path: Path, arrays: Mapping[str, int], place: Sequence[int], provenance: str) -> list[int]:
    """Take the checksums of a chunk in several arrays.

    Args:
        path: the store.
        arrays: their names, and how many further axes, of one chunk, each has.
        place: the chunk's.
        provenance: what makes the store.

    Returns:
        What stands for its place in this store; then a checksum an array, 0 where the chunk is missing.
    """
    files = [_chunk_file(path / name, place, more) for name, more in arrays.items()]
    return [int(digits([provenance, *place]), 16), *(int(last_word(file) or "0", 16) for file in files)]


def _chunk_file(array: Path, place: Sequence[int], more: int) -> Path:
    return array.joinpath("c", *map(str, place), *["0"] * more)


def read_row(path: Path, rows: str, place: Sequence[int]) -> list[int]:
    """Read what a row says; empty if it is missing or damaged.

    Args:
        path: the store.
        rows: the array of checksums, which is not compressed.
        place: the chunk's.
    """
    file = path.joinpath(rows, "c", *map(str, place), "0")
    if not (word := last_word(file)) or _checksum(file, 4) != word:
        return []
    content = file.read_bytes()[:-4]
    return [int.from_bytes(content[i : i + 4], "little") for i in range(0, len(content), 4)]


def store_damages(
    path: Path, *, deep: bool = False, under: str | None = "", descriptions: bool = False, finished: bool = True
) -> list[Finding]:
    """Find what of a sealed store is missing, damaged, edited, or in another's place.

    Args:
        path: the store.
        deep: whether all chunks are read; else their place and presence are looked at, and what is damaged within is
            found by the codec when it is read.
        under: only this array or group, beside the root's attributes; None looks at these alone.
        descriptions: whether arrays may be longer than they were when the seal was taken, and chunks are not looked at.
        finished: whether every row must be there, where chunks have rows.
    """
    try:
        root = _description(path)
        attributes = root["attributes"]
        sealed = json.loads(attributes["seal"])
        known, members = dict(sealed["attributes"]), {str(k): list(v) for k, v in sealed["members"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return [Finding(path / "zarr.json", "is damaged")]
    found = [
        Finding(path / "zarr.json", f"its attribute '{key}' has been edited since it was written")
        for key, checksum in known.items()
        if checksum != digits(attributes.get(key))
    ]
    if not descriptions and sealed.get("root", _rest(root)) != _rest(root):
        found.append(Finding(path / "zarr.json", "is not what was written"))
    for name, entry in members.items() if under is not None else ():
        if not under or name == under or name.startswith(f"{under}/"):
            found += _member_damages(path / name, entry[:1] if descriptions else entry, deep)
    if under == "" and sealed.get("rows") and not descriptions and not found:
        found = _row_damages(path, sealed["rows"], sealed["later"], attributes["provenance"], deep, finished)
    return found


def _row_damages(
    path: Path, rows: str, names: Sequence[str], provenance: str, deep: bool, finished: bool
) -> list[Finding]:
    """What is wrong with chunks that have rows."""
    found, counts = [], _description(path / rows)["shape"][:-1]
    if math.prod(counts) > _MOST_CHUNKS:  # as a store from elsewhere may say
        return [Finding(path / rows / "zarr.json", "cannot have so many chunks")]
    arrays = {name: len(_description(path / name)["shape"]) - len(counts) for name in names}
    for place in itertools.product(*map(range, counts)):
        row, file = read_row(path, rows, place), path.joinpath(rows, "c", *map(str, place), "0")
        if not row and (finished or file.exists()):
            found.append(Finding(file, "is damaged" if file.exists() else "is missing"))
        if not row:
            continue
        now = chunk_row(path, arrays, place, provenance)
        if row[0] != now[0]:
            found.append(Finding(file, "is another chunk than was written here"))
            continue
        for (name, more), then, word in zip(arrays.items(), row[1:], now[1:], strict=True):
            chunk = _chunk_file(path / name, place, more)
            if then != word or (deep and _checksum(chunk, 4) != f"{word:08x}"):
                found.append(Finding(chunk, _fault(chunk)))
    return found


def _member_damages(member: Path, entry: list[Any], deep: bool) -> list[Finding]:
    """What is wrong with an array or a group."""
    try:
        about = _description(member)
        if _shapeless(about) != entry[0] or about.get("shape") != (entry[1] if entry[1:] else about.get("shape")):
            return [Finding(member / "zarr.json", "is not what was written")]
        if len(entry) < 3:
            return []
        counts, words = _counts(about), entry[2]
        if len(words) != 8 * math.prod(counts):
            return [Finding(member / "zarr.json", "does not agree with the store's seal")]
    except FileNotFoundError:
        return [Finding(member / "zarr.json", "is missing")]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return [Finding(member / "zarr.json", "is damaged")]
    found = []
    for i, file in enumerate(_files(member, counts)):
        word = words[8 * i : 8 * i + 8]
        if last_word(file) == word and not (deep and _checksum(file, 4) != word):
            continue
        found.append(Finding(file, _fault(file)))
    return found


def _fault(chunk: Path) -> str:
    """What is wrong with a chunk that is not what was written."""
    if not chunk.exists():
        return "is missing"
    word = last_word(chunk)
    return "is another chunk than was written here" if word and _checksum(chunk, 4) == word else "is damaged"


# What mends it -------------------------------------------------------------------------------------------------------


def again(run: Path) -> str:
    """The command that makes again whatever is wrong in a run folder.

    Args:
        run: the folder.
    """
    file, out = run / "config.yaml", f"--out {shlex.quote(str(run))} --resume"
    try:
        kind = re.search(r"^(sweep|fit):", file.read_text(encoding="utf-8"), re.MULTILINE)
        return f"`jneuro {kind[1] if kind else 'run'} {shlex.quote(str(file))} {out}`"
    except (OSError, ValueError):
        kinds = {"sweep": ("sweep.zarr",), "fit": ("fit.zarr", "pieces")}
        verb = next((k for k, names in kinds.items() if any((run / n).exists() for n in names)), "run")
        return f"your own YAML file: `jneuro {verb} CONFIG {out}`"


def remedy(path: Path, command: str = "simulate CONFIG") -> str:
    """What mends a store: making it again, if it belongs to a run folder.

    Args:
        path: the store.
        command: what makes it elsewhere.
    """
    if (path.parent / "config.yaml").exists():
        return f"make it again with {again(path.parent)}"
    return f"restore it from a copy, or make it anew with `jneuro {command}`"
