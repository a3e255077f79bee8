"""Recordings on disk: what is written comes back, whatever happens on the way."""

import dataclasses
import itertools
import shutil
import tracemalloc

import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.storage._local
from recording_problems import POPULATIONS, PROVENANCE, Other, make, piece

from jneuro.recordings import (
    RecordingWriter,
    StoreError,
    from_arrays,
    open_recording,
    read_events,
    read_recording,
    read_state,
    store,
)


def write(path, whole, states, cuts=(0, 12)):
    """Write what is missing, chunk by chunk."""
    writer = RecordingWriter(path, PROVENANCE, POPULATIONS)
    assert writer.frames in cuts
    for first, last in itertools.pairwise(cuts):
        if first >= writer.frames:
            writer.append(*piece(whole, states, first, last))
    if not writer.complete:
        writer.finish()
    return writer


def contents(path):
    """Every array with its attributes and dimensions, and the root's attributes."""
    root = zarr.open_group(path, mode="r")
    arrays = {n: a for n, a in root.members(max_depth=None) if isinstance(a, zarr.Array)}
    found = {n: (a[...], dict(a.attrs), a.metadata.dimension_names, a.dtype) for n, a in arrays.items()}
    return found, dict(root.attrs)


def assert_same_store(one, two):
    (arrays, attributes), (others, other_attributes) = contents(one), contents(two)
    assert arrays.keys() == others.keys()
    assert attributes == other_attributes
    for name, (values, *about) in arrays.items():
        np.testing.assert_array_equal(values, others[name][0], name)
        assert tuple(about) == others[name][1:], name


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "recording.zarr"
    whole, states = make()
    write(path, whole, states)
    return path, whole, states


def test_sampled_arrays_come_back_bit_for_bit(finished):
    path, whole, _ = finished
    back = read_recording(path)
    np.testing.assert_array_equal(back.values["v"], whole.values["v"])
    assert back.values["v"].dtype == np.float32
    np.testing.assert_allclose(back.time, whole.time, rtol=1e-15)
    assert (back.dt, back.frames, back.units, back.final_state, bool(back.ok)) == (1.0, 12, {"v": "mV"}, None, True)


def test_counts_become_events_in_order_of_time(finished):
    path, whole, _ = finished
    counts = whole.values["spikes"]
    assert counts.max() == 2
    time, trial, neuron = read_events(path)
    assert len(time) == counts.sum()
    assert (np.diff(time) >= 0).all()
    back = np.zeros_like(counts)
    np.add.at(back, (trial, np.round(time).astype(int) - 1, neuron), 1)
    np.testing.assert_array_equal(back, counts)


def test_spikes_alone_keep_silent_trials_and_neurons(tmp_path):
    counts = np.zeros((3, 6, 4), np.uint8)
    counts[[0, 1, 1], [2, 0, 5], [1, 2, 2]] = 1, 2, 1
    writer = RecordingWriter(tmp_path / "own.zarr", {"from": "elsewhere"})
    spikes = from_arrays(spikes=counts, dt=0.5)
    for part in (slice(0, 4), slice(4, 6)):
        frames, first = len(range(6)[part]), spikes.first_step + part.start
        own = {"values": {"spikes": counts[:, part]}, "frames": frames, "first_step": first}
        writer.append(dataclasses.replace(spikes, **own))
    with pytest.raises(ValueError, match=r"frames = 5, but 'spikes' is \(3, 6, 4\)"):
        dataclasses.replace(spikes, frames=5)
    with pytest.raises(StoreError, match=r"own\.zarr: 'spikes' is \(6, 4\); it must be \[trial, time, neuron\]"):
        writer.append(dataclasses.replace(spikes, values={"spikes": counts[0]}))
    writer.finish()
    back = read_recording(tmp_path / "own.zarr", ("spikes",))
    np.testing.assert_array_equal(back["spikes"], counts)
    np.testing.assert_array_equal(back.time, spikes.time)


