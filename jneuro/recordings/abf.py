"""Axon Binary Format, which pCLAMP writes."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jneuro.core.types import Float
from jneuro.recordings.foreign import ReadError, check_sweeps, extra, factor_to, parsed, sweeps_recording
from jneuro.recordings.recording import Recording

__all__ = ["read_abf"]


def read_abf(path: Path, sweeps: Sequence[int] | None = None) -> Recording:
    """Read a current-clamp recording in Axon Binary Format, of version 1 or 2.

    The potential is the first recorded channel in volts. The current is the command waveform of that channel where it
    was on, or else the first recorded channel in amperes.

    Args:
        path: the file.
        sweeps: which sweeps; all by default.

    Returns:
        The recording; see `read`.

    Raises:
        ReadError: if it cannot be read or not be used.
    """
    pyabf = extra("pyabf", path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a stimulus file that is not there; said below
        abf = parsed(path, lambda: pyabf.ABF(str(path)))
        numbers = list(range(abf.sweepCount)) if sweeps is None else list(sweeps)
        check_sweeps(path, numbers, abf.sweepCount)
        channel = _voltage_channel(path, abf)
        v = _sweeps(path, abf, channel, numbers, "mV")
        current = _current(path, abf, channel, numbers)
    if v.shape != current.shape:
        raise ReadError(f"{path}: the stimulus has {current.shape[1]} samples a sweep, the potential {v.shape[1]}")
    about = {
        "file": path.name,
        "protocol": str(abf.protocol),
        "date": abf.abfDateTime.isoformat(),
        "cell": path.stem,
        "format": f"ABF {abf.abfVersionString}",
    }
    return sweeps_recording(path, v[..., None], current[..., None], float(f"{1e3 / abf.dataRate:.12g}"), about, numbers)


def _voltage_channel(path: Path, abf: Any) -> int:
    """The first channel that was recorded in volts."""
    for channel in abf.channelList:
        if factor_to(abf.adcUnits[channel], "mV") is not None:
            command = abf.dacUnits[channel] if channel < len(abf.dacUnits) else "pA"
            if factor_to(command, "mV") is not None:
                raise ReadError(f"{path}: its command is in {command}, so this is voltage clamp; take current clamp")
            return channel
    units = ", ".join(abf.adcUnits)
    raise ReadError(f"{path}: no channel is in volts (units: {units}): voltage clamp? Take a current-clamp recording")


def _sweeps(path: Path, abf: Any, channel: int, numbers: Sequence[int], unit: str) -> Float[np.ndarray, "trial time"]:
    """A recorded channel in a unit; single precision, as the file's integers are scaled."""
    found = []
    for number in numbers:
        abf.setSweep(number, channel)
        found.append(np.array(abf.sweepY))
    if len({len(sweep) for sweep in found}) > 1:
        lengths = ", ".join(f"{n}: {len(sweep)}" for n, sweep in zip(numbers, found, strict=True))
        raise ReadError(f"{path}: its sweeps have different numbers of samples ({lengths}); choose with sweeps=[...]")
    factor = factor_to(abf.adcUnits[channel], unit)
    return np.stack(found) if factor == 1 else np.stack(found) * np.float32(factor or 1)


def _current(path: Path, abf: Any, channel: int, numbers: Sequence[int]) -> Float[np.ndarray, "trial time"]:
    """The command waveform in pA, or else a recorded current."""
    measured = [c for c in abf.channelList if factor_to(abf.adcUnits[c], "pA") is not None]
    factor = factor_to(abf.dacUnits[channel], "pA") if channel < len(abf.dacUnits) else None
    if factor is not None and _waveform_is_on(abf, channel):
        found = []
        for number in numbers:
            abf.setSweep(number, channel)
            found.append(parsed(path, lambda: np.array(abf.sweepC, np.float32)))
        current = np.stack(found) * np.float32(factor)
        if np.isfinite(current).all():
            return current
    if measured:
        return _sweeps(path, abf, measured[0], numbers, "pA")
    raise ReadError(
        f"{path}: holds no stimulus: no command waveform was on, or the file that held it is not beside this one, and "
        "no channel is in amperes; write potential and current to an NWB file with jneuro.recordings.write_nwb"
    )


def _waveform_is_on(abf: Any, channel: int) -> bool:
    """Whether the channel's command came from the epoch table or from a file."""
    section = abf._headerV1 if abf.abfVersion["major"] == 1 else abf._dacSection
    enabled, source = section.nWaveformEnable, section.nWaveformSource
    return channel < len(enabled) and bool(enabled[channel]) and source[channel] in (1, 2)
