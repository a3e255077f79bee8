"""Pieces of a fit are kept whole, read back as they were, and made once; and how a fit shows where it is."""

import shutil
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.experiment.fitting import Pieces
from jneuro.fitting.solution import anew, named


class Piece(NamedTuple):
    """One of each."""

    values: object
    flag: object
    count: int
    seconds: float
    text: str = ""
    missing: object = None


MADE = Piece(jnp.arange(6.0).reshape(2, 3) / 7, jnp.asarray(True), 3, 0.1, "wörds; and so on")


def pieces(tmp_path):
    return Pieces(tmp_path / "pieces")


def never():
    raise AssertionError("made again")


def test_a_piece_is_made_once_and_read_as_it_was(tmp_path, x64):
    assert pieces(tmp_path).keep("fit 1, start 2", Piece, lambda: MADE) is MADE
    found = pieces(tmp_path).keep("fit 1, start 2", Piece, never)
    np.testing.assert_array_equal(found.values, MADE.values)
    assert found.values.dtype == MADE.values.dtype
    assert bool(found.flag)
    assert found[2:] == MADE[2:]
    other = pieces(tmp_path).keep("fit 1, start 3", Piece, lambda: MADE._replace(count=4))
    assert other.count == 4
    pieces(tmp_path).clear()
    assert not (tmp_path / "pieces").exists()


def test_what_fails_or_is_half_written_is_made_again(tmp_path):
    with pytest.raises(AssertionError, match="made again"):
        pieces(tmp_path).keep("a", Piece, never)
    pieces(tmp_path).keep("b", Piece, lambda: MADE)
    (tmp_path / "pieces" / "a.npz.new").write_bytes((tmp_path / "pieces" / "b.npz").read_bytes()[:50])
    assert pieces(tmp_path).keep("a", Piece, lambda: MADE) is MADE
    assert pieces(tmp_path).keep("a", Piece, never).text == MADE.text


def test_pieces_of_a_part_bear_its_name(tmp_path):
    whole = pieces(tmp_path)
    named(named(whole.keep, "fit 2 of 2"), "start 1 of 4")("end", Piece, lambda: MADE)
    assert whole.keep("fit 2 of 2, start 1 of 4, end", Piece, never).count == 3
    assert anew("end", Piece, lambda: MADE) is MADE


def test_a_piece_that_is_damaged_or_anothers_is_made_again(tmp_path):
    folder, other = tmp_path / "pieces", MADE._replace(count=4)
    pieces(tmp_path).keep("a", Piece, lambda: MADE)
    pieces(tmp_path).keep("b", Piece, lambda: other)
    shutil.copy(folder / "a.npz", folder / "b.npz")
    assert pieces(tmp_path).keep("b", Piece, lambda: other).count == 4
    whole = (folder / "a.npz").read_bytes()
    for place in range(0, len(whole), 23):
        (folder / "a.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        found = pieces(tmp_path).keep("a", Piece, lambda: MADE)
        assert found[1:] == MADE[1:]
        np.testing.assert_array_equal(found.values, MADE.values)
    for size in (0, 1, len(whole) // 2):
        (folder / "a.npz").write_bytes(whole[:size])
        assert pieces(tmp_path).keep("a", Piece, lambda: MADE).text == MADE.text


def test_which_fits_pay_for_compilation(tmp_path):
    def make(kept, *names):
        for name in names:
            kept.keep(f"{name}, solution", Piece, lambda: MADE)

    fits, baseline = [f"fit {i} of 3" for i in (1, 2, 3)], "baseline 1, fit 1 of 1"
    make(pieces(tmp_path), *fits[:2])
    after = pieces(tmp_path)  # a new process, which compiles again
    make(after, *fits, baseline)
    assert [after.compiled_for(name) for name in (*fits, baseline)] == [True, False, True, True]
