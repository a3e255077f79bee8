"""Fits of many cells whose parameters are known: `python benchmarks/fits.py [CASE ...]`.

Each of the nine conductances of a CA1 cell is drawn log-uniformly within a factor of 1.3 of the published value, from
one fixed key; none is drawn again. The fit knows the published values as its weak prior, and three noisy trials. A set
succeeds if the six sharp conductances are within 1 %, g_ca and g_c within 5 %, and their product within 1 %.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import arguments, record

from jneuro.fitting import FitOptions, Shooting, Trials, fit
from jneuro.fitting.uncertainty import intervals
from jneuro.simulators import CA1Pyramidal, simulate, stimuli
from jneuro.simulators.solvers import RK4

__all__: list[str] = []

CASES = ("ca1_shooting",)
SHARP = ("g_l", "g_na", "g_nap", "g_kdr", "g_a", "g_m")
NAMES = (*SHARP, "g_ca", "g_c", "g_sahp")
SETS, FACTOR, NOISE_MV = 20, 1.3, 0.5
CURRENTS, DURATION, DT, SAMPLE_MS = (0.5, 1.5, 3.0), 300.0, 0.01, 0.05


def drawn_cells():
    """The true cells."""
    own = CA1Pyramidal()
    factors = FACTOR ** jax.random.uniform(jax.random.key(6), (SETS, len(NAMES)), minval=-1.0)
    return [CA1Pyramidal(**{n: getattr(own, n) * f for n, f in zip(NAMES, row, strict=True)}) for row in factors]


@eqx.filter_jit
def traces(cell):
    """Noiseless trials."""
    how = {"duration": DURATION, "dt": DT, "record": ("v", "current"), "record_every": SAMPLE_MS, "solver": RK4()}
    run = jax.vmap(lambda i: simulate(cell, stimuli.Constant(i), key=jax.random.key(0), throw=False, **how))
    return run(jnp.asarray(CURRENTS))


def ca1_shooting(quick):
    """Fit them all, and count."""
    rows = []
    with jax.enable_x64(True):
        cells = drawn_cells()[: 2 if quick else SETS]
    for i, cell in enumerate(cells):
        with jax.enable_x64(True):
            clean = traces(cell)
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(7), i), clean.values["v"].shape)
            noisy = eqx.tree_at(lambda r: r.values["v"], clean, clean.values["v"] + NOISE_MV * noise)
            target = Trials.of(noisy, noise_sd=NOISE_MV, start=cell.init(jax.random.key(0)))
        options = FitOptions(method=Shooting(), dt_ms=0.025)
        found = fit(CA1Pyramidal(), target, NAMES, key=jax.random.key(8), options=options)
        with jax.enable_x64(True):
            known = intervals(found.problem, found.q, found.solution.covariance).standard_errors
            truth = np.array([float(getattr(cell, n)) for n in NAMES])
        ratio = np.asarray(found.values) / truth
        rows.append(about(f"set {i}", ratio, known / truth, found))
        record("fits", [rows[-1]])
    record("fits", [summary(rows)])


def about(what, ratio, width, found):
    """One set."""
    error = 100 * np.abs(ratio - 1)
    product = 100 * abs(ratio[NAMES.index("g_ca")] * ratio[NAMES.index("g_c")] - 1)
    sharp = error[: len(SHARP)].max()
    return {
        "case": "ca1_shooting",
        "what": what,
        "error_pct": {**dict(zip(NAMES, error.round(3).tolist(), strict=True)), "g_ca*g_c": round(float(product), 3)},
        "standard_error_pct": dict(zip(NAMES, (100 * width).round(3).tolist(), strict=True)),
        "success": bool(sharp <= 1 and product <= 1 and max(error[6:8]) <= 5),
        "ok": found.ok,
        "reason": found.reason,
        "data_cost": round(found.data_cost, 4),
        "starts": len(found.solution.cost),
        "simulations": found.simulations,
        "seconds": round(found.seconds, 2),
    }


def summary(rows):
    """All sets."""
    errors = {name: [row["error_pct"][name] for row in rows] for name in rows[0]["error_pct"]}
    return {
        "case": "ca1_shooting",
        "what": "all sets",
        "sets": len(rows),
        "successes": sum(row["success"] for row in rows),
        "flagged": sum(not row["ok"] for row in rows),
        "failures_not_flagged": sum(row["ok"] and not row["success"] for row in rows),
        "median_error_pct": {name: round(float(np.median(x)), 3) for name, x in errors.items()},
        "largest_error_pct": {name: round(float(np.max(x)), 3) for name, x in errors.items()},
        "seconds_each": round(float(np.median([row["seconds"] for row in rows])), 2),
    }


if __name__ == "__main__":
    given = arguments(__doc__, CASES)
    for chosen in given.cases:
        {"ca1_shooting": ca1_shooting}[chosen](given.quick)
