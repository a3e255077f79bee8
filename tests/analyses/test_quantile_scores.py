"""Pinball loss, skill and calibration of quantile forecasts, against closed forms."""

import numpy as np
import pytest

from jneuro.analyses.quantile_scores import calibration, pinball_skill, residual_quantiles

LEVELS = (0.1, 0.5, 0.9)
RUNS = np.repeat(np.arange(5), 4000)
TRUTH = np.random.default_rng(0).random((20000, 1))


def test_the_loss_of_uniform_quantiles():
    # The expected loss of the true quantile q of a uniform variable is q (1 − q) / 2.
    true = np.broadcast_to(np.array(LEVELS), (*TRUTH.shape, 3))
    found = pinball_skill(true, np.full((1, 3), 0.5), TRUTH, LEVELS, RUNS)
    assert found["loss"] == pytest.approx(sum(q * (1 - q) / 2 for q in LEVELS), rel=0.02)
    # The median alone loses 1/8 at every level.
    assert found["skill"] == pytest.approx(1 - (0.045 * 2 + 0.125) / 0.375, abs=0.01)
    assert 0 < found["skill_se"] < 0.02


def test_calibrated_and_crossed_quantiles():
    true = np.broadcast_to(np.array(LEVELS), (*TRUTH.shape, 3))
    found = calibration(true, TRUTH, LEVELS, RUNS)
    np.testing.assert_allclose(found["not_above"], LEVELS, atol=0.02)
    np.testing.assert_allclose(found["not_above_se"], np.sqrt([0.09 / 2e4, 0.25 / 2e4, 0.09 / 2e4]), rtol=0.8)
    assert found["crossed"] == 0
    assert calibration(true[..., ::-1], TRUTH, LEVELS, RUNS)["crossed"] == 1


def test_ties_span_a_level():
    counts = np.array([[0.0], [0.0], [0.0], [1.0]])
    found = calibration(np.zeros((4, 1, 1)), counts, (0.5,), np.arange(4))
    assert (found["below"], found["not_above"]) == ([0.0], [0.75])


def test_residual_quantiles_are_by_target():
    truth = np.stack([np.arange(101.0), 2 * np.arange(101.0)], 1)
    np.testing.assert_allclose(residual_quantiles(truth * 0 + 1, truth, LEVELS), [[9, 49, 89], [19, 99, 179]])
