"""Reference of Brunel's original network: NEST, panels C and D of Fig. 8, both connection rules for C."""

import numpy as np
from nest_brunel import simulate
from result import save
from spiking import statistics

__all__ = []

# g, background in units of threshold, duration [ms], rule, seeds.
CASES = {
    "C": (5.0, 2.0, 1200.0, "pairwise_bernoulli", (1, 2)),
    "D": (4.5, 0.9, 1600.0, "pairwise_bernoulli", (5, 6)),
    "C_fixed_in_degree": (5.0, 2.0, 1200.0, "fixed_indegree", (3, 4)),
}


def main():
    """Statistics after 200 ms, one row a seed."""
    found = {}
    for name, (g, eta, duration, rule, seeds) in CASES.items():
        runs = [simulate(g, eta, duration, seed, rule) for seed in seeds]
        rows = [statistics(times, ids, 10_000, 12_500, 200, duration) for times, ids, *_ in runs]
        found |= {f"{name}_{key}": np.array([row[key] for row in rows]) for key in rows[0]}
        print(name, rows, [run[2:] for run in runs], flush=True)
    save({"cases": CASES, "model": "iaf_psc_delta", "dt": 0.1, "from_ms": 200}, ["nest-simulator"], **found)


if __name__ == "__main__":
    main()
