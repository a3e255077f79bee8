"""The page that tells how to extend jneuro: its files are written, its code is run, its configurations are checked."""

import re
import sys
from pathlib import Path

import matplotlib
import pytest

from jneuro.core.code import code_folder
from jneuro.core.registry import Registry
from jneuro.experiment.fit_plan import load_fit
from jneuro.experiment.plan import load_plan
from jneuro.experiment.sweeping import load_sweep

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?```(\w+)\n(.+?)```", flags=re.S)
LOADERS = {"models": load_plan, "fit": load_fit, "sweep": load_sweep}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder, its files written and the code between them run in the order of the page."""
    matplotlib.use("Agg")
    home = tmp_path_factory.mktemp("extend")
    with code_folder(None):  # forgets modules of a test before
        known, namespace = set(sys.modules), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        for name, _, text in BLOCK.findall(PAGE):
            if name:
                (home / name).write_text(text, encoding="utf-8")
        for name, language, text in BLOCK.findall(PAGE):
            if language == "python" and not name:
                exec(compile(text, "docs/extend.md", "exec"), namespace)
        for module in set(sys.modules) - known:
            if module.startswith("my_"):
                del sys.modules[module]
        yield home
    with code_folder(None):
        pass


def test_the_page_runs(folder):
    assert len(list(folder.glob("my_*.py"))) == 11
    assert (folder / "trace.csv").exists()


@pytest.mark.parametrize("name", re.findall(r"`(\w+\.yaml)`:", PAGE))
def test_its_configurations_are_built_and_checked(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    (load,) = (load for key, load in LOADERS.items() if re.search(f"^{key}:", text, flags=re.M))
    plan = load(folder / name)
    where, files = plan.code
    assert where == folder.resolve()
    assert {f"{module}.py" for module in re.findall(r"(my_\w+):", text)} <= set(files)


def test_every_kind_stands_there():
    for kind in Registry.every:
        assert f"`jneuro.{kind}`" in PAGE, kind
