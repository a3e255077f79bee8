"""The ODE simulators against published numbers, LSODA and NEURON, and against themselves."""

import functools
import json
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jneuro.simulators import (
    CA1Pyramidal,
    HodgkinHuxley,
    SimulationError,
    simulate,
    stimuli,
)
from jneuro.simulators.kernels.cells import linoid
from jneuro.simulators.solvers import RK4, Adaptive, Euler, Heun, MembraneTerm, RushLarsen, StaggeredCrankNicolson

REFERENCE = Path(__file__).parents[1] / "reference"
KEY = jax.random.key(0)
LAB = HodgkinHuxley.State(-70.0, 0.05, 0.54, 0.34)
TSIT5 = Adaptive(diffrax.Tsit5(), rtol=1e-8, atol=1e-10)
double = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def ca1():
    return np.load(REFERENCE / "ca1.npz")


@pytest.fixture(scope="module")
def squid():
    return np.load(REFERENCE / "hodgkin_huxley.npz")


def peaks(v):
    """Local maxima above 0 mV."""
    inner = v[1:-1]
    return inner[(inner > v[:-2]) & (inner >= v[2:]) & (inner > 0)]


def crossings(v, dt):
    """Times of the upward crossings of 0 mV, between samples by interpolation; the first sample stands at `dt`."""
    k = np.flatnonzero((v[:-1] < 0) & (v[1:] >= 0))
    return dt * (k + 1 - v[k] / (v[k + 1] - v[k]))


def by_current(file, currents, counts, times):
    """Spike times of each current, of a file that holds them in one row."""
    ends = np.cumsum(file[counts])
    return dict(zip(np.round(file[currents], 6), np.split(file[times], ends[:-1]), strict=True))


# Published numbers


@double
def test_forward_euler_gives_the_published_peaks():
    golden = [
        42.69361962, 27.85626761, 27.0801995, 26.81374039, 26.98449291,
        26.85238875, 26.97170414, 26.89795837, 26.95268303, 26.93381838,
    ]  # fmt: skip
    step = stimuli.Step(20.0, onset=17.8)
    recording = simulate(
        HodgkinHuxley(),
        step,
        duration=128.0,
        dt=0.05,
        key=KEY,
        solver=Euler(),
        initial_state=LAB,
        record=["v", "spikes"],
    )
    np.testing.assert_allclose(peaks(np.asarray(recording.values["v"])), golden, atol=1e-5)
    assert recording.values["spikes"].sum() == len(golden)


def test_forward_euler_overflows_where_exponential_euler_does_not():
    sine = stimuli.Sine(80.0, 100.0)
    how = {"duration": 128.0, "dt": 0.05, "key": KEY, "initial_state": LAB, "record": ["v"]}
    blown = simulate(HodgkinHuxley(), sine, solver=Euler(), throw=False, **how)
    assert not blown.ok
    with pytest.raises(SimulationError, match=r"v at t = [\d.]+ ms: the simulation left the finite numbers"):
        simulate(HodgkinHuxley(), sine, solver=Euler(), **how)
    for solver in (RushLarsen(), StaggeredCrankNicolson()):  # which flag so coarse a step for another reason
        assert np.isfinite(simulate(HodgkinHuxley(), sine, solver=solver, throw=False, **how).values["v"]).all()


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_ca1_counts_rates_and_first_spikes(precision):
    """Table of the systems' page: spikes in 1000 ms, rate over 500-1000 ms, time of the first spike."""
    table = {
        0.22: (0, 0, None), 0.23: (4, 0, None), 0.24: (8, 8, None), 0.3: (16, 16, 90.72), 0.5: (32, 32, 41.02),
        0.7: (48, 48, 27.50), 0.79: (54, 48, 24.08), 2.0: (153, 148, 9.56), 2.2: (163, 160, 8.76),
        2.3: (166, 164, 8.40), 3.0: (188, 186, 6.60),
    }  # fmt: skip
    # Chaotic: within a tenth of the mean of LSODA's at two tolerances, which differ by up to 13 % themselves.
    chaotic = {1.0: (81, 79), 1.5: (128.5, 123)}
    with jax.enable_x64(precision == np.float64):
        current = stimuli.Constant(np.array([*table, *chaotic], precision))
        recording = simulate(
            CA1Pyramidal(), current, duration=1000.0, key=KEY, record=["v", "spikes"], record_every=0.1
        )
        spikes, v = np.asarray(recording.values["spikes"], int), np.asarray(recording.values["v"], float)
    assert v.dtype == float
    assert v.min() > -71.9
    assert v.max() < 24.7
    counts, rates = spikes.sum(0), 2 * spikes[5000:].sum(0)
    for k, (count, rate, first) in enumerate(table.values()):
        assert abs(counts[k] - count) <= (1 if precision == np.float32 else 0)
        assert abs(rates[k] - rate) <= (2 if precision == np.float32 else 0)
        if first is not None:
            assert abs(crossings(v[:, k], recording.dt)[0] - first) < 0.05
    for k, (count, rate) in enumerate(chaotic.values(), len(table)):
        assert counts[k] == pytest.approx(count, rel=0.1)
        assert rates[k] == pytest.approx(rate, rel=0.1)


