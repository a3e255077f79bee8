"""Principal axes, R² by lag and the variance of a code, against closed forms."""

import jax
import numpy as np
import pytest

from jneuro.analyses.reconstruction import code_spectrum, explained, principal_axes

RNG = np.random.default_rng(0)


def test_principal_axes_are_those_of_the_covariance():
    values = (RNG.normal(size=(300, 30)) * np.linspace(5, 1, 30) ** 2 + 3).astype(np.float32)
    axes = principal_axes(values, 4, rounds=8, key=jax.random.key(0))
    expected = np.linalg.eigh(np.cov(values, rowvar=False))[1][:, ::-1][:, :4].T
    np.testing.assert_allclose(np.abs(axes @ expected.T), np.eye(4), atol=1e-3)


def test_explained_variance_by_lag():
    truth = RNG.normal(size=(40, 3, 5))
    runs = np.repeat(np.arange(4), 10)
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    half = np.stack([truth[:, 0], mean[:, 1], (truth[:, 2] + mean[:, 2]) / 2], 1)
    found = explained(half, truth, runs)
    np.testing.assert_allclose(found["lags"], [1, 0, 0.75], atol=1e-12)
    spread = np.square(truth - mean).sum((0, 2))
    assert found["r2"] == pytest.approx((spread[0] + 0.75 * spread[2]) / spread.sum())
    assert found["r2_se"] > 0


def test_the_spectrum_of_a_code():
    code = np.zeros((8, 4))
    code[:, 0], code[:, 2] = np.tile([3, -3], 4), np.repeat([1, -1], 4)
    np.testing.assert_allclose(code_spectrum(code), [0.9, 0.1, 0, 0], atol=1e-12)
