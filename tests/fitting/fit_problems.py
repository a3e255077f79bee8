"""Small problems with known answers, and what the tests of fits share."""

from functools import cache

import jax
import numpy as np

from jneuro.fitting import Trials
from jneuro.recordings import Recording
from jneuro.simulators import HodgkinHuxley, simulate, solvers, stimuli

__all__ = ["CELL", "FRAMES", "STEP_MS", "recording", "spiking_target"]

STEP_MS = 0.1
FRAMES = 150
CELL = {"g_na": 120.0, "g_k": 36.0, "g_l": 0.3, "c_m": 1.0}


def recording(v, current, *, v_unit="mV", current_unit="µA/cm²", dt=STEP_MS):
    """A recording of arrays, as a reader would give it."""
    frames = next(n for n in np.shape(v) if n > 1) if np.ndim(v) == 1 else np.shape(v)[1]
    return Recording(
        values={"v": v} if current is None else {"v": v, "current": current},
        ok=np.asarray(True),
        first_step=np.asarray(0),
        final_state=None,
        step=dt,
        record_every=1,
        frames=frames,
        unit_pairs=(("v", v_unit), *([] if current is None else [("current", current_unit)])),
    )


@cache
def _clean():
    """Two trials of 15 ms, with one spike each, in double precision."""
    with jax.enable_x64(True):
        cell = HodgkinHuxley(c_m=np.asarray(1.0))
        step = stimuli.Step(np.asarray([10.0, 25.0]), onset=2.0, end=12.0)
        made = simulate(
            cell,
            step,
            duration=STEP_MS * FRAMES,
            dt=STEP_MS / 4,
            record_every=STEP_MS,
            solver=solvers.RK4(),
            record=("v", "current"),
            key=jax.random.key(0),
        )
        return np.asarray(made.values["v"]).T, np.asarray(made.values["current"]).T


def spiking_target(trials=1, noise=0.5, seed=0):
    """Potentials of a Hodgkin–Huxley cell with white noise; without, residuals are still in half millivolts."""
    v, current = (x[:trials] for x in _clean())
    v = v + noise * np.random.default_rng(seed).standard_normal(v.shape)
    return Trials.of(recording(v, current), noise_sd=noise or 0.5)
