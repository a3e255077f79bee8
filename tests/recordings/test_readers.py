"""Files of other programs: what our simulators did comes back from them, and what is of no use is refused by name."""

import datetime
import os
import struct
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from pydantic import TypeAdapter

from jneuro.recordings import ReadError, Recording, StoreError, read, write_nwb
from jneuro.recordings.kinds import RecordingSource
from jneuro.recordings.recording import from_arrays
from jneuro.recordings.units import factor_to
from jneuro.simulators import HodgkinHuxley, Pospischil, simulate, stimuli

pyabf = pytest.importorskip("pyabf")
pynwb = pytest.importorskip("pynwb")

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("JNEURO_DATA", ROOT.parent / "shared" / "data")) / "recordings"
AMPLITUDES = (-50.0, 0.0, 50.0)
DT = 0.1


@pytest.fixture(scope="module")
def cell():
    """A simulated cell under three steps of current, one trial each."""
    step = stimuli.Step(np.array(AMPLITUDES, np.float32), onset=5.0, end=15.0)
    how = {"record": ("v", "current"), "record_every": 0.1, "key": jax.random.key(0)}
    seen = simulate(Pospischil(), step, duration=20.0, **how)
    return as_trials(seen)


def as_trials(seen):
    values = {n: np.asarray(x).T[..., None] for n, x in seen.values.items()}
    return with_values(values, seen.unit_pairs, seen.dt)


def with_values(values, units, dt=DT):
    some = next(iter(values.values()))
    return Recording(values, np.asarray(True), np.asarray(-1), None, dt, 1, some.shape[1], tuple(units))


# NWB


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("unit", ["pA", "nA"])
def test_nwb_round_trip_to_the_last_bit(tmp_path, cell, precision, unit):
    values = {n: (x.astype(precision) + precision(np.pi)) for n, x in cell.values.items()}
    about = {"cell": "c7", "protocol": "three steps", "date": "2024-02-03T04:05:06+00:00"}
    write_nwb(tmp_path / "a.nwb", with_values(values, (("v", "mV"), ("current", unit))), about)
    found = read(tmp_path / "a.nwb")
    assert found.values["v"].dtype == precision
    np.testing.assert_array_equal(found.values["v"], values["v"])
    scale = precision(1 if unit == "pA" else 1000)
    np.testing.assert_allclose(found.values["current"], values["current"] * scale, rtol=1e-6 * (unit == "nA"))
    assert (found.units, found.dt) == ({"v": "mV", "current": "pA"}, cell.dt)
    assert about.items() <= found.about.items()
    assert found.about["file"] == "a.nwb"
    np.testing.assert_array_equal(read(tmp_path / "a.nwb", [2, 0]).values["v"], values["v"][[2, 0]])
    np.testing.assert_allclose(found.time, np.arange(found.frames) * found.dt)


def test_nwb_keeps_populations_and_densities(tmp_path):
    current = np.array([0.0, 10.0], np.float32)
    seen = simulate(
        HodgkinHuxley(), stimuli.Constant(current), duration=2.0, record=("v", "current"), key=jax.random.key(0)
    )
    values = {n: np.broadcast_to(np.asarray(x), (3, *x.shape)).copy() for n, x in seen.values.items()}
    write_nwb(tmp_path / "a.nwb", with_values(values, seen.unit_pairs, seen.dt))
    found = read(tmp_path / "a.nwb")
    assert found.units["current"] == "µA/cm²"
    for name, x in values.items():
        np.testing.assert_array_equal(found.values[name], x)


