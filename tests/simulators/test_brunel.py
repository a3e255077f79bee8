"""Brunel's networks against a plain reference, closed forms and published statistics."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brunel_reference import constants, mean_field_rate, simulate_reference, spiking_statistics

from jneuro.core.random import stream, trial_keys
from jneuro.simulators import Brunel, SuperSpike, first_state, simulate, stimuli
from jneuro.simulators.connectivity import Bernoulli, BitRows, Dense, FixedInDegree, RowLists
from jneuro.simulators.spiking import spike_gradient
from jneuro.simulators.stepped import SteppedSimulator, begin_stepped

QUIET = {"rate_external": 0.0, "noise": 0.0, "v_initial_sd": 0.0}
SMALL = {"n_excitatory": 40, "n_inhibitory": 10}


def words(sim, key, steps):
    """The noise of a run's first steps."""
    return jax.vmap(lambda step: sim.draw(key, step))(jnp.arange(steps))


def random_drive(neurons, steps):
    return np.random.default_rng(5).normal(2.0, 4.0, (steps, neurons))


CASES = {
    "report": lambda: Brunel(),
    "other constants, driven": lambda: Brunel(
        **SMALL,
        tau_m=14.0,
        v_rest=-66.0,
        v_reset=-61.0,
        j=0.9,
        g=3.0,
        delay=0.7,
        refractory=0.4,
        rule=Bernoulli(0.3),
    ),
    "no refractoriness, half the step": lambda: Brunel(**SMALL, dt=0.05, refractory=0.0, delay=0.05, j=1.0),
    "original": lambda: Brunel.original(**SMALL, rule=FixedInDegree(p=0.4), j=1.0, noise=0.2),
    "weights of all sizes": lambda: Brunel(weight_variation=0.8, rule=Bernoulli(0.2)),
    "weights of all sizes, dense": lambda: Brunel(weight_variation=0.8, propagation="dense", g=4.0),
    "refractory for one block": lambda: Brunel(refractory=1.5, j=1.0),
    "refractory for less than a block": lambda: Brunel(refractory=1.4, j=1.0, rule=Bernoulli(0.2)),
}


SLOW = (
    "original",
    "weights of all sizes",
    "weights of all sizes, dense",
    "refractory for one block",
    "refractory for less than a block",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES])
def test_equals_the_plain_reference_step_by_step(name, x64):
    sim = CASES[name]().connect(jax.random.key(3))
    key, steps = jax.random.key(11), 2000 // sim.block * sim.block
    drive = random_drive(sim.neurons, steps) if "driven" in name else None
    stimulus = None if drive is None else stimuli.Sampled(drive, sim.dt)
    rec = simulate(sim, stimulus, duration=steps * sim.dt, key=key)
    background = sim.background(words(sim, stream(key, "noise"), steps))
    v, spikes = simulate_reference(
        constants(sim),
        np.asarray(sim.adjacency),
        np.array(first_state(sim, key).y.v),
        np.asarray(background),
        0.0 if drive is None else drive,
    )
    assert spikes.sum() > 100
    assert spikes.any(0).mean() > 0.9
    np.testing.assert_array_equal(rec.values["spikes"], spikes)
    np.testing.assert_allclose(rec.values["v"], v, rtol=0, atol=1e-9)


def test_a_surrogate_leaves_the_forward_run_unchanged():
    # A reset far from the threshold, where v + (v_reset - v) rounds.
    sim = Brunel(v_rest=0.0, v_reset=0.3, v_threshold=20.0, v_initial=0.0, propagation="dense").connect(
        jax.random.key(0)
    )
    plain, surrogate = (
        simulate(sim, duration=60.0, key=jax.random.key(1), spike_gradient=s) for s in (None, SuperSpike())
    )
    assert plain.values["spikes"].sum() > 50
    np.testing.assert_array_equal(surrogate.values["spikes"], plain.values["spikes"])
    np.testing.assert_allclose(surrogate.values["v"], plain.values["v"], rtol=0, atol=1e-4)
    reset = np.asarray(surrogate.values["v"])[np.asarray(surrogate.values["spikes"]) > 0]
    assert np.all(reset == np.float32(0.3))


