"""Reference of the Hodgkin-Huxley neuron: LSODA at rtol 1e-9, atol 1e-11; and forward Euler in NumPy."""

from math import pi, sin

import numpy as np
from result import save
from scipy_hodgkin_huxley import INITIAL, field, solve

__all__ = []

AMPLITUDES = (0.0, 2.0, 5.0, 6.0, 7.0, 10.0, 20.0, 40.0, 80.0)
ONSET, DT, STEPS = 17.8, 0.05, 2560


def euler(dt, amplitude=20.0, duration=STEPS * DT):
    """Maxima above 0 mV of forward Euler, the current on from step 17.8 ms / dt."""
    y, v, onset = INITIAL, [INITIAL[0]], round(ONSET / dt)
    for k in range(round(duration / dt) - 1):
        y = y + dt * np.array(field(0, y, lambda t, on=k >= onset: amplitude * on))
        v.append(y[0])
    v = np.array(v)
    k = np.flatnonzero((v[1:-1] > v[:-2]) & (v[1:-1] >= v[2:]) & (v[1:-1] > 0)) + 1
    return v[k]


def main():
    """Steps of nine amplitudes, one sine as it is and held for 0.05 ms, and Euler's peaks."""
    times = np.arange(STEPS) * DT
    steps = [solve(lambda t, piece, i=i: i * piece, times, (ONSET,)) for i in AMPLITUDES]

    def sine(t):
        return 80 * sin(2 * pi * 0.1 * t)

    smooth = solve(lambda t, piece: sine(t), times)
    held = solve(lambda t, piece: sine(times[piece]), times, times[1:-1])
    states = np.stack([run[0].T for run in (*steps, smooth, held)])
    trains = [run[1] for run in (*steps, smooth, held)]
    save(
        {
            "solver": "LSODA", "rtol": 1e-9, "atol": 1e-11, "states": ["V", "m", "h", "n"], "E_L": -54.4, "dt": DT,
            "onset": ONSET, "spike": "upward crossing of 0 mV", "sine": "80 sin(2 pi 0.1 t), t in ms from 0",
            "runs": [*(f"step {i:g}" for i in AMPLITUDES), "sine", "sine held from k dt to (k + 1) dt"],
        },
        ["scipy"],
        amplitude=AMPLITUDES,
        v=states[:, :, 0].astype(np.float32),
        state_each_ms=states[:, ::20],
        spike_count=[len(s) for s in trains],
        spike_time=np.concatenate(trains),
        euler_peaks_05=euler(0.05),
        euler_peaks_01=euler(0.01),
        converged_peaks=peaks(steps[AMPLITUDES.index(20.0)][1]),
    )  # fmt: skip


def peaks(spikes):
    """Heights of the action potentials of the 20 µA/cm² step, sampled every 1 µs around each."""
    times = np.unique(np.round(np.concatenate([[0.0], *(s + np.arange(0, 1.5, 1e-3) for s in spikes)]), 4))
    times = times[times < STEPS * DT]
    v = solve(lambda t, piece: 20.0 * piece, times, (ONSET,))[0][0]
    return np.array([v[(times >= s) & (times < s + 1.5)].max() for s in spikes])


if __name__ == "__main__":
    main()