def nwb_of(path, responses, stimuli=()):
    """A file as others write it: volts and amperes in whole numbers, paired by the numbers in their names."""
    file = pynwb.NWBFile("session", "id", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    device = file.create_device(name="amplifier")
    electrode = file.create_icephys_electrode(name="e", device=device, description="patch")
    kinds = pynwb.icephys
    for number, (kind, data, options) in enumerate(responses):
        how = {"electrode": electrode, "rate": 1e4} | options
        file.add_acquisition(getattr(kinds, kind)(name=f"Sweep_{number}_resp", data=data, **how))
    for number, (data, options) in stimuli:
        how = {"electrode": electrode, "rate": 1e4} | options
        file.add_stimulus(kinds.CurrentClampStimulusSeries(name=f"Sweep_{number}_stim", data=data, **how))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


RAMP = np.arange(20, dtype=np.int16)
CLAMP = ("CurrentClampSeries", RAMP, {"conversion": 1e-4, "offset": -0.06})


def test_nwb_in_whole_numbers_paired_by_name(tmp_path):
    stimuli = [(1, (2 * RAMP, {"conversion": 1e-11})), (0, (RAMP, {"conversion": 1e-11}))]
    found = read(nwb_of(tmp_path / "a.nwb", [CLAMP, CLAMP], stimuli))
    np.testing.assert_allclose(found.values["v"][1, :, 0], RAMP * 0.1 - 60, rtol=1e-6)
    np.testing.assert_allclose(found.values["current"][..., 0], [RAMP * 10.0, RAMP * 20.0], rtol=1e-6)
    assert found.dt == 0.1


@pytest.mark.parametrize(
    ("responses", "stimuli", "message"),
    [
        ([CLAMP], [], r"the sweeps \[0\] have no stimulus series; a fit needs the injected current"),
        ([("VoltageClampSeries", RAMP, {})], [], "holds no current clamp, only VoltageClampSeries"),
        ([], [], "holds no current clamp, nothing at all"),
        (
            [CLAMP, ("CurrentClampSeries", RAMP[:9], {})],
            [(0, (RAMP, {})), (1, (RAMP[:9], {}))],
            r"different lengths \(\[9, 20\] samples\).* choose alike ones with sweeps=",
        ),
    ],
    ids=["no stimulus", "voltage clamp", "empty", "lengths"],
)
def test_nwb_that_cannot_be_used(tmp_path, responses, stimuli, message):
    with pytest.raises(ReadError, match=rf"a\.nwb: .*{message}"):
        read(nwb_of(tmp_path / "a.nwb", responses, stimuli))


def test_nwb_is_not_overwritten_and_must_be_complete(tmp_path, cell):
    (tmp_path / "a.nwb").write_text("mine")
    with pytest.raises(ReadError, match="exists; choose another name"):
        write_nwb(tmp_path / "a.nwb", cell)
    assert (tmp_path / "a.nwb").read_text() == "mine"
    with pytest.raises(ReadError, match="must have 'current' as"):
        write_nwb(tmp_path / "b.nwb", with_values({"v": cell.values["v"]}, (("v", "mV"),)))
    assert not (tmp_path / "b.nwb").exists()


# ABF


def abf_of(path, v, *, unit="mV", command="pA", level=-50.0, step=50.0, on=True):
    """An ABF 1 file of sweeps [sweep, sample]; its command is 0, but for 40 samples that grow by `step` each sweep."""
    from pyabf.abfWriter import writeABF1

    writeABF1(np.asarray(v, float), str(path), 1e3 / DT, unit)
    data = bytearray(path.read_bytes())
    # The header that pyabf writes ends before the command waveform; that of the format has twelve blocks.
    data[2048:2048] = bytes(8 * 512)
    fields = [("i", 40, 12), ("8s", 1346, command.ljust(8).encode())]
    fields += [("h", 2296, int(on)), ("h", 2300, int(on))]
    fields += [("h", 2308, 1), ("f", 2348, 0.0), ("i", 2508, 10)]
    fields += [("h", 2310, 1), ("f", 2352, level), ("f", 2432, step), ("i", 2512, 40)]
    for kind, offset, value in fields:
        struct.pack_into(kind, data, offset, value)
    path.write_bytes(data)
    return path


def test_abf_gives_what_was_simulated(tmp_path, cell):
    v = cell.values["v"][..., 0]
    found = read(abf_of(tmp_path / "a.abf", v))
    np.testing.assert_allclose(found.values["v"][..., 0], v, atol=np.abs(v).max() / 2**14)
    current = found.values["current"][..., 0]
    assert current.shape == v.shape
    np.testing.assert_array_equal(current[:, 20], AMPLITUDES)
    np.testing.assert_array_equal((current != 0).sum(1), [40, 0, 40])
    assert (found.units, found.dt) == ({"v": "mV", "current": "pA"}, DT)
    assert found.about["format"].startswith("ABF 1")
    np.testing.assert_array_equal(read(tmp_path / "a.abf", [2]).values["v"], found.values["v"][[2]])


def test_abf_in_other_prefixes(tmp_path, cell):
    v = cell.values["v"][..., 0]
    found = read(abf_of(tmp_path / "a.abf", 1e-3 * v, unit="V", command="nA", level=-0.05, step=0.05))
    np.testing.assert_allclose(found.values["v"][..., 0], v, atol=0.05)
    np.testing.assert_allclose(found.values["current"][:, 20, 0], AMPLITUDES, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": False}, "holds no stimulus: no command waveform was on"),
        ({"unit": "pA", "command": "mV"}, r"no channel is in volts \(units: pA\): voltage clamp\?"),
        ({"command": "mV"}, "its command is in mV, so this is voltage clamp"),
    ],
    ids=["no stimulus", "current", "voltage clamp"],
)
def test_abf_that_cannot_be_used(tmp_path, cell, options, message):
    with pytest.raises(ReadError, match=rf"a\.abf: .*{message}"):
        read(abf_of(tmp_path / "a.abf", cell.values["v"][..., 0], **options))