# One meaning, however it is computed ----------------------------------------------------------------------------------

KEY = jax.random.key(4)


def runs_of(representations, record_every=0.1, **settings):
    """The same run, once for each representation."""
    for propagation in representations:
        sim = Brunel(propagation=propagation, **settings).connect(jax.random.key(3))
        rec = simulate(sim, duration=60.0, key=KEY, record_every=record_every)
        yield sim, np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        (Bernoulli(0.1), (300, 70)),
        *(pytest.param(Bernoulli(0.1), sizes, marks=pytest.mark.slow) for sizes in [(80, 20), (400, 0)]),
        *(
            pytest.param(FixedInDegree(p=0.1), sizes, marks=pytest.mark.slow)
            for sizes in [(80, 20), (300, 70), (400, 0)]
        ),
    ],
)
def test_representations_agree_bit_by_bit(rule, sizes):
    settings = {"n_excitatory": sizes[0], "n_inhibitory": sizes[1], "rule": rule}
    (dense, v, spikes), *others = runs_of(("dense", "bits", "rows"), **settings, j=0.2)
    assert isinstance(dense.structure, Dense)
    assert spikes.sum() > 100
    for (sim, other_v, other_spikes), kind in zip(others, (BitRows, RowLists), strict=True):
        assert isinstance(sim.structure, kind)
        np.testing.assert_array_equal(sim.adjacency, dense.adjacency)
        np.testing.assert_array_equal(other_spikes, spikes)
        np.testing.assert_array_equal(other_v, v)
    assert Brunel(**settings).connect(jax.random.key(3)).structure == others[0][0].structure


@pytest.mark.slow
def test_representations_agree_on_weights_of_all_sizes(x64):
    settings = {"weight_variation": 0.6, "rule": Bernoulli(0.2)}
    (dense, v, spikes), (rows, other_v, other_spikes) = runs_of(("dense", "rows"), **settings)
    weights = np.asarray(dense.adjacency)
    assert 0.4 < weights[weights > 0].std() < 0.8
    assert isinstance(rows.structure, RowLists)
    assert isinstance(Brunel(**settings).connect(jax.random.key(3)).structure, RowLists)
    np.testing.assert_array_equal(other_spikes, spikes)
    np.testing.assert_allclose(other_v, v, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("propagation", "variation"),
    [("bits", 0.0), *(pytest.param("rows", variation, marks=pytest.mark.slow) for variation in (0.0, 0.5))],
)
def test_a_batch_equals_its_runs_bit_by_bit(propagation, variation):
    sim = Brunel(propagation=propagation, weight_variation=variation)
    keys = trial_keys(jax.random.key(5), 3)

    def run(key):
        network = sim.connect(stream(key, "connectivity"))
        return simulate(network, duration=45.0, key=key, record_every=0.5, throw=False).values

    batch = jax.jit(jax.vmap(run))(keys)
    assert batch["spikes"].sum() > 200
    alone = jax.jit(run)
    for k, key in enumerate(keys):
        for name, values in alone(key).items():
            np.testing.assert_array_equal(batch[name][k], values, name)


FRAMES = (2, 5, 10, 30)


@pytest.mark.parametrize(
    ("propagation", "refractory", "frames"),
    [
        pytest.param("bits", 2.0, (30,), id="one array"),
        *(
            pytest.param(how, length, FRAMES, marks=pytest.mark.slow)
            for how in ("dense", "bits", "rows")
            for length in (2.0, 1.0)
        ),
    ],
)
def test_blocks_and_frames_change_nothing(propagation, refractory, frames):
    sim = Brunel(propagation=propagation, refractory=refractory).connect(jax.random.key(3))
    whole = simulate(sim, duration=42.0, key=KEY)
    for every in frames:
        rec = simulate(sim, duration=42.0, key=KEY, record_every=0.1 * every)
        np.testing.assert_array_equal(rec.values["v"], whole.values["v"][every - 1 :: every])
        spikes = np.asarray(whole.values["spikes"]).reshape(-1, every, sim.neurons).sum(1)
        np.testing.assert_array_equal(rec.values["spikes"], spikes)
    state = None
    for piece in (0.7, 1.5, 39.8):
        rec = simulate(sim, duration=piece, key=KEY, initial_state=state)
        first = int(rec.first_step)
        np.testing.assert_array_equal(rec.values["v"], whole.values["v"][first : first + len(rec.values["v"])])
        state = rec.final_state
    jax.tree.map(np.testing.assert_array_equal, state, whole.final_state)


