"""Gradients through whole networks: the surrogates' own definition, and finite differences away from spikes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from surrogate_reference import PARAMETERS, arctan, boxcar, network_tangents, super_spike

from jneuro.core.random import stream
from jneuro.simulators import Arctan, Boxcar, Brunel, SuperSpike, first_state, simulate, stimuli
from jneuro.simulators.connectivity import Bernoulli

KEY = jax.random.key(2)
STEPS = 300

SURROGATES = {
    "super spike": (SuperSpike(beta=0.7, scale=0.02), super_spike),
    "arctan": (Arctan(alpha=0.8, scale=0.05), arctan),
    "boxcar": (Boxcar(width=6.0, scale=0.03), boxcar),
}


def drive(amplitude):
    """Something that reaches threshold, and differs over time and neurons."""
    return stimuli.Sine(amplitude * jnp.linspace(0.5, 1.5, 10), 40.0) + stimuli.Constant(amplitude)


def network(**settings):
    """Ten neurons, a third of all pairs connected."""
    sim = Brunel(n_excitatory=7, n_inhibitory=3, rule=Bernoulli(0.4), j=1.0, refractory=0.7, **settings)
    return sim.connect(jax.random.key(0))


def means(sim, theta, surrogate):
    """Mean potential and mean of the spikes, of the parameters `theta`."""
    amplitude, changed = theta["amplitude"], {n: x for n, x in theta.items() if n != "amplitude"}
    sim = dataclasses.replace(sim, **changed)
    rec = simulate(sim, drive(amplitude), duration=STEPS * sim.dt, key=KEY, throw=False, spike_gradient=surrogate)
    return jnp.stack([rec.values["v"].mean(), rec.values["spikes"].mean()])


def values(sim):
    return {n: 18.0 if n == "amplitude" else float(getattr(sim, n)) for n in PARAMETERS}


@pytest.mark.parametrize(
    ("name", "detach_reset"),
    [
        ("super spike", False),
        ("arctan", True),
        pytest.param("super spike", True, marks=pytest.mark.slow),
        pytest.param("arctan", False, marks=pytest.mark.slow),
        pytest.param("boxcar", True, marks=pytest.mark.slow),
    ],
)
def test_a_network_s_gradient_is_the_surrogate_s_definition(name, detach_reset, x64):
    surrogate, slope = SURROGATES[name]
    surrogate, sim = dataclasses.replace(surrogate, detach_reset=detach_reset), network()
    theta = values(sim)
    shape = np.asarray(jax.vmap(drive(1.0))(jnp.arange(STEPS) * sim.dt))
    background = np.asarray(sim.background(jax.vmap(lambda s: sim.draw(stream(KEY, "noise"), s))(jnp.arange(STEPS))))
    p = theta | {"n_excitatory": 7, "dt": 0.1, "delay": 15, "refractory": 7}
    start = np.asarray(first_state(sim, KEY).y.v)
    by_hand = {
        detached: network_tangents(p, np.asarray(sim.adjacency), start, background, shape, slope, detached)
        for detached in (True, False)
    }
    v, rate, dv, d_rate = by_hand[detach_reset]
    assert rate * STEPS * 10 > 30
    assert np.all(np.abs(dv - by_hand[not detach_reset][2]) > 1e-4 * np.abs(dv)), "the reset's part matters"

    slopes, seen = jax.jit(jax.jacrev(lambda x: (means(sim, x, surrogate),) * 2, has_aux=True))(theta)
    np.testing.assert_allclose(seen, [v, rate], rtol=1e-12)
    for row, expected in ((0, dv), (1, d_rate)):
        assert np.all(np.abs(expected) > 1e-12), "every parameter has its influence"
        np.testing.assert_allclose([slopes[n][row] for n in PARAMETERS], expected, rtol=1e-8)


@pytest.mark.slow
def test_forward_mode_equals_reverse_mode(x64):
    sim, surrogate = network(), SuperSpike(beta=0.7, scale=0.02, detach_reset=False)
    theta = {n: jnp.asarray(x) for n, x in values(sim).items()}
    forward, reverse = (jax.jit(mode(lambda x: means(sim, x, surrogate)))(theta) for mode in (jax.jacfwd, jax.jacrev))
    for name in PARAMETERS:
        np.testing.assert_allclose(forward[name], reverse[name], rtol=1e-9)


def test_without_a_surrogate_spikes_are_boolean():
    sim = network()
    rec = simulate(sim, drive(18.0), duration=30.0, key=KEY)
    spikes = np.asarray(rec.values["spikes"])
    assert set(np.unique(spikes)) == {0, 1}
    assert not jnp.issubdtype(rec.values["spikes"].dtype, jnp.floating)
    _, seen = jax.eval_shape(lambda state: sim.step(state.y, 0.0, sim.draw(KEY, state.step)), first_state(sim, KEY))
    assert seen["spikes"].dtype == jnp.bool_


@pytest.mark.parametrize("surrogate", [None, Boxcar(width=1.0)], ids=["none", "boxcar"])
def test_a_silent_network_s_gradient_is_that_of_finite_differences(surrogate, x64):
    # Far below threshold, where even a boxcar is zero.
    sim = network()
    theta = {"tau_m": 9.0, "v_rest": -71.0, "v_initial": -66.0, "amplitude": 3.0, "j_external": 0.2, "noise": 0.03}

    def mean_v(theta):
        changed = {n: x for n, x in theta.items() if n != "amplitude"}
        rec = simulate(
            dataclasses.replace(sim, **changed),
            drive(theta["amplitude"]),
            duration=30.0,
            key=KEY,
            throw=False,
            spike_gradient=surrogate,
        )
        weights = jnp.cos(jnp.arange(rec.values["v"].size)).reshape(rec.values["v"].shape)
        return jnp.sum(weights * rec.values["v"]), rec.values["spikes"].sum()

    both = jax.jit(jax.value_and_grad(mean_v, has_aux=True))
    (_, spikes), slopes = both(theta)
    assert spikes == 0
    for name, x in theta.items():
        step = 1e-5 * abs(x)
        up, down = (both(theta | {name: x + s * step})[0][0] for s in (1, -1))
        assert abs(slopes[name]) > 1e-3
        assert float(slopes[name]) == pytest.approx(float(up - down) / (2 * step), rel=1e-5), name


@pytest.mark.parametrize("surrogate", [None, SuperSpike(scale=1e-3)], ids=["none", "super spike"])
def test_the_background_rate_has_the_gradient_of_its_mean(surrogate, x64):
    # Counts are integers; the expected potential relaxes towards rest plus what arrives on average.
    sim = dataclasses.replace(network(), v_threshold=1e3 if surrogate is None else -20.0, j=0.0)

    def last_v(rate):
        changed = dataclasses.replace(sim, rate_external=rate)
        rec = simulate(changed, duration=30.0, key=KEY, record=["v"], throw=False, spike_gradient=surrogate)
        return rec.values["v"][-1].mean()

    slope = jax.jit(jax.grad(last_v))(500.0)
    arriving = 0.5 * 8 * 0.1e-3
    decay = 1 - 0.1 / 10.0
    expected = arriving * (1 - decay**300) / (1 - decay)
    assert float(slope) == pytest.approx(expected, rel=1e-9)


def test_the_rate_s_gradient_points_the_way_the_network_goes(x64):
    # A surrogate is a stand-in; averaged over runs, its sign has to be right.
    sim, surrogate = network(), Arctan(alpha=0.8, scale=0.05)

    @jax.jit
    @jax.vmap
    def rate_and_slope(amplitude):
        return jax.value_and_grad(lambda a: means(sim, {"amplitude": a}, surrogate)[1])(amplitude)

    rates, slopes = rate_and_slope(jnp.asarray([10.0, 20.0, 30.0]))
    assert np.all(np.diff(rates) > 0)
    assert np.all(slopes > 0)
