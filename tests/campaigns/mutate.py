"""Mutations of configurations, generated from the schemas: pydantic's fields and the signatures behind every registry.

A configuration is walked as it was checked, defaults and arguments that stand nowhere in its file among it, so that
what is added to the package is mutated too. A `Mutation` is `legal` where it must be accepted, and `same` where it must
besides mean what the original means.
"""

import copy
import inspect
import math
import random
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
import yaml

from jneuro.core.config import Config, Loader
from jneuro.core.registry import Block, Registry, _Field, _signature
from jneuro.models.base import Sizes
from jneuro.simulators.config import SimulatorConfig, StimulusConfig
from jneuro.simulators.kinds import SIMULATORS, STIMULI
from jneuro.simulators.paths import parameters

__all__ = ["Mutation", "Slot", "mutated", "slots"]


class Slot(NamedTuple):
    """A place of a configuration.

    Attributes:
        path: its keys.
        annotation: the type that is declared for it.
        limits: `ge`, `gt`, `le` and `lt`, where declared.
        registry: what names it, if it is named.
        value: what it has.
        physical: whether it is a parameter without a time, which may be a little different.
        argument: whether it is an argument of something that is named.
    """

    path: tuple[str | int, ...]
    annotation: Any
    limits: Mapping[str, float]
    registry: Registry | None
    value: Any
    physical: bool = False
    argument: bool = False


@dataclass(frozen=True)
class Mutation:
    """A mutated configuration.

    Attributes:
        text: the file.
        how: what was done.
        legal: whether it must be accepted.
        same: whether it must mean the same as before.
    """

    text: str | bytes
    how: str
    legal: bool = False
    same: bool = False


def _limits(metadata: Any) -> dict[str, float]:
    return {
        k: getattr(m, k) for m in metadata for k in ("ge", "gt", "le", "lt") if isinstance(m, object) and k in dir(m)
    }


def _registry(annotation: Any, metadata: Any = ()) -> Registry | None:
    for part in (*metadata, *get_args(annotation), *getattr(annotation, "__metadata__", ())):
        if isinstance(part, _Field):
            return part._registry
        if get_args(part) and (found := _registry(part)) is not None:
            return found
    return None


def slots(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Slot]:
    """All places of a checked configuration."""
    if isinstance(value, Block):
        registry = {SimulatorConfig: SIMULATORS, StimulusConfig: STIMULI}.get(type(value))
        if registry is not None:
            yield Slot(path, Any, {}, registry, value)
        declared = parameters(value.target) if registry and inspect.isclass(value.target) else {}
        for p in _signature(value.target) if callable(value.target) else ():
            # A preset has other values than the defaults.
            given = value.arguments.get(p.name, p.empty if getattr(value, "preset", None) else p.default)
            about = declared.get(p.name)
            near = about is not None and not about.static and about.unit not in ("ms", "")
            bounds = dict(zip(("ge", "le"), about.bounds, strict=False)) if about is not None and about.bounds else {}
            yield Slot((*path, p.name), p.annotation, bounds, None, given, near, True)
    elif isinstance(value, Config):
        for name, about in type(value).model_fields.items():
            given, where = getattr(value, name), (*path, name)
            yield Slot(
                where, about.annotation, _limits(about.metadata), _registry(about.annotation, about.metadata), given
            )
            yield from slots(given, where)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield Slot((*path, name), type(inner), {}, None, inner)
            yield from slots(inner, (*path, name))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield Slot((*path, i), type(inner), {}, None, inner)
            yield from slots(inner, (*path, i))


def _put(data: Any, path: tuple[str | int, ...], value: Any) -> bool:
    """Set a place, where the file has room for it: a name alone becomes a mapping first."""
    for i, (key, following) in enumerate(zip(path, (*path[1:], None), strict=True)):
        if isinstance(data, list) and not (isinstance(key, int) and key < len(data)):
            return False
        if isinstance(data, dict) and not isinstance(key, str):
            return False
        if i == len(path) - 1:
            data[key] = value
            return True
        inner = data[key] if isinstance(data, list) else data.get(key)
        if isinstance(inner, str) and isinstance(following, str):
            inner = {"name": inner}
        elif inner is None and isinstance(following, str):
            inner = {}
        elif not isinstance(inner, dict | list):
            return False
        data[key] = inner
        data = inner
    return False


