"""What is in a file of another program, whether or not it can be read as a cell's potential and current."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jneuro.recordings.readers import extra, parsed

__all__ = ["contents"]

_MOST = 40
"""Lines of a listing."""


def contents(path: Path | str) -> list[str]:
    """List what a file holds: channels and outputs of an ABF file, series of an NWB file, the first line of a text.

    Args:
        path: the file.

    Returns:
        Lines, each one thing that is in it; none for files of which nothing is known.

    Raises:
        ReadError: if the file is damaged, or its package is missing.
    """
    path = Path(path)
    if path.is_dir():
        found = (f"{p.name}{'/' if p.is_dir() else ''}" for p in sorted(path.iterdir()))
    else:
        listing = {".abf": _abf, ".nwb": _nwb, ".csv": _text, ".tsv": _text, ".txt": _text}.get(path.suffix.lower())
        found = listing(path) if listing else iter(())
    lines = parsed(path, lambda: list(found))
    return [*lines[:_MOST], *([f"… and {len(lines) - _MOST} more"] if len(lines) > _MOST else [])]


def _abf(path: Path) -> Iterator[str]:
    """Channels and outputs, from the header."""
    abf = extra("pyabf", path).ABF(str(path), loadData=False)
    yield (
        f"ABF {abf.abfVersionString}, protocol {abf.protocol}: {abf.sweepCount} sweeps of {abf.sweepLengthSec:g} s, "
        f"{1e-3 * abf.dataRate:g} kHz"
    )
    for what, names, units in (("channel", abf.adcNames, abf.adcUnits), ("output", abf.dacNames, abf.dacUnits)):
        for i, (name, unit) in enumerate(zip(names, units, strict=False)):
            yield f"{what} {i}: {name.strip()!r} in {unit.strip() or 'no unit'}"


def _nwb(path: Path) -> Iterator[str]:
    """Series with their data, by type."""
    h5py, found = extra("h5py", path), []

    def visit(name: str, item: Any) -> None:
        kind = item.attrs.get("neurodata_type")
        data = item.get("data") if kind is not None and isinstance(item, h5py.Group) else None
        if data is not None:
            unit, shape = data.attrs.get("unit", "no unit"), "×".join(map(str, data.shape))
            start = item.get("starting_time")
            rate = "" if start is None else f", {1e-3 * start.attrs.get('rate', 0):g} kHz"
            found.append(f"{kind} {name}: {shape} in {unit}{rate}")

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    yield from found


def _text(path: Path) -> Iterator[str]:
    """The first lines."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for _ in range(3):
            yield file.readline(200).rstrip()
