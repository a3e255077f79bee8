"""A sweep of a cell, a stimulus, a solver and a measure of one's own, from a folder of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_problems import cheap

from jneuro.core.config import ConfigError, load_config
from jneuro.core.progress import Progress, Task
from jneuro.recordings.store import StoreError
from jneuro.simulators import Izhikevich, stimuli
from jneuro.sweeps import measure, sweep, zipped
from jneuro.sweeps.config import SweepConfig
from jneuro.sweeps.design import as_design
from jneuro.sweeps.runner import run_sweep

CELL = """\
from typing import NamedTuple
import jneuro.simulators as jns
from jneuro.simulators.base import param, state, POSITIVE
from jneuro.core.types import Array
from my_shapes import cube

class FitzHughNagumo(jns.ODESimulator):
    \"\"\"Two variables, excitable.\"\"\"
    a: Array = param(0.7)
    b: Array = param(0.8)
    tau: Array = param(12.5, unit="ms", bounds=POSITIVE)

    class State(NamedTuple):
        v: Array = state(-1.2)
        w: Array = state(-0.6)

    def vector_field(self, y, drive):
        return self.State(y.v - cube(y.v) + -y.w + drive, (y.v + self.a - self.b * y.w) / self.tau)

class Spiking(FitzHughNagumo):
    def threshold(self, y):
        return y.v - 1.0

def slow():
    return FitzHughNagumo(tau=20.0)

class NoField(jns.ODESimulator):
    class State(NamedTuple):
        v: Array = state(0.0)
"""
SHAPES = "def cube(v):\n    return v**3 / 3\n"
MINE = """\
import jax.numpy as jnp
from jneuro.simulators.base import param
from jneuro.simulators.stimuli import Stimulus
from jneuro.simulators.solvers import Heun
from jneuro.core.types import Array

class Decay(Stimulus):
    amplitude: Array = param(1.0)
    tau: Array = param(30.0, unit="ms")

    def __call__(self, t):
        return self.amplitude * jnp.exp(-t / self.tau)

class Mine(Heun):
    pass

def broken(amplitude=1.0):
    return 1 / 0

def swing(recording):
    \"\"\"Range of the potential.\"\"\"
    return recording.values["v"].max() - recording.values["v"].min()
"""
YAML = """\
name: own
simulation:
  simulator: {name: "my_cells:FitzHughNagumo", b: 0.75}
  stimulus: {name: "my_things:Decay", amplitude: 0.3}
  solver: my_things:Mine
  duration_ms: 10
  dt_ms: 0.1
sweep:
  axes: {a: [0.6, 0.7, 0.8], amplitude: [0.1, 0.5]}
  chunk: 1
  lanes: 1
