"""Cheap random numbers have to earn their trust: distribution, moments, independence."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jneuro.core.random import key_words, threefry, trial_keys
from jneuro.simulators.kernels.noise import binomial_counts, binomial_thresholds, normal_deviates, step_words

STEPS, NEURONS = 2500, 500
SIGMAS = 4.5


@functools.partial(jax.jit, static_argnums=(2, 3))
def words_of(key, first, steps, size):
    """The words of some steps."""
    return jax.vmap(lambda step: step_words(key, step, size))(first + jnp.arange(steps))


@pytest.fixture(scope="module")
def words():
    return words_of(jax.random.key(7), 0, STEPS, NEURONS)


KNOWN_ANSWERS = [
    ("00000000 00000000", "00000000 00000000", "9d1c5ec6 8bd50731"),
    ("ffffffff ffffffff", "ffffffff ffffffff", "fd36d048 2d17272c"),
    ("243f6a88 85a308d3", "13198a2e 03707344", "ba3e4725 f27d669e"),
]
"""Counter, key and result, as the generator's authors publish them (Random123, tests/kat_vectors, 13 rounds)."""


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers_of_the_generator(counter, key, expected):
    counter, key, expected = (
        np.array([int(x, 16) for x in word.split()], np.uint32) for word in (counter, key, expected)
    )
    found = jax.jit(threefry)(tuple(jnp.asarray(key)), *jnp.asarray(counter))
    np.testing.assert_array_equal(np.array(found), expected)


def test_words_are_those_of_the_generator():
    words = words_of(jax.random.key(7), 40, 3, 5)
    first, second = (int(k) for k in key_words(jax.random.key(7)))
    for step in range(3):
        for neuron in range(5):
            of = jnp.uint32([first, second, 40 + step, neuron])
            assert int(words[step, neuron]) % 2**32 == int(threefry((of[0], of[1]), of[2], of[3])[0])


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_every_kind_of_key_gives_words_of_its_own(implementation):
    keys = trial_keys(jax.random.key(0, impl=implementation), 50)
    words = np.stack([step_words(key, jnp.int32(3), 40) for key in keys])
    np.testing.assert_array_equal(jax.vmap(lambda k: step_words(k, jnp.int32(3), 40))(keys), words)
    assert len(np.unique(words)) == 50 * 40


def test_keys_that_differ_little_give_words_that_differ_in_half_their_bits():
    # Every bit of key and counter reaches every bit of the result.
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 2**32, (4, 3000), dtype=np.uint32)

    def words(inputs):
        return np.array(jax.vmap(lambda a, b, c, d: threefry((a, b), c, d))(*inputs))

    before = words(inputs)
    for place in range(4):
        for bit in range(0, 32, 5):
            changed = inputs.copy()
            changed[place] ^= np.uint32(1 << bit)
            flipped = np.unpackbits((before ^ words(changed)).view(np.uint8), bitorder="little").reshape(2, 3000, 32)
            assert np.abs(flipped.mean(1) - 0.5).max() < 5 * 0.5 / math.sqrt(3000)


DISTRIBUTIONS = [
    (8, 0.05, 8),
    (1000, 0.002, 26),
    (1, 0.5, 1),
    (40, 0.9, 40),
    (1000, 0.0035, 30),
    (3, 1e-4, 3),
    (1000, 0.3, 400),
]


@pytest.mark.parametrize(("sources", "probability", "count"), DISTRIBUTIONS)
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_thresholds_cut_at_the_cumulative_distribution(sources, probability, count, wide):
    with jax.enable_x64(wide):
        thresholds = jax.jit(binomial_thresholds, static_argnums=(0, 2))(
            sources, jnp.asarray(probability, float), count
        )
        probability = float(jnp.asarray(probability, float))
    assert thresholds.dtype == jnp.int32
    above = (2.0**31 - 1 - np.asarray(thresholds, np.int64)) / 2.0**32
    k = np.arange(count)
    tolerance = 4e-8 if wide else 4e-7 * max(1, sources * probability / 10)
    # Small tails keep their relative accuracy, down to the resolution of a word.
    expected = stats.binom.sf(k, sources, probability)
    np.testing.assert_allclose(above, expected, rtol=10 * tolerance, atol=2.0**-32)
    np.testing.assert_allclose(above, expected, rtol=0, atol=tolerance)
    assert np.all(np.diff(np.asarray(thresholds, np.int64)) >= 0)


@pytest.mark.parametrize("sources", [8, 1000])
def test_silent_sources_never_fire(sources):
    thresholds = binomial_thresholds(sources, jnp.float32(0.0), 8)
    extremes = jnp.asarray([2**31 - 1, 2**31 - 2, 2147483520, 0, -(2**31)], jnp.int32)
    np.testing.assert_array_equal(binomial_counts(extremes, thresholds), 0)


def test_the_largest_words_are_rare_not_absurd():
    thresholds = binomial_thresholds(1000, jnp.float32(0.002), 40)
    largest = float(binomial_counts(jnp.int32(2**31 - 1), thresholds))
    assert stats.binom.sf(largest - 1, 1000, 0.002) > 1e-10


