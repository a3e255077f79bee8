"""Errors in bins, against sums written out."""

import numpy as np
import pytest

from jneuro.analyses.error_analysis import ErrorAnalysis, binned_error, time_since_spike
from jneuro.datasets import WindowConfig


def test_time_since_the_last_spike():
    spikes = np.zeros((1, 6, 2), np.uint8)
    spikes[0, [1, 4], 0] = 1, 2
    since = time_since_spike(spikes)
    np.testing.assert_array_equal(since[0, :, 0], [np.inf, 0, 1, 2, 0, 1])
    assert np.isinf(since[0, :, 1]).all()


def test_errors_in_bins():
    rng = np.random.default_rng(0)
    error, truth, by = rng.normal(size=(3, 40, 5))
    by[0, 0] = np.inf
    runs = np.repeat([3, 7, 8, 9], 10)
    edges = np.array([-1.0, 0.0, 0.5, by[by < np.inf].max()])
    rmse, _, r2 = binned_error(error, truth, by, edges, runs)
    for k in range(3):
        inside = (by >= edges[k]) & ((by < edges[k + 1]) | ((k == 2) & (by == edges[-1])))
        assert rmse[k] == pytest.approx(np.sqrt(np.mean(error[inside] ** 2)))
        assert r2[k] == pytest.approx(1 - np.mean(error[inside] ** 2) / truth[inside].var())
    # The standard error against its spread over many data sets.
    many = [binned_error(rng.normal(size=(40, 5)), truth, by, edges, runs)[:2] for _ in range(400)]
    spread = np.std([m[0] for m in many], axis=0)
    np.testing.assert_allclose(np.mean([m[1] for m in many], axis=0), spread, rtol=0.25)
    assert np.isnan(binned_error(error, truth, by, np.array([90.0, 91.0, 92.0]), runs)[0]).all()


def test_needs_the_past_of_its_target():
    with pytest.raises(ValueError, match="one variable, which is observed"):
        ErrorAnalysis().check(WindowConfig(inputs=["current"]), ["m"])
    ErrorAnalysis().check(WindowConfig(), ["m"])
