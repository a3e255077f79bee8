"""The linear stage: which parameters it can regress, and what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import CELL, spiking_target

from jneuro.fitting import Trainable
from jneuro.fitting.methods.weak_form import driven, held_current, linear_stage, roles, suits, upsampled
from jneuro.fitting.parameters import double
from jneuro.fitting.problem import clamped
from jneuro.simulators import Brunel, CA1Pyramidal, HodgkinHuxley, Pospischil

NINE = ("g_l", "g_na", "g_nap", "g_kdr", "g_a", "g_m", "g_ca", "g_c", "g_sahp")
WIDE = (-200.0, 200.0)


@pytest.mark.parametrize(
    ("simulator", "names", "expected"),
    [
        (HodgkinHuxley(), tuple(CELL), ((0, 1, 2), (3,), ())),
        (HodgkinHuxley(), ("phi", "g_k"), ((1,), (), (0,))),
        (HodgkinHuxley(), {"g_k": None, "e_k": WIDE}, ((0,), (), (1,))),
        (HodgkinHuxley(), {"e_k": WIDE, "e_l": WIDE}, ((0, 1), (), ())),
        (CA1Pyramidal(), NINE, ((0, 1, 2, 3, 4, 5, 7, 8), (), (6,))),
        (Pospischil(), ("g_m", "capacitance", "tau_max"), ((0,), (1,), (2,))),
    ],
)
def test_roles(x64, simulator, names, expected):
    assert roles(double(simulator), Trainable.of(simulator, names)) == expected


def test_suits(x64):
    assert suits(HodgkinHuxley(), Trainable.of(HodgkinHuxley(), ("phi", "g_k")))
    assert not suits(HodgkinHuxley(), Trainable.of(HodgkinHuxley(), ("phi",)))
    assert not suits(Brunel(), Trainable((), (), ()))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_finds_the_conductances_from_any_start(x64, factor):
    wrong = HodgkinHuxley(**{name: factor * value for name, value in CELL.items()})
    found = linear_stage(wrong, Trainable.of(wrong, tuple(CELL)), spiking_target(2, noise=0.0))
    np.testing.assert_allclose(found, list(CELL.values()), rtol=0.02)


def test_noise_moves_it_little(x64):
    wrong = HodgkinHuxley(g_na=80.0, g_k=50.0)
    found = linear_stage(wrong, Trainable.of(wrong, ("g_na", "g_k")), spiking_target(2))
    np.testing.assert_allclose(found, [120.0, 36.0], rtol=0.1)


def test_scans_what_does_not_enter_linearly(x64):
    wrong = HodgkinHuxley(g_k=50.0, phi=1.6)
    found = linear_stage(wrong, Trainable.of(wrong, ("g_k", "phi")), spiking_target(2, noise=0.0))
    np.testing.assert_allclose(found, [36.0, 1.0], rtol=0.05)


def test_says_what_it_cannot_do(x64):
    cell = HodgkinHuxley()
    with pytest.raises(ValueError, match="phi enter the potential of HodgkinHuxley in other ways"):
        linear_stage(cell, Trainable.of(cell, ("phi",)), spiking_target())


def test_driven_variables_are_those_of_a_run(x64):
    """Against the closed form: at a constant potential every gate relaxes exponentially."""
    cell, target = double(HodgkinHuxley()), spiking_target()
    start = jax.tree.map(lambda x: x[None], cell.init(jax.random.key(0)))
    v = jnp.full_like(upsampled(target), -40.0)
    found = driven(cell, start, v, held_current(target), target.dt)
    steady, rate = cell.relaxation(start._replace(v=v[:, 0]), 0.0)
    time = 0.5 * target.dt * np.arange(found.n.shape[1])
    expected = steady.n + (start.n - steady.n) * np.exp(-rate.n * time)
    np.testing.assert_allclose(found.n[0], expected, rtol=1e-9)


def test_an_unknown_beginning_is_a_clamped_cell(x64):
    cell, target = double(HodgkinHuxley()), spiking_target()
    begin = clamped(cell, target)
    steady, _ = cell.relaxation(begin, 0.0)
    np.testing.assert_allclose([begin.m, begin.h, begin.n], [steady.m, steady.h, steady.n], rtol=1e-9)
    assert begin.v[0] == target.v[0, 0]