# Independent integrators


@double
@pytest.mark.parametrize(
    ("solver", "dt", "shift"),
    [
        (RK4(), 0.01, 2e-4),
        (StaggeredCrankNicolson(), 0.01, 0.02),
        pytest.param(RushLarsen(), 0.0025, 0.5, marks=pytest.mark.slow),
        pytest.param(TSIT5, 0.05, 2e-4, marks=pytest.mark.slow),
    ],
    ids=["RK4", "CrankNicolson", "RushLarsen", "Tsit5"],
)
def test_squid_against_lsoda(squid, solver, dt, shift):
    """Nine current steps in one population, and a sine, sampled each .05 ms: within a shift in time [ms]."""
    how = {"dt": dt, "duration": 128.0, "key": KEY, "record": ["v"], "record_every": 0.05}
    steps = stimuli.Step(squid["amplitude"], onset=17.8)
    v = np.asarray(simulate(HodgkinHuxley(), steps, solver=solver, initial_state=LAB, **how).values["v"])
    sine = stimuli.Sine(80.0, 100.0)
    driven = np.asarray(simulate(HodgkinHuxley(), sine, solver=solver, initial_state=LAB, **how).values["v"])
    seen, expected = np.column_stack([v, driven])[:-1], squid["v"][:10, 1:].T.astype(float)
    slope = np.abs(np.gradient(expected, 0.05, axis=0))
    steepest = scipy.ndimage.maximum_filter1d(slope, 2 * int(shift / 0.05) + 3, axis=0)
    assert (np.abs(seen - expected) <= 1e-3 + shift * steepest).all()


@double
def test_squid_against_neuron():
    file = np.load(REFERENCE / "neuron_hodgkin_huxley.npz")
    cell = HodgkinHuxley.neuron()
    step = stimuli.Step(file["amplitude"], onset=10.0)
    recording = simulate(
        cell, step, duration=110.0, dt=0.01, key=KEY, record=["v"], record_every=0.05, solver=RK4(), initial_state=None
    )
    np.testing.assert_allclose(recording.values["v"], file["v"][:, 1:].T, atol=0.02)


@double
@pytest.mark.parametrize(
    ("solver", "dt"), [(RK4(), 0.01), pytest.param(TSIT5, 0.02, marks=pytest.mark.slow)], ids=["RK4", "Tsit5"]
)
def test_ca1_against_lsoda_before_chaos(ca1, solver, dt):
    """All nine states of seven currents over the first 20 ms: before a second burst could amplify rounding."""
    current = stimuli.Constant(ca1["trace_current"])
    recording = simulate(CA1Pyramidal(), current, duration=20.0, dt=dt, key=KEY, record_every=0.1, solver=solver)
    order = ["v", "h", "n", "b", "z", "r", "c", "q", "ca"]
    expected = ca1["trace"][:, 1:201]
    for k, name in enumerate(order):
        scale = np.ptp(expected[..., k])
        np.testing.assert_allclose(recording.values[name].T, expected[..., k], atol=2e-3 * scale + 1e-6, err_msg=name)


