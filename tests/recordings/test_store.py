"""Recordings on disk: what is written comes back, whatever happens on the way."""

import dataclasses
import itertools
import json
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
    populations_of,
    provenance_of,
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
    grown = ("committed", "seal")  # say how it was cut
    assert {k: v for k, v in attributes.items() if k not in grown} == {
        k: v for k, v in other_attributes.items() if k not in grown
    }
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


def test_xarray_opens_it(finished, tmp_path):
    path, whole, _ = finished
    data = xr.open_zarr(path, consolidated=False, chunks=None)
    assert data["v"].dims == ("trial", "time", "neuron")
    assert (data["v"].attrs["units"], data["time"].attrs["units"]) == ("mV", "ms")
    np.testing.assert_allclose(data["time"], np.arange(1.0, 13.0), rtol=1e-14)
    assert "provenance" in data.attrs
    ours = open_recording(str(path))
    assert set(ours.coords) == {"time", "population"}
    assert provenance_of(ours) == provenance_of(data) == PROVENANCE
    assert ours.attrs["dt"] == 1.0
    assert ours["population"].values.tolist() == [0, 0, 0, 1, 1]
    assert {n: mask.tolist() for n, mask in populations_of(ours).items()} == {
        "excitatory": [True] * 3 + [False] * 2,
        "inhibitory": [False] * 3 + [True] * 2,
    }
    plain = xr.open_zarr(str(path))  # a warning would be an error
    assert len(read_events(str(path))[0]) == whole.values["spikes"].sum()
    for opened in (data, ours, plain):
        opened.to_netcdf(tmp_path / "a.nc", engine="scipy")
        np.testing.assert_array_equal(xr.load_dataset(tmp_path / "a.nc", engine="scipy").v, whole.values["v"])
    np.testing.assert_array_equal(ours["v"].sel(time=slice(2.5, 5)).values, whole.values["v"][:, 2:5])


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


