"""Rates, patterns and regimes of single cells."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, Izhikevich, excitability
from jneuro.simulators.regimes import REGIMES, firing_pattern

pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def ca1():
    """Currents of every regime, and of the reference's table up to the chaos."""
    file = np.load(Path(__file__).parents[1] / "reference" / "ca1.npz")
    return excitability(CA1Pyramidal(), file["f_i_current"], duration=1500.0, warmup=1500.0), file


def test_the_f_i_curve_of_ca1_against_lsoda(ca1):
    """Spikes over 500-1000 ms, to one spike at an edge of the window, except where the cell is chaotic."""
    file = ca1[1]
    current, late, first = file["f_i_current"], file["f_i_late_count"], file["f_i_first_spike"]
    found = excitability(CA1Pyramidal(), current, duration=500.0, warmup=500.0)
    chaotic = (current > 0.85) & (current < 1.75)
    np.testing.assert_allclose(found.rate[~chaotic], 2.0 * late[~chaotic], atol=2.01)
    np.testing.assert_allclose(found.rate[chaotic], 2.0 * late[chaotic], atol=16.0)
    np.testing.assert_array_equal(np.isnan(found.first_spike), np.isnan(first))
    spiked = current >= 0.3
    np.testing.assert_allclose(found.first_spike[spiked], first[spiked], atol=0.11)


def test_the_regimes_of_ca1(ca1):
    """Rest, bursts of four, a chaotic band, bursts of three and two, and tonic spikes, in this order."""
    found, file = ca1
    current = np.round(file["f_i_current"], 2)
    by_current = dict(zip(current, zip(found.names, found.period, strict=True), strict=True))
    assert by_current[0.1] == ("rest", 0)
    for i in (0.3, 0.5, 0.7):
        assert by_current[i] == ("bursting", 4)
    # Chaos has periodic windows.
    assert {"irregular"} <= {by_current[i][0] for i in (1.05, 1.1, 1.15, 1.2, 1.25)} <= {"irregular", "bursting"}
    assert by_current[2.0] == ("bursting", 2)
    for i in (2.4, 2.7, 3.0):
        assert by_current[i] == ("spiking", 1)
    cv = dict(zip(current, np.asarray(found.isi_cv), strict=True))
    assert cv[0.5] > 1.5
    assert 0.3 < cv[2.0] < 0.5
    assert cv[3.0] < 0.02


def test_the_published_bands_of_rates(ca1):
    """Plaster and Kumar (2019): bursting 8-52 Hz, irregular 53-164 Hz, spiking 165-187 Hz."""
    found, _ = ca1
    current, rate = np.asarray(found.current), np.asarray(found.rate)
    for low, high, least, most in ((0.24, 0.79, 8, 52), (0.79, 2.3, 53, 164), (2.3, 3.0, 165, 187)):
        band = rate[(current >= low) & (current < high)]
        assert least - 5 <= band.min()
        assert band.max() <= most + 5


def test_a_bifurcation_sweep_has_a_parameter_for_each_cell():
    """Without the M-current the cell bursts or spikes faster; more of it silences the cell."""
    found = excitability(CA1Pyramidal(g_m=jnp.array([0.2, 0.5, 2.0])), 0.5, duration=700.0, warmup=300.0)
    assert found.rate[0] > found.rate[1] > found.rate[2]


def test_squid_axon_begins_to_spike_near_6_and_a_half():
    """Repetitive firing of the Hodgkin-Huxley membrane begins near 6.3 µA/cm² (from rest, a step)."""
    found = excitability(HodgkinHuxley(), np.array([2.0, 5.0, 7.0, 20.0]), duration=400.0, warmup=200.0)
    assert list(found.names) == ["rest", "rest", "spiking", "spiking"]
    assert 50 < found.rate[2] < found.rate[3] < 100
    assert found.v_min[0] > -66
    assert found.v_max[3] > 20


def test_stepped_cells_too():
    cells = Izhikevich.regular_spiking(n=3)
    found = excitability(cells, np.array([0.0, 6.0, 12.0]), duration=1000.0, warmup=1000.0)
    assert list(found.names) == ["rest", "spiking", "spiking"]
    assert found.rate[1] < found.rate[2]


@jax.jit
def describe(fired):
    return firing_pattern(fired, 1000, 0.1)


@pytest.mark.parametrize(
    ("times", "regime", "period"),
    [
        ([], "rest", 0),
        ([120.0], "rest", 0),
        (np.arange(101.0, 300, 10), "spiking", 1),
        (100 + np.cumsum(np.tile([2.0, 2.0, 30.0], 5)), "bursting", 3),
        (100 + np.cumsum([3, 14, 5, 25, 2, 9, 17, 4, 30, 6, 11, 21, 8, 13]), "irregular", 0),
    ],
)
def test_patterns(times, regime, period):
    fired = np.zeros(3000, bool)
    fired[np.round(np.asarray(times) / 0.1).astype(int) - 1] = True
    found = describe(jnp.asarray(fired))
    assert (REGIMES[int(found["regime"])], int(found["period"])) == (regime, period)
    if len(times):
        assert found["first_spike"] == pytest.approx(times[0], abs=0.06)
    if len(times) > 2:
        interval = np.diff(times)
        assert found["isi_cv"] == pytest.approx(interval.std() / interval.mean(), rel=1e-3, abs=1e-6)


def test_one_program_for_a_grid():
    """A second axis by vmap equals the rows one by one."""
    current = jnp.array([0.5, 2.5])
    rate = lambda g: excitability(CA1Pyramidal(g_na=g), current, duration=300.0, warmup=100.0).rate  # noqa: E731
    grid = jax.vmap(rate)(jnp.array([30.0, 35.0]))
    np.testing.assert_allclose(grid, np.stack([rate(30.0), rate(35.0)]), atol=1e-3)


def test_nothing_left_is_refused():
    with pytest.raises(ValueError, match=r"duration = 0.0 ms must be positive, and warmup = 500.0 ms not negative"):
        excitability(CA1Pyramidal(), 1.0, duration=0.0, warmup=500.0)
