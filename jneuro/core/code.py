"""User code: loads `module:name` from beside the YAML file or from installed packages, and hashes its source.

Modules are read from the folder of the configuration, after all installed ones, which they therefore never shadow. The
hash of an object covers the module that defines it and every module of the same folder that this one imports.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import site
import sys
import sysconfig
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

__all__ = [
    "CodeError",
    "changed_files",
    "code_folder",
    "digest",
    "line_of",
    "load_object",
    "loaded_code",
    "source_files",
]


class CodeError(ValueError):
    """User code that cannot be loaded; the message says which, why, and what is needed."""


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Executes what stands in the file now: bytecode kept beside it may be that of an older text of the same second."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _FolderFinder:
    """Finds modules in the configuration's folder, unless another finder has one of that name elsewhere.

    It stands first, because the folder may also be the working folder, in which Python itself looks.
    """

    folder: Path | None = None
    expected: Mapping[str, str] | None = None

    def find_spec(self, fullname: str, path: Any = None, target: Any = None):
        if self.folder is None or (path is not None and not _inside(next(iter(path), ""), self.folder)):
            return None
        where = [str(self.folder)] if path is None else list(path)
        for entry in where:
            base = Path(entry) / fullname.rpartition(".")[2]
            for file, package in ((base / "__init__.py", [str(base)]), (base.with_suffix(".py"), None)):
                if file.is_file() and not self._elsewhere(fullname, path, target):
                    self._require_expected(file)
                    loader = _SourceLoader(fullname, str(file))
                    return importlib.util.spec_from_file_location(
                        fullname, file, loader=loader, submodule_search_locations=package
                    )
        return None

    def _elsewhere(self, fullname: str, path: Any, target: Any) -> bool:
        """Whether another finder has a module of this name, outside of the folder."""
        found = (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)
        spec = next((s for s in found if s is not None), None)
        return spec is not None and not _inside(spec.origin or "", self.folder or Path())

    def _require_expected(self, file: Path) -> None:
        """Refuse a file whose hash is not the recorded one, before it is executed."""
        name = file.relative_to(self.folder).as_posix()  # type: ignore[arg-type]
        if self.expected is not None and self.expected.get(name) != _file_hash(file):
            said = "has changed since the run" if name in self.expected else "is no part of the run"
            raise CodeError(f"{file}: {said}, so it is not executed; restore it, say --code DIR, or run again")


_finder = _FolderFinder()


def _inside(path: str | Path, folder: Any) -> bool:
    """Whether a path lies in a folder; a link that does belongs there, wherever it leads."""
    return (Path(path).parent.resolve() / Path(path).name).is_relative_to(folder.resolve())


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def changed_files(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """Find the files of a folder that are not as they were; nothing is executed.

    Args:
        folder: the folder.
        expected: hash of every file, by its path in the folder.

    Returns:
        The paths of those that are missing or have another hash.
    """
    return [n for n, h in expected.items() if not (folder / n).is_file() or _file_hash(folder / n) != h]


@contextlib.contextmanager
def code_folder(folder: Path | None, expected: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let `module:name` mean modules of a folder, for the duration of a `with` block.

    The folder stays known afterwards, until another takes its place, so that imports within functions of its modules
    work.

    Args:
        folder: the folder; None: only installed packages.
        expected: hash of every file that may be executed, by its path in the folder; None allows every file.
    """
    before = _finder.folder, _finder.expected
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)  # pyright: ignore[reportArgumentType]
    _enter(folder and folder.resolve(), expected)
    try:
        yield
    except BaseException:
        _enter(*before)
        raise


def _enter(folder: Path | None, expected: Mapping[str, str] | None) -> None:
    """Make a folder the one in which modules are found; forget the modules of the one before."""
    if folder != _finder.folder or _any_changed():
        _forget(_finder.folder)
    _finder.folder, _finder.expected = folder, expected


def _any_changed() -> bool:
    """Whether the text of a module of the folder, or of what it imports, is another than was executed.

    Seen before the first name is looked up: to forget modules between two names leaves the first without its module.
    """
    modules = [module for module in [*sys.modules.values()] if isinstance(module, types.ModuleType)]
    executed = [(module, module.__dict__.get("__jneuro_digest__")) for module in modules]
    return any(text is not None and text != _module_digest(module) for module, text in executed)


