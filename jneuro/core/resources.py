"""What work will take, before any of it is begun; what is beyond the machine is refused, with the numbers."""

import dataclasses
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["LIFTED", "MOST_STEPS", "Estimate", "Part", "free_disk", "total_memory"]

MOST_STEPS = 1e14
"""Steps that no machine takes within months: on a graphics processor a step of one run takes no less than a nanosecond,
where thousands are simulated side by side, and on a CPU some thousand times as long."""

LIFTED = "JNEURO_LIMITS=off"
"""What lifts all limits, as a variable of the environment."""


class Part(NamedTuple):
    """One thing that work does or holds. Numbers are the least that it can take.

    Attributes:
        key: of the configuration that decides how much that is, such as "simulation".
        about: what it is, with the numbers that decide, such as "50 runs of 1,000 ms".
        remedy: what to change if it is too much.
        steps: of integration, of all runs together, or of an optimiser.
        memory: at once [byte].
        disk: when all is done [byte].
    """

    key: str
    about: str
    remedy: str
    steps: float = 0
    memory: float = 0
    disk: float = 0

    def require(self) -> None:
        """Refuse what no machine does, or this one's memory cannot hold.

        Raises:
            ValueError: with what it needs, what there is, and the remedy.
        """
        if _lifted():
            return
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"{self.key}: {self.about} takes {self.steps:.3g} steps, of {MOST_STEPS:.0e} at most; {self.remedy} "
                f"({LIFTED} lifts this limit)"
            )
        if self.memory > (there := total_memory()):
            raise ValueError(
                f"{self.key}: {self.about} needs {_gib(self.memory)} of memory, of {_gib(there)} that this machine "
                f"has; {self.remedy} ({LIFTED} lifts this limit)"
            )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What work will take at least.

    Attributes:
        parts: all that it does or holds.
    """

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Part], *, limited: bool = True) -> "Estimate":
        """Add up the parts of some work; refuse the first that is too much before the next one is looked at.

        Args:
            parts: what it does or holds, the simplest first.
            limited: whether to refuse anything; not where the work has been done already.

        Raises:
            ValueError: see `Part.require`.
        """
        found = []
        for part in parts:
            if limited:
                part.require()
            found.append(part)
        return cls(tuple(found))

    @property
    def steps(self) -> float:
        """Steps of all parts together."""
        return sum(part.steps for part in self.parts)

    @property
    def memory(self) -> float:
        """What the largest part holds at once [byte]."""
        return max((part.memory for part in self.parts), default=0)

    @property
    def disk(self) -> float:
        """What all parts write [byte]."""
        return sum(part.disk for part in self.parts)

    def require_disk(self, path: Path) -> None:
        """Refuse what does not fit on the disk.

        Args:
            path: the folder that will be made.

        Raises:
            ValueError: with what is needed, what there is, and the remedy.
        """
        if self.disk <= (free := free_disk(path)) or _lifted():
            return
        most = max(self.parts, key=lambda part: part.disk)
        raise ValueError(
            f"{path}: the results need up to {_gib(self.disk)}, of {_gib(free)} that are free, most of it for "
            f"{most.key}: {most.about}; {most.remedy} ({LIFTED} lifts this limit)"
        )


def total_memory() -> int:
    """The memory of the machine, or what the group of processes that this one belongs to may have of it [byte]."""
    import psutil

    found, limit = psutil.virtual_memory().total, Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        found = min(found, int(text))
    return found


def free_disk(path: Path) -> int:
    """What is free where a folder is, or will be [byte].

    Args:
        path: the folder.
    """
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.exists())).free


def _lifted() -> bool:
    name, _, value = LIFTED.partition("=")
    return os.environ.get(name) == value


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size < 2**60 else f"{size / 2**30:.3g} GiB"
