"""Registries of named objects (ours, plugins' entry points, user code), and the configuration blocks that use them.

A kind is what a configuration may name: a simulator, a model, a loss. Ours are listed as an entry point is,
`name: "module:attribute"`, so that names can be shown before anything heavy is imported; installed packages add theirs
with an entry point in the group `jneuro.KIND`, such as

    [project.entry-points."jneuro.simulator"]
    morris_lecar = "my_package.cells:MorrisLecar"
"""

import contextlib
import contextvars
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ConfigDict, PrivateAttr, SerializationInfo
from pydantic_core import core_schema

from jneuro.core.code import CodeError, load_object
from jneuro.core.config import Config
from jneuro.core.names import shown, unknown_name
from jneuro.core.outline import summary

__all__ = ["Block", "Registry", "accepted", "names_found", "required", "takes_any"]


def accepted(make: Callable) -> list[str]:
    """The names of the arguments that something is built from, such as a simulator, a stimulus or a preset."""
    return [p.name for p in _signature(make)]


def required(make: Callable) -> list[str]:
    """The names of the arguments that have no default."""
    return [p.name for p in _signature(make) if p.default is p.empty]


def takes_any(make: Callable) -> bool:
    """Whether something takes arguments of any name."""
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(make))


_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _parameters(make: Callable) -> list[inspect.Parameter]:
    found = [*inspect.signature(make).parameters.values()]
    if inspect.isclass(make) and all(p.kind in _VARIABLE for p in found):
        # A metaclass that has a call of its own, as Flax's modules have, hides the constructor's signature.
        found = [*inspect.signature(make.__init__).parameters.values()][1:]
    return found


def _signature(make: Callable) -> list[inspect.Parameter]:
    return [p for p in _parameters(make) if p.kind not in _VARIABLE]


class Block(Config):
    """A registered name with constructor arguments, as it stands in a configuration.

    Attributes:
        name: one of ours, of a plugin, or `module:name`.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    _target: Any = PrivateAttr(default=None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What is passed to the constructor."""
        return dict(self.model_extra or {})

    @property
    def target(self) -> Any:
        """What the name means: a class, a function or an object."""
        return self._target

    @property
    def source_objects(self) -> tuple[Any, ...]:
        """What stands behind the name."""
        return (self._target,)

    def check_arguments(self, *given: str) -> None:
        """Refuse arguments that the target does not take, and the lack of one that it needs.

        Args:
            given: names of arguments that will be passed besides, where the target takes them.

        Raises:
            ValueError: with the name, and the one that was probably meant.
        """
        known = accepted(self.target)
        for key in self.arguments:
            if key not in known and not takes_any(self.target):
                raise ValueError(f"{self.name}: {unknown_name(key, [k for k in known if k not in given], 'argument')}")
        for parameter in _signature(self.target):
            if parameter.name in self.arguments:
                self._check_number(parameter)
        missing = [k for k in required(self.target) if k not in self.arguments and k not in given]
        if missing:
            raise ValueError(f"{self.name}: {missing[0]} is missing; it takes {', '.join(known)}")

    def _check_number(self, parameter: inspect.Parameter) -> None:
        """Refuse words, true, false and what is not finite where the signature says that a number is meant."""
        value, said = self.arguments[parameter.name], parameter.annotation
        kinds = {kind.strip() for kind in (said.__name__ if inspect.isclass(said) else str(said)).split("|")}
        if not kinds & {"int", "float"} or kinds - {"int", "float", "None"}:
            return
        wrong = ""
        if isinstance(value, str | bool | list | tuple | Mapping) or (value is None and "None" not in kinds):
            wrong = "must be a number"
        elif isinstance(value, float) and not math.isfinite(value) and value != parameter.default:
            wrong = "must be finite"
        elif isinstance(value, float) and "float" not in kinds and not value.is_integer():
            wrong = "must be a whole number"
        if wrong:
            raise ValueError(f"{self.name}: {parameter.name} = {shown(value)} {wrong}")

    def build(self, **given: Any) -> Any:
        """Call the target with the arguments of the block.

        Args:
            given: further arguments, passed where the target takes them; those of the block win.

        Raises:
            ValueError: for arguments that do not fit, or if the call fails.
        """
        known = accepted(self.target)
        self.check_arguments(*given)
        try:
            return self.target(**({k: v for k, v in given.items() if k in known} | self.arguments))
        except TypeError as error:
            raise ValueError(f"{self.name}: {error}") from error


_listeners: contextvars.ContextVar[tuple[dict[tuple[str, str], Any], ...]] = contextvars.ContextVar(
    "listeners", default=()
)


@contextlib.contextmanager
def names_found() -> Iterator[dict[tuple[str, str], Any]]:
    """Collect what registries find for the duration of a `with` block: by kind and name, what the name means.

    So a block knows the code behind what its arguments name, such as the rule of a network, at whatever depth.
    """
    found: dict[tuple[str, str], Any] = {}
    token = _listeners.set((*_listeners.get(), found))
    try:
        yield found
    finally:
        _listeners.reset(token)


class _Entry(NamedTuple):
    """Where a name leads, and who brought it."""

    reference: str
    source: str


