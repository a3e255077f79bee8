"""What a training's configuration may name: losses, optimisers, schedules, callbacks; listed without importing JAX."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jneuro.core.config import Config
from jneuro.core.registry import Block, Registry, accepted

__all__ = ["CALLBACKS", "HOOKS", "LOSSES", "OPTIMIZERS", "SCHEDULES", "bound"]

HOOKS = ("on_start", "on_steps", "on_epoch", "on_end")
"""What a callback may have; see `jneuro.training.callbacks.Callback`."""


def _callable(thing: Any) -> str | None:
    """What something lacks to be called."""
    return None if callable(thing) else "it cannot be called"


def _optimizer(thing: Any) -> str | None:
    """What something lacks to be an optimiser, or to make one."""
    if isinstance(thing, Config) or (inspect.isclass(thing) and issubclass(thing, Config)):
        return None if callable(getattr(thing, "direction", None)) else "its configuration has no method direction()"
    import optax

    if isinstance(thing, optax.GradientTransformation) or callable(thing):
        return None
    if isinstance(thing, optax.MultiSteps):
        return "give its .gradient_transformation()"
    return "it must be an optax.GradientTransformation, or a function that returns one"


def _callback(thing: Any) -> str | None:
    """What something lacks to be a callback, or to make one."""
    if inspect.isclass(thing) or not inspect.isroutine(thing):
        found = [hook for hook in HOOKS if callable(getattr(thing, hook, None))]
        return None if found else f"it has none of {', '.join(HOOKS)}"
    return None


LOSSES = Registry(
    "loss",
    {
        "mse": "jneuro.training.losses:mse",
        "mae": "jneuro.training.losses:mae",
        "pinball": "jneuro.training.losses:pinball",
        "poisson": "jneuro.training.losses:poisson",
    },
    _callable,
    given=("prediction", "batch"),
)
"""Losses and metrics: `(prediction, batch) -> [batch]`."""

OPTIMIZERS = Registry(
    "optimizer",
    {"adam": "jneuro.training.optimizers:Adam", "adamw": "jneuro.training.optimizers:AdamW"},
    _optimizer,
)
"""Optimisers: ours, or whatever makes an `optax.GradientTransformation`, such as `optax:lion`."""

SCHEDULES = Registry(
    "schedule",
    {"constant": "jneuro.training.optimizers:constant", "cosine": "jneuro.training.optimizers:cosine"},
    _callable,
    given=("step", "count", "steps_per_epoch", "warmup_steps", "total_steps"),
)
"""Factors of the learning rate by step, or what makes one, such as `optax:cosine_decay_schedule`."""

CALLBACKS = Registry("callback", {}, _callback)
"""What is told of a training: classes with the hooks of a callback."""


def bound(block: Block, takes: tuple[str, ...], **given: Any) -> Callable:
    """The function that a block means.

    Args:
        block: names a function, or a class or function that makes one from arguments.
        takes: names of what the function itself is called with. A function that has arguments in the block and none of
            these names is called with its arguments, and makes the function.
        given: further arguments, passed where they are asked for.

    Returns:
        The function; of a class, an instance.

    Raises:
        ValueError: if it cannot be called so.
    """
    function: Any = block.target
    known = accepted(function)
    arguments = {k: v for k, v in given.items() if k in known} | block.arguments
    try:
        # `count` is what optax calls the step.
        if inspect.isclass(function) or (arguments and not {*takes, "count"} & set(known)):
            function = function(**arguments)
        elif arguments:
            function = functools.partial(function, **arguments)
        inspect.signature(function).bind(*takes)
    except TypeError as error:
        raise ValueError(f"{block.name}: {error}; it is called with {' and '.join(takes)}") from error
    return function
