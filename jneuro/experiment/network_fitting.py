"""The fit of a network: its features from the recording, and again at other truths."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jneuro.core.config import ConfigError
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Key
from jneuro.experiment.fit_plan import FitPlan
from jneuro.experiment.folder import RunFolder
from jneuro.fitting.config import chosen
from jneuro.fitting.network_fit import FeatureFit, fit_features
from jneuro.fitting.networks import FEATURE_NAMES, FeatureTarget, simulate_features
from jneuro.fitting.uncertainty import Intervals, local_intervals
from jneuro.recordings.store import read_recording

__all__ = ["fit_network"]


def fit_network(plan: FitPlan, folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Fit a network to the features of recorded runs, and to those of simulations at other truths.

    Args:
        plan: the fit.
        folder: of the run; metrics.json and fit.zarr are written to it.
        tell: told what begins.

    Raises:
        ConfigError: if the recording cannot be fitted.
    """
    config = plan.config
    key = jax.random.key(config.seed)
    targets = [(plan.truth, _recorded(plan, folder))]
    tell(f"features: {len(config.truths)} other truths")
    for i, truth in enumerate(config.truths):
        targets.append((truth, _made(plan, truth, targets[0][1], stream(key, f"truth {i}"))))
    found: list[tuple[Any, FeatureFit, Intervals]] = []
    for i, (truth, target) in enumerate(targets):
        tell(f"fit: features, {i + 1} of {len(targets)}")
        found.append((truth, *_fit(plan, target, stream(key, f"fit {i}"))))
    _, fit, certain = found[0]
    target = targets[0][1]
    metrics = {
        "fit": _about(found, target.duration),
        "parameters": _parameters(*found[0]),
        "identifiability": certain.table(),
        "baselines": [],
        "recording": {"trials": len(target.features), "duration_ms": target.duration, "dt_ms": target.dt},
        "network": {
            "features": list(FEATURE_NAMES),
            "observed": np.asarray(target.features).mean(0).tolist(),
            "standard_error": (np.asarray(target.features).std(0, ddof=1) / len(target.features) ** 0.5).tolist(),
            "fitted": fit.features.mean(0).tolist(),
            "deviations": _deviations(found),
            "degrees_of_freedom": len(FEATURE_NAMES) - len(fit.values),
            "points": [
                {
                    "parameters": _parameters(truth, one, sure),
                    "chi2": one.chi2,
                    "p_value": one.p_value,
                    "agreeing": one.agreeing,
                    "ok": one.ok,
                    "reason": one.reason,
                    "simulated_s": one.simulated_s,
                }
                for truth, one, sure in found
            ],
        },
    }
    history = np.asarray(fit.coarse.history)
    arrays = {
        "features": (("trial", "feature"), np.asarray(target.features)),
        "fitted_features": (("run", "feature"), fit.features),
        "fit_cost": (("fit_start",), np.asarray(fit.coarse.cost)),
        "fit_history": (("fit_start", "fit_iteration"), history),
        "fit_values": (("fit_start", "unknown"), np.asarray(jax.vmap(fit.trainable.constrain)(fit.coarse.q))),
    }
    folder.save("fit.zarr", xr.Dataset(arrays))
    folder.save("metrics.json", metrics)


def _recorded(plan: FitPlan, folder: RunFolder) -> FeatureTarget:
    """The features of the recorded runs, cut as the configuration says."""
    config = plan.config
    path = plan.recording(folder)
    try:
        if config.recording and not config.recording.is_store:
            recording = config.recording.read()
        else:
            recording = read_recording(path, ("spikes",))
        spikes: Any = np.asarray(recording.values["spikes"])
        first, last = (round(ms / recording.dt) for ms in config.cut_ms or (0, recording.frames * recording.dt))
        if last > recording.frames:
            raise ValueError(f"cut_ms: the recording ends at {recording.frames * recording.dt:g} ms")
        return FeatureTarget.of(spikes[chosen(config.train, len(spikes)), first:last], recording.dt)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _made(plan: FitPlan, truth: dict[str, float], like: FeatureTarget, key: Key[Array, ""]) -> FeatureTarget:
    """Features of as many and as long runs at another truth."""
    config, trainable = plan.config, plan.trainable  # that of the fit: one program for both
    assert config.simulation is not None  # the configuration saw to it
    simulator: Any = config.simulation.simulator.build()
    options: Any = config.fit.method
    keys = trial_keys(key, len(like.features))
    q = np.asarray(trainable.unconstrain(jnp.asarray([truth[name] for name in trainable.names])))
    warmup = config.cut_ms[0] if config.cut_ms else 0.0
    how: dict[str, Any] = {"duration": like.duration, "warmup": warmup, "dt": like.dt, "trainable": trainable}
    every = np.tile(q, (len(keys), 1))
    return like._replace(features=simulate_features(simulator, keys, q=every, batch=options.batch, **how))


def _fit(plan: FitPlan, target: FeatureTarget, key: Key[Array, ""]) -> tuple[FeatureFit, Intervals]:
    """One fit and its intervals."""
    simulator: Any = plan.simulator
    options: Any = plan.config.fit.method  # the configuration saw to it that they suit each other
    found = fit_features(simulator, target, plan.trainable, key=key, options=options)
    root, q = jnp.linalg.inv(jnp.linalg.cholesky(jnp.asarray(found.covariance))), jnp.asarray(found.q)
    # Residuals of which it is the covariance.
    return found, local_intervals(found.trainable.names, lambda x: root @ (x - q), found.trainable.constrain, q)


def _parameters(truth: dict[str, float] | None, found: FeatureFit, certain: Intervals) -> dict[str, dict[str, Any]]:
    """Every fitted value with its interval, and the truth where it is known."""
    return {
        name: {"value": float(value), "se": float(error), "truth": (truth or {}).get(name)}
        for name, value, error in zip(found.trainable.names, found.values, certain.standard_errors, strict=True)
    }


def _deviations(found: list[tuple[Any, FeatureFit, Intervals]]) -> dict[str, float] | None:
    """Errors of all values at all truths in units of their standard errors; their size is 1 if these are right."""
    known = [
        (value - truth[name]) / error
        for truth, one, sure in found
        if truth
        for name, value, error in zip(one.trainable.names, one.values, sure.standard_errors, strict=True)
    ]
    z = np.asarray(known)
    return None if not known else {"rms": float(np.sqrt(np.mean(z * z))), "largest": float(np.abs(z).max())}


def _about(found: list[tuple[Any, FeatureFit, Intervals]], duration: float) -> dict[str, Any]:
    """What the method did, at the first truth."""
    _, fit, _ = found[0]
    count = len(FEATURE_NAMES)
    return {
        "method": "features",
        "ok": fit.ok,
        "reason": fit.reason,
        "data_cost": fit.chi2 / (count - len(fit.values)),
        "starts": len(fit.coarse.cost),
        "agreeing": fit.agreeing,
        "simulations": fit.simulated_s * 1e3 / duration,
        "seconds": float(np.median([one.seconds for _, one, _ in found[1:] or found])),
        "compiled": len(found) > 1,
        "first_seconds": fit.seconds,
        "accepted": sum(one.ok for _, one, _ in found),
        "fits": len(found),
        "values": dict(zip(fit.trainable.names, map(float, fit.values), strict=True)),
    }