@double
def test_ca1_spike_times_against_lsoda(ca1):
    """Every spike of the first 50 ms within .014 ms in single precision: the fast path's published error."""
    times = by_current(ca1, "spike_current", "spike_count", "spike_time")
    current = np.array([c for c in times if (times[c] < 50).any()])
    with jax.enable_x64(False):
        recording = simulate(CA1Pyramidal(), stimuli.Constant(current), duration=50.0, key=KEY, record=["v"])
    v = np.asarray(recording.values["v"], float)
    for k, c in enumerate(current):
        expected = times[c][times[c] < 49.9]
        found = crossings(v[:, k], recording.dt)[: len(expected)]
        np.testing.assert_allclose(found, expected, atol=0.014)


# Orders of convergence


def smooth_but_for_jumps():
    return stimuli.Sine(5.0, 80.0) + stimuli.Step(4.0, onset=2.0, end=3.2)


@double
@pytest.mark.parametrize(
    ("solver", "order"),
    [(Euler(), 1), (Heun(), 2), (RK4(), 4), (RushLarsen(), 1), (StaggeredCrankNicolson(), 2), (diffrax.Tsit5(), 5)],
    ids=lambda x: type(x).__name__ if not isinstance(x, int) else str(x),
)
def test_order_of_convergence(solver, order):
    """Through a spike, with a stimulus that jumps on the grid; every recorded variable."""

    def run(dt):
        how = {"duration": 8.0, "dt": dt, "key": KEY, "record": ["v", "m", "h", "n"], "record_every": 0.4}
        found = simulate(HodgkinHuxley(), smooth_but_for_jumps(), solver=solver, **how).values
        return np.stack([found[n] / (100 if n == "v" else 1) for n in found])

    exact = np.asarray(simulate_exactly())
    steps = np.array([0.02, 0.01, 0.005])
    errors = np.array([np.abs(run(dt) - exact).max() for dt in steps])
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    # The leading error of Tsit5 is so small that the next order still shows.
    assert order - 0.35 < slope < order + (1 if order == 5 else 0.35), errors


@functools.cache
def simulate_exactly():
    how = {"duration": 8.0, "dt": 0.4, "key": KEY, "record": ["v", "m", "h", "n"]}
    solver = Adaptive(diffrax.Dopri8(), rtol=1e-13, atol=1e-13)
    found = simulate(HodgkinHuxley(), smooth_but_for_jumps(), solver=solver, **how).values
    return np.stack([found[n] / (100 if n == "v" else 1) for n in found])


@double
def test_a_step_of_the_diffrax_solver_is_a_step_of_the_scan():
    """Rush-Larsen under `diffeqsolve` with a constant step."""
    cell, stimulus = HodgkinHuxley(), stimuli.Constant(10.0)
    ts = jnp.arange(1, 201) * 0.05
    solution = diffrax.diffeqsolve(
        MembraneTerm(cell, stimulus), RushLarsen(), 0.0, 10.0, 0.05, cell.init(KEY), saveat=diffrax.SaveAt(ts=ts)
    )
    scanned = simulate(cell, stimulus, duration=10.0, dt=0.05, key=KEY, solver=RushLarsen())
    np.testing.assert_allclose(solution.ys.v, scanned.values["v"], rtol=1e-9)


# Rates at their removable singularities


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_linoid_is_smooth(precision):
    with jax.enable_x64(precision == np.float64):
        x = np.concatenate([np.linspace(-30, 30, 601), [0.0, 1e-30, -1e-9, 0.0999, 0.1001]]).astype(precision)
        exact = np.where(
            np.abs(x) < 1e-12, 1, x.astype(float) / np.where(np.abs(x) < 1e-12, 1, -np.expm1(-x.astype(float)))
        )
        f = lambda x: linoid(x, jnp.exp(-x))  # noqa: E731
        rtol = 2e-5 if precision == np.float32 else 1e-13
        np.testing.assert_allclose(f(x), exact, rtol=rtol)
        slope = jax.vmap(jax.grad(f))(jnp.asarray(x))
        assert np.isfinite(slope).all()
        assert jax.grad(f)(jnp.asarray(0.0)) == pytest.approx(0.5)
        assert jax.grad(jax.grad(f))(jnp.asarray(0.0)) == pytest.approx(1 / 6)


