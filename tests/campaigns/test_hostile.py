"""A small campaign of hostile files; see `hostile.py`, and `make campaign` for a large one."""

import pytest
from hostile import READERS, campaign

COUNTS = {"nwb": 12, "zarr": 20, "weights folder": 8}
"""How many files of a reader that takes long; of others 25."""


@pytest.mark.parametrize("reader", READERS)
def test_nothing_but_one_clear_line(tmp_path, monkeypatch, reader):
    for package in {"nwb": ["pynwb"], "abf": ["pyabf"], "keras h5": ["h5py"], "keras json": ["h5py"]}.get(reader, []):
        pytest.importorskip(package)
    monkeypatch.setenv("JNEURO_READ_SECONDS", "2")
    monkeypatch.setenv("JNEURO_DATA", str(tmp_path))
    found = campaign(reader, tmp_path, seed=1, count=COUNTS.get(reader, 25))
    assert found.bad == []
    assert found.memory < 1 << 29
