"""Code of one's own: where it is looked for, what it may be, and which of its text counts."""

import ast
import json
import sys

import pytest

from jneuro.core.code import CodeError, changed_files, code_folder, digest, load_object, loaded_code, source_files


@pytest.fixture(autouse=True)
def _leave():
    """No folder stays known."""
    yield
    with code_folder(None):
        pass


@pytest.fixture
def home(tmp_path):
    """A folder with a module, a helper and a package."""
    home = tmp_path / "home"
    (home / "pack").mkdir(parents=True)
    (home / "mine.py").write_text("import helper\nfrom pack.part import inner\n\n\ndef f():\n    return helper.VALUE\n")
    (home / "helper.py").write_text("VALUE = 1\n")
    (home / "other.py").write_text("VALUE = 3\n")
    (home / "pack" / "__init__.py").write_text("")
    (home / "pack" / "part.py").write_text("from . import deep\n\n\ndef inner():\n    return deep.X\n")
    (home / "pack" / "deep.py").write_text("X = 2\n")
    return home


def test_what_is_imported_counts_and_nothing_else(home):
    with code_folder(home):
        f = load_object("mine:f", "loss")
        before, files = digest(f), source_files(f)
        assert sorted(files) == ["helper.py", "mine.py", "pack/__init__.py", "pack/deep.py", "pack/part.py"]
        assert loaded_code() == (home.resolve(), files)
    (home / "other.py").write_text("VALUE = 4\n")
    with code_folder(home):
        assert digest(load_object("mine:f", "loss")) == before
    for name in ("helper.py", "pack/deep.py"):
        (home / name).write_text((home / name).read_text().replace("= ", "= 1"))
        with code_folder(home):
            now = digest(load_object("mine:f", "loss"))
        assert now != before
        before = now
    assert load_object("mine:f", "loss")() == 11
    assert changed_files(home, files) == ["helper.py", "pack/deep.py"]


def test_a_link_into_the_folder_is_a_file_of_it(home, tmp_path):
    (tmp_path / "elsewhere.py").write_text("import helper\n\n\ndef g():\n    return helper.VALUE\n")
    (home / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    with code_folder(home):
        assert load_object("linked:g", "loss")() == 1
        assert sorted(loaded_code()[1]) == ["helper.py", "linked.py"]


def test_an_installed_module_is_never_shadowed(home):
    (home / "yaml.py").write_text("raise RuntimeError('executed')\n")
    with code_folder(home):
        assert "site-packages" in sys.modules[load_object("yaml:SafeLoader", "loss").__module__].__file__


def test_only_what_was_recorded_is_executed(home):
    with code_folder(home):
        load_object("mine:f", "loss")
        files = loaded_code()[1]
    (home / "helper.py").write_text("raise RuntimeError('executed')\n")
    with pytest.raises(CodeError, match=r"helper\.py: has changed since the run, so it is not executed"):  # noqa: SIM117
        with code_folder(home, files):
            load_object("mine:f", "loss")
    with pytest.raises(CodeError, match=r"other\.py: is no part of the run"), code_folder(home, files):
        load_object("other:VALUE", "loss")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine", "'mine' must be module:name"),
        ("mine:1f", "'mine:1f' must be module:name"),
        ("absent:f", "there is no module 'absent' in .*home or among the installed packages"),
        ("pack.absent:f", "there is no module 'pack.absent'"),
        ("mine:g", r"mine\.py has no 'g'; it has helper, inner, f"),
        ("raises:f", r"importing .*raises\.py failed, line 2 \(ZeroDivisionError: division by zero\)"),
        ("leaves:f", r"importing .*leaves\.py failed, line 2 \(SystemExit: 3\)"),
        ("broken:f", r"importing .*broken\.py failed, line 1 \(SyntaxError"),
        ("beside:f", r"beside\.py is neither beside the YAML file nor installed, so it is not executed"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(home, tmp_path, monkeypatch, reference, message):
    (home / "raises.py").write_text("import helper\n1 / 0\n")
    (home / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (home / "broken.py").write_text("def f(:\n")
    (tmp_path / "beside.py").write_text("raise RuntimeError('executed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CodeError, match=message) as caught, code_folder(home):
        load_object(reference, "loss")
    assert "\n" not in str(caught.value)


def test_whoever_stops_an_import_stops_it(home):
    (home / "stopped.py").write_text("class Stop(BaseException): ...\n\nraise Stop\n")
    with pytest.raises(BaseException) as caught, code_folder(home):  # noqa: PT011
        load_object("stopped:f", "loss")
    assert type(caught.value).__name__ == "Stop"


def test_what_has_no_source_stands_for_nothing():
    assert digest(lambda prediction, batch: 0) is None
    assert digest(CodeError) == ""
    # Python's own modules import each other by the hundred.
    assert digest(json.dumps) == digest(ast.parse) == f"python {sys.version.partition(' ')[0]}"
    assert source_files(json.dumps) == {}
