"""Static introspection: signature, units and docstring of a class or function, read from its syntax tree, not imported.

Understands what configurations may name: functions, objects of a module, and classes with an `__init__` or with fields
(`param`, pydantic's and equinox's), with their base classes as far as these stand in the same package or folder.
"""

import ast
import copy
import functools
import importlib.util
import math
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Argument", "Outline", "outline", "summary"]

_DECLARE = ("param", "state", "field", "Field")
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_NUMBERS = {"math.pi": math.pi, "math.inf": math.inf, "float('inf')": math.inf}
_LIMITS = {"ge": ("[", 0), "gt": ("(", 0), "le": ("]", 1), "lt": (")", 1)}


class Argument(NamedTuple):
    """An argument of a constructor or of a function.

    Attributes:
        default: as it is written; None where it must be given.
        unit: its unit, where one is declared.
        bounds: the interval in which it makes sense; empty for all values.
        doc: its meaning.
        source: where the default stands.
    """

    default: str | None = None
    unit: str = ""
    bounds: str = ""
    doc: str = ""
    source: str = ""


class Outline(NamedTuple):
    """What is declared.

    Attributes:
        doc: the docstring.
        arguments: by name.
        records: what can be recorded of a simulator, and the unit where one is declared.
        presets: the names of the constructors with the constants of a source.
    """

    doc: str
    arguments: Mapping[str, Argument]
    records: Mapping[str, str]
    presets: tuple[str, ...]


class _Text(NamedTuple):
    """A module's name, its package, and its syntax tree."""

    module: str
    package: str
    tree: ast.Module


class _Found(NamedTuple):
    """A definition, and the module in which it stands."""

    text: _Text
    node: ast.stmt
    after: ast.stmt | None


def outline(reference: str) -> Outline | None:
    """Read what a reference means.

    Args:
        reference: `module:name`; see `jneuro.core.code.code_folder` for where modules are found.

    Returns:
        What it declares; None where there is no text of it.
    """
    module, _, name = reference.partition(":")
    found = _find(module, name)
    if found is None:
        return None
    doc = _doc(found)
    if isinstance(found.node, ast.FunctionDef):
        return Outline(doc, _of_function(found.text, found.node), {}, ())
    if not isinstance(found.node, ast.ClassDef):
        return Outline(doc, {}, {}, ())
    family = [*_family(found.text, found.node)]
    members = {_target(n): (text, n) for text, cls in family for n in cls.body}
    own = members.get("__init__", (None, None))[1]
    if isinstance(own, ast.FunctionDef) and own.args.kwarg is None:
        arguments = _of_function(members["__init__"][0], own, found.node)
    else:  # an `__init__` that passes on any keyword takes what the fields are
        arguments = _fields(family)
    presets = _value(members["presets"][1]) if "presets" in members else None
    elements = presets.elts if isinstance(presets, ast.Tuple) else []
    names = tuple(_written(e) for e in elements)
    return Outline(doc, arguments, _records(family), names)


def summary(reference: str) -> str:
    """The first line of the docstring of `module:name`, empty if there is none; much faster than `outline`."""
    module, _, name = reference.partition(":")
    found = _find(module, name)
    return _doc(found).partition("\n")[0] if found else ""


def _doc(found: _Found) -> str:
    """The docstring of a definition, or the string below an attribute."""
    if isinstance(found.node, ast.FunctionDef | ast.ClassDef):
        return ast.get_docstring(found.node) or ""
    return _string(found.after)


@functools.cache
def _read(path: Path, changed: float) -> ast.Module:
    del changed  # a part of the key: the text may be another one
    return ast.parse(path.read_bytes())


def _text(module: str) -> _Text | None:
    """A module's text, or its stub's; the packages above it are imported, and it is not."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not (spec.origin or "").endswith(".py"):
            return None
        path, stub = Path(spec.origin or ""), Path(spec.origin or "").with_suffix(".pyi")
        path = stub if stub.exists() else path
        return _Text(module, spec.parent or "", _read(path, path.stat().st_mtime))
    except (ImportError, OSError, SyntaxError, ValueError, AttributeError):
        return None


def _find(module: str, name: str, seen: tuple[str, ...] = ()) -> _Found | None:
    """A definition by its name, in the module or where that imports it from."""
    text = _text(module)
    if text is None:
        return None
    for node, after in zip(text.tree.body, [*text.tree.body[1:], None], strict=True):
        if _target(node) == name:
            return _Found(text, node, after)
        if isinstance(node, ast.ImportFrom):
            package = text.package.split(".")[: len(text.package.split(".")) + 1 - node.level] if node.level else []
            there = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                if (alias.asname or alias.name) == name and module not in seen:
                    return _find(there, alias.name, (*seen, module))
    return None


def _target(node: ast.stmt) -> str:
    """The name that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def _value(node: ast.stmt) -> ast.expr | None:
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None