@pytest.mark.parametrize(("sources", "probability", "count"), DISTRIBUTIONS)
def test_counts_are_binomial(words, sources, probability, count):
    counts = binomial_counts(words, binomial_thresholds(sources, jnp.float32(probability), count))
    assert counts.dtype == jnp.float32
    observed = np.bincount(np.asarray(counts, int).ravel(), minlength=count + 1)
    assert observed.sum() == STEPS * NEURONS >= 1e6
    expected = stats.binom.pmf(np.arange(count + 1), sources, probability) * observed.sum()
    expected[-1] += stats.binom.sf(count, sources, probability) * observed.sum()
    common = expected >= 10
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    if expected[-1] < 5:
        observed[-2:], expected[-2:] = observed[-2:].sum() * np.array([1, 0]), expected[-2:].sum() * np.array([1, 0])
    keep = expected > 0
    assert observed[~keep].sum() == 0
    chi2 = ((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(chi2, max(keep.sum() - 1, 1)) > 1e-5


def test_counts_rise_with_the_word():
    words = jnp.asarray([-(2**31), -(2**30), 0, 2**30, 2**31 - 1], jnp.int32)
    np.testing.assert_array_equal(binomial_counts(words, binomial_thresholds(4, jnp.float32(0.5), 4)), [0, 1, 2, 3, 4])


def test_normal_deviates_have_normal_moments(words):
    z = np.asarray(normal_deviates(words), np.float64).ravel()
    n = z.size
    assert np.abs(z).max() < 4.4
    assert z.mean() == pytest.approx(0, abs=SIGMAS / math.sqrt(n))
    # 65,536 equiprobable midpoints have a variance below 1 by less than 1e-4.
    assert z.var() == pytest.approx(1, abs=SIGMAS * math.sqrt(2 / n) + 1e-4)
    assert stats.skew(z) == pytest.approx(0, abs=SIGMAS * math.sqrt(6 / n))
    assert stats.kurtosis(z) == pytest.approx(0, abs=SIGMAS * math.sqrt(24 / n) + 2e-3)


def test_normal_deviates_pass_kolmogorov_and_smirnov(words):
    z = np.asarray(normal_deviates(words), np.float64).ravel()
    statistic = stats.kstest(z, "norm").statistic
    # Below the critical value at 1e-5, plus half a quantile of the discretisation.
    assert statistic < 2.48 / math.sqrt(z.size) + 0.5 / 65536


def test_every_normal_deviate_is_the_midpoint_of_its_quantile(x64):
    z = np.asarray(normal_deviates(jnp.arange(65536, dtype=jnp.int32)))
    np.testing.assert_allclose(z, stats.norm.ppf((np.arange(65536) + 0.5) / 65536), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(normal_deviates(jnp.arange(65536, dtype=jnp.int32) - 2**31), z)


def test_single_precision_deviates_are_as_exact_as_single_precision_arguments():
    z = np.asarray(normal_deviates(jnp.arange(65536, dtype=jnp.int32)), np.float64)
    exact = stats.norm.ppf((np.arange(65536) + 0.5) / 65536)
    assert np.abs(z - exact).max() < 3e-5
    assert np.abs(z - exact)[np.abs(exact) < 3].max() < 5e-6
    assert np.all(np.diff(z) > 0)
    np.testing.assert_array_equal(z, -z[::-1])


def correlation(x, y):
    """Correlation of two arrays, in standard errors."""
    x, y = x - x.mean(), y - y.mean()
    return (x * y).mean() / np.sqrt((x**2).mean() * (y**2).mean()) * math.sqrt(x.size)


DRAWS = {
    "words": lambda w: np.asarray(w, np.float64),
    "counts": lambda w: np.asarray(binomial_counts(w, binomial_thresholds(8, jnp.float32(0.05), 8)), np.float64),
    "normals": lambda w: np.asarray(normal_deviates(w), np.float64),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("power", [1, 2])
def test_no_correlation_over_time_or_neurons(words, draw, power):
    x = DRAWS[draw](words)
    x = (x - x.mean()) ** power
    for lag in (1, 2, 3, 15, 16, 100, 256):
        assert abs(correlation(x[lag:], x[:-lag])) < SIGMAS, f"lag {lag} steps"
        assert abs(correlation(x[:, lag:], x[:, :-lag])) < SIGMAS, f"{lag} neurons apart"
        assert abs(correlation(x[lag:, 1:], x[:-lag, :-1])) < SIGMAS, f"diagonal {lag}"


def test_population_sums_vary_as_those_of_independent_neurons(words):
    x = DRAWS["normals"](words)
    for axis, count in ((1, STEPS), (0, NEURONS)):
        sums = x.sum(axis)
        variance = x.shape[axis]
        assert sums.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))


@pytest.mark.parametrize("power", [1, 2])
def test_count_and_deviate_of_one_word_are_independent(words, power):
    counts, z = DRAWS["counts"](words), DRAWS["normals"](words)
    assert abs(correlation(counts, z**power)) < SIGMAS
    assert abs(correlation((counts - counts.mean()) ** 2, z**power)) < SIGMAS
    for count in (0, 1, 2):
        given = z[counts == count] ** power
        assert given.mean() == pytest.approx(power - 1, abs=SIGMAS * math.sqrt(power / given.size) + 1e-4)


def test_words_depend_on_the_absolute_step_only(words):
    for first, steps in ((0, 1), (17, 15), (2499, 1), (123, 44)):
        piece = words_of(jax.random.key(7), first, steps, NEURONS)
        np.testing.assert_array_equal(piece, words[first : first + steps])
    assert not np.array_equal(words_of(jax.random.key(8), 0, 3, NEURONS), words[:3])
    assert len(np.unique(np.asarray(words)[:, 0])) > STEPS - 10


def test_words_are_uniform(words):
    counts = np.bincount((np.asarray(words, np.int64).ravel() + 2**31) >> 22, minlength=1024)
    low = np.bincount(np.asarray(words, np.int64).ravel() & 1023, minlength=1024)
    for observed in (counts, low):
        chi2 = ((observed - observed.mean()) ** 2 / observed.mean()).sum()
        assert 1e-5 < stats.chi2.sf(chi2, 1023) < 1 - 1e-5
