"""How many operations and bytes a program takes, by the compiler's own analysis.

XLA counts the body of a loop once. Here a scan's body is analysed by itself, as often as the scan is long, scans within
scans included. A loop whose turns are not known before it runs counts as one turn, so that what is said is at least so.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

__all__ = ["costs"]

NAMES = {"flops": "flop", "bytes accessed": "byte", "transcendentals": "transcendental"}


def costs(compiled: Any, function: Callable, *arguments: Any) -> dict[str, float]:
    """Count the operations (`flop`), transcendental functions and bytes of one call.

    Args:
        compiled: the compiled function.
        function: the function.
        arguments: its arguments, or their shapes.

    Returns:
        The counts; nothing where the compiler does not tell.
    """
    total = _analysed(compiled)
    return _add(total, _loops(jax.make_jaxpr(function)(*arguments).jaxpr)) if total else {}


def _analysed(compiled: Any) -> dict[str, float]:
    found = compiled.cost_analysis() or {}
    return {short: float(found[name]) for name, short in NAMES.items() if name in found}


def _loops(jaxpr: Jaxpr) -> dict[str, float]:
    """What the turns of all scans cost beyond their first."""
    total: dict[str, float] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            body = equation.params["jaxpr"]
            compiled = jax.jit(jaxpr_as_fun(body)).lower(*body.in_avals).compile()
            inner, turns = _loops(body.jaxpr), equation.params["length"]
            total = _add(total, _analysed(compiled), turns - 1)
            total = _add(total, inner, turns)
        else:
            for inner in _inside(equation.params):
                total = _add(total, _loops(inner))
    return total


def _inside(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs within an equation."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _add(total: dict[str, float], more: dict[str, float], times: float = 1.0) -> dict[str, float]:
    return {name: total.get(name, 0.0) + times * more.get(name, 0.0) for name in {*total, *more}}
