"""What makes one training the same as another: data, weights at the start, recipe, and the source of foreign code."""

import functools
import hashlib
import inspect
import json
import types
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jneuro.core.code import digest
from jneuro.core.registry import Block
from jneuro.core.types import Array, Key
from jneuro.datasets.windows import Windows
from jneuro.training.checkpoints import Weights, named_arrays, plain_key
from jneuro.training.recipe import TrainConfig

__all__ = ["fingerprint", "identity", "unseen"]

_FREE = {"steps_per_call", "parallel", "callbacks", "metrics"}
"""Keys of a recipe that change no weights."""


def fingerprint(
    config: TrainConfig, windows: Windows, weights: Weights, key: Key[Array, ""], model: Any
) -> dict[str, Any]:
    """What must be the same for a training to be resumed; what changes no result is not in it.

    Args:
        config: the recipe. Its `epochs` count only if the learning rate depends on them: otherwise a training may go on
            for more.
        windows: the windows.
        weights: the model's, at the start.
        key: the training's key.
        model: the model, whose source counts where it is not this package's.

    Returns:
        Values that JSON knows.
    """
    crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.values)).data)
    for split in ("train", "validation"):
        crc = zlib.crc32(np.ascontiguousarray(jax.device_get(windows.starts[split])).data, crc)
    arrays = named_arrays(weights)
    free = _FREE if config.counts_epochs else _FREE | {"epochs"}
    return {
        "config": config.model_dump(mode="json", exclude=free),
        "source": {what: code for what, code in _sources(config, model).items() if code is not None},
        "model": {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()},
        "start": {name: _projection(array) for name, array in arrays.items()},
        "windows": {"length": windows.length, "horizons": list(windows.horizons), "crc32": crc},
        "key": np.asarray(jax.device_get(jax.random.key_data(key))).tolist(),
    }


def unseen(config: TrainConfig, model: Any) -> tuple[str, ...]:
    """Say of what a resumed training cannot know whether it is still the same.

    Args:
        config: the recipe.
        model: the model.

    Returns:
        A sentence for each.
    """
    return tuple(
        f"the source of {what} cannot be read, so a resumed training trusts that it is the same"
        for what, code in _sources(config, model).items()
        if code is None
    )


def _sources(config: TrainConfig, model: Any) -> dict[str, str | None]:
    """Stands for the source of all that is not this package's, by what it is."""
    found = {f"the model {type(model).__name__}": identity(type(model))}
    for key in ("loss", "optimizer", "schedule"):
        value = getattr(config, key)
        thing = value.target if isinstance(value, Block) else type(value)
        found[f"the {key} {value.name}"] = identity(thing)
    return {what: code for what, code in found.items() if code != ""}


def _projection(array: np.ndarray) -> float:
    """A number that tells other initial weights, but not those of another device, whose last bits may differ."""
    values = array.ravel()[:1000].astype(float)
    return float(values @ np.cos(np.arange(len(values)))) / max(len(values), 1) ** 0.5


def identity(thing: Any) -> str | None:
    """Stand for what a class, a function or an object does.

    Args:
        thing: the object.

    Returns:
        Hexadecimal digits, or a package and its version; empty for what is this package's; None if it cannot be seen.
    """
    about = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    if getattr(about, "__module__", None) != "__main__" and (found := digest(thing)) is not None:
        return found  # of a script, every edit would count
    try:
        text = json.dumps(_described(thing, frozenset()), default=str)
    except _Unseen:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Unseen(Exception):
    """Something whose meaning does not stand in its attributes."""


def _described(thing: Any, above: frozenset[int]) -> Any:
    """A closure, and whatever it holds, as JSON."""
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes):
        return repr(thing)
    if id(thing) in above:
        return "itself"
    above |= {id(thing)}
    deeper = functools.partial(_described, above=above)
    match thing:
        case np.ndarray() | np.generic() | jax.Array():
            array = np.asarray(plain_key(thing))
            return [str(array.dtype), list(array.shape), zlib.crc32(np.ascontiguousarray(array).data)]
        case tuple() | list():
            return [type(thing).__qualname__, *map(deeper, thing)]
        case set() | frozenset():
            return sorted(map(str, map(deeper, thing)))
        case Mapping():
            return [[deeper(k), deeper(v)] for k, v in thing.items()]
        case functools.partial():
            return ["partial", deeper(thing.func), deeper(thing.args), deeper(thing.keywords)]
        case types.MethodType():
            return [deeper(thing.__func__), deeper(thing.__self__)]
        case types.FunctionType():
            held = [cell.cell_contents for cell in thing.__closure__ or ()]
            defaults = [thing.__defaults__, thing.__kwdefaults__]
            return [thing.__module__, thing.__qualname__, _code(thing.__code__), deeper(held), deeper(defaults)]
        case types.ModuleType() | types.BuiltinFunctionType() | np.dtype() | np.ufunc():
            return [type(thing).__name__, getattr(thing, "__name__", str(thing))]
        case type():
            return [thing.__module__, thing.__qualname__, _class_source(thing)]
    if callable(inner := getattr(thing, "__wrapped__", None)):
        return [type(thing).__qualname__, deeper(inner)]
    if isinstance(getattr(thing, "__dict__", None), dict) and not callable(getattr(type(thing), "__getattr__", None)):
        return [deeper(type(thing)), deeper(vars(thing))]
    raise _Unseen


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, [*code.co_names]]


def _class_source(cls: type) -> str:
    if cls.__module__ != "__main__":
        return digest(cls) or ""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        raise _Unseen from None
