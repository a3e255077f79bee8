"""A run that never happened: leaky integrate-and-fire voltages, and forecasts of known R²."""

import numpy as np
import pytest

from jneuro.evaluation import compare_estimates, compare_ratios
from jneuro.report import ReportData

HORIZONS = [1.0, 2.0, 5.0, 10.0]
CEILING = np.array([0.786, 0.60, 0.27, 0.08])
BASELINES = {
    "persistence": [0.61, 0.24, -0.64, -1.3],
    "ar": [0.66, 0.38, 0.03, 0.03],
    "var": [0.655, 0.37, 0.04, 0.03],
    "lookup": [0.760, 0.55, 0.19, 0.05],
}
MODELS = {
    "cnn_lstm": [0.741, 0.52, 0.17, 0.03],
    "compact": [0.7684, 0.57, 0.23, 0.06],
    "cnn_lstm (leaky split)": [0.7552, 0.55, 0.20, 0.06],
}


def _example(rng, neurons=100, excitatory=80, frames=1200):
    v, spikes = np.full((frames, neurons), -60.0), []
    v[0] += 5 * rng.normal(size=neurons)
    for t in range(1, frames):
        v[t] = v[t - 1] + (-56.0 - v[t - 1]) / 10 + 2.6 * rng.normal(size=neurons)
        fired = v[t] > -50
        v[t, fired] = -70
        spikes += [(800.0 + t, n) for n in np.flatnonzero(fired)]
    times, owners = np.array(spikes).T
    return {
        "time_ms": 800.0 + np.arange(frames),
        "v": v,
        "spike_time_ms": times,
        "spike_neuron": owners.astype(int),
        "n_excitatory": excitatory,
    }


def _forecast(rng, v, names, frames=300):
    ahead = [int(h) for h in HORIZONS]
    target = np.stack([v[100 + h : 100 + h + frames] for h in ahead], 1)
    prediction = {}
    for name in names:
        r2 = np.clip({**BASELINES, **MODELS}[name], 0.01, 1)[:, None]
        noise = np.sqrt(r2 * (1 - r2)) * v.std() * rng.normal(size=target.shape)
        prediction[name] = v.mean() + r2 * (target - v.mean()) + noise
    prediction["persistence"] = np.repeat(v[100 : 100 + frames, None], len(ahead), 1)
    return {"time_ms": 900.0 + np.arange(frames), "target": target, "prediction": prediction, "horizons_ms": HORIZONS}


def _score(rng, r2, best_baseline, neurons=100, **more):
    r2, sd = np.array(r2), 5.84
    per_neuron = r2[0] + 0.02 * np.linspace(-1, 1, neurons) + 0.004 * rng.normal(size=neurons)
    rmse = sd * np.sqrt(1 - r2)
    return {
        "r2": float(r2[0]),
        "r2_se": 0.0021,
        "rmse_z": float(np.sqrt(1 - r2[0])),
        "mae_z": float(0.7 * np.sqrt(1 - r2[0])),
        "rmse": float(rmse[0]),
        "mae": float(0.7 * rmse[0]),
        "share_of_ceiling": float(r2[0] / CEILING[0]),
        "skill": float(1 - (1 - r2[0]) / (1 - best_baseline)),
        "horizons_ms": HORIZONS,
        "per_horizon": {"r2": r2.tolist(), "rmse": rmse.tolist(), "mae": (0.7 * rmse).tolist()},
        "per_neuron": {"r2": per_neuron.tolist(), "rmse": (sd * np.sqrt(1 - per_neuron)).tolist()},
        **more,
    }


def _metrics(rng):
    cost = {
        "cnn_lstm": (2_188_168, 4211.0),
        "compact": (38_420, 41.3),
        "cnn_lstm (leaky split)": (2_188_168, 4302.0),
    }
    test = {
        name: _score(rng, r2, 0.76, parameters=cost[name][0], train_seconds=cost[name][1], leaky="leaky" in name)
        for name, r2 in MODELS.items()
    }
    for found in test.values():
        found["comparison"] = compare_ratios(*(np.array([0.98, 1.0, 1.02, 1.0]) * [[found["r2"] - 0.76], [1.0]]))
    test["cnn_lstm (leaky split)"]["leak"] = compare_estimates(0.7552, 0.741, (0.0021, 0.0021), n=20)
    test["compact"]["seeds"] = {"r2": [0.7684, 0.7677, 0.7682], "mean": 0.7681, "ci95": 0.0009}
    ceiling = {"r2": 0.786, "se": 0.0017, "futures": 64, "samples": 40_000}
    ceiling["per_horizon"] = {"r2": CEILING.tolist(), "se": [0.0017, 0.003, 0.004, 0.004]}
    ceiling["per_neuron"] = {"r2": (0.786 + 0.02 * np.linspace(-1, 1, 100) + 0.004 * rng.normal(size=100)).tolist()}
    recording = {"rate_hz": 30.2, "rate_e_hz": 29.1, "rate_i_hz": 31.4, "isi_cv": 0.40, "v_mean": -57.8, "v_sd": 5.84}
    recording |= {"v_min": -79.0, "v_max": -47.7, "runs": 50, "duration_ms": 10_000.0}
    windows = {"length": 150, "stride": 15, "horizons_ms": HORIZONS, "split": "run", "targets": {"v": "mV"}}
    windows["counts"] = {"train": 24_120, "validation": 3015, "test": 3015}
    windows["runs"] = {"train": list(range(40)), "validation": list(range(40, 45)), "test": list(range(45, 50))}
    baselines = {name: _score(rng, r2, 0.76) for name, r2 in BASELINES.items()}
    return {"test": test, "baselines": baselines, "ceiling": ceiling, "recording": recording, "windows": windows}


def _history(rng, metrics, epochs=40):
    error = {name: 1 - np.mean(r2) for name, r2 in MODELS.items()}
    decay = np.exp(-np.arange(epochs) / 4)
    return {
        name: [
            {
                "epoch": e,
                "step": 754 * (e + 1),
                "train_loss": float(error[name] - 0.0008 * e + 0.6 * decay[e] + 0.002 * rng.normal()),
                "validation_loss": float(error[name] + 0.55 * decay[e] + 0.004 * rng.normal()),
                "learning_rate": 3e-3,
                "seconds": 1.0,
            }
            for e in range(epochs)
        ]
        for name in metrics["test"]
    }


@pytest.fixture(scope="session")
def data():
    """A complete run; tests take parts away with `dataclasses.replace`."""
    rng = np.random.default_rng(0)
    metrics, example = _metrics(rng), _example(rng)
    run = {
        "name": "brunel100",
        "hash": "9f3ac1d2",
        "jneuro_version": "0.1.0",
        "versions": {"python": "3.12.3", "jax": "0.11.2", "flax": "0.12.12"},
        "device": "cpu, 2 cores",
        "started": "2026-05-09T07:35:25+00:00",
        "seconds": {"simulate": 31.2, "train": 8554.3, "evaluate": 12.0, "ceiling": 140.5},
        "total_seconds": 8738.0,
        "git_commit": None,
        "command": "jneuro run configs/brunel100.yaml train.seed=3",
    }
    config = "name: brunel100\nnote: '5 < 6 & <script>alert(1)</script>'\n" + "a: 1\n" * 60
    forecast = _forecast(rng, example["v"], ["lookup", *MODELS])
    return ReportData(run, config, metrics, _history(rng, metrics), example, forecast)
