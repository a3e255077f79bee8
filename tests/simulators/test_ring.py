"""The ring against a plain reference, closed forms, an independent density and published settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ring_reference import constants, neighbours, passage_statistics, simulate_ring
from scipy import stats
from scipy.integrate import solve_ivp

from jneuro.core.random import stream, trial_keys
from jneuro.simulators import Arctan, Normal, first_state, simulate, stimuli
from jneuro.simulators.ring import RingNetwork, _poisson_thresholds
from jneuro.simulators.stepped import SteppedSimulator

SIGMAS = 4.5
UNCOUPLED = {"j_ee": 0.0, "j_ei": 0.0, "j_ie": 0.0, "j_ii": 0.0}
SMALL = {"positions": 30, "sparsity": 3}

CASES = {
    "delta": lambda: RingNetwork.xiao_lin(),
    "delta, other constants, driven": lambda: RingNetwork(
        positions=31, sparsity=6, share=0.4, tau_m=14.0, v_reset=-0.3, v_threshold=0.8, j_ei=0.05, refractory=0.4
    ),
    "all to all, half the step, no refractoriness": lambda: RingNetwork(
        positions=20, sparsity=1, dt=0.05, refractory=0.0, rate_external=700.0, share=1.0
    ),
    "current": lambda: RingNetwork.xiao_lin("current", **SMALL, tau_external=1.5, j_ee=0.05, kick=0.09),
    "current, driven": lambda: RingNetwork.xiao_lin("current", **SMALL, refractory=0.1, share=0.2),
    "conductance": lambda: RingNetwork.xiao_lin("conductance", **SMALL),
    "conductance, driven": lambda: RingNetwork.xiao_lin("conductance", **SMALL, kick=0.02, j_ie=0.03, v_i=-0.2),
}


def drawn(sim, key, steps, first=0):
    """The noise of some steps."""
    return jax.vmap(lambda step: sim.draw(key, step))(first + jnp.arange(steps))


def external_events(sim, key, steps, first=0):
    """What `simulate` draws with this key."""
    return drawn(sim, stream(key, "noise"), steps, first)


SLOW = ("all to all, half the step, no refractoriness", "current, driven", "conductance")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES])
def test_equals_the_plain_reference_step_by_step(name, x64):
    sim, key, steps = CASES[name](), jax.random.key(11), 1500
    drive = np.random.default_rng(5).normal(0.4, 0.3, (steps, sim.neurons)) if "driven" in name else None
    stimulus = None if drive is None else stimuli.Sampled(drive, sim.dt)
    rec = simulate(sim, stimulus, duration=steps * sim.dt, key=key)
    external = np.asarray(external_events(sim, key, steps))
    heard = neighbours(sim.positions, sim.sparsity)
    start = np.array(first_state(sim, key).y.v)
    v, spikes, excitation, inhibition = simulate_ring(
        constants(sim), heard, start, external, 0.0 if drive is None else drive
    )
    assert spikes.sum() > 30
    np.testing.assert_array_equal(rec.values["external"], external)
    np.testing.assert_array_equal(rec.values["spikes"], spikes)
    np.testing.assert_allclose(rec.values["v"], v, rtol=0, atol=1e-9)
    np.testing.assert_allclose(rec.values["excitation"], excitation, rtol=0, atol=1e-9)
    np.testing.assert_allclose(rec.values["inhibition"], inhibition, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("sparsity", "degree"), [(10, 61), (1, 599), (2, 301), (5, 121), (30, 21), (60, 9), (301, 1)])
def test_in_degree(sparsity, degree):
    adjacency = np.asarray(RingNetwork(sparsity=sparsity).adjacency)
    assert np.all(adjacency.sum(0) == degree)
    assert np.all(adjacency.sum(1) == degree)
    assert not adjacency.diagonal().any()


@pytest.mark.parametrize(
    ("positions", "sparsity"),
    [(31, 6), (7, 1), *(pytest.param(*shape, marks=pytest.mark.slow) for shape in [(300, 10), (8, 2), (1, 1)])],
)
def test_spikes_go_where_the_rule_says(positions, sparsity, x64):
    # Distinct weights; each neuron spikes alone, in one of as many networks.
    weights = {"j_ee": 0.01, "j_ei": 0.02, "j_ie": 0.03, "j_ii": 0.04}
    sim = RingNetwork(positions=positions, sparsity=sparsity, rate_external=0.0, **weights)
    heard, excitatory = neighbours(positions, sparsity), np.arange(2 * positions) < positions
    np.testing.assert_array_equal(sim.adjacency, heard)
    y = first_state(sim, jax.random.key(0)).y._replace(v=jnp.zeros(2 * positions))

    def spread(sent):
        return sim.step(y._replace(sent=sent), jnp.zeros(()), jnp.zeros(2 * positions))[0].v

    found = jax.vmap(spread)(jnp.eye(2 * positions, dtype=bool))
    to_e, to_i = np.where(excitatory, 0.01, -0.02)[:, None], np.where(excitatory, 0.03, -0.04)[:, None]
    np.testing.assert_allclose(found, heard * np.where(excitatory[None], to_e, to_i), atol=1e-15)


@pytest.fixture(scope="module")
def runs():
    """Spikes of eight runs of 4 s, uncoupled and coupled, `[trial, step, neuron]`."""
    keys = trial_keys(jax.random.key(4), 8)

    def run(sim):
        return jax.vmap(lambda k: simulate(sim, duration=4000.0, warmup=200.0, key=k, record=["spikes"], throw=False))(
            keys
        ).values["spikes"]

    return {
        name: np.asarray(jax.jit(run)(sim))
        for name, sim in {"uncoupled": RingNetwork(**UNCOUPLED), "coupled": RingNetwork.xiao_lin()}.items()
    }


def rate_and_error(spikes):
    """Mean rate [Hz] and its standard error over runs."""
    rates = spikes.mean((1, 2)) / 0.1e-3
    return rates.mean(), rates.std(ddof=1) / np.sqrt(len(rates))


def intervals(spikes, count):
    """The first `count` intervals of each neuron [ms]: whole intervals, so that long ones are not lost."""
    trains = [np.diff(np.flatnonzero(train))[:count] * 0.1 for trial in spikes for train in trial.T]
    return np.array([t for t in trains if len(t) == count]), len(trains)


@pytest.mark.slow
def test_uncoupled_neurons_fire_as_their_density_says(runs):
    rate, cv = passage_statistics(constants(RingNetwork()), 550.0, bins=1500)
    found, error = rate_and_error(runs["uncoupled"])
    # Half a per mille more for the density's bins.
    assert found == pytest.approx(rate, abs=SIGMAS * error + 0.012)
    isi, trains = intervals(runs["uncoupled"], 10)
    assert len(isi) > 0.995 * trains
    per_run = np.array_split(isi, 8)
    cvs = np.array([x.std() / x.mean() for x in per_run])
    assert cvs.mean() == pytest.approx(cv, abs=SIGMAS * cvs.std(ddof=1) / np.sqrt(8) + 0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "neurons", "known"),
    [("uncoupled", slice(None), 8.1), ("coupled", slice(0, 300), 8.3), ("coupled", slice(300, 600), 9.8)],
    ids=["uncoupled", "excitatory", "inhibitory"],
)
def test_rates_measured_elsewhere(runs, case, neurons, known):
    # With the two crossed weights exchanged they would be 7.2 and 8.5 Hz: receivers are named first.
    rate, error = rate_and_error(runs[case][..., neurons])
    assert rate == pytest.approx(known, abs=SIGMAS * error + 0.05)


@pytest.mark.parametrize(
    ("rate", "kick", "tau"), [(550.0, 0.07, 20.0), pytest.param(300.0, 0.1, 8.0, marks=pytest.mark.slow)]
)
def test_shot_noise_has_its_mean_and_variance(rate, kick, tau, x64):
    sim = RingNetwork(**UNCOUPLED, v_threshold=1e3, rate_external=rate, kick=kick, tau_m=tau)
    state = first_state(sim, jax.random.key(0)).y._replace(v=jnp.full(600, rate * kick * tau * 1e-3))
    rec = simulate(
        sim, duration=6000.0, warmup=200.0, record_every=100.0, initial_state=state, key=jax.random.key(3), record=["v"]
    )
    v, decay = np.asarray(rec.values["v"]), 1 - 0.1 / tau
    mean, variance = rate * kick * tau * 1e-3, rate * 1e-4 * kick**2 / (1 - decay**2)
    # Frames are 100 ms apart, five time constants and more.
    assert v.mean() == pytest.approx(mean, abs=SIGMAS * np.sqrt(1.02 * variance / v.size))
    kurtosis = 3 + rate * 1e-4 * kick**4 / (1 - decay**4) / variance**2
    assert v.var() == pytest.approx(variance, rel=SIGMAS * np.sqrt((kurtosis - 1) / v.size))
    assert variance == pytest.approx(rate * 1e-3 * kick**2 * tau / 2, rel=0.01)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_external_events_are_poisson_and_shared(share):
    sim = RingNetwork(share=share, rate_external=2000.0, external_cap=10)
    counts = np.asarray(jax.jit(lambda k: drawn(sim, k, 4000))(jax.random.key(1)), np.float64)
    # Without a common part every count is independent; with one, take a single neuron's.
    alone = counts.ravel() if share == 0 else counts[:, 7]
    observed = np.array([np.sum(alone == k) for k in range(4)] + [np.sum(alone >= 4)])
    expected = np.append(stats.poisson.pmf(range(4), 0.2), stats.poisson.sf(3, 0.2)) * alone.size
    pool = expected >= 5
    observed, expected = (np.append(x[pool], x[~pool].sum()) for x in (observed, expected))
    assert stats.chi2.sf(np.sum((observed - expected) ** 2 / np.maximum(expected, 1e-9)), pool.sum() - 1) > 1e-5
    z = (counts - 0.2) / np.sqrt(0.2)
    n = counts.shape[1]
    batches = np.array([(np.mean(b.sum(1) ** 2) - np.sum(np.mean(b**2, 0))) / (n * (n - 1)) for b in np.split(z, 40)])
    assert batches.mean() == pytest.approx(share, abs=SIGMAS * batches.std(ddof=1) / np.sqrt(40))
    population = counts.sum(1) - counts.sum(1).mean()
    for lag in (1, 2, 19, 20, 21):
        correlation = np.mean(population[lag:] * population[:-lag]) / population.var()
        assert abs(correlation) < SIGMAS / np.sqrt(len(population)), lag


@pytest.mark.parametrize(("mean", "count"), [(0.055, 8), (0.0, 3), (1e-4, 4), (2.0, 18), (60.0, 120)])
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_thresholds_cut_at_the_cumulative_distribution(mean, count, wide):
    with jax.enable_x64(wide):
        thresholds = _poisson_thresholds(jnp.asarray(mean, float), count)
        mean = float(jnp.asarray(mean, float))
    assert thresholds.dtype == jnp.int32
    above = (2.0**31 - 1 - np.asarray(thresholds, np.int64)) / 2.0**32
    tolerance = 1e-9 if wide else 4e-7 * max(1.0, mean)
    np.testing.assert_allclose(
        above, stats.poisson.sf(np.arange(count), mean), rtol=10 * tolerance, atol=2.0**-31 + tolerance
    )


@pytest.mark.parametrize(
    ("synapse", "excitatory"),
    [
        ("current", True),
        ("conductance", False),
        *(pytest.param("delta", excitatory, marks=pytest.mark.slow) for excitatory in (True, False)),
        pytest.param("current", False, marks=pytest.mark.slow),
        pytest.param("conductance", True, marks=pytest.mark.slow),
    ],
)
def test_a_single_event_s_potential(synapse, excitatory, x64):
    """Converges, with half the error for half the step, to the solution of the equations."""
    source, receiver, weight = (0, 1, 0.3) if excitatory else (5, 1, 0.3)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        sim = RingNetwork.xiao_lin(synapse, positions=5, sparsity=1, dt=dt, rate_external=0.0, j_ee=weight, j_ei=weight)
        state = first_state(sim, jax.random.key(0)).y
        state = state._replace(v=jnp.full(10, 0.1), sent=state.sent.at[source].set(True))
        rec = simulate(sim, duration=40.0, initial_state=state, key=jax.random.key(0), record=["v"])
        tau = float(sim.tau_e if excitatory else sim.tau_i)
        reversal, sign = (14 / 3, 1) if excitatory else (-2 / 3, -1)

        def slope(t, v, tau=tau, reversal=reversal, sign=sign):
            g = weight / tau * np.exp(-t / tau) if synapse != "delta" else 0.0
            return -v / 20 + (sign * g if synapse != "conductance" else -g * (v - reversal))

        start = [0.1 + (sign * weight if synapse == "delta" else 0.0)]
        exact = solve_ivp(slope, (0, 40), start, t_eval=rec.time, rtol=1e-11, atol=1e-12).y[0]
        errors.append(np.abs(rec.values["v"][:, receiver] - exact)[round(1 / dt) :].max())
    # What the explicit scheme is late by, a step, at the steepest rise.
    steepest = {"delta": weight / 20, "current": weight / tau, "conductance": weight / tau * abs(reversal)}[synapse]
    assert errors[0] < 1.2 * 0.1 * steepest
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1.0, atol=0.15)


def test_a_current_s_area_is_its_weight(x64):
    # Charge -> area under the potential: J tau_m, less the half step by which the explicit scheme is short.
    sim = RingNetwork.xiao_lin("current", positions=5, sparsity=1, rate_external=0.0, j_ee=0.2)
    state = first_state(sim, jax.random.key(0)).y
    state = state._replace(v=jnp.zeros(10), sent=state.sent.at[0].set(True))
    rec = simulate(sim, duration=600.0, initial_state=state, key=jax.random.key(0), record=["v", "excitation"])
    ratio = np.exp(-0.1 / 2.0)
    charge = 0.2 * 0.1 / 2.0 * ratio / (1 - ratio)
    assert charge == pytest.approx(0.2, rel=0.03)
    assert 0.1 * rec.values["excitation"][:, 1].sum() == pytest.approx(charge, rel=1e-9)
    assert 0.1 * rec.values["v"][:, 1].sum() == pytest.approx(20.0 * charge, rel=1e-9)


@pytest.mark.parametrize(("synapse", "pieces"), [("delta", (0.1, 99.9)), ("conductance", (33.3, 66.7))])
def test_a_run_may_be_cut_anywhere(synapse, pieces):
    sim, key = RingNetwork.xiao_lin(synapse, **SMALL, share=0.5), jax.random.key(6)
    whole = simulate(sim, duration=100.0, key=key)
    state, found = None, []
    for piece in pieces:
        rec = simulate(sim, duration=piece, key=key, initial_state=state)
        state, found = rec.final_state, [*found, rec.values]
    assert whole.values["spikes"].sum() > 10
    for name, values in whole.values.items():
        np.testing.assert_allclose(np.concatenate([f[name] for f in found]), values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_batch_is_its_runs(x64):
    sim = RingNetwork.xiao_lin(**SMALL, share=0.5)
    keys = trial_keys(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(lambda k: simulate(sim, duration=60.0, key=k, throw=False)))(keys)
    for trial in range(3):
        alone = simulate(sim, duration=60.0, key=keys[trial])
        for name, values in alone.values.items():
            np.testing.assert_allclose(batch.values[name][trial], values, rtol=0, atol=1e-9, err_msg=name)


def test_frames_sum_events_and_spikes():
    sim, key = RingNetwork.xiao_lin(**SMALL), jax.random.key(1)
    fine, coarse = (simulate(sim, duration=100.0, key=key, record_every=ms).values for ms in (0.1, 10.0))
    for name in ("spikes", "external"):
        np.testing.assert_array_equal(coarse[name], np.asarray(fine[name]).reshape(10, 100, -1).sum(1, dtype=np.int64))
    assert coarse["external"].sum() == pytest.approx(0.055 * 1000 * 60, rel=SIGMAS / np.sqrt(0.055 * 1000 * 60))


@pytest.mark.parametrize("synapse", ["delta", pytest.param("current", marks=pytest.mark.slow), "conductance"])
def test_a_surrogate_leaves_the_forward_run_unchanged(synapse, x64):
    sim = RingNetwork.xiao_lin(synapse, **SMALL, kick=0.1)
    plain, smooth = (
        simulate(sim, duration=100.0, key=jax.random.key(2), spike_gradient=s).values for s in (None, Arctan(scale=0.1))
    )
    assert plain["spikes"].sum() > 20
    for name in plain:
        np.testing.assert_allclose(smooth[name], plain[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("surrogate", [None, Arctan(scale=0.1)], ids=["none", "arctan"])
def test_the_threshold_itself_is_a_spike(surrogate, x64):
    sim = RingNetwork(**SMALL, rate_external=0.0)
    state = first_state(sim, jax.random.key(0)).y._replace(v=jnp.ones(60))
    still = stimuli.Constant(1.0)
    for threshold, spikes in ((1.0, 60), (1.0 + 1e-12, 0)):
        rec = simulate(
            dataclasses.replace(sim, v_threshold=jnp.asarray(threshold)),
            still,
            duration=0.1,
            key=jax.random.key(0),
            initial_state=state,
            spike_gradient=surrogate,
        )
        assert rec.values["spikes"].sum() == spikes


def test_initial_potentials_lie_between_reset_and_threshold():
    sim = RingNetwork(positions=10_000, v_reset=-0.5, v_threshold=2.0)
    v = np.asarray(first_state(sim, jax.random.key(0)).y.v, np.float64)
    assert stats.kstest((v + 0.5) / 2.5, "uniform").pvalue > 1e-5


def test_the_source_s_variants():
    plain, current, conductance = (RingNetwork.xiao_lin(s) for s in ("delta", "current", "conductance"))
    assert [float(x) for x in (current.tau_e, current.tau_i)] == [2.0, 5.0]
    found = [conductance.tau_external, conductance.tau_e, conductance.tau_i, conductance.refractory]
    assert [float(x) for x in found] == [1.0, 3.0, 2.0, 5.0]
    assert (plain.refractory, plain.neurons) == (1.0, 600)
    assert float(RingNetwork.xiao_lin("conductance", tau_e=4.0).tau_e) == 4.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"synapse": "alpha"}, "synapse = 'alpha' must be 'delta', 'current' or 'conductance'"),
        ({"refractory": 0.25}, "refractory = 0.25 ms is not a multiple of the time step, 0.1 ms"),
        ({"share": 1.5}, r"share = 1.5 lies outside \[0, 1\]"),
        ({"rate_external": 1e4}, r"external_cap = 8 cuts an input of mean 1 events a step; set it to 14"),
        ({"sparsity": 0}, "sparsity = 0 lies outside"),
        ({"tau": 3.0}, "RingNetwork: unknown argument 'tau'; did you mean 'tau_m'"),
        ({"j_ee": Normal(0.01, 0.001)}, "j_ee is one number for the whole network; it cannot be drawn"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_networks_that_cannot_be_simulated(settings, message):
    with pytest.raises(ValueError, match=message):
        RingNetwork(**settings)


@pytest.mark.parametrize("synapse", ["delta", "conductance"])
def test_each_neuron_may_have_its_own_parameters(synapse, x64):
    own = {"tau_m": jnp.linspace(15, 25, 60), "v_threshold": jnp.linspace(0.5, 1.1, 60)}
    sim, drive = RingNetwork.xiao_lin(synapse, **SMALL, **own), jnp.full((200, 1), 0.9)
    noise, start = drawn(sim, jax.random.key(1), 200), sim.init(jax.random.key(0))
    run = jax.jit(lambda kind, sim: kind.advance(sim, start, drive, noise, 200), static_argnums=0)
    blocks = run(RingNetwork, sim), run(SteppedSimulator, sim)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-12), *blocks)
    assert blocks[0][1]["spikes"].any()
