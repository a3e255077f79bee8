"""Izhikevich's cells against the printed programme, the equations themselves, closed forms and known patterns."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from izhikevich_reference import programme, spike_times
from scipy.integrate import solve_ivp

from jneuro.simulators import Arctan, first_state, simulate, stimuli
from jneuro.simulators.cells import Izhikevich
from jneuro.simulators.solvers import SequentialEuler

KEY = jax.random.key(0)

CELLS = {
    "regular_spiking": (0.02, 0.2, -65.0, 8.0),
    "intrinsically_bursting": (0.02, 0.2, -55.0, 4.0),
    "chattering": (0.02, 0.2, -50.0, 2.0),
    "fast_spiking": (0.1, 0.2, -65.0, 2.0),
    "low_threshold_spiking": (0.02, 0.25, -65.0, 2.0),
    "thalamo_cortical": (0.02, 0.25, -65.0, 0.05),
    "resonator": (0.1, 0.26, -65.0, 2.0),
}
CELLS_2007 = {
    "regular_spiking_2007": (100, 0.7, -60, -40, 0.03, -2, -50, 100, 35),
    "intrinsically_bursting_2007": (150, 1.2, -75, -45, 0.01, 5, -56, 130, 50),
    "chattering_2007": (50, 1.5, -60, -40, 0.03, 1, -40, 150, 25),
    "medium_spiny_2007": (50, 1, -80, -25, 0.01, -20, -55, 150, 40),
}
NAMES_2007 = ("C", "k", "v_r", "v_t", "a", "b", "c", "d", "v_peak")


def constants(name):
    """The published constants of a preset, and its form."""
    if name in CELLS:
        return dict(zip("abcd", CELLS[name], strict=True)), 2003
    return dict(zip(NAMES_2007, map(float, CELLS_2007[name]), strict=True)), 2007


def simulator(name, **settings):
    return getattr(Izhikevich, name)(**settings)


def test_every_preset_is_in_a_table():
    assert set(Izhikevich.presets) == {*CELLS, *CELLS_2007}


SCHEMES = pytest.mark.parametrize(
    ("dt", "substeps"), [(1.0, 2), pytest.param(0.5, 1, marks=pytest.mark.slow), (0.1, 1)]
)


def noisy_drive(form, steps):
    """Silence, then something irregular that makes every cell spike."""
    noise = np.random.default_rng(1).normal(0, 1, steps)
    drive = (10 + 4 * noise) if form == 2003 else (900 + 150 * noise)
    drive[: steps // 10] = 0
    return drive


@SCHEMES
@pytest.mark.parametrize("name", [*CELLS, *CELLS_2007])
def test_every_step_is_that_of_the_printed_programme(name, dt, substeps, x64):
    # One cell for each step of the programme: steps amplify rounding, so long runs of any two programmes part.
    p, form = constants(name)
    steps = round(600 / dt)
    drive = noisy_drive(form, steps)
    v, u, spikes = programme(p, drive, dt, substeps, form)
    assert spikes.sum() >= 5
    sim = simulator(name, n=steps - 1)
    start, solver = Izhikevich.State(v[:-1], u[:-1]), SequentialEuler(substeps)
    seen = simulate(
        sim, stimuli.Constant(drive[1:]), duration=dt, dt=dt, solver=solver, key=KEY, initial_state=start
    ).values
    np.testing.assert_array_equal(seen["spikes"][0], spikes[1:])
    np.testing.assert_allclose(seen["v"][0], v[1:], rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(seen["u"][0], u[1:], rtol=1e-10, atol=1e-9)


@SCHEMES
@pytest.mark.parametrize("name", [*CELLS, *CELLS_2007])
def test_runs_are_those_of_the_printed_programme(name, dt, substeps, x64):
    p, form = constants(name)
    drive = noisy_drive(form, round(80 / dt))
    v, u, spikes = programme(p, drive, dt, substeps, form)
    rec = simulate(
        simulator(name),
        stimuli.Sampled(drive[:, None], dt),
        duration=80.0,
        dt=dt,
        solver=SequentialEuler(substeps),
        key=KEY,
    )
    assert spikes.any()
    np.testing.assert_array_equal(rec.values["spikes"][:, 0], spikes)
    np.testing.assert_allclose(rec.values["v"][:, 0], v, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rec.values["u"][:, 0], u, rtol=0, atol=1e-6)


def tonic(isi):
    return isi[6:].std() < 0.02 * isi[6:].mean()


PATTERNS = {
    "regular_spiking": (1, lambda isi: isi[-1] > 1.8 * isi[0] and isi[1:].std() < 0.5),
    "intrinsically_bursting": (1, lambda isi: isi[:2].max() < 6 and isi[2:].min() > 25),
    "chattering": (4, lambda isi: 3 <= (isi > 40).sum() <= 7 and (isi < 10).sum() >= 4 * (isi > 40).sum()),
    "fast_spiking": (0, lambda isi: tonic(isi) and isi.max() < 8 and isi[-1] < 2 * isi[0]),
    "low_threshold_spiking": (3, lambda isi: tonic(isi) and isi[-1] > 4 * isi[0]),
    "thalamo_cortical": (8, lambda isi: isi.max() < 4 and np.all(np.diff(isi) > -0.02)),
    "resonator": (2, lambda isi: tonic(isi) and isi[-1] < 2 * isi[0]),
}
"""Spikes within 50 ms of the release from −90 mV, and how intervals [ms] follow each other under a current of 10."""


def test_the_seven_patterns(x64):
    """All seven as one mixed population."""
    a, b, c, d = np.array(list(CELLS.values())).T
    sim = Izhikevich(n=7, a=a, b=b, c=c, d=d, v_initial=-65.0)
    driven = simulate(sim, stimuli.Constant(10.0), duration=300.0, dt=0.01, key=KEY, record=["spikes"])
    released = dataclasses.replace(sim, v_initial=jnp.asarray(-90.0))
    rebound = simulate(released, duration=50.0, dt=0.01, key=KEY, record=["spikes"])
    for cell, (name, (after, pattern)) in enumerate(PATTERNS.items()):
        p, _ = constants(name)
        isi = np.diff(np.flatnonzero(driven.values["spikes"][:, cell])) * 0.01
        expected = np.diff(spike_times(p, 10.0, -65.0, -65 * p["b"], 300.0, dt=0.05))
        assert pattern(isi), name
        assert pattern(expected), name
        assert abs(len(isi) - len(expected)) <= 1 + 0.02 * len(expected), name
        np.testing.assert_allclose(isi[:5], expected[:5], rtol=0.02, atol=0.05, err_msg=name)
        times = (np.flatnonzero(rebound.values["spikes"][:, cell]) + 1) * 0.01
        known = spike_times(p, 0.0, -90.0, -90 * p["b"], 50.0, dt=0.05)
        assert len(times) == len(known) == after, name
        np.testing.assert_allclose(times, known, rtol=0.03, err_msg=name)


@pytest.mark.parametrize("name", ["regular_spiking", "fast_spiking", "chattering"])
def test_spike_times_converge_to_those_of_the_equations(name, x64):
    p, _ = constants(name)
    known = spike_times(p, 10.0, -65.0, -65 * p["b"], 60.0)[:5]
    errors = []
    for dt in (0.02, 0.01, 0.005):
        how = {"duration": 80.0, "dt": dt, "key": KEY, "record": ["spikes"]}
        rec = simulate(simulator(name), stimuli.Constant(10.0), **how)
        times = (np.flatnonzero(rec.values["spikes"][:, 0]) + 1)[: len(known)] * dt
        errors.append(np.abs(times - known).mean())
    assert errors[0] < 0.6
    # Half the step, half the error, up to what each spike loses on its way to the grid.
    for dt, (coarse, fine) in zip((0.01, 0.005), itertools.pairwise(errors), strict=True):
        assert fine == pytest.approx(coarse / 2, abs=2 * dt)


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("name", ["regular_spiking", "resonator", "regular_spiking_2007"])
def test_the_subthreshold_scheme_is_of_first_order(name, substeps, x64):
    p, form = constants(name)
    size = {"regular_spiking": 1.5, "resonator": 0.1, "regular_spiking_2007": 30.0}[name]

    def slope(t, y):
        v, u = y
        current = size * np.sin(2 * np.pi * t / 50)
        if form == 2003:
            return [0.04 * v * v + 5 * v + 140 - u + current, p["a"] * (p["b"] * v - u)]
        return [
            (p["k"] * (v - p["v_r"]) * (v - p["v_t"]) - u + current) / p["C"],
            p["a"] * (p["b"] * (v - p["v_r"]) - u),
        ]

    start = rest(p, form, 0.0) + 1.0
    first = first_state(simulator(name, v_initial=start), KEY).y
    exact = solve_ivp(slope, (0, 80), [float(first.v[0]), float(first.u[0])], rtol=1e-11, atol=1e-11).y[:, -1]
    errors = []
    for dt in (0.4, 0.2, 0.1, 0.05):
        how = {"duration": 80.0, "dt": dt, "solver": SequentialEuler(substeps), "key": KEY}
        rec = simulate(simulator(name, v_initial=start), stimuli.Sine(size, 20.0), **how)
        assert not rec.values["spikes"].any()
        errors.append(np.hypot(rec.values["v"][-1, 0] - exact[0], rec.values["u"][-1, 0] - exact[1]))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders[-1], 1.0, atol=0.1)


def rest(p, form, current):
    """The stable fixed point: lower root of the membrane's parabola less recovery's line."""
    if form == 2003:
        square, line, constant = 0.04, 5 - p["b"], 140 + current
    else:
        square, line = p["k"], -p["k"] * (p["v_r"] + p["v_t"]) - p["b"]
        constant = p["k"] * p["v_r"] * p["v_t"] + p["b"] * p["v_r"] + current
    return (-line - math.sqrt(line**2 - 4 * square * constant)) / (2 * square)


@pytest.mark.parametrize("current", [-5.0, 0.0, 0.15])
@pytest.mark.parametrize("name", [*CELLS, *CELLS_2007])
def test_rests_at_the_fixed_point(name, current, x64):
    p, form = constants(name)
    current = current * (1 if form == 2003 else 20)
    sim = simulator(name, v_initial=rest(p, form, 0.0))
    rec = simulate(sim, stimuli.Constant(current), duration=6000.0, key=KEY, record_every=10.0)
    v = rest(p, form, current)
    u = p["b"] * (v - (0.0 if form == 2003 else p["v_r"]))
    assert not rec.values["spikes"].any()
    np.testing.assert_allclose(rec.values["v"][-1], v, rtol=1e-9)
    np.testing.assert_allclose(rec.values["u"][-1], u, rtol=1e-9, atol=1e-9)


def test_the_resonator_rings_at_its_eigenfrequency(x64):
    # At rest, -62.5 mV, the Jacobian is [[0, -1], [a b, -a]]: a damped oscillator.
    sim = Izhikevich.resonator(v_initial=-62.5 + 1e-4)
    rec = simulate(sim, duration=80.0, dt=0.01, key=KEY, record=["v"])
    decay, frequency = 0.05, math.sqrt(0.026 - 0.0025)
    t, x = rec.time, 1e-4
    # It starts at rest of u for its own potential, so that the first slope is -b x.
    ringing = np.exp(-decay * t) * (np.cos(frequency * t) + (decay - 0.26) / frequency * np.sin(frequency * t))
    np.testing.assert_allclose((rec.values["v"][:, 0] + 62.5) / x, ringing, atol=0.02)
    assert np.sum(np.diff(np.sign(ringing)) != 0) >= 3


@pytest.mark.parametrize(("above", "spikes"), [(-1.0, False), (1.0, True)])
def test_rheobase_of_the_integrator_of_2007(above, spikes, x64):
    # b < 0: rest and threshold merge where the parabola touches recovery's line, k (v_t + b/k - v_r)²/4.
    sim = Izhikevich.regular_spiking_2007()
    rheobase = 0.7 / 4 * (-40 - 2 / 0.7 + 60) ** 2
    rec = simulate(
        sim, stimuli.Constant(rheobase + above), duration=3000.0, key=KEY, record=["spikes"], record_every=10.0
    )
    assert bool(rec.values["spikes"].any()) is spikes


def test_a_mixed_population_is_its_cells(x64):
    c, d = np.array([-65.0, -55.0, -50.0]), np.array([8.0, 4.0, 2.0])
    both = stimuli.Constant(10.0) + stimuli.Sine(jnp.array([1.0, 2.0, 3.0]), 15.0)
    mixed = simulate(Izhikevich(n=3, c=c, d=d), both, duration=200.0, key=KEY)
    for cell in range(3):
        alone = stimuli.Constant(10.0) + stimuli.Sine(cell + 1.0, 15.0)
        rec = simulate(Izhikevich(c=c[cell], d=d[cell]), alone, duration=200.0, key=KEY)
        for name, values in rec.values.items():
            np.testing.assert_allclose(mixed.values[name][:, cell], values[:, 0], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("pieces", [(0.1, 199.9), (50.0, 50.0, 100.0), (10.1, 189.9)])
def test_a_run_may_be_cut_anywhere(pieces):
    sim = Izhikevich(n=3, c=np.array([-65.0, -55.0, -50.0]), d=np.array([8.0, 4.0, 2.0]))
    drive = stimuli.Constant(10.0) + stimuli.Sine(4.0, 15.0)
    whole = simulate(sim, drive, duration=200.0, key=KEY)
    state, found = None, []
    for piece in pieces:
        rec = simulate(sim, drive, duration=piece, key=KEY, initial_state=state)
        state, found = rec.final_state, [*found, rec.values]
    for name, values in whole.values.items():
        np.testing.assert_array_equal(np.concatenate([f[name] for f in found]), values)


def test_a_batch_of_parameters_is_its_simulators(x64):
    currents = jnp.array([5.0, 10.0, 15.0])

    def run(x, d):
        return simulate(Izhikevich(d=d), stimuli.Constant(x), duration=100.0, key=KEY, throw=False).values

    batch = jax.jit(jax.vmap(run))(currents, jnp.array([2.0, 4.0, 8.0]))
    for i, d in enumerate((2.0, 4.0, 8.0)):
        alone = run(currents[i], d)
        np.testing.assert_array_equal(batch["spikes"][i], alone["spikes"])
        np.testing.assert_allclose(batch["v"][i], alone["v"], rtol=1e-7)


def test_states_are_recorded_after_the_reset():
    rec = simulate(Izhikevich(n=2, c=np.array([-65.0, -55.0])), stimuli.Constant(20.0), duration=100.0, key=KEY)
    spikes = np.asarray(rec.values["spikes"]).astype(bool)
    assert spikes.any(0).all()
    for cell, c in enumerate((-65.0, -55.0)):
        assert np.all(rec.values["v"][spikes[:, cell], cell] == c)
        assert np.all(np.diff(rec.values["u"][:, cell])[spikes[1:, cell]] > 7.5)
    assert rec.values["v"].max() < 30


def test_a_surrogate_leaves_the_forward_run_unchanged(x64):
    how = {"duration": 200.0, "dt": 0.5, "key": KEY}
    plain, smooth = (
        simulate(Izhikevich(), stimuli.Constant(15.0), spike_gradient=s, **how).values
        for s in (None, Arctan(scale=0.1))
    )
    assert plain["spikes"].sum() > 5
    for name in plain:
        np.testing.assert_allclose(smooth[name], plain[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("surrogate", [None, Arctan(scale=0.1)], ids=["none", "arctan"])
def test_the_peak_itself_is_a_spike(surrogate, x64):
    # The membrane's current vanishes at both roots, so the potential stays at the upper one.
    still = {"v_r": -60.0, "v_t": 30.0, "v_initial": 30.0, "a": 0.0, "b": 0.0}
    for peak, spikes in ((30.0, 1), (30.0 + 1e-12, 0)):
        cell = Izhikevich(**still, v_peak=peak)
        rec = simulate(cell, duration=0.1, key=KEY, spike_gradient=surrogate)
        assert rec.values["spikes"].sum() == spikes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"c": 30.0}, r"c = 30.0 mV must lie below v_peak = 30.0 mV"),
        ({"c": np.array([-60.0, 40.0]), "n": 2}, "must lie below v_peak"),
        ({"capacitance": 0.0}, r"capacitance = 0.0 pF lies outside \(0, inf\)"),
        ({"n": 0}, "n = 0 lies outside"),
    ],
)
def test_cells_that_cannot_be_simulated(settings, message):
    with pytest.raises(ValueError, match=message):
        Izhikevich(**settings)


def test_values_must_fit_the_neurons():
    sim = Izhikevich(n=3, b=np.array([0.2, 0.25]))
    with pytest.raises(ValueError, match=r"b has the shape \(2,\); give one value, or one for each of the n = 3"):
        simulate(sim, duration=1.0, key=KEY)
