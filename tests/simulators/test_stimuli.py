"""Every stimulus against its closed form, at many times; and through a simulation."""

import dataclasses
import math

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.simulators import STIMULI, Brunel, HodgkinHuxley, simulate, solvers, stimuli
from jneuro.simulators.base import POSITIVE, param
from jneuro.simulators.paths import parameters
from jneuro.simulators.stimuli import (
    Chirp,
    Constant,
    OrnsteinUhlenbeck,
    PulseTrain,
    Ramp,
    Sampled,
    Sine,
    Step,
    WhiteNoise,
)

KEY = jax.random.key(4)
WAVE = np.random.default_rng(0).normal(size=50)
STEPS = np.arange(-300, 3000)
"""Times in steps of 0.1 ms: from 30 ms before zero to 300 ms."""


def chirp(t, amplitude, start, stop, onset, end):
    s = t - onset
    cycles = start * s + (stop - start) / (2 * (end - onset)) * s**2
    return amplitude * np.sin(2 * np.pi * cycles / 1e3) * (onset <= t) * (t < end)


CASES = {
    # name: stimulus, closed form of the step k (0.1 ms), its jumps
    "constant": (lambda: Constant(2.5), lambda k: np.full(k.shape, 2.5), []),
    "step": (lambda: Step(3.0), lambda k: 3.0 * (k >= 0), [0.0]),
    "step, ended": (lambda: Step(3.0, onset=20.3, end=70.7), lambda k: 3.0 * ((k >= 203) & (k < 707)), [20.3, 70.7]),
    "pulses": (
        lambda: PulseTrain(2.0, frequency=40.0, width=5.1, count=4, onset=10.2),
        lambda k: 2.0 * ((k >= 102) & (k < 102 + 1000) & ((k - 102) % 250 < 51)),
        np.add.outer(10.2 + 25.0 * np.arange(4), [0.0, 5.1]).ravel(),
    ),
    "pulses, odd period": (
        lambda: PulseTrain(2.0, frequency=1e3 / 3.7, width=0.3, count=50, onset=0.7),
        lambda k: 2.0 * ((k >= 7) & (k < 7 + 50 * 37) & ((k - 7) % 37 < 3)),
        np.add.outer(0.7 + 3.7 * np.arange(50), [0.0, 0.3]).ravel(),
    ),
    "ramp": (
        lambda: Ramp(4.0, end=120.0, onset=20.0),
        lambda k: 4.0 * np.clip((k / 10 - 20.0) / 100.0, 0, 1),
        [20.0, 120.0],
    ),
    "sine": (
        lambda: Sine(1.5, 30.0, phase=0.4, onset=12.3),
        lambda k: 1.5 * np.sin(2 * np.pi * 30e-3 * (k / 10 - 12.3) + 0.4) * (k >= 123),
        [12.3],
    ),
    "chirp": (
        lambda: Chirp(1.5, start=5.0, stop=80.0, end=250.0, onset=30.0),
        lambda k: chirp(k / 10, 1.5, 5.0, 80.0, 30.0, 250.0),
        [30.0, 250.0],
    ),
    "sampled, held": (
        lambda: Sampled(WAVE, 1.7, onset=11.1),
        lambda k: np.where((k >= 111) & (k < 111 + 50 * 17), WAVE[np.clip((k - 111) // 17, 0, 49)], 0),
        11.1 + 1.7 * np.arange(51),
    ),
    "sampled, interpolated": (
        lambda: Sampled(WAVE, 1.7, onset=11.1, hold=False),
        lambda k: np.interp((k - 111) / 17, np.arange(50), WAVE) * (k >= 111) * (k < 111 + 50 * 17),
        11.1 + 1.7 * np.arange(51),
    ),
    "sum": (
        lambda: 2.0 * Step(1.0, onset=5.0) - Step(2.0, onset=5.0) / 2 + Ramp(2.0, end=10.0) + 0.5,
        lambda k: 1.0 * (k >= 50) + 2.0 * np.clip(k / 100, 0, 1) + 0.5,
        [5.0, 5.0, 0.0, 10.0],
    ),
    "scaled": (lambda: -(np.array(2.0) * Step(1.5, onset=20.3)), lambda k: -3.0 * (k >= 203), [20.3]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_closed_form(name, wide):
    make, closed, _ = CASES[name]
    with jax.enable_x64(wide):
        stimulus = make()
        times = jnp.asarray(STEPS) * 0.1
        both = jax.jit(jax.vmap(lambda s, t: (s(t), s.over(t, t, 0.1)), (None, 0)))
        seen, within = both(stimulus, times)
        assert seen.dtype == within.dtype == jnp.result_type(float)
        # On the grid of the steps a step sees what an instant sees, to the last bit where it does not slope.
        np.testing.assert_allclose(within, seen, rtol=0, atol=2e-6 * ("ramp" in name or "sum" in name))
    np.testing.assert_allclose(seen, closed(STEPS), rtol=0, atol=1e-11 if wide else 3e-4)


class Own(stimuli.Stimulus):
    """A pulse of one's own, of which only the value and the jumps are told."""

    onset: jax.Array = param(2.003)
    width: jax.Array = param(0.01)

    def __call__(self, t):
        return jnp.where((t >= self.onset) & (t < self.onset + self.width), 100.0, 0.0)

    def jumps(self):
        return jnp.stack([self.onset, self.onset + self.width])


JUMPING = {n: c[0] for n, c in CASES.items() if n not in ("constant", "sampled, interpolated")} | {"own": Own}


@pytest.mark.parametrize("name", JUMPING)
def test_steps_that_hold_jumps_keep_the_charge(name, x64):
    """The mean over every step of an odd length, from its middle, against the sum of a fine grid."""
    stimulus, dt = JUMPING[name](), 0.37
    steps = jax.jit(jax.vmap(lambda k: stimulus.over((k + 0.5) * dt, k * dt, dt)))(jnp.arange(811))
    fine = (np.arange(811 * 370) + 0.5) * 1e-3
    exact = np.asarray(jax.jit(jax.vmap(stimulus))(jnp.asarray(fine))).sum() * 1e-3
    assert float(steps.sum() * dt) == pytest.approx(float(exact), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_jumps_are_declared(name, x64):
    make, _, jumps = CASES[name]
    declared = np.asarray(make().jumps())
    np.testing.assert_allclose(np.sort(declared[np.isfinite(declared)]), np.sort(jumps), atol=1e-9)
    # Nothing jumps elsewhere: neither the value nor the slope, on a fine grid.
    t = np.arange(-30, 300, 0.01) + 0.003
    value = np.asarray(jax.vmap(make())(jnp.asarray(t)))
    for order in (1, 2):
        bends = np.abs(np.diff(value, order))
        where = t[:-order][bends > (0.1 if order == 1 else 2e-3)]
        for time in where:
            assert np.min(np.abs(np.asarray(jumps) - time)) < 0.03


@pytest.mark.parametrize("dt", [0.1, 0.05, 0.025, 0.02, 0.01])
@pytest.mark.parametrize("make", [lambda: Step(1.0, onset=33.3, end=77.7), lambda: Step(1.0, onset=4000.1, end=4002.3)])
def test_edges_fall_into_their_step(dt, make):
    stimulus = make()
    onset, end = (round(float(x), 1) for x in (stimulus.onset, stimulus.end))
    first, last = round(onset / dt), round(end / dt)
    near = np.concatenate([np.arange(first - 5, first + 6), np.arange(last - 5, last + 6)])
    seen = jax.jit(jax.vmap(lambda k: stimulus(k * dt)))(jnp.asarray(near))
    np.testing.assert_array_equal(seen, (near >= first) & (near < last))


def test_pulses_keep_their_length_in_long_runs():
    # 30 pulses a second for a minute, of 20 steps each: the period is no multiple of the step.
    stimulus = PulseTrain(1.0, frequency=30.0, width=2.0, count=1800)
    seen = np.asarray(jax.jit(jax.vmap(lambda k: stimulus(k * 0.1)))(jnp.arange(600_000)))
    k = np.arange(600_000)
    into = k - np.ceil(np.floor(k * 3 / 1000 + 1e-9) * 1000 / 3 - 1e-9)
    np.testing.assert_array_equal(seen, into < 20)


@pytest.mark.parametrize(
    ("every", "dt", "longest"), [(1, 0.1, 1_800_000), (10, 0.1, 1_800_000), (1, 0.02, 500_000), (5, 0.02, 500_000)]
)
@pytest.mark.parametrize("onset", [0.0, 7.0])
def test_no_sample_is_missed_in_long_runs(every, dt, longest, onset):
    # A value tells which sample it is; time is step * dt in float32, as `simulate` has it.
    k = np.unique(np.concatenate([np.arange(2000), [50_000, longest - 1], np.geomspace(2e3, longest - 1, 20_000)]))
    k = k.astype(np.int32)
    stimulus = Sampled(jnp.arange(longest // every, dtype=jnp.float32), every * dt, onset=onset)
    seen = jax.jit(jax.vmap(lambda s, t: s(t), (None, 0)))(stimulus, jnp.asarray(k) * dt)
    sample = (k - round(onset / dt)) // every
    np.testing.assert_array_equal(seen, np.maximum(sample, 0))


def test_sample_five_thousand_is_found_through_a_simulation(x64):
    values = np.zeros((6000, 1))
    values[5000] = 100.0
    settings = {"n_excitatory": 1, "n_inhibitory": 0, "rate_external": 0.0, "noise": 0.0, "v_initial_sd": 0.0}
    with jax.enable_x64(False):
        sim = Brunel(**settings).connect(KEY)
        rec = simulate(sim, Sampled(values, 0.1), duration=600.0, key=KEY)
    v = np.asarray(rec.values["v"])[:, 0]
    assert np.all(v[:5000] == -70.0)
    np.testing.assert_allclose(v[5000:5002], [-69.0, -69.01], atol=1e-4)


# Batches, gradients, sums --------------------------------------------------------------------------------------------

AMPLITUDES = {
    "constant": Constant,
    "step": lambda a: Step(a, onset=1.0),
    "pulses": lambda a: PulseTrain(a, frequency=100.0, width=6.0, count=3),
    "ramp": lambda a: Ramp(a, end=20.0),
    "sine": lambda a: Sine(a, 11.0),
    "chirp": lambda a: Chirp(a, start=11.0, stop=20.0, end=40.0),
    "sampled": lambda a: Sampled(jnp.stack([a, 2 * a, 3 * a]), 10.0),
    "white noise": lambda a: WhiteNoise(KEY, a, hold=1.0, duration=20.0),
    "sum": lambda a: Constant(a) + Sine(2 * a, 11.0),
}


@pytest.mark.parametrize("name", AMPLITUDES)
def test_linear_in_its_amplitude_batched_and_differentiable(name, x64):
    make, t = AMPLITUDES[name], 5.0

    def value(a):
        return make(a)(t)

    one = float(value(jnp.asarray(1.0)))
    assert one != 0.0
    batch = jnp.asarray([-1.0, 0.0, 2.5])
    np.testing.assert_allclose(jax.vmap(value)(batch), one * batch, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(jax.grad(value))(batch), np.full(3, one), rtol=1e-12)
    stimuli_ = jax.vmap(make)(batch)
    np.testing.assert_allclose(jax.vmap(lambda s: s(t))(stimuli_), one * batch, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in AMPLITUDES if n != "white noise"])
def test_one_amplitude_a_neuron(name, x64):
    make = AMPLITUDES[name]
    amplitudes = jnp.asarray([1.0, -2.0, 0.5])
    np.testing.assert_allclose(make(amplitudes)(5.0), make(jnp.asarray(1.0))(5.0) * amplitudes, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda f: Sine(1.0, f)(5.0), lambda f: 2e-3 * np.pi * 5.0 * np.cos(2e-3 * np.pi * f * 5.0)),
        (lambda e: Ramp(1.0, end=e)(5.0), lambda e: -5.0 / e**2),
        (lambda o: Sampled(WAVE, 1.7, onset=o, hold=False)(5.0), None),
    ],
    ids=["frequency", "end", "onset"],
)
def test_gradients_of_other_fields(make, expected, x64):
    at = 20.0 if expected else 1.0
    slope = float(jax.grad(make)(at))
    differences = float(make(at + 1e-6) - make(at - 1e-6)) / 2e-6
    assert slope == pytest.approx(differences, rel=1e-5)
    if expected:
        assert slope == pytest.approx(expected(at), rel=1e-10)


def test_arithmetic():
    total = Constant(1.0) + Constant(2.0) + (Constant(3.0) + Constant(4.0))
    assert float(total(0.0)) == 10.0
    assert float((10.0 - Constant(4.0))(0.0)) == 6.0
    assert float((1 + sum([Constant(1.0), Constant(2.0)]))(0.0)) == 4.0
    for factors in (np.ones(3), jnp.ones(3)):
        assert (factors * Constant(1.0))(0.0).shape == (factors + Constant(1.0))(0.0).shape == (3,)
    assert (Constant(1.0) + Step(jnp.ones(3)))(1.0).shape == (3,)


def test_every_named_stimulus_is_covered():
    covered = {type(make()) for make, _, _ in CASES.values()} | {WhiteNoise, OrnsteinUhlenbeck}
    assert {STIMULI[name] for name in STIMULI} <= covered
    others = {"Stimulus", "before_end", "draw_outside_loops", "moved_jumps"}
    assert set(stimuli.__all__) == {c.__name__ for c in covered} | others


# Noise ---------------------------------------------------------------------------------------------------------------


def test_white_noise_is_held_and_independent():
    noise = WhiteNoise(KEY, 2.0, hold=0.5, duration=1e4, mean=-1.0)
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: noise(k * 0.1)))(jnp.arange(100_000))).reshape(-1, 5)
    assert np.all(drawn == drawn[:, :1])
    x, n = drawn[:, 0].astype(np.float64), len(drawn)
    assert len(np.unique(x)) > 0.99 * n
    assert x.mean() == pytest.approx(-1.0, abs=4.5 * 2 / math.sqrt(n))
    assert x.std() == pytest.approx(2.0, rel=4.5 / math.sqrt(2 * n))
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(x[lag:], x[:-lag])[0, 1]) < 4.5 / math.sqrt(n)


def test_white_noise_does_not_depend_on_the_stepping():
    noise = WhiteNoise(KEY, 1.0, hold=0.5, duration=100.0)
    coarse = jax.vmap(lambda k: noise(k * 0.5))(jnp.arange(200))
    fine = jax.vmap(lambda k: noise(k * 0.02))(jnp.arange(5000))
    np.testing.assert_array_equal(fine.reshape(200, 25), np.repeat(coarse[:, None], 25, 1))
    again = WhiteNoise(KEY, 1.0, hold=0.5, duration=5.0)
    assert float(again(3.0)) == float(noise(3.0))
    assert float(WhiteNoise(jax.random.key(9), 1.0, hold=0.5, duration=5.0)(3.0)) != float(noise(3.0))
    np.testing.assert_allclose(again.jumps(), np.arange(0, 5.01, 0.5), atol=1e-6)


def test_white_noise_has_one_path_a_neuron():
    noise = WhiteNoise(KEY, jnp.asarray([1.0, 2.0]), hold=0.1, duration=1e3)
    x = np.asarray(jax.jit(jax.vmap(lambda k: noise(k * 0.1)))(jnp.arange(10_000)))
    np.testing.assert_allclose(x.std(0), [1.0, 2.0], rtol=4.5 / math.sqrt(2e4))
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.045


@pytest.mark.parametrize("tau", [2.0, 10.0])
def test_ornstein_uhlenbeck_is_stationary_with_an_exponential_autocorrelation(tau):
    # 256 independent paths: an ensemble needs no correction for the correlation along a path.
    paths, length = 256, 2000
    noise = OrnsteinUhlenbeck(
        mean=jnp.full(paths, 3.0), sd=jnp.full(paths, 1.5), tau=tau, duration=length * 0.1, dt=0.1, key=KEY
    )
    x = np.asarray(jax.jit(jax.vmap(lambda k: noise(k * 0.1)))(jnp.arange(length)), np.float64)
    assert x.shape == (length, paths)
    independent = paths * length * 0.1 / (2 * tau)
    assert x.mean() == pytest.approx(3.0, abs=4.5 * 1.5 / math.sqrt(independent))
    assert x.std() == pytest.approx(1.5, rel=4.5 / math.sqrt(2 * independent))
    for time in (0, 1, length - 1):
        assert x[time].std() == pytest.approx(1.5, rel=4.5 / math.sqrt(2 * paths))
        assert x[time].mean() == pytest.approx(3.0, abs=4.5 * 1.5 / math.sqrt(paths))
    z = (x - 3.0) / 1.5
    for lag in (0.1, 1.0, tau, 3 * tau):
        shift = round(10 * lag)
        correlation = (z[shift:] * z[:-shift]).mean()
        assert correlation == pytest.approx(math.exp(-lag / tau), abs=4.5 / math.sqrt(independent))
    one_step = (z[1:] * z[:-1]).mean() / (z**2).mean()
    assert one_step == pytest.approx(math.exp(-0.1 / tau), abs=0.1 * (1 - math.exp(-0.1 / tau)))


def test_ornstein_uhlenbeck_is_a_held_path_of_its_key():
    settings = {"mean": 0.0, "sd": 1.0, "tau": 5.0, "duration": 20.0, "dt": 0.5}
    noise = OrnsteinUhlenbeck(**settings, key=KEY)
    values = jax.vmap(lambda k: noise(k * 0.1))(jnp.arange(200)).reshape(40, 5)
    np.testing.assert_array_equal(values, np.repeat(noise.path.values[:, None], 5, 1))
    assert float(noise(20.5)) == 0.0
    np.testing.assert_allclose(noise.jumps(), np.arange(41) * 0.5, atol=1e-5)
    np.testing.assert_array_equal(OrnsteinUhlenbeck(**settings, key=KEY).path.values, noise.path.values)
    assert not np.array_equal(OrnsteinUhlenbeck(**settings, key=jax.random.key(9)).path.values, noise.path.values)


# Through a simulation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["constant", "sine", "sampled"])
def test_a_simulation_integrates_its_drive(name, x64):
    settings = {"n_excitatory": 3, "n_inhibitory": 0, "rate_external": 0.0, "noise": 0.0, "v_initial_sd": 0.0}
    sim = dataclasses.replace(Brunel(**settings), v_threshold=1e3).connect(KEY)
    stimulus = AMPLITUDES[name](jnp.asarray([1.0, -2.0, 6.0]))
    rec = simulate(sim, stimulus, duration=30.0, key=KEY)
    v, expected = np.full(3, -70.0), []
    for k in range(300):
        # The drive is that of the step's beginning.
        v = v + 0.01 * (-70.0 - v + np.asarray(stimulus(k * 0.1)))
        expected.append(v)
    np.testing.assert_allclose(rec.values["v"], expected, rtol=1e-12)


def test_a_stimulus_of_the_wrong_size_is_refused():
    sim = Brunel(n_excitatory=3, n_inhibitory=0).connect(KEY)
    with pytest.raises(ValueError, match=r"stimulus has 4 values; Brunel takes one for all, or one for each of its 3"):
        simulate(sim, Constant(jnp.ones(4)), duration=1.0, key=KEY)


@pytest.mark.parametrize("value", [np.ones(3), np.ones(3, np.float32), [1.0, 1.0, 1.0], np.ones(3, int)])
def test_amplitudes_are_arrays_of_the_precision_in_force(value):
    assert Constant(value).amplitude.dtype == jnp.float32
    assert not Constant(value).amplitude.weak_type


# What cannot be -------------------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "end before onset": (lambda: Step(10.0, onset=30.0, end=10.0), "end = 10.0 ms must come after onset = 30.0 ms"),
    "ramp of no length": (lambda: Ramp(1.0, end=5.0, onset=5.0), "end = 5.0 ms must come after onset = 5.0 ms"),
    "chirp backwards": (lambda: Chirp(1.0, 1.0, 9.0, end=5.0, onset=9.0), "must come after onset"),
    "negative frequency": (lambda: PulseTrain(1.0, -1.0, 1.0, 3), r"frequency = -1.0 Hz lies outside \(0, inf\) Hz"),
    "no width": (lambda: PulseTrain(1.0, 10.0, 0.0, 3), "width = 0.0 ms lies outside"),
    "overlapping pulses": (lambda: PulseTrain(1.0, 100.0, 20.0, 3), "width = 20 ms overlap, as one begins every 10 ms"),
    "half a pulse": (lambda: PulseTrain(1.0, 10.0, 1.0, 2.5), "count = 2.5 must be a whole number"),
    "axes exchanged": (lambda: Sampled(np.full((3, 2000), 10.0), 0.1), "3 samples of 2000 neurons.* take values.T"),
    "no sample": (lambda: Sampled(np.zeros(0), 0.1), r"must be \[time\] or \[time, neuron\]"),
    "zero dt": (lambda: Sampled(WAVE, 0.0), "dt = 0.0 ms lies outside"),
    "negative dt": (lambda: Sampled(WAVE, -0.025), "dt = -0.02"),
    "not a number": (lambda: Constant(math.nan), "amplitude = nan lies outside"),
    "infinite onset": (lambda: Step(1.0, onset=math.inf), "onset = inf ms lies outside"),
    "negative sd": (lambda: WhiteNoise(KEY, -1.0, hold=1.0, duration=5.0), "sd = -1.0 lies outside"),
    "no hold": (lambda: WhiteNoise(KEY, 1.0, hold=0.0, duration=5.0), "hold = 0.0 ms lies outside"),
    "no tau": (
        lambda: OrnsteinUhlenbeck(mean=0.0, sd=1.0, tau=0.0, duration=5.0, dt=0.1, key=KEY),
        "tau = 0.0 lies outside",
    ),
    "a word added": (lambda: Constant(1.0) + "5", "amplitude = '5' must be a number"),
    "a product": (lambda: Constant(1.0) * Constant(2.0), "must be a stimulus times a number"),
    "a sum of numbers": (lambda: stimuli.Sum((Constant(1.0), 2)), "must be stimuli, at least one"),
    "numbers as text": (lambda: Sampled(["1", "2"], 0.1), "must be a number"),
    "booleans": (lambda: Sampled([True, False], 0.1), "must be a number"),
    "NumPy's boolean": (lambda: Constant(np.bool_(True)), "must be a number"),
    "rows of unequal length": (lambda: Constant([1.0, [2.0, 3.0]]), "must be an array"),
    "hold in words": (lambda: Sampled(WAVE, 0.1, hold="yes"), "hold = 'yes' must be True, False or None"),
    "too large": (lambda: Constant(1e60), "amplitude = .*inf.* lies outside"),
    "a name misspelt": (lambda: Step(1.0, onst=2.0), "Step: unknown argument 'onst'; did you mean 'onset'"),
    "no key": (lambda: WhiteNoise(0, 1.0, hold=0.1, duration=1.0), "key must be a typed key"),
    "no key of a path": (
        lambda: OrnsteinUhlenbeck(mean=0.0, sd=1.0, tau=1.0, duration=5.0, dt=0.1, key=0),
        "key must be a typed key",
    ),
}


