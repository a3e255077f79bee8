"""Make the frozen references of tests/reference, each by a peer in an environment of its own.

`make peers` first; then `python scripts/make_reference_data.py [NAME ...]`, all of them without a name. A peer that is
not installed is named and left out, and its file stays as it is.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = []

ROOT = Path(__file__).resolve().parents[1]
# File in tests/reference: the peer, its program in benchmarks/peers.
REFERENCES = {
    "ca1": ("scipy", "scipy_ca1_reference.py"),
    "hodgkin_huxley": ("scipy", "scipy_hodgkin_huxley_reference.py"),
    "neuron_hodgkin_huxley": ("neuron", "neuron_hodgkin_huxley_reference.py"),
    "brunel": ("brian2", "brian2_brunel_reference.py"),
    "ring": ("brian2", "brian2_ring_reference.py"),
    "izhikevich": ("brian2", "brian2_izhikevich_reference.py"),
    "nest_brunel": ("nest", "nest_brunel_reference.py"),
    "pytorch_forecasting": ("pytorch_forecasting", "pytorch_forecasting_reference.py"),
    "keras": ("keras", "keras_reference.py"),
    "spikes": ("spikes", "spikes_reference.py"),
}


def main(names):
    """Run the generators of these references one after the other; return how many peers were absent."""
    absent = 0
    for name in names:
        peer, program = REFERENCES[name]
        python = ROOT / ".peers" / peer / "bin" / "python"
        if not python.exists():
            print(f"{name}: {peer} is absent", file=sys.stderr)
            absent += 1
            continue
        target = ROOT / "tests" / "reference" / f"{name}.npz"
        target.parent.mkdir(exist_ok=True)
        command = [python, ROOT / "benchmarks" / "peers" / program, target]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        print(f"{name}: {target.stat().st_size / 1e3:.0f} kB")
    return absent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or REFERENCES))