_NUMBERS = (
    *(-1, 0, 1, 2, -0.0, 0.5, 1e-3, 5e-324, 1e-30, 1e9, 1e30, 1e308, -1e308, math.inf, -math.inf, math.nan),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), -(2**31) - 1),
)
_WORDS = (
    *(
        "",
        " ",
        "x",
        "1e400",
        "nan",
        "inf",
        "true",
        "null",
        "0x10",
        "1_000",
        "..",
        ".",
        "../..",
        "a/b",
        "a b",
        "ä\u202e",
        "\x00",
    ),
    *(
        "math:sqrt",
        "math:",
        ":",
        "a:b:c",
        "nothere:f",
        "json:dumps",
        "jneuro:run",
        "v",
        "spikes",
        "ok",
        "time",
        "~",
        "name",
    ),
    *(
        "/dev/null",
        "/etc",
        "x" * 5000,
        "{}",
        "[1",
        "${HOME}",
        "__class__",
        "numpy:nan",
        "builtins:exit",
        "collections:OrderedDict",
    ),
)


_KEYS = ("name", "a", "low", "normal", "values", 3, None, 1.5, "")


def _thing(rng: random.Random, depth: int = 2) -> Any:
    """Anything that a file can hold."""
    match rng.randrange(8 if depth else 5):
        case 0 | 1:
            return rng.choice(_NUMBERS)
        case 2 | 3:
            return rng.choice(_WORDS)
        case 4:
            return rng.choice([None, True, False, [], {}])
        case 5:
            return [_thing(rng, depth - 1) for _ in range(rng.choice([1, 2, 3, 40]))]
        case 6:
            return {name: _thing(rng, depth - 1) for name in rng.sample(_KEYS, rng.choice([1, 2]))}
    return _nested(rng, rng.choice([3, 30, 90]))


def _nested(rng: random.Random, depth: int) -> Any:
    value: Any = rng.choice([1, None, "x"])
    for _ in range(depth):
        value = [value] if rng.random() < 0.7 else {"name": value}
    return value


def _kinds(annotation: Any) -> set[Any]:
    if isinstance(annotation, str):
        named = {"int": int, "float": float, "bool": bool, "str": str}
        return {kind for word, kind in named.items() if re.search(rf"\b{word}\b", annotation)} or {float}
    if get_origin(annotation) is Literal:
        return {annotation}
    parts = get_args(annotation)
    return set().union(*map(_kinds, parts)) if parts else {annotation}


def _fitting(slot: Slot, rng: random.Random) -> Any:
    """A value of the kind that a place declares, at its limits or near what it has; it may be possible or not."""
    if slot.registry is not None:
        return _named(slot.registry, rng)
    if isinstance(slot.value, list | tuple) and slot.value and rng.random() < 0.7:
        values = [*_plain(slot.value)]
        rng.choice([values.reverse, values.pop, values.clear, lambda: values.append(copy.deepcopy(values[0]))])()
        return values
    kinds = [k for k in _kinds(slot.annotation) if k is not type(None)] or [str]
    kind = rng.choice(sorted(kinds, key=str))
    if get_origin(kind) is Literal:
        return rng.choice(get_args(kind))
    if kind is bool:
        return rng.random() < 0.5
    if kind is str:
        return rng.choice(_WORDS)
    if kind in (int, float, Any) or not isinstance(kind, type):
        edges = [*slot.limits.values()]
        edges += [
            math.nextafter(e, s) if kind is float else e + (1 if s > 0 else -1) for e in edges for s in (-9e99, 9e99)
        ]
        if isinstance(slot.value, int | float) and not isinstance(slot.value, bool):
            edges += [slot.value * f for f in (0.5, 0.99, 1.01, 2, 3, 10, 1000)] + [slot.value + 1, -slot.value]
        number = rng.choice(edges or list(_NUMBERS))
        return int(number) if kind is int and math.isfinite(number) and rng.random() < 0.9 else number
    if issubclass(kind, Config) and rng.random() < 0.5:
        names = [*kind.model_fields]
        return {n: _thing(rng) for n in rng.sample(names, min(2, len(names)))}
    return _thing(rng)


