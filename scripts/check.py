"""Is what I have just changed in order? Format, rules and types of the changed files, and the tests they can reach.

    python scripts/check.py                     # what differs from main, committed or not
    python scripts/check.py --since HEAD        # what is not committed
    python scripts/check.py --budget 600        # with more time; `make test` runs all tests

Files are joined by what they import, also within functions, by the names of modules and files in their strings
("jneuro.models.tft:NeuronTFT", "voltage_forecast.yaml", code for another process), and by a folder's `conftest.py`.
Test files run nearest first, until the time is up; those left out are named. A name that a package only passes on is
taken from the module that defines it, so that a change in one model is not a change in all.

This file is also the pytest plugin that keeps the time.
"""

import argparse
import ast
import collections
import functools
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("jneuro", "tests", "benchmarks", "scripts")
UNTIL, LATE = "JNEURO_CHECK_UNTIL", "no time left"
ENDING = 15
"""Seconds before the end at which no further test begins."""


def changed_files(since: str | None) -> list[str]:
    """Files that differ from a commit, and those that git does not know yet; paths from the root.

    Args:
        since: the commit; if omitted, where this branch left main, or on main the last commit, or the one before if
            nothing has changed since.

    Returns:
        The paths, also of files that are gone.
    """
    new = _git("ls-files", "--others", "--exclude-standard")
    if since is None:
        head, fork = _git("rev-parse", "HEAD"), _git("merge-base", "HEAD", "main")
        since = fork[0] if fork and fork != head else "HEAD"
        if since == "HEAD" and not new and not _git("diff", "--name-only", "HEAD"):
            since = "HEAD~1"
    return sorted({*_git("diff", "--name-only", "--no-renames", since), *new})


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


