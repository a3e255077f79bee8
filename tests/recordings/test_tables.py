"""Tables and arrays of strangers: read right, with what was understood, or refused in one line that says what to do."""

import doctest
import importlib
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr
import yaml
from pydantic import TypeAdapter

from jneuro.experiment.plan import load_plan
from jneuro.experiment.simulation import read_stage
from jneuro.recordings import Electrode, ReadError, from_arrays, from_pandas, from_xarray, read
from jneuro.recordings.kinds import RecordingSource
from jneuro.recordings.units import factor_to, split_unit

N = 20
T = 0.1 * np.arange(N)
V = -65 + 0.3 * np.arange(N)
I = np.linspace(0, 10, N)  # noqa: E741


def rows(*columns, sep=",", form="{:.10g}"):
    return "\n".join(sep.join(form.format(x) for x in row) for row in zip(*columns, strict=True)) + "\n"


PLAIN = "t,v_mV,i_uA_cm2\n" + rows(T, V, I)
SECONDS = "Time\tVm\tIm\ns\tmV\tnA\n" + rows(1e-3 * T, V, 1e-3 * I, sep="\t")
ATF = 'ATF\t1.0\n2\t4\n"Mode=Episodic"\n"Comment="\n"Time (s)"\t"Trace #1 (mV)"\t"Trace #2 (mV)"\t"I (pA)"\n'
ATF += rows(1e-3 * T, V, V + 1, I, sep="\t")
BARE = rows(T, V, I, sep=" ")
LONG = "trial,time_ms,v_mV,i_pA\n" + "".join(rows(np.full(N, k), T, V + k, k * I) for k in range(3))
WIDE = "time_ms,v1,v2,ca1,ca2\n" + rows(T, V, V + 1, I, I + 1)
COMMA = PLAIN.replace(",", ";").replace(".", ",")
BY_NUMBER = {"time": 0, "v": 1, "current": 2, "unit": "mV", "current_unit": "pA", "time_unit": "ms"}
DENSITY, AMPERES = {"v": "mV", "current": "µA/cm²"}, {"v": "mV", "current": "pA"}

READ = {
    "found": ("a.csv", PLAIN, {}, DENSITY, (1, N, 1), "taken for ms"),
    "said": ("a.csv", PLAIN, {"time": "t", "v": "v_mV", "current": "i_uA_cm2"}, DENSITY, (1, N, 1), "'i_uA_cm2'"),
    "decimal commas": ("a.csv", COMMA, {}, DENSITY, (1, N, 1), "'v_mV'"),
    "a line of units": ("a.tsv", SECONDS, {}, AMPERES, (1, N, 1), "'Time' in s"),
    "of np.savetxt": ("a.txt", "# t_ms v_mV i_pA\n" + BARE, {}, AMPERES, (1, N, 1), "'t_ms' in ms"),
    "by number": ("a.dat", BARE, BY_NUMBER, AMPERES, (1, N, 1), "column '0' in ms"),
    "axon text": ("a.atf", ATF, {"v": "Trace #2"}, AMPERES, (1, N, 1), "'Trace #1 (mV)'; read with columns="),
    "two sweeps side by side": (
        "a.csv", WIDE, {"unit": "mV", "across": "trial"}, {"v": "mV"}, (2, N, 1), "'v1', 'v2'"
    ),
    "other variables": ("a.csv", WIDE, {"columns": {"ca": "ca*"}}, {"ca": "1"}, (1, N, 2), "'ca1', 'ca2'"),
    "trials below each other": ("a.csv", LONG, {}, AMPERES, (3, N, 1), "0, 1, 2"),
    "some of them": ("a.csv", LONG, {"sweeps": [1, 2]}, AMPERES, (2, N, 1), "0, 1, 2"),
    "times that begin anew": ("a.csv", re.sub(r"(?m)^\w+,", "", LONG), {}, AMPERES, (3, N, 1), "begins anew"),
    "without a time": ("a.csv", "v_mV\n" + rows(V), {"dt": 0.1}, {"v": "mV"}, (1, N, 1), "as you say"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "options", "units", "shape", "said"), READ.values(), ids=READ)
