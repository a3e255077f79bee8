"""Throughput against batch size: `python benchmarks/ladder.py [SIMULATOR ...] [--dtype float64] [--quick]`.

A batch is as many cells, or as many networks, in one program, from 1 to 65,536: as far as memory allows, and no farther
than what would take a minute a call. Networks of a batch share their connections, and each has noise of its own.
`throughput` is neurons times simulated seconds in a second. `gradient` is that of a squared error of the potentials by
one parameter; ODEs are differentiated by `TimeParallel(RK4())`, spiking networks through their surrogate.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from harness import Call, arguments, compiled, reason, record, take_turns

from jneuro.core.random import trial_keys
from jneuro.simulators import SIMULATORS, Brunel, ODESimulator, SuperSpike, TimeParallel, simulate, stimuli
from jneuro.simulators.connectivity import Bernoulli
from jneuro.simulators.solvers import RK4

__all__: list[str] = []

BATCHES = (1, 16, 256, 4096, 65_536)
LONGEST_S = 60.0
PARAMETERS = {"brunel": "g", "brunel_12500": "g", "izhikevich": "a", "ring_network": "j_ee"}
"""By which parameter a gradient is taken; for ODEs the leak's conductance."""
CURRENTS = {"ca1_pyramidal": 3.0, "izhikevich": 10.0, "pospischil": 1.0}
"""The largest current; others, ODEs only, up to 10."""
DURATIONS = {"brunel_12500": 15.0, "izhikevich_reservoir": 100.0}
"""Simulated time [ms]; of others 15 ms."""
FRAME_MS = 0.3
"""A frame of cells; networks record their spikes every 1.5 ms, the transmission delay."""


def make(name: str) -> Any:
    """A simulator, connected."""
    if name == "brunel_12500":
        return Brunel.original(5.0, 2.0, rule=Bernoulli(0.1)).connect(jax.random.key(0))
    return SIMULATORS[name]().connect(jax.random.key(0))


def program(name: str, gradient: bool, batch: int) -> tuple[Callable, tuple[Any, ...], float]:
    """What is timed, its arguments, and neurons × seconds."""
    simulator, duration = make(name), DURATIONS.get(name, 15.0)
    amount = batch * duration * 1e-3
    if isinstance(simulator, ODESimulator):
        cells = stimuli.Constant(jnp.linspace(0, CURRENTS.get(name, 10.0), batch))
        every = round(FRAME_MS / simulator.default_dt)
        how = {"key": jax.random.key(0), "record": ["v"], "record_every": every * simulator.default_dt, "throw": False}
        how |= {"duration": every * simulator.default_dt * round(duration / FRAME_MS)}
        if gradient:
            how |= {"spike_gradient": SuperSpike()} if simulator.has_reset else {"solver": TimeParallel(RK4())}

        def run(simulator, cells):
            return simulate(simulator, cells, **how).values["v"]

        return _differentiated(run, PARAMETERS.get(name, "g_l"), gradient), (simulator, cells), amount
    kept = ["v"] if gradient else ["spikes"]
    how = {
        "record": kept,
        "record_every": max(round(1.5 / simulator.dt), 1) * simulator.dt,
        "throw": False,
        "duration": duration,
    }
    how |= {"spike_gradient": SuperSpike()} if gradient else {}
    stimulus = stimuli.Constant(jnp.linspace(0, CURRENTS[name], batch)) if name in CURRENTS else None

    def run(simulator, each):
        return jax.vmap(lambda key, stimulus: simulate(simulator, stimulus, key=key, **how).values[kept[0]])(*each)

    each = trial_keys(jax.random.key(1), batch), stimulus
    return _differentiated(run, PARAMETERS.get(name, ""), gradient), (simulator, each), amount * simulator.neurons


def _differentiated(run: Callable, parameter: str, gradient: bool) -> Callable:
    """A function, or the gradient of the mean square of what it returns."""
    if not gradient:
        return run

    def loss(value, simulator, other):
        return jnp.mean(jnp.square(run(dataclasses.replace(simulator, **{parameter: value}), other)))

    return lambda simulator, other: jax.grad(loss)(getattr(simulator, parameter), simulator, other)


def climb(name: str, what: str, batches: tuple[int, ...], seconds: float, quick: bool) -> Iterator[dict[str, Any]]:
    """The rows of one ladder, each when it is there."""
    seen: list[tuple[int, float]] = []
    for batch in batches:
        if seen:
            ahead = seen[-1][1] * batch / seen[-1][0] if len(seen) > 1 else seen[-1][1]
            if ahead > LONGEST_S:
                yield {"batch": batch, "by": "jneuro", "absent": f"a call would take about {ahead:.0f} s"}
                return
        amount = 0.0

        def ours(batch=batch):
            nonlocal amount
            function, given, amount = program(name, what == "gradient", batch)
            return Call(*compiled(function, *given, count=not quick))

        try:
            row = take_turns({"jneuro": ours}, seconds=seconds, rounds=3)["jneuro"]
        except Exception as error:  # out of memory while it ran
            row = {"absent": reason(error)}
        if "absent" not in row:
            row |= {"throughput": amount / row["median_s"], "unit": "neurons × seconds / s"}
            seen.append((batch, row["median_s"]))
        yield {"batch": batch, "by": "jneuro"} | row
        if "absent" in row:
            return


if __name__ == "__main__":
    given = arguments(__doc__, (*SIMULATORS, "brunel_12500"))
    for chosen in given.cases:
        differentiable = chosen not in ("brunel_12500", "izhikevich_reservoir")
        for kind in ("simulate", "gradient") if differentiable and not given.quick else ("simulate",):
            common = {"case": chosen, "what": kind, "dtype": given.dtype, "cores": given.cores}
            with jax.enable_x64(given.dtype == "float64"):
                some = BATCHES[:4:3] if given.quick else BATCHES
                for found in climb(chosen, kind, some, given.seconds, given.quick):
                    record("ladder", [common | found])
