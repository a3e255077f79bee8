"""The minimal cortical cell against its printed equations, integrated by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jneuro.simulators import Pospischil, parameters, simulate, stimuli
from jneuro.simulators.solvers import RK4

KEY = jax.random.key(0)
AREA = np.pi * 61.4**2 * 1e-8  # cm²
STEP = {"onset": 10.0, "end": 200.0}
double = pytest.mark.usefixtures("x64")


def field(y, density, v_t=-56.2, tau_max=608.0, v_m=-35.0):
    """The equations as they are printed, per unit of area [µA/cm², mS/cm², µF/cm²]."""
    v, m, h, n, p = y
    x = v - v_t
    alpha_m = -0.32 * (x - 13) / (np.exp(-(x - 13) / 4) - 1)
    beta_m = 0.28 * (x - 40) / (np.exp((x - 40) / 5) - 1)
    alpha_h, beta_h = 0.128 * np.exp(-(x - 17) / 18), 4 / (1 + np.exp(-(x - 40) / 5))
    alpha_n = -0.032 * (x - 15) / (np.exp(-(x - 15) / 5) - 1)
    beta_n = 0.5 * np.exp(-(x - 10) / 40)
    steady = 1 / (1 + np.exp(-(v - v_m) / 10))
    tau = tau_max / (3.3 * np.exp((v - v_m) / 20) + np.exp(-(v - v_m) / 20))
    ionic = 56 * m**3 * h * (v - 50) + (6 * n**4 + 0.075 * p) * (v + 90) + 0.0205 * (v + 70.3)
    gates = [(alpha_m, beta_m, m), (alpha_h, beta_h, h), (alpha_n, beta_n, n)]
    return np.array([density - ionic, *(a * (1 - g) - b * g for a, b, g in gates), (steady - p) / tau])


@double
def test_the_fast_field_is_the_published_one():
    rng = np.random.default_rng(0)
    v = np.linspace(-99.8, 49.9, 48)
    gates = rng.uniform(0, 1, (4, 48))
    cell = Pospischil(v_t=-60.3, tau_max=400.0, v_m=-40.0)
    expected = field([v, *gates], 1.3, -60.3, 400.0, -40.0)
    found = np.stack(cell.vector_field(Pospischil.State(v, *gates), 1.3e6 * AREA))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


@double
def test_rates_are_finite_and_smooth_at_their_singularities():
    def rates(v):
        zero = jnp.zeros(())
        return jnp.stack(Pospischil().relaxation(Pospischil.State(v, zero, zero, zero, zero), 0.0)[1])

    for x in (13.0, 15.0, 40.0):
        v = jnp.asarray(x - 56.2)
        around = 0.5 * (rates(v + 1e-3) + rates(v - 1e-3))
        np.testing.assert_allclose(rates(v), around, rtol=1e-6)
        slope = (rates(v + 1e-4) - rates(v - 1e-4)) / 2e-4
        np.testing.assert_allclose(jax.jacfwd(rates)(v), slope, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def lsoda():
    """Potentials each 0.1 ms of three steps of current [pA]."""
    currents = [60.0, 100.0, 300.0]
    times = np.arange(0, 2501) * 0.1
    rest = np.asarray([float(x) for x in Pospischil().init(KEY)])
    v = []
    for current in currents:
        y, pieces = rest, []
        for begin, end, on in [(0.0, 10.0, 0.0), (10.0, 200.0, 1.0), (200.0, 250.0, 0.0)]:
            at = times[(times >= begin - 1e-9) & (times <= end + 1e-9)]
            done = scipy.integrate.solve_ivp(
                lambda t, y, i=on * current / (1e6 * AREA): field(y, i),
                (begin, end),
                y,
                "LSODA",
                at,
                rtol=1e-10,
                atol=1e-12,
            )
            y = done.y[:, -1]
            pieces.append(done.y[0][: -1 if end < 250 else None])
        v.append(np.concatenate(pieces))
    return np.array(currents), np.stack(v, 1)[1:]


@double
@pytest.mark.parametrize(("solver", "shift"), [(RK4(), 0.01), (None, 0.3)], ids=["RK4", "default"])
def test_against_lsoda(lsoda, solver, shift):
    """Spike times within a shift [ms]; the numbers of spikes are equal, and adaptation shows in them."""
    currents, expected = lsoda
    stimulus = stimuli.Step(currents, **STEP)
    how = {"duration": 250.0, "dt": 0.025, "record": ["v"], "record_every": 0.1, "key": KEY}
    v = np.asarray(simulate(Pospischil(), stimulus, solver=solver, **how).values["v"])
    for k in range(len(currents)):
        a, b = crossings(v[:, k]), crossings(expected[:, k])
        np.testing.assert_allclose(a, b, atol=shift)
    assert len(crossings(expected[:, 2])) > 5
    intervals = np.diff(crossings(expected[:, 2]))
    assert intervals[-1] > 1.2 * intervals[0]


def crossings(v):
    at = np.flatnonzero((v[:-1] < 0) & (v[1:] >= 0))
    return 0.1 * (at - v[at] / (v[at + 1] - v[at]))


def test_it_takes_the_units_of_a_patch_clamp():
    declared = parameters(Pospischil)
    assert {p.unit for n, p in declared.items() if n.startswith("g_")} == {"nS"}
    assert declared["capacitance"].unit == "pF"
    assert Pospischil.recordables["current"].unit == "pA"
    assert float(Pospischil().capacitance) == pytest.approx(118.4, rel=1e-3)