def _named(registry: Registry, rng: random.Random) -> Any:
    """A name that a registry knows, with all that its constructor needs and some of what it takes."""
    if not len(registry):
        return _thing(rng)
    name = rng.choice(sorted(registry))
    target = registry.find(name)
    if inspect.isclass(target) and issubclass(target, Config):
        about = {n: (f.annotation, _limits(f.metadata), f.is_required()) for n, f in target.model_fields.items()}
    else:
        about = {p.name: (p.annotation, {}, p.default is p.empty) for p in _signature(target)}
    block: dict[str, Any] = {"name": name}
    for key, (annotation, limits, needed) in about.items():
        if key not in ("name", *registry._given) and (needed or rng.random() < 0.15):
            block[key] = _fitting(Slot((), annotation, limits, _registry(annotation), None), rng)
    return name if len(block) == 1 and rng.random() < 0.7 else block


def _plain(value: Any) -> Any:
    """A checked value as a file holds it."""
    if isinstance(value, Config):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_simple(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(map(_simple, value))
    return isinstance(value, np.generic | str | int | float | bool) or value is None


def _dump(data: Any, rng: random.Random) -> str:
    """A file of the same meaning in another style."""
    how = {"default_flow_style": rng.choice([None, True, False]), "sort_keys": rng.random() < 0.5}
    text = yaml.safe_dump(data, **how, width=rng.choice([40, 120, 10**6]), allow_unicode=rng.random() < 0.5)
    return ("---\n" if rng.random() < 0.3 else "") + text


def _legal(text: str, data: dict, places: list[Slot], rng: random.Random) -> Mutation | None:
    """What must be accepted."""
    choice = rng.randrange(6)
    if choice == 0:
        styled = _dump(data, rng)
        return Mutation(rng.choice([styled, styled.replace("\n", "\r\n"), "\ufeff" + styled]), "restyled", True, True)
    if choice == 1:
        lines = text.splitlines()
        lines.insert(rng.randrange(len(lines) + 1), "# " + "".join(rng.choices(string.printable[:94] + "äß→", k=20)))
        return Mutation("\n".join(lines) + "\n", "a comment", True, True)
    if choice == 2:
        data["seed"] = rng.choice([0, 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
        return Mutation(_dump(data, rng), f"seed {data['seed']}", True)
    if choice == 3:
        letters = string.ascii_letters + string.digits
        data["name"] = rng.choice(letters) + "".join(rng.choices(letters + "_-.", k=rng.choice([0, 8, 60]))) + "a"
        return Mutation(_dump(data, rng), f"name {data['name']}", True)
    if choice == 4:
        near = [s for s in places if s.physical and type(s.value) is float and s.value and _inside(s, 1.001 * s.value)]
        if near and _put(data, (slot := rng.choice(near)).path, slot.value * (1 + 1e-3 * rng.random())):
            return Mutation(_dump(data, rng), f"{_said(slot)} a little more", True)
        return None
    # What it has, said.
    slot = rng.choice([s for s in places if _simple(s.value) and s.path[-1] not in Sizes._fields])
    if not _put(data, slot.path, value := _plain(slot.value)):
        return None
    # An argument of a block stands in the run's hash as soon as it is said.
    return Mutation(_dump(data, rng), f"{_said(slot)} = {value!r}, said", True, same=not slot.argument)


def _inside(slot: Slot, value: float) -> bool:
    low, high = slot.limits.get("ge"), slot.limits.get("le")
    return (low is None or low < value) and (high is None or value < high)


def _said(slot: Slot) -> str:
    return ".".join(map(str, slot.path))


def _by_schema(data: dict, places: list[Slot], rng: random.Random) -> str | None:
    """Another value in one place."""
    slot = rng.choice(places)
    value = _fitting(slot, rng) if rng.random() < 0.6 else _thing(rng)
    return f"{_said(slot)} = {str(value)[:60]}" if _put(data, slot.path, value) else None


def _nodes(data: Any, path: tuple = ()) -> Iterator[tuple[Any, Any, tuple]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key, (*path, key)
        if isinstance(value, dict | list):
            yield from _nodes(value, (*path, key))


def _by_structure(data: dict, rng: random.Random) -> str | None:
    """Keys and parts removed, renamed, moved, wrapped."""
    nodes = list(_nodes(data))
    if not nodes:
        return None
    (above, key, path), (other, where, _) = rng.choice(nodes), rng.choice(nodes)
    value = copy.deepcopy(above[key])
    match rng.randrange(7):
        case 0:
            del above[key]
        case 1 if isinstance(key, str) and key:
            letters = list(key)
            letters[rng.randrange(len(letters))] = rng.choice("aeiou_ ")
            above["".join(letters)] = above.pop(key)
        case 2:
            other[where] = value
        case 3:
            above[key] = [value]
        case 4 if isinstance(value, list) and value:
            above[key] = value[0]
        case 5:
            above[key] = str(value)
        case 6 if isinstance(above, list):
            above.append(value)
        case _:
            above[key] = {rng.choice(["name", "value", "x"]): value}
    return f"structure at {'.'.join(map(str, path))}"


_PIECES = (
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        ",",
        "#",
        "&a ",
        "*a",
        "!!int ",
        "!!python/object/apply:os.getcwd []",
        "!!set ",
        "|",
        ">",
    ),
    *(
        "\t",
        "\n",
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "? ",
        "- ",
        "---\n",
        "...\n",
        "<<: ",
        "0x_",
        "0b_",
        "1" * 5000,
        "[" * 600,
    ),
    *(
        "!!binary x",
        "!!timestamp 1",
        "!!map [a]",
        "!!bool maybe",
        "2001-01-01",
        "1:30:00",
        "1e999",
        ".inf",
        "\u0085",
        "\u2028",
    ),
    *("=", "~", "yes", "{a: &b [*b]}", "!local ", "\ud7ff", "é", "🙂"),
)


def _by_text(text: str, rng: random.Random) -> tuple[str | bytes, str]:
    """Characters and lines changed."""
    at = rng.randrange(len(text))
    match rng.randrange(6):
        case 0:
            piece = rng.choice(_PIECES)
            return text[:at] + piece + text[at:], f"{piece[:20]!r} at {at}"
        case 1:
            return text[:at] + text[at + rng.choice([1, 2, 30]) :], f"cut at {at}"
        case 2:
            return text[:at], f"ends at {at}"
        case 3:
            data = bytearray(text.encode())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(data), "a flipped bit"
        case 4:
            lines = text.splitlines(keepends=True)
            i = rng.randrange(len(lines))
            lines[i] = rng.choice([lines[i] * 2, " " + lines[i], lines[i].lstrip(), "\t" + lines[i]])
            return "".join(lines), f"line {i + 1}"
    return text[:at] + rng.choice(string.printable) + text[at + 1 :], f"a character at {at}"


def mutated(text: str, places: list[Slot], rng: random.Random) -> Mutation:
    """One mutation of a configuration.

    Args:
        text: the file.
        places: its `slots`.
        rng: decides.
    """
    while True:
        data, share = yaml.load(text, Loader), rng.random()
        if share < 0.2:
            found = _legal(text, data, places, rng)
            if found is not None:
                return found
        elif share < 0.8:
            parts = rng.choice([1, 1, 1, 2, 3])
            said = [_by_schema(data, places, rng) if share < 0.66 else _by_structure(data, rng) for _ in range(parts)]
            if None not in said:
                return Mutation(yaml.dump(data, allow_unicode=True, sort_keys=False), "; ".join(map(str, said)))
        else:
            return Mutation(*_by_text(text, rng))
