"""Accuracy against cost of the ODE solvers: `python benchmarks/solvers.py [CASE ...]`.

Every solver and step integrates the currents of the frozen reference (LSODA at a relative tolerance of 1e-9), in double
precision and in single. The error is the median of the spike times' errors within 50 ms, of the currents whose spikes
are as many as they should be; `counts_wrong` is the number of the others. The cost is the time of 256 cells.
"""

import jax
import jax.numpy as jnp
import numpy as np
from diffrax import Tsit5
from harness import Call, arguments, compiled, record, take_turns
from machine import ROOT
from simulators import crossings

from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, simulate, stimuli
from jneuro.simulators.solvers import RK4, Adaptive, Euler, Heun, RushLarsen, StaggeredCrankNicolson

__all__: list[str] = []

CELLS, DURATION = 256, 50.0
FIXED = {
    "Euler": (Euler(), (0.005, 0.01, 0.02)),
    "Heun": (Heun(), (0.01, 0.02, 0.04)),
    "RK4": (RK4(), (0.01, 0.02, 0.04)),
    "RushLarsen": (RushLarsen(), (0.01, 0.02, 0.04)),
    "StaggeredCrankNicolson": (StaggeredCrankNicolson(), (0.01, 0.02, 0.04)),
}
ADAPTIVE = {"Adaptive(Tsit5)": (1e-4, 1e-6)}
CASES = ("ca1_pyramidal", "hodgkin_huxley")


def problem(case):
    """A simulator, its currents, its state at the beginning if it is not its own, and the exact spike times."""
    if case == "ca1_pyramidal":
        file = np.load(ROOT / "tests" / "reference" / "ca1.npz")
        exact = [crossings(v[1:].astype(float), 0.1) for v in file["trace"][:, :, 0]]
        current = np.resize(file["trace_current"], CELLS)
        return CA1Pyramidal(), stimuli.Constant(jnp.asarray(current, float)), None, exact
    file = np.load(ROOT / "tests" / "reference" / "hodgkin_huxley.npz")
    exact = np.split(file["spike_time"], np.cumsum(file["spike_count"])[:-1])[: len(file["amplitude"])]
    step = stimuli.Step(jnp.asarray(np.resize(file["amplitude"], CELLS), float), onset=17.8)
    return HodgkinHuxley(), step, HodgkinHuxley.State(-70.0, 0.05, 0.54, 0.34), exact


def accuracy(v, dt, exact):
    """Errors of the spike times before the end, of as many cells as are known."""
    found = [crossings(x, dt) for x in np.asarray(v, float).T[: len(exact)]]
    pairs = [(a, b[b < DURATION - 0.5]) for a, b in zip(found, exact, strict=True)]
    pairs = [(a[a < DURATION - 0.5], b) for a, b in pairs]
    right = [np.abs(a - b) for a, b in pairs if len(a) == len(b)]
    errors = np.concatenate([*right, np.zeros(0)])
    median = {"error_ms": float(np.median(errors))} if len(errors) else {}
    return median | {"spikes": len(errors), "counts_wrong": len(pairs) - len(right)}


def row(case, solver, dt):
    """One solver at one step, the frames 0.1 ms or a step apart."""
    simulator, stimulus, start, exact = problem(case)
    frame = max(0.1 if isinstance(solver, Adaptive) else 0.02, dt)

    def run(simulator, stimulus):
        how = {
            "key": jax.random.key(0),
            "record": ["v"],
            "record_every": max(round(frame / dt), 1) * dt,
            "throw": False,
        }
        return simulate(
            simulator, stimulus, duration=DURATION, dt=dt, solver=solver, initial_state=start, **how
        ).values["v"]

    said = {}

    def ours():
        call, about = compiled(run, simulator, stimulus)
        said.update(accuracy(call(), round(frame / dt) * dt, exact))
        return Call(call, about)

    return take_turns({"jneuro": ours}, seconds=given.seconds, rounds=3)["jneuro"] | said


if __name__ == "__main__":
    given = arguments(__doc__, CASES)
    for chosen in given.cases:
        tried = [(f"{name}, {dt} ms", name, solver, dt) for name, (solver, steps) in FIXED.items() for dt in steps]
        tried += [
            (f"{n}, rtol {r:g}", n, Adaptive(Tsit5(), rtol=r), 0.1) for n, rtols in ADAPTIVE.items() for r in rtols
        ]
        for what, name, solver, dt in tried[2::3] if given.quick else tried:
            with jax.enable_x64(given.dtype == "float64"):
                common = {"case": chosen, "what": what, "solver": name, "dtype": given.dtype, "cores": given.cores}
                record("solvers", [common | {"by": "jneuro", "batch": CELLS} | row(chosen, solver, dt)])