def _forget(folder: Path | None) -> None:
    """Drop the modules of a folder, so that they are executed anew when they are named again."""
    for name, module in [*sys.modules.items()] if folder else []:
        if _is_own(module) and _inside(_where(module), folder):
            del sys.modules[name]
    importlib.invalidate_caches()


def load_object(reference: str, kind: str) -> Any:
    """Load what `module:name` means.

    Args:
        reference: the module, dotted, and the name in it, which may be dotted too.
        kind: what it should be, for error messages.

    Returns:
        The object.

    Raises:
        CodeError: if the module or the name does not exist, the module cannot be imported, or it is neither in the
            configuration's folder nor installed.
    """
    module_name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise CodeError(f"{reference!r} must be module:name, as in my_code:{kind.title().replace(' ', '')}")
    module = _import(module_name, reference, kind)
    found: Any = module
    for part in attribute.split("."):
        if getattr(found, part, _MISSING) is _MISSING:
            known = [n for n in vars(module) if not n.startswith("_")]
            raise CodeError(
                f"{reference!r}: {_where(module)} has no {attribute!r}; it has {', '.join(known) or 'nothing'}"
            )
        found = getattr(found, part)
    return found


_MISSING = object()


def _is_own(module: Any) -> bool:
    """Whether a module was executed from the folder of a configuration."""
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _SourceLoader)


def _where(module: Any) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _import(name: str, reference: str, kind: str) -> types.ModuleType:
    """Import a module of the folder, or an installed one; anew where its text has changed."""
    top = name.partition(".")[0]
    known = sys.modules.get(name)
    if _is_own(known) and (
        not (_finder.folder and _inside(_where(known), _finder.folder))
        or known.__dict__.get("__jneuro_digest__") != _module_digest(known)
    ):
        _forget(_finder.folder)
        sys.modules.pop(name, None)
    try:
        spec = importlib.util.find_spec(top)
    except CodeError:
        raise
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        where = f" in {_finder.folder}" if _finder.folder else ""
        raise CodeError(
            f"{reference!r}: there is no module {top!r}{where} or among the installed packages; a {kind} of your own "
            "stands in a file beside the YAML file, or in a package that is installed"
        )
    here = _finder.folder is not None and _inside(spec.origin or "", _finder.folder)
    if not isinstance(spec.loader, _SourceLoader) and not here and not _installed(spec):
        raise CodeError(
            f"{reference!r}: {spec.origin} is neither beside the YAML file nor installed, so it is not executed; "
            "move it beside the YAML file, or install it"
        )
    try:
        module = importlib.import_module(name)
    except CodeError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
            raise CodeError(f"{reference!r}: there is no module {error.name!r}") from error
        line = _line_of(error)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CodeError(f"{reference!r}: importing {spec.origin} failed{line} ({said})") from error
    if isinstance(spec.loader, _SourceLoader):  # of an installed one, the imports lead through all that is installed
        module.__dict__.setdefault("__jneuro_digest__", _module_digest(module))
    return module


def _line_of(error: BaseException) -> str:
    """Where in code of one's own an import failed."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    trace, found = error.__traceback__, ""
    while trace is not None:
        if _finder.folder and _inside(trace.tb_frame.f_code.co_filename, _finder.folder):
            found = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _installed(spec: importlib.machinery.ModuleSpec) -> bool:
    """Whether a module belongs to Python, or to an installed distribution, editable ones included."""
    if spec.origin in ("built-in", "frozen"):
        return True
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    paths = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    roots = itertools.chain(paths, [Path(__file__).parents[2]], map(_editable, importlib.metadata.distributions()))
    return any(_inside(place, Path(root)) for root in roots if root for place in places)


def _editable(distribution: importlib.metadata.Distribution) -> Path | None:
    """The folder of a distribution that is installed editable."""
    text = distribution.read_text("direct_url.json")
    url = json.loads(text) if text else {}
    return Path(unquote(urlparse(url["url"]).path)) if url.get("dir_info", {}).get("editable") else None


def _root(module: types.ModuleType) -> Path | None:
    """The folder in which a module's own imports are followed: that of the configuration, or of its package."""
    file = getattr(module, "__file__", None)
    if not file:
        return None
    if _finder.folder and _inside(file, _finder.folder):
        return _finder.folder
    return Path(file).parents[module.__name__.count(".") + Path(file).name.startswith("__init__")]


