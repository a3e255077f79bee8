"""An installed package that offers a simulator, a model, a measure and a reader by entry points."""

import importlib
import sys

import numpy as np
import pytest

from jneuro.core.registry import Registry
from jneuro.models.kinds import MODELS
from jneuro.recordings.kinds import READERS
from jneuro.recordings.readers import read
from jneuro.simulators.kinds import SIMULATORS, STIMULI
from jneuro.sweeps.kinds import MEASURES

CODE = '''
from typing import NamedTuple

from flax import nnx

import jneuro as jn


class Relaxing(jn.ODESimulator):
    """A potential that relaxes to zero."""

    tau: jn.Param = jn.param(5.0, unit="ms", bounds=jn.POSITIVE)

    class State(NamedTuple):
        v: jn.Array = jn.state(1.0, unit="mV")

    def vector_field(self, y, drive):
        return self.State((drive - y.v) / self.tau)


class Flat(nnx.Module):
    """Predicts zero."""

    def __init__(self, horizons, outputs, *, rngs):
        self.weight = nnx.Param(rngs.params.normal((horizons, outputs)))

    def __call__(self, batch, *, train=False):
        return 0 * batch.inputs[:, :1, :1] + self.weight[...][None]


@jn.measure(unit="mV", needs=("v",))
def highest(recording):
    """Highest potential."""
    return recording["v"].max()


def read_text(path, *, dt=1.0):
    """Numbers, one a line."""
    import numpy as np

    return jn.recordings.from_arrays(v=np.loadtxt(path), dt=dt)


read_text.suffixes = (".numbers",)
'''

POINTS = """
[jneuro.simulator]
relaxing = plug_in_cells:Relaxing
[jneuro.model]
flat = plug_in_cells:Flat
[jneuro.measure]
highest = plug_in_cells:highest
rate = plug_in_cells:highest
[jneuro.reader]
numbers = plug_in_cells:read_text
[jneuro.stimulus]
broken = plug_in_cells:no_such_thing
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as an installer leaves it: the module, and beside it what is known of the distribution."""
    (tmp_path / "plug_in_cells.py").write_text(CODE)
    about = tmp_path / "plug_in_cells-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in-cells\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("plug_in_cells", None)


@pytest.mark.filterwarnings("ignore:the measure 'rate' of plug-in-cells is not used")
def test_names_of_a_plugin_are_found_and_listed_with_their_package(installed):
    kinds = {SIMULATORS: "relaxing", MODELS: "flat", MEASURES: "highest", READERS: "numbers"}
    for registry, name in kinds.items():
        assert name in registry
        assert registry.entries()[name].source == "plug-in-cells"
        assert registry.block(name).target.__module__ == "plug_in_cells" or name == "highest"
        assert Registry.every[registry.kind] is registry
    assert SIMULATORS.block({"name": "relaxing", "tau": 3.0}).build().tau == 3.0
    assert SIMULATORS.about("relaxing") == "A potential that relaxes to zero."
    with pytest.raises(ValueError, match="unknown simulator 'relaxin'; did you mean 'relaxing'"):
        SIMULATORS.find("relaxin")


def test_ours_come_first_and_a_broken_one_is_named(installed):
    with pytest.warns(UserWarning, match="the measure 'rate' of plug-in-cells is not used: jneuro has one"):
        assert MEASURES.entries()["rate"].source == "jneuro"
    with pytest.raises(ValueError, match="'broken', of the package plug-in-cells, cannot be loaded"):
        STIMULI.find("broken")


def test_a_reader_of_a_plugin_takes_its_files(installed, tmp_path):
    np.savetxt(tmp_path / "a.numbers", np.arange(5.0))
    assert read(tmp_path / "a.numbers", dt=0.5).values["v"].shape == (1, 5, 1)
    with pytest.raises(ValueError, match=r"unknown argument 'dtt'; did you mean 'dt'"):
        read(tmp_path / "a.numbers", dtt=0.5)