def _string(node: ast.stmt | None) -> str:
    """The string that stands alone in a statement, as below an attribute."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _family(text: _Text, cls: ast.ClassDef) -> Iterator[tuple[_Text, ast.ClassDef]]:
    """A class and its bases, the most basic first, as far as they belong to the same package or folder."""
    for base in reversed(cls.bases):
        found = _find(text.module, base.id) if isinstance(base, ast.Name) else None
        if found is not None and isinstance(found.node, ast.ClassDef):
            yield from _family(found.text, found.node)
    yield text, cls


class _Filled(ast.NodeTransformer):
    """Puts values in the place of names: those given, and constants of the module or of one that it imports from."""

    def __init__(self, text: _Text, given: Mapping[str, ast.expr]) -> None:
        self._text, self._given = text, given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._given:
            return self._given[node.id]
        found = _find(self._text.module, node.id)
        value = _value(found.node) if found is not None else None
        return node if found is None or value is None else _Filled(found.text, {}).visit(copy.deepcopy(value))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """The function's own name stays."""
        node.args = [self.visit(a) for a in node.args]
        node.keywords = [ast.keyword(k.arg, self.visit(k.value)) for k in node.keywords]
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        parts = [self.visit(p.value) if isinstance(p, ast.FormattedValue) else p for p in node.values]
        return ast.Constant("".join(map(_written, parts)))


def _expanded(text: _Text, call: ast.Call) -> tuple[_Text, ast.Call]:
    """What a function of one `return`, which makes declarations alike, declares with these arguments."""
    name = ast.unparse(call.func)
    found = None if name in _DECLARE else _find(text.module, name)
    if found is None or not isinstance(found.node, ast.FunctionDef):
        return text, call
    last, words = found.node.body[-1], found.node.args
    if not (isinstance(last, ast.Return) and isinstance(last.value, ast.Call)):
        return text, call
    named = {k.arg: k.value for k in call.keywords if k.arg}
    places = [a.arg for a in (*words.posonlyargs, *words.args, *words.kwonlyargs)]
    defaults = {a.arg: d for a, d in zip(words.args[::-1], words.defaults[::-1], strict=False)}
    defaults |= {a.arg: d for a, d in zip(words.kwonlyargs, words.kw_defaults, strict=True) if d is not None}
    given = defaults | dict(zip(places, call.args, strict=False)) | {k: v for k, v in named.items() if k in places}
    made = _Filled(found.text, given).visit(copy.deepcopy(last.value))
    others = [ast.keyword(k, v) for k, v in named.items() if k not in places] if words.kwarg else []
    made.keywords = [k for k in made.keywords if k.arg is not None] + others
    return _expanded(found.text, made)


def _written(node: ast.expr | None) -> str:
    """A value as it is written; a string without its quotes, the value of what can be calculated."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return str(node.value)
    number = None if isinstance(node, ast.UnaryOp) else _number(node)
    return ast.unparse(node) if number is None else f"{number:.6g}"


def _number(node: ast.expr) -> float | None:
    """The value of arithmetic on numbers; None where it is something else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float) and not isinstance(node.value, bool) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and (value := _number(node.operand)) is not None:
        return -value
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _number(node.left), _number(node.right)
        return None if left is None or right is None else _ARITHMETIC[type(node.op)](left, right)
    return _NUMBERS.get(ast.unparse(node))


def _fields(family: list[tuple[_Text, ast.ClassDef]]) -> dict[str, Argument]:
    """The fields of a class of configurations, or of a module whose constructor takes its fields."""
    found: dict[str, Argument] = {}
    docs: dict[str, str] = {}
    for text, cls in family:
        docs |= _section(ast.get_docstring(cls) or "", "Attributes:")
        for node, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not isinstance(node, ast.AnnAssign) or "ClassVar" in (kind := ast.unparse(node.annotation)):
                continue
            if (name := _target(node)).startswith("_") or (name == "name" and kind.startswith(("Literal", "str"))):
                continue
            argument = _declared(text, node.value)
            found[name] = argument._replace(doc=argument.doc or docs.get(name) or " ".join(_string(after).split()))
    return {n: a._replace(doc=a.doc or docs.get(n, "")) for n, a in found.items()}


