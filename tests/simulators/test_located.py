"""Spikes of Izhikevich's cell within steps: against an adaptive solver, and their derivatives against differences."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import jneuro
from jneuro.fitting import FitOptions
from jneuro.fitting.data import Target
from jneuro.fitting.methods import LeastSquares
from jneuro.fitting.parameters import double
from jneuro.fitting.step_objectives import OrderedSpikes
from jneuro.simulators import Exact, Izhikevich, Pospischil, simulate, stimuli
from jneuro.spikes.protocols import ordered_times

NAMES = ("capacitance", "k", "v_r", "v_t", "v_u", "a", "b", "c", "d", "v_peak", "v_initial")
CELLS = {"2003": (Izhikevich(), 10.0, 240), "2007": (Izhikevich.regular_spiking_2007(), 100.0, 500)}
SLOTS = 6


def located(cell, current):
    """The spikes of each millisecond, under a current that is held from one to the next, in ten steps each."""
    held = stimuli.Sampled(jnp.concatenate([current[:1], current]), jnp.asarray(1.0), hold=True)
    how = {"dt": 0.1, "record": ["spikes"], "record_every": 1.0, "spike_gradient": Exact(), "throw": False}
    return simulate(cell, held, duration=float(len(current)), key=jax.random.key(0), **how).values["spikes"][:, 0]


def times(values, cell, current):
    changed = dataclasses.replace(cell, **dict(zip(NAMES, values, strict=True)))
    spikes = located(changed, current)
    return ordered_times(spikes, jnp.asarray([0, len(current)]), 1.0, SLOTS)[0]


@pytest.mark.parametrize("name", CELLS)
def test_spike_times_and_their_derivatives(x64, name):
    cell, amplitude, frames = CELLS[name]
    cell, current = double(cell), jnp.full(frames, amplitude).at[: frames // 10].set(0.0)
    values = jnp.stack([getattr(cell, n) for n in NAMES])
    function = jax.jit(lambda x: times(x, cell, current))
    wanted = reference(cell, np.asarray(current))[:SLOTS]
    assert len(wanted) == SLOTS
    np.testing.assert_allclose(function(values), wanted, atol=2e-3)  # a coarser step by half: 0.06 ms
    found = np.asarray(jax.jit(jax.jacfwd(function))(values))
    for k, value in enumerate(values):
        step = 1e-7 * max(abs(float(value)), 0.1)
        ends = [np.asarray(function(values.at[k].add(side * step))) for side in (-1, 1)]
        np.testing.assert_allclose(found[:, k], (ends[1] - ends[0]) / (2 * step), rtol=1e-5, atol=1e-6)


def reference(cell, current):
    """Spike times by an adaptive solver with events."""
    p = {n: float(getattr(cell, n)) for n in NAMES}
    held = np.concatenate([current[:1], current[:-1]])
    edges = [0, int(np.flatnonzero(np.diff(held))[0]) + 1, len(held)]
    y, found = [p["v_initial"], p["b"] * (p["v_initial"] - p["v_u"])], []

    def peak(t, y, drive):
        return y[0] - p["v_peak"]

    peak.terminal, peak.direction = True, 1

    def slope(t, y, drive):
        membrane = p["k"] * (y[0] - p["v_r"]) * (y[0] - p["v_t"]) - y[1] + drive
        return [membrane / p["capacitance"], p["a"] * (p["b"] * (y[0] - p["v_u"]) - y[1])]

    for begin, end in itertools.pairwise(edges):
        t = float(begin)
        while t < end:
            run = solve_ivp(slope, (t, end), y, events=peak, args=(held[begin],), rtol=1e-10, atol=1e-10)
            t, y = run.t[-1], list(run.y[:, -1])
            if run.status == 1:
                found.append(t)
                y = [p["c"], y[1] + p["d"]]
    return np.asarray(found)


def test_a_fit_by_exact_derivatives(x64):
    """The times of the spikes of two currents give the reset, and what is added to recovery, back."""
    truth, dt = double(Izhikevich(c=-60.0, d=6.0)), 1.0
    current = np.stack([np.full(120, 8.0), np.full(120, 12.0)])
    parts = np.stack([located(truth, jnp.asarray(i)) for i in current])
    # A potential whose rise, as objectives see it, is what the sum of the parts is.
    above = np.clip(parts, 1e-9, 1 - 1e-9)
    v = np.where(parts > 0, 4 * np.log(above / (1 - above)), -100.0)
    v[:, 1:] = np.where((parts[:, :-1] > 0) & (parts[:, 1:] > 0), 100.0, v[:, 1:])
    target = Target(v, current, np.asarray(1.0), None, dt, "pA")
    options = FitOptions(
        method=LeastSquares(starts=1, steps=12), objective=(OrderedSpikes(slots=8),), gradient="exact", noise_mv=1.0
    )
    guess = Izhikevich(c=-62.0, d=7.0)
    found = jneuro.fit(guess, target, {"c": (-70.0, -50.0), "d": (1.0, 12.0)}, key=jax.random.key(0), options=options)
    np.testing.assert_allclose(found.values, [-60.0, 6.0], rtol=1e-3)
    with pytest.raises(ValueError, match="gradient = exact is for cells that are reset, such as Izhikevich"):
        jneuro.fit(Pospischil(), target, ["g_na"], key=jax.random.key(0), options=options)
