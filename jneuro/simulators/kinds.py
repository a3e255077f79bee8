"""The kinds that simulations name."""

import inspect
from typing import Any

from jneuro.core.registry import Registry

__all__ = ["RULES"]


def _lacks_as_rule(thing: Any) -> str | None:
    from jneuro.simulators.connectivity import Rule

    if inspect.isclass(thing):
        return None if issubclass(thing, Rule) and thing is not Rule else "derive it from jneuro's Rule"
    if isinstance(thing, Rule) or inspect.isroutine(thing):
        return None
    return f"is of the type {type(thing).__name__}, not a Rule, nor a function that returns one"


RULES = Registry(
    "rule",
    {
        "bernoulli": "jneuro.simulators.connectivity:Bernoulli",
        "fixed_in_degree": "jneuro.simulators.connectivity:FixedInDegree",
    },
    _lacks_as_rule,
)
"""Rules of who hears whom, by the name that a configuration uses."""
