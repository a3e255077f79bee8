"""Recordings out and in again; spikes of NWB around events; what Neo holds."""

import sys

import jax
import numpy as np
import pytest

import jneuro as jn
from jneuro.recordings import ReadError, from_arrays, from_neo, psth, read, read_trials, spike_trains, write
from jneuro.simulators import Pospischil, simulate, stimuli

RNG = np.random.default_rng(0)
SHAPE = (3, 40, 2)
VALUES = {
    "v": (-65 + RNG.normal(size=SHAPE)).astype(np.float32),
    "current": RNG.normal(size=SHAPE).astype(np.float32),
    "spikes": RNG.integers(0, 3, SHAPE),
}
ABOUT = {"cell": "c7", "protocol": "noise", "date": "2024-02-03T04:05:06+00:00"}


def whole(*names):
    values = {n: VALUES[n] for n in names or VALUES}
    return from_arrays(**values, dt=0.1, units={"current": "pA"} if "current" in values else {}, about=ABOUT)


@pytest.mark.parametrize("ending", [".zarr", ".nwb", ".csv", ".tsv", ".txt", ".npz", ".nc"])
def test_what_is_written_is_read(tmp_path, ending):
    if ending == ".nwb":
        pytest.importorskip("pynwb")
    path = tmp_path / f"a{ending}"
    write(str(path), whole(), {"note": "mine"} if ending == ".npz" else None)
    found = read(path)
    names = ("v", "current") if ending == ".nwb" else VALUES  # spikes are read by nwb_units
    assert [*found.values] == [*names]
    for name in names:
        np.testing.assert_array_equal(found[name].astype(VALUES[name].dtype), VALUES[name])
    assert (found.dt, found.units["current"]) == (0.1, "pA")
    np.testing.assert_allclose(found.time, whole().time, atol=1e-12)
    if ending not in (".csv", ".tsv", ".txt"):
        assert found.about["protocol"] == "noise"
    with pytest.raises(ReadError, match="exists; choose another name"):
        write(path, whole())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ReadError, match=r"cannot be written as '\.doc'; known are \.zarr, \.nwb, \.csv"):
        write(tmp_path / "a.doc", whole())
    with pytest.raises(ReadError, match="the arrays have different numbers of neurons"):
        from_arrays(v=np.zeros((4, 1)), w=np.zeros((4, 3)), dt=1).to_pandas()
    with pytest.raises(ValueError, match="has no 'spikes'; it has v"):
        spike_trains(whole("v"))


def test_simulations_are_written(tmp_path):
    step = stimuli.Step(np.array([0.0, 300.0], np.float32), onset=2.0)
    seen = simulate(Pospischil(), step, record=("v", "current"), duration=20.0, key=jax.random.key(0))
    write(tmp_path / "a.zarr", seen)
    found = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found["v"], np.asarray(seen["v"])[None])
    np.testing.assert_allclose(found.time, seen.time)
    assert found.units == seen.units


def test_other_libraries():
    data, frame = whole().to_xarray(), whole().to_pandas(["v", "spikes"])
    assert data["v"].dims == ("trial", "time", "neuron")
    assert (data["v"].attrs["units"], data["time"].attrs["units"], data.attrs["cell"]) == ("mV", "ms", "c7")
    assert frame.index.names == ["trial", "time", "neuron"]
    assert frame.attrs["units"] == {"v": "mV", "spikes": "1", "time": "ms"}
    np.testing.assert_array_equal(frame["v"].to_numpy().reshape(SHAPE), VALUES["v"])
    again = jn.recordings.from_pandas(frame, columns={"v": "v"})
    np.testing.assert_array_equal(again["v"], VALUES["v"])
    np.testing.assert_array_equal(jn.recordings.from_xarray(data)["spikes"], VALUES["spikes"])
    trains = spike_trains(whole("spikes"))
    assert len(trains[2][1]) == VALUES["spikes"][2, :, 1].sum()
    assert trains[0][0][0] == pytest.approx(0.1 * np.flatnonzero(VALUES["spikes"][0, :, 0])[0])


