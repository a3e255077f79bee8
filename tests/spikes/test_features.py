"""Features of traces whose features are known, and their derivatives against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.fitting.features import FEATURES, feature_function, soft_count, spike_times

DT = 0.05
precise = pytest.mark.usefixtures("x64")


def step(amplitude=10.0, onset=20.0, end=120.0, duration=150.0):
    time = DT * np.arange(round(duration / DT))
    return time, np.where((time >= onset - 1e-9) & (time < end - 1e-9), amplitude, 0.0)


def triangles(at=(30.0, 45.0, 65.0, 90.0), low=-60.0, begin=-50.0, peak=30.0, rise=1.0, fall=2.0):
    """Spikes that rise from `begin` to `peak` and fall back to `low`, each in straight lines."""
    time, current = step()
    v = np.full(len(time), low)
    for t in at:
        corners = [t - 40.0, t - rise, t, t + fall, t + fall + 60.0]
        shape = np.interp(time, corners, [begin, begin, peak, low - 5, begin], left=low, right=low)
        v = np.where((time > t - 5) & (time < t + fall + 3), shape, v)
    return v, current


@pytest.fixture(scope="module")
def every():
    return jax.jit(lambda v, current: {n: f(v, current, DT) for n, f in FEATURES.items()})


@precise
def test_spikes_of_known_shape(every):
    v, current = triangles()
    found = {n: float(x) for n, x in every(v, current).items()}
    crossed = np.array([30.0, 45.0, 65.0, 90.0]) - 30 / 80  # peak 30, rising 80 mV in 1 ms
    np.testing.assert_allclose(spike_times(jnp.asarray(v), DT, slots=5)[:4], crossed, atol=1e-9)
    interval = np.diff(crossed)
    expected = {
        "count": 4.0,
        "rate": 40.0,
        "latency": crossed[0] - 20.0,
        "mean_interval": interval.mean(),
        "interval_cv": interval.std() / interval.mean(),
        "adaptation": np.mean([5 / 35, 5 / 45]),
        "ap_height": 80.0,
        "ap_width": 0.5 + 40 / 47.5,  # to half of it, -10 mV, in 95 mV by 2 ms
        "ap_threshold": -50.0,
        "ahp_depth": 15.0,
        "rest": -60.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name


@precise
def test_a_passive_membrane(every):
    time, current = step(-50.0)
    tau, resistance = 12.0, 0.2
    v = -70 + resistance * -50 * (1 - np.exp(-np.maximum(time - 20, 0) / tau)) * (time < 120)
    found = every(v, current)
    assert float(found["membrane_tau"]) == pytest.approx(tau, rel=0.02)
    assert float(found["input_resistance"]) == pytest.approx(resistance, rel=1e-2)
    assert float(found["rest"]) == pytest.approx(-70)
    assert float(found["count"]) == pytest.approx(0, abs=1e-3)
    assert float(found["latency"]) == pytest.approx(time[-1] - 20)
    for name in ("mean_interval", "interval_cv", "adaptation", "ap_width", "ahp_depth"):
        assert np.isnan(found[name]), name


@precise
def test_derivatives_are_those_of_the_features():
    """Along two directions in which the trace may change; a feature that is missing does not spoil the others."""
    v, current = triangles()
    time = DT * np.arange(len(v))
    along = np.stack([np.sin(time / 17.0), np.cos(time / 5.0) + 0.01 * time])
    every = feature_function(list(FEATURES))

    def f(s, v):
        return every(v + s @ along, current, DT)

    value, slope = jax.jit(f), jax.jit(jax.jacfwd(f))
    at, h = jnp.asarray([0.3, 0.2]), 1e-6
    exact = np.asarray(slope(at, v))
    for k in range(2):
        ahead, behind = (np.asarray(value(at.at[k].add(s * h), v)) for s in (1, -1))
        np.testing.assert_allclose(exact[:, k], (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)
    assert (exact != 0).all()
    assert np.isfinite(slope(at, np.full(len(v), -60.0))).all()


@precise
def test_a_spike_that_fails_counts_in_part():
    time = np.arange(200) * DT
    counts = [float(soft_count(jnp.asarray(peak * np.sin(np.pi * time / 10) - 60))) for peak in (30, 58, 66, 90)]
    assert np.all(np.diff(counts) > 0)
    assert counts[0] < 0.01 < 0.3 < counts[1] < 0.5 < counts[2] < counts[3]
    assert counts[3] == pytest.approx(1, abs=1e-3)


def test_unknown_features_are_refused():
    with pytest.raises(ValueError, match=r"'ap_hight'; did you mean 'ap_height'"):
        feature_function(["ap_hight"])
