"""What the script of the paper-size studies does next, and what it keeps."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def studies(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import studies

    return studies


def test_what_comes_next(studies):
    long, short, whole = (
        studies.Job(n, s, t) for n, s, t in (("a", "one", 900), ("b", "one", 300), ("a", "all", 2000))
    )
    wanted = [long, short, whole]
    for spent, over, left, want in [
        ({}, (), 5000, long),
        ({}, (), 600, short),  # what ends in time goes before what is worth more
        ({}, (), 200, long),  # nothing ends: the first goes on
        ({long.name: 500}, (), 600, long),  # most of it was done before
        ({long.name: 4000}, (), 100, long),  # longer than expected: always next
        ({}, (long.name,), 5000, short),
        ({}, (long.name, short.name), 5000, whole),
        ({}, (long.name, short.name, whole.name), 5000, None),
        ({}, (), studies.LEAST_S - 1, None),
    ]:
        assert studies.choose(wanted, spent, over, left) is want


def test_a_stopped_job_goes_on_the_next_time(studies):
    job = {"job": "a, one seed"}
    rows = [job | {"state": "stopped", "seconds": 30.0}, job | {"state": "failed", "seconds": 2.0}]
    assert studies.history(rows) == ({"a, one seed": 32.0}, set())
    rows.append(job | {"state": "finished", "seconds": 5.0})
    assert studies.history(rows) == ({"a, one seed": 37.0}, {"a, one seed"})


def test_every_study_is_run_with_one_seed_first(studies):
    jobs = studies.jobs(studies.EXPECTED)
    assert len({job.name for job in jobs}) == len(jobs) == 2 * len(studies.EXPECTED)
    assert [job.seeds for job in jobs] == ["one"] * len(studies.EXPECTED) + ["all"] * len(studies.EXPECTED)
    assert all((ROOT / "configs" / f"{job.study}.yaml").exists() for job in jobs)
    assert [job.study for job in studies.jobs(["ring_counts"])] == ["ring_counts"] * 2


def test_a_summary_is_small(studies):
    metrics = {
        "r2": 0.123456789,
        "curve": list(range(100)),
        "seeds": [0.5, None],
        "of": {"name": "x", "curve": [0.0] * 50},
    }
    assert studies.summary(metrics) == {"r2": 0.123457, "seeds": [0.5, None], "of": {"name": "x"}}
