"""The kinds that simulations name: simulators, stimuli, solvers and rules; ours, those of plugins, and one's own."""

import inspect
from typing import Any

from jneuro.core.registry import Registry

__all__ = [
    "RULES",
    "SIMULATORS",
    "SOLVERS",
    "STIMULI",
    "as_rule",
    "as_solver",
    "made",
    "product",
]


def _lacks(thing: Any, base: type, a_base: str) -> str | None:
    """What a class, a function that returns it, or an instance lacks to be of a kind."""
    if inspect.isclass(thing):
        if not issubclass(thing, base):
            return f"is a class, not {a_base}; derive it from one"
        if missing := sorted(getattr(thing, "__abstractmethods__", ())):
            return f"lacks {', '.join(missing)}"
        return None
    if isinstance(thing, base) or inspect.isroutine(thing):
        return None
    return f"is of the type {type(thing).__name__}, not {a_base}, nor a function that returns one"


def _lacks_as_simulator(thing: Any) -> str | None:
    from jneuro.simulators.base import Simulator
    from jneuro.simulators.ode import ODESimulator

    if thing in (Simulator, ODESimulator):
        return "is abstract; derive a class of your own from it"
    if inspect.isclass(thing) and issubclass(thing, ODESimulator):
        field, relaxation = (getattr(thing, n) is not getattr(ODESimulator, n) for n in ("vector_field", "relaxation"))
        if not field and not relaxation:
            return "needs vector_field or relaxation"
    return _lacks(thing, Simulator, "an ODESimulator or a SteppedSimulator")


def _lacks_as_stimulus(thing: Any) -> str | None:
    from jneuro.simulators.stimuli import Stimulus

    return _lacks(thing, Stimulus, "a Stimulus")


def _lacks_as_solver(thing: Any) -> str | None:
    import diffrax

    from jneuro.simulators.adjoint import TimeParallel
    from jneuro.simulators.solvers import Adaptive

    if isinstance(thing, Adaptive | TimeParallel) or thing in (Adaptive, TimeParallel):
        return None
    return _lacks(thing, diffrax.AbstractSolver, "one of jneuro.simulators.solvers, or a solver of Diffrax")


def _lacks_as_rule(thing: Any) -> str | None:
    from jneuro.simulators.connectivity import Rule

    if thing is Rule:
        return "is abstract; derive a class of your own from it"
    return _lacks(thing, Rule, "a")


SIMULATORS = Registry(
    "simulator",
    {
        "brunel": "jneuro.simulators.brunel:Brunel",
        "ca1_pyramidal": "jneuro.simulators.cells:CA1Pyramidal",
        "hodgkin_huxley": "jneuro.simulators.cells:HodgkinHuxley",
        "izhikevich": "jneuro.simulators.cells:Izhikevich",
        "izhikevich_reservoir": "jneuro.simulators.reservoir:IzhikevichReservoir",
        "pospischil": "jneuro.simulators.cells:Pospischil",
        "ring_network": "jneuro.simulators.ring:RingNetwork",
    },
    _lacks_as_simulator,
)
"""Simulators by the name that a configuration uses."""

STIMULI = Registry(
    "stimulus",
    {
        "constant": "jneuro.simulators.stimuli:Constant",
        "step": "jneuro.simulators.stimuli:Step",
        "pulse_train": "jneuro.simulators.stimuli:PulseTrain",
        "ramp": "jneuro.simulators.stimuli:Ramp",
        "sine": "jneuro.simulators.stimuli:Sine",
        "chirp": "jneuro.simulators.stimuli:Chirp",
        "sampled": "jneuro.simulators.stimuli:Sampled",
        "white_noise": "jneuro.simulators.stimuli:WhiteNoise",
        "ornstein_uhlenbeck": "jneuro.simulators.stimuli:OrnsteinUhlenbeck",
    },
    _lacks_as_stimulus,
    given=("key",),
)
"""Stimuli by the name that a configuration uses."""


def adaptive_tsit5(rtol: float = 1e-5, atol: float = 1e-7, max_steps: int = 1_000_000) -> Any:
    """Tsitouras's method of order 5, which chooses its steps; for kinetics that are not stiff."""
    return _adaptive("Tsit5", rtol, atol, max_steps)


