"""The noise ceiling where it is known: neurons far below threshold that do not hear each other.

v_{n+1} = a v_n + (1 − a) v_rest + J·B + σ·N with a = 1 − dt/τ, so that n steps ahead the mean given the state relaxes
by aⁿ, the variance is s²(1 − a²ⁿ)/(1 − a²), and R² of the best forecast is a²ⁿ.
"""

import equinox as eqx
import jax
import numpy as np
import pytest

from jneuro.evaluation import CeilingConfig, ceiling_scores, simulate_futures
from jneuro.simulators import Brunel, simulate
from jneuro.simulators.connectivity import Bernoulli
from jneuro.simulators.stepped import SteppedState
from jneuro.simulators.stimuli import Constant

HORIZONS, EVERY = (1, 3), 10
TRIALS, STATES, NEURONS = 3, 60, 20
DECAY = 1 - 0.1 / 10
MEAN = 0.5 * 8 * 0.05
STEP_VARIANCE = 0.5**2 * 8 * 0.05 * 0.95 + 0.05**2
VARIANCE = STEP_VARIANCE / (1 - DECAY**2)
FIXED_POINT = -70 + MEAN / (1 - DECAY)
STEPS = EVERY * np.array(HORIZONS)


def states_of(simulator, keys):
    """Initial states, one for each of the keys, `[trial, state]`."""
    return jax.vmap(jax.vmap(lambda key: SteppedState(simulator.init(key), jax.numpy.int32(0))))(keys)


@pytest.fixture(scope="module")
def population():
    """The simulator, connected but mute, and stationary states `[trial, state, ...]`."""
    simulator = Brunel(
        n_excitatory=NEURONS,
        n_inhibitory=0,
        j=0.0,
        v_threshold=1e6,
        v_initial=FIXED_POINT,
        v_initial_sd=VARIANCE**0.5,
    ).connect(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), (TRIALS, STATES))
    return simulator, states_of(simulator, keys)


def futures(simulator, states, number, key=2, per_trial=False, **more):
    words = {"variable": "v", "horizons": HORIZONS, "record_every": 0.1 * EVERY, "futures": number}
    return simulate_futures(simulator, states, per_trial=per_trial, key=jax.random.key(key), **words | more)


@pytest.fixture(scope="module")
def many(population):
    return tuple(np.asarray(x) for x in futures(*population, 64))


def test_futures_have_the_known_mean_and_variance(population, many):
    _, states = population
    mean, variance = many
    assert mean.shape == variance.shape == (TRIALS, STATES, 2, NEURONS)
    decay = DECAY ** STEPS[:, None]
    expected = FIXED_POINT + decay * (np.asarray(states.y.v)[:, :, None] - FIXED_POINT)
    spread = VARIANCE * (1 - decay**2)
    z = (mean - expected) / np.sqrt(spread / 64)
    count = TRIALS * STATES * NEURONS
    for h in range(2):
        assert abs(z[:, :, h].mean()) < 4 / np.sqrt(count)
        assert z[:, :, h].std() == pytest.approx(1, abs=4 / np.sqrt(2 * count))
        # The counts' kurtosis is small after ten steps.
        ratio = (variance / spread)[:, :, h].mean()
        assert ratio == pytest.approx(1, abs=4.5 * np.sqrt(2 / (63 * count)))
    assert np.abs(z).max() < 5.5


@pytest.fixture(scope="module")
def recorded(population):
    """What came of every state, with measurement noise of SD 0.8 mV, `[sample, horizon, neuron]`."""
    simulator, states = population

    def one(state, key):
        kwargs = {"record": ("v",), "record_every": 0.1 * EVERY, "throw": False}
        return simulate(simulator, duration=3.0, key=key, initial_state=state, **kwargs).values["v"]

    keys = jax.random.split(jax.random.key(9), (TRIALS, STATES))
    v = np.asarray(jax.jit(jax.vmap(jax.vmap(one)))(states, keys))[:, :, np.array(HORIZONS) - 1]
    v = v + 0.8 * np.random.default_rng(0).normal(size=v.shape)
    return v.reshape(TRIALS * STATES, 2, NEURONS)


def flat(x):
    return np.asarray(x).reshape(TRIALS * STATES, 2, NEURONS)


