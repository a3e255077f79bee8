"""Files are there whole or not at all, and errors name them."""

import pytest

from jneuro.core.files import finite, write_json, written


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"a": [float("nan"), 1.5], "b": float("inf")})
    assert path.read_text() == '{\n "a": [\n  null,\n  1.5\n ],\n "b": null\n}'
    with pytest.raises(TypeError), written(path) as fresh:
        fresh.write_bytes("half")
    assert path.read_text().startswith("{")
    assert [f.name for f in path.parent.iterdir()] == ["x.json"]
    assert finite((1, "a", None)) == [1, "a", None]


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.json"), written(path):
        raise OSError(28, "No space left on device")
