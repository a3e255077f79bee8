"""Files that Neo reads (Igor, Spike2, AxoGraph, WinWCP, Plexon, Intan, …), and what Neo holds in memory."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.recordings.pairing import (
    Channel,
    current_channels,
    potential_channel,
    require_plausible,
    said_potentials,
)
from jneuro.recordings.readers import ReadError, check_sweeps, extra, parsed, require_readable
from jneuro.recordings.recording import Recording, from_arrays

__all__ = ["from_neo", "read_neo"]


def read_neo(
    path: Path,
    sweeps: Sequence[int] | None = None,
    *,
    io: str | None = None,
    block: int = 0,
    channel: int | str | None = None,
    current_channel: int | str | None = None,
    unit: str | None = None,
    current_unit: str | None = None,
    dt: float | None = None,
    limit_mv: float = 1e3,
    limit_pa: float = 1e7,
) -> Recording:
    """Read a file by Neo, the package that knows some fifty formats (`pip install 'jneuro[neo]'`).

    Args:
        path: the file.
        sweeps: which segments; all by default.
        io: the class of `neo.io`, such as `IgorIO`; by default the one that knows the ending.
        block: which block of the file.
        channel: as of `from_neo`, as all that follow.
        current_channel: the channel of the current.
        unit: of the potential's numbers.
        current_unit: of the current's numbers.
        dt: width of a frame of spikes [ms].
        limit_mv: larger potentials are refused [mV].
        limit_pa: larger currents are refused [pA].

    Returns:
        The recording; see `from_neo`.

    Raises:
        ReadError: without Neo, or if it cannot read the file, or the file has no potential.
    """
    neo: Any = extra("neo", path)
    if io is not None and getattr(neo.io, io, None) is None:
        raise ReadError(f"{path}: io = {io!r} is no class of neo.io, such as IgorIO or Spike2IO")
    require_readable(path, "jneuro.recordings.rehearsal:walk_neo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = parsed(path, lambda: getattr(neo.io, io)(str(path)) if io else neo.get_io(str(path)))
        if isinstance(reader, neo.io.PickleIO):
            raise ReadError(f"{path}: a pickle may execute code; read it yourself, and use from_neo")
        blocks = parsed(path, lambda: reader.read(lazy=False))
    if not 0 <= block < len(blocks):
        raise ReadError(f"{path}: block = {block} must be one of 0 to {len(blocks) - 1}")
    how: Any = {"channel": channel, "current_channel": current_channel, "unit": unit, "current_unit": current_unit}
    limits: Any = {"limit_mv": limit_mv, "limit_pa": limit_pa}
    return from_neo(blocks[block], sweeps, dt=dt, where=str(path), **how, **limits)


def from_neo(
    block: Any,
    sweeps: Sequence[int] | None = None,
    *,
    channel: int | str | None = None,
    current_channel: int | str | None = None,
    unit: str | None = None,
    current_unit: str | None = None,
    dt: float | None = None,
    where: str = "the block",
    limit_mv: float = 1e3,
    limit_pa: float = 1e7,
) -> Recording:
    """Make a recording of a Neo `Block`: a trial of every segment.

    Neo does not tell current clamp from voltage clamp, nor a commanded from a measured current: `about["current"]` says
    which signal was taken.

    Args:
        block: has segments with analog signals, or with spike trains alone, which become counts.
        sweeps: which segments; all by default.
        channel: the potential's signal, by number or name; by default the first in mV, else in V.
        current_channel: the current's; by default the only one in amperes.
        unit: the unit of the potential's numbers, where the block's is wrong.
        current_unit: that of the current's numbers.
        dt: width of a frame [ms], of spike trains alone.
        where: the file, for messages.
        limit_mv: larger potentials are refused [mV].
        limit_pa: larger currents are refused [pA].

    Returns:
        The recording, with `v`, and `current` where there is one; or with `spikes`.

    Raises:
        ReadError: if there is nothing of these, or segments differ in their signals, steps or lengths.
    """
    segments = list(block.segments)
    numbers = list(range(len(segments))) if sweeps is None else list(sweeps)
    check_sweeps(where, numbers, len(segments))
    segments = [segments[n] for n in numbers]
    about = {"file": Path(block.file_origin or where).name, "cell": str(block.name or "cell"), "format": "Neo"}
    if not any(segment.analogsignals for segment in segments):
        return _spikes(where, segments, dt, about)
    columns = [_signals(segment) for segment in segments]
    channels = [Channel(name, units) for name, units, _, _ in columns[0]]
    for number, found in zip(numbers, columns, strict=True):
        if [x[:2] for x in found] != [*map(tuple, channels)]:
            raise ReadError(f"{where}: segment {number} has other signals than segment {numbers[0]}; choose sweeps=[…]")
    potential, factor = potential_channel(Path(where), channels, channel, unit)
    currents = current_channels(Path(where), channels, potential, current_channel, current_unit)
    if len(currents) > 1:
        names = ", ".join(repr(channels[i].name) for i in currents)
        raise ReadError(f"{where}: more than one signal may be its current ({names}); say current_channel=…")
    chosen = {"v": (potential, factor), **dict(zip(["current"], currents.items(), strict=False))}
    values, step = _together(where, columns, chosen)
    said = f"signal {channels[next(iter(currents))].name!r}, commanded or measured" if currents else "none in the file"
    about |= {"current": said, **said_potentials(channels, potential)}
    found = from_arrays(dt=step, units={"current": "pA"} if currents else {}, about=about, **values)
    require_plausible(where, found, numbers, limits=(limit_mv, limit_pa))
    return found


def _together(where: str, columns: Sequence[Any], chosen: dict[str, tuple[int, float]]) -> tuple[dict[str, Any], float]:
    """The chosen signals of all segments, scaled, and their step."""
    steps = {c[i][2] for c in columns for i, _ in chosen.values()}
    lengths = {len(c[i][3]) for c in columns for i, _ in chosen.values()}
    if len(steps) > 1 or len(lengths) > 1:
        raise ReadError(
            f"{where}: its segments have different lengths ({sorted(lengths)} samples) or steps ({sorted(steps)} ms); "
            "choose alike ones with sweeps=[…]"
        )
    values = {n: np.stack([np.asarray(c[i][3]) * f for c in columns])[..., None] for n, (i, f) in chosen.items()}
    return values, steps.pop()


def _signals(segment: Any) -> list[tuple[str, str, float, np.ndarray]]:
    """Name, unit, step [ms] and samples of every channel of every signal."""
    found = []
    for signal in segment.analogsignals:
        names = signal.array_annotations.get("channel_names", [])
        unit = signal.units.dimensionality.string.replace("**2", "²").replace("uA", "µA")
        step = float(f"{float(signal.sampling_period.rescale('ms').magnitude):.9g}")
        for i in range(signal.shape[1]):
            name = str(names[i]) if i < len(names) else str(signal.name or "signal")
            found.append((name, unit, step, np.asarray(signal.magnitude[:, i])))
    return found


def _spikes(where: str, segments: Sequence[Any], dt: float | None, about: dict[str, str]) -> Recording:
    """Counts of spike trains."""
    counts = {len(segment.spiketrains) for segment in segments}
    if counts == {0} or len(counts) > 1:
        raise ReadError(f"{where}: has no analog signals, and {sorted(counts)} spike trains in its segments")
    if dt is None or not dt > 0:
        raise ReadError(f"{where}: has spike trains alone; say the width of a frame in ms, dt=…")
    trains = [[np.asarray(t.rescale("ms").magnitude) for t in s.spiketrains] for s in segments]
    begin = min(float(t.t_start.rescale("ms")) for s in segments for t in s.spiketrains)
    end = max(float(t.t_stop.rescale("ms")) for s in segments for t in s.spiketrains)
    frames = max(1, int(np.ceil((end - begin) / dt - 1e-6)))
    spikes = np.zeros((len(segments), frames, counts.pop()), np.int32)
    for trial, row in enumerate(trains):
        for neuron, times in enumerate(row):
            frame = np.floor((times - begin) / dt + 1e-6).astype(int).clip(0, frames - 1)
            np.add.at(spikes[trial, :, neuron], frame, 1)
    return from_arrays(spikes=spikes, dt=dt, about=about | {"time": f"from {begin:g} ms of the segments on"})