def adaptive_dopri8(rtol: float = 1e-5, atol: float = 1e-7, max_steps: int = 1_000_000) -> Any:
    """The method of order 8 of Dormand and Prince, which chooses its steps; for high accuracy."""
    return _adaptive("Dopri8", rtol, atol, max_steps)


def adaptive_kvaerno5(rtol: float = 1e-5, atol: float = 1e-7, max_steps: int = 1_000_000) -> Any:
    """Kværnø's implicit method of order 5, which chooses its steps; for stiff kinetics."""
    return _adaptive("Kvaerno5", rtol, atol, max_steps)


def _adaptive(name: str, rtol: float, atol: float, max_steps: int) -> Any:
    """Diffrax's method of a name under tolerances; see `jneuro.simulators.solvers.Adaptive`."""
    import diffrax

    from jneuro.simulators.solvers import Adaptive

    return Adaptive(getattr(diffrax, name)(), rtol=rtol, atol=atol, max_steps=max_steps)


SOLVERS = Registry(
    "solver",
    {
        "euler": "jneuro.simulators.solvers:Euler",
        "heun": "jneuro.simulators.solvers:Heun",
        "rk4": "jneuro.simulators.solvers:RK4",
        "rush_larsen": "jneuro.simulators.solvers:RushLarsen",
        "sequential_euler": "jneuro.simulators.solvers:SequentialEuler",
        "staggered_crank_nicolson": "jneuro.simulators.solvers:StaggeredCrankNicolson",
        "tsit5": "jneuro.simulators.kinds:adaptive_tsit5",
        "dopri8": "jneuro.simulators.kinds:adaptive_dopri8",
        "kvaerno5": "jneuro.simulators.kinds:adaptive_kvaerno5",
    },
    _lacks_as_solver,
)
"""Solvers of ODE simulators by the name that a configuration uses; the last three choose their own steps.

Diffrax's own are named `diffrax:Ralston` and step by `dt`.
"""


RULES = Registry(
    "rule",
    {
        "bernoulli": "jneuro.simulators.connectivity:Bernoulli",
        "fixed_in_degree": "jneuro.simulators.connectivity:FixedInDegree",
    },
    _lacks_as_rule,
)
"""Connection rules by the name that a configuration uses."""


def as_solver(value: Any) -> Any:
    """Make a solver of what a configuration or a caller gives.

    Args:
        value: a name, of `SOLVERS`, of Diffrax (`diffrax:Ralston`) or of one's own (`my_solvers:Mine`); a mapping with
            `name` and arguments; a `Block`; a solver; or None.

    Returns:
        The solver; None for None.

    Raises:
        ValueError: if it is none.
    """
    return None if value is None else _thing(SOLVERS, value)


def as_rule(value: Any) -> Any:
    """Make a rule of what a configuration or a caller gives.

    Args:
        value: a `Rule`; a name; or a mapping with `name` and arguments, such as `{"name": "bernoulli", "p": 0.1}`.

    Returns:
        The rule.

    Raises:
        ValueError: if it is none.
    """
    return _thing(RULES, value)


def _thing(registry: Registry, value: Any) -> Any:
    block = registry.block(value)
    return product(registry, block.name, block.build()) if made(block.target) else block.target


def made(target: Any) -> bool:
    """Whether a name means a class or a function, from which the thing is made, and not the thing itself."""
    return inspect.isclass(target) or inspect.isroutine(target)


def product(registry: Registry, name: str, thing: Any) -> Any:
    """Return what a class or a function of one's own has made; refuse what is not of the kind.

    Args:
        registry: the kind.
        name: what made it, for the error message.
        thing: what was made.

    Raises:
        ValueError: if it is of another kind, in words.
    """
    if made(thing):
        raise ValueError(f"{name} returned {thing!r}, not a {registry.kind}; it must return the object itself")
    try:
        return registry.require(thing)
    except ValueError as error:
        raise ValueError(f"{name} returned no {registry.kind}: it {str(error).partition(': ')[2]}") from error