# Both


@pytest.mark.parametrize("name", ["a.abf", "a.nwb"])
def test_damaged_and_missing_files(tmp_path, name):
    with pytest.raises(ReadError, match=rf"{name}: no such file"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"ABF2 but no more than this")
    with pytest.raises(ReadError, match=rf"{name}: cannot be read .* damaged, or not of the format"):
        read(tmp_path / name)


@pytest.mark.parametrize(("package", "name"), [("pyabf", "a.abf"), ("pynwb", "a.nwb")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, name):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ReadError, match=rf"needs the package {package}; install it with pip install 'jneuro\[io\]'"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("sweeps", "said"),
    [
        *((s, "must name some of the sweeps 0 to 2") for s in ([], [3], [-1])),
        (
            [True, False, True],
            r"sweeps = \[True, False, True\] must be numbers .* not a mask",
        ),
        ([1, 0, 1], r"sweeps = \[1, 0, 1\] names sweep 1 twice"),
    ],
)
def test_sweeps_that_are_not_there(tmp_path, cell, sweeps, said):
    write_nwb(tmp_path / "a.nwb", cell)
    with pytest.raises(ReadError, match=said):
        read(tmp_path / "a.nwb", sweeps)


def spoiled(cell, how):
    """The second of three trials made useless."""
    values = {n: x.copy() for n, x in cell.values.items()}
    v = values["v"][1, :, 0]
    if how == "nan":
        v[7] = np.nan
    elif how == "current":
        values["current"][1, 3] = np.inf
    else:
        v[100:110] = [-20, 0, 20, 30, 30, 30, 30, 10, -20, -60]
    return with_values(values, cell.unit_pairs)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "the potential has samples that are not finite"),
        ("current", "the current has samples that are not finite"),
        ("clipped", "the potential is clipped"),
    ],
)
def test_useless_sweeps_are_named_and_can_be_left_out(tmp_path, cell, how, message):
    write_nwb(tmp_path / "a.nwb", spoiled(cell, how))
    with pytest.raises(ReadError, match=rf"in the sweeps \[1\], {message}.*leave them out, sweeps=\[0, 2\]"):
        read(tmp_path / "a.nwb")
    assert len(read(tmp_path / "a.nwb", [0, 2]).values["v"]) == 2
    with pytest.raises(ReadError, match="take another recording"):
        read(tmp_path / "a.nwb", [1])


def test_rest_and_slow_troughs_are_not_clipped(tmp_path, cell):
    v = np.round(cell.values["v"], 1)  # coarse, so that slow extremes are flat
    v[0] = -70.0
    write_nwb(tmp_path / "a.nwb", with_values({"v": v, "current": cell.values["current"]}, cell.unit_pairs))
    assert len(read(tmp_path / "a.nwb").values["v"]) == 3