measures: [v_mean, "my_things:swing"]
"""


class Killed(Progress, Task):
    """Ends the sweep after so many points."""

    def __init__(self, points):
        self.points = points

    def begin(self, text, total=None, unit="", done=0.0):
        return self

    def update(self, done=None, total=None, text=None, **values):
        if done is not None and done >= self.points:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    for name, text in (("my_cells.py", CELL), ("my_shapes.py", SHAPES), ("my_things.py", MINE), ("s.yaml", YAML)):
        (path / name).write_text(text)
    return path


def test_a_sweep_of_ones_own_things_is_killed_resumed_and_knows_its_code(folder):
    config = load_config(SweepConfig, folder / "s.yaml")
    whole = run_sweep(config.problem(), folder / "whole")
    assert whole.swing.dims == ("a", "amplitude")
    assert whole.swing.attrs["long_name"] == "Range of the potential."
    assert np.unique(whole.swing.values).size == 6
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config.problem(), folder / "store", progress=Killed(3))
    again = load_config(SweepConfig, folder / "s.yaml")
    resumed = run_sweep(again.problem(), folder / "store")
    np.testing.assert_array_equal(resumed.swing, whole.swing)
    # What a helper says is part of the cell.
    (folder / "my_shapes.py").write_text(SHAPES.replace("/ 3", "/ 2.9"))
    changed = load_config(SweepConfig, folder / "s.yaml")
    with pytest.raises(
        StoreError, match=r"the source of its simulator my_cells:FitzHughNagumo, .* has changed; choose"
    ):
        run_sweep(changed.problem(), folder / "store")
    assert not np.array_equal(run_sweep(changed.problem(), folder / "anew").swing, whole.swing)


BAD = {
    "simulation.simulator.name=my_cells:FitzHugh": ["my_cells.py has no 'FitzHugh'", "it has"],
    "simulation.simulator.name=my_cell:Mine": ["there is no module 'my_cell'"],
    "simulation.simulator.name=my_things:Decay": ["'my_things:Decay' is no simulator: is a class, not an ODESimulator"],
    "simulation.simulator.name=my_cells:NoField": ["needs vector_field or relaxation"],
    "simulation.simulator.c=1": ["unknown parameter 'c'"],
    "simulation.simulator.tau=-1": ["FitzHughNagumo: tau = -1.0 ms lies outside (0, inf) ms"],
    "simulation.simulator.tau=fast": ["tau = 'fast' must be a number"],
    "simulation.stimulus=my_cells:slow": ["my_cells:slow returned no stimulus"],
    "simulation.solver=my_things:Decay": ["is no solver: is a class, not one of jneuro.simulators.solvers"],
    "simulation.solver={name: tsit5, rtoll: 1e-6}": ["unknown argument 'rtoll'; did you mean 'rtol'"],
    "simulation.stimulus=my_things:broken": ["my_things:broken (", "my_things.py, line ", "raised ZeroDivisionError: "],
    "simulation.stimulus=[1]": ["simulation.stimulus = [1]: must be a name, or a dictionary of a name and its arg"],
    "sweep.axes.a=3": ["sweep.axes.a = 3: must be a list of values, or low, high and points"],
    "sweep.axes.a=[]": ["sweep.axes.a.values = []: must have at least 1 item"],
    "measures=v_mean": ["measures = 'v_mean': must be a list"],
    "measures=[rate]": ["measures: rate needs 'spikes', which my_cells:FitzHughNagumo does not record"],
    'measures=["my_things:Mine"]': ["is no measure"],
    "sweep.axes.c=[1, 2]": ["my_cells:FitzHughNagumo: unknown parameter 'c'"],
}


@pytest.mark.parametrize("override", BAD)
def test_what_is_wrong_with_ones_own_things_is_said_in_one_line(folder, override):
    with pytest.raises(ConfigError) as caught:
        load_config(SweepConfig, folder / "s.yaml", [override])
    for part in BAD[override]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "simulation.simulator=my_cells:slow",
        "simulation.solver={name: tsit5, rtol: 1e-6}",
        "simulation.solver=diffrax:Ralston",
        "sweep.axes.both={of: [simulator.tau, stimulus.tau], values: [1, 2]}",
        'simulation.simulator={name: "my_cells:Spiking", a: {normal: [0.7, 0.01]}}',
    ],
)
def test_what_else_may_be_said(folder, override):
    more = ["measures=[rate, spike_count]"] if "Spiking" in override else []
    assert load_config(SweepConfig, folder / "s.yaml", [override, "sweep.axes.a=[0.6]", *more][: 2 + len(more)])


# In Python -----------------------------------------------------------------------------------------------------------

KEY = jax.random.key(0)


@measure(unit="mV", needs=("v",))
def swing(recording):
    """Range of the potential."""
    return recording.values["v"].max() - recording.values["v"].min()


def nothing(recording):
    return None


def word(recording):
    return {"a": "b"}


def varying(recording):
    return recording.values["v"][recording.values["v"] > 0]


def by_numpy(recording):
    return np.percentile(np.asarray(recording.values["v"]), 50)


def a(recording):
    return recording.values["v"].max()


def time(recording):
    return recording.values["v"].max()


def wrong(recording):
    return recording.values["u9"]


def test_a_sweep_of_objects(tmp_path):
    what = {"duration": 2.0, "measures": ["v_mean", swing], "key": KEY}
    design = {"a": [0.02, 0.1], "stimulus.amplitude": jnp.asarray([0.0, 10.0])}
    data = sweep(Izhikevich(), design, stimuli.Constant(0), **what)
    assert data.swing.dims == ("a", "amplitude")
    assert data.swing.attrs == {"units": "mV", "long_name": "Range of the potential."}
    rows = zipped({"a": [0.02, 0.1], "stimulus.amplitude": [0.0, 10.0]})
    listed = sweep(Izhikevich(), rows, stimuli.Constant(0), **what, path=tmp_path / "s")
    assert listed.a.dims == ("point",)
    np.testing.assert_allclose(listed.swing, [data.swing[0, 0], data.swing[1, 1]], rtol=1e-5)
    np.testing.assert_array_equal(
        sweep(Izhikevich(), rows, stimuli.Constant(0), **what, path=tmp_path / "s").swing, listed.swing
    )
    with pytest.raises(StoreError, match="another design, which differs in stimulus"):
        sweep(Izhikevich(), rows, stimuli.Constant(1), **what, path=tmp_path / "s")


def test_axes_of_alike_paths_have_names_of_their_own():
    paths = ("c.d", "x.d", "y.c_d", "stimulus.amplitude", "synapse.time")
    found = as_design({path: [1.0] for path in paths}).axes
    assert {name: axis.of for name, axis in found.items()} == dict(
        zip(("c_d", "x_d", "y_c_d", "amplitude", "synapse_time"), paths, strict=True)
    )
    with pytest.raises(ValueError, match=r"x.a_b, a_b, x_a_b are too alike; name one yourself"):
        as_design({"x.a_b": [1.0], "a_b": [1.0], "x_a_b": [1.0]})


WRONG = {
    "no result": ({"measures": [nothing]}, "measures: nothing returned None"),
    "words": ({"measures": [word]}, "measures: word returned under 'a' 'b', of the type str"),
    "varying shape": ({"measures": [varying]}, r"varying \(.*test_own.py, line \d+\) cannot be traced by JAX"),
    "numpy": ({"measures": [by_numpy]}, r"by_numpy \(.*line \d+\) cannot be traced by JAX.*use jax.numpy"),
    "an error": ({"measures": [wrong]}, r"wrong \(.*test_own.py, line \d+\) raised KeyError: 'u9'"),
    "twice": ({"measures": [swing, swing]}, "measures: names one of them twice"),
    "an axis' name": ({"measures": [a]}, "measures: a gives 'a', which is there already; choose another name"),
    "a dimension's name": ({"measures": [time]}, "measures: time gives 'time', which is there already"),
    "true as a value": ({"design": {"a": [True]}}, r"design: a = \[True\] must be a list of finite numbers"),
    "true as seeds": ({"seeds": True}, "design: seeds = True: must be a number"),
    "no list": ({"measures": "rate"}, r"measures = 'rate' must be a list, as in \['rate'\]"),
    "unknown measure": ({"measures": ["rat"]}, "unknown measure 'rat'; did you mean 'rate'"),
    "class": ({"simulator": Izhikevich}, r"simulator = Izhikevich must be an object; call it, as in Izhikevich\(\)"),
    "no simulator": ({"simulator": 3}, "3 is no simulator"),
    "no design": ({"design": {}}, "nothing would be varied"),
    "bad design": ({"design": [1, 2]}, "must map paths to values, or be a DataFrame"),
    "words as values": ({"design": {"a": ["x"]}}, "a = .* must be a list of finite numbers"),
    "value twice": ({"design": {"a": [1.0, 1.0]}}, "values has one of them twice"),
    "unknown path": ({"design": {"aa": [1.0]}}, "unknown parameter 'aa'; did you mean 'a'"),
    "static path": ({"design": {"n": [2]}}, "n of Izhikevich is part of the compiled program"),
    "out of bounds": ({"design": {"capacitance": [-1.0, 1.0]}}, "at capacitance = -1: .*lies outside"),
    "a number as stimulus": ({"stimulus": 10.0}, r"must be a stimulus, such as stimuli.Constant\(10.0\)"),
    "duration in words": ({"duration": "50"}, "duration = '50' must be a number of milliseconds"),
    "endless": ({"duration": 1e12}, "steps, more than can be counted"),
    "no room": (
        {"duration": 2e6, "keep": ["v"], "seeds": 1_000_000},
        "need up to .* free, .* keep fewer",
    ),
    "warmup": ({"warmup": -1.0}, "warmup = -1.0 ms must not be negative"),
    "solver": ({"solver": "rk5"}, "unknown solver 'rk5'; did you mean 'rk4'"),
    "key": ({"key": 3}, "key must be a typed key"),
    "a word": ({"measures": [lambda recording: "b"]}, "returned 'b', of the type str; it must return a number"),
    "a trace too long": ({"duration": 5e7, "keep": ["v"]}, "v of one point has 500,000,000 frames, or 3.7 GiB in one"),
    "no frames": ({"record_every": 0}, "record_every = 0.0 ms must be at least the time step"),
    "no values": ({"design": {"a": []}}, r"design: values = \(\): must have at least 1 item"),
    "another process": ({"process": 1}, "process = 1 must be less than processes = 1"),
    "no process": ({"process": "first"}, "process = 'first' must be a whole number, 0 or more"),
    "no processes": ({"processes": 0}, "processes = 0 must be a whole number, 1 or more"),
    "memory in words": ({"memory": "1G"}, "memory = '1G' must be a whole number, 1 or more"),
    "number of devices": ({"devices": 2}, r"devices = 2 must be a list of devices, such as jax.devices\(\)"),
    "no devices": ({"devices": []}, "must be a list of devices"),
    "no path": ({"path": 3}, "path = 3 must be a path"),
    "progress in words": ({"progress": "yes"}, "progress = 'yes' must be True, False, None, or a Progress"),
    "a configuration": ({"simulator": {"name": "izhikevich"}}, "is no simulator: is of the type dict"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_is_refused_before_anything_is_computed(given, message):
    what = {"simulator": Izhikevich(), "design": {"a": [0.02]}, "stimulus": stimuli.Constant(0), "duration": 2.0}
    with pytest.raises(ValueError, match=message) as caught:
        sweep(**({"progress": False} | what | {"measures": ["v_mean"], "key": KEY} | given))
    assert "\n" not in str(caught.value)


def test_seeds_of_a_table_are_distinct():
    for seed in (2**31, 2**32, -1, 0.5):
        with pytest.raises(ValueError, match="design: table: seeds must be whole numbers from 0 to 2147483647"):
            zipped({"a": [0.02, 0.03], "seed": [1, seed]})


def test_a_configuration_is_no_problem(tmp_path):
    with pytest.raises(ValueError, match=r"got SweepConfig; that of a SweepConfig is config.problem\(\), and `sweep`"):
        run_sweep(cheap(), tmp_path / "s")


MADE = {
    "an object": (
        {"simulation": {"simulator": Izhikevich()}},
        "simulation.simulator: got Izhikevich; it must be a name",
    ),
    "no list": ({"measures": "rate"}, "measures = 'rate': must be a list"),
    "a seed": ({"seed": 2**32}, "seed = 4294967296: input should be less than 4294967296"),
    "less than nothing": ({"seed": -1}, "seed = -1: input should be greater than or equal to 0"),
    "an axis": (
        {"sweep": {"axes": {"a": "b"}}},
        "sweep.axes.a = 'b': must be a list of values, or low, high and points",
    ),
    "a key": ({"measurs": []}, "unknown key 'measurs'; did you mean 'measures'"),
}


@pytest.mark.parametrize(("given", "message"), MADE.values(), ids=MADE)
def test_what_is_wrong_with_a_configuration_made_in_python_is_one_line(given, message):
    right = {"name": "s", "simulation": {"simulator": "izhikevich"}, "sweep": {"axes": {"a": [0.02]}}}
    with pytest.raises(ConfigError) as caught:
        SweepConfig(**(right | {"measures": ["v_mean"]} | given))
    assert str(caught.value).startswith(f"SweepConfig: {message}")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