def test_tables_that_are_read(tmp_path, name, text, options, units, shape, said):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read(tmp_path / name, **options)
    assert (found.units, found.dt) == (units, 0.1)
    assert any(said in x for x in found.about.values()), found.about
    first = found["v"][0, 0, 0] + 65 if "v" in units else 0.0  # the number of the first trial
    times = first if "time_ms,v_mV" in text else 1.0
    for variable, x in found.values.items():
        assert x.shape == shape
        plain = {"v": V + first, "current": I * times, "ca": I}[variable]
        np.testing.assert_allclose(x[0, :, 0], plain, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.time, T, atol=1e-9)


HOLE = PLAIN.replace("-63.5", "").replace("-62,", "nan,")
UNEVEN_T = np.cumsum(np.r_[0, np.tile([0.1, 0.1, 0.2], 7)[: N - 1]])
UNEVEN = "t_ms,v_mV\n" + rows(UNEVEN_T, V)
REFUSED = {
    "no such column": (PLAIN, {"v": "w"}, "v = 'w' is none of its columns, which are 't', 'v_mV', 'i_uA_cm2'"),
    "unknown argument": (PLAIN, {"tme": "t"}, "unknown argument 'tme'; did you mean 'time'"),
    "no unit": (PLAIN.replace("v_mV", "v"), {}, "the unit of 'v' is not known; say unit='mV'"),
    "unit of another kind": (PLAIN, {"unit": "pA"}, "is in pA, which is no unit of a potential; say unit="),
    "no unit of time": (
        PLAIN.replace("v_mV", "x").replace("i_uA_cm2", "y"), {"columns": {"x": "x"}}, "the unit of the time 't'"
    ),
    "no time": ("v_mV\n" + rows(V), {}, "no column is known as the time .* dt=…"),
    "no header": (BARE, {}, r"none of its columns is known .*\('0', '1', '2'\); say which is, v=…"),
    "empty cell": (HOLE, {}, r"'v' is nan, or empty, in line 7 \(2 such samples\)"),
    "words": (PLAIN.replace("-62,", "abc,"), {}, "column 'v_mV' holds 'abc' in line 12, which is no number"),
    "too many cells": (PLAIN + "1,2,3,4\n", {}, "Expected 3 fields in line 22, saw 4"),
    "uneven": (UNEVEN, {}, r"most steps are 0.1 ms, but that to sample \d+ is 0.2 ms .* uneven='interpolate'"),
    "another word": (UNEVEN, {"uneven": "yes"}, "must be 'refuse' or 'interpolate'"),
    "another dt": (PLAIN, {"dt": 0.2}, "dt = 0.2 ms, but the times are 0.1 ms apart"),
    "unequal trials": ("\n".join(LONG.splitlines()[:-3]), {}, "trial 2, neuron 0 has 17, trial 0, neuron 0 has 20"),
    "several": (WIDE, {"unit": "mV"}, "2 columns may be 'v'; say which, v=…, or what they are, across='trial'"),
    "volts": (PLAIN.replace("v_mV", "v_V"), {}, r"reaches 6\.5e\+04 mV, beyond limit_mv = 1000"),
    "a number for sweeps": (LONG, {"sweeps": 0}, r"sweeps = 0 must be a list of numbers, such as \[0, 2\]"),
    "nothing": ("", {}, "no line of numbers is found"),
    "no text": ("\0\1\2", {}, "is no text"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_tables_that_are_refused(tmp_path, text, options, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "a.csv", **options)
    assert "\n" not in str(error.value)


def test_uneven_times_are_interpolated_with_an_error_that_holds(tmp_path):
    v = -65 + 10 * np.sin(UNEVEN_T)
    (tmp_path / "a.csv").write_text("t_ms,v_mV\n" + rows(UNEVEN_T, v))
    found = read(tmp_path / "a.csv", uneven="interpolate", dt=0.05)
    assert found.dt == 0.05
    stated = float(re.search(r"met to (\S+) of 'v' at the worst", found.about["time"])[1])
    error = np.abs(found["v"][0, :, 0] + 65 - 10 * np.sin(found.time)).max()
    assert 0 < error < stated < 1


def test_arrays_in_files(tmp_path):
    sweeps = np.stack([V, V + 1, V + 2])
    np.savez(tmp_path / "a.npz", v=sweeps, current=I, t=T, unit_v="mV", unit_current="nA", unit_t="ms")
    found = read(tmp_path / "a.npz")  # [trial, time], as its times tell
    np.testing.assert_array_equal(found["v"][..., 0], sweeps)
    np.testing.assert_array_equal(found["current"][2, :, 0], 1e3 * I)
    np.save(tmp_path / "a.npy", sweeps)
    how = {"dt": 0.1, "unit": "mV"}
    np.testing.assert_array_equal(read(tmp_path / "a.npy", axes="trial time", **how)["v"][..., 0], sweeps)
    other = read(tmp_path / "a.npy", columns={"x": "array"}, dt=1, axes="neuron time")
    np.testing.assert_array_equal(other["x"][0].T, sweeps)
    np.savez(tmp_path / "b.npz", v=V, fs=20_000.0)
    assert read(tmp_path / "b.npz", unit="mV").dt == 0.05
    np.save(tmp_path / "o.npy", np.array([{}], object))
    for name, options, message in [
        ("a.npy", how, r"'v' is \(3, 20\): 3 samples of 20 neurons, or 3 trials\? Say axes="),
        ("a.npy", {}, r"none of its columns is known .*\('array'\)"),
        ("a.npy", how | {"axes": "trial tme"}, "axes = 'trial tme' must name some of trial, time and neuron"),
        ("o.npy", how, "Object arrays cannot be loaded"),
    ]:
        with pytest.raises(ReadError, match=message):
            read(tmp_path / name, **options)


def test_matlab_and_hdf5(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"data": {"Vm": V, "Im": I, "t": 1e-3 * T}, "name": "cell"})
    units = {"unit": "mV", "current_unit": "pA"}
    found = read(tmp_path / "a.mat", time_unit="s", **units)
    np.testing.assert_array_equal([found["v"].ravel(), found["current"].ravel()], [V, I])
    with pytest.raises(ReadError, match=r"the unit of the time 'data\.t' is not known, and its steps of 0\.0001"):
        read(tmp_path / "a.mat", **units)
    for name, block, value in [("b.mat", 512, np.stack([V] * 3)), ("c.h5", 0, np.stack([V] * 3, 1))]:
        with h5py.File(tmp_path / name, "w", userblock_size=block) as file:  # MATLAB stores axes in reverse
            file["v"], file["t_ms"] = value, T[None] if block else T
            file["v"].attrs["units"] = "mV"
        if block:
            with (tmp_path / name).open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        np.testing.assert_array_equal(read(tmp_path / name)["v"][0], np.stack([V] * 3, 1))
    (tmp_path / "d.mat").write_text("junk")
    with pytest.raises(ReadError, match=r"d\.mat: cannot be read"):
        read(tmp_path / "d.mat")


def test_data_frames_and_datasets(tmp_path):
    frame = pd.DataFrame({"t_ms": T, "v": V, "i_pA": I})
    frame.attrs["units"] = {"v": "mV"}
    found = from_pandas(frame)
    np.testing.assert_array_equal([found["v"].ravel(), found["current"].ravel()], [V, I])
    with pytest.raises(ValueError, match="unknown argument 'vv'; did you mean 'v'"):
        from_pandas(frame, vv="v")
    arrays = {
        "v": (("time", "sweep"), np.stack([V, V + 1], 1), {"units": "mV"}), "current": ("time", I, {"units": "nA"})
    }  # fmt: skip
    data = xr.Dataset(arrays, {"time": ("time", T, {"units": "ms"})}, {"cell": "c7"})
    data.to_netcdf(tmp_path / "a.nc")
    for found in (from_xarray(data), read(tmp_path / "a.nc")):
        np.testing.assert_array_equal(found["v"][1, :, 0], V + 1)
        np.testing.assert_array_equal(found["current"][1, :, 0], 1e3 * I)
        assert found.about["cell"] == "c7"
    with pytest.raises(ReadError, match="no variable has the dimensions trial, time, neuron; it has w"):
        from_xarray(xr.Dataset({"w": (("lat", "lon"), np.zeros((2, 2)))}))


def test_in_a_configuration(tmp_path):
    (tmp_path / "trace.csv").write_text("t,v_mV\n" + rows(np.arange(400.0), np.sin(np.arange(400.0))))
    (tmp_path / "run.yaml").write_text(
        "name: own\nrecording: {path: trace.csv, time: t, v: v_mV}\nmodels: {own: {model: {name: compact}}}\n"
        "windows: {length_ms: 30, horizons_ms: [1], targets: [v], discard_ms: 0, split: time}\n"
        "evaluate: {ceiling: null}\ntrain: {batch_size: 4}\n"
    )
    plan = load_plan(tmp_path / "run.yaml")
    said = "trace.csv: Recording: 1 trial of 400 frames of 1 ms (1 kHz), 400 ms; v [trial 1 × time 400 × neuron 1]"
    assert read_stage(plan.config.recording, tmp_path / "a.zarr") == f"{said} float64 mV"
    assert read(tmp_path / "a.zarr").about["columns"] == "v: 'v_mV'"
    adapter = TypeAdapter(RecordingSource)
    source = {"path": tmp_path / "trace.csv", "time": "t", "electrode": {"liquid_junction_mv": 12}}
    given = adapter.validate_python(source)
    np.testing.assert_allclose(given.read()["v"].ravel(), np.sin(np.arange(400.0)) - 12)
    assert adapter.validate_python(adapter.dump_python(given, mode="json")) == given
    for more, message in [
        ({"tme": "t"}, "unknown key 'tme'; did you mean 'time'"),
        ({"electrode": {"liquid": 1}}, "unknown key 'liquid'"),
        ({"sweeps": [True, False]}, "True must be a number"),
    ]:
        with pytest.raises(ValueError, match=message):
            adapter.validate_python({"path": tmp_path / "trace.csv", **more})


FROM_ARRAYS = {
    "trials or neurons": ({"v": np.zeros((3, 50)), "dt": 1}, r"Say axes='time neuron', or axes='trial time'"),
    "uneven": ({"v": np.zeros(5), "time": [0, 1, 2, 4, 5]}, "a step of 2 ms at sample 3, most are 1 ms"),
    "back": ({"v": np.zeros(3), "time": [0, 1, 1]}, "1 is followed by 1, at sample 2"),
    "another dt": ({"v": np.zeros(3), "time": [0, 1, 2], "dt": 0.5}, "dt = 0.5 ms, but the times are 1 ms apart"),
    "another length": ({"v": np.zeros(3), "time": [0, 1]}, "there are 2 times, but the arrays have 3 samples"),
    "no dt": ({"v": np.zeros(3)}, "dt, the time between samples .* is missing"),
    "dt in words": ({"v": np.zeros(3), "dt": np.inf}, "dt = inf ms must be positive"),
    "lengths": ({"v": np.zeros(3), "w": np.zeros(4), "dt": 1}, "of equal times"),
    "four axes": ({"v": np.zeros((1, 2, 3, 4)), "dt": 1}, r"must be \[time\]"),
    "unknown unit": ({"v": np.zeros(3), "dt": 1, "units": {"w": "mV"}}, "units names 'w', but the arrays are v"),
}


@pytest.mark.parametrize(("given", "message"), FROM_ARRAYS.values(), ids=FROM_ARRAYS)
def test_arrays_that_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(**given)


def test_arrays_in_one_call():
    whole = from_arrays(v=np.array([-65, -64], np.int8), current=[1, 2], spikes=[0, 1], dt=1, units={"current": "nA"})
    assert [x.dtype.kind for x in whole.values.values()] == ["f", "f", "i"]
    np.testing.assert_array_equal(whole["current"].ravel(), [1000, 2000])
    v, units = np.stack([V, V]), {"v": "V", "current": "uA/cm2"}
    found = from_arrays(1e-3 * v, I, time=T + 5, units=units, about={"cell": "<c7>"})
    np.testing.assert_allclose(found["v"][..., 0], v)
    assert found["current"].shape == (2, N, 1)
    assert found.units == DENSITY
    np.testing.assert_allclose(found.time, T + 5)
    assert repr(found) == (
        "Recording: 2 trials of 20 frames of 0.1 ms (10 kHz), 2 ms\n"
        "  v        [trial 2 × time 20 × neuron 1] float64 mV\n"
        "  current  [trial 2 × time 20 × neuron 1] float64 µA/cm²\n"
        "  cell: <c7>"
    )
    assert "<td>[trial 2 × time 20 × neuron 1]</td>" in found._repr_html_()
    assert "&lt;c7&gt;" in found._repr_html_()


ELECTRODES = {
    "junction": ({"liquid_junction_mv": 12}, V - 12, I, "pA"),
    "series": ({"series_resistance_mohm": 20}, V - 0.02 * I, I, "pA"),
    "bias before the drop": ({"series_resistance_mohm": 20, "bias_pa": -50}, V - 0.02 * (I - 50), I - 50, "pA"),
    "area": ({"area_um2": 10_000}, V, 0.01 * I, "µA/cm²"),  # 100 pA on a square of 100 µm: 1 µA/cm²
}


@pytest.mark.parametrize(("said", "v", "current", "unit"), ELECTRODES.values(), ids=ELECTRODES)
def test_what_an_electrode_adds(tmp_path, said, v, current, unit):
    (tmp_path / "a.csv").write_text("t_ms,v_mV,i_pA\n" + rows(T, V, I))
    found = read(tmp_path / "a.csv", electrode=said)
    np.testing.assert_allclose([found["v"].ravel(), found["current"].ravel()], [v, current], rtol=1e-9)
    assert found.units["current"] == unit
    assert f"{next(iter(said.values())):g}" in found.about["electrode"]
    with pytest.raises(ValueError, match="was corrected before"):
        Electrode(**said).corrected(found)


def test_electrodes_that_do_not_fit(tmp_path):
    (tmp_path / "a.csv").write_text(PLAIN)
    for said, message in [
        ({"area_um2": 100.0}, "has 'current' in µA/cm²; its corrections need 'current' in pA"),
        ({"area_um2": -1.0}, "area_um2 = -1.0: .*greater than 0"),
        ({"junction": 1.0}, "unknown key 'junction'"),
    ]:
        with pytest.raises(ReadError, match=message):
            read(tmp_path / "a.csv", electrode=said)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("v_mV", ("v", "mV")), ("Vm (mV)", ("Vm", "mV")), ("I [pA]", ("I", "pA")), ("i_uA_cm2", ("i", "uA_cm2")),
        ("Time/ms", ("Time", "ms")), ("v", ("v", None)), ("i_h", ("i_h", None)), ("v_min", ("v_min", None)),
        ("i_na", ("i_na", None)), ("Trace #1 (mV)", ("Trace #1", "mV")), ("J_mA/cm^2", ("J", "mA/cm^2")),
    ],
)  # fmt: skip
def test_headers(label, expected):
    assert split_unit(label) == expected


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("uA/cm2", 1.0), ("μA/cm²", 1.0), ("A/m2", 100.0), ("mA/cm^2", 1e3), ("nA/um2", 1e5), ("pA", None)],
)
def test_densities(unit, factor):
    assert factor_to(unit, "µA/cm²") == factor


def test_the_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pynwb")
    page = (Path(__file__).parents[2] / "docs" / "recordings.md").read_text(encoding="utf-8")
    page = page[page.index("## Arrays") : page.index("## Readers of your own")]
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for language, text in re.findall(r"```(\w+)\n(.+?)```", page, flags=re.S):
        if language == "python" and ".abf" not in text:
            exec(compile(text, "docs/recordings.md", "exec"), namespace)
        elif language == "text":
            assert capsys.readouterr().out == text
        elif language == "yaml" and ".abf" not in text:
            (source,) = yaml.safe_load(text).values()
            assert TypeAdapter(RecordingSource).validate_python(source).read()["v"].shape == (1, 500, 1)


@pytest.mark.parametrize("name", ["recording", "electrode", "export", "nwb_units"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"jneuro.recordings.{name}")).failed == 0