V = "v/c/0/0/0 is damaged"
ERRORS = {
    "missing": (shutil.rmtree, read_recording, ("no such recording", "jneuro simulate")),
    "empty folder": (lambda p: (shutil.rmtree(p), p.mkdir()), read_recording, ("not a Zarr store", "jneuro simulate")),
    "a file": (
        lambda p: (shutil.rmtree(p), p.write_text("x")),
        read_recording,
        ("not a Zarr store", "jneuro simulate"),
    ),
    "root damaged": (lambda p: cut(p / "zarr.json"), read_recording, ("not a Zarr store", "jneuro simulate")),
    "array damaged": (
        lambda p: cut(p / "v" / "zarr.json"),
        read_recording,
        ("v/zarr.json is damaged", "jneuro simulate"),
    ),
    "array gone": (lambda p: shutil.rmtree(p / "v"), read_recording, ("v/zarr.json is missing",)),
    "foreign": (
        lambda p: zarr.open_group(p, mode="w"),
        read_recording,
        ("not a recording of jneuro's format 2", "jneuro simulate"),
    ),
    "newer format": (
        lambda p: zarr.open_group(p, mode="a").attrs.update({"jneuro_format": 3}),
        read_recording,
        ("not a recording of jneuro's format 2",),
    ),
    "unfinished": (
        lambda p: (shutil.rmtree(p), RecordingWriter(p, PROVENANCE)),
        read_recording,
        ("unfinished", "--resume"),
    ),
    "chunk gone": (lambda p: chunk(p).unlink(), read_recording, ("v/c/0/0/0 is missing", "jneuro simulate")),
    "event chunk gone": (lambda p: chunk(p, "events/trial").unlink(), read_recording, ("events/trial/c/0 is missing",)),
    "chunk cut": (lambda p: cut(chunk(p)), read_recording, (V, "jneuro simulate")),
    "chunk emptied": (lambda p: chunk(p).write_bytes(b""), read_recording, (V, "jneuro simulate")),
    "chunk overwritten": (lambda p: chunk(p).write_bytes(b"x" * 300), read_recording, (V, "jneuro simulate")),
    "one bit flipped": (lambda p: flip(chunk(p)), read_recording, ("'v' cannot be read", "jneuro simulate")),
    "event chunk cut": (lambda p: cut(chunk(p, "events/time")), read_events, ("events/time/c/0 is damaged",)),
    "state chunk cut": (
        lambda p: cut(chunk(p, "states/v")),
        lambda p: read_state(p, make()[0].final_state),
        ("states/v/c/0/0/0 is damaged",),
    ),
    "unknown array": (lambda p: None, lambda p: read_recording(p, ("w",)), ("no sampled array 'w'", "it has v")),
    "not a sampled array": (lambda p: None, lambda p: read_recording(p, ("time",)), ("no sampled array 'time'",)),
    "no spikes": (lambda p: shutil.rmtree(p / "events"), read_events, ("events/zarr.json is missing, and 3 more",)),
    "no states": (
        lambda p: shutil.rmtree(p / "states"),
        lambda p: read_state(p, make()[0].final_state),
        ("states/zarr.json is missing, and 4 more",),
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


def edit(path, name="", **changes):
    """Change the description of an array, or attributes of the root, as somebody else might have written them."""
    file = path / name / "zarr.json"
    about = json.loads(file.read_text())
    (about if name else about["attributes"]).update(changes)
    file.write_text(json.dumps(about))


def unsealed(path, **attributes):
    """Make it a store of format 1, which had no checksums beside those of the chunks."""
    root = json.loads((path / "zarr.json").read_text())
    kept = root["attributes"] | {"jneuro_format": 1, "seal": None} | attributes
    kept = {key: value for key, value in kept.items() if value is not None}
    (path / "zarr.json").write_text(json.dumps(root | {"attributes": kept}))


GRID = {"name": "regular", "configuration": {"chunk_shape": [3, 10**12, 5]}}
FOREIGN = {
    "no time step": ({"dt": None}, {}, "its attribute dt = None must be a positive number of milliseconds"),
    "a text": ({"dt": "x"}, {}, "its attribute dt = 'x' must be a positive number"),
    "another time step": ({"dt": 2.0}, {}, "its attribute dt = 2 is not the time between its frames"),
    "no provenance": ({"provenance": None}, {}, "its attribute provenance must be a JSON object of what made it"),
    "provenance of a number": ({"provenance": "3"}, {}, "its attribute provenance must be a JSON object"),
    "more than there is": ({}, {"shape": [3, 10**12, 5]}, "the description of 'v' declares"),
    "more than a chunk holds": (
        {},
        {"shape": [3, 10**12, 5], "chunk_grid": GRID},
        "the description of 'v' asks for",
    ),
    "another codec": ({}, {"codecs": [{"name": "pickle"}]}, "the description of 'v' names the codec 'pickle'"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_stores_of_elsewhere_are_refused_in_one_line(finished, tmp_path, case):
    path, (attributes, description, said) = shutil.copytree(finished[0], tmp_path / "a.zarr"), FOREIGN[case]
    unsealed(path, **attributes)
    assert attributes or read_recording(path).frames == 12  # as it was written, it is read
    edit(path, "v", **description)
    with pytest.raises(StoreError) as caught:
        read_recording(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def swap(path):
    """Exchange two arrays of one type and size."""
    one, other = path / "events" / "trial" / "c" / "0", path / "events" / "neuron" / "c" / "0"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


SEALED = {
    "a unit": (lambda p: edit(p, "v", attributes={"units": "uV"}), "v/zarr.json is not what was written"),
    "the provenance": (lambda p: edit(p, provenance='{"seed": 9}'), "its attribute 'provenance' has been edited"),
    "the time step": (lambda p: edit(p, dt=1.5), "its attribute 'dt' has been edited"),
    "a length": (lambda p: edit(p, "v", shape=[3, 10**12, 5]), "v/zarr.json is not what was written"),
    "chunks exchanged": (swap, "events/neuron/c/0 is another chunk than was written here, and 1 more"),
    "the seal": (lambda p: edit(p, seal="{}"), "zarr.json is damaged"),
    "what is gathered at the root": (
        lambda p: (p / "zarr.json").write_text((p / "zarr.json").read_text().replace('"mV"', '"uV"')),
        "zarr.json is not what was written",
    ),
    "a population": (lambda p: flip(chunk(p, "population")), "population/c/0 is damaged"),
}


@pytest.mark.parametrize("case", SEALED)
def test_what_the_seal_sees(finished, tmp_path, case):
    path, (damage, said) = shutil.copytree(finished[0], tmp_path / "a.zarr"), SEALED[case]
    damage(path)
    with pytest.raises(StoreError) as caught:
        store.require_whole(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("name", "kept"), [("v/c/0/2/0", 8), ("states/v/c/0/1/0", 4), ("events/time/c/0", 0), ("v/zarr.json", 0)]
)
def test_what_is_damaged_is_cut_off_and_written_again(finished, tmp_path, complete, name, kept):
    _, whole, states = finished
    path, other = tmp_path / "a.zarr", tmp_path / "b.zarr"
    cuts = (0, 4, 8, 12)
    if complete:
        write(path, whole, states, cuts)
    else:
        writer = RecordingWriter(path, PROVENANCE, POPULATIONS)
        for first, last in itertools.pairwise(cuts):
            writer.append(*piece(whole, states, first, last))
    flip(path / name)
    assert RecordingWriter(path, PROVENANCE, POPULATIONS).frames == kept
    write(path, whole, states, cuts)
    write(other, whole, states, cuts)
    assert_same_store(path, other)
    store.require_whole(path)
