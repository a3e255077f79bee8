"""The shape of the package, read from its syntax trees."""

import ast
import functools
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jneuro.core.registry import Registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jneuro"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# Imports run from right to left; those that share a place do not import each other.
ORDER = (
    {"core"},
    {"spikes"},
    {"recordings"},
    {"simulators"},
    {"datasets"},
    {"models"},
    {"training"},
    {"sweeps"},
    {"fitting", "interop"},  # any measure is an objective of fits
    {"evaluation"},
    {"report"},
    {"analyses"},
    {"experiment"},
    {"testing"},
    {"console"},
    {"cli"},
    {"__main__"},
)
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}
LIGHT = [["--help"], ["run", "--help"], ["list"], ["list", "losses"], ["list", "lstm"], ["list", "brunel"]]
"""Commands that need no JAX."""
VERBS = {"simulate", "simulate_many", "train", "fit", "sweep", "evaluate", "run", "train_ensemble"}
VERBS |= {"read", "read_table"}

# What the kinds have in common, which general code may ask for.
CONTRACTS = {
    "Block",
    "Comparison",  # the one criterion of evidence, which every sentence and figure shows
    "Config",
    "Exact",  # the two ways to differentiate spikes
    "ModelConfig",
    "ODESimulator",
    "Recording",
    "Registry",
    "Simulator",
    "SteppedSimulator",
    "Stimulus",
    "Surrogate",
}


def name_of(path):
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """The modules of this package that a module imports, wherever in it, as dotted names."""
    own = name_of(path).split(".")
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "jneuro")
        elif isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + (path.name == "__init__.py")] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "jneuro":
                yield from (f"jneuro.{a.name}" for a in node.names)
            elif module.startswith("jneuro."):
                yield module


def by_module(test):
    return pytest.mark.parametrize("path", FILES, ids=name_of)(test)


@by_module
def test_imports_run_one_way(path):
    parts = name_of(path).split(".")
    if len(parts) == 1:
        return  # the package's own names come from everywhere
    here = parts[1]
    assert here in PLACE, f"{here} has no place in the order"
    for module in imports(path):
        there = module.split(".")[1]
        assert there == here or PLACE[there] < PLACE[here], f"{name_of(path)} imports {module}"


@by_module
def test_a_package_does_not_import_itself_from_within(path):
    parent = name_of(path).rpartition(".")[0] if path.name != "__init__.py" else None
    own = [m for m in imports(path) if m == parent and m != "jneuro"]
    assert not own, f"import from the module that defines the name, not from {own}"


@by_module
def test_small_modules(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 700
    assert "utils" not in path.stem
    assert "helpers" not in path.stem


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@by_module
def test_short_functions(path):
    for function in functions(TREES[path]):
        length = function.end_lineno - function.lineno + 1
        most = 150 if function.name in VERBS or "kernels" in path.parts else 60
        assert length <= most, f"{function.name} has {length} lines"


@by_module
def test_no_helper_that_is_tiny_and_called_once(path):
    """Such a name costs a reader more than the line it saves."""
    tree = TREES[path]
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute)]
    called = {ast.unparse(n.func).rpartition(".")[2] for n in ast.walk(tree) if isinstance(n, ast.Call)}
    nests = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)  # which take no statements
    in_comprehensions = {
        n.id for c in ast.walk(tree) if isinstance(c, nests) for n in ast.walk(c) if isinstance(n, ast.Name)
    }
    for function in functions(tree):
        length = function.end_lineno - function.lineno + 1
        private = function.name.startswith("_") and not function.name.startswith("__")
        if not private or function.decorator_list or length >= 4 or function.name not in called - in_comprehensions:
            continue
        seen = sum((n.id if isinstance(n, ast.Name) else n.attr) == function.name for n in uses)
        assert seen != 1, f"{function.name} is called once and has {length} lines: write them where it is called"


def classes_tested_for(tree):
    """The names that an `isinstance`, or a pattern, tests for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            yield from (n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name))
        elif isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.cls.id


@by_module
def test_general_code_names_no_concrete_class_of_another_package(path):
    """What one class of a kind can do that others cannot is a protocol, so that a stranger's class can have it too."""
    if "interop" in path.parts or path.stem == "conversion":
        return  # other frameworks' files are those of concrete models
    origin = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jneuro.")
        for alias in node.names
    }
    here = name_of(path).split(".")[1:2]
    for name in classes_tested_for(TREES[path]):
        module, original = origin.get(name, ("", ""))
        if not module or module.split(".")[1:2] == here or original in CONTRACTS:
            continue
        cls = getattr(importlib.import_module(module), original)
        general = not isinstance(cls, type) or issubclass(cls, BaseException) or getattr(cls, "_is_protocol", False)
        assert general, f"{original} of {module}"


