"""Statistics of interspike intervals against loops and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.spikes.intervals import adaptation_index, isi_cv


def trains(intervals):
    """Events of several trains of given intervals, shuffled."""
    time = np.concatenate([np.cumsum(i) for i in intervals])
    which = np.repeat(np.arange(len(intervals)), [len(i) for i in intervals])
    order = np.random.default_rng(0).permutation(len(time))
    return time[order], which[order] // 3, which[order] % 3


def test_isi_cv_against_a_loop():
    rng = np.random.default_rng(0)
    intervals = [
        rng.gamma(shape, size=n) for shape, n in zip([1, 2, 4, 8, 16, 1], [30, 40, 50, 20, 12, 11], strict=True)
    ]
    direct = [i[1:].std(ddof=1) / i[1:].mean() for i in intervals if len(i) - 1 >= 10]
    assert isi_cv(*trains(intervals)) == pytest.approx(np.mean(direct))
    direct = [i[1:].std(ddof=1) / i[1:].mean() for i in intervals if len(i) - 1 >= 25]
    assert isi_cv(*trains(intervals), least=25) == pytest.approx(np.mean(direct))
    assert len(direct) == 3


def test_isi_cv_of_poisson_and_regular_trains():
    rng = np.random.default_rng(1)
    poisson = isi_cv(*trains([rng.exponential(20, 2000) for _ in range(6)]))
    # The CV of n exponential intervals has variance 1/n.
    assert poisson == pytest.approx(1, abs=4 / np.sqrt(6 * 2000))
    assert isi_cv(*trains([np.full(50, 8.0), np.full(30, 2.0)])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("length", [0, 1, 10])
def test_isi_cv_of_too_few_spikes(length):
    assert np.isnan(isi_cv(*trains([np.ones(length)])))


def test_adaptation_index():
    interval = np.array([10.0, 15.0, 20.0, 30.0])
    wanted = np.mean([5 / 25, 5 / 35, 10 / 50])
    assert adaptation_index(interval) == pytest.approx(wanted)
    padded = jnp.asarray([*interval, np.nan, np.nan])
    assert float(adaptation_index(padded)) == pytest.approx(wanted)
    assert np.isnan(adaptation_index(np.ones(1)))
    assert np.isnan(adaptation_index(np.ones(0)))
