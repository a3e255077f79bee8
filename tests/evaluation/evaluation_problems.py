"""Processes whose best forecast is known."""

import jax
import numpy as np

from jneuro.datasets import WindowConfig, Windows, window
from jneuro.recordings import Recording


def cut(values, *, length=5, stride=1, horizons=(1,), key=0, **more) -> Windows:
    """Windows over values `[trial, time, neuron]` at 1 ms."""
    recording = Recording(
        values={"v": np.asarray(values, np.float32)},
        ok=np.asarray(True),
        first_step=np.asarray(0),
        final_state=None,
        step=1.0,
        record_every=1,
        frames=values.shape[1],
        unit_pairs=(("v", "mV"),),
    )
    config = WindowConfig(
        discard_ms=0, measurement_noise=0, length_ms=length, stride_ms=stride, horizons_ms=horizons, **more
    )
    return window(recording, config, key=jax.random.key(key))


def linear_process(lags, noise, *, runs=30, frames=1500, seed=0):
    """x_t = Σ_k lags[k] x_{t-1-k} + e_t with covariance `noise`, `[run, time, neuron]`."""
    lags, rng = np.asarray(lags, float), np.random.default_rng(seed)
    order, neurons = len(lags), len(noise)
    shocks = rng.normal(size=(200 + frames, runs, neurons)) @ np.linalg.cholesky(noise).T
    x = np.zeros((200 + frames, runs, neurons))
    for t in range(order, 200 + frames):
        x[t] = shocks[t] + sum(x[t - 1 - k] @ lags[k].T for k in range(order))
    return x[200:].swapaxes(0, 1)


def linear_theory(lags, noise, horizons):
    """Covariance of the process at lag 0 and at each horizon, and the error of the best forecast at each."""
    lags = np.asarray(lags, float)
    order, neurons = len(lags), len(noise)
    # The companion form: a first-order process of stacked lags.
    step = np.zeros((order * neurons,) * 2)
    step[:neurons] = np.concatenate(list(lags), axis=1)
    step[neurons:, :-neurons] = np.eye((order - 1) * neurons)
    shock = np.zeros_like(step)
    shock[:neurons, :neurons] = noise
    power, covariance, errors, lagged = np.eye(len(step)), np.zeros_like(step), {}, {}
    for k in range(2000):
        if k in horizons:
            errors[k] = np.diag(covariance[:neurons, :neurons]).copy()
        covariance = covariance + power @ shock @ power.T
        power = power @ step
    for h in horizons:
        lagged[h] = np.diag((np.linalg.matrix_power(step, h) @ covariance)[:neurons, :neurons])
    return np.diag(covariance)[:neurons], lagged, errors
