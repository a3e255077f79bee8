"""The studies at their sources' own size, for a machine with one GPU: `python scripts/paper_scale.py --budget 25min`.

The most valuable first; run again, it goes on where it was stopped. Results are appended to
`benchmarks/results/paper_scale.jsonl`; reports lie in the run folders, in `runs/`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from studies import main

if __name__ == "__main__":
    main()
