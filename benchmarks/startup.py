"""Processor time until something can be done: `python benchmarks/startup.py [CASE ...]`.

Each call is a Python process of its own, the files it reads being in memory: user and system time, which other work on
the machine disturbs less than the clock on the wall. `import jax` takes turns with what needs JAX. `packages_s` says
where the time goes, from one run under `python -X importtime`: of every top-level package, the time of its own modules.
"""

import collections
import os
import resource
import subprocess
import sys

from harness import Call, arguments, record, take_turns
from machine import ROOT

__all__: list[str] = []

CASES = {
    "import jneuro": (0.2, "import jneuro"),
    "jneuro --help": (0.5, "from jneuro.cli import app; app(['--help'], standalone_mode=False)"),
    "jneuro list": (0.5, "from jneuro.cli import app; app(['list'], standalone_mode=False)"),
    "from jneuro import simulate": (2.5, "from jneuro import simulate"),
    "every name": (None, "import jneuro; [getattr(jneuro, name) for name in jneuro.__all__]"),
}
"""What is run, and the most seconds that it should take."""
NEED_JAX = ("from jneuro import simulate", "every name")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def processor_seconds(code: str) -> float:
    """The processor time of a Python process that runs some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_package(code: str) -> dict[str, float]:
    """Seconds that the modules of each package take to be imported, the ten slowest packages."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stderr
    found: collections.Counter[str] = collections.Counter()
    for line in said.splitlines():
        own, _, name = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if own.strip().isdigit():
            found[name.strip().partition(".")[0]] += int(own)
    return {name: round(microseconds / 1e6, 3) for name, microseconds in found.most_common(10)}


def main() -> None:
    """Time what is asked for."""
    given = arguments(__doc__, CASES)
    for case in given.cases:
        wanted, code = CASES[case]
        sides = {"jneuro": lambda code=code: Call(lambda: processor_seconds(code))}
        if case in NEED_JAX:
            sides["import jax"] = lambda: Call(lambda: processor_seconds("import jax"))
        rows = take_turns(sides, seconds=given.seconds, rounds=3)
        rows["jneuro"] |= {"packages_s": by_package(code)} | ({"wanted_s": wanted} if wanted else {})
        common = {"case": case, "what": "processor time", "cores": given.cores}
        record("startup", [common | {"by": by} | row for by, row in rows.items()])


if __name__ == "__main__":
    main()
