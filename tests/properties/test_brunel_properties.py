"""What holds for every network, whatever its parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jneuro.simulators import Brunel, simulate, stimuli
from jneuro.simulators.connectivity import Bernoulli, Dense

SIZES = {"n_excitatory": 12, "n_inhibitory": 4, "rule": Bernoulli(0.3)}
MILLIVOLTS = ("v_rest", "v_reset", "v_threshold", "v_initial")

few = settings(max_examples=12, derandomize=True, deadline=None, database=None)


def between(low, high):
    return st.floats(low, high, allow_nan=False)


parameters = st.fixed_dictionaries(
    {
        "tau_m": between(3.0, 30.0),
        "v_rest": between(-80.0, -60.0),
        "v_reset": between(-80.0, -60.0),
        "v_threshold": between(-58.0, -45.0),
        "v_initial": between(-80.0, -40.0),
        "v_initial_sd": between(0.0, 10.0),
        "j": between(0.0, 3.0),
        "g": between(0.0, 8.0),
        "j_external": between(0.1, 2.0),
        "rate_external": between(0.0, 1500.0),
        "noise": between(0.0, 1.0),
    }
)
seeds = st.integers(0, 2**31 - 1)


@jax.jit
def run(sim, amplitude, seed):
    """30 ms of a network that is drawn from the seed."""
    sim = sim.connect(jax.random.key(seed))
    rec = simulate(sim, stimuli.Constant(amplitude), duration=30.0, key=jax.random.key(seed), throw=False)
    return rec.values["v"], rec.values["spikes"] > 0


def outcome(values, amplitude, seed, **structure):
    v, spikes = run(Brunel(**SIZES, **structure, **values), jnp.asarray(amplitude, jnp.result_type(float)), seed)
    return np.asarray(v), np.asarray(spikes)


@few
@given(parameters, between(0.0, 80.0), seeds)
def test_refractoriness_and_reset_hold(values, amplitude, seed):
    v, spikes = outcome(values, amplitude, seed)
    reset = np.float32(values["v_reset"])
    for cell in range(v.shape[1]):
        times = np.flatnonzero(spikes[:, cell])
        assert np.all(np.diff(times) >= 20)
        for time in times:
            # Held there through the refractory period, whatever arrives.
            assert np.all(v[time : time + 20, cell] == reset)
    assert np.all(v[spikes] <= np.float32(values["v_threshold"]))


@few
@given(parameters, between(0.0, 80.0), seeds)
def test_a_neuron_above_threshold_spikes_in_the_next_step(values, amplitude, seed):
    # One step of decay is all that can keep it from spiking.
    v, spikes = outcome(values, amplitude, seed)
    target = values["v_rest"] + amplitude
    integrated = v[:-1] + 0.1 / values["tau_m"] * (target - v[:-1])
    held = np.zeros_like(spikes)
    for k in range(1, 20):
        held[k:] |= spikes[:-k]
    clear = np.abs(integrated - values["v_threshold"]) > 1e-3
    expected = (integrated > values["v_threshold"]) & ~held[1:]
    np.testing.assert_array_equal(spikes[1:][clear], expected[clear])


@few
@given(parameters, seeds)
def test_silent_without_input(values, seed):
    start = np.minimum(values["v_initial"], values["v_threshold"] - 0.01)
    quiet = values | {"rate_external": 0.0, "noise": 0.0, "v_initial_sd": 0.0, "v_initial": start}
    v, spikes = outcome(quiet, 0.0, seed)
    assert not spikes.any()
    low, high = sorted((quiet["v_initial"], quiet["v_rest"]))
    assert np.all((v > low - 1e-3) & (v < high + 1e-3))
    assert np.all(v == v[:, :1])


@few
@given(parameters, between(0.0, 60.0), seeds, between(-200.0, 200.0))
def test_only_differences_of_potential_matter(values, amplitude, seed, shift):
    with jax.enable_x64(True):
        v, spikes = outcome(values, amplitude, seed)
        shifted = values | {n: values[n] + shift for n in MILLIVOLTS}
        v_shifted, spikes_shifted = outcome(shifted, amplitude, seed)
    np.testing.assert_array_equal(spikes_shifted, spikes)
    np.testing.assert_allclose(v_shifted, v + shift, rtol=0, atol=1e-9)


@few
@given(parameters, between(0.0, 60.0), seeds, between(0.01, 100.0))
def test_the_unit_of_potential_does_not_matter(values, amplitude, seed, factor):
    scaled_names = {*MILLIVOLTS, "v_initial_sd", "j", "j_external", "noise"}
    with jax.enable_x64(True):
        v, spikes = outcome(values, amplitude, seed)
        scaled = {n: x * factor if n in scaled_names else x for n, x in values.items()}
        v_scaled, spikes_scaled = outcome(scaled, amplitude * factor, seed)
    np.testing.assert_array_equal(spikes_scaled, spikes)
    np.testing.assert_allclose(v_scaled, v * factor, rtol=1e-9, atol=1e-9 * factor)


@few
@given(parameters, between(0.0, 60.0), seeds)
def test_the_unit_of_time_does_not_matter(values, amplitude, seed):
    # Everything twice as slow, the step included: the same numbers, step by step.
    slow = values | {"tau_m": 2 * values["tau_m"], "rate_external": values["rate_external"] / 2}
    v, spikes = outcome(values, amplitude, seed)
    slow_sim = Brunel(**SIZES, **slow, dt=0.2, refractory=4.0, delay=3.0).connect(jax.random.key(seed))
    rec = simulate(slow_sim, stimuli.Constant(amplitude), duration=60.0, key=jax.random.key(seed), throw=False)
    np.testing.assert_array_equal(np.asarray(rec.values["spikes"]) > 0, spikes)
    np.testing.assert_allclose(rec.values["v"], v, atol=1e-3)


@few
@given(seeds, between(0.0, 3.0), between(0.0, 8.0), st.permutations(range(12)), st.permutations(range(12, 16)))
def test_neurons_of_a_population_may_be_renumbered(seed, j, g, excitatory, inhibitory):
    order = np.array([*excitatory, *inhibitory])
    rng = np.random.default_rng(seed)
    adjacency, amplitudes = rng.integers(0, 2, (16, 16)).astype(float), rng.uniform(10.0, 80.0, 16)
    quiet = {"rate_external": 0.0, "noise": 0.0, "v_initial_sd": 0.0}

    def simulated(adjacency, amplitudes):
        sim = Brunel(**SIZES, **quiet, j=j, g=g, connections=Dense(jnp.asarray(adjacency), (12, 4)))
        rec = simulate(sim, stimuli.Constant(amplitudes), duration=30.0, key=jax.random.key(0))
        return np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])

    with jax.enable_x64(True):
        v, spikes = simulated(adjacency, amplitudes)
        v_renumbered, spikes_renumbered = simulated(adjacency[np.ix_(order, order)], amplitudes[order])
    assert spikes.any()
    np.testing.assert_array_equal(spikes_renumbered, spikes[:, order])
    np.testing.assert_allclose(v_renumbered, v[:, order], rtol=0, atol=1e-9)


@few
@given(parameters, seeds, st.integers(0, 15))
def test_a_spike_reaches_only_those_who_hear_it(values, seed, kicked):
    # Another neuron's spike changes nothing before the delay is over, and nothing in those it does not reach.
    values = values | {"g": 0.0, "v_initial": -70.0, "v_initial_sd": 0.0, "v_reset": -70.0, "v_rest": -70.0}
    sim = Brunel(**SIZES, **values).connect(jax.random.key(seed))
    kick = np.zeros((30, 16))
    kick[0, kicked] = 1e4
    plain, pushed = (
        simulate(sim, stimuli.Sampled(kick * on, 1.0), duration=3.0, key=jax.random.key(seed)).values["v"]
        for on in (0.0, 1.0)
    )
    differs = np.asarray(plain) != np.asarray(pushed)
    others = np.arange(16) != kicked
    assert differs[0, kicked] or plain[0, kicked] == values["v_reset"]
    assert not differs[:15, others].any()
    deaf = others & (np.asarray(sim.adjacency)[kicked] == 0)
    assert not differs[:16, deaf].any()


@pytest.mark.slow
@few
@given(parameters, between(0.0, 80.0), seeds, between(0.0, 1.0), st.integers(1, 40), st.integers(0, 12))
def test_every_representation_gives_the_same_run(values, amplitude, seed, probability, excitatory, inhibitory):
    sizes = {"n_excitatory": excitatory, "n_inhibitory": inhibitory, "rule": Bernoulli(probability)}
    sim = Brunel(**sizes, **values)
    runs = []
    for propagation in ("dense", "bits", "rows"):
        network = dataclasses.replace(sim, propagation=propagation).connect(jax.random.key(seed))
        rec = simulate(network, stimuli.Constant(amplitude), duration=12.0, key=jax.random.key(seed), throw=False)
        runs.append((np.asarray(rec.values["v"]), np.asarray(rec.values["spikes"])))
    for v, spikes in runs[1:]:
        np.testing.assert_array_equal(spikes, runs[0][1])
        np.testing.assert_array_equal(v, runs[0][0])


@few
@given(parameters, between(0.0, 60.0), seeds)
def test_runs_are_finite_and_reproducible(values, amplitude, seed):
    v, spikes = outcome(values, amplitude, seed)
    again = outcome(values, amplitude, seed)
    assert np.isfinite(v).all()
    np.testing.assert_array_equal(again[0], v)
    np.testing.assert_array_equal(again[1], spikes)
