"""Mutated configurations through the loader."""

import random
import resource
from pathlib import Path
from typing import Any

from jneuro.core.config import content_hash, load_config, to_yaml
from jneuro.experiment.config import ExperimentConfig
from jneuro.experiment.fit_plan import load_fit
from jneuro.experiment.plan import load_plan
from jneuro.experiment.sweeping import load_sweep
from jneuro.fitting.config import FitConfig
from jneuro.sweeps.config import SweepConfig
from tests.campaigns.common import WORKS, Row, Said, Slow, alarm, campaign
from tests.campaigns.mutate import Mutation, Slot, mutated, slots

__all__ = ["bases_of", "fuzz", "load"]

LOADERS: dict[str, tuple[Any, Any]] = {
    "run": (ExperimentConfig, load_plan),
    "sweep": (SweepConfig, load_sweep),
    "fit": (FitConfig, load_fit),
}
CONFIGS = Path(__file__).parents[2] / "configs"
MOST_S = 20.0
MOST_BYTES = 8 << 30
"""More than what is there; beyond it a MemoryError is raised."""


def _bases(small: bool) -> list[tuple[str, str]]:
    """Configurations by the command that they are for: the works, and those that come with the package."""
    found = [(name, text) for name, text in WORKS.items()]
    if small:
        return found
    for path in sorted(CONFIGS.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        found.append(("sweep" if "\nsweep:" in text else "fit" if "\nfit:" in text else "run", text))
    return found


def bases_of(file: Path, only: tuple[str, ...], *, small: bool) -> list[tuple[str, str, list[Slot], str]]:
    """What is mutated: for which command, the text, its places, and the hash of its content."""
    found = []
    for name, text in _bases(small):
        if name in only:
            file.write_text(text)
            config = load_config(LOADERS[name][0], file)
            found.append((name, text, [*slots(config)], content_hash(config, code=False)))
    return found


@campaign
def fuzz(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Load mutated configurations.

    All that is not accepted must be refused in lines of at most 300 characters; what is legal must be accepted; what is
    accepted must be so again when it is read as the run folder keeps it, and mean the same.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    file = home / "f.yaml"
    bases = bases_of(file, only, small=fast)
    try:
        for item in range(count):
            name, text, places, plain = rng.choice(bases)
            mutation = mutated(text, places, rng)
            row.tried += 1
            _judge(row, name, mutation, file, plain, item)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def load(name: str, file: Path) -> tuple[Any, Said]:
    """The plan of a file, if it is accepted, and what was said."""
    plan, error = None, None
    try:
        with alarm(MOST_S):
            plan = LOADERS[name][1](file)
    except (Exception, Slow) as raised:
        error = raised
    said = Said.of(error)
    if said.kind == "long":  # unless the file's own name made it so
        said = Said.of(type(error)(str(error).replace(str(file), "f.yaml")))
    return plan, said


def _judge(row: Row, name: str, mutation: Mutation, file: Path, plain: str, item: int) -> None:
    """Load one, and say what came of it."""
    text = mutation.text
    file.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    plan, said = load(name, file)
    outcome = {"fine": "accepted", "long": "too long a line"}.get(said.kind, said.kind)
    again = ""
    if mutation.legal:
        outcome = f"legal: {outcome}"
    if plan is not None:
        config = load_config(LOADERS[name][0], file)
        if mutation.same and content_hash(config, code=False) != plain:
            outcome = "legal: accepted, other meaning"
        else:
            file.write_text(to_yaml(plan.config))
            second, again = load(name, file)
            if second is None or content_hash(second.config, code=False) != content_hash(plan.config, code=False):
                outcome += ", not again"
    ok = outcome in ("accepted", "refused", "legal: accepted")
    if not ok:
        shown = text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")
        said = said if again == "" or plan is None else again
        fault = {"work": name, "item": item, "how": mutation.how[:300], "text": said.text[-1200:], "file": shown[:3000]}
        row.add(outcome, fault)
    else:
        row.add(outcome)
