"""The README's code runs as it stands, and says what the README says; its commands and files exist."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

pytestmark = pytest.mark.optimized

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.+?)```", README, flags=re.S)


@pytest.fixture(scope="module")
def printed():
    """What the README's code prints, block after block in one namespace."""
    import matplotlib

    matplotlib.use("Agg")
    numbers, namespace = {}, {}
    for block in BLOCKS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(block, "README.md", "exec"), namespace)
        numbers[block] = [float(x) for x in out.getvalue().split()]
    return numbers


def block_with(text):
    """The one block of code in which a text stands."""
    (block,) = (b for b in BLOCKS if text in b)
    return block


def test_rate_and_its_gradient(printed):
    rate, gradient = printed[block_with("jax.grad(rate)")]
    stated = re.search(r"# ([\d.]+) Hz, and (-[\d.]+) Hz", README)
    assert stated is not None
    assert rate == pytest.approx(float(stated[1]), abs=0.1)
    assert gradient == pytest.approx(float(stated[2]), abs=0.1)


def test_configuration_names_cell_model_and_loss(tmp_path):
    from jneuro.experiment.plan import load_plan

    (tmp_path / "my_cells.py").write_text(block_with("jn.ODESimulator").partition("key, how")[0])
    (tmp_path / "my_models.py").write_text(block_with("nnx.Module").partition("data =")[0])
    shown = re.findall(r"```yaml\n(.+?)```", README, flags=re.S)[0]
    (tmp_path / "run.yaml").write_text(f"name: shown\n{shown}windows: {{horizons_ms: [1]}}\n")
    overrides = ["windows.discard_ms=0", "simulation.record=[v]", "simulation.runs=10", "evaluate.ceiling=null"]
    plan = load_plan(tmp_path / "run.yaml", overrides)
    assert sorted(plan.code[1]) == ["my_cells.py", "my_models.py"]


def test_model_is_scored_beside_the_lookup(printed):
    model, lookup = printed[block_with("jn.evaluate(")]
    assert 0.65 < model < 0.8
    assert 0.7 < lookup < 0.8


@pytest.mark.parametrize(("text", "lines"), [("jax.grad(rate)", 13), ("jn.ODESimulator", 17), ("nnx.Module", 10)])
def test_examples_are_short(text, lines):
    code = [x for x in block_with(text).splitlines() if x.strip() and not x.startswith(("import", "from"))]
    assert len(code) <= lines


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
