"""Designs cover what they say; what is wrong with one is said before anything is computed."""

from pathlib import Path

import jax
import numpy as np
import pytest
from sweep_problems import cheap

from jneuro.core.config import ConfigError, load_config
from jneuro.report.sweep import default_figures, draw_sweep_figure
from jneuro.sweeps.config import SweepConfig, SweepFigure
from jneuro.sweeps.design import DesignConfig, design_points
from jneuro.sweeps.runner import run_sweep
from jneuro.sweeps.store import Layout

QUICK = Path(__file__).parents[2] / "configs" / "quick" / "sweep_brunel.yaml"
A = {"low": 0.02, "high": 0.1}


@pytest.mark.parametrize(
    ("sizes", "wanted"), [({"a": 7, "b": 5}, 8), ({"a": 100, "b": 100}, 39), ({"p": 20, "s": 3}, 1), ({"p": 3}, 99)]
)
def test_chunks_hold_every_point_once(sizes, wanted):
    layout = Layout.cut(sizes, wanted)
    found = np.concatenate([layout.points(chunk) for chunk in range(layout.chunks)])
    np.testing.assert_array_equal(np.sort(found), np.arange(np.prod(list(sizes.values()))))
    assert np.prod(layout.block) <= max(wanted, 1)


def test_designs():
    grid = design_points(cheap().sweep, jax.random.key(0))
    assert grid.dims == {"a": 7, "amplitude": 5}
    np.testing.assert_allclose(grid.values[:6, 1], [0, 5, 10, 15, 20, 0])
    axes = {"a": A, "b": {"low": 0.01, "high": 100, "scale": "log"}}
    for name in ("random", "sobol"):
        points = design_points(DesignConfig(design=name, points=64, axes=axes, seeds=2), jax.random.key(0))
        assert points.dims == {"point": 64, "seed": 2}
        assert points.count == 128
        in_bins = np.histogram(np.log10(points.values[:, 1]), 16, (-2, 2))[0]
        assert in_bins.sum() == 64
        assert (in_bins == 4).all() == (name == "sobol")
        other = design_points(DesignConfig(design=name, points=64, axes=axes), jax.random.key(1))
        assert (other.values != points.values).any()


def test_a_table_lies_beside_its_configuration(tmp_path):
    (tmp_path / "t.csv").write_text("a,seed\n0.02,3\n0.05,4\n")
    (tmp_path / "s.yaml").write_text(
        "name: t\nsimulation: {simulator: {name: izhikevich}}\nsweep: {design: table, table: t.csv}\nmeasures: [rate]\n"
    )
    config = load_config(SweepConfig, tmp_path / "s.yaml")
    points = design_points(config.sweep, jax.random.key(0))
    np.testing.assert_array_equal(points.values[:, 0], [0.02, 0.05])
    np.testing.assert_array_equal(points.seed, [3, 4])
    assert config == SweepConfig.model_validate(config.model_dump())
    (tmp_path / "t.csv").write_text("a,seed\n0.02,x\n")
    with pytest.raises(ConfigError, match=r"line 2: seed = 'x' must be a number"):
        load_config(SweepConfig, tmp_path / "s.yaml")


BAD = {
    "sweep.axes.g.low=-1": "at g = -1: .*g = -1.0 lies outside",
    "sweep.axes.gg={low: 0, high: 1, points: 2}": "unknown parameter 'gg'; did you mean 'g'",
    "sweep.axes.delay={low: 1, high: 2, points: 2}": "delay of brunel is part of the compiled program",
    "sweep.axes.amplitude={of: stimulus.amplitude, low: 0, high: 1, points: 2}": "has no stimulus",
    "sweep.axes.eta.high=100": "at eta = 100: .*more than one spike a step",
    "sweep.axes.eta.scale=log": "",
    "sweep.axes.g.points=1": "axes.g: needs points, 2 at least",
    "sweep.axes.g={low: 2, high: 1, points: 3}": "low = 2 must be less than high = 1",
    "sweep.axes.h={of: simulator.g, low: 0, high: 1, points: 2}": "simulator.g is varied by g already",
    "sweep.max_points=63": "64 points are more than max_points = 63; take fewer, or raise it",
    "sweep.points=3": "a grid design has no points",
    "sweep.design=sobol": "a sobol design takes low and high alone",
    "sweep.lanes=18446744073709551616": "sweep.lanes = 18446744073709551616: is more than can be counted",
    "sweep.axes.g=[true, 2]": r"sweep.axes.g.values = \[True, 2\]: True must be a number",
    "sweep.seeds=true": "sweep.seeds = True: must be a number",
    "measures=[rat]": "unknown measure 'rat'; did you mean 'rate'",
    "measures=[rate, rate]": "names one of them twice",
    "measures=[]": "nothing would be kept",
    "figures=[{kind: heat_map, of: rate, x: g}]": "heat_map needs y",
    "figures=[{kind: curves, of: rate, x: q}]": "unknown name 'q'",
    "simulation.warmup_ms=0.05": "warmup_ms = 0.05 ms is not a multiple",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_input(override):
    if not BAD[override]:
        assert load_config(SweepConfig, QUICK, [override])
        return
    with pytest.raises(ConfigError, match=BAD[override]) as error:
        load_config(SweepConfig, QUICK, [override])
    assert "Error" not in str(error.value)


def test_figures(tmp_path):
    design = {"axes": {"amplitude": [0, 5, 30], "a": [0.02, 0.1]}, "seeds": 2}
    config = cheap(design, ("rate", "network_state"), duration=20.0)
    data = run_sweep(config.problem(), tmp_path / "s")
    kinds = [figure.kind for figure in default_figures(config, data)]
    assert kinds == ["heat_map", "phase_diagram"]
    family = SweepFigure(kind="curves", of="rate", x="amplitude", family="a")
    for figure in (*default_figures(config, data), family):
        axes = draw_sweep_figure(figure, config, data).axes[0]
        assert axes.get_xlabel() == "amplitude [pA]"
    lines = draw_sweep_figure(family, config, data).axes[0].lines
    np.testing.assert_allclose(lines[1].get_ydata(), data.rate.mean("seed").sel(a=0.1))
