"""Steps of clean and of noisy currents, and what happens in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.spikes.detection import soft_spikes
from jneuro.spikes.protocols import (
    Steps,
    between,
    describe,
    is_repetition,
    main_step,
    ordered_times,
    steps_of,
    stretches,
)

precise = pytest.mark.usefixtures("x64")
DT = 0.1


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def held(*pieces, dt=DT):
    """Pieces of constant current, each an amplitude and its end [ms]."""
    ends = np.array([end for _, end in pieces])
    time = dt * np.arange(round(ends[-1] / dt))
    return np.array([amplitude for amplitude, _ in pieces], float)[np.searchsorted(ends, time + 1e-9, side="right")]


def two_steps(amplitude):
    return held((0, 10), (amplitude, 50), (0, 60), (-20, 90), (0, 100))


def test_stretches_are_common_to_all_trials():
    found = stretches(np.stack([two_steps(a) for a in (0.0, 30.0)]), DT)
    assert found.edges.tolist() == [0, 100, 500, 600, 900, 1000]
    np.testing.assert_array_equal(found.level, [[0, 0, 0, -20, 0], [0, 30, 0, -20, 0]])
    assert found.steady.all()
    assert stretches(np.zeros((2, 50)), DT).edges.tolist() == [0, 50]


def measured(current, noise, dt=DT):
    """A current as a monitor shows it: noise that is not white, and artefacts of 1 ms of spikes."""
    white = normal(2, *np.shape(current))
    slow = np.cumsum(white[1], axis=-1)
    slow = 0.5 * (slow - np.roll(slow, round(2 / dt), axis=-1)) * np.sqrt(dt / 2)
    seen = current + noise * (white[0] + slow)
    if noise > 0.01:
        for at in range(730, seen.shape[-1], 900):
            seen[..., at : at + round(1 / dt)] -= 300
    return seen


PULSE = (0.0, 23.0), (-100.0, 100.0), (0.0, 300.0)  # of a test, before the step
PROTOCOLS = {  # current, onset and end of its step [ms], how many changes there are
    "a step": (held((0, 20), (10, 120), (0, 150)), (20, 120), 2),
    "holding": (held((-75, 82), (175, 582), (-75, 1000)), (82, 582), 2),
    "a test pulse": (held(*PULSE, (290.0, 800.0), (0.0, 900.0)), (300, 800), 4),
    "two, the second from below": (
        held((0, 150), (300, 650), (0, 1150), (-100, 1650), (300, 2150), (0, 2200)),
        (150, 650),
        5,
    ),
    "longest": (held((0, 50), (300, 150), (0, 250), (100, 500), (0, 600)), (250, 500), 4),
    "to the end": (held((0, 30), (50, 300)), (30, 300), 1),
    "none": (np.zeros(3000), (0, 300), 0),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("noise", [0.0, 1e-4, 2.0])
def test_the_step_of_a_trace(name, noise):
    current, (onset, end), changes = PROTOCOLS[name]
    seen = measured(current[None], noise) if noise else current[None]
    assert len(stretches(seen, DT).edges) == changes + 2
    (step,) = main_step(seen, DT)
    # The noise moves an edge by a sample or two.
    np.testing.assert_allclose([DT * step.begin, DT * step.end], [onset, end], atol=1e-9 if noise < 1 else 0.31)
    amplitude = np.median(current[step.begin : step.end]) - (current[step.begin - 1] if changes else 0)
    assert step.change == pytest.approx(amplitude, abs=max(noise, 1e-9))


def test_what_is_no_step():
    time = DT * np.arange(5000)
    for current in (np.interp(time, [50, 450], [0, 300]), 50 * np.sin(time / 30), 20 * normal(5000)):
        for noise in (0.0, 2.0):
            seen = (current + noise * normal(5000))[None]
            assert not len(steps_of(seen, DT).begin)
            assert main_step(seen, DT)[0][:2] == (0, 5000)


def test_a_step_can_be_given():
    current = np.stack([20 * normal(1000) + a * ((np.arange(1000) >= 200) & (np.arange(1000) < 700)) for a in (0, 500)])
    found = main_step(current, DT, onset=20.0, end=70.0)
    assert [s[:2] for s in found] == [(200, 700)] * 2
    np.testing.assert_allclose([s.change for s in found], [0, 500], atol=15)
    assert main_step(current, DT, onset=20.0)[0][:2] == (200, 1000)
    for wrong in ({"onset": 200.0}, {"end": 101.0}, {"onset": 50.0, "end": 20.0}):
        with pytest.raises(ValueError, match="must be a part of the 100 ms of the trace"):
            main_step(current, DT, **wrong)


def test_trials_tell_a_test_pulse_from_the_step():
    """It is the same in all of them, even where it is longer; a trial without current has a step too."""
    trials = np.stack([held((0, 20), (-50, 420), (0, 500), (a, 700), (0, 800)) for a in (0.0, 100.0, 200.0)])
    for seen in (trials, trials + 2 * normal(*trials.shape)):
        steps = steps_of(seen, DT)
        np.testing.assert_allclose([steps.begin, steps.end], [[500], [700]], atol=0.2)
        np.testing.assert_allclose(steps.amplitude, [[0], [100], [200]], atol=0.5)
        np.testing.assert_allclose(
            [[DT * s.begin, DT * s.end] for s in main_step(seen, DT)], [[500, 700]] * 3, atol=0.2
        )
    for same in (trials[2:], trials[2:].repeat(3, 0)):  # of one trial, or of one again and again, both differ
        np.testing.assert_allclose(steps_of(same, DT).begin, [20, 500])
    assert not len(steps_of(0 * trials, DT).begin)


REPETITIONS = {  # the second of two steps repeats the first
    "the same before": (held((0, 200), (50, 400), (0, 700), (50, 900), (0, 1000)), True),
    "another current before": (held((0, 200), (50, 400), (0, 500), (-20, 700), (50, 900), (0, 1000)), False),
    "too short a pause": (held((0, 200), (50, 400), (0, 450), (50, 650), (0, 1000)), False),
    "nothing before": (held((50, 200), (0, 400), (50, 600), (0, 700)), False),
    "another length": (held((0, 200), (50, 400), (0, 700), (50, 950), (0, 1000)), False),
    "another current": (held((0, 200), (50, 400), (0, 700), (60, 900), (0, 1000)), False),
}


@pytest.mark.parametrize("name", REPETITIONS)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_repetition_repeats_what_came_before_too(name, noise):
    current, wanted = REPETITIONS[name]
    trials = np.stack([current * (current < 0) + a * current * (current > 0) for a in (1.0, 2.0)])
    seen = trials + noise * normal(*trials.shape)
    steps = steps_of(seen, DT)
    assert len(steps.begin) == 2
    assert is_repetition(seen, DT, steps) == wanted


TIMES = [[], [70, 370], [60, 160, 360, 460], [55, 100, 165, 355, 400, 465], [53, 93, 143, 203, 353, 393, 443, 503]]
STEPS = Steps(np.array([50.0, 350.0]), np.array([250.0, 550.0]), np.repeat([[0.0], [10], [20], [30], [40]], 2, 1))


def test_steps_are_described():
    found = describe([np.asarray([*t, 5, 300, 560], float) for t in TIMES], STEPS)
    np.testing.assert_array_equal(found.rate, np.repeat(5.0 * np.arange(5)[:, None], 2, 1))
    np.testing.assert_array_equal(found.latency[1:], [[20, 20], [10, 10], [5, 5], [3, 3]])
    assert np.isnan(found.latency[0]).all()
    np.testing.assert_allclose(found.adaptation[3], 20 / 110)
    assert np.isnan(found.adaptation[2]).all()
    halfway = between(found.part([1, 3]), found.part([2, 4]))
    np.testing.assert_array_equal(halfway.rate, [[7.5, 7.5], [17.5, 17.5]])
    np.testing.assert_array_equal(halfway.trains[0], [[15], [15]])
    assert found.part([4], slice(1, 2)).rate.tolist() == [[20.0]]


def train(times, frames=1000):
    spikes = np.zeros(frames)
    spikes[np.round(np.asarray(times, float) / DT).astype(int)] = 1
    return spikes


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
