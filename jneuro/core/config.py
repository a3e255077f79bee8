"""Configurations as YAML files: finding, loading, overriding, checking, and errors that say what to mend."""

import functools
import hashlib
import itertools
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jneuro.core.code import code_folder, digest, source_files
from jneuro.core.names import one_line, shown, unknown_name

__all__ = [
    "COMMANDS",
    "AbsolutePath",
    "Config",
    "ConfigError",
    "Content",
    "Kind",
    "Loader",
    "RunConfig",
    "config_files",
    "content_hash",
    "content_of",
    "find_config",
    "first_error",
    "first_message",
    "load_config",
    "numbers_in",
    "to_yaml",
]


@functools.cache
def _kinds(annotation: Any) -> frozenset[Any]:
    """The types that an annotation is made of, such as float and NoneType of `tuple[float, ...] | None`."""
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    parts = get_args(annotation)
    return frozenset().union(*map(_kinds, parts)) if parts else frozenset([annotation])


def numbers_in(value: Any) -> Iterator[Any]:
    """All that lies in lists and mappings, however deep; a value alone is itself."""
    if isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from numbers_in(item)
    else:
        yield value


def _wrong_number(item: Any, kinds: frozenset[Any]) -> str:
    """What is wrong with one value of a key that takes numbers; empty if nothing."""
    if isinstance(item, bool) or (isinstance(item, str) and kinds <= {int, float, type(None), ...}):
        return "must be a number"
    if isinstance(item, int) and abs(item) >= 2**63 and float not in kinds:
        return "is more than can be counted"
    if isinstance(item, float) and item and math.isfinite(item) and not _SINGLE[0] <= abs(item) <= _SINGLE[1]:
        return f"is beyond what single precision holds, {_SINGLE[0]:.2g} to {_SINGLE[1]:.2g}"
    if isinstance(item, float) and float not in kinds and not item and math.copysign(1, item) < 0:
        return "must be a whole number"
    return ""


_SINGLE = (2.0**-126, 2.0**128 - 2.0**104)
"""The least and the greatest normal number of single precision."""


class Config(BaseModel):
    """A frozen piece of configuration: unknown keys are refused with a suggestion, and numbers must be finite.

    Attributes:
        outside_hash: keys on which no result depends, so that a change of them makes no other run.
    """

    # What is infinite, such as the end of a step, must be so still when a run's config.yaml is read again.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")
    outside_hash: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **values: Any) -> None:
        """Check the keys.

        Args:
            values: of the keys.

        Raises:
            ConfigError: for anything wrong with them, in one line each.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(_flat(error), type(self).__name__, ())) from None

    # So Pydantic knows that configurations within others, of mappings, need no call of it.
    __init__.__pydantic_base_init__ = True  # pyright: ignore[reportFunctionMemberAccess]

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        """Refuse unknown keys, and say which one was probably meant."""
        if isinstance(data, Mapping) and cls.model_config.get("extra") == "forbid":
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_name(str(key), cls.model_fields, "key"))
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true, false and words where numbers alone are meant, and numbers that a computer has not."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if not kinds & {int, float} or kinds & {bool, Any}:
            return value
        for item in numbers_in(value):
            wrong = _wrong_number(item, kinds)
            if wrong:
                raise ValueError(f"= {shown(value)}: {'' if item is value else f'{shown(item)} '}{wrong}")
        return value

    @property
    def source_objects(self) -> tuple[Any, ...]:
        """What the configuration stands for and names, whose source may not be this package's."""
        return (type(self),)

    @property
    def source_digest(self) -> str | None:
        """Stands for source that is not this package's; see `jneuro.core.code.digest`."""
        digests = [digest(thing) for thing in self.source_objects]
        return None if None in digests else " ".join(d for d in digests if d)


class Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers people write (`1e-3`), without dates and without silently repeated keys."""

    yaml_implicit_resolvers: ClassVar = {
        first: [r for r in resolvers if r[0] not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        seen = set()
        # What is tagged as a mapping may be something else.
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"the key at line {line} is not a word; text with braces needs quotes"
                )
            if not isinstance(name := self.construct_object(key, deep=True), str):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(name)} at line {line} is not a word; put it in quotes"
                )
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"key {shown(name)} stands twice, again at line {line}")
            seen.add(name)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class RunConfig(Config):
    """What everything that runs has: a name and a seed.

    Attributes:
        name: names the run folder.
        seed: the one seed, from which every random stream is derived; JAX's keys know no more than 32 bits of it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=100)
    seed: int = Field(default=0, ge=0, lt=2**32)


AbsolutePath = Annotated[Path, AfterValidator(Path.resolve)]
"""A path that stays the same from whatever folder a run is resumed."""

Kind = TypeVar("Kind", bound=RunConfig)

COMMANDS = {"models": "run", "fit": "fit", "sweep": "sweep"}
"""Which command a file is for, by the key that only such files have."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names file, key, value and remedy."""

    outcome = "error"


Resolved = TypeVar("Resolved")
"""What is made of a configuration."""


def load_config(
    kind: type[Kind],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    code: tuple[Path, Mapping[str, str] | None] | None = None,
    resolve: Callable[[Kind], Resolved] = lambda config: config,
) -> Resolved:
    """Load and check a configuration.

    Args:
        kind: what the file describes.
        path: the YAML file.
        overrides: `a.b=value`, each replacing one key; values are read as YAML.
        code: the folder of the modules that it names, and hashes that they must have; by default the file's own folder.
        resolve: checks the parts against each other and makes of them what is wanted; its errors name the file too.

    Returns:
        What `resolve` makes of the checked configuration; by default the configuration itself.

    Raises:
        ConfigError: for anything wrong with it; nothing is computed before.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see `jneuro list configs`") from error
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB; see `jneuro list configs`")
    data = _parsed(f"{path}:", text)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values")
    for key, command in COMMANDS.items():
        if key in data and key not in kind.model_fields:
            raise ConfigError(f"{path}: '{key}' makes it a file for `jneuro {command}`")
    for override in overrides:
        _override(data, override)
    for above, key in ((data, "recording"), (data.get("sweep"), "table")):
        where = key if above is data else f"sweep.{key}"
        if not isinstance(above, dict) or any(o.startswith(f"{where}=") for o in overrides):
            continue
        given = above.get(key)
        if isinstance(given, dict) and isinstance(given.get("path"), str):
            given["path"] = str(path.parent / given["path"])
        elif isinstance(given, str) and "\n" not in given:
            above[key] = str(path.parent / given)
    folder, expected = (path.parent, None) if code is None else code
    try:
        with code_folder(folder, expected):
            return resolve(kind.model_validate(data))
    except ValidationError as error:
        raise ConfigError(_explain(_flat(error), path, overrides)) from error
    except (ValueError, OverflowError, MemoryError) as error:
        # The last two come of numbers that nobody can have meant.
        known = error if isinstance(error, ValueError) else f"a number is too large ({one_line(error, 200)})"
        item = {"type": "value_error", "ctx": {"error": known}}
        raise ConfigError(_explain([((), item)], path, overrides)) from error


_MOST_BYTES = 256 << 20
"""Most bytes of a configuration, which may hold a table of points."""
_DEEPEST = 64
"""Most mappings and lists within each other."""
_MOST_VALUES = 1_000_000
"""Most values of a configuration, those that an alias repeats counted each time."""


def _parsed(where: str, text: str | bytes) -> Any:
    """Read YAML; what PyYAML itself trips over, such as `!!int foo` or a thousand brackets, is no YAML either."""
    try:
        value = yaml.load(text if isinstance(text, str) else text.decode("utf-8"), Loader)
        _check_plain(value, itertools.count(1))
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        kind = "" if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: "
        raise ConfigError(f"{where} not valid YAML: {kind}{one_line(error, 200)}") from error
    return value


def _check_plain(value: Any, count: Iterator[int], depth: int = 0) -> None:
    """Refuse what is nested without end, what aliases make of a few lines, and what JSON does not know."""
    if depth > _DEEPEST:
        raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep")
    if next(count) > _MOST_VALUES:
        raise yaml.MarkedYAMLError(problem=f"more than {_MOST_VALUES:,} values, with those that aliases repeat")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, count, depth + 1)
    elif isinstance(value, int) and value.bit_length() > 1024:
        raise yaml.MarkedYAMLError(problem=f"a number of {value.bit_length():,} bits is beyond any that is meant")
    elif not isinstance(value, str | int | float | None):
        raise yaml.MarkedYAMLError(problem=f"{shown(value)} is neither text, number, list nor mapping")


def _override(data: dict[str, Any], text: str) -> None:
    """Apply one `a.b=value`."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"command line: {shown(text)} must have the form key=value, such as train.epochs=3")
    *parents, last = key.split(".")
    here = data
    for depth, parent in enumerate(parents):
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            said = f"{'.'.join(parents[: depth + 1])} is a value and has no keys"
            raise ConfigError(f"command line: {shown(text)}: {said}")
    here[last] = _parsed(f"command line: {shown(text)} is", value)


