"""Objectives: what each costs, that they have derivatives, and that they add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_problems import spiking_target

from jneuro.core.config import ConfigError
from jneuro.fitting import CellProblem, Features, Match, Rates, Residuals, SpikeTimes, Trainable, Voltage
from jneuro.simulators import HodgkinHuxley
from jneuro.spikes.detection import soft_spikes

pytestmark = pytest.mark.usefixtures("x64")


def observed(*spikes):
    """One trial with spikes in these samples."""
    train = jnp.zeros((1, 150)).at[0, jnp.asarray(spikes, int)].set(1.0)
    return dataclasses.replace(spiking_target(), v=jnp.full((1, 150), -65.0) + 100 * train, own_spikes=train)


def cost(objective, model, data):
    known = [objective.prepare(data)] if isinstance(objective, Features) else []
    return float(jnp.sum(jnp.square(jax.jit(lambda m, d: objective.residuals(m, d, *known))(model, data))))


def test_a_spike_too_much_or_too_few_costs_one():
    # Well before the end, at a short time constant: the whole of the filtered spike is seen.
    apart = SpikeTimes(tau_ms=1.0)
    assert cost(apart, observed(20, 60), observed(20)) == pytest.approx(1.0, rel=1e-6)
    assert cost(apart, observed(20), observed(20, 60)) == pytest.approx(1.0, rel=1e-6)
    # Of the later one, the trace ends after three time constants.
    assert cost(apart, observed(20), observed(120)) == pytest.approx(2 - np.exp(-6.0), rel=1e-4)
    near, far = (cost(apart, observed(20), observed(20 + n)) for n in (2, 8))
    assert 0 < near < far < 2


def test_rates():
    per_spike = 1e3 / 15.0
    assert cost(Rates(sd_hz=10.0), observed(20, 60, 90), observed(20)) == pytest.approx((2 * per_spike / 10) ** 2)


def test_voltage_is_in_units_of_the_noise():
    shifted = dataclasses.replace(observed(), v=observed().v + 1.0)
    assert cost(Voltage(), shifted, observed()) == pytest.approx(4.0)


def test_a_feature_that_the_model_lacks_costs_and_one_that_the_data_lack_does_not():
    both = Features(features={"Spikecount": 1.0, "AP_amplitude": 2.0})
    spiking, silent = observed(75), observed()
    assert cost(both, silent, spiking) == pytest.approx((1 + 9) / 2, rel=0.2)
    assert cost(both, silent, silent) == 0
    assert cost(both, spiking, silent) == pytest.approx(1 / 2, rel=0.2)


def test_a_measure_is_matched():
    def levels(recording):
        return {"high": recording["v"].max(), "first": jnp.stack([recording["v"][0], jnp.nan * recording.dt])}

    goal = spiking_target(2)
    moved = dataclasses.replace(goal, v=goal.v + 3.0)
    # Of six numbers two are undefined in the data; the others are off by 3.
    assert cost(Match(levels, sd=2.0), moved, goal) == pytest.approx(4 / 6 * 2.25)
    assert cost(Match(levels, sd={"high": 2.0, "first": 6.0}), moved, goal) == pytest.approx((2 * 2.25 + 2 * 0.25) / 6)
    assert cost(Match("spike_count", sd=0.5), observed(20, 60), observed(20)) == pytest.approx(4.0)


def test_a_failing_spike_counts_in_part():
    ramp = jnp.concatenate([jnp.linspace(-70, 30, 50), jnp.linspace(30, -70, 50)])[None]
    assert float(soft_spikes(ramp).sum()) == pytest.approx(1.0, abs=0.01)
    assert 0.1 < float(soft_spikes(ramp - 28).sum()) < 0.9


EVERY = (Voltage(weight=0.5), SpikeTimes(weight=2.0), Rates(sd_hz=5.0), Features(features={"rate": 10.0}))


def test_a_weighted_sum_and_its_derivatives():
    cell = HodgkinHuxley()
    problem = CellProblem.of(cell, spiking_target(2), Trainable.of(cell, ["g_na"]))
    q = problem.first + 0.05
    together = Residuals(problem, EVERY)

    @jax.jit
    def every(q):
        alone = jnp.stack([Residuals(problem, (o,)).cost(q) for o in EVERY])
        return alone, *jax.jvp(together.cost, (q,), (jnp.ones(1),))

    alone, whole, slope = every(q)
    assert np.all(np.asarray(alone) > 0)
    assert float(whole) == pytest.approx(float(alone.sum()))
    difference = (every(q + 1e-5)[1] - every(q - 1e-5)[1]) / 2e-5
    assert float(slope) == pytest.approx(float(difference), rel=1e-3)


REFUSED = {
    "unknown feature": ({"AP_amplitud": 1.0}, "did you mean 'AP_amplitude'"),
    "unit": ({"AP_amplitude": 0.0}, "must be positive"),
    "none": ({}, "at least 1"),
}


@pytest.mark.parametrize(("features", "message"), REFUSED.values(), ids=REFUSED)
def test_features_that_are_refused(features, message):
    with pytest.raises(ConfigError, match=message):
        Features(features=features)
