"""A few items of every campaign, with fixed seeds; `make campaign` tries many."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.damage import damage
from tests.campaigns.fuzz import fuzz

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is damaged
def test_damaged_folders_are_named_and_mended(tmp_path):
    row = damage(seed=7, count=6, home=tmp_path, only=("run", "sweep"), fast=True)
    assert not row.faults
    assert row.tried == 6


@pytest.mark.filterwarnings("ignore")
def test_mutated_configurations_are_accepted_or_refused_in_lines(tmp_path):
    row = fuzz(seed=7, count=80, home=tmp_path, fast=True)
    assert not row.faults
    assert row.tried == 80
    assert 10 * row.counts["legal: accepted"] >= row.tried


@pytest.mark.parametrize("campaigns", [("kills",), pytest.param(("full", "beside"), marks=pytest.mark.slow)])
def test_what_is_disturbed_is_the_same_when_it_is_finished(campaigns, tmp_path):
    words = [*campaigns, "--fast", "--count=2", "--seed=7", "--only=run", f"--table={tmp_path / 'table.jsonl'}"]
    subprocess.run([sys.executable, "-m", "tests.campaigns", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for line in (tmp_path / "table.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert not row["faults"]
        assert row["tried"] >= 2