@pytest.mark.parametrize("snapshots", [-1, 0, slice(None), slice(0, 2), np.array([0, 2])], ids=str)
def test_states_come_back_bit_for_bit(finished, snapshots):
    path, _, states = finished
    like = type(states)(*(leaf[:, 0] for leaf in states))
    for name, leaf in read_state(path, like, snapshots)._asdict().items():
        np.testing.assert_array_equal(leaf, getattr(states, name)[:, snapshots], name)
        assert leaf.dtype == getattr(states, name).dtype


def test_xarray_opens_it(finished):
    path, whole, _ = finished
    data = xr.open_zarr(path, consolidated=False, chunks=None)
    assert data["v"].dims == ("trial", "time", "neuron")
    assert (data["v"].attrs["units"], data["time"].attrs["units"]) == ("mV", "ms")
    np.testing.assert_allclose(data["time"], np.arange(1.0, 13.0), rtol=1e-14)
    assert "provenance" in data.attrs
    ours = open_recording(path)
    assert set(ours.coords) == {"time", "population"}
    assert store.provenance_of(ours) == PROVENANCE
    assert ours.attrs["dt"] == 1.0
    assert ours["population"].values.tolist() == [0, 0, 0, 1, 1]
    assert {n: m.tolist() for n, m in store.populations_of(ours).items()} == {
        "excitatory": [True] * 3 + [False] * 2,
        "inhibitory": [False] * 3 + [True] * 2,
    }
    np.testing.assert_array_equal(ours["v"].sel(time=slice(2.5, 5)).values, whole.values["v"][:, 2:5])


def test_what_other_tools_open(finished, tmp_path):
    path, whole, _ = finished
    data = xr.open_zarr(path)  # a warning would be an error
    np.testing.assert_array_equal(data["v"].values, whole.values["v"])
    open_recording(str(path)).to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as back:
        np.testing.assert_array_equal(back["v"].values, whole.values["v"])
        assert store.provenance_of(back) == PROVENANCE
        assert [*store.populations_of(back)] == [*POPULATIONS]
    assert len(read_events(str(path))[0]) == whole.values["spikes"].sum()


@pytest.mark.parametrize(("limit", "together"), [(1, 1), (600, 2), (1 << 20, 3)])
def test_a_large_trial_is_stored_apart_and_small_ones_together(tmp_path, monkeypatch, limit, together):
    monkeypatch.setattr(store, "_FILE", limit)
    whole, states = make()
    write(tmp_path / "a.zarr", whole, states, (0, 12))
    array = zarr.open_array(tmp_path / "a.zarr" / "v", mode="r")
    assert array.chunks[0] == together
    np.testing.assert_array_equal(read_recording(tmp_path / "a.zarr").values["v"], whole.values["v"])


@pytest.mark.parametrize("cuts", [(0, 4, 8, 12), (0, 8, 12), (0, 4, 12)], ids=str)
def test_chunk_by_chunk_equals_at_once(finished, tmp_path, cuts):
    path, whole, states = finished
    write(tmp_path / "a.zarr", whole, states, cuts)
    assert_same_store(path, tmp_path / "a.zarr")


def test_without_states_the_final_state_is_kept(tmp_path):
    whole, states = make()
    writer = RecordingWriter(tmp_path / "a.zarr", PROVENANCE)
    writer.append(whole)
    writer.finish()
    like = type(states)(*(leaf[:, 0] for leaf in states))
    back = read_state(tmp_path / "a.zarr", like, slice(None))
    np.testing.assert_array_equal(back.v, states.v[:, -1:])
    assert set(open_recording(tmp_path / "a.zarr").coords) == {"time"}