def test_anything_else_is_a_store(tmp_path):
    with pytest.raises(StoreError, match="no such recording"):
        read(tmp_path / "recording.zarr")


def test_readers_of_ones_own(tmp_path):
    file = tmp_path / "a.numbers"
    np.savetxt(file, [-65.0, -64.0, -60.0])

    def numbers(path, *, dt=1.0, name="v", unit="mV"):
        return from_arrays(**{name: np.loadtxt(path)}, dt=dt, units={name: unit})

    found = read(file, reader=numbers, dt=0.5)
    assert (found["v"].shape, found.dt, found.units) == ((1, 3, 1), 0.5, {"v": "mV"})
    assert read(file, [0], reader=numbers)["v"].tolist() == found["v"].tolist()
    bad = {
        r"a\.numbers: no reader is known for files that end in '\.numbers'; known are abf .* table .*reader=": {},
        r"unknown argument 'dtt'; did you mean 'dt'\?": {"reader": numbers, "dtt": 1.0},
        r"must return a Recording, got list": {"reader": lambda path: [path]},
        r"unknown reader 'csv'": {"reader": "csv"},
        r"dt = 0\.0 ms must be positive": {"reader": numbers, "dt": 0.0},
        r"must name some of the sweeps 0 to 0": {"reader": numbers, "sweeps": [1]},
        r"is no reader: is of the type int": {"reader": 3},
    }
    for message, options in bad.items():
        with pytest.raises(ValueError, match=message):
            read(file, **options)
    with pytest.raises(KeyError, match="the recording has no 'w'; it has v"):
        found["w"]
    with pytest.raises(ValueError, match="of equal times"):
        from_arrays(v=np.zeros(3), w=np.zeros(4), dt=1.0)
    given = TypeAdapter(RecordingSource).validate_python({"path": file, "reader": {"name": "abf"}, "sweeps": [2]})
    assert (given.reader.name, given.sweeps, given.is_store) == ("abf", (2,), False)
    bare = TypeAdapter(RecordingSource).validate_python(str(tmp_path / "b.zarr"))
    assert bare.is_store
    assert TypeAdapter(RecordingSource).dump_python(bare, mode="json") == str(tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("unit", "target", "factor"),
    [
        ("mV", "mV", 1.0), ("volts", "mV", 1e3), ("V", "mV", 1e3), ("uV", "mV", 1e-3), ("amperes", "pA", 1e12),
        ("nA", "pA", 1e3), ("pA", "pA", 1.0), ("fA", "pA", 1e-3), ("mV", "pA", None), ("", "pA", None),
        ("µA/cm²", "pA", None), ("kA", "pA", None),
    ],
)  # fmt: skip
def test_units(unit, target, factor):
    assert factor_to(unit, target) == factor


RECORDED = [
    ("171116sh_0018.abf", 17, "0113 steps dual -100 to 300 step 25", 2017),
    ("17o05028_ic_steps.abf", 16, "0112 steps dual -50 to 150 step 10", 2017),
]


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize(("name", "sweeps", "protocol", "year"), RECORDED)
def test_recordings_of_a_laboratory(tmp_path, name, sweeps, protocol, year):
    found = read(DATA / name)
    assert found.values["v"].shape == (sweeps, 60000, 1)
    assert found.dt == 0.05
    assert found.about["protocol"] == protocol
    assert datetime.datetime.fromisoformat(found.about["date"]).year == year
    assert -120 < found.values["v"].min() < found.values["v"].max() < 70
    first = found.values["current"][:, 5000, 0]  # in the first step
    np.testing.assert_allclose(np.diff(first), 25.0 if sweeps == 17 else 10.0)
    write_nwb(tmp_path / "a.nwb", found)
    again = read(tmp_path / "a.nwb")
    for values in ("v", "current"):
        np.testing.assert_array_equal(again.values[values], found.values[values])
