"""Units as files and headers write them, and the factors to those that simulators take."""

import re

__all__ = ["canonical", "factor_to", "known_unit", "split_unit", "unit_factor"]

_PREFIXES = {"f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "": 0}
_AREAS = {"m": 0, "cm": -4, "mm": -6, "um": -12, "µm": -12, "μm": -12}
"""Powers of ten of a square metre."""
_TIMES = {"ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}
_WORDS = {
    "volts": "V", "volt": "V", "millivolts": "mV", "millivolt": "mV", "mv": "mV",
    "amperes": "A", "ampere": "A", "amps": "A", "picoamperes": "pA", "picoamps": "pA", "pa": "pA", "nanoamps": "nA",
    "seconds": "s", "second": "s", "sec": "s", "secs": "s", "milliseconds": "ms", "millisecond": "ms", "msec": "ms",
    "msecs": "ms",
}  # fmt: skip
_DENSITY = re.compile(r"([fpnuµμm]?)A\s*(?:/|_|\*|·| )\s*(?:per_)?([cmuµμ]?m)\s*(?:\^|\*\*)?\s*-?(?:2|²)")


def factor_to(unit: str, target: str) -> float | None:
    """The factor from a unit to `mV`, `pA`, `ms` or `µA/cm²`; None where they measure different things.

    Args:
        unit: as files write it: `mV`, `volts`, `nA`, `amperes`, `s`, `uA/cm2`.
        target: `mV`, `pA`, `ms` or `µA/cm²`.

    Returns:
        The factor.
    """
    symbol = unit.strip()
    symbol = _WORDS.get(symbol.lower() if len(symbol) > 2 else symbol, symbol)
    if target == "ms":
        return _TIMES.get(symbol)
    if target == "µA/cm²":
        found = _DENSITY.fullmatch(symbol)
        if found is None:
            return None
        power = _PREFIXES[found[1]] - _AREAS[found[2]] - (_PREFIXES["u"] - _AREAS["cm"])
    else:
        if not symbol or symbol[-1] != target[-1] or symbol[:-1] not in _PREFIXES:
            return None
        power = _PREFIXES[symbol[:-1]] - _PREFIXES[target[:-1]]
    # Powers of ten from 10**0 up are exact, so a file in mV or pA is read to the last bit.
    return 10.0**power if power >= 0 else 1 / 10.0**-power


def unit_factor(unit: str, target: str) -> float | None:
    """The factor from a user's unit, such as `mV` or `0.05 mV`; None where it measures something else.

    Args:
        unit: the unit, alone or after a number and a space.
        target: as of `factor_to`.

    Returns:
        The factor.
    """
    number, _, symbol = unit.strip().rpartition(" ")
    try:
        scale = float(number) if number else 1.0
    except ValueError:
        return None
    factor = factor_to(symbol, target)
    return None if factor is None or not 0 < scale < float("inf") else scale * factor


def canonical(name: str, unit: str) -> tuple[str, float]:
    """The unit that simulators and fits take of a variable, and the factor to it.

    Args:
        name: of the variable; only `v` and `current` have such units.
        unit: its unit, such as `V`, `nA`, `uA/cm2`, or `0.05 mV`.

    Returns:
        `mV`, `pA` or `µA/cm²` and the factor; of anything else the unit itself, and 1.
    """
    for target in {"v": ("mV",), "current": ("pA", "µA/cm²")}.get(name, ()):
        if (factor := unit_factor(unit, target)) is not None:
            return target, factor
    return unit, 1.0


def known_unit(symbol: str) -> bool:
    """Whether something is a unit of potential, current, current density or time.

    Args:
        symbol: what may be one.
    """
    return any(factor_to(symbol, target) is not None for target in ("mV", "pA", "µA/cm²", "ms"))


def split_unit(label: str) -> tuple[str, str | None]:
    """Take a column's header apart.

    Args:
        label: such as `v_mV`, `Vm (mV)`, `I [pA]`, `i_uA_cm2`, `Time/ms`, or `v`.

    Returns:
        The name, and the unit, or None where the header names none.
    """
    label = label.strip()
    if found := re.fullmatch(r"(.*?)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]", label):
        return (found[1] or label), found[2]
    if (found := re.fullmatch(rf"(.+?)[_\s]({_DENSITY.pattern})", label)) or (
        (found := re.fullmatch(r"(.+)[_\s/]([^_\s/]+)", label)) and known_unit(found[2])
    ):
        return found[1], found[2]
    return label, None
