"""Windows lie where they say, and no split sees another's runs."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jneuro.core.config import ConfigError
from jneuro.datasets import SPLITS, Fractions, WindowConfig, Windows, fit_scaling, split_indices, window, window_starts
from jneuro.recordings import Recording

KEY = jax.random.key(3)


def recording(values, dt=1.0, name="v"):
    """A recording of given values `[trial, time, neuron]`."""
    return Recording(
        values={name: values},
        ok=np.asarray(True),
        first_step=np.asarray(0),
        final_state=None,
        step=dt,
        record_every=1,
        frames=values.shape[1],
        unit_pairs=((name, "mV"),),
    )


def labelled(runs, frames, neurons=2):
    """Each value says where it comes from: 1000·run + frame, and half of that for the second neuron."""
    where = 1000.0 * np.arange(runs)[:, None] + np.arange(frames)
    return (where[..., None] / np.arange(1, neurons + 1)).astype(np.float32)


def settings_of(**more):
    return WindowConfig(**{"discard_ms": 0, "measurement_noise": 0, "length_ms": 6, "stride_ms": 2, **more})


sizes = st.fixed_dictionaries(
    {
        "runs": st.integers(4, 12),
        "frames": st.integers(30, 90),
        "discard": st.integers(0, 10),
        "length": st.integers(1, 9),
        "stride": st.integers(1, 12),
        "horizons": st.lists(st.integers(1, 10), min_size=1, max_size=3, unique=True).map(sorted),
        "seed": st.integers(0, 9),
    }
)


def config_of(case):
    return settings_of(
        discard_ms=case["discard"],
        length_ms=case["length"],
        stride_ms=case["stride"],
        horizons_ms=case["horizons"],
        fractions={"train": 0.5, "validation": 0.25, "test": 0.25},
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(sizes)
def test_no_window_crosses_runs_or_touches_a_run_of_another_split(case):
    config = config_of(case)
    values = labelled(case["runs"], case["frames"])
    windows = window(recording(values), config, key=jax.random.key(case["seed"]))
    frames = case["frames"] - case["discard"]
    expected = (frames - case["length"] - case["horizons"][-1]) // case["stride"] + 1
    owners = {}
    for split in SPLITS:
        starts = np.asarray(windows.starts[split])
        last = starts + case["length"] - 1 + case["horizons"][-1]
        np.testing.assert_array_equal(starts // frames, last // frames)
        owners[split] = set((starts // frames).tolist())
        assert sorted(owners[split]) == windows.trials(split).tolist()
        assert windows.count(split) == expected * len(owners[split])
        assert len(set(starts.tolist())) == len(starts)
    assert set.union(*owners.values()) == set(range(case["runs"]))
    assert sum(map(len, owners.values())) == case["runs"]
    assert not windows.leaky


@pytest.mark.parametrize(
    ("discard", "length", "stride", "horizons"),
    [(0, 1, 1, [1]), (3, 6, 2, [1, 2, 5]), (10, 9, 12, [10]), (1, 5, 7, [2, 9])],
)
def test_gather_is_slicing(discard, length, stride, horizons):
    case = {"runs": 6, "frames": 40, "discard": discard, "length": length, "stride": stride, "horizons": horizons}
    config = config_of(case)
    values = labelled(case["runs"], case["frames"])
    windows = window(recording(values), config, key=KEY)
    starts = windows.starts["test"][:7]
    batch = windows.gather(starts)
    frames = case["frames"] - case["discard"]
    for n, start in enumerate(np.asarray(starts)):
        run, first = divmod(int(start), frames)
        first += case["discard"]
        last = first + case["length"] - 1
        mean, scale = np.asarray(windows.scaling.mean), np.asarray(windows.scaling.scale)
        expected = (values[run, first : last + 1] - mean) / scale
        np.testing.assert_array_equal(batch.inputs[n], expected)
        np.testing.assert_array_equal(
            batch.targets[n], (values[run, [last + h for h in case["horizons"]]] - mean) / scale
        )
        # In words: the target h frames ahead is h more than the last input.
        ahead = windows.scaling.invert(batch.targets[n])[:, 0] - windows.scaling.invert(batch.inputs[n])[-1, 0]
        np.testing.assert_allclose(ahead, case["horizons"], atol=2e-3)


def test_one_long_series_is_split_in_time():
    values = labelled(2, 200)
    shares = {"train": (0, 140), "validation": (148, 160), "test": (168, 200)}
    windows = window(recording(values), settings_of(split="time", horizons_ms=[1, 3], gap_ms=8), key=KEY)
    for split, (first, end) in shares.items():
        run, start = np.divmod(np.asarray(windows.starts[split]), 200)
        np.testing.assert_array_equal(start[run == 0], np.arange(first, end - 8, 2))
        np.testing.assert_array_equal(start[run == 1], start[run == 0])
        assert windows.trials(split).tolist() == [0, 1]
    # What is learned is the first share of each run.
    learned = values[:, :140].reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(windows.scaling.mean, learned.mean(0), rtol=1e-6)
    np.testing.assert_allclose(windows.scaling.scale, learned.std(0), rtol=1e-6)
    assert not windows.leaky


def test_what_cannot_be_learned_from_is_refused():
    runs = noisy_runs()
    split = window(recording(runs), settings_of(), key=KEY)
    (train, *_), test = split.trials("train"), split.trials("test")[0]

    def changed(change, **more):
        values = runs.copy()
        change(values)
        return window(recording(values), settings_of(**more), key=KEY)

    with pytest.raises(ValueError, match=rf"v holds 2 values .* in run {train}, frame 17, column 1; mend"):
        changed(lambda x: x[train].__setitem__((slice(17, 19), 1), np.inf), discard_ms=4)
    with pytest.raises(ValueError, match="v is a target, but none of its 3 columns ever changes where the training"):
        changed(lambda x: x.__setitem__(..., -70.0))
    with pytest.raises(ValueError, match=r"is the same as run .*, and one is in .*; leave one out"):
        changed(lambda x: x.__setitem__(test, x[train]))
    changed(lambda x: x.__setitem__(test, x[train]), measurement_noise=0.1)
    with pytest.raises(ValueError, match="v has 60 frames, but frames = 8; mend the recording"):
        window(dataclasses.replace(recording(runs), frames=8), settings_of(), key=KEY)  # its number of runs
    with pytest.raises(ValueError, match=r"v must be \[trial, time, feature\], got shape \(8, 60, 0\)"):
        window(recording(runs[..., :0]), settings_of(), key=KEY)
    assert split.extent == "8 runs × 60 frames × 3 variables"


def test_nothing_is_dropped_or_added_unasked():
    values = 0.01 * noisy_runs(runs=10, frames=200)
    windows = window(recording(values), WindowConfig(), key=KEY)
    scaled = (values - np.asarray(windows.scaling.mean)) / np.asarray(windows.scaling.scale)
    np.testing.assert_array_equal(windows.values, scaled.reshape(-1, 3))


def test_counts_of_the_report():
    starts = window_starts([0], 50 * 9200, length=150, stride=15, reach=1)
    assert len(starts) == 30_657
    values = np.zeros((50, 10_000, 1), np.float32)
    values[:, ::2] = 1
    windows = window(recording(values), WindowConfig(split="report", discard_ms=800), key=KEY)
    counts = [windows.count(s) for s in SPLITS]
    assert sum(counts) == 30_657
    assert counts == [21_460, 3_066, 6_131]
    assert windows.leaky
    every = np.sort(np.concatenate([windows.starts[s] for s in SPLITS]))
    np.testing.assert_array_equal(every, starts)
    # And it is leaky: some windows cross from run to run, and every run stands in every split.
    assert np.any(every // 9200 != (every + 150) // 9200)
    assert len(windows.trials("test")) == len(windows.trials("train")) == 50


def test_counts_of_ours_do_not_cross():
    assert len(window_starts(range(50), 9200, length=150, stride=15, reach=1)) == 50 * ((9200 - 151) // 15 + 1)
    assert window_starts([1, 0], 10, length=3, stride=4, reach=2, discard=1).tolist() == [11, 15, 1, 5]
    assert window_starts([0], 10, length=8, stride=1, reach=3).tolist() == []


def noisy_runs(runs=8, frames=60, neurons=3):
    return np.random.default_rng(0).normal(-60, 5, (runs, frames, neurons)).astype(np.float32)


@pytest.mark.parametrize(("split", "changes"), [("run", False), ("report", True)])
def test_scaling_is_fitted_on_training_runs_only(split, changes):
    values = noisy_runs()
    before = window(recording(values), settings_of(split=split), key=KEY)
    test = window(recording(values), settings_of(), key=KEY).trials("test")
    values[test] = 3 * values[test] + 40
    after = window(recording(values), settings_of(split=split), key=KEY)
    assert bool(eqx.tree_equal(before.scaling, after.scaling)) is not changes


@pytest.mark.parametrize("split", ["train", "validation"])
def test_scaling_is_that_of_the_training_runs(split):
    values = noisy_runs()
    windows = window(recording(values), settings_of(discard_ms=10), key=KEY)
    kept = values[windows.trials("train"), 10:].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(windows.scaling.mean, kept.mean(0), rtol=1e-6)
    np.testing.assert_allclose(windows.scaling.scale, kept.std(0), rtol=1e-6)
    np.testing.assert_allclose(windows.scaling.apply(windows.scaling.invert(jnp.ones((2, 3)))), 1, rtol=1e-4)


def test_a_constant_variable_is_not_divided_by_zero():
    values = noisy_runs()
    values[..., 1] = -70.1
    windows = window(recording(values), settings_of(), key=KEY)
    assert windows.scaling.scale[1] == 1
    np.testing.assert_allclose(windows.values[:, 1], 0, atol=1e-5)
    assert np.isfinite(windows.values).all()
    assert fit_scaling(np.full((4, 1), 2.0)).mean.dtype == jnp.float32


def test_measurement_noise_has_its_sd_and_belongs_to_the_run():
    values, config = np.zeros((10, 2000, 4), np.float32), settings_of(measurement_noise=0.25)
    values[:, ::2] = 7
    values[:, 0] = np.arange(10)[:, None]  # runs that are the same would be refused
    exact = window(recording(values), settings_of(), key=KEY)
    windows = window(recording(values), config, key=KEY)
    noise = np.asarray(windows.scaling.invert(windows.values) - exact.scaling.invert(exact.values)).reshape(
        values.shape
    )
    assert noise.std() == pytest.approx(0.25, rel=4 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 4 * 0.25 / np.sqrt(noise.size)
    flat = noise.reshape(10, -1)
    correlation = np.corrcoef(flat) - np.eye(10)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(flat.shape[1])
    fewer = window(recording(values[:7]), config, key=KEY)
    again = np.asarray(fewer.scaling.invert(fewer.values)).reshape(7, 2000, 4) - values[:7]
    np.testing.assert_allclose(again, noise[:7], atol=2e-6)
    other = window(recording(values), config, key=jax.random.key(4))
    assert np.abs(np.asarray(other.values) - np.asarray(windows.values)).max() > 0.01


def test_no_measurement_noise_is_exact_and_the_source_is_not_changed():
    values = noisy_runs()
    copy = values.copy()
    windows = window(recording(values), settings_of(discard_ms=4), key=KEY)
    mean, scale = np.asarray(windows.scaling.mean), np.asarray(windows.scaling.scale)
    np.testing.assert_array_equal(windows.values, ((copy[:, 4:] - mean) / scale).reshape(-1, 3))
    np.testing.assert_array_equal(values, copy)


def test_the_key_decides_the_split():
    keys = [jax.random.key(n) for n in range(8)]
    dealt = {tuple(window(recording(noisy_runs()), settings_of(), key=k).trials("test")) for k in keys}
    assert len(dealt) > 3


RUN = {"duration_ms": 100.0, "dt": 1.0, "runs": 10}
BAD = {
    "length is no multiple": ({"length_ms": 10.5}, {}, "length_ms = 10.5 must be a multiple of the recording's 1 ms"),
    "stride is no multiple": ({"stride_ms": 0.3}, {}, "stride_ms = 0.3 must be a multiple .* at least 1"),
    "discard is no multiple": ({"discard_ms": 1.5}, {}, "discard_ms = 1.5 must be a multiple .* at least 0"),
    "horizon is no multiple": ({"horizons_ms": [1.2]}, {}, "horizons_ms = 1.2 must be a multiple .* at least 1"),
    "horizon below a frame": (
        {"length_ms": 10, "horizons_ms": [5]},
        {"dt": 10.0},
        "horizons_ms = 5 must be a multiple .* at least 10",
    ),
    "horizon of zero": ({"horizons_ms": [0]}, {}, "horizons_ms = 0 must be a multiple .* at least 1"),
    "horizons descend": ({"horizons_ms": [2, 1]}, {}, r"horizons_ms = \[2, 1\] frames must ascend"),
    "horizon twice": ({"horizons_ms": [1, 1]}, {}, r"horizons_ms = \[1, 1\] frames must ascend"),
    "window too long": (
        {"length_ms": 95, "discard_ms": 5},
        {},
        "length_ms = 95 and the farthest of horizons_ms = 1 do not fit into a run of 100 ms less discard_ms = 5",
    ),
    "horizon too far": ({"horizons_ms": [1, 95]}, {}, "length_ms = 6 and the farthest of horizons_ms = 95 do not fit"),
    "discard all": ({"discard_ms": 200}, {}, "do not fit into a run of 100 ms less discard_ms = 200"),
    "no test run": (
        {"fractions": {"train": 0.5, "validation": 0.49, "test": 0.01}},
        {},
        "0.5/0.49/0.01 of 10 leave nothing for test; use more runs or a larger share: 13 are enough",
    ),
    "no validation run": ({}, {"runs": 3}, "0.7/0.1/0.2 of 3 leave nothing for validation; .* share: 6 are enough"),
    "one run": ({}, {"runs": 1}, "of 1 leave nothing for"),
    "other times are named": (
        {"length_ms": 1000},
        {"dt": 33.3},
        "length_ms = 1000 must be a multiple .* 33.3 ms, at least 33.3, such as 999 or 1032.3",
    ),
    "wrong order of axes": ({"length_ms": 150}, {}, "the recording is taken for 10 runs of 100 frames each"),
    "time, a share too short": (
        {"split": "time"},
        {"duration_ms": 30.0, "runs": 1},
        "split = 'time' leaves 3 frames of each run for validation, but a window and its farthest horizon take 7",
    ),
    "a gap without time": ({"gap_ms": 5}, {}, "gap_ms = 5 has no effect with split = 'run'"),
    "a target that is known ahead": ({"known": ["v"]}, {}, "known: 'v' is a target, so a model would be told what it"),
    "report, too few windows": ({"split": "report", "length_ms": 98}, {"runs": 1}, "of 1 leave nothing for"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_leaves_no_windows_is_refused_before_anything_is_computed(case):
    given, run, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        settings_of(**given).check(**RUN | run)


def test_the_longest_window_that_fits_is_accepted():
    settings_of(length_ms=94, discard_ms=5).check(**RUN)
    values = noisy_runs(runs=10, frames=100)
    windows = window(recording(values), settings_of(length_ms=94, discard_ms=5), key=KEY)
    assert [windows.count(s) for s in SPLITS] == [7, 1, 2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": 0.6, "validation": 0.1, "test": 0.2}, "= 0.9, but shares must sum to 1"),
        ({"train": 0.9, "validation": 0.1, "test": 0.0}, "Fractions: test = 0.0: input"),
        ({"train": 1.0, "validation": 0.1, "test": -0.1}, "Fractions: train = 1.0: input should be less than 1"),
        ({"train": 0.7, "valid": 0.1, "test": 0.2}, "unknown key 'valid'; did you mean 'validation'"),
    ],
)
def test_bad_fractions(keys, message):
    with pytest.raises(ConfigError, match=message):
        Fractions(**keys)


@pytest.mark.parametrize(
    "keys", [{"length_ms": 0}, {"stride_ms": -1}, {"horizons_ms": []}, {"measurement_noise": -0.1}, {"split": "trial"}]
)
def test_bad_values(keys):
    with pytest.raises(ConfigError, match=next(iter(keys))):
        settings_of(**keys)


def test_frames_that_are_not_whole_milliseconds():
    config = settings_of(discard_ms=0.3, length_ms=0.6, stride_ms=0.1, horizons_ms=[0.1, 0.7])
    assert config.frames(0.1) == (3, 6, 1, (1, 7))


def test_split_indices_are_a_partition():
    dealt = split_indices(50, Fractions(), np.random.default_rng(0))
    assert {n: len(i) for n, i in dealt.items()} == {"train": 35, "validation": 5, "test": 10}
    assert sorted(np.concatenate(list(dealt.values())).tolist()) == list(range(50))
    assert all((np.diff(i) > 0).all() for i in dealt.values())


def test_a_wrong_recording_is_refused():
    with pytest.raises(ValueError, match="no 'v'; it has w"):
        window(recording(noisy_runs(), name="w"), settings_of(), key=KEY)
    with pytest.raises(ValueError, match=r"must be \[trial, time, feature\], got shape \(60, 3\)"):
        window(recording(noisy_runs()[0]), settings_of(), key=KEY)
    with pytest.raises(ValueError, match="key must be"):
        window(recording(noisy_runs()), settings_of(), key=0)


def test_windows_are_not_materialised():
    # 30,000 windows of 150 × 100 values are 1.8 GB.
    frames, batch = 460_000, 32
    windows = Windows(
        values=jax.ShapeDtypeStruct((frames, 100), jnp.float32),
        starts={"train": jax.ShapeDtypeStruct((30_000,), jnp.int32)},
        scaling=fit_scaling(np.zeros((2, 100))),
        length=150,
        horizons=(1,),
        dt=1.0,
        frames_per_trial=9200,
        leaky=False,
    )
    held = [x for x in jax.tree.leaves(windows) if isinstance(x, jax.ShapeDtypeStruct)]
    assert sum(x.size * x.dtype.itemsize for x in held) == frames * 400 + 30_000 * 4

    def step(windows, first):
        return windows.gather(jax.lax.dynamic_slice_in_dim(windows.starts["train"], first, batch))

    compiled = jax.jit(step).lower(windows, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    memory = compiled.memory_analysis()
    one = batch * 150 * 100 * 4
    assert one < memory.output_size_in_bytes < 1.1 * one
    assert memory.temp_size_in_bytes < 3 * one


def columns_of(**more):
    """Windows of five frames over one trial of 40; the value in column c of frame f is 100·c + f."""
    values = jnp.asarray(100.0 * np.arange(3)[None] + np.arange(40.0)[:, None], jnp.float32)
    starts = {split: jnp.asarray([2, 9], jnp.int32) for split in SPLITS}
    more = {"horizons": (1, 3), **more}
    return Windows(values, starts, fit_scaling(np.zeros((2, 3))), 5, dt=1.0, frames_per_trial=40, leaky=False, **more)


def test_columns_that_are_observed_predicted_and_known_ahead():
    windows = columns_of(input_columns=(0, 2), target_columns=(1,), known_columns=(2, 0))
    batch = windows.gather(windows.starts["train"])
    np.testing.assert_array_equal(batch.inputs[1], [[f, 200 + f] for f in range(9, 14)])
    np.testing.assert_array_equal(batch.targets[1], [[114], [116]])
    np.testing.assert_array_equal(batch.future[1], [[214, 14], [216, 16]])
    assert columns_of().gather(windows.starts["train"]).future is None


def test_targets_within_the_window():
    batch = columns_of(horizons=tuple(range(-4, 1))).gather(jnp.asarray([3, 8], jnp.int32))
    np.testing.assert_array_equal(batch.targets, batch.inputs)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"horizons": (-5, 1)}, "more than -5, the window's length"),
        ({"target_columns": (3,)}, "target_columns holds 3, but the values have columns 0 to 2"),
        ({"known_columns": (-1,)}, "known_columns holds -1"),
    ],
)
def test_columns_and_horizons_that_are_not_there(more, says):
    with pytest.raises(ValueError, match=says):
        columns_of(**more)
