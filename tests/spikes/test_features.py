"""Features of traces whose features are known, and their derivatives against differences."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.spikes.features import FEATURES, extract, feature_function
from jneuro.spikes.protocols import main_step

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


def found_in(v, current, **options):
    found = extract(v, current, DT, **options)
    assert {n for n, x in found.values.items() if np.isnan(x)} == set(found.missing)
    return found


@precise
def test_spikes_of_known_shape():
    v, current = triangles()
    found = found_in(v, current).values
    crossed = np.array([30.0, 45.0, 65.0, 90.0]) - 30 / 80  # peak 30, rising 80 mV in 1 ms
    interval = np.diff(crossed)
    expected = {
        "Spikecount": 4.0,
        "Spikecount_stimint": 4.0,
        "rate": 40.0,
        "time_to_first_spike": crossed[0] - 20.0,
        "mean_interval": interval.mean(),
        "ISI_CV": interval[1:].std(ddof=1) / interval[1:].mean(),
        "adaptation_index": np.mean([5 / 35, 5 / 45]),
        "AP_amplitude": 80.0,
        "AP_duration_half_width": 0.5 + 40 / 47.5,  # to half of it, -10 mV, in 95 mV by 2 ms
        "AP_begin_voltage": -50.0,
        "AHP_depth": -5.0,
        "voltage_base": -60.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name


@precise
def test_spikes_outside_of_the_step_do_not_count():
    """Nor does noise of the current matter, or whether the step is found or given."""
    inside = (30.0, 45.0, 65.0, 90.0)
    v, current = triangles(at=(5.0, 11.5, *inside, 126.0, 140.0))
    alone, _ = triangles(at=inside)
    noisy = current + 1e-4 * np.random.default_rng(0).normal(size=len(current))
    wanted = found_in(alone, current).values
    ways = {"found": (current, {}), "noisy": (noisy, {}), "given": (0 * current, {"onset": 20.0, "end": 120.0})}
    for way, (seen, options) in ways.items():
        found = found_in(v, seen, **options).values
        assert found["Spikecount"] == pytest.approx(8, rel=1e-3)
        for name in set(FEATURES) - {"Spikecount", "voltage_base", "ohmic_input_resistance_vb_ssse", "membrane_tau"}:
            assert found[name] == pytest.approx(wanted[name], abs=1e-2), (way, name)


@precise
def test_no_spike_is_left_out():
    """However many there are; this was 64, and 16 for shapes."""
    time = DT * np.arange(20000)
    at = np.cumsum(np.linspace(4.0, 12.0, 118)) + 20
    v = np.full(len(time), -60.0)
    for t in at:
        v = np.maximum(v, np.interp(time - t, [-0.5, 0, 0.5], [-60, 40, -60]))
    v += np.where(time > 500, 5.0, 0.0)  # later spikes begin higher
    found = found_in(v, np.where((time >= 10) & (time < 990), 1.0, 0.0)).values
    interval = np.diff(at)
    assert found["Spikecount"] == pytest.approx(118, rel=1e-3)
    assert found["mean_interval"] == pytest.approx(interval.mean(), rel=1e-3)
    assert found["ISI_CV"] == pytest.approx(interval[1:].std(ddof=1) / interval[1:].mean(), rel=5e-3)
    assert found["AP_begin_voltage"] == pytest.approx(-60 + 5 * np.mean(at > 500), abs=0.2)


@precise
def test_a_passive_membrane():
    time, current = step(-50.0)
    tau, resistance = 12.0, 0.2
    v = -70 + resistance * -50 * (1 - np.exp(-np.maximum(time - 20, 0) / tau)) * (time < 120)
    seen = found_in(v, current)
    found = seen.values
    assert found["membrane_tau"] == pytest.approx(tau, rel=0.02)
    assert found["ohmic_input_resistance_vb_ssse"] == pytest.approx(resistance, rel=1e-2)
    assert found["voltage_base"] == pytest.approx(-70)
    assert found["Spikecount"] == pytest.approx(0, abs=1e-3)
    assert found["time_to_first_spike"] == pytest.approx(100)
    assert seen.missing["mean_interval"] == "fewer than 2 spikes in the step"
    assert {"mean_interval", "ISI_CV", "adaptation_index", "AP_duration_half_width", "AHP_depth"} <= set(seen.missing)
    # A sag makes the area negative.
    inside = (time >= 20) & (time < 120)
    sag = -70 - np.where(inside, 10 + 8 * np.exp(-(time - 20) / 20), 0)
    assert "a sag" in found_in(sag, current).missing["membrane_tau"]
    assert found_in(v, 0 * current).missing["ohmic_input_resistance_vb_ssse"] == "no step"


@precise
def test_derivatives_are_those_of_the_features():
    """Along two directions in which the trace may change; a feature that is missing does not spoil the others."""
    v, current = triangles()
    time = DT * np.arange(len(v))
    along = np.stack([np.sin(time / 17.0), np.cos(time / 5.0) + 0.01 * time])
    (where,) = main_step(current[None], DT)
    names = [n for n in FEATURES if n != "membrane_tau"]
    every = feature_function(names)

    def f(s, v):
        return every(v + s @ along, None, DT, step=where)

    value, slope = jax.jit(f), jax.jit(jax.jacfwd(f))
    at, h = jnp.asarray([0.3, 0.2]), 1e-6
    exact = np.asarray(slope(at, v))
    for k in range(2):
        ahead, behind = (np.asarray(value(at.at[k].add(s * h), v)) for s in (1, -1))
        np.testing.assert_allclose(exact[:, k], (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)
    assert (exact != 0).all()
    silent = np.full(len(v), -60.0)
    assert np.isfinite(slope(at, silent)).all()
    tau = jax.jit(jax.grad(lambda s: feature_function(["membrane_tau"])(silent + s @ along, None, DT, step=where)[0]))
    assert np.isfinite(tau(at)).all()


REFERENCE = Path(__file__).parents[1] / "reference"
APART = {  # how far ours may be from eFEL's, and why
    "Spikecount_stimint": (0.9, "ours are smooth: spikes that hardly pass the threshold count in part"),
    "time_to_first_spike": (0.3, "eFEL's spikes are where they peak"),
    "ISI_CV": (0.0095, "eFEL's times are those of samples"),
    "adaptation_index": (0.008, "the same"),
    "AP_begin_voltage": (1.1, "eFEL's slope is wider than two samples, and must be steep in three"),
    "AP_amplitude": (1.1, "the same"),
    "AP_duration_half_width": (0.34, "eFEL's crossings are samples; it also takes a spike that the step's end cuts"),
    "AHP_depth": (0.5, "bursts"),
    "voltage_base": (1e-6, "no difference"),
    "ohmic_input_resistance_vb_ssse": (1e-6, "no difference"),
}


def test_features_are_those_of_efel(x64):
    """Of 21 traces of our cells; where eFEL has none, ours are NaN, but a first spike is put at the end."""
    data, held = (dict(np.load(REFERENCE / f"{name}.npz")) for name in ("traces", "spikes"))
    names, dt = json.loads(str(held["settings"]))["features"], float(data["dt"])
    begin, end = (round(float(data[x]) / dt) - 1 for x in ("onset", "end"))
    current = np.zeros(data["v"].shape)
    current[:, begin:end] = data["amplitude"][:, None]
    of = jax.jit(lambda v, step: feature_function(names)(v, None, dt, step=step))
    steps = [main_step(c[None], dt)[0] for c in current]
    potentials = data["v"].astype(float)
    ours = np.stack([of(v, step) for v, step in zip(potentials, steps, strict=True)])
    count = jax.jit(lambda v, step: feature_function(["Spikecount_stimint"], smooth=False)(v, None, dt, step=step))
    whole = [float(count(v, step)[0]) for v, step in zip(potentials, steps, strict=True)]
    np.testing.assert_array_equal(whole, held["features"][:, names.index("Spikecount_stimint")])
    for name, found, wanted in zip(names, ours.T, held["features"].T, strict=True):
        known = np.isfinite(wanted)
        if name == "time_to_first_spike":
            np.testing.assert_allclose(found[~known], 250)
        elif name != "Spikecount":  # eFEL's is that of the step, as it was told
            assert (np.isfinite(found) == known).all(), name
            assert np.abs(found - wanted)[known].max() <= APART[name][0], name


def test_what_is_refused():
    with pytest.raises(ValueError, match="'AP_amplitud'; did you mean 'AP_amplitude'"):
        feature_function(["AP_amplitud"])
    with pytest.raises(ValueError, match=r"the current is traced.*give step=main_step"):
        jax.jit(lambda c: feature_function(["rate"])(c, c, DT))(jnp.zeros(10))