@by_module
def test_kinds_are_open(path):
    """No union chosen by a tag, and no list of names where a registry has them."""
    assert not [n for n in ast.walk(TREES[path]) if isinstance(n, ast.keyword) and n.arg == "discriminator"]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            words = {n.value for n in ast.walk(node.slice) if isinstance(n, ast.Constant)}
            if words == {"poisson", "mse"}:
                continue  # the heads of the spike-count model, called after the losses that go with them
            known = [kind for kind, names in registered().items() if len(words & names) > 1]
            assert not known, f"line {node.lineno}: names of the kind {known[0]}"


@by_module
def test_no_dict_of_builders(path):
    """Names lead to classes and functions in a registry alone."""
    for node in ast.walk(TREES[path]):
        if not isinstance(node, ast.Dict) or path.stem == "kinds":
            continue
        built = [k for k, v in zip(node.keys, node.values, strict=True) if isinstance(v, ast.Name | ast.Lambda)]
        words = {k.value for k in built if isinstance(k, ast.Constant)}
        classes = [
            v for v in node.values if isinstance(v, ast.Lambda) or (isinstance(v, ast.Name) and v.id[0].isupper())
        ]
        known = [kind for kind, names in registered().items() if len(words & names) > 1 and len(classes) > 1]
        assert not known, f"line {node.lineno}: names of the kind {known[0]}"


TWO_ERRORS = {1.96, 1.645, 2.58, 2.576}
OWN_CRITERION = {
    # Intervals of a normal posterior, which are shown and judge nothing.
    "report.fits",
    "report.fit_figures",
}


@by_module
def test_one_criterion_of_evidence(path):
    """What is better, worse or not told apart is said by `evaluation`, not where a sentence is written."""
    module = name_of(path).removeprefix("jneuro.")
    if module.partition(".")[0] not in ("report", "analyses", "experiment", "console"):
        return
    found = [n.lineno for n in ast.walk(TREES[path]) if isinstance(n, ast.Constant) and n.value in TWO_ERRORS]
    found += [n.lineno for n in ast.walk(TREES[path]) if isinstance(n, ast.Attribute) and n.attr == "hypot"]
    if module in OWN_CRITERION:
        assert found, f"{module} is clean: take it off OWN_CRITERION"
    else:
        assert not found, f"line {found[0]}: an interval or a threshold of its own"


ARRAYS = {"Float", "Int", "Bool", "UInt", "Key", "Complex", "Num", "Shaped"}


