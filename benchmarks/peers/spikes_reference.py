"""Reference of spikes: eFEL's features of the traces in tests/reference/traces.npz; metrics of Elephant and PySpike."""

import sys
from pathlib import Path

import efel
import neo
import numpy as np
import pyspike
import quantities as pq
from elephant.spike_train_dissimilarity import van_rossum_distance, victor_purpura_distance
from result import save

__all__ = []

FEATURES = (
    "Spikecount", "Spikecount_stimint", "time_to_first_spike", "ISI_CV", "adaptation_index", "AP_begin_voltage",
    "AP_amplitude", "AP_duration_half_width", "AHP_depth", "voltage_base", "ohmic_input_resistance_vb_ssse",
)  # fmt: skip
LENGTH, TAU, COSTS = 100.0, (2.0, 10.0), (0.0, 0.1, 1.0)


def features():
    """Means of eFEL's features, its threshold being 0 mV; NaN where it has none."""
    data = np.load(Path(sys.argv[1]).parent / "traces.npz")
    efel.reset()
    efel.set_setting("Threshold", 0.0)
    efel.set_setting("strict_stiminterval", True)
    efel.set_setting("spike_skipf", 0.0)
    found = []
    for v, amplitude in zip(data["v"].astype(float), data["amplitude"], strict=True):
        trace = {
            "T": data["dt"] * np.arange(len(v)), "V": v, "stim_start": [data["onset"] - data["dt"]],
            "stim_end": [data["end"] - data["dt"]], "stimulus_current": [float(amplitude)],
        }  # fmt: skip
        (values,) = efel.get_feature_values([trace], list(FEATURES), raise_warnings=False)
        found.append([np.nan if values[n] is None or not len(values[n]) else np.mean(values[n]) for n in FEATURES])
    return np.array(found)


def trains():
    """Pairs of trains: odd ones, and random ones."""
    yield from (([], []), ([40.0], [43.0]), ([20.0, 60.0], []), ([10.0, 30.0, 70.0], [10.0, 30.0, 70.0]))
    yield from (([10.0, 30.0, 70.0], [10.0, 31.0, 50.0, 72.0]), ([50.0, 52.0, 54.0], [20.0, 53.0, 90.0]))
    rng = np.random.default_rng(0)
    for sizes in ((5, 7), (12, 12), (30, 9), (1, 20)):
        yield tuple(np.sort(rng.uniform(0, LENGTH, n)).round(3).tolist() for n in sizes)


def main():
    """All pairs, one behind the other; Elephant's van Rossum needs spikes in both trains."""
    pairs, metrics = list(trains()), []
    for pair in pairs:
        a, b = (pyspike.SpikeTrain(np.array(x), [0, LENGTH]) for x in pair)
        both = [neo.SpikeTrain(np.array(x) * pq.ms, t_start=0 * pq.ms, t_stop=LENGTH * pq.ms) for x in pair]
        rossum = [van_rossum_distance(both, time_constant=t * pq.ms)[0, 1] if all(pair) else np.nan for t in TAU]
        purpura = [victor_purpura_distance(both, cost_factor=c / pq.ms)[0, 1] for c in COSTS]
        metrics.append([pyspike.isi_distance(a, b), pyspike.spike_distance(a, b), *rossum, *purpura])
    save(
        {"features": FEATURES, "length": LENGTH, "tau": TAU, "costs": COSTS, "threshold": 0.0},
        ["efel", "elephant", "pyspike", "neo", "quantities"],
        features=features(),
        metrics=np.array(metrics, float),
        sizes=np.array([[len(x) for x in pair] for pair in pairs]),
        times=np.concatenate([np.array(x) for pair in pairs for x in pair]),
    )


if __name__ == "__main__":
    main()