class Graph:
    """Which file needs which.

    Args:
        extra: paths of Python files that are gone, whose importers are still found.
    """

    def __init__(self, extra: Iterable[str] = ()):
        files = {str(p.relative_to(ROOT)) for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")}
        self.files = files | {path for path in extra if path.endswith(".py")}
        self.modules = {
            path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in self.files
        }
        self.needed_by = collections.defaultdict(set)
        self.words: dict[str, set[str]] = {}
        for path in files:
            for other in self._needs(path):
                self.needed_by[other].add(path)

    @functools.cached_property
    def _names(self) -> dict[str, dict[str, str]]:
        """For each package, in which module each name that it passes on is defined."""
        found = {}
        for path in (p for p in self.files if p.endswith("/__init__.py") and (ROOT / p).exists()):
            package, names = path.removesuffix("/__init__.py").replace("/", "."), {}
            for node in ast.walk(_tree(path)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    base = _absolute(node, package)
                    for alias in node.names:
                        inner = f"{base}.{alias.name}"
                        names[alias.asname or alias.name] = inner if inner in self.modules else base
                if isinstance(node, ast.Dict):  # a table of lazy names
                    for key, value in zip(node.keys, node.values, strict=True):
                        names |= self._lazy(package, _strings(key), _strings(value))
            found[package] = {name: module for name, module in names.items() if module in self.modules}
        return found

    def _lazy(self, package: str, keys: list[str], values: list[str]) -> dict[str, str]:
        """Names and the module that has them, whichever side of the table they are on."""
        for modules, names in ((values, keys), (keys, values)):
            for module in modules:
                for full in (module.partition(":")[0], f"{package}.{module.partition(':')[0].lstrip('.')}"):
                    if full in self.modules:
                        return dict.fromkeys(names, full)
        return {}

    def _needs(self, path: str) -> Iterator[str]:
        """Files that a file imports or names."""
        tree, folder = _tree(path), Path(path).parent
        yield from self._imports(tree, path)
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        self.words[path] = set(re.findall(r"[\w.-]+", " ".join(texts)))
        for text in texts:
            if re.fullmatch(r"[\w.]+(:\w+)?", text) and (module := text.partition(":")[0]) in self.modules:
                yield self.modules[module]
            if text.endswith(".py") and (neighbour := str(folder / text)) in self.files:
                yield neighbour
            if re.search(r"^\s*(import|from) \w", text, re.M):
                yield from self._imports(_parsed(text), path)
        if path.startswith("tests/"):
            yield from (str(p / "conftest.py") for p in Path(path).parents if str(p / "conftest.py") in self.files)

    def _imports(self, tree: ast.AST, path: str) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._module(alias.name, path)
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(node, path.rpartition("/")[0].replace("/", "."))
                for alias in node.names:
                    passed_on = self._names.get(base, {}).get(alias.name)
                    if passed_on and not path.endswith("/__init__.py"):
                        yield from self._passed_on(passed_on, alias.name)
                    else:
                        inner = f"{base}.{alias.name}"
                        yield from self._module(inner if inner in self.modules else base, path)

    def _passed_on(self, module: str, name: str) -> Iterator[str]:
        """The file that defines a name, through any number of packages."""
        while (deeper := self._names.get(module, {}).get(name, module)) != module:
            module = deeper
        yield self.modules[module]

    def _module(self, name: str, path: str) -> Iterator[str]:
        """The file of a module; a neighbour's, if it is one, as scripts and tests import them."""
        neighbour = str(Path(path).parent / f"{name}.py")
        if neighbour in self.files and not path.startswith("jneuro/"):
            yield neighbour
        elif name in self.modules:
            yield self.modules[name]

    def reached(self, changed: Iterable[str]) -> dict[str, int]:
        """Test files that changes can reach, and over how many imports.

        Args:
            changed: paths of changed files; any that is not Python reaches the files that name it, or its top folder.

        Returns:
            The steps to each, nearest first.
        """
        steps = {}
        for path in (p.removesuffix("i") if p.endswith(".pyi") else p for p in changed):
            if path in self.files:
                steps[path] = 0
            else:
                named = {Path(path).name, *path.split("/")[:-1][:1]}
                steps |= {p: 1 for p, words in self.words.items() if words & named and p not in steps}
        waiting = collections.deque(sorted(steps, key=lambda path: steps[path]))
        while waiting:
            path = waiting.popleft()
            for other in sorted(self.needed_by[path]):
                if other not in steps:
                    steps[other] = steps[path] + 1
                    waiting.append(other)
        tests = {
            p: n for p, n in steps.items() if Path(p).match("tests/**/test_*.py") or Path(p).match("tests/test_*.py")
        }
        return dict(
            sorted(((p, n) for p, n in tests.items() if (ROOT / p).exists()), key=lambda item: (item[1], item[0]))
        )


@functools.cache
def _tree(path: str) -> ast.Module:
    """What a file says; of a package that imports lazily, its stub."""
    stub = ROOT / f"{path}i"
    return ast.parse((stub if stub.exists() else ROOT / path).read_text(encoding="utf-8"), path)


def _parsed(text: str) -> ast.AST:
    """Code in a string; nothing, if it is none."""
    try:
        return ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return ast.Module([], [])


def _strings(node: ast.AST | None) -> list[str]:
    return [
        n.value
        for n in ast.walk(node or ast.Module([], []))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module of a `from … import`, whatever dots it begins with."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test when the time is up."""
    if time.time() > float(os.environ.get(UNTIL, "inf")):
        pytest.skip(LATE)


def pytest_terminal_summary(terminalreporter) -> None:
    """Name the test files left out."""
    late = [r for r in terminalreporter.stats.get("skipped", []) if LATE in str(r.longrepr)]
    if late:
        files = collections.Counter(r.nodeid.partition("::")[0] for r in late)
        said = ", ".join(f"{path} ({count})" for path, count in files.items())
        terminalreporter.section(f"not run for want of time: {len(late)} tests")
        terminalreporter.line(f"{said}\nraise --budget, or run them all: make test")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where the time was up before any test had passed: that is no answer."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    late = reporter and [r for r in reporter.stats.get("skipped", []) if LATE in str(r.longrepr)]
    if late and not reporter.stats.get("passed"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _run(name: str, *command: str, **environment: str) -> bool:
    """Run a command, say how long it took, and whether it found nothing."""
    began = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=os.environ | environment).returncode
    print(f"{name}: {'fine' if code in (0, 5) else 'FAILED'} in {time.perf_counter() - began:.0f} s", flush=True)
    return code in (0, 5)  # 5: only slow tests there


def main() -> int:
    """Check, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", help="compare with this commit instead of main")
    parser.add_argument("--budget", type=float, default=120, help="seconds for all of it (default: 120)")
    parser.add_argument("--jobs", default="2", help="processes that run tests (default: 2)")
    parser.add_argument("--list", action="store_true", help="only say which tests would run")
    given = parser.parse_args()
    until = time.time() + given.budget - ENDING
    changed = changed_files(given.since)
    tests = Graph(changed).reached(changed)
    print(f"{len(changed)} files changed; they reach {len(tests)} test files", flush=True)
    if given.list:
        print("\n".join(f"{steps} {path}" for path, steps in tests.items()))
        return 0
    python = [path for path in changed if path.endswith(".py") and (ROOT / path).exists()]
    typed = [path for path in python if path.startswith("jneuro/")]
    fine = True
    if python:
        fine &= _run("rules", "ruff", "check", *python)
        fine &= _run("format", "ruff", "format", "--check", *python)
    if typed:
        fine &= _run("types", "pyright", "--pythonpath", sys.executable, *typed)
    if tests:
        # However long the types took, half of the time is the tests'; a file takes three seconds to read and to run.
        until = max(until, time.time() + given.budget / 2)
        nearest, left = list(tests)[: int(given.budget / 3)], list(tests)[int(given.budget / 3) :]
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        options = ["-q", "-x", "-p", "check", "-n", given.jobs, "--dist", "loadfile", "-r", "fE"]
        fine &= _run("tests", "pytest", *options, *nearest, **{UNTIL: str(until), "PYTHONPATH": path})
        if left:
            print(f"not run, being farther away: {', '.join(left)}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