@functools.cache
def axis_names():
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Names of axes")[2]
    rows = [line.split("|")[2] for line in table.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    return {"any"} | {name for row in rows for name in re.sub(r"\([^)]*\)", "", row).replace(",", " ").split()}


@by_module
def test_axes_have_the_names_of_the_glossary(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] in ARRAYS:
            shape = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
            text = shape.value if isinstance(shape, ast.Constant) and isinstance(shape.value, str) else ""
            unknown = {*re.findall(r"[a-z]\w*", text)} - axis_names()
            assert not unknown, f"line {node.lineno}: {unknown}; name it as docs/architecture.md does, or add it there"


@functools.cache
def registered():
    for path in PACKAGE.rglob("kinds.py"):
        importlib.import_module(name_of(path))
    return {kind: set(registry) for kind, registry in Registry.every.items()}


@by_module
def test_no_hasattr(path):
    calls = [n for n in ast.walk(TREES[path]) if isinstance(n, ast.Name) and n.id == "hasattr"]
    assert not calls, f"line {calls[0].lineno}" if calls else ""


@by_module
def test_no_global_configuration(path):
    # `jax.config.update`, by any name.
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and node.attr == "update":
            assert "config" not in ast.unparse(node.value), f"line {node.lineno}"


def public(tree):
    """Public definitions: of the module, and of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@by_module
def test_every_public_name_has_a_docstring(path):
    assert ast.get_docstring(TREES[path]), "the module has none"
    # pydantic's and equinox's hooks are private by their names; what overrides a documented method may be silent.
    missing = [name for name, node in public(TREES[path]) if not ast.get_docstring(node) and not overrides(path, name)]
    assert not missing


def overrides(path, name):
    """Whether a method overrides one of a base class outside of this package."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return False
    cls = getattr(importlib.import_module(name_of(path)), owner)
    return any(method in vars(base) for base in cls.__mro__[1:] if not base.__module__.startswith("jneuro"))


def documented_arguments(function):
    """Arguments that a docstring should explain."""
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [a.arg for a in names if a.arg not in ("self", "cls")]


@by_module
def test_every_public_function_explains_its_arguments(path):
    exported = {
        element.value
        for node in TREES[path].body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for element in node.value.elts
    }
    for name, node in public(TREES[path]):
        # Methods say it in their one line, or in the base class that declares them.
        if "." in name or not isinstance(node, ast.FunctionDef) or name not in exported:
            continue
        if typer_command(node) or not documented_arguments(node):
            continue
        text = ast.get_docstring(node)
        if len(documented_arguments(node)) == 1 and len(text.splitlines()) == 1:
            continue  # one line says what one argument is
        assert "Args:" in text, name
        for argument in documented_arguments(node):
            assert f"{argument}: " in text, f"{name}: {argument}"


def typer_command(node):
    return any("command" in ast.unparse(d) for d in node.decorator_list)


@by_module
def test_all_names_exist(path):
    if name_of(path).endswith("__main__"):
        return
    module = importlib.import_module(name_of(path))
    for name in module.__all__:
        assert getattr(module, name, None) is not None, name
    assert len(set(module.__all__)) == len(module.__all__)


STUBS = sorted(PACKAGE.rglob("*.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda p: name_of(p.with_suffix(".py")))
def test_what_a_package_exports_stands_in_its_stub_alone(stub):
    """Names are loaded when they are used; type checkers read the same list."""
    package = importlib.import_module(name_of(stub.with_suffix(".py")))
    lines = ast.parse(stub.read_text(encoding="utf-8")).body
    assert all(isinstance(line, ast.ImportFrom) and line.level == 1 for line in lines)
    names = {alias.name: line.module for line in lines for alias in line.names}
    # `as` the same name is what makes it public to type checkers.
    assert all(alias.asname == alias.name for line in lines for alias in line.names)
    assert package.__all__ == dir(package) == sorted(names)
    for name, module in names.items():
        assert getattr(package, name) is not None
        if module is not None:  # a module of that name would take its place when it is imported
            assert not (stub.parent / f"{name}.py").exists()


def test_only_a_stub_exports():
    plain = [p for p in FILES if p.name == "__init__.py" and not p.with_suffix(".pyi").exists()]
    assert not any(importlib.import_module(name_of(p)).__all__ for p in plain)


def run_python(code):
    """Run code in a process of its own, warnings being errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_does_nothing():
    """No backend is started, nothing is configured, and no number type changes."""
    code = """
import jax
before = dict(jax.config.values)
import jneuro, jneuro.cli, jneuro.console
for name in jneuro.__all__:
    getattr(jneuro, name)
assert dict(jax.config.values) == before, "jax.config was changed"
from jax._src import xla_bridge
assert not xla_bridge._backends, "a backend was started"
print("fine")
"""
    assert run_python(code).strip() == "fine"


def test_what_computes_nothing_loads_nothing():
    """What costs seconds to import is loaded by the first thing that needs it."""
    code = f"""
import sys
def loaded(*names): return [n for n in names if n in sys.modules]
import jneuro
print("import jneuro", loaded("jax", "numpy", "scipy", "flax", "matplotlib", "rich", "pydantic"))
from jneuro.cli import app
for command in {LIGHT}:
    app(command, standalone_mode=False)
    print(command, loaded("jax", "scipy", "flax", "matplotlib"))
"""
    said = run_python(code)
    assert "import jneuro []" in said
    code = "import sys; from jneuro import simulate; print({'flax', 'pydantic', 'scipy', 'yaml'} & {*sys.modules})"
    assert run_python(code).strip() == "set()"
    for command in LIGHT:
        assert f"{command} []" in said


def test_the_tests_mirror_the_package():
    for folder in (p for p in PACKAGE.iterdir() if (p / "__init__.py").exists()):
        assert list((ROOT / "tests" / folder.name).glob("test_*.py")), f"no tests for {folder.name}"