def test_a_state_means_what_it_says():
    sim = Brunel().connect(jax.random.key(3))
    rec = simulate(sim, duration=60.0, key=KEY)
    v, spikes = np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])
    state = rec.final_state.y
    np.testing.assert_array_equal(state.v, v[-1])
    since = np.array([len(v) - 1 - max(np.flatnonzero(train), default=-1000) for train in spikes.T])
    np.testing.assert_array_equal(state.refractory, np.maximum(19 - since, 0))
    assert (np.asarray(state.refractory) > 0).sum() >= 3
    # A neuron that is given as refractory keeps its potential, whatever it is, and then goes on from there.
    frozen = state._replace(v=jnp.full(100, -63.0), refractory=jnp.full(100, 18), pending=0 * state.pending)
    quiet = dataclasses.replace(sim, rate_external=0.0, noise=0.0)
    after = np.asarray(simulate(quiet, duration=3.0, key=KEY, initial_state=frozen).values["v"])
    assert np.all(after[:18] == -63.0)
    np.testing.assert_allclose(after[18:].T + 70, np.tile(7 * 0.99 ** np.arange(1, 13), (100, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    "propagation", ["bits", *(pytest.param(how, marks=pytest.mark.slow) for how in ("dense", "rows"))]
)
def test_nothing_is_lost_when_all_neurons_spike_in_one_step(propagation):
    # 300 + 300 neurons above threshold at once: more than a byte holds arrive at everybody, one delay later.
    sim = Brunel(
        **(QUIET | {"v_initial": 0.0}),
        n_excitatory=300,
        n_inhibitory=300,
        rule=Bernoulli(1.0),
        propagation=propagation,
        j=0.25,
        g=0.5,
        refractory=0.5,
    ).connect(jax.random.key(0))
    rec = simulate(sim, duration=3.0, key=KEY)
    v, spikes = np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])
    assert spikes[0].all()
    assert np.all(v[14] == -70.0)
    np.testing.assert_allclose(v[15], -70.0 + 0.25 * 300 - 0.125 * 300, rtol=1e-6)
    assert spikes[16].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"propagation": "sparse"}, "propagation = 'sparse' must be one of 'auto', 'dense', 'bits', 'rows'"),
        (
            {"propagation": "bits", "weight_variation": 0.5},
            "'bits' holds equal weights only, but weight_variation = 0.5",
        ),
        ({"connections": Dense(jnp.ones((100, 100)), (50, 50))}, r"populations of \(50, 50\).*has \(80, 20\)"),
        ({"connections": Dense(jnp.ones((100, 90)), (80, 20))}, "to 90 neurons.*100 in all"),
        ({"connections": np.ones((100, 100))}, r"must be Dense, BitRows .* ndarray; .* Dense\(matrix, \(80, 20\)\)"),
        ({"structure": Dense(np.ones((50, 50)), (40, 10))}, r"structure lead from .*\(40, 10\).*has \(80, 20\)"),
        ({"weight_variation": -0.1}, "weight_variation = -0.1 lies outside"),
    ],
)
def test_impossible_connections_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"Brunel: .*{message}"):
        Brunel(**settings)