def first_message(error: ValueError) -> str:
    """The first of an error's messages, in plain words."""
    if isinstance(error, ValidationError):
        return _message(next(_flat(error))[1])
    return str(error)


def first_error(error: ValueError) -> str:
    """The first of an error's messages, in plain words, behind the key that it is about."""
    keys = ".".join(next(_flat(error))[0]) if isinstance(error, ValidationError) else ""
    return f"{keys}: {first_message(error)}".replace(": = ", " = ").removeprefix(": ")


def _flat(error: ValidationError, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All errors with their keys; those of a configuration that a name has chosen among them."""
    for item in error.errors():
        keys = (*above, *map(str, item["loc"]))
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _flat(inner, keys)
        else:
            yield keys, item


def _message(error: Any) -> str:
    """One pydantic error in plain words."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_invalid":
        known = [t.strip(" '") for t in context["expected_tags"].split(",")]
        return unknown_name(str(context["tag"]), known, "name")
    value = error["input"]
    before = f"= {shown(value)}: " if isinstance(value, str | int | float | bool | list | tuple | type(None)) else ""
    text = error["msg"]
    if kind == "float_parsing" or kind == "int_parsing":
        text = "must be a number"
    elif kind == "too_short":
        text = f"must have at least {context['min_length']} item{'s' * (context['min_length'] > 1)}"
    text = _PLAIN.get(kind, text)
    return f"{before}{text[0].lower()}{text[1:]}"


_PLAIN = {
    "model_type": "must be a dictionary of keys and values",
    "dict_type": "must be a dictionary of keys and values",
    "tuple_type": "must be a list",
    "string_type": "must be text",
}
"""Messages of Pydantic in other words."""

_UNIONS = ("horizons_ms",)
"""Keys whose value is one of several kinds."""


def _explain(found: Iterable[tuple[tuple[str, ...], Any]], path: Path | str, overrides: Sequence[str]) -> str:
    """All errors, one a line: file or command line, key, value and remedy."""
    lines, found = [], [*found]
    for keys, item in found:
        if item["type"] == "too_short" and any(other[: len(keys)] == keys != other for other, _ in found):
            continue  # what it counts is what is right
        # Behind a union's key, pydantic puts the tag that chose the member.
        loc = ["", *keys]
        key = ".".join(k for before, k in pairwise(loc) if before not in _UNIONS or k == "name")
        text = f"{key + ': ' if key else ''}{_message(item)}".replace(": = ", " = ")
        where = "command line" if any(_blames(text, o, key) for o in overrides) else str(path)
        lines.append(f"{where}: {one_line(text, max(_LINE - len(where) - 2, _LINE // 2))}")
    more = [f"{path}: and {len(lines) - _LINES} errors more"] if len(lines) > _LINES else []
    return "\n".join(lines[:_LINES] + more)


_LINE = 300
"""Most characters of a line."""
_LINES = 20
"""Most errors that are told at once."""


def _blames(text: str, override: str, key: str) -> bool:
    """Whether an error at `key` is about an override: at that very key or within it, or naming it or its value."""
    given, _, value = override.partition("=")
    inside, below = f"{key}.".startswith(f"{given}."), not key or f"{given}.".startswith(f"{key}.")
    wrong = text.partition("; did you mean")[0]
    named = re.search(rf"\b{re.escape(given.rpartition('.')[2])}\b", wrong)
    return inside or (below and bool(named or any(f"'{w}'" in wrong for w in [*given.split("."), value.strip("[]")])))


def _config_root() -> Path:
    """The configurations of the working folder, or else those that came with the package."""
    here = Path("configs")
    return here if here.is_dir() else Path(__file__).parents[1] / "configs"


def config_files() -> list[Path]:
    """All configurations there are."""
    return sorted(_config_root().rglob("*.yaml"))


def find_config(name: str) -> Path:
    """The file that a name on the command line means: a path, or a configuration's path without folder and ending."""
    path = Path(name)
    known = _config_root() / f"{name.removesuffix('.yaml')}.yaml"
    return known if not path.exists() and known.exists() else path


def to_yaml(config: Config) -> str:
    """The resolved configuration, complete with defaults."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def content_hash(*parts: Any, code: bool = True) -> str:
    """Eight hexadecimal digits that stand for configurations and plain values.

    Args:
        parts: configurations, and values that JSON knows.
        code: whether the source of what they name counts too. What has no source never has the same hash twice.
    """
    plain = [_hashed(part, code) for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _hashed(value: Any, code: bool) -> Any:
    """A value as JSON, with a digest wherever it names code that is not this package's."""
    if isinstance(value, Mapping):
        return {str(k): _hashed(v, code) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hashed(v, code) for v in value]
    if not isinstance(value, Config):
        return value
    kept = [key for key in type(value).model_fields if key not in value.outside_hash]
    found = {key: _hashed(getattr(value, key), code) for key in kept}
    found |= {key: _hashed(v, code) for key, v in (value.model_extra or {}).items()}
    if code and (source := value.source_digest) != "":
        found["code"] = uuid.uuid4().hex if source is None else source
    return found


class Content(NamedTuple):
    """All that a result depends on.

    Attributes:
        hash: eight hexadecimal digits; see `content_hash`.
        files: the hash of every file of one's own that stands behind it, by its path.
        sourceless: names of what has no source, such as a lambda, so that the hash is never the same twice.
    """

    hash: str
    files: dict[str, str]
    sourceless: tuple[str, ...]


def content_of(*parts: Any) -> Content:
    """Say what a result depends on.

    Args:
        parts: configurations, values that JSON knows, and contents of other results.
    """
    known = [part for part in parts if isinstance(part, Content)]
    blocks = [block for part in parts if part not in known for block in _configs(part)]
    files = {name: digits for content in known for name, digits in content.files.items()}
    things = [thing for block in blocks for thing in block.source_objects]
    files |= {name: digits for thing in things for name, digits in source_files(thing).items()}
    nameless = [name for content in known for name in content.sourceless]
    nameless += [str(getattr(b, "name", type(b).__name__)) for b in blocks if b.source_digest is None]
    return Content(content_hash(*parts), dict(sorted(files.items())), tuple(dict.fromkeys(nameless)))


def _configs(value: Any) -> Iterator[Config]:
    """A configuration and all within it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _configs(inner)
    elif isinstance(value, Config):
        yield value
        fields = [getattr(value, key) for key in type(value).model_fields]
        yield from _configs([*fields, *(value.model_extra or {}).values()])
