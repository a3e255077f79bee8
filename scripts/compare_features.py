"""Print our features beside eFEL's, of all recordings in a folder of ABF and NWB files.

`make peers` first; then `python scripts/compare_features.py FOLDER [PYTHON]`, with the interpreter that has eFEL where
it is not that of `make peers`. The step of each sweep is the one that we find, and the threshold the automatic one.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jneuro.recordings import StoreError, read
from jneuro.spikes import Detector, extract, main_step

__all__ = []

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "Spikecount_stimint", "time_to_first_spike", "ISI_CV", "adaptation_index", "AP_begin_voltage", "AP_amplitude",
    "AP_duration_half_width", "AHP_depth", "voltage_base", "ohmic_input_resistance_vb_ssse",
)  # fmt: skip


def traces(folder):
    """Sweeps that have a step of 100 ms or longer, of which no spike is in doubt."""
    for path in sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".abf", ".nwb")):
        try:
            recording = read(path)
        except StoreError:
            continue
        v, current = (np.asarray(recording[n], float)[..., 0] for n in ("v", "current"))
        detector = Detector(threshold_mv="auto").fixed(v, recording.dt)
        doubts = detector(v, recording.dt).doubts
        for i, step in enumerate(main_step(current, recording.dt)):
            if step.change and step.begin and (step.end - step.begin) * recording.dt >= 100 and not doubts[i]:
                yield f"{path.name} {i}", v[i], current[i], recording.dt, step, detector


def main(folder, python=ROOT / ".peers" / "spikes" / "bin" / "python"):
    """Of each feature, how many traces have it, and how far the values are apart."""
    found = list(traces(folder))
    ours = []
    for _, v, current, dt, step, detector in found:
        how = {"onset": dt * step.begin, "end": dt * step.end}
        how |= {"threshold": float(detector.threshold_mv), "fall": detector.return_mv}
        values = extract(v, current, dt, names=NAMES, **how).values
        ours.append([values[n] for n in NAMES])
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work) / "traces.npz", Path(work) / "efel.npz"
        np.savez(
            source,
            names=json.dumps(NAMES),
            v=np.concatenate([f[1] for f in found]),
            sizes=[len(f[1]) for f in found],
            dt=[f[3] for f in found],
            onset=[f[3] * f[4].begin for f in found],
            end=[f[3] * f[4].end for f in found],
            change=[f[4].change for f in found],
            threshold=[float(f[5].threshold_mv) for f in found],
        )
        subprocess.run([python, ROOT / "benchmarks" / "peers" / "efel_features.py", source, target], check=True)
        theirs = np.load(target)["features"]
    print(f"{len(found)} sweeps of {len({f[0].rsplit(' ', 1)[0] for f in found})} files")
    print("| feature | both have it | one only | median difference | 95 % | largest | where |")
    print("|---" * 7 + "|")
    for name, a, b in zip(NAMES, np.array(ours, float).T, theirs.T, strict=True):
        both = np.isfinite(a) & np.isfinite(b)
        off = np.abs(a - b)[both]
        one = int((np.isfinite(a) != np.isfinite(b)).sum())
        at = found[np.flatnonzero(both)[off.argmax()]][0] if both.any() else "–"
        numbers = [f"{x:.3g}" for x in (np.median(off), np.quantile(off, 0.95), off.max())] if both.any() else ["–"] * 3
        print(f"| `{name}` | {both.sum()} | {one} | {' | '.join(numbers)} | {at} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