def test_a_gradient_takes_the_matrix_of_connections_that_hold_none():
    sim = Brunel(n_excitatory=40, n_inhibitory=10, j=1.0).connect(jax.random.key(0))
    assert isinstance(sim.structure, BitRows)
    dense = dataclasses.replace(sim, structure=Dense(sim.adjacency, (40, 10)))
    runs = [simulate(s, duration=30.0, key=KEY, spike_gradient=SuperSpike()) for s in (sim, dense)]
    assert runs[0].values["spikes"].sum() > 20
    for name in ("v", "spikes"):
        np.testing.assert_array_equal(runs[0].values[name], runs[1].values[name])
    for how in ("bits", "rows"):
        asked = Brunel(propagation=how).connect(jax.random.key(0))
        with pytest.raises(ValueError, match=f"'{how}' passes no gradient to spikes.*'dense'"):
            simulate(asked, duration=3.0, key=KEY, spike_gradient=SuperSpike())


@pytest.mark.parametrize("surrogate", [None, SuperSpike(scale=0.01)], ids=["events", "surrogate"])
@pytest.mark.parametrize("refractory", [2.0, 1.0], ids=["one array", "in turn"])
def test_a_block_is_a_scan_of_the_plain_step(surrogate, refractory, x64):
    sim = Brunel(n_excitatory=40, n_inhibitory=10, j=1.5, refractory=refractory).connect(jax.random.key(0))
    drive = jnp.asarray(random_drive(50, 15 * 20))

    def run(advance):
        def block(y, inputs):
            drive, noise = inputs
            return advance(sim, y, drive, noise, 15)

        noise = words(sim, KEY, 300)
        inputs = drive.reshape(20, 15, -1), noise.reshape(20, 15, -1)
        y, seen = jax.lax.scan(block, begin_stepped(sim, KEY, None).y, inputs)
        return y, seen["v"], seen["spikes"]

    with spike_gradient(surrogate):
        fast, plain = jax.jit(lambda: (run(Brunel.advance), run(SteppedSimulator.advance)))()
    assert fast[2].sum() > 30
    np.testing.assert_array_equal(fast[2], plain[2])
    for one, other in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_own_connections():
    # One synapse, counted twice, from the last inhibitory to the first excitatory neuron.
    own = RowLists.from_synapses([99, 99], [0, 0], np.float32([0.75, 0.5]), (80, 20), 100)
    sim = Brunel(**QUIET, connections=own).connect(KEY)
    assert sim.structure is None
    kick = np.zeros((30, 100))
    kick[0, 99] = 3000.0
    v = np.asarray(simulate(sim, stimuli.Sampled(kick, 0.1), duration=3.0, key=KEY).values["v"])
    assert v[15, 0] == pytest.approx(-70 - 5.5 * 0.5 * 1.25, rel=1e-6)
    assert np.all(v[:, 1:99] == -70)


# Statistics ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("g", "irregularity"), [(5.0, 0.72), (6.0, 0.88)])
def test_scaled_original_is_asynchronous_irregular_at_the_mean_field_rate(g, irregularity):
    # A tenth of the neurons, C_E = 400 in place of 1000, J in proportion: J C_E stays, and so does the mean input.
    sizes = {"n_excitatory": 1000, "n_inhibitory": 250, "rule": FixedInDegree(p=0.4)}
    sim, found = Brunel.original(g=g, eta=2.0, j=0.25, **sizes), []
    # With so few neurons the rate is the wiring's: it has an SD of 4 % between networks.
    for key in trial_keys(jax.random.key(0), 8):
        network = sim.connect(stream(key, "connectivity"))
        rec = simulate(network, duration=1000.0, warmup=150.0, key=key, record=["spikes"])
        found.append(spiking_statistics(np.asarray(rec.values["spikes"])[None], sim.dt))
    rates, cvs = np.transpose(found)
    names = ("tau_m", "v_threshold", "v_reset", "refractory", "j", "g", "j_external")
    expected = mean_field_rate({n: float(getattr(sim, n)) for n in names}, (400, 100), 20e3)
    # Finite steps and jumps of finite size keep a simulation 4 to 10 % below the diffusion limit.
    error = 3 * rates.std(ddof=1) / np.sqrt(len(rates))
    assert 0.90 * expected - error < rates.mean() < 0.96 * expected + error
    assert error < 0.08 * expected
    assert cvs.mean() == pytest.approx(irregularity, abs=0.06)


