"""Draw the figures of docs/systems.md anew: `python scripts/make_figures.py [NAME ...]`, all of them without a name."""

import sys
from pathlib import Path

from figures import FIGURES

__all__ = []

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"


def main(names):
    """Simulate, draw and write these figures."""
    if unknown := [n for n in names if n not in FIGURES]:
        sys.exit(f"no figure is called {unknown[0]!r}; there are {', '.join(FIGURES)}")
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        path = FOLDER / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=160, metadata={"Software": None})
        print(f"{name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:] or list(FIGURES))