@pytest.fixture
def kill(monkeypatch):
    """Let the n-th write to disk, and all after it, fail; count them."""
    put, state = zarr.storage._local._put, {"left": None, "count": 0}

    def mortal(*args, **words):
        state["count"] += 1
        if state["left"] is not None:
            state["left"] -= 1
            if state["left"] < 0:
                raise OSError("killed")
        return put(*args, **words)

    monkeypatch.setattr(zarr.storage._local, "_put", mortal)
    return state


def test_killed_at_any_write_and_taken_up_again(tmp_path, kill):
    whole, states = make(trials=1)
    cuts, path = (0, 4, 12), tmp_path / "whole.zarr"
    write(path, whole, states, cuts)
    writes = kill["count"]
    assert writes > 40
    # All writes of the beginning and of the end, where attributes change, and every fourth between.
    for n in sorted({*range(5), *range(5, writes, 4), *range(writes - 5, writes)}):
        store = tmp_path / f"{n}.zarr"
        kill["left"] = n
        with pytest.raises(OSError, match="killed"):
            write(store, whole, states, cuts)
        if store.exists():
            with pytest.raises(StoreError):
                open_recording(store)
        kill["left"] = None
        write(store, whole, states, cuts)
        assert_same_store(path, store)
        shutil.rmtree(store)


def test_what_was_not_committed_is_cut_off(finished, tmp_path):
    path, whole, states = finished
    store = tmp_path / "a.zarr"
    writer = RecordingWriter(store, PROVENANCE, POPULATIONS)
    writer.append(*piece(whole, states, 0, 8))
    for name, axis in (("v", 1), ("events/time", 0), ("states/v", 1)):
        array = zarr.open_array(store / name, mode="a")
        array.append(array[...] + 7, axis)
    again = RecordingWriter(store, PROVENANCE, POPULATIONS)
    assert (again.frames, again.complete) == (8, False)
    back = read_state(store, type(states)(*(leaf[:, 0] for leaf in states)), complete=False)
    np.testing.assert_array_equal(back.v, states.v[:, 1])
    again.append(*piece(whole, states, 8, 12))
    again.finish()
    assert_same_store(path, store)


def test_a_finished_store_is_left_alone(finished):
    path, *_ = finished
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.name.startswith("c")}
    assert RecordingWriter(path, PROVENANCE, POPULATIONS).complete
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_writing_keeps_one_chunk_in_memory(tmp_path):
    chunk, states = make(trials=2, frames=3000, neurons=60, snapshots=1)
    chunk.values["spikes"][:] = np.random.default_rng(0).random(chunk.values["spikes"].shape) < 0.01
    writer, held, peaks = RecordingWriter(tmp_path / "a.zarr", PROVENANCE), [], []
    tracemalloc.start()
    try:
        for _ in range(10):
            writer.append(chunk, states)
            now, peak = tracemalloc.get_traced_memory()
            held.append(now)
            peaks.append(peak)
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert held[-1] - held[1] < chunk.values["v"].nbytes
    assert peaks[-1] < 1.2 * peaks[1]


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def chunk(path, name="v"):
    return next(f for f in sorted((path / name / "c").rglob("*")) if f.is_file())


