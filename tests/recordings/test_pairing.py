"""Which current belongs to which potential: read right, or refused with the field that forces it."""

import datetime
import os
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from jneuro.recordings.kinds import RecordingSource
from jneuro.recordings.pairing import Command, choose_current, compare_currents
from jneuro.recordings.readers import ReadError, read
from tests.recordings.abf_files import write_abf

pytest.importorskip("pyabf")
pynwb = pytest.importorskip("pynwb")

ROOT = Path(__file__).parents[2]
CASES = Path(os.environ.get("JNEURO_DATA", ROOT.parent / "shared" / "data")) / "cases"
DT = 0.1
TIME = 2000


def steps(*levels, begin=500, end=1500):
    current = np.zeros((len(levels), TIME))
    current[:, begin:end] = np.array(levels)[:, None]
    return current


def monitor(current, *, gain=1.0, lag=2, offset=0.0, noise=1.0):
    """What a monitor records of a current."""
    rng = np.random.default_rng(0)
    return gain * np.roll(current, lag, axis=1) + offset + rng.normal(0, noise, current.shape)


LEVELS = (-100.0, -50.0, 0.0, 50.0)
LISTED = (-100.0, -50.0, 0.0, 25.0)
PULSES = np.zeros((1, TIME))
PULSES[0, 600:1600].reshape(20, 50)[:, :10] = 2500.0
SMALL = steps(-50.0, begin=100, end=300)

COMPARED = {
    "the same": (steps(*LEVELS), monitor(steps(*LEVELS), offset=79.0), True, ""),
    "filtered, 2 % less": (steps(*LEVELS), monitor(steps(*LEVELS), gain=0.98), True, ""),
    "pulses": (SMALL + PULSES, monitor(SMALL + PULSES, offset=79.0), True, ""),
    "pulses that the command lacks": (SMALL, monitor(SMALL + PULSES, offset=79.0), False, ""),
    "one step of four": (steps(*LEVELS), monitor(steps(*LISTED)), False, ""),
    "much noise": (steps(*LEVELS), monitor(steps(*LEVELS), noise=20.0), True, ""),
    "a scale": (steps(*LEVELS), monitor(steps(*LEVELS), gain=20.0), False, "two scales"),
    "inverted": (steps(*LEVELS), monitor(steps(*LEVELS), gain=-1.0), False, "two scales"),
    "nothing": (steps(*LEVELS), monitor(steps(0, 0, 0, 0)), False, "was off"),
    "constant": (steps(0.0) - 35.0, monitor(steps(0.0), offset=16.0), True, ""),
}


@pytest.mark.parametrize(("command", "measured", "agrees", "doubt"), COMPARED.values(), ids=COMPARED)
def test_commands_beside_what_was_measured(command, measured, agrees, doubt):
    found = compare_currents(command, measured, DT)
    assert found.agrees == agrees, found
    assert doubt in found.doubt
    assert bool(found.doubt) == bool(doubt)


def test_lag_gain_and_offset_are_found():
    found = compare_currents(steps(*LEVELS), monitor(steps(*LEVELS), gain=0.95, lag=3, offset=-12.0), DT)
    np.testing.assert_allclose(found.lag, 0.3)
    np.testing.assert_allclose([found.gain, found.offset, found.noise], [0.95, -12.0, 1 / np.sqrt(10)], rtol=0.1)
    assert found.correlation > 0.99


SURE = Command(steps(*LEVELS), "the epochs")
LISTS = [SURE._replace(fault="a user list"), Command(steps(*LISTED), "with the list", "a user list")]
NONE = Command(None, "", "nOperationMode = 3")
RIGHT, OTHER = monitor(steps(*LEVELS), offset=79.0), monitor(steps(*LISTED), offset=79.0)