# Presets -------------------------------------------------------------------------------------------------------------

REPORT = {
    **{"tau_m": 10, "v_rest": -70, "v_reset": -70, "v_threshold": -50, "refractory": 2, "delay": 1.5, "dt": 0.1},
    **{"j": 0.5, "g": 5.5, "j_external": 0.5, "rate_external": 500, "n_external": 8, "noise": 0.05},
    **{"v_initial": -70, "v_initial_sd": 2, "n_excitatory": 80, "n_inhibitory": 20},
}
ORIGINAL = {
    **{"tau_m": 20, "v_rest": 0, "v_reset": 10, "v_threshold": 20, "refractory": 2, "delay": 1.5, "dt": 0.1},
    **{"j": 0.1, "g": 4.5, "j_external": 0.1, "rate_external": 9, "n_external": 1000, "noise": 0},
    **{"n_excitatory": 10_000, "n_inhibitory": 2_500},
}


@pytest.mark.parametrize(
    ("sim", "expected", "rule"),
    [
        (Brunel.forecasting_report(), REPORT, Bernoulli(0.1)),
        (Brunel.original(g=4.5, eta=0.9), ORIGINAL, FixedInDegree(p=0.1)),
    ],
    ids=["report", "original"],
)
def test_presets_carry_the_constants_of_their_source(sim, expected, rule):
    assert {n: pytest.approx(float(getattr(sim, n))) for n in expected} == expected
    assert sim.rule == rule
    assert sim.populations == {"excitatory": expected["n_excitatory"], "inhibitory": expected["n_inhibitory"]}
    assert list(sim.populations) == ["excitatory", "inhibitory"]


def test_overrides_win_over_a_preset():
    sim = Brunel.original(g=3.0, eta=4.0, tau_m=10.0, n_excitatory=8)
    assert (float(sim.g), float(sim.rate_external), float(sim.tau_m), sim.n_excitatory) == (3.0, 40.0, 10.0, 8)


# Closed forms --------------------------------------------------------------------------------------------------------


def lone(**overrides):
    """One neuron that hears nothing."""
    settings = QUIET | {"n_excitatory": 1, "n_inhibitory": 0, "rule": Bernoulli(0.0)} | overrides
    return Brunel(**settings).connect(jax.random.key(0))


@pytest.mark.parametrize("drive", [20.01, 21.0, 25.0, 30.0, 100.0, 1990.0, 3000.0])
def test_interspike_interval_under_constant_drive(drive, x64):
    rec = simulate(lone(), stimuli.Constant(drive), duration=240.0, key=jax.random.key(0))
    times = np.flatnonzero(np.asarray(rec.values["spikes"])[:, 0])
    # From reset, k Euler steps give v = -70 + D (1 - 0.99^k); the first beyond -50 spikes.
    rise = next(k for k in range(1, 2400) if drive * (1 - 0.99**k) > 20)
    np.testing.assert_array_equal(times, np.arange(rise - 1, 2400, 19 + rise))
    assert len(times) >= 2
    continuous = 2.0 + 10.0 * math.log(drive / (drive - 20))
    assert 0.1 * (19 + rise) == pytest.approx(continuous, abs=0.12 + 0.006 * continuous)


@pytest.mark.parametrize("drive", [None, 0.0, 19.99, -30.0])
def test_potential_relaxes_exponentially(drive, x64):
    sim = lone(v_initial=-55.0, tau_m=8.0)
    stimulus = None if drive is None else stimuli.Constant(drive)
    rec = simulate(sim, stimulus, duration=150.0, key=jax.random.key(0))
    end = -70.0 + (drive or 0.0)
    k = np.arange(1, 1501)
    np.testing.assert_allclose(rec.values["v"][:, 0], end + (-55.0 - end) * (1 - 0.1 / 8.0) ** k, rtol=1e-12)
    np.testing.assert_allclose(
        rec.values["v"][:, 0], end + (-55.0 - end) * np.exp(-rec.time / 8.0), atol=6e-3 * abs(end + 55)
    )
    assert not rec.values["spikes"].any()


