"""Make tests/reference/traces.npz: potentials of our own cells under steps, whose features peers and we compute."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jneuro as jn

__all__ = []

CELLS = {  # currents
    "hodgkin_huxley": (jn.simulators.HodgkinHuxley, [-5.0, 3.0, 6.5, 8.0, 12.0, 20.0, 40.0]),
    "pospischil": (jn.simulators.Pospischil, [-100.0, 50.0, 150.0, 200.0, 250.0, 300.0, 400.0, 600.0]),
    "ca1": (jn.simulators.CA1Pyramidal, [-0.5, 0.3, 0.6, 1.0, 1.5, 2.0]),
}
ONSET, END, DURATION, DT = 100.0, 350.0, 400.0, 0.1


def main():
    """A step of 250 ms, in half precision: that is how peers and we see it."""
    potentials, names, amplitudes = [], [], []
    for name, (make, currents) in CELLS.items():
        step = jn.stimuli.Step(jnp.asarray(currents), onset=ONSET, end=END)
        seen = jn.simulate(make(), step, duration=DURATION, record=("v",), record_every=DT, key=jax.random.key(0))
        potentials.append(np.asarray(seen["v"], np.float16).T)
        names += [name] * len(currents)
        amplitudes += currents
    where = Path(__file__).resolve().parents[1] / "tests" / "reference" / "traces.npz"
    v = np.concatenate(potentials)
    np.savez_compressed(where, v=v, cell=names, amplitude=amplitudes, onset=ONSET, end=END, dt=DT)


if __name__ == "__main__":
    main()