CHOSEN = {
    "command alone": ([SURE], {}, "auto", "command, the epochs; no current was measured", LEVELS),
    "command confirmed": ([SURE], {"I": RIGHT}, "auto", "the measured 'I' agrees: gain 1", LEVELS),
    "command of two channels": ([SURE], {"A": OTHER, "I": RIGHT}, "auto", "the measured 'I' agrees", LEVELS),
    "contradicted": ([SURE], {"I": OTHER}, "auto", r"measured, 'I' \(it contradicts the command: .*offset", LISTED),
    "the user's command": ([SURE], {"I": OTHER}, "command", "the measured 'I' contradicts it", LEVELS),
    "the user's measured": ([SURE], {"I": RIGHT}, "measured", r"measured, 'I' \(as you say: .*offset", LEVELS),
    "list confirmed": (LISTS, {"I": OTHER}, "auto", "command, with the list; the measured 'I' agrees", LISTED),
    "list not varied": (LISTS, {"I": RIGHT}, "auto", "command, the epochs; the measured 'I' agrees", LEVELS),
    "nothing played": ([NONE], {"I": RIGHT}, "auto", r"'I' \(nOperationMode = 3\); an offset of its monitor", None),
}  # fmt: skip


@pytest.mark.parametrize(("commands", "measured", "which", "said", "levels"), CHOSEN.values(), ids=CHOSEN)
def test_the_current_that_is_taken(tmp_path, commands, measured, which, said, levels):
    current, found = choose_current(tmp_path, commands, measured, which=which, dt=DT)
    assert re.search(said, found), found
    assert "\n" not in found
    rests = 79.0 if levels is None else 0.0
    np.testing.assert_allclose(current[:, 600:1400].mean(1), np.array(levels or LEVELS) + rests, atol=0.5)
    np.testing.assert_allclose(current[:, :400].mean(1), rests, atol=0.5)


FLAT = monitor(steps(0, 0, 0, 0))
REFUSED = {
    "unconfirmed list": (LISTS, {}, "auto", "holds no stimulus: a user list, and no channel is in amperes"),
    "the user's unconfirmed list": (LISTS, {"I": FLAT}, "command", "no command that can be taken: a user list"),
    "monitor off": ([SURE], {"I": FLAT}, "auto", "does not move with the command.*say current='command' or"),
    "two scales": ([SURE], {"I": 20 * RIGHT}, "auto", "two scales"),
    "two channels": (
        [NONE],
        {"I": RIGHT, "J": OTHER},
        "auto",
        r"more than one channel .*\('I', 'J'\).*current_channel",
    ),
    "nothing measured": ([SURE], {}, "measured", "no measured channel"),
    "another word": ([SURE], {}, "best", "must be 'auto', 'command' or 'measured'"),
}


@pytest.mark.parametrize(("commands", "measured", "which", "message"), REFUSED.values(), ids=REFUSED)
def test_currents_that_are_refused(tmp_path, commands, measured, which, message):
    with pytest.raises(ReadError, match=message):
        choose_current(tmp_path, commands, measured, which=which, dt=DT)


# ABF

V = np.full((4, TIME), -65.0) + np.sin(np.arange(TIME))
CELL = ("IN 0", "mV", V)
BEFORE = TIME // 64
STEP = [(0, 1, 0.0, 0.0, 500 - BEFORE, 0, 0), (0, 1, -100.0, 50.0, 1000, 0, 0)]
STEPS = {"outputs": [("Cmd 0", "pA"), ("Cmd 1", "mV")], "epochs": STEP}
TRAIN = {
    "inputs": [("Imemb", "nA", 1e-3 * monitor(PULSES, offset=79.0)), ("10_Vm", "mV", V[:1])],
    "outputs": [("Cmd 0", "mV"), ("ME1", "nA")],
    "enabled": (0, 1),
    "epochs": [(1, 1, 0.0, 0.0, 600 - BEFORE, 0, 0), (1, 3, 2.5, 0.0, 1000, 50, 10)],
}
HELD = [(0, 1, -80.0, 0.0, 500, 0, 0), (0, 1, -60.0, 0.0, 500, 0, 0)]
CLAMPED = {
    "inputs": [("Ipatch", "pA", 50 * V), ("V cmd", "mV", V)],
    "outputs": [("Cmd 0", "mV"), ("piezo", "um"), ("Cmd 2", "mV")],
    "numbers": (0, 2),
    "epochs": HELD,
}
WITH_LIST = STEPS | {"user_list": (62, LISTED)}
MONITOR = ("IN 1", "pA", monitor(steps(*LISTED), offset=79.0))
FREE = STEPS | {"mode": 3}