def test_initial_potentials_are_normal():
    sim = Brunel(n_excitatory=20_000, v_initial=-60.0, v_initial_sd=3.0)
    v = np.asarray(sim.init(jax.random.key(0)).v, np.float64)
    assert v.mean() == pytest.approx(-60.0, abs=4.5 * 3.0 / math.sqrt(v.size))
    assert v.std() == pytest.approx(3.0, abs=4.5 * 3.0 / math.sqrt(2 * v.size))


SENT = 50
"""The step in which the sender is forced to spike."""


@pytest.mark.parametrize("delay", [0.1, 1.5])
@pytest.mark.parametrize("excitatory", [True, False])
def test_a_spike_arrives_after_the_delay_and_is_lost_on_the_refractory(delay, excitatory, x64):
    lag = round(delay / 0.1)
    # Receiver r is forced to spike so many steps before the sender's spike arrives; the last one never is.
    before = [-3, -1, 0, 1, 2, 10, 18, 19, 20, 21, 30]
    neurons = len(before) + 2
    sender = 0 if excitatory else neurons - 1
    receivers = [n for n in range(neurons) if n != sender]
    adjacency = np.zeros((neurons, neurons))
    adjacency[sender, receivers] = 1
    sim = Brunel(**QUIET, n_excitatory=neurons - 1, n_inhibitory=1, delay=delay)
    sim = dataclasses.replace(sim, connections=Dense(jnp.asarray(adjacency), (neurons - 1, 1)))
    # 30 mV in one step takes a neuron at rest across the threshold in that step.
    kick, arrival = np.zeros((120, neurons)), SENT + lag
    kick[SENT, sender] = 3000.0
    for receiver, ago in zip(receivers, before, strict=False):
        kick[arrival - ago, receiver] = 3000.0
    rec = simulate(sim, stimuli.Sampled(kick, 0.1), duration=12.0, key=jax.random.key(0))
    v, spikes = np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])
    np.testing.assert_array_equal(spikes, kick > 0)
    weight = 0.5 if excitatory else -5.5 * 0.5
    for receiver, ago in zip(receivers, [*before, None], strict=True):
        heard = ago is None or ago < 0 or ago >= 20
        excess = v[:, receiver] + 70.0
        assert np.all(excess[:arrival] == 0)
        expected = weight * 0.99 ** np.arange(120 - arrival) * heard
        if ago is not None and ago < 0:
            expected[-ago:] = 0
        np.testing.assert_allclose(excess[arrival:], expected, atol=1e-12)


def test_background_and_noise_are_lost_on_the_refractory(x64):
    sim = lone(rate_external=2000.0, noise=0.5)
    rec = simulate(sim, stimuli.Constant(50.0), duration=200.0, key=jax.random.key(2))
    v, spikes = np.asarray(rec.values["v"])[:, 0], np.asarray(rec.values["spikes"])[:, 0]
    frozen = np.concatenate([np.arange(t, t + 20) for t in np.flatnonzero(spikes)])
    frozen = frozen[frozen < len(v)]
    assert len(frozen) > 500
    assert np.all(v[frozen] == -70.0)
    free = np.setdiff1d(np.arange(len(v)), frozen)
    assert np.all(v[free] != -70.0)


def test_background_has_the_declared_mean_and_variance():
    sim = Brunel(n_excitatory=1000, n_external=12, rate_external=800.0, j_external=0.3, noise=0.7)
    drawn = np.asarray(sim.background(words(sim, jax.random.key(0), 1000)), np.float64)
    p, n = 0.08, drawn.size
    variance = 0.3**2 * 12 * p * (1 - p) + 0.7**2
    assert drawn.mean() == pytest.approx(0.3 * 12 * p, abs=4.5 * math.sqrt(variance / n))
    assert drawn.var() == pytest.approx(variance, rel=4.5 * math.sqrt(3 / n))
