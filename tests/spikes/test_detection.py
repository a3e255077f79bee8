"""What is a spike, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.spikes.detection import (
    Detector,
    away_from_spikes,
    crossings,
    peaks,
    raster_times,
    soft_spikes,
    spike_like,
    upward,
)


def test_crossings_and_peaks_of_a_triangle_wave():
    dt, period = 0.05, 4.0
    time = dt * np.arange(400)
    v = 40 * (1 - 4 * np.abs((time / period) % 1 - 0.5))  # −40 at 0, 0 at a quarter, +40 at half a period
    np.testing.assert_allclose(crossings(v, dt), period * (np.arange(5) + 0.25), atol=1e-9)
    np.testing.assert_allclose(crossings(v, dt, 20.0), period * (np.arange(5) + 0.375), atol=1e-9)
    np.testing.assert_allclose(peaks(v), np.full(5, 40.0))
    # A trace that begins above threshold has not crossed it there.
    assert len(peaks(v[40:])) == len(crossings(v[40:], dt)) == 4


def test_a_spike_returns_before_the_next():
    """NumPy and JAX alike; without hysteresis, every crossing counts."""
    v = np.array([-60.0, 20, -1, 1, -3, 2, -60, -1, 1, -60, 30, 30, -5, 40, -11, 40])
    np.testing.assert_array_equal(np.flatnonzero(upward(v)), [0, 2, 4, 7, 9, 12, 14])
    np.testing.assert_array_equal(np.flatnonzero(upward(v, fall=10.0)), [0, 7, 9, 14])
    assert not upward(v[2:5], fall=10.0).any()  # it begins near the threshold
    trials = np.stack([v, v[::-1]])
    for fall in (0.0, 10.0):
        both = jax.jit(lambda v, fall=fall: upward(v, fall=fall))(jnp.asarray(trials))
        np.testing.assert_array_equal(upward(trials, fall=fall), both)
        np.testing.assert_array_equal(upward(trials, fall=fall)[0], upward(v, fall=fall))
    assert len(crossings(v, 0.1, fall=10.0)) == 4


DT = 0.1
TIME = DT * np.arange(4000)


def spiking(at, low=-65.0, top=30.0):
    """Spikes that rise in .5 ms and fall in 1 ms, after a foot."""
    v = np.full(len(TIME), low)
    for t in at:
        shape = np.interp(
            TIME - t, [-4, -0.5, 0, 1, 4], [0, 0.1 * (top - low), top - low, 0, 0], left=np.nan, right=np.nan
        )
        v = np.fmax(v, low + shape)
    return v


AT = np.arange(20.0, 380.0, 12.0)
NOISE = np.random.default_rng(0).normal(size=len(TIME))
BLOCK = np.where((TIME > 100) & (TIME < 300), -0.3, -65.0) + 1.5 * NOISE
DETECTED = {  # potential, detector, number of spikes, doubt
    "spikes": (spiking(AT), {}, 30, ""),
    "noisy spikes": (spiking(AT) + 0.3 * NOISE, {}, 30, ""),
    "silence": (-65 + NOISE, {}, 0, ""),
    "too low": (spiking(AT, top=-8.0), {}, 0, "30 peaks that look like spikes stay below the threshold of 0 mV"),
    "lower threshold": (spiking(AT, top=-8.0), {"threshold_mv": -20.0}, 30, ""),
    "automatic": (spiking(AT, top=-8.0), {"threshold_mv": "auto"}, 30, ""),
    "automatic, of small ones": (spiking(AT, low=-24.0, top=-11.0), {"threshold_mv": "auto"}, 30, ""),
    "automatic, of none": (-65 + NOISE, {"threshold_mv": "auto"}, 0, ""),
    "by slope": (spiking(AT, top=-8.0), {"slope": 20.0}, 30, ""),
    "by a slope that is too steep": (spiking(AT, top=-8.0), {"slope": 500.0}, 0, ""),
    "one too low": (spiking(AT[:1], top=-8.0), {}, 0, "1 peak that looks like a spike stays below the threshold"),
    "on a plateau": (
        spiking(AT, low=-6.0, top=25.0),
        {},
        0,
        "30 peaks that look like spikes pass the threshold of 0 mV, but before only 0 of them the potential has "
        "returned 10 mV below it",
    ),
    "automatic, on a plateau": (spiking(AT, low=-6.0, top=25.0), {"threshold_mv": "auto"}, 30, ""),
    "automatic, slow waves": (
        spiking(AT[:3]) + 45 * np.exp(-0.5 * ((TIME[:, None] - np.arange(150, 400, 40)) / 4) ** 2).sum(1),
        {"threshold_mv": "auto"},
        None,
        "look like spikes, the others are slow",
    ),
    "a block": (BLOCK, {}, 1, "it rests there, as in a depolarisation block, and most are no spikes"),
    "noise": (-0.5 + 4 * NOISE, {}, None, "no spikes"),
    "noise that returns": (-6 + 6 * NOISE, {"return_mv": 5.0}, None, "alone may cross the threshold"),
}


@pytest.mark.parametrize("name", DETECTED)
def test_detected(name):
    v, options, count, doubt = DETECTED[name]
    found = Detector(**options)(v[None], DT)
    assert doubt in found.doubts[0]
    assert bool(doubt) == bool(found.doubts[0])
    if count is not None:
        assert len(found.times[0]) == count
    if count == 30:
        assert np.abs(found.times[0] - AT).max() < 1.0


def test_peaks_that_look_like_spikes():
    """Neither an artefact of a step nor a slow wave does."""
    artefact = np.where(TIME > 50, -40.0, -65.0)
    wave = -55 + 15 * np.sin(2 * np.pi * TIME / 20)
    ones = [spike_like(v, DT)[0] for v in (artefact, wave, spiking(AT), spiking(AT) + 0.3 * NOISE)]
    assert [len(x) for x in ones] == [0, 0, 30, 30]
    np.testing.assert_allclose(DT * ones[2], AT, atol=1e-9)


def test_a_detector_is_checked():
    with pytest.raises(ValueError, match="threshold_mv"):
        Detector(threshold_mv="often")  # pyright: ignore
    with pytest.raises(ValueError, match="return_mv"):
        Detector(return_mv=-1)


def test_away_from_spikes_and_times_of_rasters():
    spikes = np.zeros((1, 1000))
    spikes[0, [200, 600]] = 1
    for away in (away_from_spikes(spikes, DT), np.asarray(away_from_spikes(jnp.asarray(spikes), DT))):
        np.testing.assert_allclose(DT * (np.flatnonzero(np.diff(away[0])) + 1), [17.0, 32.1, 57.0, 72.1], atol=0.11)
    spread = np.zeros(100)
    spread[[10, 11, 50]] = 0.25, 0.75, 1.0
    np.testing.assert_allclose(raster_times(spread, 1.0), [10 + 1 / 3, 49.5])


def test_a_failing_spike_counts_in_part(x64):
    time = np.arange(200) * 0.05
    counts = [float(soft_spikes(jnp.asarray(peak * np.sin(np.pi * time / 10) - 60)).sum()) for peak in (30, 58, 66, 90)]
    assert np.all(np.diff(counts) > 0)
    assert counts[0] < 0.01 < 0.3 < counts[1] < 0.5 < counts[2] < counts[3]
    assert counts[3] == pytest.approx(1, abs=1e-3)
    ramp = np.interp(time, [0, 5, 10], [-70, 30, -70])
    whole, part = (float(soft_spikes(jnp.asarray(ramp), threshold).sum()) for threshold in (0.0, 30.0))
    assert (whole, part) == (pytest.approx(1.0, abs=0.01), pytest.approx(0.5, abs=0.1))
