"""Steps of clean and of noisy currents, and what happens in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

def test_steps_are_described():
    found = describe([np.asarray(t, float) for t in TIMES], steps_of(CURRENT, DT))
    np.testing.assert_array_equal(found.rate, np.repeat(5.0 * np.arange(5)[:, None], 2, 1))
    np.testing.assert_array_equal(found.latency[1:], [[20, 20], [10, 10], [5, 5], [3, 3]])
    assert np.isnan(found.latency[0]).all()
    np.testing.assert_allclose(found.adaptation[3], 20 / 110)
    assert np.isnan(found.adaptation[2]).all()


@precise
def test_stretches_are_common_to_all_trials():
    current = jnp.stack([jnp.asarray(two_steps(a)) for a in (0.0, 30.0)])
    assert stretches(current, 8).tolist() == [0, 100, 500, 600, 900, 1000, 1000, 1000, 1000]
    assert stretches(current, 3).tolist() == [0, 100, 500, 1000]


@precise
def test_ordered_times():
    spikes, edges = jnp.asarray(train([5, 12, 30, 49.9, 95])), jnp.asarray([0, 100, 500, 600, 1000])
    expected = [[5.05, 10, 10, 10], [2.05, 20.05, 39.95, 40], [10, 10, 10, 10], [35.05, 40, 40, 40]]
    np.testing.assert_allclose(ordered_times(spikes, edges, DT, 4), expected, atol=1e-9)


@precise
def test_times_of_smooth_spikes_are_those_of_the_crossing():
    """And so is their derivative."""
    time = jnp.arange(1000) * DT
    edges = jnp.asarray([0, 1000])

    def second(shift):
        v = 60 * jnp.sin(2 * jnp.pi * (time - shift) / 40) - 20
        return ordered_times(soft_spikes(v[None])[0], edges, DT, 3)[0, 1]

    value, slope = jax.jit(jax.value_and_grad(second))(1.234)
    crossing = 40 + 1.234 + 40 * np.arcsin(20 / 60) / (2 * np.pi) + DT  # a sample's spikes end with it
    assert float(value) == pytest.approx(crossing, abs=0.03)
    assert float(slope) == pytest.approx(1.0, abs=0.05)