def test_ceiling_is_the_known_one(recorded, many):
    mean, variance = map(flat, many)
    found = ceiling_scores(recorded, mean, variance, 64)
    known = VARIANCE * DECAY ** (2 * STEPS) / (VARIANCE + 0.8**2)
    for r2, se, expected in zip(*found["per_horizon"].values(), known, strict=True):
        assert abs(r2 - expected) < 3 * se
        assert 0.001 < se < 0.02
    assert (found["r2"], found["se"]) == (found["per_horizon"]["r2"][0], found["per_horizon"]["se"][0])
    assert (found["samples"], found["futures"]) == (TRIALS * STATES * NEURONS, 64)
    # One neuron's R² comes from 180 states.
    assert np.abs(np.array(found["per_neuron"]["r2"]) - known[0]).max() < 0.15


@pytest.fixture(scope="module")
def two(population):
    return tuple(np.asarray(x) for x in futures(*population, 2, key=3))


def test_the_correction_makes_two_futures_enough(recorded, many, two):
    few_mean, few_variance = map(flat, two)
    few = ceiling_scores(recorded, few_mean, few_variance, 2)
    known = VARIANCE * DECAY ** (2 * STEPS) / (VARIANCE + 0.8**2)
    reference = ceiling_scores(recorded, *map(flat, many), 64)
    naive = ceiling_scores(recorded, few_mean, 0 * few_variance, 2)
    for h in range(2):
        r2, se = few["per_horizon"]["r2"][h], few["per_horizon"]["se"][h]
        assert abs(r2 - known[h]) < 3.5 * se
        assert abs(r2 - reference["per_horizon"]["r2"][h]) < 3.5 * se
        assert naive["per_horizon"]["r2"][h] < r2 - 5 * se


def test_scores_by_hand():
    target = np.array([[[1.0, 0.0]], [[3.0, 4.0]]])
    mean, variance = np.array([[[1.0, 1.0]], [[2.0, 4.0]]]), np.array([[[0.2, 0.4]], [[0.6, 0.0]]])
    found = ceiling_scores(target, mean, variance, 2)
    # Squared errors less half the variances: -0.1, 0.8; 0.7, 0; spreads 1, 4; 1, 4.
    assert found["r2"] == pytest.approx(1 - 1.4 / 10)
    assert found["per_neuron"]["r2"] == pytest.approx([1 - 0.6 / 2, 1 - 0.8 / 8])
    assert found["se"] == pytest.approx(0, abs=1e-12)


def test_a_neuron_that_never_changes_has_no_ceiling():
    target = np.random.default_rng(0).normal(size=(9, 1, 2))
    target[..., 1] = 4
    found = ceiling_scores(target, 0 * target + [0, 4], 0 * target, 8)
    assert np.isfinite([found["r2"], found["se"]]).all()
    assert np.isnan(found["per_neuron"]["r2"][1])


def test_a_network_of_its_own_for_each_trial():
    plain = Brunel(n_excitatory=8, n_inhibitory=2, j=3.0, rule=Bernoulli(0.5), v_initial=-52.0)
    one, two = (plain.connect(jax.random.key(n)) for n in (0, 1))
    keys = jax.random.split(jax.random.key(1), (2, 3))
    states = states_of(plain, keys)

    def stack(*networks):
        return jax.tree.map(lambda *x: jax.numpy.stack(x) if eqx.is_array(x[0]) else x[0], *networks)

    shared = futures(one, states, 4, horizons=(3,))
    mixed = futures(stack(one, two), states, 4, per_trial=True, horizons=(3,))
    for a, b in zip(shared, mixed, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-5)
        assert np.abs(a[1] - b[1]).max() > 0.1


def test_futures_are_fresh_and_depend_on_the_key(many, two):
    assert (two[1] > 0).all()
    assert (two[0] != many[0]).mean() > 0.99


def test_futures_hear_the_stimulus(population, two):
    driven, _ = futures(*population, 2, key=3, stimulus=Constant(20.0))
    expected = np.broadcast_to(20 * (1 - DECAY ** STEPS[:, None]), driven.shape)
    np.testing.assert_allclose(driven - two[0], expected, rtol=1e-3)


@pytest.mark.parametrize("keys", [{"futures": 1}, {"max_states": 1}, {"states": 3}])
def test_bad_values(keys):
    with pytest.raises(ValueError, match=next(iter(keys))):
        CeilingConfig(**keys)
