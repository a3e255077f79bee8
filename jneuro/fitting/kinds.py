"""What a fit may name: objectives and methods; ours, those of plugins, and one's own. Nothing heavy is imported."""

import inspect
from typing import Any

from jneuro.core.registry import Block, Registry

__all__ = ["METHODS", "OBJECTIVES", "made", "of_networks"]


def _objective(thing: Any) -> str | None:
    """What something lacks to be an objective, or to make one."""
    if inspect.isclass(thing) or not inspect.isroutine(thing):
        return (
            None if callable(getattr(thing, "residuals", None)) else "it has no method residuals(predicted, recorded)"
        )
    return None


def _method(thing: Any) -> str | None:
    """What something lacks to be a method, or to make one."""
    if inspect.isclass(thing) or not inspect.isroutine(thing):
        able = callable(getattr(thing, "solve", None))
        return None if able else "it has no method solve(residuals, key, progress)"
    return None


OBJECTIVES = Registry(
    "objective",
    {
        "voltage": "jneuro.fitting.objectives:Voltage",
        "spike_times": "jneuro.fitting.objectives:SpikeTimes",
        "rates": "jneuro.fitting.objectives:Rates",
        "features": "jneuro.fitting.objectives:Features",
        "ordered_spikes": "jneuro.fitting.objectives:OrderedSpikes",
        "subthreshold": "jneuro.fitting.objectives:Subthreshold",
        "match": "jneuro.fitting.objectives:Match",
    },
    _objective,
)
"""What a fit minimises: whatever has a method `residuals(predicted, recorded) -> [residual]`."""

METHODS = Registry(
    "method",
    {
        "least_squares": "jneuro.fitting.methods.least_squares:LeastSquares",
        "gradient": "jneuro.fitting.methods.gradient:Gradient",
        "cma": "jneuro.fitting.methods.evolution:CMA",
        "nelder_mead": "jneuro.fitting.methods.evolution:NelderMead",
        "shooting": "jneuro.fitting.methods.multiple_shooting:Shooting",
        "spikes": "jneuro.fitting.methods.evolution:Spikes",
        "features": "jneuro.fitting.methods.network:NetworkFeatures",
    },
    _method,
)
"""Ways to fit: whatever has a method `solve(residuals, key, progress) -> Solution`; `features` is for networks."""


def of_networks(method: Any) -> bool:
    """Whether a method, or what names it, fits networks rather than cells."""
    return bool(getattr(method.target if isinstance(method, Block) else method, "of_networks", False))


def made(registry: Registry, block: Any) -> Any:
    """Make the thing that a configuration names.

    Args:
        registry: its kind.
        block: a typed configuration, which is the thing itself; or a `Block` of a class, a function that returns the
            thing, or the thing.

    Raises:
        ValueError: if what is made is of another kind, in words.
    """
    if not isinstance(block, Block):
        return block
    if not (inspect.isclass(block.target) or inspect.isroutine(block.target)):
        return block.target
    thing = block.build()
    if inspect.isclass(thing) or inspect.isroutine(thing):
        raise ValueError(f"{block.name} returned {thing!r}, not the {registry.kind} itself")
    try:
        return registry.require(thing)
    except ValueError as error:
        raise ValueError(f"{block.name} returned no {registry.kind}: {str(error).partition(': ')[2]}") from error