def _declared(text: _Text, value: ast.expr | None) -> Argument:
    """A field's default, and what is declared of it."""
    if isinstance(value, ast.Call):
        text, value = _expanded(text, value)
    value = None if value is None else _Filled(text, {}).visit(copy.deepcopy(value))
    if not isinstance(value, ast.Call) or ast.unparse(value.func).rpartition(".")[2] not in _DECLARE:
        return Argument(None if value is None else _written(value))
    given = {k.arg: k.value for k in value.keywords}
    default = value.args[0] if value.args else given.get("default", given.get("default_factory"))
    if isinstance(default, ast.Constant) and default.value is ...:
        default = None
    said = {k: _written(given.get(k)) for k in ("unit", "doc", "source")}
    said["doc"] = said["doc"] or _written(given.get("description"))
    return Argument(None if default is None else _written(default), bounds=_interval(given), **said)


def _interval(given: Mapping[str | None, ast.expr | None]) -> str:
    """Bounds in interval notation, of `Bounds(...)` or of pydantic's limits."""
    ends, marks = ["-inf", "inf"], ["(", ")"]
    bounds = given.get("bounds")
    if isinstance(bounds, ast.Call):
        words = {k.arg: k.value for k in bounds.keywords}
        values = dict(enumerate(bounds.args)) | {i: words[k] for i, k in enumerate(("low", "high")) if k in words}
        open_ends = _written(words.get("open", bounds.args[2] if len(bounds.args) > 2 else None)) == "True"
        for i, node in values.items():
            if i < 2 and (end := _number(node)) is not None and end != (-math.inf, math.inf)[i]:
                ends[i], marks[i] = f"{end:g}", marks[i] if open_ends or math.isinf(end) else "[]"[i]
    for limit, (mark, i) in _LIMITS.items():
        if (node := given.get(limit)) is not None:
            ends[i], marks[i] = _written(node), mark
    return "" if ends == ["-inf", "inf"] else f"{marks[0]}{ends[0]}, {ends[1]}{marks[1]}"


def _of_function(text: _Text, function: ast.FunctionDef, cls: ast.ClassDef | None = None) -> dict[str, Argument]:
    """The arguments of a function, or of a class's `__init__`."""
    docs = _section(ast.get_docstring(cls) or "", "Args:") if cls is not None else {}
    docs |= _section(ast.get_docstring(function) or "", "Args:")
    given = function.args
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(given.defaults)) + [*given.defaults]
    pairs = [*zip(places, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    filled = {a.arg: d and _Filled(text, {}).visit(copy.deepcopy(d)) for a, d in pairs if a.arg not in ("self", "cls")}
    return {name: Argument(d and _written(d), doc=docs.get(name, "")) for name, d in filled.items()}


def _section(doc: str, title: str) -> dict[str, str]:
    """The entries of a docstring's section, such as `Args:`."""
    found: dict[str, str] = {}
    name = ""
    for line in doc.partition(title)[2].splitlines():
        indent, (key, separator, said) = len(line) - len(line.lstrip()), line.strip().partition(": ")
        if line.strip() and indent == 0:
            break
        if separator and indent == 4 and key.isidentifier():
            name, found[key] = key, said
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _records(family: list[tuple[_Text, ast.ClassDef]]) -> dict[str, str]:
    """What can be recorded of a simulator: its state, its stimulus, its spikes, and what its methods return by name."""
    every = [(_target(n), text, n) for text, cls in family for n in cls.body]
    members = {name: (text, node) for name, text, node in every}
    listed = _value(members["recordables"][1]) if "recordables" in members else None
    if isinstance(listed, ast.Dict):
        pairs = [(k, v) for k, v in zip(listed.keys, listed.values, strict=True) if isinstance(v, ast.Call)]
        return {_written(key): _written(value.args[0]) for key, value in pairs if value.args}
    if "State" not in members:
        return {}
    text, state = members.get("State", (None, None))
    if text is not None and state is not None and (value := _value(state)) is not None:  # State: ClassVar = Another
        another = _find(text.module, _written(value))
        text, state = (another.text, another.node) if another else (text, state)
    found: dict[str, str] = {}
    if text is not None and isinstance(state, ast.ClassDef):
        found = {name: argument.unit or "1" for name, argument in _fields([(text, state)]).items()}
    if "threshold" in members and "input_unit" in members:
        found["current"] = _written(_value(members["input_unit"][1]))
        if sum(name == "threshold" for name, *_ in every) > 1:  # the contract has one, which says that there is none
            found["spikes"] = "1"
    for method in ("step", "observables"):
        for node in ast.walk(members[method][1]) if method in members else ():
            values = node.value if isinstance(node, ast.Return) else None
            parts = [values, *(values.elts if isinstance(values, ast.Tuple) else [])]
            keys = [k for part in parts if isinstance(part, ast.Dict) for k in part.keys]
            names = [_written(key) for key in keys if key is not None]
            found |= {name: found.get(name, "") for name in names}
    return found
