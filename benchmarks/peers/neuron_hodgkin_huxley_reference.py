"""Reference of the Hodgkin-Huxley neuron: NEURON's `hh`, CVODE, five steps of current."""

import numpy as np
from neuron import h
from neuron_hodgkin_huxley import CONSTANTS, cell, clamp, run
from result import save

__all__ = []

AMPLITUDES, ONSET, DURATION, DT = (2.0, 7.0, 10.0, 20.0, 40.0), 10.0, 110.0, 0.05


def main():
    """One cell at a time: CVODE adapts its steps to what it integrates."""
    traces, trains = [], []
    for amplitude in AMPLITUDES:
        section = cell()
        stimulus = clamp(section, amplitude, ONSET)
        names = ("v", "m_hh", "h_hh", "n_hh")
        states = [h.Vector().record(getattr(section(0.5), f"_ref_{name}"), DT) for name in names]
        connection, train = h.NetCon(section(0.5)._ref_v, None, sec=section), h.Vector()
        connection.threshold = 0.0
        connection.record(train)
        run(DURATION, None)
        traces.append(np.transpose([np.array(state) for state in states]))
        trains.append(np.array(train))
        del stimulus
    traces = np.stack(traces)
    settings = CONSTANTS | {
        "solver": "CVODE, 1e-10", "usetable_hh": 0, "onset": ONSET, "dt": DT, "states": ["V", "m", "h", "n"],
        "spike": "upward crossing of 0 mV",
    }  # fmt: skip
    save(
        settings,
        ["neuron"],
        amplitude=AMPLITUDES,
        v=traces[:, :, 0].astype(np.float32),
        state_each_ms=traces[:, :: round(1 / DT)],
        spike_count=[len(t) for t in trains],
        spike_time=np.concatenate(trains),
    )


if __name__ == "__main__":
    main()
