"""`jneuro inspect`: what is in a recording, what is in doubt, what a file holds that cannot be read, and a figure."""

import numpy as np
import pytest
from typer.testing import CliRunner

from jneuro.cli import app
from jneuro.core.config import ConfigError
from jneuro.recordings.contents import contents
from jneuro.recordings.nwb import write_nwb
from jneuro.recordings.readers import ReadError
from jneuro.recordings.recording import from_arrays
from jneuro.report.inspection import inspect, source_of
from tests.recordings.abf_files import write_abf

DT = 0.1
TIME = DT * np.arange(4000)
STEP = (TIME >= 100) & (TIME < 300)


def recording(top=30.0, amplitudes=(0.0, 100.0, 200.0)):
    """A cell that spikes once under 100 pA, and twice under 200 pA."""
    current = np.asarray(amplitudes)[:, None] * STEP
    v = -65 + 0.1 * current + 0.2 * np.sin(TIME)
    for row, amplitude in zip(v, amplitudes, strict=True):
        for t in range(120, 120 + round(amplitude / 5), 20):
            np.maximum(row, np.interp(TIME - t, [-1, 0, 1], [-75, top, -75]), out=row)
    about = {"cell": "a", "current": "command"}
    return from_arrays(v=v[..., None], current=current[..., None], dt=DT, units={"current": "pA"}, about=about)


def test_what_is_in_a_recording():
    found = inspect(recording())
    facts = dict(found.facts)
    assert facts["sweeps"] == "3 of 400 ms, every 0.1 ms (10 kHz)"
    assert facts["steps"] == "1: 100.0 to 300.0 ms"
    assert facts["current from"] == "command"
    assert facts["spikes"].startswith("3, crossings of −")
    assert found.trials.rows[2] == ["2", "200.0", "−65.0", "2", "2", "10.0"]
    assert found.doubts == []
    assert [row[0] for row in inspect(recording(), sweeps=(4, 5, 9)).trials.rows] == ["4", "5", "9"]


def test_doubts():
    low = inspect(recording(top=-10.0))
    assert [row[3] for row in low.trials.rows] == ["0", "1", "2"]
    assert low.doubts[0].startswith(
        "with a threshold of 0 mV, spikes would be in doubt in 2 sweeps, the first being 1; −"
    )
    wide = inspect(recording(top=300.0))
    assert "leave -150 to 100 mV" in wide.doubts[0]
    cut = recording(top=80.0)
    v = np.minimum(cut["v"], 20.0)
    clipped = inspect(from_arrays(v=v, current=cut["current"], dt=DT, units={"current": "pA"}))
    assert [d for d in clipped.doubts if d == "the potential of sweep 1 stays at 20 mV: it was clipped"]
    for current, said in ((0 * TIME, "the current never changes"), (np.sin(TIME), "it has no levels")):
        silent = inspect(from_arrays(v=-65 + 0 * TIME, current=current, dt=DT, units={"current": "pA"}))
        assert dict(silent.facts)["steps"] == f"none: {said}"
        assert silent.trials.rows[0][4:] == ["–", "–"]
    with pytest.raises(ValueError, match="the recording has no 'current'"):
        inspect(from_arrays(v=TIME, dt=DT))


def call(*words):
    return CliRunner().invoke(app, ["inspect", *map(str, words)], env={"COLUMNS": "200"})


def test_the_command(tmp_path):
    """What can be read, with a figure beside the file; what cannot, with what it holds."""
    write_nwb(tmp_path / "cell.nwb", recording())
    shown = call(tmp_path / "cell.nwb", "sweeps=[0,2]")
    assert shown.exit_code == 0
    for said in ("2 of 400 ms", "100.0 to 300.0 ms", "nothing is in doubt", "cell.nwb.inspect.png"):
        assert said in shown.output
    assert (tmp_path / "cell.nwb.inspect.png").stat().st_size > 10_000
    wave = -60 + 10.0 * STEP[None]
    clamp = write_abf(tmp_path / "clamp.abf", [("IN 0", "pA", wave)], [("Cmd 0", "mV")])
    refused = call(clamp, "--out", tmp_path / "no.png")
    assert isinstance(refused.exception, ReadError)
    assert "no channel is in volts" in str(refused.exception)
    assert "channel 0: 'IN 0' in pA" in refused.output
    assert "output 0: 'Cmd 0' in mV" in refused.output
    assert not (tmp_path / "no.png").exists()


def test_what_a_file_holds(tmp_path):
    write_nwb(tmp_path / "cell.nwb", recording(amplitudes=(0.0,)))
    assert any(
        line.startswith("CurrentClampSeries") and "4000 in volts, 10 kHz" in line
        for line in contents(tmp_path / "cell.nwb")
    )
    (tmp_path / "a.csv").write_text("t,v\n0,1\n")
    assert contents(tmp_path / "a.csv") == ["t,v", "0,1", ""]
    assert contents(tmp_path / "b.xyz") == []
    (tmp_path / "bad.nwb").write_text("no")
    with pytest.raises(ReadError, match=r"bad\.nwb"):
        contents(tmp_path / "bad.nwb")


def test_how_to_read_it_is_checked(tmp_path):
    assert source_of(tmp_path / "a.abf", ["sweeps=[1,2]", "channel=IN 1"]).sweeps == (1, 2)
    for said, message in (("chanel=1", "did you mean 'channel'"), ("channel", "must be key=value"), ("a=[", "YAML")):
        with pytest.raises(ConfigError, match=message):
            source_of(tmp_path / "a.abf", [said])