ABF = {
    "steps": ({"inputs": [CELL], **STEPS}, {}, LEVELS, "the epochs of output 0 'Cmd 0'; no current was measured"),
    "user list": ({"inputs": [CELL, MONITOR], **WITH_LIST}, {}, LISTED, "with the user list as levels; the measured"),
    "a list that is not there": ({"inputs": [CELL, MONITOR], **STEPS}, {}, LISTED, "it contradicts the command"),
    "the command all the same": (
        {"inputs": [CELL, MONITOR], **STEPS}, {"current": "command"}, LEVELS, "the measured 'IN 1' contradicts it"
    ),
    "gap-free": ({"inputs": [(n, u, x[:1]) for n, u, x in (CELL, MONITOR)], **FREE}, {}, None, "nOperationMode = 3"),
    "alternating": (
        {"inputs": [CELL, MONITOR], **STEPS, "alternating": 1}, {}, None, "nAlternateDACOutputState = 1"
    ),
    "a stimulus file": ({"inputs": [CELL, MONITOR], **STEPS, "source": (2, 1)}, {}, None, r"nWaveformSource\[0\] = 2"),
    "a wrong unit": ({"inputs": [("IN 0", "pA", V)], **STEPS}, {"unit": "mV"}, LEVELS, "the epochs"),
    "a wrong scale": ({"inputs": [("IN 0", "pA", 20 * V)], **STEPS}, {"unit": "0.05 mV"}, LEVELS, "the epochs"),
    "a light in mV": (
        {"inputs": [CELL], "outputs": STEPS["outputs"], "epochs": [*STEP, (1, 1, 500.0, 0.0, 99, 0, 0)],
         "enabled": (1, 1)}, {}, LEVELS, "the epochs",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "options", "levels", "said"), ABF.values(), ids=ABF)
def test_abf_files_that_are_read(tmp_path, file, options, levels, said):
    found = read(write_abf(tmp_path / "a.abf", **file), **options)
    assert re.search(said, found.about["current"]), found.about
    expected = np.array(levels or LISTED[: len(found["v"])]) + (79.0 if levels is None else 0.0)
    np.testing.assert_allclose(found["current"][:, 600:1400, 0].mean(1), expected, atol=0.5)
    np.testing.assert_allclose(found["v"][..., 0], V[: len(found["v"])], atol=0.01)


@pytest.mark.parametrize("current", ["auto", "measured"])
def test_abf_pulses_on_the_second_output(tmp_path, current):
    """Case 1: 20 pulses of 2,500 pA on a monitor that rests at 79 pA."""
    found = read(write_abf(tmp_path / "a.abf", **TRAIN), current=current)
    np.testing.assert_allclose(found["current"][..., 0], PULSES, atol=5 if current == "auto" else 2600)
    assert "offset 79" in found.about["current"]
    np.testing.assert_allclose(np.median(found["current"]), 0.0, atol=0.5)
    assert found["current"].max() > 2400