V = "'v' cannot be read"
ERRORS = {
    "missing": (shutil.rmtree, read_recording, ("no such recording", "jneuro simulate")),
    "empty folder": (lambda p: (shutil.rmtree(p), p.mkdir()), read_recording, ("not a Zarr store", "jneuro simulate")),
    "a file": (
        lambda p: (shutil.rmtree(p), p.write_text("x")),
        read_recording,
        ("not a Zarr store", "jneuro simulate"),
    ),
    "root damaged": (lambda p: cut(p / "zarr.json"), read_recording, ("not a Zarr store", "jneuro simulate")),
    "array damaged": (lambda p: cut(p / "v" / "zarr.json"), read_recording, ("description of an", "jneuro simulate")),
    "array gone": (lambda p: shutil.rmtree(p / "v"), read_recording, ("no sampled array 'v'",)),
    "foreign": (
        lambda p: zarr.open_group(p, mode="w"),
        read_recording,
        ("not a recording of jneuro's format 1", "jneuro simulate"),
    ),
    "newer format": (
        lambda p: zarr.open_group(p, mode="a").attrs.update({"jneuro_format": 2}),
        read_recording,
        ("not a recording of jneuro's format 1",),
    ),
    "unfinished": (
        lambda p: zarr.open_group(p, mode="a").attrs.update({"complete": False}),
        read_recording,
        ("unfinished", "--resume"),
    ),
    "chunk gone": (lambda p: chunk(p).unlink(), read_recording, ("truncated, 1 of 1 chunks of 'v'", "jneuro simulate")),
    "event chunk gone": (lambda p: chunk(p, "events/trial").unlink(), read_recording, ("'events/trial' are missing",)),
    "chunk cut": (lambda p: cut(chunk(p)), read_recording, (V, "jneuro simulate")),
    "chunk emptied": (lambda p: chunk(p).write_bytes(b""), read_recording, (V, "jneuro simulate")),
    "chunk overwritten": (lambda p: chunk(p).write_bytes(b"x" * 300), read_recording, (V, "jneuro simulate")),
    "one bit flipped": (lambda p: flip(chunk(p)), read_recording, (V, "jneuro simulate")),
    "event chunk cut": (lambda p: cut(chunk(p, "events/time")), read_events, ("'events/time' cannot be read",)),
    "state chunk cut": (
        lambda p: cut(chunk(p, "states/v")),
        lambda p: read_state(p, make()[0].final_state),
        ("'states/v' cannot be read",),
    ),
    "unknown array": (lambda p: None, lambda p: read_recording(p, ("w",)), ("no sampled array 'w'", "it has v")),
    "not a sampled array": (lambda p: None, lambda p: read_recording(p, ("time",)), ("no sampled array 'time'",)),
    "no spikes": (lambda p: shutil.rmtree(p / "events"), read_events, ("has no spikes",)),
    "no states": (
        lambda p: shutil.rmtree(p / "states"),
        lambda p: read_state(p, make()[0].final_state),
        ("no states of this simulator (v, refractory, pending, step)",),
    ),
    "states of another simulator": (
        lambda p: None,
        lambda p: read_state(p, Other(np.zeros(3), np.zeros(3))),
        ("no states of this simulator (gate, step)",),
    ),
    "other provenance": (
        lambda p: None,
        lambda p: RecordingWriter(p, PROVENANCE | {"seed": 5}),
        ("holds another recording", "choose another folder, or remove this one"),
    ),
    "folder of something else": (
        lambda p: (shutil.rmtree(p), p.mkdir(), (p / "thesis.tex").write_text("x")),
        lambda p: RecordingWriter(p, PROVENANCE),
        ("choose another folder",),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_path_and_remedy(finished, tmp_path, case):
    path = tmp_path / "recording.zarr"
    shutil.copytree(finished[0], path)
    damage, use, words = ERRORS[case]
    damage(path)
    with pytest.raises(StoreError) as caught:
        use(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_a_foreign_folder_is_not_emptied(tmp_path):
    file = tmp_path / "thesis.tex"
    file.write_text("years of work")
    with pytest.raises(StoreError, match="holds something else"):
        RecordingWriter(tmp_path, PROVENANCE)
    assert file.read_text() == "years of work"


def test_no_frames_and_no_events_can_be_written(tmp_path):
    whole, states = make()
    silent = {"v": whole.values["v"], "spikes": np.zeros_like(whole.values["spikes"])}
    writer = RecordingWriter(tmp_path / "a.zarr", PROVENANCE)
    writer.append(type(whole)(**{**vars(whole), "values": silent}), states)
    writer.finish()
    assert [len(x) for x in read_events(tmp_path / "a.zarr")] == [0, 0, 0]
    assert read_recording(tmp_path / "a.zarr").frames == 12