@double
@pytest.mark.parametrize("v", [-40.0, -55.0])
def test_squid_rates_are_finite_and_smooth_at_their_singularities(v):
    def rates(v):
        zero = jnp.zeros(())
        return jnp.stack(HodgkinHuxley().relaxation(HodgkinHuxley.State(v, zero, zero, zero), 0.0)[1])

    around = 0.5 * (rates(jnp.asarray(v + 1e-3)) + rates(jnp.asarray(v - 1e-3)))
    np.testing.assert_allclose(rates(jnp.asarray(v)), around, rtol=1e-7)
    slope = (rates(jnp.asarray(v + 1e-4)) - rates(jnp.asarray(v - 1e-4))) / 2e-4
    np.testing.assert_allclose(jax.jacfwd(rates)(jnp.asarray(v)), slope, atol=1e-7)


@double
def test_the_fast_field_is_the_published_one():
    """Three exponentials and paired reciprocals against the equations as they are printed."""
    rng = np.random.default_rng(0)
    v = np.linspace(-90, 50, 57)
    gates = rng.uniform(0, 1, (8, 57))
    ca = gates[5]
    y = CA1Pyramidal.State(v, *gates)
    current = 1.3
    inf = lambda theta, sigma: 1 / (1 + np.exp(-(v - theta) / sigma))  # noqa: E731
    h, n, b, z, r, _, c, q = gates
    m, p, a = inf(-30, 9.5), inf(-47, 3), inf(-50, 20)
    i_ca = 0.08 * r**2 * (v - 120)
    d = 1 / (1 + 6 / ca)
    ionic = 0.05 * (v + 70) + (35 * m**3 * h + 0.4 * p) * (v - 55) + i_ca
    ionic += (6 * n**4 + 1.4 * a**3 * b + 0.5 * z + 10 * d * c + 5 * q) * (v + 90)
    expected = [
        current - ionic,
        10 * (inf(-45, -7) - h) / (1 + 7.5 * inf(-40.5, -6)),
        10 * (inf(-35, 10) - n) / (1 + 5 * inf(-27, -15)),
        (inf(-80, -6) - b) / 15,
        (inf(-39, 5) - z) / 75,
        inf(-20, 10) - r,
        -0.13 * i_ca - ca / 13,
        (inf(-30, 7) - c) / 2,
        (1 / (1 + 2**4 / ca**4) - q) / 450,
    ]
    cell = CA1Pyramidal()
    for field in (cell.vector_field(y, current), relaxing(cell, y, current)):
        np.testing.assert_allclose(np.stack(field), np.stack(expected), rtol=1e-10, atol=1e-12)


def relaxing(cell, y, drive):
    """The field as `relaxation` has it."""
    steady, rate = cell.relaxation(y, drive)
    return [r * (s - x) for x, s, r in zip(y, steady, rate, strict=True)]


# One meaning, however it is cut and batched

CELLS = {"squid": (HodgkinHuxley(), 7.0), "ca1": (CA1Pyramidal(), 1.2)}


def as_compiled(options, simulator, *given, **words):
    """A recording, compiled with options."""
    run = jax.jit(lambda: simulate(simulator, *given, throw=False, **words), compiler_options=options)
    return run()


