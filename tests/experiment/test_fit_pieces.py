"""Pieces of a fit are kept whole, read back as they were, and made once; and how a fit shows where it is."""

import io
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jneuro.console import LiveObserver
from jneuro.experiment.fit_pieces import Pieces
from jneuro.fitting.watching import FitProgress, Part, Watcher


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
    return Pieces(tmp_path / "pieces", lambda progress: None)


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


def test_parts_know_their_share_and_name(tmp_path):
    seen = []
    whole = Pieces(tmp_path, seen.append)
    part = Part(Part(whole, "fit 2 of 2", 0.5, 1.0), "start 1 of 4", 0.0, 0.25)
    part.show(FitProgress("step 3", 0.5, 2.0))
    assert seen == [FitProgress("fit 2 of 2, start 1 of 4, step 3", 0.5625, 2.0)]
    part.keep("end", Piece, lambda: MADE)
    assert whole.keep("fit 2 of 2, start 1 of 4, end", Piece, never).count == 3
    assert Watcher().keep("end", Piece, lambda: MADE) is MADE


def test_off_a_terminal_a_fit_shows_ten_lines_a_stage():
    text = io.StringIO()
    with LiveObserver(Console(file=text, width=200)) as observer:
        for stage in ("fit", "baseline"):
            observer.stage(stage)
            for i in range(1, 101):
                observer.fitting(FitProgress(f"step {i}", i / 100, 5.0 / i if i > 50 else float("nan")))
    lines = [line for line in text.getvalue().splitlines() if line]
    assert len(lines) == 2 * (1 + 10)
    assert lines[:2] == ["fit", "step 10"]
    assert lines[-1] == "step 100, cost 0.05"
