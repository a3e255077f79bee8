"""eFEL's features of the traces in an .npz file, into another: [trace, feature], means over spikes."""

import json
import sys

import efel
import numpy as np

__all__ = []


def main(source, target):
    """Traces of different lengths lie behind each other; each has its own threshold."""
    data = np.load(source)
    names, found = json.loads(str(data["names"])), []
    for i, v in enumerate(np.split(data["v"].astype(float), np.cumsum(data["sizes"])[:-1])):
        efel.reset()
        efel.set_setting("Threshold", float(data["threshold"][i]))
        efel.set_setting("strict_stiminterval", True)
        efel.set_setting("spike_skipf", 0.0)
        dt = float(data["dt"][i])
        trace = {
            "T": dt * np.arange(len(v)), "V": v, "stim_start": [float(data["onset"][i]) - dt],
            "stim_end": [float(data["end"][i]) - dt], "stimulus_current": [float(data["change"][i])],
        }  # fmt: skip
        (values,) = efel.get_feature_values([trace], names, raise_warnings=False)
        found.append([np.nan if values[n] is None or not len(values[n]) else np.mean(values[n]) for n in names])
    np.savez(target, features=np.array(found, float))


if __name__ == "__main__":
    main(*sys.argv[1:])
