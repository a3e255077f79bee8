"""Targets: shapes, units, noise, and recordings that cannot be fitted."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import recording

from jneuro.fitting import CellProblem, Trainable, Trials
from jneuro.simulators import HodgkinHuxley

RAMP = np.linspace(-70.0, 30.0, 60)
SHAPES = {
    "one trial": (RAMP, (1, 60)),
    "trial time": (np.stack([RAMP, RAMP + 1]), (2, 60)),
    "trial time cell": (np.stack([RAMP, RAMP + 1])[..., None], (2, 60)),
    "cells are trials": (np.stack([RAMP, RAMP + 1], 1)[None], (2, 60)),
}


@pytest.mark.parametrize(("v", "shape"), SHAPES.values(), ids=SHAPES)
def test_shapes(v, shape):
    target = Trials.of(recording(v, np.zeros_like(v)))
    assert target.v.shape == target.current.shape == shape
    np.testing.assert_array_equal(target.v, (RAMP + np.arange(shape[0])[:, None]))
    assert (target.trials, target.frames) == shape
    np.testing.assert_array_equal(target.of_trials([shape[0] - 1]).v, target.v[-1:])


def test_noise_is_estimated_without_the_spikes():
    rng = np.random.default_rng(0)
    v = 0.5 * rng.standard_normal((1, 4000))
    v[0, ::100] += 80
    assert float(Trials.of(recording(v, np.zeros_like(v))).noise_sd) == pytest.approx(0.5, rel=0.1)


def test_a_recording_without_noise_is_known():
    smooth, noise = np.sin(np.linspace(0, 60, 4000)), np.random.default_rng(0).standard_normal(4000)
    cases = {0.0: True, 1e-5: True, 0.05: False, 0.5: False}
    for sd, quiet in cases.items():
        v = (30 * smooth + sd * noise).astype(np.float32)
        assert Trials.of(recording(v, np.zeros_like(v))).quiet == quiet, sd
        assert not Trials.of(recording(v, np.zeros_like(v)), noise_sd=1.0).quiet
    assert Trials.of(recording(np.full(60, -65.0), RAMP), allow_clipped=True).quiet


@pytest.mark.usefixtures("x64")
def test_a_current_is_held_from_its_sample_to_the_next():
    current = np.asarray([[1.0, 2.0, 3.0]])
    target = Trials.of(recording(np.zeros((1, 3)), current, dt=0.5), noise_sd=1.0)
    stimulus = target.stimulus(jnp.asarray(current[0]))
    np.testing.assert_array_equal(target.time, [0.5, 1.0, 1.5])
    np.testing.assert_array_equal([stimulus(jnp.asarray(t)) for t in (0.0, 0.4, 0.5, 0.9, 1.0)], [1, 1, 1, 1, 2])


def _with(index, value):
    changed = RAMP.copy()
    changed[index] = value
    return changed


CLIPPED = np.minimum(60 * np.sin(np.linspace(0, 20, 400)), 40.0)
REFUSED = {
    "no stimulus": (recording(RAMP, None), "has no 'current'; a fit needs the stimulus"),
    "not a number": (recording(_with(5, np.nan), RAMP), "'v' of trial 0 is not finite at 0.6 ms .1 samples"),
    "current infinite": (recording(RAMP, _with(0, np.inf)), "'current' of trial 0 is not finite at 0.1 ms"),
    "an array": (RAMP, r"takes a Recording, got ndarray; .*read\(path\) .* from_arrays\(v, current, dt=...\)"),
    "a dictionary": ({"v": RAMP, "current": RAMP}, "takes a Recording, got dict"),
    "a path": ("cell.nwb", "takes a Recording, got str; jneuro.recordings.read"),
    "not ok": (
        eqx.tree_at(lambda r: r.ok, recording(np.stack([RAMP, RAMP + 1]), RAMP), np.array([True, False])),
        "the recording is not ok in trial 1: .* its time step was too coarse; simulate it with a shorter one",
    ),
    "clipped": (recording(CLIPPED, np.zeros(400)), "stays at 40 mV from .* ms: it was clipped"),
    "clipped below": (recording(-CLIPPED, np.zeros(400)), "stays at -40 mV"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Trials.of(given)


def test_clipped_recordings_may_be_taken_as_they_are():
    assert Trials.of(recording(CLIPPED, np.zeros(400)), allow_clipped=True).frames == 400


def test_a_cell_at_rest_is_not_clipped():
    relaxing = -70 + 10 * np.maximum(np.exp(-np.arange(400) / 3), 1e-17)
    for v in (relaxing, np.full(400, -65.0), np.concatenate([np.full(50, -65.0), relaxing])):
        assert Trials.of(recording(v, np.zeros(len(v)))).frames == len(v)


@pytest.mark.parametrize("noise", [0.0, -1.0])
def test_noise_must_be_positive(noise):
    with pytest.raises(ValueError, match="must be positive"):
        Trials.of(recording(RAMP, RAMP), noise_sd=noise)


@pytest.mark.usefixtures("x64")
def test_several_cells_are_refused():
    cells = HodgkinHuxley(g_na=np.asarray([100.0, 120.0]))
    target = Trials.of(recording(RAMP, RAMP))
    with pytest.raises(ValueError, match=r"make 2 potentials at once.*one value for all cells: fit each cell alone"):
        CellProblem.of(cells, target, Trainable.of(cells, ["g_na"]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ({"current_unit": "pA"}, "in pA, that of HodgkinHuxley in µA/cm²"),
        ({"v_unit": "V"}, "'v' is in V, that of .* in mV"),
    ],
)
def test_another_unit_is_refused(unit, said):
    target = Trials.of(recording(RAMP, RAMP, **{"current_unit": "µA/cm²"} | unit))
    with pytest.raises(ValueError, match=said):
        CellProblem.of(HodgkinHuxley(), target, Trainable.of(HodgkinHuxley(), ["g_l"]))
