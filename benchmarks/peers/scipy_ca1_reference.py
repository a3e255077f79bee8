"""Reference of the CA1 neuron: LSODA at rtol 1e-9, atol 1e-11."""

import numpy as np
from result import save
from scipy_ca1 import STATES, solve

__all__ = []

TRACED = (0.22, 0.3, 0.5, 0.79, 2.0, 2.3, 3.0)
TIMED = (0.22, 0.23, 0.24, 0.3, 0.5, 0.7, 0.79, 1.0, 1.5, 2.0, 2.2, 2.3, 3.0)


def irregularity(spikes):
    """CV of the intervals after 300 ms; NaN below three spikes."""
    late = spikes[spikes >= 300]
    return np.diff(late).std() / np.diff(late).mean() if len(late) > 2 else np.nan


def main():
    """Traces, spike times, and the rate against the current."""
    times = np.arange(1001) * 0.1
    traces = np.stack([solve(current, 100.0, times)[0].T for current in TRACED])
    spikes = [solve(current, 1000.0)[1] for current in TIMED]
    # A second tolerance tells where a count is a property of the model and where one of the solver.
    finer = [solve(current, 1000.0, rtol=1e-11, atol=1e-13)[1] for current in TIMED]
    f_i = np.round(np.linspace(0, 3, 61), 10)
    trains = [solve(current, 1000.0)[1] for current in f_i]
    save(
        {"solver": "LSODA", "rtol": 1e-9, "atol": 1e-11, "states": STATES, "spike": "upward crossing of 0 mV"},
        ["scipy"],
        trace_current=TRACED,
        trace=traces.astype(np.float32),
        state_each_ms=traces[:, ::10],
        spike_current=TIMED,
        spike_count=[len(s) for s in spikes],
        spike_count_finer=[len(s) for s in finer],
        spike_time=np.concatenate(spikes),
        late_count=[(s >= 500).sum() for s in spikes],
        late_count_finer=[(s >= 500).sum() for s in finer],
        cv=[irregularity(s) for s in spikes],
        f_i_current=f_i,
        f_i_count=[len(s) for s in trains],
        f_i_late_count=[(s >= 500).sum() for s in trains],
        f_i_cv=[irregularity(s) for s in trains],
        f_i_first_spike=[s[0] if len(s) else np.nan for s in trains],
    )


if __name__ == "__main__":
    main()
