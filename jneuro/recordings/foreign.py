"""What all readers of other programs' files share: their errors, units and checks."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jneuro.core.types import Float
from jneuro.recordings.clipping import clipped
from jneuro.recordings.recording import Recording
from jneuro.recordings.store import StoreError

__all__ = ["ReadError", "check_sweeps", "extra", "factor_to", "parsed", "sweeps_recording"]


class ReadError(StoreError):
    """A recording of another program that cannot be read, or not be used; the message says why and what to do."""


_PREFIXES = {"f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "": 0}


def check_sweeps(path: Path, sweeps: Sequence[int], count: int) -> None:
    """Refuse sweeps that a file does not have.

    Args:
        path: the file, for the message.
        sweeps: their numbers.
        count: how many sweeps it has.

    Raises:
        ReadError: naming those that it has.
    """
    if not sweeps or any(not 0 <= s < count for s in sweeps):
        raise ReadError(f"{path}: sweeps = {list(sweeps)} must name some of the sweeps 0 to {count - 1}")


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
        ReadError: whatever the parser raises.
    """
    try:
        return parse()
    except Exception as error:  # the parsers raise whatever they like
        raise ReadError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); it is damaged, or not of the format that its "
            "name promises"
        ) from error


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


def sweeps_recording(
    path: Path,
    v: Float[np.ndarray, "trial time neuron"],
    current: Float[np.ndarray, "trial time neuron"],
    dt: float,
    about: Mapping[str, str],
    numbers: Sequence[int],
    unit: str = "pA",
) -> Recording:
    """Check the sweeps of a file, and make them a recording.

    Args:
        path: the file, for messages.
        v: potentials [mV].
        current: injected currents.
        dt: time between samples [ms].
        about: what the file says about its origin.
        numbers: each sweep's number in the file, for messages.
        unit: the currents' unit.

    Returns:
        The recording; its first sample stands at time 0.

    Raises:
        ReadError: if samples are not finite, or clipped.
    """
    for what, values in (("potential", v), ("current", current)):
        bad = [n for n, sweep in zip(numbers, values, strict=True) if not np.isfinite(sweep).all()]
        _refuse(path, numbers, bad, f"the {what} has samples that are not finite")
    cut = [n for n, sweep in zip(numbers, v, strict=True) if any(map(clipped, sweep.T))]
    _refuse(path, numbers, cut, "the potential is clipped: a steep rise or fall ends in a flat stretch at its limit")
    values: Any = {"v": v, "current": current}
    return Recording(
        values=values,
        ok=np.asarray(True),  # pyright: ignore
        first_step=np.asarray(-1),  # pyright: ignore
        final_state=None,
        step=dt,
        record_every=1,
        frames=v.shape[1],
        unit_pairs=(("v", "mV"), ("current", unit)),
        about_pairs=tuple(sorted(about.items())),
    )


def _refuse(path: Path, numbers: Sequence[int], bad: Sequence[int], what: str) -> None:
    """Name the sweeps that are of no use, and those that are."""
    if bad:
        good = [n for n in numbers if n not in bad]
        remedy = f"leave them out, sweeps={good}" if good else "take another recording"
        raise ReadError(f"{path}: in the sweeps {list(bad)}, {what}; {remedy}")