@pytest.fixture
def optimized(as_users_compile):
    """Options for tests to the last bit: LLVM without optimisation keeps operations apart where nothing is recorded."""
    return as_users_compile | {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


@pytest.mark.parametrize(("cell", "current"), CELLS.values(), ids=CELLS)
def test_cut_runs_equal_the_whole(cell, current, optimized):
    stimulus = stimuli.Step(current, onset=1.0, end=6.0)
    how = {"key": KEY, "record_every": 4 * cell.default_dt}
    whole = as_compiled(optimized, cell, stimulus, duration=10.0, **how)
    first = as_compiled(optimized, cell, stimulus, duration=4.0, **how)
    second = as_compiled(optimized, cell, stimulus, duration=6.0, initial_state=first.final_state, **how)
    for name in whole.values:
        np.testing.assert_array_equal(np.concatenate([first.values[name], second.values[name]]), whole.values[name])
    np.testing.assert_array_equal(second.time, whole.time[len(first.time) :])


@pytest.mark.parametrize(("cell", "current"), CELLS.values(), ids=CELLS)
def test_a_warm_up_is_the_beginning_of_the_run(cell, current, optimized):
    stimulus = stimuli.Step(current, onset=1.0, end=6.0)
    how = {"key": KEY, "record_every": 4 * cell.default_dt}
    state = as_compiled(optimized, cell, stimulus, duration=4.0, **how).final_state
    later = as_compiled(optimized, cell, stimulus, duration=6.0, initial_state=state, **how)
    warmed = as_compiled(optimized, cell, stimulus, duration=6.0, warmup=4.0, **how)
    np.testing.assert_array_equal(warmed["v"], later["v"])


@double
@pytest.mark.parametrize(("cell", "current"), CELLS.values(), ids=CELLS)
def test_a_population_is_a_batch_is_a_loop(cell, current):
    """To rounding: a population is laid out otherwise, so its operations may be fused otherwise."""
    cell = jax.tree.map(lambda x: x.astype(np.float64), cell)
    currents = jnp.linspace(0.5, 1.5, 3) * current
    how = {"duration": 12.0, "key": KEY, "record_every": 10 * cell.default_dt}
    run = lambda i: simulate(cell, stimuli.Constant(i), **how).values  # noqa: E731
    population, batch = run(currents), jax.vmap(run)(currents)
    for k, i in enumerate(currents):
        alone = run(i)
        for name, values in alone.items():
            np.testing.assert_allclose(population[name][:, k], values, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(batch[name][k], values, rtol=1e-9, atol=1e-12)


def test_parameters_and_initial_states_make_populations():
    g_k = jnp.array([30.0, 36.0, 42.0])
    alone = [simulate(HodgkinHuxley(g_k=g), duration=5.0, key=KEY).values["v"] for g in g_k]
    np.testing.assert_allclose(
        simulate(HodgkinHuxley(g_k=g_k), duration=5.0, key=KEY).values["v"], np.stack(alone, 1), rtol=1e-5
    )
    start = LAB._replace(v=np.array([-70.0, -60.0], np.float32))
    assert simulate(HodgkinHuxley(), duration=5.0, key=KEY, initial_state=start).values["m"].shape == (200, 2)


def test_a_sharded_sweep_equals_one_device():
    currents = jnp.linspace(0, 3, 8)
    mesh = jax.make_mesh((2,), ("trial",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("trial"))
    run = eqx.filter_jit(lambda i: simulate(CA1Pyramidal(), stimuli.Constant(i), duration=4.0, key=KEY, throw=False))
    split = run(jax.device_put(currents, sharding)).values["v"]
    assert len(split.sharding.device_set) == 2
    np.testing.assert_allclose(split, run(currents).values["v"], rtol=1e-5)


def test_spikes_count_what_happens_between_frames():
    how = {"duration": 60.0, "key": KEY}
    cell, step = HodgkinHuxley(), stimuli.Constant(15.0)
    fine = simulate(cell, step, **how).values["spikes"]
    coarse = simulate(cell, step, record_every=10.0, **how).values["spikes"]
    assert fine.sum() == coarse.sum() > 3
    adaptive = simulate(cell, step, dt=0.1, solver=Adaptive(diffrax.Tsit5()), **how).values["spikes"]
    assert adaptive.sum() == fine.sum()


def test_the_recorded_current_is_the_stimulus():
    ramp = stimuli.Ramp(5.0, 4.0)
    recording = simulate(HodgkinHuxley(), ramp, duration=5.0, dt=0.05, key=KEY, record=["current"], record_every=0.1)
    np.testing.assert_allclose(recording.values["current"], jax.vmap(ramp)(recording.time), rtol=1e-5)
    assert recording.units == {"current": "µA/cm²"}


def test_another_solver_starts_afresh_from_the_state():
    """Gates carried half a step behind are not mistaken for the state."""
    first = simulate(HodgkinHuxley(), duration=2.0, key=KEY)
    onwards = simulate(HodgkinHuxley(), duration=2.0, dt=0.025, key=KEY, initial_state=first.final_state, solver=RK4())
    bare = simulate(HodgkinHuxley(), duration=2.0, dt=0.025, key=KEY, initial_state=first.final_state.y, solver=RK4())
    np.testing.assert_array_equal(onwards.values["v"], bare.values["v"])


@double
def test_adaptive_steps_stop_at_jumps():
    """A pulse of a tenth of a millisecond in half a second of rest is not stepped over."""
    pulse = stimuli.Step(300.0, onset=250.0, end=250.1)
    recording = simulate(HodgkinHuxley(), pulse, duration=300.0, dt=0.1, key=KEY, solver=TSIT5, record=["spikes"])
    assert recording.values["spikes"].sum() == 1


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": 1.01, "dt": 0.02}, "duration = 1.01 ms is not a multiple of the time step, 0.02 ms"),
        (
            {"dt": 1.0, "solver": RK4()},
            r"dt = 1 ms is too large for RK4: .* in its initial state, .* below 0\.\d+ ms, or",
        ),
        ({"dt": -0.1}, "dt = -0.1 ms must be positive"),
        ({"dt": float("nan")}, "dt = nan ms must be positive"),
        (
            {"record": ["v", "w"]},
            "HodgkinHuxley cannot record 'w'; it records v, m, h, n, current, spikes, i_k",
        ),
        ({"key": jax.random.PRNGKey(0)}, "key must be a typed key"),
        ({"solver": "rk4"}, "solver = 'rk4' must be one of"),
        ({"solver": diffrax.Kvaerno5()}, r"Kvaerno5 is implicit .* pass Adaptive\(Kvaerno5\(\)\)"),
        ({"initial_state": CA1Pyramidal.State(*[0.0] * 9)}, "starts from a HodgkinHuxley.State"),
        (
            {"stimulus": stimuli.Sampled(np.zeros(10), 0.1), "dt": 0.02},
            r"sampled every 0.1 ms, more coarsely than dt = 0.02 ms; .* hold=True\) keeps the last, hold=False",
        ),
        (
            {"stimulus": stimuli.Constant(np.zeros(3)), "simulator": HodgkinHuxley(g_k=np.full(2, 30.0))},
            r"do not agree in the number of cells \(parameters \(2,\), stimulus \(3,\)",
        ),
        ({"stimulus": stimuli.Constant(np.zeros((3, 2)))}, "a population has one axis"),
        ({"solver": TSIT5}, "rtol = 1e-08 is finer than single precision resolves"),
        ({"simulator": CA1Pyramidal(), "solver": StaggeredCrankNicolson()}, "of first order for CA1Pyramidal"),
    ],
)
def test_bad_arguments_are_refused_before_compilation(change, message):
    arguments = {"simulator": HodgkinHuxley(), "stimulus": None, "duration": 1.0, "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        simulate(arguments.pop("simulator"), arguments.pop("stimulus"), **arguments)


def test_negative_conductances_are_refused():
    with pytest.raises(ValueError, match=r"CA1Pyramidal: g_na = -1.0 mS/cm² lies outside \[0, inf\)"):
        CA1Pyramidal(g_na=-1.0)


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"atol": float("inf")}, {"max_steps": 0}])
def test_bad_tolerances_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Adaptive(diffrax.Tsit5(), **options)
    with pytest.raises(ValueError, match="Euler estimates no error"):
        Adaptive(diffrax.Euler())


