"""What jneuro makes of a folder of recordings: a table of files read and files refused, each with the reason.

    python scripts/check_recordings.py FOLDER [--out TABLE.md] [--ending .abf --ending .nwb]

Of ABF files, potentials are compared with pyabf's samples, and the current with every recorded current, so that the
table says what was checked without our own reading of the header. A file that ends in anything but a recording or one
line of refusal is counted as a fault, and so is a potential that differs; the exit code is 1 then.
"""

import argparse
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from jneuro.recordings.pairing import compare_currents
from jneuro.recordings.readers import ReadError, read
from jneuro.recordings.units import factor_to

__all__ = []

ENDINGS = (".abf", ".nwb")


def of_pyabf(path, found):
    """What pyabf's own samples say: whether potentials are equal, and how recorded currents compare with ours."""
    import pyabf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        abf = pyabf.ABF(str(path))
        number = int(found.about["potential"].split(":")[0])
        factor = np.float32(factor_to(abf.adcUnits[number], "mV") or 1)
        equal, beside = True, []
        for channel in range(abf.channelCount):
            own = factor_to(abf.adcUnits[channel], "pA")
            sweeps = []
            for sweep in range(abf.sweepCount):
                abf.setSweep(sweep, channel)
                sweeps.append(np.array(abf.sweepY))
            if channel == number:
                equal = np.array_equal(found["v"][..., 0], np.stack(sweeps) * factor)
            elif own is not None:
                agreement = compare_currents(found["current"][..., 0], np.stack(sweeps) * own, found.dt)
                beside.append(f"{abf.adcNames[channel]}: {'agrees' if agreement.agrees else 'differs'} ({agreement})")
    return equal, "; ".join(beside) or "no current was recorded"


def row_of(path, name):
    """A row of the table, and whether something is wrong."""
    try:
        found = read(path)
    except ReadError as error:
        text = str(error).removeprefix(f"{path}: ")
        return [name, "refused", "", "", "", "", text], "\n" in text
    except Exception as error:
        return [name, "FAULT", "", "", "", "", f"{type(error).__name__}: {error}"], True
    v, current = found["v"], found["current"]
    size = f"{v.shape[0]} × {v.shape[1]} × {v.shape[2]}, {found.dt:g} ms"
    units = ", ".join(f"{name} {unit}" for name, unit in found.units.items())
    span = f"{v.min():.4g} … {v.max():.4g}; {current.min():.4g} … {current.max():.4g}"
    equal, beside = of_pyabf(path, found) if path.suffix.lower() == ".abf" else (True, "")
    said = "; ".join(x for x in (found.about["current"], found.about.get("others"), found.about.get("cells")) if x)
    outcome = "read" if equal else "FAULT: potential differs from pyabf's"
    return [name, outcome, size, units, span, beside, said], not equal


def main():
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="where the table is written; by default it is printed")
    parser.add_argument("--ending", action="append", help=f"which files; by default {', '.join(ENDINGS)}")
    given = parser.parse_args()
    endings = [e.lower() for e in given.ending or ENDINGS]
    paths = sorted(p for p in given.folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
    if not paths:
        sys.exit(f"{given.folder}: holds no files that end in {', '.join(endings)}")
    rows, faults = [], 0
    for path in paths:
        row, wrong = row_of(path, str(path.relative_to(given.folder)))
        rows.append(row)
        faults += wrong
        print(f"{row[0]}: {row[1]}", file=sys.stderr)
    read_ones = sum(row[1] == "read" for row in rows)
    head = [
        "file",
        "outcome",
        "sweeps × samples × cells",
        "units",
        "mV; current",
        "recorded current",
        "source, or reason",
    ]
    lines = [f"{len(rows)} files: {read_ones} read, {len(rows) - read_ones - faults} refused, {faults} faults.", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(re.sub(r"[|\n]", "/", cell) for cell in row) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text, encoding="utf-8")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