ABF_REFUSED = {
    "a monitor of voltage clamp": (
        CLAMPED,
        {},
        r"in mV, so this is voltage clamp \(sDACChannelUnits\[0\] = 'mV', nWave",
    ),
    "however it is named": (CLAMPED, {"channel": 1, "current_channel": 0}, "so this is voltage clamp"),
    "list unconfirmed": ({"inputs": [CELL], **WITH_LIST}, {}, "nULParamToVary = 62"),
    "alternating": ({"inputs": [CELL], **STEPS, "alternating": 1}, {}, "nAlternateDACOutputState = 1"),
    "gap-free": ({"inputs": [("IN 0", "mV", V[:1])], **FREE}, {}, "nOperationMode = 3, gap-free"),
    "a stimulus file": ({"inputs": [CELL], **STEPS, "source": (2, 1)}, {}, r"nWaveformSource\[0\] = 2"),
    "not on": ({"inputs": [CELL], **STEPS, "enabled": (0, 0)}, {}, r"nWaveformEnable\[0\] = 0"),
    "unit": (
        {"inputs": [("IN 0", "pA", V)], **STEPS, "telegraph": 1},
        {},
        r"nTelegraphMode\[0\] = 1.*0: 'IN 0' \(pA\)",
    ),
    "unit of another kind": ({"inputs": [CELL], **STEPS}, {"unit": "pA"}, "unit = 'pA' is no unit of a potential"),
    "no such channel": ({"inputs": [CELL, MONITOR], **STEPS}, {"channel": "Vm"}, r"0: 'IN 0' \(mV\), 1: 'IN 1' \(pA\)"),
    "no current": (
        {"inputs": [CELL, CELL], **STEPS},
        {"current_channel": 1},
        "in mV, which is no current.*current_unit",
    ),
    "implausible": ({"inputs": [("IN 0", "V", V)], **STEPS}, {}, r"reaches 6\.6e\+04 mV, beyond limit_mv = 1000"),
}


@pytest.mark.parametrize(("file", "options", "message"), ABF_REFUSED.values(), ids=ABF_REFUSED)
def test_abf_files_that_are_refused(tmp_path, file, options, message):
    with pytest.raises(ReadError, match=message) as error:
        read(write_abf(tmp_path / "a.abf", **file), **options)
    assert "\n" not in str(error.value)


def test_abf_of_two_cells(tmp_path):
    """The second cell does not get the first one's current; the file says that there is another."""
    outputs = [("Cmd 0", "pA"), ("Cmd 1", "pA")]
    second = (1, 1, 10.0, 10.0, 1000, 0, 0)
    both = {"inputs": [CELL, ("IN 1", "mV", V - 5)], "outputs": outputs}
    path = write_abf(tmp_path / "a.abf", **both, epochs=[*STEP, second], enabled=(1, 1))
    first = read(path)
    assert "1: 'IN 1' (mV)" in first.about["others"]
    np.testing.assert_allclose(read(path, channel="IN 1")["current"][:, 600, 0], [10, 20, 30, 40])
    np.testing.assert_allclose(first["current"][:, 600, 0], LEVELS)
    path = write_abf(tmp_path / "b.abf", **both, epochs=STEP)
    with pytest.raises(ReadError, match=r"nWaveformEnable\[1\] = 0"):
        read(path, channel=1)
    path = write_abf(tmp_path / "c.abf", **both | {"outputs": outputs[:1]}, epochs=STEP, numbers=(0, 2))
    with pytest.raises(ReadError, match="no output of this electrode, nADCNum = 2, commands a current"):
        read(path, channel=1)


# NWB