def test_a_solver_that_uses_up_its_steps_says_so():
    solver = Adaptive(diffrax.Tsit5(), max_steps=20)
    with pytest.raises(SimulationError, match="used up its steps"):
        simulate(HodgkinHuxley(), stimuli.Constant(20.0), duration=50.0, dt=0.1, key=KEY, solver=solver)


@double
@pytest.mark.parametrize("solver", [RK4(), Heun(), StaggeredCrankNicolson()])
def test_held_samples_are_not_seen_before_their_time(solver):
    samples = jnp.where(jnp.arange(61) >= 20, 10.0, 0.0)
    held = stimuli.Sampled(samples, jnp.asarray(0.05), hold=True)
    how = {"duration": 3.0, "dt": 0.025, "record": ["v"], "solver": solver, "key": KEY}
    found, expected = (simulate(HodgkinHuxley(), s, **how).values["v"] for s in (held, stimuli.Step(10.0, onset=1.0)))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_one_bad_cell_is_named():
    kick = stimuli.Constant(np.array([0.0, 1e30, 0.0], np.float32))
    with pytest.raises(SimulationError, match=r"v of cell 1 at t = "):
        simulate(HodgkinHuxley(), kick, duration=1.0, key=KEY, solver=Euler(), dt=0.01)


def test_references_say_how_they_were_made(ca1, squid):
    for file in (ca1, squid):
        assert "LSODA" in json.dumps(json.loads(str(file["settings"])))
