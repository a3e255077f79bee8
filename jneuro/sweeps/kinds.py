"""The measures that sweeps name: ours, those of plugins, and functions of one's own."""

from typing import Any

from jneuro.core.registry import Registry

__all__ = ["MEASURES"]


def _lacks(thing: Any) -> str | None:
    if isinstance(thing, type) or not callable(thing):
        return f"is of the type {type(thing).__name__}, not a function of a recording"
    return None


_SPIKES = (
    "spike_count",
    "rate",
    "population_rates",
    "isi_cv",
    "synchrony",
    "network_state",
    "first_spike",
    "regime",
)
_POTENTIALS = ("v_mean", "v_sd", "v_min", "v_max")

MEASURES = Registry(
    "measure",
    {name: f"jneuro.sweeps.measures:{name}" for name in (*_SPIKES, *_POTENTIALS)},
    _lacks,
    given=("recording", "populations"),
)
"""Measures by the name that a configuration uses."""
