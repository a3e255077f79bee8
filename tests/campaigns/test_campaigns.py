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
    row = fuzz(seed=7, count=60, home=tmp_path, fast=True)
    assert not row.faults
    legal = row.counts["legal: accepted"]
    assert row.tried == 60
    assert legal >= 6
    assert row.counts["refused"] > 20


@pytest.mark.parametrize(
    ("campaign", "only"),
    [("kills", "run"), ("full", "sweep"), pytest.param("beside", "run,sweep", marks=pytest.mark.slow)],
)
def test_what_is_disturbed_is_the_same_when_it_is_finished(campaign, only, tmp_path):
    words = [campaign, "--fast", "--count=3", "--seed=7", f"--only={only}", f"--table={tmp_path / 'table.jsonl'}"]
    subprocess.run([sys.executable, "-m", "tests.campaigns", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    row = json.loads((tmp_path / "table.jsonl").read_text())
    assert not row["faults"]
    assert row["tried"] >= 3