def _closure(file: Path, root: Path) -> list[Path]:
    """A file and all files below `root` that it imports, directly or not, wherever in it."""
    found, waiting = {}, [file]
    while waiting:
        here = waiting.pop()
        if here in found:
            continue
        found[here] = None
        package = here.parent.relative_to(root).parts
        try:
            tree = ast.parse(here.read_bytes())
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            for parts in _imported(node, package):
                for depth in range(1, len(parts) + 1):
                    base = root.joinpath(*parts[:depth])
                    waiting += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return sorted(found)


def _imported(node: ast.AST, package: tuple[str, ...]) -> Iterator[list[str]]:
    """What an import statement may mean, as parts of a dotted name from the root."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".") for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        base += node.module.split(".") if node.module else []
        yield from ([*base, alias.name] for alias in node.names)


def _files(module: types.ModuleType) -> dict[str, str]:
    """Hash of every file that stands behind a module, by its path below the root."""
    root, file = _root(module), getattr(module, "__file__", None)
    if root is None or not file or not Path(file).is_file():
        return {}
    return {p.relative_to(root).as_posix(): _file_hash(p) for p in _closure(Path(file), root)}


def _module_digest(module: Any) -> str:
    return hashlib.sha256(json.dumps(_files(module), sort_keys=True).encode()).hexdigest()[:16]


def _definition(thing: Any) -> tuple[Any, str]:
    """The class or the function behind an object, and the name of the module that defines it."""
    about = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    return about, getattr(about, "__module__", None) or ""


def line_of(function: Any, error: BaseException) -> str:
    """Say where in a function's own file something was raised, ` (file, line 3)`; empty where it was elsewhere.

    Args:
        function: of one's own, or a class.
        error: what it has raised, perhaps in what it calls.
    """
    try:
        file = inspect.getfile(function)
    except (TypeError, OSError):  # of an object, or of what is not in a file
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def digest(thing: Any) -> str | None:
    """Stand for the source of a class, a function or an instance, and of all that its module imports beside it.

    Args:
        thing: the object.

    Returns:
        Hexadecimal digits, or the name and version of the installed package; empty for this package's own; None where
        there is no source (lambdas, objects made by other packages' functions), so that nothing can be kept for it.
    """
    about, name = _definition(thing)
    qualified = getattr(about, "__qualname__", "")
    if not name or name == "builtins" or (thing is about and "<" in qualified and "<locals>" not in qualified):
        return None
    if name.partition(".")[0] == "jneuro":
        return ""
    module = sys.modules.get(name)
    if "<lambda>" in qualified or module is None:
        return None
    if _is_own(module):
        return _module_digest(module)
    if thing is not about and any(callable(leaf) for leaf in (thing if isinstance(thing, tuple) else ())):
        return None  # closures, such as optax.adam(...): their constants cannot be seen
    if version := _version(name.partition(".")[0]):
        return version
    if _files(module):
        return _module_digest(module)
    try:
        return hashlib.sha256(inspect.getsource(about).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return None


def source_files(thing: Any) -> dict[str, str]:
    """Find the files that stand behind a class, a function or an instance, but not those of installed packages.

    Args:
        thing: the object.

    Returns:
        The hash of each, by its path in the folder of the configuration or of the module.
    """
    name = _definition(thing)[1]
    module, top = sys.modules.get(name), name.partition(".")[0]
    if module is None or top in ("jneuro", "builtins"):
        return {}
    return _files(module) if _is_own(module) or not _version(top) else {}


def _version(top: str) -> str | None:
    """Name and version of an installed package that is not editable, or of Python for what comes with it."""
    if top in sys.stdlib_module_names:
        return f"python {sys.version.partition(' ')[0]}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution(top)
        return None if _editable(distribution) else f"{top} {distribution.version}"
    return None


def loaded_code() -> tuple[Path | None, dict[str, str]]:
    """The folder of the configuration, and the hash of every file in it that was executed or is imported by one.

    Returns:
        The folder, None if nothing was loaded from one, and the hashes by path.
    """
    found: dict[str, str] = {}
    for module in [*sys.modules.values()] if _finder.folder else []:
        if _is_own(module) and _inside(_where(module), _finder.folder):
            found |= _files(module)
    return (_finder.folder if found else None), dict(sorted(found.items()))
