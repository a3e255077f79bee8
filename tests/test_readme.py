"""The README's code runs as it stands, and says what the README says; its commands and files exist."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed():
    """What the README's code prints, block after block in one namespace."""
    import matplotlib

    matplotlib.use("Agg")
    lines, namespace = [], {}
    for block in re.findall(r"```python\n(.+?)```", README, flags=re.S):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(block, "README.md", "exec"), namespace)
        lines.append([float(x) for x in out.getvalue().split()])
    return lines


def test_rate_and_its_gradient(printed):
    rate, gradient = printed[0]
    # As printed in the comment, "29.5 Hz, and -1.2 Hz".
    stated = re.search(r"# ([\d.]+) Hz, and (-[\d.]+) Hz", README)
    assert stated is not None
    assert rate == pytest.approx(float(stated[1]), abs=0.1)
    assert gradient == pytest.approx(float(stated[2]), abs=0.1)


def test_model_is_scored_beside_the_lookup(printed):
    model, lookup = printed[1]
    assert 0.65 < model < 0.8
    assert 0.7 < lookup < 0.8


def test_library_example_is_short():
    first = re.findall(r"```python\n(.+?)```", README, flags=re.S)[0]
    code = [line for line in first.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 13


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?m)(?:`|^ {4})make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text())))
)
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`(configs/[\w/.]+)`", README) + re.findall(r"\]\(([\w/.]+)\)", README)))
)
def test_files_exist(path):
    assert (ROOT / path).exists()


def test_commands_exist():
    from jneuro.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands}
    named = set(re.findall(r"jneuro ([a-z]+)", re.search(r"## From the command line\n\n(.+?)\n\n", README, re.S)[1]))
    assert named == known
