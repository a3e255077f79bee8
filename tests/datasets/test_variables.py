"""Series of frames: what they hold, and how windows find them."""

import jax
import numpy as np
import pytest

from jneuro.datasets import WindowConfig, window
from jneuro.datasets.variables import VariableConfig, columns_of, needed, series, shared_unit, units_of
from jneuro.recordings import Recording

RNG = np.random.default_rng(0)
ARRAYS = {
    "v": RNG.normal(size=(8, 60, 3)).astype(np.float32),
    "current": RNG.normal(size=(8, 60, 3)).astype(np.float32),
    "spikes": RNG.poisson(0.3, (8, 60, 3)).astype(np.uint8),
    "external": RNG.poisson(2.0, (8, 60, 3)).astype(np.uint8),
}
RECORDING = Recording(
    values=ARRAYS,  # pyright: ignore
    ok=np.asarray(True),  # pyright: ignore
    first_step=np.asarray(0),  # pyright: ignore
    final_state=None,
    step=0.5,
    record_every=1,
    frames=60,
    unit_pairs=(("v", "mV"), ("current", "pA"), ("spikes", "1"), ("external", "1")),
)
PLAIN = {"discard_ms": 0, "measurement_noise": 0, "length_ms": 4, "stride_ms": 2, "horizons_ms": [2]}


@pytest.mark.parametrize(
    ("names", "units", "shared"),
    [
        (("v",), ["mV"], "mV"),
        (("spikes", "external"), ["1", "1"], "1"),
        (("rate", "population_rate"), ["Hz", "Hz"], "Hz"),
        (("current", "trace"), ["pA", "1"], "mixed units"),
        ((), [], ""),
    ],
)
def test_variables_have_units(names, units, shared):
    found = units_of(RECORDING, names)
    assert found == dict(zip(names, units, strict=True))
    assert shared_unit(found) == shared


def test_longer_frames_sum_counts_and_sample_the_rest():
    config = VariableConfig(frame_ms=3.5)  # 7 samples; the last four of 60 are left over
    for name in ("spikes", "external"):
        expected = ARRAYS[name][:, :56].reshape(8, 8, 7, 3).sum(2)
        np.testing.assert_array_equal(series(RECORDING, name, config), expected)
    np.testing.assert_array_equal(series(RECORDING, "v", config), ARRAYS["v"][:, 6:56:7])


def test_traces_and_rates_are_causal_filters_of_the_spikes():
    config = VariableConfig(trace_ms=5.0, rate_ms=4.0)
    spikes = ARRAYS["spikes"].astype(float)
    lag = np.arange(60)
    kernels = {"trace": np.exp(-lag * 0.5 / 5.0), "rate": np.where(lag < 8, 1e3 / 4.0, 0.0)}
    for name, kernel in kernels.items():
        expected = np.apply_along_axis(lambda x, k=kernel: np.convolve(x, k)[:60], 1, spikes)
        np.testing.assert_allclose(series(RECORDING, name, config), expected, rtol=1e-5, atol=1e-5)
    rate = series(RECORDING, "rate", config)
    np.testing.assert_allclose(series(RECORDING, "population_rate", config)[..., 0], rate.mean(2), rtol=1e-5)


def test_columns_of_several_variables():
    config = WindowConfig(**PLAIN, targets=["v"], inputs=["current", "v"], known=["current"])
    windows = window(RECORDING, config, key=jax.random.key(0))
    assert (windows.features, windows.outputs, windows.own_inputs) == (6, 3, (3, 4, 5))
    batch = windows.gather(windows.starts["train"])
    run, first = np.divmod(np.asarray(windows.starts["train"]), windows.frames_per_trial)
    ahead = first + 7 + 4
    mean, scale = (np.asarray(x)[:3] for x in (windows.scaling.mean, windows.scaling.scale))
    scaled = (ARRAYS["current"][run, ahead] - mean) / scale
    np.testing.assert_allclose(batch.future[:, 0], scaled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(windows.target_scaling.invert(batch.targets)[:, 0], ARRAYS["v"][run, ahead], atol=1e-5)


@pytest.mark.parametrize(
    ("horizons", "expected"),
    [
        ("next_window", range(1, 9)),
        ("same_window", range(-7, 1)),
        ({"first_ms": -3, "last_ms": -1}, range(-6, -1)),
        ([0.5, 3], (1, 6)),
    ],
)
def test_horizons(horizons, expected):
    config = WindowConfig(**PLAIN | {"horizons_ms": horizons}, targets=["spikes"], scaling="none")
    windows = window(RECORDING, config, key=jax.random.key(0))
    assert windows.horizons == tuple(expected)
    batch = windows.gather(windows.starts["test"])
    run, first = np.divmod(np.asarray(windows.starts["test"]), windows.frames_per_trial)
    at = first[:, None] + 7 + np.asarray(expected)
    np.testing.assert_array_equal(batch.targets, ARRAYS["spikes"][run[:, None], at])
    assert windows.count("test") == config.check(30.0, 0.5, 8)["test"]


def test_measurement_noise_is_that_of_the_targets():
    config = WindowConfig(**PLAIN | {"measurement_noise": 0.3}, inputs=["v", "current"], scaling="none")
    values = np.asarray(window(RECORDING, config, key=jax.random.key(0)).values).reshape(8, 60, 6)
    np.testing.assert_array_equal(values[..., 3:], ARRAYS["current"])
    assert np.std(values[..., :3] - ARRAYS["v"]) == pytest.approx(0.3, rel=0.1)


def test_bookkeeping():
    assert needed(("v", "trace", "rate", "spikes")) == ("v", "spikes")
    assert (columns_of("population_rate", 7), columns_of("rate", 7)) == (1, 7)


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("w", {}, "the recording has no 'w'; it has v, current"),
        (
            "v",
            {"frame_ms": 0.7},
            "frame_ms = 0.7 must be a multiple of the recording's 0.5 ms, .*such as 0.5 or 1",
        ),
        (
            "rate",
            {"frame_ms": 2, "rate_ms": 3},
            "rate_ms = 3 must be a multiple of the frames' 2 ms, .*such as 2 or 4",
        ),
    ],
)
def test_what_cannot_be_made(name, config, says):
    with pytest.raises(ValueError, match=says):
        series(RECORDING, name, VariableConfig(**config))


def test_fewer_neurons_are_evenly_spaced_and_only_inputs_are_scaled():
    config = WindowConfig(**PLAIN, targets=["spikes"], inputs=["spikes", "external"], scaling="inputs", neurons=2)
    assert config.kept(3).tolist() == [0, 1]
    assert config.kept(8).tolist() == [0, 4]
    cut = window(RECORDING, config, key=jax.random.key(0))
    values = np.asarray(cut.values).reshape(8, 60, 4)
    np.testing.assert_array_equal(values[..., :2], ARRAYS["spikes"][..., :2])
    seen = values[cut.trials("train"), :, 2:]
    np.testing.assert_allclose(seen.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std((0, 1)), 1, rtol=1e-5)
    np.testing.assert_allclose(
        np.asarray(cut.scaling.invert(cut.values)).reshape(8, 60, 4)[..., 2:], ARRAYS["external"][..., :2], atol=1e-5
    )
    with pytest.raises(ValueError, match="neurons = 2 is more than the recording's 1"):
        config.kept(1)