def nwb_of(path, responses, stimuli):
    """Series of an electrode and a sweep number each; the current of a response is its mean's tenfold."""
    file = pynwb.NWBFile("session", "id", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    device, electrodes = file.create_device(name="amplifier"), {}
    for group, add in ((responses, file.add_acquisition), (stimuli, file.add_stimulus)):
        for kind, name, electrode, number, level, options in group:
            if electrode not in electrodes:
                made = file.create_icephys_electrode(name=electrode, device=device, description="patch")
                electrodes[electrode] = made
            how = {"rate": 1e4, "starting_time": 0.0, "data": np.full(1000, level)} | options
            series = getattr(pynwb.icephys, kind)(
                name=name, electrode=electrodes[electrode], sweep_number=np.uint32(number), **how
            )
            add(series)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def response(name, electrode="e0", number=0, level=-0.065, kind="CurrentClampSeries", **options):
    return (kind, name, electrode, number, level, options)


def stimulus(name, electrode="e0", number=0, level=1e-11, **options):
    return ("CurrentClampStimulusSeries", name, electrode, number, level, options)


SHORT = {"data": np.full(995, 1e-11)}
TWO_CELLS = (
    [response(f"r_{n}_{e}", f"e{e}", n) for n in (0, 1) for e in (0, 1)],
    [stimulus(f"s_{n}_{e}", f"e{e}", n, 1e-11 * (n + 10 * e)) for n in (0, 1) for e in (0, 1)],
)
LATER = ([response("r_0")], [stimulus("s_0", starting_time=0.01)])
ZERO = (
    [response("i_0", kind="IZeroClampSeries"), response("r_1", number=1)],
    [stimulus("s_1", number=1)],
)
MILLIVOLTS = ([response("r_0", level=-65.0)], [stimulus("s_0", level=10.0)])
BOTH = ([response("r_0")], [stimulus("s_0_step"), stimulus("s_0_noise", level=2e-11)])
RATES = ([response("r_0")], [stimulus("s_0_slow", rate=5e3), stimulus("s_0_right", level=2e-11)])

STAMPS = 1e-4 * np.arange(1000)
STAMPED = {"rate": None, "starting_time": None, "timestamps": STAMPS}
UNEVEN = STAMPED | {"timestamps": STAMPS + (np.arange(1000) > 500) * 5e-5}

NWB = {
    "even time stamps": (([response("r_0", **STAMPED)], [stimulus("s_0", **STAMPED)]), {}, [[10]], 1000),
    "case 8": (TWO_CELLS, {}, [[0, 100], [10, 110]], 1000),
    "one electrode": (TWO_CELLS, {"channel": "e1"}, [[100], [110]], 1000),
    "case 10, what both cover": (LATER, {"overlap": True}, [[10]], 900),
    "case 12, zero": (ZERO, {}, [[0], [10]], 1000),
    "case 12, left out": (ZERO, {"sweeps": [1]}, [[10]], 1000),
    "case 13, what both cover": (([response("r_0")], [stimulus("s_0", **SHORT)]), {"overlap": True}, [[10]], 995),
    "case 14, the user's units": (MILLIVOLTS, {"unit": "mV", "current_unit": "pA"}, [[10]], 1000),
    "one of two by name": (BOTH, {"current_channel": "noise"}, [[20]], 1000),
    "one of two by rate": (RATES, {}, [[20]], 1000),
    "relative starts": (([response("r_0", starting_time=7.0)], [stimulus("s_0")]), {}, [[10]], 1000),
}


@pytest.mark.parametrize(("series", "options", "levels", "length"), NWB.values(), ids=NWB)
def test_nwb_files_that_are_read(tmp_path, series, options, levels, length):
    found = read(nwb_of(tmp_path / "a.nwb", *series), **options)
    assert (found["v"].shape[2] > 1) == ("electrodes, read as neurons: e0, e1" in found.about.get("cells", ""))
    np.testing.assert_allclose(found["current"][:, 10], levels, atol=1e-6)
    assert found["v"].shape[1] == length
    np.testing.assert_allclose(found["v"], -65.0, rtol=1e-6)
    assert found.units == {"v": "mV", "current": "pA"}


NWB_REFUSED = {
    "uneven time stamps": (
        ([response("r_0", **UNEVEN)], [stimulus("s_0")]), {}, r"uneven time stamps, 0\.15 ms before sample 501"
    ),
    "case 10": (LATER, {}, r"'s_0' starts 10 ms \(100 samples\) later than 'r_0' .*overlap=True"),
    "case 13": (([response("r_0")], [stimulus("s_0", **SHORT)]), {}, r"is 5 samples \(0\.5 ms\) shorter than 'r_0'"),
    "case 14": (MILLIVOLTS, {}, r"reaches 6\.5e\+04 mV, beyond limit_mv = 1000; .* unit='mV'"),
    "case 14, currents": (MILLIVOLTS, {"unit": "mV"}, r"the current reaches 1e\+13 pA, beyond limit_pa"),
    "ambiguous": (BOTH, {}, r"more than one stimulus may belong to 'r_0' .*\['s_0_noise', 's_0_step'\]"),
    "another electrode": (([response("r_0")], [stimulus("s_0", "e1")]), {}, r"sweeps \[0\] have no .*'s_0' of 'e1'"),
    "another rate": (([response("r_0")], [stimulus("s_0", rate=5e3)]), {}, r"rate = 10000 Hz, .* rate = 5000 Hz"),
    "between samples": (
        ([response("r_0")], [stimulus("s_0", starting_time=0.00105)]), {}, "starts between two samples"
    ),
    "electrodes": (
        ([response("r_0"), response("r_1", "e1")], [stimulus("s_0")]), {"channel": "e2"}, "'e2' is none of its channels"
    ),
    "nothing in common": (
        ([response("r_0")], [stimulus("s_0", starting_time=9.0)]), {"overlap": True}, "no time in common"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("series", "options", "message"), NWB_REFUSED.values(), ids=NWB_REFUSED)
def test_nwb_files_that_are_refused(tmp_path, series, options, message):
    with pytest.raises(ReadError, match=message):
        read(nwb_of(tmp_path / "a.nwb", *series), **options)


def test_nwb_limits_can_be_raised(tmp_path):
    found = read(nwb_of(tmp_path / "a.nwb", *MILLIVOLTS), limit_mv=1e6, limit_pa=1e14)
    np.testing.assert_allclose(found["v"], -65e3)


# Configurations, and the files of a laboratory


def test_corrections_in_a_configuration(tmp_path):
    path = write_abf(tmp_path / "a.abf", inputs=[("IN 0", "pA", V)], **STEPS)
    adapter = TypeAdapter(RecordingSource)
    given = adapter.validate_python({"path": path, "channel": 0, "unit": "mV", "current": "command", "sweeps": [1]})
    assert not given.is_store
    np.testing.assert_allclose(given.read()["current"][:, 600, 0], LEVELS[1])
    said = {"path": str(path), "sweeps": [1], "channel": 0, "unit": "mV", "current": "command"}
    assert adapter.dump_python(given, mode="json") == said
    with pytest.raises(ValueError, match="unknown key 'unit'"):
        adapter.validate_python({"path": tmp_path / "b.zarr", "unit": "mV"})


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_cases_of_strangers():
    found = read(CASES / "case08_two_electrodes_same_sweep_number.nwb")
    np.testing.assert_allclose(np.median(found["current"], 1), [[0, 100], [10, 110]], atol=1e-3)
    with pytest.raises(ReadError, match=r"starts 10 ms \(100 samples\) later"):
        read(CASES / "case10_stimulus_starts_later.nwb")
    found = read(CASES / "case12_izero_first.nwb", [1, 2])
    np.testing.assert_allclose(np.median(found["current"], 1), [[10], [20]], atol=1e-3)
    assert not read(CASES / "case12_izero_first.nwb")["current"][0].any()
    # What was read of case 1 before its trains were: no pulses, which the nA channel shows.
    _, _, measured, lost = np.loadtxt(CASES / "case01_18425108_abf1_2ms.csv", delimiter=",", skiprows=1, unpack=True)
    assert not compare_currents(lost[None], measured[None], 2.0).agrees
    taken, said = choose_current(CASES, [Command(lost[None], "the epochs")], {"Imemb": measured[None]}, dt=2.0)
    assert "it contradicts the command" in said
    assert 2300 < taken.max() < 2500  # means of 2 ms, over pulses of 2 ms behind a filter
    assert abs(np.median(taken)) < 1
