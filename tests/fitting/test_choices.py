"""What a fit takes from its recording: samples, the part around the steps, start, bounds and what is a spike."""

from pathlib import Path

import numpy as np
import pytest

from jneuro.experiment.fit_plan import load_fit
from jneuro.fitting.choices import choose
from jneuro.fitting.parameters import Trainable
from jneuro.recordings.recording import from_arrays

pytestmark = pytest.mark.usefixtures("x64")
CONFIG = Path(__file__).parents[2] / "configs" / "fit_recording.yaml"
REST, RESISTANCE, TAU = -58.0, 0.2, 30.0  # mV, GΩ, ms


def recorded(dt=0.05, *, onset=300.0, end=800.0, duration=1200.0, amplitudes=(-50.0, 0.0, 50.0, 200.0), noise=0.0):
    """A passive cell under steps; above 100 pA it spikes every 40 ms, to −5 mV."""
    time = dt * np.arange(round(duration / dt))
    inside = (time >= onset - 1e-9) & (time < end - 1e-9)
    current = np.asarray(amplitudes)[:, None] * inside
    way = np.where(inside, 1 - np.exp(-(time - onset) / TAU), (1 - np.exp((onset - end) / TAU)))
    way = np.where(time >= end, way * np.exp(-(time - end) / TAU), np.where(time >= onset, way, 0.0))
    v = REST + RESISTANCE * np.asarray(amplitudes)[:, None] * way
    for row, amplitude in zip(v, amplitudes, strict=True):
        for t in np.arange(onset + 20, end, 40) if amplitude > 100 else ():
            np.maximum(row, np.interp(time - t, [-1, 0, 1], [-60, -5, -60]), out=row)
    current = current + noise * np.random.default_rng(0).normal(size=current.shape)
    return from_arrays(v=v[..., None], current=current[..., None], dt=dt, units={"current": "pA"})


def chosen(recording, *overrides):
    plan = load_fit(CONFIG, ["recording=cell.nwb", *overrides])
    return choose(plan.config, plan.simulator, recording)


@pytest.mark.parametrize(
    ("dt", "sample"), [(0.05, 0.1), (0.04, 0.08), (0.1, 0.1), (0.02, 0.1), (1 / 30, 0.1), (0.0625, 0.0625), (0.2, 0.2)]
)
def test_samples_of_any_rate(dt, sample):
    found = chosen(recorded(dt))
    assert found.recording.dt == pytest.approx(sample, rel=1e-6)
    assert found.config.cut_ms == pytest.approx((200.0, 900.0), abs=dt)
    assert found.recording.frames == pytest.approx(700 / sample, abs=1)
    assert found.config.sample_ms == pytest.approx(sample, rel=1e-6)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_start_bounds_and_spikes(noise):
    """The bounds hold the configured ones, and those that are as far from this cell's rest and capacitance."""
    found = chosen(recorded(noise=noise))
    plan = load_fit(CONFIG, ["recording=cell.nwb"])
    configured, bounds = plan.config.fit.trainable, found.config.fit.trainable
    assert found.simulator.v_initial == pytest.approx(REST, abs=0.1)
    off = REST - -70
    assert bounds["v_t"] == pytest.approx((configured["v_t"][0], configured["v_t"][1] + off), abs=0.1)
    size = TAU / RESISTANCE / float(plan.simulator.capacitance)
    assert bounds["capacitance"] == pytest.approx((20, 400 * size), rel=0.02)
    assert found.simulator.capacitance == pytest.approx(TAU / RESISTANCE, rel=0.02)
    assert bounds["a"] == configured["a"]
    Trainable.of(found.simulator, bounds)  # whose values lie within
    spikes = found.config.fit.spikes
    assert -60 < spikes.threshold_mv < -5
    assert found.config.fit.spikes.doubt_slow
    said = {c.key: c for c in found.choices}
    assert said["fit.spikes"].why == "from what looks like spikes: 12 in 4 trials"
    assert "one of 2 samples of 0.05 ms" in said["sample_ms"].why
    assert [c.key for c in found.choices].count("fit.trainable") == 2


def test_numbers_stay():
    found = chosen(recorded(), "sample_ms=0.2", "cut_ms=[100,1000]", "adapt=false", "fit.spikes={threshold_mv: -20}")
    assert found.choices == []
    assert found.recording.dt == pytest.approx(0.2)
    assert found.recording.frames == 4500
    assert found.simulator.v_initial == -70


def test_currents_without_steps():
    """What cannot be told is said, and configured bounds stay."""
    time = np.arange(20_000) * 0.1
    for current in (np.interp(time, [0, 2000], [0, 100]), 0 * time):
        silent = from_arrays(v=REST + 0 * time, current=current, dt=0.1, units={"current": "pA"})
        found = chosen(silent)
        assert found.config.cut_ms == (0.0, 2000.0)
        said = {c.key: c.why for c in found.choices}
        assert "no step without spikes" in said["fit.trainable"]
        assert said["cut_ms"] == "all, since the current does not go in steps"
    long = from_arrays(v=np.full(250_000, REST), current=np.zeros(250_000), dt=0.1, units={"current": "pA"})
    assert chosen(long).config.cut_ms == (0.0, 20_000.0)


@pytest.mark.parametrize(
    ("levels", "part"),
    [  # of each trial, in pieces of 500 ms
        ([[0, 10, 0], [0, 20, 0]], (400, 1100)),
        ([[0, 0, 10], [0, 0, 20]], (900, 1500)),
        ([[10, 0, 0], [20, 0, 0]], (0, 600)),
        ([[0, 10, -5], [0, 20, -5]], (400, 1100)),
        ([[0, 10, 0]], (400, 1100)),
        ([[0, 0, 10]], (0, 1500)),
        ([[10, 0, 0]], (0, 1500)),
    ],
)
def test_no_step_is_cut(levels, part):
    current = np.repeat(np.asarray(levels, float), 5000, axis=1)[..., None]
    silent = from_arrays(v=REST + 0 * current, current=current, dt=0.1, units={"current": "pA"})
    assert chosen(silent).config.cut_ms == part


def test_many_pulses_are_fitted_by_times():
    time = np.arange(20_000) * 0.1
    pulses = 100.0 * (time % 50 < 2)
    found = chosen(from_arrays(v=REST + 0 * time, current=pulses, dt=0.1, units={"current": "pA"}))
    assert [part.name for part in found.config.fit.objective] == ["spike_times", "subthreshold", "rates"]
    assert found.choices[-1].why == "the current has 80 stretches, more than the 64 that ordered_spikes takes"