class Registry:
    """Registry of one kind, such as "simulator": every configuration key that names one looks it up here."""

    every: dict[str, "Registry"] = {}  # noqa: RUF012
    """All registries by their kind."""

    def __init__(
        self, kind: str, builtin: Mapping[str, str], check: Callable[[Any], str | None], *, given: tuple[str, ...] = ()
    ) -> None:
        """Declare a kind.

        Args:
            kind: its name in the singular, such as "simulator"; names the group of entry points.
            builtin: our own, `name: "module:attribute"`.
            check: says in words what an object lacks to be of this kind; None if it is.
            given: arguments that whoever builds it passes besides those of the configuration.
        """
        self.kind, self._builtin, self._check, self._given = kind, dict(builtin), check, given
        Registry.every[kind] = self

    @property
    def ours(self) -> tuple[str, ...]:
        """The names that come with this package, without a look at others."""
        return tuple(self._builtin)

    def entries(self) -> dict[str, _Entry]:
        """All names: ours first, then those of installed packages."""
        found = {name: _Entry(reference, "jneuro") for name, reference in self._builtin.items()}
        for point in importlib.metadata.entry_points(group=f"jneuro.{self.kind.replace(' ', '_')}"):
            source = point.dist.name if point.dist else "?"
            if point.name in found:
                warnings.warn(
                    f"the {self.kind} {point.name!r} of {source} is not used: {found[point.name].source} has one of "
                    "that name; use it as " + point.value,
                    stacklevel=2,
                )
            else:
                found[point.name] = _Entry(point.value, source)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self.entries())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self.entries()

    def __getitem__(self, name: str) -> Any:
        return self.find(name)

    def find(self, name: str) -> Any:
        """Find what a name means.

        Args:
            name: one of ours, of a plugin, or `module:name`.

        Returns:
            The class, function or object.

        Raises:
            ValueError: if the name is unknown, cannot be loaded, or means something of another kind.
        """
        found = self._find(name)
        for listener in _listeners.get():
            listener[self.kind, name] = found
        return found

    def _find(self, name: str) -> Any:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if ":" in name:
            found = load_object(name, self.kind)
        elif name in (entries := self.entries()):
            try:
                found = importlib.metadata.EntryPoint(name, entries[name].reference, "").load()
            except Exception as error:
                raise CodeError(
                    f"{name!r}, of the package {entries[name].source}, cannot be loaded ({error})"
                ) from error
        else:
            said = unknown_name(name, entries, self.kind).removesuffix("?")
            raise ValueError(f"{said}, or module:name of your own")
        if (lacks := self._check(found)) is not None:
            raise ValueError(f"{name!r} is no {self.kind}: {lacks}")
        return found

    def lacks(self, thing: Any) -> str | None:
        """What an object lacks to be of this kind, in words; None if it is."""
        return self._check(thing)

    def require(self, thing: Any) -> Any:
        """Return an object that is of this kind; refuse another, in words."""
        if (lacks := self._check(thing)) is not None:
            raise ValueError(f"{shown(thing)} is no {self.kind}: {lacks}")
        return thing

    def block(self, value: Any) -> Any:
        """Make of what a configuration or a caller gives a configured thing.

        Args:
            value: a name; a mapping with `name` and arguments; or the thing itself, in Python.

        Returns:
            A `Block`; or, where the name means a class of configurations, an instance of it.
        """
        if isinstance(value, Block) and value.target is not None:
            return value
        if isinstance(value, Config) and not isinstance(value, Block):
            return self.require(value)
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return self._wrapped(self.require(value), {})
        arguments = {str(k): v for k, v in value.items()}
        name = arguments.pop("name", None)
        if not isinstance(name, str):
            said = "is missing" if name is None else f"= {shown(name)} must be a name"
            raise ValueError(f"name {said}; known are {', '.join(self)}, or module:name of your own")
        target = self.find(name)
        if inspect.isclass(target) and issubclass(target, Config):
            return target.model_validate({"name": name, **arguments})
        block = self._wrapped(target, arguments, name)
        if arguments or inspect.isclass(target):
            block.check_arguments(*self._given)
        return block

    def _wrapped(self, target: Any, arguments: dict[str, Any], name: str = "") -> Block:
        if not name:
            about = target if inspect.isclass(target) or inspect.isroutine(target) else type(target)
            name = next((n for n, r in self._builtin.items() if r == f"{about.__module__}:{about.__qualname__}"), "")
            name = name or f"{about.__module__}:{about.__qualname__}"
        block = Block(name=name, **arguments)
        block._target = target
        return block

    def field(self) -> Any:
        """The type of a configuration's key that names something of this kind."""
        return _Field(self)

    def about(self, name: str) -> str:
        """The first line of the documentation of one of ours or a plugin's, without importing it.

        Args:
            name: the name.
        """
        # Ours without a look at all installed packages, which takes longer than all else.
        return summary(self._builtin.get(name) or self.entries()[name].reference)


def _plain(value: Any, info: SerializationInfo) -> Any:
    """Dump a block: its name alone where it has no arguments."""
    if isinstance(value, Block) and not value.arguments:
        return value.name
    return value.model_dump(mode=info.mode)


class _Field:
    """Lets pydantic take a key's value through a registry; used as `Annotated[Any, registry.field()]`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(
            self._registry.block,
            serialization=core_schema.plain_serializer_function_ser_schema(_plain, info_arg=True),
        )
