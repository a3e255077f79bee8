"""What is read from the text of a class or a function is what it declares."""

import importlib
import inspect
from pathlib import Path

import pytest

import jneuro
from jneuro.core.code import code_folder
from jneuro.core.config import Config
from jneuro.core.outline import outline
from jneuro.core.registry import Registry, accepted
from jneuro.simulators.kinds import SIMULATORS
from jneuro.simulators.paths import parameters

# Every kind, whichever tests were collected before.
for kinds in sorted(Path(jneuro.__file__).parent.glob("*/kinds.py")):
    importlib.import_module(f"jneuro.{kinds.parent.name}.kinds")
EVERY = [(kind, name) for kind, registry in Registry.every.items() for name in registry]


def of(kind, name):
    registry = Registry.every[kind]
    thing = registry[name]
    return getattr(thing, "function", thing), outline(registry.entries()[name].reference)


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=map("-".join, EVERY))
def test_the_arguments_are_those_of_the_constructor(kind, name):
    thing, found = of(kind, name)
    assert found.doc == inspect.getdoc(thing)
    assert found.doc
    if inspect.isclass(thing) and issubclass(thing, Config):
        named = {k: f for k, f in thing.model_fields.items() if k != "name"}
        assert list(found.arguments) == list(named)
        assert {k: a.default is None for k, a in found.arguments.items()} == {
            k: f.is_required() for k, f in named.items()
        }
    elif callable(thing):
        assert sorted(found.arguments) == sorted(accepted(thing))


@pytest.mark.parametrize("name", SIMULATORS)
def test_the_parameters_are_those_that_are_declared(name):
    cls, found = of("simulator", name)
    for parameter in parameters(cls).values():
        argument = found.arguments[parameter.name]
        assert (argument.unit, argument.doc, argument.source) == (parameter.unit, parameter.doc, parameter.source)
        if isinstance(parameter.default, float):
            assert float(argument.default) == pytest.approx(parameter.default, rel=1e-5)
            assert argument.bounds == str(parameter.bounds).replace("(-inf, inf)", "")
    assert found.presets == tuple(cls.presets)
    known = {n: r.unit for n, r in cls.recordables.items()}
    assert {n: u or known[n] for n, u in found.records.items()} == known


def test_what_is_no_text_has_no_outline(tmp_path):
    (tmp_path / "mine.py").write_text('VALUE = 3\n"""Three."""\n\ndef f(x, *, y=VALUE / 2): ...\n')
    assert outline("no_such_module:f") is None
    assert outline("jneuro.core.outline:nothing") is None
    assert outline("math:sin") is None
    with code_folder(tmp_path):
        assert outline("mine:VALUE").doc == "Three."
        assert {n: a.default for n, a in outline("mine:f").arguments.items()} == {"x": None, "y": "1.5"}
    # Through the stubs of packages.
    assert "recording" in outline("jneuro:fit").arguments