def test_nwb_units_around_events(tmp_path):
    pytest.importorskip("pynwb")
    path = tmp_path / "a.nwb"
    write(path, whole("spikes"))
    how = {"reader": "nwb_units", "dt": 0.1}
    np.testing.assert_array_equal(read(path, align="start_time", **how)["spikes"], VALUES["spikes"])
    np.testing.assert_array_equal(read(path, [2, 0], align="start_time", **how)["spikes"], VALUES["spikes"][[2, 0]])
    joined = VALUES["spikes"].reshape(1, -1, 2)
    np.testing.assert_array_equal(read(path, **how)["spikes"][:, :120], joined)
    around = read(path, align=[0.001, 0.002], window_ms=(-0.5, 1.0), **how)
    np.testing.assert_array_equal(around["spikes"], [joined[0, 5:20], joined[0, 15:30]])
    np.testing.assert_allclose(around.time[[0, -1]], [-0.4, 1.0])  # a frame's end
    np.testing.assert_allclose(read_trials(path)["stop_time"], [0.004, 0.008, 0.012])
    rates = psth(read(path, align="start_time", **how), bin_ms=1.0)
    counts = VALUES["spikes"].reshape(3, 4, 10, 2).sum(2) * 1e3
    np.testing.assert_allclose(rates["rate"][0], counts.mean(0))
    np.testing.assert_allclose(rates["rate_se"][0], counts.std(0, ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(rates.time, [1, 2, 3, 4])
    for options, message in [
        ({"align": "go"}, "align = 'go' is no column of times; there are start_time, stop_time"),
        ({"align": "stop_time"}, "say from when to when around each event, window_ms"),
        ({"window_ms": (0, 1)}, "window_ms needs events to stand around"),
        ({"align": [0.0], "window_ms": (1, 0)}, "a beginning and a later end"),
        ({"align": [0.0], "window_ms": (0, 1e12)}, "bytes of memory for counts of 2 units .*a larger dt"),
    ]:
        with pytest.raises(ReadError, match=message):
            read(path, **how, **options)
    with pytest.raises(ReadError, match="nothing at all but units, which reader='nwb_units' reads"):
        read(path)
    with pytest.raises(ValueError, match=r"bin_ms = 0\.25 must be a multiple of 0\.1 ms"):
        psth(whole("spikes"), bin_ms=0.25)


def test_neo_blocks():
    pytest.importorskip("neo")
    block = whole().to_neo()
    assert (len(block.segments), len(block.segments[0].spiketrains), block.annotations["cell"]) == (3, 2, "c7")
    found = from_neo(block, [2, 1], channel=1, current_channel=2)
    np.testing.assert_array_equal(found["v"][..., 0], VALUES["v"][[2, 1], :, 1])
    np.testing.assert_array_equal(found["current"][..., 0], VALUES["current"][[2, 1], :, 0])
    assert (found.units, found.dt) == ({"v": "mV", "current": "pA"}, 0.1)
    assert "0: 'v' (mV)" in found.about["others"]
    with pytest.raises(ReadError, match=r"more than one signal may be its current .* say current_channel"):
        from_neo(block)
    spikes = from_neo(whole("spikes").to_neo(), dt=0.1)
    np.testing.assert_array_equal(spikes["spikes"], VALUES["spikes"])
    with pytest.raises(ReadError, match="spike trains alone; say the width of a frame"):
        from_neo(whole("spikes").to_neo())
    block.segments[1].analogsignals.pop()
    with pytest.raises(ReadError, match="segment 1 has other signals than segment 0; choose sweeps"):
        from_neo(block)


def test_files_that_neo_reads(tmp_path):
    neo = pytest.importorskip("neo")
    neo.io.NeoMatlabIO(str(tmp_path / "a.mat")).write_block(whole("v").to_neo())
    found = read(tmp_path / "a.mat", reader={"name": "neo", "io": "NeoMatlabIO", "channel": 0})
    np.testing.assert_array_equal(found["v"][..., 0], VALUES["v"][..., 0])
    neo.io.PickleIO(str(tmp_path / "a.pkl")).write_block(whole("v").to_neo())
    with pytest.raises(ReadError, match="a pickle may execute code"):
        read(tmp_path / "a.pkl", reader="neo")
    (tmp_path / "a.wcp").write_bytes(b"junk")
    for options, message in [({}, r"a\.wcp: cannot be read"), ({"io": "NoIO"}, "io = 'NoIO' is no class of neo.io")]:
        with pytest.raises(ReadError, match=message):
            read(tmp_path / "a.wcp", **options)


def test_without_neo(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    (tmp_path / "a.smr").touch()
    for call in (lambda: read(tmp_path / "a.smr"), whole().to_neo):
        with pytest.raises(ReadError, match=r"needs the package neo; install it with pip install 'jneuro\[neo\]'"):
            call()