@pytest.mark.parametrize(("make", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_stimuli_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


class Decay(stimuli.Stimulus):
    """Needs a value at a time alone."""

    amplitude: jax.Array = param(10.0, unit="mV")
    tau: jax.Array = param(20.0, unit="ms", bounds=POSITIVE)

    def __call__(self, t):
        return self.amplitude * jnp.exp(-t / self.tau)


def test_a_stimulus_of_ones_own_needs_a_value_alone(x64):
    assert Decay().jumps().shape == (0,)
    with pytest.raises(ValueError, match=r"tau = 0\.0 ms lies outside"):
        Decay(tau=0.0)
    cell = HodgkinHuxley()
    how = {"duration": 10.0, "dt": 0.01, "record": ["v"], "key": KEY}
    exact = simulate(cell, Decay(), **how, solver=solvers.Adaptive(diffrax.Dopri8(), 1e-10, 1e-10)).values["v"]
    np.testing.assert_allclose(simulate(cell, Decay(), **how, solver=solvers.RK4()).values["v"], exact, atol=1e-3)
    assert set(parameters(Decay() + Decay())) == {f"parts.{k}.{n}" for k in "01" for n in ("amplitude", "tau")}


def test_samples_that_end_before_the_run_are_said():
    short = Sampled(np.zeros((20, 1)), 0.05)
    with pytest.warns(UserWarning, match=r"20 samples of 1 neurons .* ends at 1 ms and is zero until .* 2 ms"):
        simulate(HodgkinHuxley(), short, duration=2.0, dt=0.05, key=KEY)
